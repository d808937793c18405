"""Evaluation of a model. Each file is one measure: `measure(settings, subject) -> (metrics, details)`.

Metrics are flat, finite, deterministic numbers with the unit in the name; details are JSON for people to read: wrong
answers, samples, tables. Measures are apart from objectives, so a changed metric retrains nothing.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow.parquet as pq

from pipeline import closure, files, integrity, kept_results
from pipeline.config import plugins
from pipeline.config.params import Evaluation
from pipeline.config.recipe import Compute
from pipeline.config.section import Section
from pipeline.data import templates
from pipeline.errors import UserError
from pipeline.inference.generation import generate
from pipeline.model import checkpoint
from pipeline.model.device import lowered, set_up
from pipeline.model.gpt import GPT
from pipeline.paths import MODELS, SAMPLES
from pipeline.tokenizer import Tokenizer


class Subject(NamedTuple):
    """A model to evaluate, with its tokenizer, task and samples."""

    name: str
    model: GPT
    tokenizer: Tokenizer
    task: dict[str, Any]
    """The task that its objective wrote to tohum.json: labels, template, limits."""
    samples: Path
    """The folder data/samples."""
    compute: Compute


Measured = tuple[dict[str, float], dict[str, Any]]
"""Metrics and details."""
Measure = Callable[[Any, Subject], Measured]


def records(subject: Subject, kind: str, split: str) -> list[dict[str, Any]]:
    """The records of one kind and split, in the order of the file. Raises UserError if the file is damaged."""
    path = subject.samples / kind / f"{split}.parquet"
    integrity.require_intact(path)
    # pq.read_table would import pandas: half a second a stage
    rows: list[dict[str, Any]] = pq.ParquetFile(path).read().to_pylist()
    return rows


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
    path = folder / "tohum.json"
    task = files.read_json(path) if path.exists() else {}
    return Subject(name, model, Tokenizer.load(folder), task, SAMPLES, compute)


def measure_all(
    subject: Subject, evaluation: Evaluation, kept: Path | None = None
) -> tuple[dict[str, float], dict[str, Any]]:
    """Every measure that the params name, merged; details carry the hash of the bytes that were measured.

    Args:
        kept: folder of earlier results, reused while model, samples, code and settings are the same; None: all are run.

    Raises:
        UserError: two measures give the same metric, or a metric is not a finite number.
    """
    metrics: dict[str, float] = {}
    details: dict[str, Any] = {"model_sha256": files.sha256_of(MODELS / subject.name)}
    codes = {} if kept is None else {name: _code_of(name) for name in evaluation.measures}
    for name, fields in evaluation.measures.items():
        settings = plugins.settings_class("evaluation", name).model_validate(fields)
        run = partial(_run, plugins.load("evaluation", name).measure, settings, subject, name)
        if kept is None:
            measured, shown = run()
        else:
            fields = settings.model_dump(mode="json")
            key = kept_results.key_of(details["model_sha256"], subject.samples, codes[name], fields, subject.compute)
            result = kept_results.read(kept, key)
            if result is not None:
                integrity.require_intact(subject.samples)  # a measure that runs compares the files that it opens
            else:
                result = run()
                if _code_of(name) == codes[name]:  # else an edit came while it ran, and the code that ran is not known
                    kept_results.keep(kept, key, result)
            measured, shown = result
        if duplicates := sorted(set(measured) & set(metrics)):
            raise UserError(f"evaluations.{subject.name}: two measures give {duplicates}; keep one of them")
        if not_finite := {key: value for key, value in measured.items() if not math.isfinite(value)}:
            raise UserError(
                f"{subject.name}: {not_finite} is not finite; the model is broken, look at its training curve"
            )
        metrics |= measured
        details[name] = shown
    return metrics, details


def _run(measure: Measure, settings: Section, subject: Subject, name: str) -> Measured:
    """The result of one measure; an error names the measure and the model."""
    where = f"evaluations.{subject.name}.measures.{name}"
    try:
        return measure(settings, subject)
    except UserError as error:
        text = str(error)
        raise (error if text.startswith(where) else UserError(f"{where}: {text}")) from error.__cause__
    except Exception as error:
        error.add_note(where)
        raise


def _code_of(measure: str) -> closure.Code:
    """The code that decides a measure's result."""
    return closure.code([__name__], {"evaluation": [measure]})


def greedy_answers(subject: Subject, rows: list[dict[str, Any]], batch_size: int, max_tokens: int) -> list[str]:
    """Greedy answers in the order of `rows`, in the precision of the params; prompts are batched by length."""
    template = subject.task["template"]
    room = subject.model.room() - max_tokens
    prompts = []
    for row in rows:
        ids = templates.prompt_ids(subject.tokenizer, template, row["instruction"], row["input"])
        prompts.append(ids if len(ids) <= room else ids[: room // 2] + ids[len(ids) - (room - room // 2) :])
    order = sorted(range(len(rows)), key=lambda i: len(prompts[i]))
    stop = templates.stop_id(subject.tokenizer, template)
    texts = [""] * len(rows)
    with lowered(subject.model, subject.compute):
        for part in slices(len(rows), batch_size):
            chosen = order[part]
            outputs = generate(
                subject.model,
                [prompts[i] for i in chosen],
                max_tokens=max_tokens,
                temperature=0.0,
                top_k=0,
                top_p=1.0,
                stop=[stop],
            )
            for i, ids in zip(chosen, outputs, strict=True):
                texts[i] = templates.answer_text(template, subject.tokenizer.decode(ids))
    return texts


def answers_to_show(
    rows: Sequence[Mapping[str, Any]], answers: Sequence[str], right: Sequence[bool], scores: Sequence[float]
) -> list[dict[str, Any]]:
    """The 40 answers with the lowest scores and the 10 with the highest, with their questions and expected answers."""
    shown = [
        {
            "instruction": row["instruction"][:300],
            "input": row["input"][:300],
            "expected": row["output"][:300],
            "answer": text[:300],
            "right": ok,
        }
        for row, text, ok in zip(rows, answers, right, strict=True)
    ]
    order = sorted(range(len(shown)), key=lambda i: scores[i])
    return [shown[i] for i in order[:40] + order[40:][-10:]]
