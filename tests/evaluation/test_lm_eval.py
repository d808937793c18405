"""Likelihood measures beside lm-evaluation-harness on the exported folder: equal likelihoods, picks and scores."""

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from pipeline import files
from pipeline.data.benchmarks import items
from pipeline.evaluation import Subject, multiple_choice, pairs, truthfulqa
from pipeline.model import checkpoint
from pipeline.prompts.spec import TEXT
from pipeline.tasks import open_tasks
from pipeline.tokenizer import Tokenizer
from tests.evaluation import benchmark_files
from tests.evaluation.test_measures import COMPUTE
from tests.model.test_transformers import exported, words  # noqa: F401 - a fixture

ARC = {
    "doc_to_text": "Question: {{question}}\nAnswer:", "doc_to_choice": "{{choices.text}}",
    "doc_to_target": "{{choices.label.index(answerKey)}}",
}  # fmt: skip
PAIRS = {
    "doc_to_text": "", "target_delimiter": "", "doc_to_choice": "{{[sentence_good, sentence_bad]}}", "doc_to_target": 0,
}  # fmt: skip
EXAM = {
    "doc_to_text": "Soru: {{ question.strip() }}\nA. {{ choices[0] }}\nB. {{ choices[1] }}\nC. {{ choices[2] }}\n"
    "D. {{ choices[3] }}\nE. {{ choices[4] }}\nCevap:",
    "doc_to_choice": ["A", "B", "C", "D", "E"], "doc_to_target": "{{ answer.strip() }}",
}  # fmt: skip
HELLASWAG = {"doc_to_text": "{{query}}", "doc_to_target": "{{label}}", "doc_to_choice": "choices"}
WORDS = ["Ayşe", "İzmir'de", "yaşıyor", "bu", "mesaj", "sıradan", "şu", "istenmeyen", "merhaba", "dünya", "free", "cat"]


def write_many(folder: Path) -> None:
    """Random questions: 20 pairs, 20 questions of ARC with one context each of some 60 tokens, 10 of HellaSwag."""
    draw = random.Random(5)

    def text(n: int) -> str:
        return " ".join(draw.choice(WORDS) for _ in range(n))

    def choices(n: int) -> list[str]:
        return [f"{text(draw.randint(1, 4))} {i}" for i in range(n)]  # unlike each other: of ties the harness takes one

    rows: dict[str, list[dict[str, Any]]] = {
        "pairs": [{"sentence_good": text(7), "sentence_bad": text(7)} for _ in range(20)],
        "arc": [
            {"question": text(20), "choices": {"text": choices(4), "label": list("ABCD")},
             "answerKey": draw.choice("ABCD")}
            for _ in range(20)
        ],
        "exam": [{"question": text(9), "choices": choices(5), "answer": draw.choice("ABCDE")} for _ in range(10)],
        "hellaswag": [
            {"activity_label": text(2), "ctx_a": f"[header] {text(6)} [title] {text(2)}.", "ctx_b": text(2),
             "endings": [f"{ending} [substeps]  {text(1)}" for ending in choices(4)], "label": str(draw.randrange(4))}
            for _ in range(10)
        ],
    }  # fmt: skip
    for name, of_one in rows.items():
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in of_one)
        files.write_text(folder / f"inputs/{name}.jsonl", lines)


class Harness:
    """lm-evaluation-harness on a model folder, with tasks of local files."""

    def __init__(self, folder: Path, scratch: Path) -> None:
        from lm_eval.models.huggingface import HFLM

        self.model, self.scratch = HFLM(pretrained=str(folder), device="cpu", batch_size=4), scratch

    def measured(self, file: str, task: dict[str, Any]) -> tuple[list[list[float]], dict[str, float]]:
        """-ln p of every choice of every question, and the mean of each metric."""
        from lm_eval.api.task import ConfigurableTask

        config = task | {
            "task": file, "dataset_path": "json", "output_type": "multiple_choice", "test_split": "test",
            "dataset_kwargs": {"data_files": {"test": f"inputs/{file}.jsonl"}, "cache_dir": str(self.scratch)},
            "metric_list": [{"metric": name} for name in ("acc", "acc_norm", "acc_bytes")],
        }  # fmt: skip
        made = ConfigurableTask(config=config)
        made.build_all_requests(rank=0, world_size=1)
        answers = self.model.loglikelihood(made.instances, disable_tqdm=True)
        by_question: dict[int, list[tuple[float, bool]]] = {}
        for instance, answer in zip(made.instances, answers, strict=True):
            by_question.setdefault(instance.doc_id, []).append(answer)
        scores = [made.process_results(doc, by_question[number]) for number, doc in enumerate(made.test_docs())]
        means = {name: float(np.mean([score[name] for score in scores])) for name in scores[0]}
        return [[-value for value, _ in of_one] for _, of_one in sorted(by_question.items())], means


