"""A round of ratings: keys, undo, a file that grows by whole lines, and the same records as the journal gives."""

import io
import json
import os
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from pipeline.data import snapshot
from pipeline.data.journal import Journal
from pipeline.data.ledger import RowLog
from pipeline.data.sources import journal as source
from pipeline.errors import UserError
from pipeline.rating import ratings_file
from pipeline.rating.pairs import Model
from pipeline.wording import read
from tests.commands import tohum
from tests.rating.conftest import write_records

TO = Path("inputs/ratings-1.jsonl")
WORDS = ("rate", "chat-full", "--max-tokens", "2", "--rater", "ayşe")


def rate(keys: str, monkeypatch: pytest.MonkeyPatch, *more: str) -> int:
    monkeypatch.setattr("sys.stdin", io.StringIO("".join(f"{key}\n" for key in keys.split("|"))))
    return tohum(*WORDS, *more)


def standing() -> dict[str, Any]:
    """Request -> form and value of its rating, None without one; the last line of a request counts."""
    lines = [json.loads(line) for line in TO.read_text(encoding="utf-8").splitlines()]
    last = {line["id"]: line["ratings"] for line in lines}
    return {key: (found[0]["form"], found[0]["value"]) if found else None for key, found in last.items()}


def test_rate_takes_keys_and_continues_where_it_ended(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert rate("1|x|2|q", monkeypatch, "--count", "4") == 0
    out = capsys.readouterr().out
    assert "1 of 4" in out
    assert "3 of 4" in out
    assert "x: no such key" in out
    assert "2 of 4 rated" in out
    words = ["tohum", "rate", "chat-full", "--to", "inputs/ratings-1.jsonl", "--rater", "ayşe", "--max-tokens", "2"]
    assert f"{shlex.join(words)} --count 4 " in out  # with other options it would be another round
    assert f"{shlex.join(words)} --count 2 --write" in out
    assert list(standing().values()) == [("choice", 0), ("choice", 1)]
    assert rate("t|c|Daha iyi\\nyanıt", monkeypatch, "--count", "4") == 0
    out = capsys.readouterr().out
    assert "3 of 4" in out
    assert "1 of 4" not in out
    assert list(standing().values())[2:] == [("choice", "tie"), ("correction", "Daha iyi\nyanıt")]
    assert len(TO.read_text(encoding="utf-8").splitlines()) == 4
    assert all(not isinstance(line, str) for _, line in snapshot.read(TO))
    assert rate("q", monkeypatch, "--count", "4") == 0
    assert "4 of 4 rated" in capsys.readouterr().out


def test_rate_takes_back_decisions_of_this_and_an_earlier_sitting(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rate("1|q", monkeypatch)
    rate("s|2|u|u|u|u|2|q", monkeypatch)  # 2, the skip and the 1 are taken back; nothing is left for the fourth
    assert list(standing().values()) == [("choice", 1), None]


def test_rate_shows_no_pair_that_was_judged_before(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lost otherwise: a round repeats records of another source, and the gate on duplicates stops it."""

    def shown() -> list[tuple[str, frozenset[str]]]:
        lines = [json.loads(line) for line in TO.read_text(encoding="utf-8").splitlines()]
        return [(one["messages"][0]["content"], frozenset(each["text"] for each in one["answers"])) for one in lines]

    rate("1|1|1|q", monkeypatch)
    first = shown()
    rows = [{"instruction": text, "chosen": min(pair), "rejected": max(pair)} for text, pair in first]
    write_records("preferences", "train", rows)
    TO.unlink()
    rate("1|1|1|q", monkeypatch)
    assert len(shown()) == 3
    assert not set(shown()) & set(first)
    rate("u|q", monkeypatch)  # a pair that would not be drawn again is taken back too
    assert list(standing().values()).count(None) == 1


def test_rate_asks_skipped_prompts_again_in_the_next_sitting(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rate("s|q", monkeypatch)
    first = capsys.readouterr().out.split("Prompt\n")[1:]
    assert "1 prompt was skipped" in first[-1]
    rate("1|q", monkeypatch)
    assert capsys.readouterr().out.split("Prompt\n")[1].split("\n")[0] == first[0].split("\n")[0]


def test_rate_speaks_turkish(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = Path("params.yaml").read_text(encoding="utf-8")
    Path("params.yaml").write_text(text.replace("  language: en", "  language: tr"), encoding="utf-8")
    rate("b|d|güzel|a|g|1|ç", monkeypatch, "--count", "5")
    out = capsys.readouterr().out
    assert "3 / 5" in out
    assert "1. yanıt" in out
    assert list(standing().values()) == [("choice", "tie"), ("correction", "güzel"), ("choice", 0)]


def test_words_are_the_same_in_both_languages() -> None:
    tables = [read(Path(ratings_file.__file__).parent / f"words/{name}.yaml", name).table for name in ("en", "tr")]
    assert [sorted(table) for table in tables] == [sorted(tables[0])] * 2
    fields = [{key: set(re.findall(r"\{(\w+)\}", text)) for key, text in table.items()} for table in tables]
    assert fields[0] == fields[1]


def test_rate_ends_as_quit_where_the_input_ends(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert rate("1|c", monkeypatch) == 0  # after c comes no correction
    assert list(standing().values()) == [("choice", 0)]


def test_rate_shows_no_control_characters(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Lost otherwise: an answer that clears the screen, or that shows its text in reverse."""
    Path("inputs").mkdir(exist_ok=True)
    Path("inputs/prompts.txt").write_text("Say \x1b[2J\u202eabc\n" * 3 + "Say b\n", encoding="utf-8")
    rate("q", monkeypatch, "--prompts", "inputs/prompts.txt")
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "\u202e" not in out


def test_rate_says_where_prompts_run_out(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("inputs").mkdir(exist_ok=True)
    Path("inputs/prompts.csv").write_text("prompt\n" + "\n".join(f"Say {n}" for n in range(6)), encoding="utf-8")
    assert rate("1|" * 9, monkeypatch, "--prompts", "inputs/prompts.csv", "--count", "9") == 1
    assert "No further prompt is left" in capsys.readouterr().out


def test_rate_by_a_function_marks_it_as_the_rater(project: Path) -> None:
    Path("judge.py").write_text("def rate(prompt, first, second):\n    return 0 if first < second else 1\n")
    assert tohum("rate", "chat-full", "--by", "judge.py", "--count", "5", "--max-tokens", "2") == 0
    for line in (json.loads(line) for line in TO.read_text(encoding="utf-8").splitlines()):
        first, second = (answer["text"] for answer in line["answers"])
        (rating,) = line["ratings"]
        assert rating["value"] == (0 if first < second else 1)
        assert rating["rater"].startswith("by:judge.py:")
        assert rating["consent"] == "synthetic"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("def rate(prompt, first, second):\n    return 2\n", "rate returned 2 for the prompt 'Soru"),
        ("def rate(prompt, first, second):\n    return True\n", "rate returned True"),
        ("def rate(prompt, first, second):\n    x = 1\n    return x / 0\n", "line 3: ZeroDivisionError"),
        ("def rate(\n", "line 1: SyntaxError"),
        ("import sys\nsys.exit(0)\n", "line 2: SystemExit"),
        ("import nothing_there\n", "line 1: ModuleNotFoundError"),
        ("rate = 3\n", r"has no function rate\(prompt, first, second\)"),
    ],
)  # fmt: skip
def test_rate_names_the_fault_of_a_function(project: Path, text: str, words: str) -> None:
    Path("judge.py").write_text(text)
    with pytest.raises(UserError, match=words):
        tohum("rate", "chat-full", "--by", "judge.py", "--count", "5", "--max-tokens", "2")


def test_file_drops_the_line_that_a_kill_cut_off(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rate("1|2|q", monkeypatch)
    whole = TO.read_bytes()
    TO.write_bytes(whole[:-40])
    rate("t|q", monkeypatch)
    assert list(standing().values()) == [("choice", 0), ("choice", "tie")]
    TO.write_bytes(whole[:-1])  # an editor took the last line feed away; the rating is whole
    rate("q", monkeypatch)
    assert TO.read_bytes() == whole


def test_file_is_as_before_where_the_disk_is_full(project: Path, monkeypatch: pytest.MonkeyPatch, model: Model) -> None:
    rate("1|q", monkeypatch)
    before, real, full = TO.read_bytes(), os.write, [False]

    def half(descriptor: int, content: Any) -> int:
        if full[0]:
            raise OSError(28, "No space left on device")
        full[0] = True
        return real(descriptor, bytes(content)[:100])

    monkeypatch.setattr("pipeline.rating.ratings_file.os.write", half)
    with pytest.raises(UserError, match="was not kept: No space left on device"):
        rate("2|q", monkeypatch)
    assert TO.read_bytes() == before


def test_file_is_refused_where_another_round_or_process_owns_it(project: Path, model: Model) -> None:
    def opened(path: Path) -> Any:
        return ratings_file.opened(path, model, "u-0", "store")

    for path in (Path("ratings.jsonl"), Path("inputs/../ratings.jsonl"), Path("inputs/ratings.csv")):
        with pytest.raises(UserError, match=r"expected a file inputs/NAME\.jsonl"), opened(path):
            pass
    with opened(TO), pytest.raises(UserError, match="another `tohum rate` writes to it"), opened(TO):
        pass
    line = {
        "id": "a",
        "model_sha256": "0" * 64,
        "consent": "store",
        "time": "",
        "answers": [],
        "ratings": [],
        "text": "",
    }
    TO.write_text(json.dumps(line) + "\n")
    with pytest.raises(UserError, match=r"line 1 rates the model 000000000000\.\.\."), opened(TO):
        pass
    assert ratings_file.round_path(Path("inputs"), model.sha256) == Path("inputs/ratings-2.jsonl")
    TO.write_text("[]\n")
    with pytest.raises(UserError, match="line 1: found list"), opened(TO):
        pass
    os.link(TO, "inputs/cached")
    with pytest.raises(UserError, match="dvc unprotect"), opened(TO):
        pass


def _records(path: Path) -> list[tuple[str, dict[str, Any]]]:
    settings = source.Settings(
        path=str(path), sha256=None, requests=None, ratings=True, choices=True, corrections=True, labels=True,
        language="auto", split=None,
    )  # fmt: skip
    tables = source.read(settings, "people", RowLog("people"))
    return [(kind, row | {"origin": ""}) for kind, table in tables for row in table.to_pylist()]


def test_rated_file_and_exported_journal_give_the_same_records(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The terminal and the server's page go one way: format, source, gates."""
    rate("1|t|c|Daha iyi|2|q", monkeypatch)
    box = Journal(project / "journal")
    for line in (json.loads(line) for line in TO.read_text(encoding="utf-8").splitlines()):
        ratings = line.pop("ratings")
        box.append({"kind": "request", **line})
        for rating in ratings:
            box.append({"kind": "rating", "request": line["id"], **rating})
    box.close()
    exported = Path("inputs/exported.jsonl")
    snapshot.write(project / "journal", exported)
    rated = _records(TO)
    assert rated == _records(exported)
    assert [kind for kind, _ in rated].count("ratings") == 4
    assert [kind for kind, _ in rated].count("preferences") == 2
    assert all(row["ids"] and row["logprobs"] for kind, row in rated if kind == "ratings")
