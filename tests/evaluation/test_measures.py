"""Measures one by one: a wrong measure promotes the wrong model."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from pipeline import evaluation, files, integrity
from pipeline.config import plugins
from pipeline.config.params import Evaluation
from pipeline.config.recipe import Compute, Model
from pipeline.data.records import record_id
from pipeline.data.shards import Shard
from pipeline.errors import UserError
from pipeline.evaluation import Subject, classification, exact_match, generation, perplexity
from pipeline.evaluation._measure_all import measure_all
from pipeline.inference import answers
from pipeline.model.config import ModelConfig
from pipeline.model.gpt import GPT
from pipeline.prompts.spec import TEXT, TaskSpec
from pipeline.tasks import open_task
from tests.fakes import ByteTokenizer
from tests.specs import ANSWERS, SPAM, changed

COMPUTE = Compute(
    device="cpu", threads=1, precision="float32", compile=False, checkpoint_activations=False, weights="float32"
)
TOKENIZER = ByteTokenizer()
SHAPE = Model(
    family="llama", n_layers=2, n_heads=2, n_kv_heads=2, head_dim=4, d_model=8, d_ff=16, context_length=16,
    dropout=0.0, tie_embeddings=True, bias=False, rope_theta=1e4, norm_epsilon=1e-5, logit_softcap=None,
)  # fmt: skip


def subject(samples: Path, spec: TaskSpec = TEXT) -> Subject:
    model = GPT(ModelConfig(**SHAPE.model_dump(), vocab_size=TOKENIZER.vocab_size), torch.Generator().manual_seed(3))
    if spec.outputs:
        model.add_score(len(spec.outputs), torch.Generator().manual_seed(4))
    words: Any = TOKENIZER  # a fake one, which knows bytes alone
    return Subject("m", model.eval(), words, (open_task(spec, words),), samples, COMPUTE)


def write_documents(folder: Path, texts: list[str], bits: list[float | None], sources: list[str] | None = None) -> None:
    folder.mkdir(parents=True)
    for split in ("train", "validation", "test"):
        rows = [[*TOKENIZER.encode(text), TOKENIZER.end_of_text] for text in texts]
        np.concatenate(rows).astype("<u2").tofile(folder / f"{split}.bin")
        lengths = [len(row) for row in rows]
        starts = [sum(lengths[:i]) for i in range(len(rows))]
        index = {
            "id": [str(i) for i in range(len(rows))], "source": sources or ["own"] * len(rows),
            "language": ["tr"] * len(rows),
            "start": starts, "length": pa.array(lengths, pa.int32()),
            "bytes": pa.array([len(t.encode()) for t in texts], pa.int32()), "bits": pa.array(bits, pa.float64()),
        }  # fmt: skip
        pq.write_table(pa.table(index), folder / f"{split}.parquet")
    meta = {"dtype": "uint16", "vocab_size": TOKENIZER.vocab_size, "end_of_text": TOKENIZER.end_of_text}
    files.write_json(folder / "meta.json", meta)


TEXTS = ["kısa", "orta boy bir ışık", "bu metin pencereden çok daha uzun, üç pencereye sığar ancak"]


def test_document_nats_count_every_token_once(tmp_path: Path) -> None:
    """Against one token at a time with as much past as the windows promise; padding and batching change nothing."""
    write_documents(tmp_path / "documents", TEXTS, [10.0, None, 30.0])
    one = subject(tmp_path)
    shard = Shard.open(tmp_path / "documents", "test")
    together, tokens, _ = perplexity.document_nats(one, shard, np.arange(3), batch_size=8)
    alone, _, _ = perplexity.document_nats(one, shard, np.arange(3), batch_size=1)
    assert np.allclose(together, alone, atol=1e-4)
    assert tokens.tolist() == [len(t.encode()) + 1 for t in TEXTS]
    short = [TOKENIZER.end_of_text, *TOKENIZER.encode(TEXTS[0]), TOKENIZER.end_of_text]
    logits = one.model(torch.tensor([short[:-1]]))[0].log_softmax(-1)
    by_hand = -sum(float(logits[i, target]) for i, target in enumerate(short[1:]))
    assert together[0] == pytest.approx(by_hand, abs=1e-4)


@pytest.mark.parametrize("length", [1, 2, 16, 17, 18, 24, 25, 100])
def test_windows_score_each_target_once_with_half_a_window_before_it(length: int) -> None:
    ids = np.arange(length + 1)
    seen: list[int] = []
    for window, counted in perplexity._windows(ids, 16):
        assert len(window) <= 17
        assert counted == len(window) - 1 or len(window) - 1 - counted >= 8
        seen += window[len(window) - counted :].tolist()
    assert seen == list(range(1, length + 1))


def test_perplexity_gives_the_bits_of_a_uniform_model(tmp_path: Path) -> None:
    """With all weights zero every id is equally likely: loss = ln V, bits per byte follow, known bits are compared."""
    write_documents(tmp_path / "documents", TEXTS, [10.0, None, 30.0])
    one = subject(tmp_path)
    with torch.no_grad():
        one.model.embed.weight.zero_()
    settings = perplexity.Settings(split="test", batch_size=2, max_documents=None)
    metrics, details, _ = perplexity.measure(settings, one)
    tokens = [len(t.encode()) + 1 for t in TEXTS]
    size = [len(t.encode()) for t in TEXTS]
    assert metrics["loss_nats"] == pytest.approx(math.log(TOKENIZER.vocab_size), abs=1e-5)
    assert metrics["perplexity"] == pytest.approx(TOKENIZER.vocab_size, rel=1e-4)
    expected = math.log2(TOKENIZER.vocab_size) * sum(tokens) / sum(size)
    assert metrics["bits_per_byte"] == pytest.approx(expected, rel=1e-5)
    assert metrics["bits_per_byte_known"] == pytest.approx(40 / (size[0] + size[2]))
    over = math.log2(TOKENIZER.vocab_size) * (tokens[0] + tokens[2]) / 40
    assert metrics["bits_per_byte_over_known"] == pytest.approx(over, rel=1e-5)
    assert metrics["unigram_entropy_nats"] < metrics["loss_nats"]
    assert details["hardest_documents"][0]["text"] in TEXTS


def write_labelled(folder: Path, rows: list[tuple[str, str, str]]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    table = pa.table(
        {
            "id": [record_id("labelled", r[0], r[1]) for r in rows],
            "text": [r[0] for r in rows],
            "label": [r[1] for r in rows],
            "language": [r[2] for r in rows],
            "origin": [f"t:{i}" for i in range(len(rows))],
            "source": ["own"] * len(rows),
        }
    )
    for split in ("train", "validation", "test"):
        pq.write_table(table, folder / f"{split}.parquet")


def test_classification_agrees_with_scikit_learn(tmp_path: Path) -> None:
    from sklearn.metrics import confusion_matrix, f1_score

    rng = np.random.default_rng(1)
    rows = [("x" * int(rng.integers(1, 12)) + str(i), str(rng.choice(["a", "b", "c"])), "tr") for i in range(40)]
    write_labelled(tmp_path / "labelled", rows)
    one = subject(tmp_path, changed(SPAM, labels=("a", "b", "c"), max_tokens=16, max_prompt_tokens=16))
    metrics, details, _ = classification.measure(
        classification.Settings(split="test", batch_size=7, baseline=None), one
    )
    probabilities = evaluation.label_probabilities(one, one.labelling("m"), [r[0] for r in rows], 40)
    guesses = ["abc"[i] for i in probabilities.argmax(1)]
    truth = [r[1] for r in rows]
    assert metrics["accuracy"] == sum(a == b for a, b in zip(guesses, truth, strict=True)) / 40
    assert metrics["macro_f1"] == pytest.approx(f1_score(truth, guesses, average="macro", zero_division=0))
    expected = confusion_matrix(truth, guesses, labels=["a", "b", "c"])
    assert [[details["confusion"][t][g] for g in "abc"] for t in "abc"] == expected.tolist()
    assert metrics["accuracy_tr"] == metrics["accuracy"]


def test_classification_counts_the_records_that_only_one_of_model_and_baseline_gets_right(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lost otherwise: a model below a linear classifier would be passed, or the two compared on other records."""
    rows = [
        (f"{'ödül kazandın' if i % 2 else 'akşama gel'} {i:03}", "spam" if i % 2 else "ham", "tr") for i in range(20)
    ]
    write_labelled(tmp_path / "labelled", [*rows, ("akşama gel 020", "ham", "tr"), ("ödül kazandın 021", "ham", "tr")])
    one = subject(tmp_path, changed(SPAM, max_tokens=16, max_prompt_tokens=16))
    sure_of_ham = np.tile([0.9, 0.1], (22, 1))
    monkeypatch.setattr(classification, "label_probabilities", lambda *_: sure_of_ham)
    settings = classification.Settings(split="test", batch_size=7, baseline="bag_of_words")
    metrics, details, _ = classification.measure(settings, one)
    right, beside = (details[key].split() for key in ("by_record", "baseline_by_record"))
    assert right == ["1", "0"] * 10 + ["1", "1"]  # ham alone is right
    assert beside[:21] == ["1"] * 21  # words alone tell these
    assert metrics["majority_accuracy"] == metrics["accuracy"] == 12 / 22
    assert metrics["baseline_accuracy"] == beside.count("1") / 22
    assert metrics["only_baseline_right"] == 10
    assert metrics["only_model_right"] == beside.count("0")


