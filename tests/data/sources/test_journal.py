"""From what people sent and rated to records of every sort: snapshot, source, split by prompt, gates.

If these fail, words that nobody allowed to be kept are learned, ratings are lost or counted twice, or a held-out prompt
is trained on.
"""

import json
import os
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from pipeline import config
from pipeline.config.params import Download, Params
from pipeline.data import snapshot
from pipeline.data.collect import collect
from pipeline.data.erasure import Wanted, affected
from pipeline.data.journal import Journal, pseudonym, secret
from pipeline.data.journal import read as journal_read
from pipeline.data.ledger import RowLog
from pipeline.data.records import SPLITS
from pipeline.data.samples import sample
from pipeline.data.sources import _inputs, journal
from pipeline.data.tokens import tokenize
from pipeline.errors import UserError
from pipeline.files import read_json
from pipeline.gates import raw, samples
from pipeline.paths import CODE as ROOT
from tests.commands import tohum
from tests.data.test_journal import rating, request
from tests.gates.builders import GATES, failed, verdict_on

TURKISH = "İstanbul'da ışık var mı? 🌙 cafe\u0301"
ALL = {"requests": None, "ratings": True, "choices": True, "corrections": True, "labels": True}
ANSWERS = [
    {"text": "Evet, vardır.", "ids": [1, 2], "logprobs": [-0.5, -1.25], "finish": "stop"},
    {"text": "Hayır.", "ids": [3], "logprobs": [-2.0], "finish": "stop"},
]


@pytest.fixture(autouse=True)
def anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_inputs, "INPUTS", Path("/"))
    monkeypatch.setattr(os, "fsync", lambda _: None)  # no waits for the disk


def exported(folder: Path, entries: list[dict[str, Any]], name: str = "ratings-1.jsonl") -> Path:
    kept = Journal(folder / f"journal-{name}")
    for entry in entries:
        kept.append(entry)
    return snapshot.write(folder / f"journal-{name}", folder / name).path


def read(path: str | Path, **fields: Any) -> tuple[list[tuple[str, dict[str, Any]]], list[Any]]:
    given = {"path": str(path), "sha256": None, "language": "tr", "split": None} | ALL | fields
    rejected: list[Any] = []
    log = RowLog("mine", rejected.extend)
    settings = journal.Settings.model_validate(given)
    found = [(kind, row) for kind, table in journal.read(settings, "mine", log) for row in table.to_pylist()]
    log.flush()
    for kind in {kind for kind, _ in found}:
        assert log.accepted[kind] == sum(one == kind for one, _ in found)
    return found, rejected


def rated(*ratings: dict[str, Any], **fields: Any) -> list[dict[str, Any]]:
    return [request("req-1", text=TURKISH, answers=ANSWERS, **fields), *ratings]


def test_source_makes_records_of_each_form_of_rating(tmp_path: Path) -> None:
    said = [
        rating("rat-1", form="choice", value=0, rater="u-b"),
        rating("rat-2", form="thumb", value="down"),
        rating("rat-3", form="correction", value="Işık var, İpek."),
        rating("rat-4", form="choice", value="tie", rater="u-c"),
    ]
    found, rejected = read(exported(tmp_path, rated(*said)))
    assert rejected == []
    rows = {(kind, row["origin"]): row for kind, row in found}
    first = rows["ratings", "ratings-1.jsonl:1 rat-1"]
    assert first["prompt"] == TURKISH
    assert json.loads(first["answers"]) == ["Evet, vardır.", "Hayır."]
    assert (first["verdict"], first["rater"], first["consent"]) == ("choice:0", "u-b", "store")
    assert (first["ids"], first["logprobs"]) == ([[1, 2], [3]], [[-0.5, -1.25], [-2.0]])
    assert first["model_sha256"] == "0" * 64
    verdicts = [row["verdict"] for kind, row in found if kind == "ratings"]
    assert sorted(verdicts) == ["choice:0", "choice:tie", "correction", "thumb:down"]
    (pair,) = [row for kind, row in found if kind == "preferences"]
    assert (pair["instruction"], pair["chosen"], pair["rejected"]) == (TURKISH, "Evet, vardır.", "Hayır.")
    assert json.loads(pair["logprobs"]) == [[-0.5, -1.25], [-2.0]]
    (corrected,) = [row for kind, row in found if kind == "instructions"]
    assert (corrected["instruction"], corrected["output"]) == (TURKISH, "Işık var, İpek.")
    assert len({row["prompt_id"] for _, row in found}) == 1


