"""`tohum try` guesses; a wrong or silent guess would show a user somebody else's result."""

import gzip
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline import config
from pipeline.cli._command import run
from pipeline.config.params import Download
from pipeline.data.collect import collect
from pipeline.errors import UserError
from pipeline.paths import CODE, INPUTS
from pipeline.studies.guess import Guess, Wishes, guess
from pipeline.studies.guess.header import is_header
from pipeline.studies.guess.names import plain, rank
from pipeline.studies.guess.write import write_source
from pipeline.studies.workspace import lenient, params
from tests.studies.file_writers import jsonl, table
from tests.studies.ordinary_files import FILES, HELD_OUT, TUNED, OrdinaryFile

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
        ("r.csv", "\ufeffSoru;Yanıt A;Yanıt B;Tercih\r\n" + "".join(
            f"Soru {k} nedir?;Bu {k}, budur.;O {k}, odur.;{('A', 'B', 'berabere')[k % 3]}\r\n" for k in range(12)),
         "preferences", {"instruction": "Soru", "first": "Yanıt A", "second": "Yanıt B", "choice": "Tercih"}),
        ("arena.jsonl", "".join(json.dumps({"model_a": "x", "model_b": "y", "prompt": f"What is {k}?",
                                            "response_a": f"It is {k}, I think.",
                                            "response_b": f"No idea of {k}.",
                                            "winner": ("model_a", "tie (bothbad)")[k % 2]}) + "\n" for k in range(12)),
         "preferences", {"instruction": "prompt", "first": "response_a", "second": "response_b", "choice": "winner"}),
        ("zero.csv", "prompt,response_0,response_1,best\n" + "".join(
            f"What is {k}?,It is {k}.,No idea {k}.,{k % 2}\n" for k in range(12)),
         "preferences", {"instruction": "prompt", "first": "response_0", "second": "response_1", "choice": "best"}),
        ("thumb.csv", "Soru;Cevap;Beğeni;rater\n" + "".join(
            f"Soru {k} nedir?;Bu {k}, budur.;{'👍👎'[k % 2]};u-{k}\n" for k in range(12)),
         "ratings", {"prompt": "Soru", "answer": "Cevap", "thumb": "Beğeni", "rater": "rater"}),
        ("kto.jsonl", '{"prompt": "a b", "completion": "c d", "label": true}\n' * 3, "ratings",
         {"prompt": "prompt", "answer": "completion", "thumb": "label"}),
        ("c.csv", "text\nbir\niki\n", "documents", {"text": "text"}),
        ("veri", "".join(f"{'xy'[k % 2]};Bu {k}, bir cümle\n" for k in range(12)), "labelled",
         {"text": "1", "label": "0"}),
        ("kitap", "".join(f"Geldi {k}, gördü {k * 7}.\n" for k in range(12)), "documents", {}),
    ],
)  # fmt: skip
def test_guess_finds_columns_and_tells_each(tmp_path: Path, name: str, content: str, kind: str, columns: dict) -> None:
    path = tmp_path / name
    path.write_text(content, encoding="utf-8")
    guessed = guess(path)
    assert (guessed.kind, guessed.columns) == (kind, columns)
    assert all(any(column in sentence for sentence in guessed.sentences) for column in columns.values())
    config.check(params(INPUTS / name, guessed))


