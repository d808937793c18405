"""Evaluation of a model. Each file is one measure: `measure(settings, subject)` gives metrics, details and outcomes.

Metrics are flat, finite, deterministic numbers with the unit in the name; details are JSON for people to read: wrong
answers, samples, tables; outcomes are the values of a metric on every record, for comparisons and slices. Measures are
apart from tasks, so a changed metric retrains nothing.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import pyarrow.parquet as pq
from torch import Tensor

from pipeline import closure, integrity, kept_results
from pipeline.baseline import Baseline, LabelledTexts, NumbersBaseline, SetsBaseline, fit, fit_numbers, fit_sets
from pipeline.config.recipe import Compute
from pipeline.data.label_cells import labels_of
from pipeline.data.personal import mask
from pipeline.errors import UserError
from pipeline.inference import answers
from pipeline.inference.answers import Sampling
from pipeline.inference.labels import scores
from pipeline.model import checkpoint
from pipeline.model.device import autocast, lowered, set_up
from pipeline.model.gpt import GPT
from pipeline.outcomes import Outcomes
from pipeline.paths import MODELS, SAMPLES
from pipeline.tasks import Answering, Labelling, Request, Scoring, Task, open_tasks
from pipeline.tokenizer import Tokenizer


class Subject(NamedTuple):
    """A model to evaluate, with its tokenizer, tasks and samples."""

    name: str
    model: GPT
    tokenizer: Tokenizer
    tasks: tuple[Task, ...]
    """The tasks in its tohum.json, the one that it answers as first; a merged model has several."""
    samples: Path
    """The folder data/samples."""
    compute: Compute
    kept: Path | None = None
    """Folder of kept results; None: nothing is kept."""

    def labelling(self, measure: str) -> Labelling:
        """The task that answers with labels. Raises UserError if the model has none, naming the measure."""
        for task in self.tasks:
            if isinstance(task, Labelling):
                return task
        raise UserError(
            f"evaluations.{self.name}.measures.{measure}: {self.name} was not trained on labels; remove this measure"
        )

    def scoring(self, measure: str, name: str) -> Scoring:
        """The task of this name, which answers with labels or a number. Raises UserError if the model has none."""
        for task in self.tasks:
            if isinstance(task, Scoring) and task.spec.name == name:
                return task
        raise UserError(
            f"evaluations.{self.name}.measures.{measure}: {self.name} was not trained with task {name}; remove this "
            "measure"
        )

    def answering(self, measure: str) -> Answering:
        """The task that answers questions. Raises UserError if the model has none, naming the measure."""
        for task in self.tasks:
            if isinstance(task, Answering):
                return task
        raise UserError(
            f"evaluations.{self.name}.measures.{measure}: {self.name} was not trained on answers; remove this measure"
        )


class Measured(NamedTuple):
    """The result of a measure."""

    metrics: dict[str, float]
    details: dict[str, Any]
    outcomes: tuple[Outcomes, ...] = ()
    """Of measures over records: the values of the metrics that are means over them."""


Measure = Callable[[Any, Subject], Measured | tuple[dict[str, float], dict[str, Any]]]
Target = TypeVar("Target")
_RUNNER = "pipeline.evaluation._measure_all"  # masks the details


def records(subject: Subject, kind: str, split: str, source: str | None = None) -> list[dict[str, Any]]:
    """The records of one kind and split, in the order of the file; of one source if it is named.

    Raises:
        UserError: a damaged file, or a source of which there is no record.
    """
    path = subject.samples / kind / f"{split}.parquet"
    integrity.require_intact(path)
    # pq.read_table would import pandas: half a second a stage
    rows: list[dict[str, Any]] = pq.ParquetFile(path).read().to_pylist()
    if source is None:
        return rows
    chosen = [row for row in rows if row["source"] == source]
    if not chosen:
        named = ", ".join(sorted({row["source"] for row in rows})) or "no source"
        raise UserError(f"source is {source!r}; the {split} {kind} are of: {named}")
    return chosen


def of_source(answers: Sequence[Target], subject: Subject, split: str, source: str | None) -> list[Target]:
    """The answers to the labelled records of one source, out of those to all of a split; None: all."""
    if source is None:
        return list(answers)
    rows = records(subject, "labelled", split)
    return [answer for answer, row in zip(answers, rows, strict=True) if row["source"] == source]


def baseline_labels(subject: Subject, split: str) -> Baseline:
    """Labels of TF-IDF with logistic regression for the labelled records of a split, trained on the training records.

    It is fitted once for the samples, and kept for all their models.

    Raises:
        UserError: a damaged file.
    """
    return Baseline(**_kept_baseline(subject, {"split": split}, lambda: _fit_baseline(subject, split)._asdict()))


def baseline_sets(subject: Subject, split: str) -> SetsBaseline:
    """Label sets of TF-IDF with a logistic regression a label; otherwise as `baseline_labels`."""

    def fitted() -> dict[str, Any]:
        train, validation, held_out = _texts_of(subject, split, lambda cell: list(labels_of(cell)))
        return fit_sets(train, validation, held_out[0])._asdict()

    return SetsBaseline(**_kept_baseline(subject, {"split": split, "labels": "several"}, fitted))


def baseline_numbers(subject: Subject, split: str) -> NumbersBaseline:
    """Numbers of TF-IDF with ridge regression; otherwise as `baseline_labels`."""

    def fitted() -> dict[str, Any]:
        train, validation, held_out = _texts_of(subject, split, float)
        return fit_numbers(train, validation, held_out[0])._asdict()

    return NumbersBaseline(**_kept_baseline(subject, {"split": split, "labels": "number"}, fitted))


def _kept_baseline(subject: Subject, settings: dict[str, Any], fitted: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The fields of a baseline, fitted or kept from an earlier evaluation of the same samples."""
    if subject.kept is None:
        return fitted()
    code = code_of("bag_of_words", subject)
    key = kept_results.key_of("baseline", subject.samples, code, settings, subject.compute)
    result = kept_results.read(subject.kept, key)
    if result is not None:
        integrity.require_intact(subject.samples / "labelled")
        return result.details
    baseline = fitted()
    if code_of("bag_of_words", subject) == code:  # else an edit came while it ran
        kept_results.keep(subject.kept, key, kept_results.Result({}, baseline))
    return baseline