def test_snapshot_leaves_out_what_nobody_consented_to_and_what_no_longer_stands(tmp_path: Path) -> None:
    entries = [
        *rated(rating("rat-1", value="up"), rating("rat-2", value="down")),
        request("req-2", text="gizli", consent=None),
        rating("rat-3", "req-2"),
        rating("rat-4", rater="u-b") | {"consent": None},
        rating("rat-5", rater="u-c", form="choice", value=1),
        rating("rat-6", rater="u-c", form="undo", value=None),
    ]
    path = exported(tmp_path, entries)
    assert "gizli" not in path.read_text(encoding="utf-8")
    found, _ = read(path)
    assert [row["verdict"] for kind, row in found if kind == "ratings"] == ["thumb:down"]
    again = snapshot.write(tmp_path / "journal-ratings-1.jsonl", tmp_path / "again.jsonl")
    assert (again.requests, again.ratings, again.labels) == (1, 1, 0)
    assert path.read_bytes() == again.path.read_bytes()


def test_snapshot_refuses_a_journal_without_consent(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no request with consent"):
        exported(tmp_path, [request(consent=None)])
    assert not (tmp_path / "ratings-1.jsonl").exists()


def test_source_takes_the_last_line_of_a_request_and_no_repeated_record(tmp_path: Path) -> None:
    exported(tmp_path, rated(rating("rat-1", value="up")), "ratings-1.jsonl")
    later = [*rated(rating("rat-1", value="up"), rating("rat-2", value="down")), request("req-2", text=TURKISH)]
    exported(tmp_path, later, "ratings-2.jsonl")
    found, _ = read(tmp_path / "ratings-*.jsonl", requests="documents")
    assert [row["verdict"] for kind, row in found if kind == "ratings"] == ["thumb:down"]
    assert [row["text"] for kind, row in found if kind == "documents"] == [TURKISH]


def test_source_makes_labelled_texts_of_labels_and_of_corrections_of_a_classifier(tmp_path: Path) -> None:
    classified = {"label": "ham", "answers": []}
    entries = [
        request("req-1", text="bedava ödül", **classified),
        request("req-2", text="yarın görüşelim", **classified),
        rating("rat-1", "req-2", form="correction", value="spam"),
        {"kind": "label", "request": "req-1", "label": "ham", "by": "file"},
        {"kind": "label", "request": "req-1", "label": "spam", "by": "endpoint"},
    ]
    path = exported(tmp_path, [*entries, rating("rat-2", "req-1")])
    rated_label = [row["answers"] for kind, row in read(path)[0] if kind == "ratings" and row["verdict"] == "thumb:up"]
    assert rated_label == ['["ham"]']
    found, _ = read(path, ratings=False)
    assert [(kind, row["text"], row["label"]) for kind, row in found] == [
        ("labelled", "bedava ödül", "spam"), ("labelled", "yarın görüşelim", "spam"),
    ]  # fmt: skip


def test_source_makes_instructions_of_requests_that_were_not_rated_down(tmp_path: Path) -> None:
    messages = [{"role": "system", "content": "Kısa yanıtla."}, {"role": "user", "content": "Selam"},
                {"role": "assistant", "content": "Merhaba"}, {"role": "user", "content": TURKISH}]  # fmt: skip
    talk = {key: value for key, value in request("req-1", answers=ANSWERS).items() if key != "text"}
    entries = [
        talk | {"messages": messages},
        request("req-2", text="kötü", answers=ANSWERS),
        rating("rat-1", "req-2", value="down"),
    ]
    found, _ = read(exported(tmp_path, entries), requests="instructions", ratings=False)
    ((kind, row),) = found
    assert (kind, row["instruction"], row["output"]) == ("instructions", TURKISH, "Evet, vardır.")
    assert [message["content"] for message in json.loads(row["history"])] == ["Kısa yanıtla.", "Selam", "Merhaba"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"answers": "none"}, "not_a_request"),
        ({"text": "  "}, "not_a_conversation"),
        ({"ratings": [rating("rat-1", form="choice", value=7)]}, "not_a_rating"),
        ({"ratings": [rating("rat-1", form="correction", value=" ")]}, "not_a_rating"),
    ],
)
def test_source_rejects_lines_that_are_no_request(tmp_path: Path, change: dict[str, Any], reason: str) -> None:
    path = exported(tmp_path, [*rated(rating("rat-9")), request("req-2", text="ikinci")])
    first, second = path.read_text(encoding="utf-8").splitlines()
    path.write_text(f"{first}\n{json.dumps(json.loads(second) | change)}\n", encoding="utf-8")
    found, rejected = read(path)
    assert [row["verdict"] for kind, row in found if kind == "ratings"] == ["thumb:up"]
    assert [(row.file, row.line, row.reason) for row in rejected] == [("ratings-1.jsonl", 2, reason)]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"path": "ratings-9.jsonl"}, "no such file; `tohum journal export"),
        ({"sha256": "0" * 64}, "expected 0000"),
        ({"ratings": False, "choices": False, "corrections": False}, "gives no record"),
    ],
)
def test_source_refuses_in_one_sentence(tmp_path: Path, fields: dict[str, Any], message: str) -> None:
    exported(tmp_path, rated(rating("rat-1")))
    name = fields.pop("path", "ratings-1.jsonl")
    with pytest.raises(UserError, match=message):
        read(tmp_path / name, **fields)