def test_ordinary_files_are_many_and_halved() -> None:
    assert len(FILES) >= 100
    assert len({file.name for file in FILES}) == len(FILES) == len(TUNED) + len(HELD_OUT)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_guess_is_right_and_a_run_reads_it_when_the_file_is_ordinary(
    file: OrdinaryFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lost otherwise: a guess that the download stage cannot read, or reads with other rows than were counted."""
    (tmp_path / "given").mkdir()
    guessed, expected = guess(file.make(tmp_path / "given")), file.expected
    assert (guessed.kind, guessed.format["name"], guessed.columns) == (expected.kind, expected.format, expected.columns)
    assert (guessed.encoding, guessed.rows, guessed.rejected) == (expected.encoding, expected.rows, {})
    assert frozenset(guessed.labels.values()) == expected.labels
    read = collected(guessed, tmp_path, monkeypatch)
    assert read["own"]["rows"][guessed.kind] == {
        "rows_in": expected.rows, "kept": expected.rows, "rejected": 0, "sampled_out": 0
    }  # fmt: skip
    assert sum(rows["kept"] for rows in read["text"]["rows"].values()) == expected.rows


def collected(guessed: Guess, folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Row counts of the download stage for a guess and for its running text."""
    monkeypatch.chdir(folder)
    assert guessed.inputs is not None
    guessed.inputs.copy_to(INPUTS)
    entry = guessed.entry(INPUTS / "file")
    text = entry | {"kind": "documents", "columns": guessed.running_text(), "labels": {}}
    sources = yaml.safe_load(yaml.safe_dump({"own": entry, "text": text}))
    return collect(Download.model_validate({"forget": None, "sources": sources}), folder / "raw", progress=False)


def test_guess_reads_gzip(tmp_path: Path) -> None:
    path = tmp_path / "a.csv.gz"
    path.write_bytes(gzip.compress(csv_of(ROWS).encode()))
    assert guess(path).kind == "labelled"


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [("a.docx", "x", "ending .docx"), ("a.json", "{", "line 1: found 'the end of the file'; expected a key"),
     ("a.csv", "x\n", "holds no record"), ("a.json", json.dumps([{"n": 3}]), "columns found: n"),
     ("a.csv", "label;text\nx;a b; c\ny;d e; f\n", "with ';' the first such row is line 2: 3 fields; expected 2"),
     ("a.csv", "text,label\ra b c,x\r", "bare CR"),
     ("a.csv", "text,text\na b c,d e f\n", "columns ['text'] occur more than once"),
     ("a.json", '{"text": ["a b"], "label": [1]}', "one JSON object without an array of objects, with keys ['text'"),
     ("a.json", '["bir", "iki"]', "found str; expected an object"),
     ("a.csv", "\n \n", "no row")],
)  # fmt: skip
def test_guess_raises_user_error_when_nothing_can_be_recognised(
    tmp_path: Path, name: str, content: str, words: str
) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8", newline="")
    with pytest.raises(UserError) as error:
        guess(tmp_path / name)
    assert words in str(error.value)
    assert name in str(error.value)
    with pytest.raises(UserError, match="no such file"):
        guess(tmp_path / "missing.csv")


def test_guess_names_the_line_of_a_byte_that_is_not_utf8(tmp_path: Path) -> None:
    """One broken letter in a UTF-8 file must not turn the whole file into another code page's letters."""
    rows = table([{"text": f"çok güzel şeyler oldu {k}", "label": "ab"[k % 2]} for k in range(40)]).encode()
    (tmp_path / "a.csv").write_bytes(rows.replace(b"oldu 20", b"oldu \xff20"))
    with pytest.raises(UserError, match=r"a\.csv: line 22: byte [\d,]+ is 0xff: not UTF-8"):
        guess(tmp_path / "a.csv")


def test_guess_quotes_no_content_of_a_file_without_header(tmp_path: Path) -> None:
    """Privacy: a row that is taken for names would stand in the error, in logs and in reports."""
    secret = "gizli kişisel bilgi " * 20
    (tmp_path / "a.csv").write_text(f"{secret},{secret}x\n1,2\n3,4\n", encoding="utf-8")
    with pytest.raises(UserError) as error:
        guess(tmp_path / "a.csv")
    assert secret[:60] not in str(error.value)


TWO = table([{"alpha": f"bir metin daha {k}", "beta": f"öbür metin burada {k}", "g": "xy"[k % 2]} for k in range(20)])


