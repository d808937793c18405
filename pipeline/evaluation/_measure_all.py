"""Every measure of a model, run or kept from an earlier evaluation with the same model, samples, code and settings."""

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from pipeline import closure, files, integrity, kept_results
from pipeline.config import plugins
from pipeline.config.params import Evaluation
from pipeline.config.section import Section
from pipeline.data.personal import masked
from pipeline.errors import UserError
from pipeline.evaluation import Measure, Measured, Subject, code_of
from pipeline.outcomes import plain
from pipeline.paths import MODELS


class Evaluated(NamedTuple):
    """All measures of a model."""

    metrics: dict[str, float]
    details: dict[str, Any]
    """With the hash of the bytes that were measured, `model_sha256`."""
    outcomes: dict[str, list[dict[str, Any]]]
    """Measure -> its outcomes as JSON (pipeline.outcomes.plain)."""


def measure_all(subject: Subject, evaluation: Evaluation, kept: Path | None = None, models: Path = MODELS) -> Evaluated:
    """Every measure that the params name.

    Args:
        subject: the model.
        evaluation: its measures.
        kept: folder of earlier results, reused while model, samples, code and settings are the same; None: all are run.
        models: the folder that holds the model's folder.

    Raises:
        UserError: two measures give the same metric, or a metric is not a finite number.
    """
    subject = subject._replace(kept=kept)
    model_sha256 = files.sha256_of(models / subject.name)
    total = Evaluated({}, {"model_sha256": model_sha256}, {})
    codes = (
        {} if kept is None else {name: code_of(name, subject, fields) for name, fields in evaluation.measures.items()}
    )
    for name, fields in evaluation.measures.items():
        settings = plugins.settings_class("evaluation", name).model_validate(fields)
        run = partial(_run, plugins.load("evaluation", name).measure, settings, subject, name)
        result = (
            run() if kept is None else _kept_or_run(subject, kept, model_sha256, settings, (name, codes[name], run))
        )
        if duplicates := sorted(set(result.metrics) & set(total.metrics)):
            raise UserError(f"evaluations.{subject.name}: two measures give {duplicates}; keep one of them")
        if not_finite := {key: value for key, value in result.metrics.items() if not math.isfinite(value)}:
            raise UserError(
                f"{subject.name}: {not_finite} is not finite; the model is broken, look at its training curve"
            )
        total.metrics.update(result.metrics)
        total.details[name] = result.details
        if result.outcomes:
            total.outcomes[name] = result.outcomes
    return total


def _kept_or_run(
    subject: Subject,
    kept: Path,
    model_sha256: str,
    settings: Section,
    measure: tuple[str, closure.Code, Callable[[], kept_results.Result]],
) -> kept_results.Result:
    """The kept result of a measure (name, code, run), or a new one, which is then kept."""
    name, code, run = measure
    fields = settings.model_dump(mode="json")
    fields |= _read_besides(fields, subject.name)
    key = kept_results.key_of(model_sha256, subject.samples, code, fields, subject.compute)
    result = kept_results.read(kept, key)
    if result is not None:
        integrity.require_intact(subject.samples)  # a measure that runs compares the files that it opens
        return result
    result = run()
    if (
        code_of(name, subject, settings.model_dump(mode="json")) == code
    ):  # else an edit came while it ran, and the code that ran is not known
        kept_results.keep(kept, key, result)
    return result


def _read_besides(fields: dict[str, Any], model: str) -> dict[str, str]:
    """Hashes of what a measure reads besides the model: its reference, the files of its judges, the kept states."""
    read = {"parent": MODELS / fields["parent"]} if fields.get("parent") else {}
    for key in ("judge", "truth"):
        if (fields.get(key) or {}).get("reads"):
            read[key] = Path(fields[key]["reads"])
    if fields.get("states") is True:
        read["states"] = MODELS / f"{model}.states"
    return {f"{key}_sha256": files.sha256_of(path) for key, path in read.items() if path.exists()}


def _run(measure: Measure, settings: Section, subject: Subject, name: str) -> kept_results.Result:
    """The result of one measure; an error names the measure and the model."""
    where = f"evaluations.{subject.name}.measures.{name}"
    try:
        measured = Measured(*measure(settings, subject))
        return kept_results.Result(
            measured.metrics, masked(measured.details), [plain(one) for one in measured.outcomes]
        )
    except UserError as error:
        text = str(error)
        raise (error if text.startswith(where) else UserError(f"{where}: {text}")) from error.__cause__
    except Exception as error:
        error.add_note(where)
        raise