def test_source_refuses_settings_that_make_nothing() -> None:
    with pytest.raises(ValueError, match="nothing is made of the snapshot"):
        journal.Settings.model_validate(
            {"path": "inputs/a.jsonl", "sha256": None, "language": "tr", "split": None} | dict.fromkeys(ALL, False)
            | {"requests": None}
        )  # fmt: skip


def use(people: int = 12, prompts: int = 80) -> list[dict[str, Any]]:
    """Requests of several people; each is rated by three of them, who agree, and every fourth is corrected too."""
    entries: list[dict[str, Any]] = []
    for n in range(prompts):
        text = f"Soru {n}: bu ev ve şu nehir için ışık {n * 7919} neden var?"
        first = {"text": f"Bu iyi bir yanıt ve {n} için doğrudur.", "ids": [n], "logprobs": [-1.0]}
        second = {"text": f"Şu yanıt {n} için yanlıştır.", "ids": [n, n], "logprobs": [-1.0, -2.0]}
        entries.append(request(f"req-{n}", f"u-{n % people}", text=text, answers=[first, second]))
        for k in range(3):
            rater = f"u-{(n + k) % people}"
            entries.append(rating(f"rat-{n}-{k}", f"req-{n}", rater, "choice", 0))
        if n % 4 == 0:
            fixed = f"Düzeltilmiş yanıt {n} için İğne."
            entries.append(rating(f"rat-{n}-c", f"req-{n}", f"u-{n % people}", "correction", fixed))
    return entries


def params(path: Path) -> Params:
    shared = {"licence": "own", "weight": 1.0, "consent": "consent", "language": "tr", "split": None, "sha256": None}
    source = shared | {"name": "journal", "path": str(path)} | ALL | {"requests": "documents"}
    loaded = config.load(ROOT / "params.yaml")
    split = loaded.split.model_copy(update={"validation": 0.15, "test": 0.15})
    download = Download.model_validate({"forget": None, "sources": {"people": source}})
    return loaded.model_copy(
        update={
            "download": download,
            "split": split,
            "tokenize": loaded.tokenize.model_copy(update={"vocab_size": 400}),
        }
    )