@pytest.mark.parametrize(
    ("wishes", "kind", "columns"),
    [
        (Wishes(text="alpha"), "labelled", {"text": "alpha", "label": "g"}),
        (Wishes(text="Beta", label="g"), "labelled", {"text": "beta", "label": "g"}),
        (Wishes(text="alpha", kind="documents"), "documents", {"text": "alpha"}),
        (Wishes("beta", "alpha", "instructions"), "instructions", {"instruction": "beta", "output": "alpha"}),
    ],
)
def test_guess_follows_what_the_user_sets(tmp_path: Path, wishes: Wishes, kind: str, columns: dict) -> None:
    (tmp_path / "a.csv").write_text(TWO, encoding="utf-8")
    guessed = guess(tmp_path / "a.csv", wishes)
    assert (guessed.kind, guessed.columns) == (kind, columns)


def test_guess_asks_when_two_columns_fit_and_refuses_without_a_terminal(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(TWO, encoding="utf-8")
    with pytest.raises(UserError, match=r"which column holds the text\? 'alpha', 'beta' .*TEXT=column"):
        guess(tmp_path / "a.csv")
    asked: list[list[str]] = []

    def ask(question: str, choices: list[str]) -> str:
        assert "a.csv: which column holds the text" in question
        asked.append(choices)
        return "beta"

    assert guess(tmp_path / "a.csv", Wishes(ask=ask)).columns == {"text": "beta", "label": "g"}
    assert asked == [["alpha", "beta"]]
    with pytest.raises(UserError, match="no column 'gamma'; columns found: alpha, beta, g"):
        guess(tmp_path / "a.csv", Wishes(text="gamma"))
    (tmp_path / "a.txt").write_text("Bir metin.", encoding="utf-8")
    with pytest.raises(UserError, match="plain text has documents and no columns"):
        guess(tmp_path / "a.txt", Wishes(text="alpha"))


def test_guess_tells_rows_that_a_run_would_reject(tmp_path: Path) -> None:
    said = [{"role": "user", "content": "Kim?"}, {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]}]
    good = [{"role": "user", "content": "Kim?"}, {"role": "assistant", "content": "Ayşe"}]
    (tmp_path / "a.jsonl").write_text(jsonl([{"messages": good}, {"messages": said}]), encoding="utf-8")
    guessed = guess(tmp_path / "a.jsonl")
    assert (guessed.kind, guessed.rows, guessed.rejected) == ("instructions", 2, {"not_a_conversation": 1})
    assert "rows that a run rejects: 1 not_a_conversation; the first at line 2" in guessed.sentences[-1]


def test_guess_keeps_an_input_that_looks_like_messages_as_text(tmp_path: Path) -> None:
    given = json.dumps([{"role": "user", "content": "Kimsin?"}, {"role": "assistant", "content": "Patronum"}])
    rows = [{"instruction": "Özetle", "input": given, "output": "Bir konuşma"}]
    (tmp_path / "a.jsonl").write_text(jsonl(rows), encoding="utf-8")
    assert guess(tmp_path / "a.jsonl").columns == {"instruction": "instruction", "input": "input", "output": "output"}


