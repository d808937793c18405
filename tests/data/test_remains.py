"""Search of JSON and HTML files: lost otherwise, a page still shows the words of a record that is called forgotten."""

import json
from pathlib import Path

import pytest

from pipeline.data import remains
from pipeline.data.erasure import form_of
from pipeline.data.forgotten import Forgotten
from pipeline.data.records import record_id

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