def test_data_stages_bring_ratings_to_samples_and_keep_a_prompt_in_one_split(tmp_path: Path) -> None:
    given = params(exported(tmp_path, use()))
    collect(given.download, tmp_path / "raw", progress=False)
    tokenize(given.tokenize, given.split, tmp_path / "raw/documents.parquet", tmp_path / "tokens")
    sample(given, tmp_path / "raw", tmp_path / "tokens", tmp_path / "samples", progress=False)

    named, missing = affected(Wanted(("ratings-1.jsonl:1",), near=False), tmp_path / "raw", given.sample.deduplicate)
    assert missing == []
    kinds = sorted(one.kind for one in named)
    assert kinds == ["documents", "instructions", *["preferences"] * 1, *["ratings"] * 4]
    assert {one.origin.split()[0] for one in named} == {"ratings-1.jsonl:1"}

    counts = read_json(tmp_path / "samples/ledger.json")
    assert counts["ratings"]["rows_in"] == sum(counts["ratings"]["kept"].values()) == 260
    splits: dict[str, set[str]] = {}
    for kind in ("ratings", "preferences", "instructions"):
        for split in SPLITS:
            for row in pq.read_table(tmp_path / f"samples/{kind}/{split}.parquet").to_pylist():
                splits.setdefault(row["prompt_id"], set()).add(split)
    assert len(splits) == 80
    assert all(len(one) == 1 for one in splits.values())
    row = pq.read_table(tmp_path / "samples/ratings/train.parquet").to_pylist()[0]
    assert "İ" in row["correction"] or "ışık" in row["prompt"]

    settings = raw.Settings.model_validate(
        GATES["raw"] | {"min_rows": dict.fromkeys(GATES["raw"]["min_rows"], 0),
                        "language": {"sample": None, "max_disagreement": 0.0, "min_share": {}}}
    )  # fmt: skip
    verdict = verdict_on("raw", raw.profile(settings, tmp_path), raw.expectations(settings))
    assert not failed(verdict)
    assert set(raw.admits(tmp_path)) == {"documents", "labelled", "instructions", "preferences", "ratings"}
    bounds = samples.Settings.model_validate(GATES["samples"])
    assert not failed(verdict_on("samples", samples.profile(bounds, tmp_path), samples.expectations(bounds)))


def test_verb_exports_erases_and_names_what_still_holds_a_person(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "inputs").mkdir()
    (tmp_path / "dvc.yaml").write_text("stages: {}\n")
    monkeypatch.chdir(tmp_path)
    kept = Journal()
    name = pseudonym("web/ayşe", secret())
    for entry in (request(user=name, text=TURKISH), rating("rat-1", rater=name), request("req-2", "u-b", text="başka")):
        kept.append(entry)
    assert tohum("journal", "export", "inputs/draft.jsonl", "--keep") == 0
    (tmp_path / "inputs/draft.jsonl").unlink()
    assert [entry["kind"] for entry in journal_read(tmp_path / "journal")] == ["request", "rating", "request"]
    capsys.readouterr()
    assert tohum("journal", "export", "inputs/ratings-1.jsonl") == 0
    assert "2 requests, 1 ratings" in capsys.readouterr().out
    with pytest.raises(UserError, match="is there already"):
        tohum("journal", "export", "inputs/ratings-1.jsonl")
    with pytest.raises(UserError, match=r"expected a file inputs/NAME\.jsonl"):
        tohum("journal", "export", "ratings.jsonl")
    assert tohum("journal", "status", "--json") == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["requests"], shown["ratings"], shown["not_exported"]) == (2, {"thumb": 1}, 0)
    assert tohum("journal", "erase", "web/ayşe", "--json") == 1
    gone = json.loads(capsys.readouterr().out)
    assert gone == {"user": name, "erased": 2, "still_in": {"inputs/ratings-1.jsonl": [1]}}
    assert "İstanbul" not in "".join(path.read_text() for path in (tmp_path / "journal").glob("*.jsonl"))
    (tmp_path / "inputs/ratings-1.jsonl").unlink()
    assert tohum("journal", "erase", name) == 0
    assert "0 entries erased" in capsys.readouterr().out
    kept.append(request("req-3", pseudonym("-/can", secret())))
    assert tohum("journal", "erase", "can") == 0
    assert "1 entries erased" in capsys.readouterr().out
    assert tohum("journal", "erase", "web/cna") == 1
    assert "web/cna: no entry is of this user" in capsys.readouterr().err
    assert tohum("journal", "erase") == 2
