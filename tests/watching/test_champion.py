"""The reference and the losses of real model folders, and the verb on them."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch

from pipeline import config, files, tokenizer
from pipeline.cli import watch as verb
from pipeline.cli._command import run
from pipeline.data.journal import Journal
from pipeline.errors import UserError
from pipeline.inference.token_nats import Text, token_nats
from pipeline.model import checkpoint
from pipeline.model.gpt import GPT
from pipeline.paths import CODE, OBSERVATIONS, WATCH
from pipeline.tokenizer import Tokenizer
from pipeline.watching import reference
from pipeline.watching.champion import Champion
from pipeline.watching.observations import Facts, ObservationLog, Vocabulary, observe
from tests.models import shape
from tests.specs import ANSWERS, SPAM, TaskSpec, labels_of, written

WORDS = "Ayşe İzmir'de yaşıyor. Merhaba dünya, free prize now! Where is the bus?"


def text(i: int) -> str:
    parts = WORDS.split()
    return " ".join(parts[(i * step) % len(parts)] for step in range(2, 4 + i % 9))


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A project with a classifier and a model that answers, each with records."""
    folder = tmp_path_factory.mktemp("watched")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        raw = (CODE / "infra/profiles/embedded.yaml").read_text(encoding="utf-8")
        Path("params.yaml").write_text(raw.replace("enabled: true", "enabled: false"), encoding="utf-8")
        tokenizer.train([WORDS * 20], 300, "gpt2").save(Path("words"))
        for name, task in (("spam", SPAM), ("chat", ANSWERS)):
            model(name, task)
        for split, count in (("train", 90), ("validation", 60), ("test", 70)):
            rows = [
                {"id": f"{split}{i}", "source": "s", "language": "tr", "split": None, "origin": "o", "text": text(i)}
                for i in range(count)
            ]
            labels = [row | {"label": "spam" if i % 2 else "ham"} for i, row in enumerate(rows)]
            asked = [
                {key: value for key, value in row.items() if key != "text"}
                | {"instruction": row["text"], "input": "", "output": "evet", "history": None}
                for row in rows
            ]
            files.write_table(Path(f"data/samples/labelled/{split}.parquet"), pa.Table.from_pylist(labels))
            files.write_table(Path(f"data/samples/instructions/{split}.parquet"), pa.Table.from_pylist(asked))
        yield folder


def model(name: str, task: TaskSpec) -> None:
    draw = torch.Generator().manual_seed(1)
    size = Tokenizer.load(Path("words")).vocab_size
    made = GPT(shape(n_layers=1, n_kv_heads=2, context_length=64, vocab_size=size), draw)
    if task.labels:
        made.add_score(2, draw)
    checkpoint.save(
        made, Path("models") / name, tokenizer=Path("words"), labels=labels_of(task), metadata=written([task])
    )


def champion(name: str) -> tuple[Champion, str]:
    folder = Path("models") / name
    return Champion(folder, config.load().compute), files.sha256_of(folder)


def test_of_records_has_held_out_observations_and_the_accuracy_on_test_records(project: Path) -> None:
    found = reference.of_records(*champion("spam"))
    assert found is not None
    assert (len(found.observations), found.judged) == (130, 70)
    answered = [one.label for one in found.observations]
    assert set(answered) <= {"spam", "ham"}
    assert found.right is not None
    assert 0 <= found.right <= 70
    assert all(one.unknown_words == 0.0 and one.distance is not None for one in found.observations)
    assert all(one.nats_per_token is None for one in found.observations)
    found.write(project / "kept")
    again = reference.Reference.read(project / "kept", found.model_sha256)
    assert again is not None
    assert again.observations == found.observations
    assert reference.Reference.read(project / "kept", "other") is None