def _texts_of(subject: Subject, split: str, target: Callable[[str], Target]) -> list[tuple[list[str], list[Target]]]:
    """Texts and targets of the training, the validation and one more split."""
    rows = [records(subject, "labelled", name) for name in ("train", "validation", split)]
    return [([row["text"] for row in part], [target(row["label"]) for row in part]) for part in rows]


def _fit_baseline(subject: Subject, split: str) -> Baseline:
    splits = {name: records(subject, "labelled", name) for name in dict.fromkeys(("train", "validation", split))}
    texts = {
        name: LabelledTexts([row["text"] for row in rows], [row["label"] for row in rows])
        for name, rows in splits.items()
    }
    return fit(texts["train"], texts["validation"], texts[split].texts)


def code_of(measure: str, subject: Subject, fields: Mapping[str, Any] | None = None) -> closure.Code:
    """The code that decides a measure's result; its settings `fields` name the judges."""
    tasks = sorted({task.spec.name for task in subject.tasks})
    judges = closure.judge_names([fields or {}])
    return closure.code([__name__, _RUNNER], {"evaluation": [measure], "tasks": tasks, "judges": judges})


def by_record(scores: Sequence[float]) -> str:
    """Scores of records, in the order of the file, for a measure's details: one line of JSON instead of thousands."""
    return " ".join(f"{score:.4g}" for score in scores)


def slices(n: int, size: int) -> Iterator[slice]:
    """Consecutive slices of `size` that cover 0..n-1."""
    return (slice(first, min(first + size, n)) for first in range(0, n, size))


def open_subject(name: str, compute: Compute, models: Path = MODELS) -> Subject:
    """Loads models/<name> with its tokenizer and task, in evaluation mode, on the device of the params.

    Raises:
        UserError: a file of the model differs from its recorded hash.
    """
    folder = models / name
    integrity.require_intact(folder)
    device = set_up(compute)
    model = checkpoint.load(folder, str(device)).eval()
    tokenizer = Tokenizer.load(folder)
    return Subject(name, model, tokenizer, open_tasks(folder, tokenizer, model.room()), SAMPLES, compute)


def text_scores(subject: Subject, task: Scoring, texts: Sequence[str], batch_size: int) -> Tensor:
    """scores_NC of a task that answers with labels or a number, in the precision of the params, float32 on the CPU.

    Raises:
        UserError: a score that is not finite, of which the largest would be the first label.
    """
    return request_scores(subject, task, [Request(text) for text in texts], batch_size)


def request_scores(subject: Subject, task: Scoring, requests: Sequence[Request], batch_size: int) -> Tensor:
    """`text_scores` of requests, for a reward model each with its answer."""
    scores_NC = scores(subject.model, task, requests, batch_size, precision=autocast(subject.compute))
    finite_N = scores_NC.isfinite().all(dim=1)
    if not finite_N.all():
        row = int((~finite_N).nonzero()[0])
        raise UserError(
            f"text {row + 1} ({requests[row].text!r:.60}) has scores {scores_NC[row].tolist()[:4]}; expected finite "
            "numbers: the model is broken, look at its training curve"
        )
    return scores_NC


def label_probabilities(subject: Subject, task: Labelling, texts: Sequence[str], batch_size: int) -> Tensor:
    """probabilities_NC of the labels in the precision of the params, float32 on the CPU."""
    return text_scores(subject, task, texts, batch_size).softmax(-1)


def greedy_answers(
    subject: Subject, task: Answering, rows: Sequence[Mapping[str, Any] | Request], batch_size: int, max_tokens: int
) -> list[str]:
    """Greedy answers to records or requests, in the precision of the params; prompts are batched by length."""
    requests = [row if isinstance(row, Request) else Request.of_record(row) for row in rows]
    lengths = [len(task.prompt(request)) for request in requests]
    order = sorted(range(len(rows)), key=lambda i: lengths[i])
    texts = [""] * len(rows)
    with lowered(subject.model, subject.compute):
        for part in slices(len(rows), batch_size):
            chosen = order[part]
            said = answers.answer(subject.model, task, [requests[i] for i in chosen], Sampling(max_tokens))
            for i, text in zip(chosen, said, strict=True):
                texts[i] = text
    return texts


def answers_to_show(
    rows: Sequence[Mapping[str, Any]], answers: Sequence[str], right: Sequence[bool], scores: Sequence[float]
) -> list[dict[str, Any]]:
    """The 40 answers with the lowest scores and the 10 with the highest, with their questions and expected answers."""
    order = sorted(range(len(rows)), key=lambda i: scores[i])
    return [
        {
            "instruction": mask(rows[i]["instruction"])[:300],
            "input": mask(rows[i]["input"])[:300],
            "expected": mask(rows[i]["output"])[:300],
            "answer": mask(answers[i])[:300],
            "right": right[i],
        }
        for i in order[:40] + order[40:][-10:]
    ]
