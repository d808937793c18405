"""`tohum try` guesses; a wrong or silent guess would show a user somebody else's result."""

import gzip
import json
from pathlib import Path

import pytest
import yaml

from pipeline import config
from pipeline.errors import UserError
from pipeline.paths import INPUTS
from pipeline.studies.guess import guess
from pipeline.studies.workspace import lenient, params

ROWS = [{"v1": "spam" if i % 3 else "ham", "v2": f"mesaj numarası {i}, uzun bir metin", "n": str(i)} for i in range(30)]
QA = [{"question": f"Soru {i}?", "answer": f"Cevap {i}"} for i in range(5)]


def csv_of(rows: list[dict[str, str]], delimiter: str = ",") -> str:
    head = delimiter.join(rows[0])
    return "\n".join([head, *(delimiter.join(f'"{v}"' for v in row.values()) for row in rows)]) + "\n"


@pytest.mark.parametrize(
    ("name", "content", "kind", "columns"),
    [
        ("a.txt", "Bir metin.\n", "documents", {}),
        ("a.csv", csv_of(ROWS), "labelled", {"text": "v2", "label": "v1"}),
        ("b.csv", csv_of(ROWS, ";"), "labelled", {"text": "v2", "label": "v1"}),
        ("a.tsv", "ham\tGel artık eve\nspam\tÖdül kazandın hemen ara\n" * 5, "labelled", {"text": "1", "label": "0"}),
        ("a.json", json.dumps(QA), "instructions", {"instruction": "question", "output": "answer"}),
        ("a.jsonl", "\n".join(map(json.dumps, QA)), "instructions", {"instruction": "question", "output": "answer"}),
        ("p.json", json.dumps([{"prompt": "a", "chosen": "b", "rejected": "c"}] * 3), "preferences",
         {"instruction": "prompt", "chosen": "chosen", "rejected": "rejected"}),
        ("c.csv", "text\nbir\niki\n", "documents", {"text": "text"}),
    ],
)  # fmt: skip
def test_guess_finds_columns_and_tells_each(tmp_path: Path, name: str, content: str, kind: str, columns: dict) -> None:
    path = tmp_path / name
    path.write_text(content, encoding="utf-8")
    found = guess(path)
    assert (found.kind, found.columns) == (kind, columns)
    assert all(any(column in sentence for sentence in found.sentences) for column in columns.values())
    config.check(params(INPUTS / name, found))


def test_guess_reads_gzip(tmp_path: Path) -> None:
    path = tmp_path / "a.csv.gz"
    path.write_bytes(gzip.compress(csv_of(ROWS).encode()))
    assert guess(path).kind == "labelled"


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [("a.docx", "x", "ending .docx"), ("a.json", "{", "line 1: found 'the end of the file'; expected a key"), ("a.csv", "x\n", "holds no record"),
     ("a.json", json.dumps([{"n": 3}]), "columns found: n")],
)  # fmt: skip
def test_guess_raises_user_error_when_nothing_can_be_recognised(
    tmp_path: Path, name: str, content: str, words: str
) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match=words):
        guess(tmp_path / name)
    with pytest.raises(UserError, match="no such file"):
        guess(tmp_path / "missing.csv")


def test_lenient_opens_every_bound_of_the_gates() -> None:
    raw = yaml.safe_load(Path("infra/profiles/embedded.yaml").read_text(encoding="utf-8"))
    opened = lenient(raw["gates"])
    assert opened["raw"]["max_personal"]["email"] == 10**9
    assert opened["raw"]["max_duplicate_share"] == 1.0
    assert opened["raw"]["language"]["min_share"] == {}
    assert opened["tokens"]["bytes_per_token"] == {"at_least": 0.0, "at_most": 10.0**9}
    assert opened["samples"]["min_records"] == {"train": 0, "validation": 0, "test": 0}
    assert opened["samples"]["overlap"]["near"] == raw["gates"]["samples"]["overlap"]["near"]