def pinned(name: str, **more: str) -> Any:
    path = f"inputs/{name}"
    return {"path": path, "sha256": files.sha256_of(Path(path)), **more}


@pytest.fixture(params=["gpt2", "llama", "qwen3"])
def beside(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    words: Path,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> tuple[Subject, Harness]:
    """A random model of this project, and the harness on its exported folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    folder = exported(tmp_path / "model", words, request.param, TEXT)
    tokenizer, model = Tokenizer.load(folder), checkpoint.load(folder).eval()
    one = Subject("m", model, tokenizer, open_tasks(folder, tokenizer, model.room()), tmp_path, COMPUTE)
    return one, Harness(folder, tmp_path / "cache")


def test_likelihood_measures_give_the_harnesss_likelihoods_picks_and_scores(beside: tuple[Subject, Harness]) -> None:
    """Lost otherwise: scores could not be compared with those that others report for a model."""
    from lm_eval.tasks.hellaswag.utils import process_docs

    one, harness = beside
    write_many(Path())
    theirs, means = harness.measured("pairs", PAIRS)
    settings = pairs.Settings(sets={"x": pinned("pairs.jsonl", language="en")}, batch_size=3, max_pairs=None)
    metrics, _, (outcomes,) = pairs.measure(settings, one)
    assert metrics["pairs_accuracy_x"] == pytest.approx(means["acc"])
    assert outcomes.values == [float(good < bad) for good, bad in theirs]

    tasks = {"arc": ARC, "exam": EXAM, "hellaswag": HELLASWAG | {"process_docs": process_docs}}
    for name, task in tasks.items():
        theirs, means = harness.measured(name, task)
        form = "turkishmmlu" if name == "exam" else name
        chosen = pinned(f"{name}.jsonl", language="en", format=form)
        settings = multiple_choice.Settings(sets={"x": chosen}, batch_size=6, max_questions=None)
        metrics, _, _ = multiple_choice.measure(settings, one)
        assert metrics["choice_accuracy_x"] == pytest.approx(means["acc"])
        assert metrics["choice_accuracy_by_byte_x"] == pytest.approx(means["acc_bytes"])
        rows = items(chosen["path"], chosen["sha256"])
        questions = [multiple_choice.question_of(row, form) for row in rows]
        ours = multiple_choice.scores(one, questions, [row.place for row in rows], 6)
        for of_one, expected in zip(ours, theirs, strict=True):
            assert [score.nats for score in of_one] == pytest.approx(expected, abs=1e-4)
            assert np.argmin([score.nats for score in of_one]) == np.argmin(expected)


def test_truthfulqa_gives_the_harnesss_scores(beside: tuple[Subject, Harness]) -> None:
    """Its own prompt, answers and formulas, on a model whose context is too short for the prompt."""
    one, harness = beside
    benchmark_files.write(Path())
    chosen = pinned("TruthfulQA.csv")
    metrics, details, _ = truthfulqa.measure(truthfulqa.Settings(**chosen, batch_size=3, max_questions=None), one)
    rows = [truthfulqa.question_of(item) for item in items(**chosen)]
    docs = [
        {
            "question": row.text,
            "mc1_targets": {"choices": [row.best, *row.false]},
            "mc2_targets": {"choices": [*row.true, *row.false], "labels": [1] * len(row.true) + [0] * len(row.false)},
        }
        for row in rows
    ]
    files.write_text(Path("inputs/truthful.jsonl"), "".join(json.dumps(doc) + "\n" for doc in docs))
    folder = Path(lm_eval_tasks()) / "truthfulqa"
    text = yaml.safe_load((folder / "truthfulqa_mc1.yaml").read_text(encoding="utf-8"))["doc_to_text"]
    task = {"doc_to_text": text, "doc_to_target": 0}
    _, means = harness.measured("truthful", task | {"doc_to_choice": "{{mc1_targets.choices}}"})
    assert metrics["truthfulqa_mc1"] == pytest.approx(means["acc"])
    likelihoods, _ = harness.measured("truthful", task | {"doc_to_choice": "{{mc2_targets.choices}}"})
    shares = [
        sum(np.exp(-np.array(nats))[: len(row.true)]) / sum(np.exp(-np.array(nats)))
        for nats, row in zip(likelihoods, rows, strict=True)
    ]
    assert metrics["truthfulqa_mc2"] == pytest.approx(np.mean(shares), abs=1e-4)
    assert details["cut_contexts"] > 0


def lm_eval_tasks() -> str:
    import lm_eval.tasks

    return str(Path(lm_eval.tasks.__file__).parent)