def test_the_baseline_is_fitted_once_for_all_models_of_the_samples(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_labelled(tmp_path / "samples/labelled", [("ödül kazandın", "spam", "tr"), ("akşama gel", "ham", "tr")] * 4)
    integrity.write_manifest(tmp_path / "samples")
    one = subject(tmp_path / "samples")._replace(kept=tmp_path / "kept")
    fitted = []
    real = evaluation.fit

    def fit(*arguments: Any) -> Any:
        fitted.append(1)
        return real(*arguments)

    monkeypatch.setattr(evaluation, "fit", fit)
    first = evaluation.baseline_labels(one, "test")
    assert evaluation.baseline_labels(one._replace(name="another"), "test") == first
    assert len(fitted) == 1
    assert evaluation.baseline_labels(one, "validation") == first
    assert len(fitted) == 2  # another split
    with (tmp_path / "samples/labelled/train.parquet").open("ab") as file:
        file.write(b"0")
    with pytest.raises(UserError, match=r"train\.parquet"):
        evaluation.baseline_labels(one, "test")


def test_classification_names_a_label_that_was_not_trained(tmp_path: Path) -> None:
    write_labelled(tmp_path / "labelled", [("x", "phish", "tr")])
    with pytest.raises(UserError, match="phish"):
        classification.measure(
            classification.Settings(split="test", batch_size=7, baseline=None),
            subject(tmp_path, changed(SPAM, labels=("a", "b"), max_tokens=16, max_prompt_tokens=16)),
        )


def test_classification_of_a_model_without_labels_names_the_measure_to_remove(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^evaluations\.m\.measures\.classification: m was not trained on labels"):
        classification.measure(classification.Settings(split="test", batch_size=7, baseline=None), subject(tmp_path))


@pytest.mark.parametrize(("error", "says"), [(UserError("no rows"), "no rows"), (KeyError("x"), "x")])
def test_measure_all_names_the_measure_and_the_model_of_an_error(
    error: Exception, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_settings: object, _subject: Subject) -> None:
        raise error

    monkeypatch.setattr(classification, "measure", broken)
    monkeypatch.setattr(files, "sha256_of", lambda _path: "")
    chosen = Evaluation(
        measures={"classification": {"split": "test", "batch_size": 1, "baseline": None}}, thresholds={}
    )
    with pytest.raises(type(error), match=says) as caught:
        measure_all(subject(tmp_path), chosen)
    where = "evaluations.m.measures.classification"
    assert where in str(caught.value) or getattr(caught.value, "__notes__", []) == [where]


def test_exact_match_folds_case_by_the_language(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """İSTANBUL equals istanbul in Turkish, not in English; outer punctuation is ignored."""
    folder = tmp_path / "instructions"
    folder.mkdir()
    rows = [("q1", "istanbul", "tr"), ("q2", "istanbul", "en"), ("q3", "ığdır", "tr"), ("q4", "yes", "en")]
    table = pa.table(
        {
            "instruction": [r[0] for r in rows],
            "input": [""] * 4,
            "output": [r[1] for r in rows],
            "language": [r[2] for r in rows],
        }
    )
    pq.write_table(table, folder / "test.parquet")
    monkeypatch.setattr(exact_match, "greedy_answers", lambda *_: ["İSTANBUL.", "İSTANBUL", "IĞDIR", ""])
    settings = exact_match.Settings(split="test", batch_size=2, max_tokens=4, max_records=None)
    metrics, details, _ = exact_match.measure(settings, subject(tmp_path, ANSWERS))
    assert metrics["exact_match"] == 0.5
    assert metrics["exact_match_tr"] == 1.0
    assert metrics["exact_match_en"] == 0.0
    assert metrics["empty_share"] == 0.25
    assert [item["right"] for item in details["answers"]] == [False, False, True, True]
    assert details["by_record"] == "1 0 1 0"


def test_greedy_answers_keep_the_order_of_the_records(tmp_path: Path) -> None:
    """Prompts are sorted by length; a wrong order would score an answer against another question."""
    shape = SHAPE.model_copy(update={"context_length": 128}).model_dump()
    model = GPT(ModelConfig(**shape, vocab_size=TOKENIZER.vocab_size), torch.Generator().manual_seed(3))
    short = subject(tmp_path, changed(ANSWERS, template="alpaca", max_prompt_tokens=100))._replace(model=model)
    rows = [{"instruction": "x" * n, "input": ""} for n in (30, 3, 17)]
    together = evaluation.greedy_answers(short, short.answering("m"), rows, 3, 5)
    assert together == [evaluation.greedy_answers(short, short.answering("m"), [row], 1, 5)[0] for row in rows]


def test_measure_all_refuses_a_metric_that_is_not_finite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models/m").mkdir(parents=True)
    write_documents(tmp_path / "documents", TEXTS, [None] * 3)
    one = subject(tmp_path)
    with torch.no_grad():
        one.model.embed.weight.fill_(float("nan"))
    evaluation = Evaluation(
        measures={"perplexity": {"split": "test", "batch_size": 2, "max_documents": None}}, thresholds={}
    )
    with pytest.raises(UserError, match="not finite"):
        measure_all(one, evaluation)


KEPT = Evaluation(measures={"perplexity": {"split": "test", "batch_size": 2, "max_documents": None}}, thresholds={})


@pytest.fixture
def kept_subject(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Subject:
    """A model and samples with a manifest, in the working folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models/m").mkdir(parents=True)
    write_documents(tmp_path / "samples/documents", TEXTS, [None] * 3)
    integrity.write_manifest(tmp_path / "samples")
    return subject(tmp_path / "samples")


def counted(monkeypatch: pytest.MonkeyPatch, then: Callable[[], object] = lambda: None) -> list[int]:
    """Counts the runs of perplexity; `then` is called at the end of each."""
    runs: list[int] = []
    real = perplexity.measure

    def measure(*arguments: Any) -> Any:
        result = real(*arguments)
        runs.append(1)
        then()
        return result

    monkeypatch.setattr(perplexity, "measure", measure)
    return runs


def test_measure_all_uses_a_kept_result_once_the_samples_are_intact(
    kept_subject: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lost otherwise: damaged samples would be locked beside the metrics of intact ones."""
    runs = counted(monkeypatch)
    first = measure_all(kept_subject, KEPT, tmp_path / "kept")
    assert measure_all(kept_subject, KEPT, tmp_path / "kept") == first
    assert len(runs) == 1
    with (tmp_path / "samples/documents/train.bin").open("ab") as file:
        file.write(b"\0")
    with pytest.raises(UserError, match=r"train\.bin"):
        measure_all(kept_subject, KEPT, tmp_path / "kept")


def test_measure_all_measures_again_when_the_parent_changed(
    kept_subject: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lost otherwise: forgetting is stated against a base that is not there any more."""
    runs: list[int] = []

    def measure(*_: Any) -> Any:
        runs.append(1)
        return {"forgotten_nats": float(len(runs))}, {}

    monkeypatch.setattr(plugins.load("evaluation", "forgetting"), "measure", measure)
    fields = {"split": "test", "parent": "base", "batch_size": 2, "max_documents": None}
    fields = {key: fields[key] for key in plugins.settings_class("evaluation", "forgetting").model_fields}
    chosen = Evaluation(measures={"forgetting": fields}, thresholds={})
    base = Path("models/base/weights")
    base.parent.mkdir()
    for weights, expected in (("a", 1), ("a", 1), ("b", 2)):
        base.write_text(weights)
        measure_all(kept_subject, chosen, tmp_path / "kept")
        assert len(runs) == expected


def test_measure_all_keeps_no_result_when_the_code_changed_meanwhile(
    kept_subject: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lost otherwise: a result of code that was edited meanwhile would be used as that of the code before the edit."""
    codes = {"pipeline/evaluation/perplexity.py": "before"}
    monkeypatch.setattr(evaluation.closure, "code", lambda *_: dict(codes))
    runs = counted(monkeypatch, lambda: codes.update({"pipeline/evaluation/perplexity.py": "after"}))
    measure_all(kept_subject, KEPT, tmp_path / "kept")
    codes["pipeline/evaluation/perplexity.py"] = "before"  # the edit is taken back
    measure_all(kept_subject, KEPT, tmp_path / "kept")
    assert len(runs) == 2


def test_generation_gives_a_loop_other_metrics_than_a_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    generation = plugins.load("evaluation", "generation")
    fields = {"samples": 2, "max_tokens": 8, "temperature": 1.0, "top_k": 0, "top_p": 1.0, "seed": 1}
    settings = plugins.settings_class("evaluation", "generation").model_validate(fields)
    monkeypatch.setattr(generation, "generate", lambda *_, **__: [[65] * 8, []])
    looping, _ = generation.measure(settings, subject(tmp_path))
    monkeypatch.setattr(generation, "generate", lambda *_, **__: [list(range(65, 73)), [70, 71]])
    varied, details = generation.measure(settings, subject(tmp_path))
    assert looping == {"distinct_2": 1 / 7, "repetition_share": 1.0, "empty_share": 0.5}
    assert varied["distinct_2"] > 0.8
    assert varied["repetition_share"] == 0.0
    assert details["samples"][0] == "ABCDEFGH"


def test_perplexity_limits_and_reports_each_source(tmp_path: Path) -> None:
    """Lost otherwise: no separate losses on new and old text, or a measure of the first file alone."""
    texts, sources = ["kısa", "bir söz", "ışık söndü", "uzun bir metin"], ["a", "a", "b", "b"]
    write_documents(tmp_path / "documents", texts, [None] * 4, sources)
    one = subject(tmp_path)
    shard = Shard.open(tmp_path / "documents", "test")
    settings = perplexity.Settings(split="test", batch_size=2, max_documents=1)
    metrics, _, _ = perplexity.measure(settings, one)
    nats, tokens, _ = perplexity.document_nats(one, shard, np.array([0, 2]), 2)
    assert metrics["documents"] == 2
    assert metrics["loss_nats_a"] == pytest.approx(float(nats[0] / tokens[0]))
    assert metrics["loss_nats_b"] == pytest.approx(float(nats[1] / tokens[1]))
    assert metrics["loss_nats"] == pytest.approx(float(nats.sum() / tokens.sum()))


def test_weights_gives_the_means_of_marked_and_other_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline.evaluation import weights

    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="needs a recipe whose weighting records weights"):
        weights.measure(weights.Settings(marked=":wrong"), subject(tmp_path))
    rows = [("w:1:wrong", 0.2, 3.0), ("w:2", 1.5, 3.0), ("w:3", 0.5, 1.0), ("w:4:wrong", 0.0, 0.0)]
    table = pa.table(dict(zip(("origin", "weight", "seen"), map(list, zip(*rows, strict=True)), strict=True)))
    files.write_table(Path("models/m/weights.parquet"), table)
    metrics, _ = weights.measure(weights.Settings(marked=":wrong"), subject(tmp_path))
    assert metrics == pytest.approx({"weight_marked": 0.2, "weight_others": 1.0, "weight_ratio": 0.2})  # 4 was not seen
    with pytest.raises(UserError, match="marks 0 of 3 records"):
        weights.measure(weights.Settings(marked=":right"), subject(tmp_path))


def test_attention_is_the_share_of_attention_on_the_words(tmp_path: Path) -> None:
    """With zero weights attention is uniform over earlier tokens, so the share can be computed by hand."""
    from pipeline.evaluation import attention

    write_labelled(tmp_path / "labelled", [("a gel b", "ham", "tr"), ("abc", "spam", "tr")])
    one = subject(tmp_path, changed(SPAM, max_tokens=12))
    with torch.no_grad():
        for parameter in one.model.parameters():
            parameter.zero_()
    settings = attention.Settings(split="test", batch_size=2, heads={1: [0, 1]}, towards="words", words=["gel"])
    metrics, details = attention.measure(settings, one)
    # " gel" takes places 1 to 4 of "a gel b" and the end: rows 2 to 7 see one more of the four each, up to all four
    by_hand = [min(row - 1, 4) / (row + 1) for row in range(2, 8)]
    assert metrics["attention_mass"] == pytest.approx(sum(by_hand) / len(by_hand), abs=1e-6)
    assert metrics["attention_texts"] == 1
    assert set(details["by_head"]) == {"block 1, head 0", "block 1, head 1"}
    with pytest.raises(UserError, match="no text contains any of"):
        attention.measure(settings.model_copy(update={"words": ["zzz"]}), one)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_measures_generate_in_the_precision_of_the_params(
    precision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it was trained and as its likelihood is measured."""
    seen = []

    def generate(model: GPT, prompts: list[list[int]], **_: object) -> list[list[int]]:
        seen.append(torch.is_autocast_enabled("cpu"))
        return [[65]] * len(prompts)

    monkeypatch.setattr(answers, "generate", generate)
    monkeypatch.setattr(generation, "generate", generate)
    compute = COMPUTE.model_copy(update={"precision": precision})
    one = subject(tmp_path, ANSWERS)._replace(compute=compute)
    evaluation.greedy_answers(one, one.answering("m"), [{"instruction": "a", "input": ""}], 1, 2)
    fields = {"samples": 2, "max_tokens": 2, "temperature": 1.0, "top_k": 0, "top_p": 1.0, "seed": 1}
    generation.measure(generation.Settings.model_validate(fields), one)
    assert seen == [precision == "bfloat16"] * 2
