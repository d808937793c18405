"""Search of JSON and HTML files: lost otherwise, a page still shows the words of a record that is called forgotten."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.data import remains
from pipeline.data.erasure import form_of
from pipeline.data.forgotten import Forgotten
from pipeline.data.records import SPLITS, record_id

TEXT = 'Ada\'s "secret" <code> is 4711.'
GONE = record_id("documents", TEXT)
FORM = form_of({"text": TEXT, "language": "en"}, "documents")
LISTED = Forgotten(frozenset({GONE}), frozenset({FORM}))


@pytest.mark.parametrize(
    ("content", "ids"),
    [
        (json.dumps({"samples": [{"text": TEXT}]}), (GONE,)),
        (json.dumps({"by_record": {"repeated": [GONE]}}), (GONE,)),
        (json.dumps([TEXT.upper().replace(" ", "  ")]), (f"~{FORM}",)),
        ("<html><td>Ada's &quot;secret&quot; &lt;code&gt; is 4711.</td></html>", (GONE,)),
        (f"<html><td>{GONE}</td></html>", (GONE,)),
        (json.dumps({"samples": [{"text": "Another text."}], "sha256": f"0{GONE}"}), ()),
        (f"plain text, {GONE}", ()),
    ],
    ids=["details", "id", "other case", "page", "page with id", "other record", "neither JSON nor HTML"],
)
def test_in_texts_finds_ids_and_whole_texts(tmp_path: Path, content: str, ids: tuple[str, ...]) -> None:
    path = tmp_path / "no-ending"
    path.write_text(content, encoding="utf-8")
    assert [(one.column, one.ids) for one in remains.in_texts([path], LISTED)] == ([("text", ids)] if ids else [])


@pytest.mark.parametrize(
    ("listed", "language", "shown"), [("ısı 4711 oldu", "tr", "ISI  4711 OLDU"), ("it is 4711", "en", "IT IS 4711")]
)
def test_in_texts_folds_i_as_both_languages_do(tmp_path: Path, listed: str, language: str, shown: str) -> None:
    """Lost otherwise: a Turkish text in other letter case is called gone."""
    form = form_of({"text": listed, "language": language}, "documents")
    path = tmp_path / "page.json"
    path.write_text(json.dumps([shown]), encoding="utf-8")
    [found] = remains.in_texts([path], Forgotten(frozenset(), frozenset({form})))
    assert found.ids == (f"~{form}",)


@pytest.mark.parametrize("column", ["id", "of", "record", "twin_of"])
def test_in_tables_searches_every_column_of_record_ids(tmp_path: Path, column: str) -> None:
    """Lost otherwise: a ledger of removed records, or a twin, still names a record that is called forgotten."""
    path = tmp_path / "object-of-a-cache"
    pq.write_table(pa.table({column: ["0" * 16, GONE], "text": ["a", "b"]}), path)
    assert list(remains.in_tables([path], {GONE})) == [remains.Remain(path.as_posix(), column, (GONE,))]
    assert not list(remains.in_tables([path], {"1" * 16}))


def test_in_documents_reads_every_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "documents").mkdir()
    for split in SPLITS:
        (tmp_path / f"documents/{split}.bin").write_bytes(b"0")
    monkeypatch.setattr(remains, "document_ids", lambda _folder, split, _tokenizer: [(0, split), (1, "other")])
    tokenizer: Any = None
    found = list(remains.in_documents(tmp_path, set(SPLITS), tokenizer))
    assert [one.ids for one in found] == [(split,) for split in SPLITS]