def test_guess_refuses_folders_of_several_kinds_and_encodings(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(TWO, encoding="utf-8")
    (tmp_path / "b.jsonl").write_text("{}", encoding="utf-8")
    with pytest.raises(UserError, match=r"several kinds: \.csv, \.jsonl; give one"):
        guess(tmp_path)
    (tmp_path / "b.jsonl").unlink()
    (tmp_path / "b.csv").write_bytes(TWO.replace("metin", "ışık").encode("windows-1254"))
    with pytest.raises(UserError, match=r"several encodings: utf-8 \(a\.csv\), windows-1254 \(b\.csv\)"):
        guess(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="the folder holds no file"):
        guess(tmp_path / "empty")


def test_try_guess_prints_one_json_object_with_these_keys(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    path = tmp_path / "iki kelime.csv"
    path.write_bytes(
        table([{"Yorum": f"çok iyi oldu {k}", "Durum": k % 2} for k in range(20)], ";").encode("utf-8-sig")
    )
    assert run(["try", str(path), "--guess"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert json.loads(out) == {
        "kind": "labelled",
        "format": {"name": "csv", "encoding": "utf-8-sig", "header": True, "quoting": "standard", "delimiter": ";"},
        "encoding": "utf-8-sig",
        "columns": {"text": "Yorum", "label": "Durum"},
        "labels": ["0", "1"],
        "rows": 20,
    }
    assert run(["try", str(path), "--guess", "--kind", "documents"]) == 0
    assert json.loads(capsys.readouterr().out)["kind"] == "documents"
    assert run(["try", str(path), "--kind", "letters"]) == 2


def test_make_try_passes_every_option_whatever_their_letters() -> None:
    words = ["DATA=a b/it's *.csv", "TEXT=Müşteri Mesajı", "LABEL=Konu", "KIND=labelled", "GUESS=1", "WRITE=1"]
    shown = subprocess.run(["make", "-n", "try", *words], cwd=CODE, capture_output=True, text=True, check=True).stdout
    line = next(line for line in shown.splitlines() if "pipeline.cli try" in line)
    quoted = line.partition("pipeline.cli ")[2]
    split = subprocess.run(
        ["bash", "-c", f"printf '%s\\n' {quoted}"], capture_output=True, text=True, check=True
    ).stdout
    assert split.splitlines() == [
        "try", "a b/it's *.csv", "--text", "Müşteri Mesajı", "--label", "Konu", "--kind", "labelled", "--guess",
        "--write",
    ]  # fmt: skip


def test_write_source_adds_the_data_and_changes_no_other_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    before = (CODE / "params.yaml").read_text(encoding="utf-8")
    Path("params.yaml").write_text(before, encoding="utf-8")
    Path("Müşteri.csv").write_text(csv_of(ROWS), encoding="utf-8")
    guessed = guess(Path("Müşteri.csv"))
    assert "added download.sources.m-teri" in write_source(guessed)
    after = Path("params.yaml").read_text(encoding="utf-8")
    raw = yaml.safe_load(after)
    assert raw["download"]["sources"]["m-teri"] == guessed.entry(INPUTS / "file")
    assert Path("inputs/Müşteri.csv").read_bytes() == Path("Müşteri.csv").read_bytes()
    at = next(place for place, letter in enumerate(before) if after[place] != letter)
    assert after[:at] + after[at + len(after) - len(before) :] == before
    with pytest.raises(UserError, match="is there already"):
        write_source(guessed)
    Path("Müşteri.csv").write_text(csv_of(ROWS, ";"), encoding="utf-8")
    with pytest.raises(UserError, match="holds another file of this name"):
        write_source(guess(Path("Müşteri.csv")))


def test_write_source_refuses_sources_that_are_no_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.csv").write_text(csv_of(ROWS), encoding="utf-8")
    Path("params.yaml").write_text("download: {sources: {}}\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"not written as a block; add there:\na:\n"):
        write_source(guess(Path("a.csv")))
    assert Path("params.yaml").read_text(encoding="utf-8") == "download: {sources: {}}\n"


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([["text", "label"], ["bir şey", "a"]], True),
        ([["foo", "bar"], ["uzun bir cümle burada", "a"], ["başka bir cümle daha", "b"]] * 1, True),
        ([["ham", "gel artık eve"], ["spam", "ödül kazandın"], ["ham", "tamam"], ["spam", "ara"]], False),
        ([["1", "gel artık eve dostum"], ["0", "ödül kazandın hemen ara"], ["1", "tamam o zaman"]], False),
        ([["id", "değer"], ["1", "2"], ["2", "3"]], True),
        ([["1", "2"], ["3", "4"]], False),
        ([["Ürün çok güzel geldi."], ["Kargo geç kaldı yine."], ["Teşekkür ederim size."]], False),
    ],
)
def test_is_header_compares_the_first_row_with_those_below(rows: list, expected: bool) -> None:
    assert is_header(rows) is expected


def test_names_match_in_any_case_spelling_and_language() -> None:
    assert plain("Müşteri_Mesajı") == plain("musteri mesaji") == plain("MüşteriMesajı")
    assert rank("İçerik", "text") == rank("icerik", "text")
    assert rank("SORU", "instruction") is not None
    assert rank("Yorumlar", "text") is not None
    assert rank("prompt_id", "instruction") is None
    assert rank("kalem", "label") is None


def test_lenient_opens_every_bound_of_the_gates() -> None:
    raw = yaml.safe_load(Path("infra/profiles/embedded.yaml").read_text(encoding="utf-8"))
    opened = lenient(raw["gates"])
    assert opened["raw"]["max_personal"]["email"] == 10**9
    assert opened["raw"]["max_duplicate_share"] == 1.0
    assert opened["raw"]["language"]["min_share"] == {}
    assert opened["tokens"]["bytes_per_token"] == {"at_least": 0.0, "at_most": 10.0**9}
    assert opened["samples"]["min_records"] == {"train": 0, "validation": 0, "test": 0}
    assert opened["samples"]["overlap"]["near"] == raw["gates"]["samples"]["overlap"]["near"]


def test_guess_offers_a_template_where_two_columns_hold_texts(tmp_path: Path) -> None:
    rows = [{"title": f"Konu {i} neden böyle", "body": f"Bu {i} numaralı uzun bir iletinin metni, hep böyle sürer",
             "topic": "ab"[i % 2], "region": ("ege", "doğu")[i % 2], "no": str(i)} for i in range(30)]  # fmt: skip
    (tmp_path / "a.csv").write_text(csv_of(rows), encoding="utf-8")
    offer = r"""'title' holds texts too; to read both: text: "{title}\n\n{body}" (columns)"""
    guessed = guess(tmp_path / "a.csv", Wishes(label="topic"))
    assert guessed.columns == {"text": "body", "label": "topic"}
    assert offer in guessed.sentences
    for row in rows:
        del row["title"]
    (tmp_path / "b.csv").write_text(csv_of(rows), encoding="utf-8")
    assert not any(
        "to read both" in sentence for sentence in guess(tmp_path / "b.csv", Wishes(label="topic")).sentences
    )


def test_guess_takes_a_template_of_the_user_for_the_text(tmp_path: Path) -> None:
    rows = [{"konu": f"Konu {i}", "metin": f"Bu {i} numaralı ileti, hep böyle sürer", "tür": "ab"[i % 2]}
            for i in range(30)]  # fmt: skip
    (tmp_path / "a.csv").write_text(csv_of(rows), encoding="utf-8")
    guessed = guess(tmp_path / "a.csv", Wishes(text=r"{konu}\n{metin}"))
    assert guessed.columns == {"text": "{konu}\n{metin}", "label": "tür"}
    assert not guessed.rejected
    assert guessed.running_text() == {"text": "{konu}\n{metin}"}
    assert not any("not used" in sentence or "to read both" in sentence for sentence in guessed.sentences)
    config.check(params(INPUTS / "a.csv", guessed))
    documents = guess(tmp_path / "a.csv", Wishes(text="{konu} {metin}", kind="documents"))
    assert documents.columns == {"text": "{konu} {metin}"}
    with pytest.raises(UserError, match="no column 'title'; columns found: konu, metin, tür"):
        guess(tmp_path / "a.csv", Wishes(text="{title} {metin}"))
    with pytest.raises(UserError, match=r"has a single \{"):
        guess(tmp_path / "a.csv", Wishes(text="{konu"))
