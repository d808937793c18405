"""Merged model folders: both models' skills are there; models of different bases are refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline import files, tokenizer
from pipeline.config.params import Evaluation
from pipeline.config.recipe import Compute, Merge
from pipeline.data.records import SCHEMAS
from pipeline.errors import UserError
from pipeline.evaluation import open_subject
from pipeline.evaluation._measure_all import measure_all
from pipeline.files import sha256_of, write_json, write_table
from pipeline.inference import predictor
from pipeline.inference.labels import probabilities
from pipeline.merging import merge, merged_tasks
from pipeline.model import checkpoint
from pipeline.model.adapters import insert_bottlenecks
from pipeline.model.gpt import GPT
from pipeline.prompts.spec import TaskSpec, read
from pipeline.tasks import Labelling, Request, open_task
from tests import variants
from tests.fakes import instruction, labelled
from tests.merging.models import fine_tuned, weights_of
from tests.models import network
from tests.specs import ANSWERS as CHAT
from tests.specs import SPAM, TEXT, WORDS, changed, labels_of, written
from tests.variants import Variant

COMPUTE = Compute(
    device="cpu", threads=1, precision="float32", compile=False, checkpoint_activations=False, weights="float32"
)
BASE = Path("models/base")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A base, a chat model and a classifier tuned from it, and a few records."""
    monkeypatch.chdir(tmp_path)
    tokenizer.train(["Ayşe geldi, ödül kazandın! Where is the cat? " * 20], 300, "gpt2").save(Path("words"))
    save("base", base_of(), TEXT)
    save("chat", fine_tuned(base_of(), 1), CHAT)
    save("spam", classifier(2), SPAM)
    return tmp_path


def base_of(**changes: Any) -> GPT:
    size = tokenizer.Tokenizer.load(Path("words")).vocab_size
    return network("qwen3", **{"vocab_size": size, "context_length": 48, "tie_embeddings": False} | changes)


def classifier(seed: int, labels: int = 2) -> GPT:
    model = fine_tuned(base_of(), seed)
    model.add_score(labels, torch.Generator().manual_seed(seed))
    return model


def save(name: str, model: GPT, task: TaskSpec, words: str = "words", **more: Any) -> None:
    checkpoint.save(
        model, Path("models") / name, tokenizer=Path(words), labels=labels_of(task), metadata=written([task]), **more
    )


def merged(first: str, second: str, name: str = "both", rule: dict[str, Any] | None = None) -> Path:
    rule = rule or {"name": "linear", "scales": [1.0, 1.0]}
    merge(name, Merge.model_validate({"of": "base", "first": first, "second": second, "rule": rule}), Path("models"))
    return Path("models") / name


def write_records() -> None:
    import pyarrow as pa

    rows = {
        "labelled": [labelled(f"ödül {i}", "spam" if i % 2 else "ham") for i in range(6)],
        "instructions": [instruction(f"Where is {i}?", "ev") for i in range(3)],
    }
    for kind, some in rows.items():
        full = [{"id": str(i), "source": "own", "split": "test"} | row for i, row in enumerate(some)]
        table = pa.Table.from_pylist([{key: row.get(key) for key in SCHEMAS[kind].names} for row in full])  # type: ignore[index]
        write_table(Path(f"data/samples/{kind}/test.parquet"), table)


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize("variant", variants.variants("merging"), ids=str)
def test_a_merged_model_is_evaluated_as_both_of_its_models(variant: Variant) -> None:
    """Lost otherwise: one of the two skills would be in the weights but could not be used."""
    write_records()
    merged("chat", "spam", rule={"name": variant.name} | variant.settings)
    measures = {
        "classification": {"split": "test", "batch_size": 4, "baseline": None},
        "exact_match": {"split": "test", "batch_size": 4, "max_tokens": 4, "max_records": None},
    }
    metrics, *_ = measure_all(open_subject("both", COMPUTE), Evaluation(measures=measures, thresholds={}))
    assert {"accuracy", "exact_match", "examples", "instructions"} <= metrics.keys()


@pytest.mark.usefixtures("project")
def test_merge_writes_both_heads_and_the_weights_of_the_method() -> None:
    folder = merged("chat", "spam")
    models = [checkpoint.load(Path("models") / name) for name in ("base", "chat", "spam", "both")]
    base, chat, spam, both = map(weights_of, models)
    assert torch.equal(both["score.weight"], spam["score.weight"])
    for key, value in base.items():
        torch.testing.assert_close(both[key], chat[key] + spam[key] - value)
    assert checkpoint.labels(folder) == ["ham", "spam"]
    assert (folder / checkpoint.HEAD).is_file()


@pytest.mark.usefixtures("project")
def test_a_merged_model_answers_as_its_first_model() -> None:
    """In chat and behind the registry: a signature that promises a label and gives text would break a client."""
    chat, spam = merged("chat", "spam", "chat-first"), merged("spam", "chat", "spam-first")
    assert list(predictor.answer(chat, ["Ayşe?"])[0]) == ["completion"]
    assert list(predictor.answer(spam, ["Ayşe?"])[0]) == ["label", "score"]
    assert (read(chat), read(spam)) == ((CHAT, SPAM), (SPAM, CHAT))