def test_of_records_has_the_loss_of_a_text_model(project: Path) -> None:
    opened, sha256 = champion("chat")
    found = reference.of_records(opened, sha256)
    assert found is not None
    network, vocabulary = checkpoint.load(opened.folder, "cpu").eval(), Tokenizer.load(opened.folder)
    ids = vocabulary.encode(text(5))
    (expected,) = token_nats(network, [Text([vocabulary.end_of_text], ids)], 1, config.load().compute)
    assert opened.nats([text(5), ""]) == [pytest.approx(float(expected.mean()), rel=1e-5), None]
    assert all(one.nats_per_token is not None and one.label is None for one in found.observations)


def test_of_records_is_none_when_there_are_few_held_out_ones(project: Path, tmp_path: Path) -> None:
    assert reference.of_records(*champion("spam"), samples=tmp_path) is None


def served(name: str, first: int, count: int, new: str = "") -> None:
    """Requests to a model as `tohum serve` notes them; of consented ones the text too."""
    opened, sha256 = champion(name)
    log, journal = ObservationLog(OBSERVATIONS), Journal()
    texts = [text(i) + new for i in range(first, first + count)]
    for i, (asked, facts) in enumerate(zip(texts, opened.facts(texts), strict=True), first):
        known = {"request": f"{name}-{i}", "model": name, "model_sha256": sha256}
        fields = {key: getattr(facts, key) for key in ("tokens", "label", "confidence")}
        log.append(observe(asked, Facts(**known, **fields), Vocabulary.read(WATCH / name)))
        entry = {"kind": "request", "id": f"{name}-{i}", "model": name, "model_sha256": sha256, "task": "classify"}
        journal.append(entry | {"user": "u", "consent": "store", "text": asked, "answers": []})
    journal.close()


def watched(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    """Exit code and output of `tohum watch`."""
    code = run(["watch", *words, "--window", "60"])
    return code, capsys.readouterr().out


def test_watch_ends_with_three_once_when_late_labels_contradict_the_answers(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    served("spam", 0, 60)
    code, output = watched(capsys, "spam")
    assert (code, output.splitlines()[0]) == (0, "quiet: no evidence of drift"), output
    answers = {one["request"]: one["label"] for one in observed("spam")}
    rows = [f"{request},{'ham' if label == 'spam' else 'spam'}" for request, label in answers.items()]
    Path("labels.csv").write_text("\n".join(["request,label", *rows]) + "\n", encoding="utf-8")
    code, output = watched(capsys, "spam", "--labels", "labels.csv")
    assert code == verb.ALARM, output
    assert "labels.csv: 60 labels, 60 of them new" in output
    assert "accuracy by labels that arrived later: 0 (95 % interval" in output
    assert "Alarm: answers have become worse" in (project / "reports/watch/spam.html").read_text(encoding="utf-8")
    code, output = watched(capsys, "spam", "--labels", "labels.csv")
    assert code == 0, output
    assert "60 labels, 0 of them new" in output
    assert "no observed request" not in output
    assert "this episode was reported before" in output
    Path("labels.csv").write_text(f"request,label\nreq-{'0' * 32},spam\n", encoding="utf-8")
    assert "1 of them are of no observed request" in watched(capsys, "spam", "--labels", "labels.csv")[1]


@pytest.mark.usefixtures("project")
def test_watch_tests_the_loss_on_consented_texts_when_the_model_answers_in_text(
    capsys: pytest.CaptureFixture[str],
) -> None:
    served("chat", 0, 60)
    code, output = watched(capsys, "chat")
    assert code == 0, output
    assert "loss on the texts, nats a token:" in output
    assert "of 60, reference" in output


def observed(name: str) -> list[dict[str, Any]]:
    lines = [line for path in sorted(Path(OBSERVATIONS).glob("*.jsonl")) for line in path.read_text().splitlines()]
    return [row for row in map(json.loads, lines) if row["model"] == name]


@pytest.mark.usefixtures("project")
def test_watch_names_the_models_when_none_is_chosen() -> None:
    with pytest.raises(UserError, match="name the model to watch; one of:"):
        run(["watch"])
    assert run(["watch", "spam", "--once", "--every", "5"]) == 2