@pytest.mark.usefixtures("project")
def test_merge_writes_equal_bytes_twice_and_takes_a_merged_model() -> None:
    ties = {"name": "ties", "density": 0.3, "scale": 1.0}
    assert sha256_of(merged("chat", "spam", "a", ties)) == sha256_of(merged("chat", "spam", "b", ties))
    save("more", fine_tuned(base_of(), 5), CHAT)
    assert checkpoint.labels(merged("a", "more")) == ["ham", "spam"]


@pytest.mark.usefixtures("project")
def test_merge_treats_heads_of_both_models_like_any_weight() -> None:
    """From zeros if the base has none."""
    save("spam-2", classifier(3), SPAM)
    merged("spam", "spam-2", rule={"name": "linear", "scales": [0.5, 0.5]})
    heads = [checkpoint.load(Path("models") / name).score.weight for name in ("spam", "spam-2", "both")]
    torch.testing.assert_close(heads[2], (heads[0] + heads[1]) / 2)


@pytest.mark.usefixtures("project")
def test_merge_keeps_tied_embeddings_tied() -> None:
    for name, task in (("base", TEXT), ("chat", CHAT), ("spam", SPAM)):
        model = fine_tuned(base_of(tie_embeddings=True), len(name))
        if task.labels:
            model.add_score(2, torch.Generator().manual_seed(1))
        save(name, model, task)
    both = checkpoint.load(merged("chat", "spam"))
    assert both.head is not None
    assert both.head.weight is both.embed.weight


@pytest.mark.usefixtures("project")
def test_a_merged_model_still_classifies_by_words_when_it_answers_in_text() -> None:
    metadata = written([WORDS])
    checkpoint.save(fine_tuned(base_of(), 6), Path("models/cloze"), tokenizer=Path("words"), metadata=metadata)
    both = open_subject(merged("chat", "cloze").name, COMPUTE)
    assert [task.spec.name for task in both.tasks] == ["instruct", "cloze"]
    found = probabilities(both.model, both.labelling("classification"), [Request("ödül")], 1)
    words = open_task(WORDS, both.tokenizer)
    assert isinstance(words, Labelling)
    assert torch.equal(found, probabilities(both.model, words, [Request("ödül")], 1))


def other_shape() -> None:
    save("spam", network("qwen3", vocab_size=base_of().config.vocab_size, n_layers=1, context_length=48), CHAT)


def other_family() -> None:
    save(
        "spam", network("llama", vocab_size=base_of().config.vocab_size, context_length=48, tie_embeddings=False), CHAT
    )


def other_vocabulary() -> None:
    tokenizer.train(["Başka sözcükler, başka bir dünya. " * 20], 300, "gpt2").save(Path("others"))
    save("spam", fine_tuned(base_of(), 2), CHAT, words="others")


def no_language_head() -> None:
    folder = Path("models/spam")
    (folder / checkpoint.HEAD).unlink()
    manifest = files.read_json(folder / "manifest.json")
    write_json(folder / "manifest.json", {key: value for key, value in manifest.items() if key != checkpoint.HEAD})


def adapters() -> None:
    model = base_of()
    tuner = variants.build("tuners", "bottleneck", width=2)
    insert_bottlenecks(model, 2)
    save("spam", base_of(), CHAT, adapter=lambda folder: tuner.save_adapter(model, folder, None))


def other_labels() -> None:
    save("chat", classifier(4, labels=3), changed(SPAM, labels=("a", "b", "c")))


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (other_shape, "spam was not tuned from base: n_layers 1 instead of 2"),
        (other_family, "family 'llama' instead of 'qwen3'"),
        (other_vocabulary, "tokenizer.json of another vocabulary"),
        (no_language_head, "head.weight in one of them only"),
        (
            adapters,
            r"spam or base has virtual tokens or bottleneck adapters.*; merge models trained by a tuner that changes",
        ),
        (other_labels, r"differ in labels \(\('a', 'b', 'c'\) and \('ham', 'spam'\)"),
    ],
)
def test_merge_refuses_models_without_the_same_base(harm: Callable[[], None], words: str) -> None:
    """Lost otherwise: a sum of unrelated weights."""
    merged("chat", "spam")
    harm()
    with pytest.raises(UserError, match=words) as caught:
        merged("chat", "spam")
    assert "merge.both" in str(caught.value)


def test_merged_tasks_keeps_each_task_once_and_names_a_conflicting_field() -> None:
    assert merged_tasks([(CHAT,), (SPAM,)], "m") == [CHAT, SPAM]
    assert merged_tasks([(CHAT, SPAM), (changed(CHAT, max_tokens=9),)], "m") == [CHAT, SPAM]
    assert merged_tasks([(WORDS,), (SPAM,)], "m") == [WORDS, SPAM]
    longer = changed(CHAT, max_tokens=90, max_prompt_tokens=80)  # each model was trained up to its own limits
    assert merged_tasks([(CHAT,), (longer,)], "m") == [longer]
    with pytest.raises(UserError, match=r"m: its models differ in template \('chat' and 'alpaca'"):
        merged_tasks([(CHAT,), (changed(CHAT, name="chat", template="alpaca"),)], "m")
    with pytest.raises(UserError, match=r"differ in max_tokens \(32 and 64"):
        merged_tasks([(SPAM,), (changed(SPAM, max_tokens=64),)], "m")
    with pytest.raises(UserError, match=r"differ in verbalizers"):
        merged_tasks([(WORDS,), (changed(WORDS, verbalizers={"ham": " x", "spam": " y"}),)], "m")
