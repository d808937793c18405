"""Held-out ratings: the share of pairs of which the model has raised the chosen answer more than the rejected one.

Raised is meant beside the reference: r = ln p(answer | prompt) - ln p_ref(answer | prompt), the reward that dpo learns
(Rafailov et al. 2023, equation 5, without its factor beta). A model that has learned from ratings agrees with ratings
of prompts that it has not seen; one that was trained on coin flips agrees with half of them. So a threshold of 0.5 on
`rated_pairs_low` keeps it out of the registry, and no truth has to be known. The raters' noise bounds the share from
above: with flips of 20 %, 0.8.

Shapes: N pairs.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from pydantic import Field
from torch.nn import functional

from pipeline.config.section import Positive, Section
from pipeline.contracts import on_device
from pipeline.data.personal import mask
from pipeline.data.records import PROMPT
from pipeline.errors import UserError
from pipeline.evaluation import Measured, Subject, open_subject, records
from pipeline.model.device import autocast
from pipeline.outcomes import Outcomes
from pipeline.prompts.examples import Reason
from pipeline.significance import wilson
from pipeline.tasks import preference

_ONE_SIDED = 0.1  # 5 % on each side
_SHOWN = 20  # pairs that are most wrong


class Settings(Section):
    """Split, source and reference."""

    split: Literal["validation", "test", "held_out"] = Field(examples=["test"])
    """Split of the preferences; held_out: validation and test, for a recipe that keeps its last weights, as validation
    then chooses nothing."""
    source: str | None = Field(examples=[None])
    """Only pairs of this source of `download.sources`, such as the newest round of ratings; null: all."""
    parent: str | None = Field(examples=[None])
    """The reference: base, or the model that this one was trained from; null: none, the likelihoods are compared."""
    batch_size: Positive = Field(examples=[4])
    """Pairs in a batch."""


def measure(settings: Settings, subject: Subject) -> Measured:
    """rated_pairs_accuracy (equal rewards count half), rated_pairs_low, the lower end of its one-sided 95 % interval by
    the number of prompts, and rated_pairs, their number; details: the pairs that are most wrong.

    Raises:
        UserError: no pair, or a reference of another vocabulary.
    """
    task = preference.of(subject.answering("rated_pairs").spec, subject.tokenizer)
    splits = ("validation", "test") if settings.split == "held_out" else (settings.split,)
    rows = [row for split in splits for row in _records(subject, split, settings.source)]
    examples = [task.example(row) for row in rows]
    fitting = [place for place, example in enumerate(examples) if not isinstance(example, Reason)]
    if not fitting:
        named = "" if settings.source is None else f" of source {settings.source}"
        raise UserError(
            f"data/samples/preferences has no held-out pair{named}; rate more, or raise split.validation and split.test"
        )
    rows, chosen = [rows[place] for place in fitting], [examples[place] for place in fitting]
    margins_N = _margins(task, subject, chosen, settings.batch_size)
    if settings.parent is not None:
        margins_N = margins_N - _margins(task, _parent(settings.parent, subject), chosen, settings.batch_size)
    right = [1.0 if margin > 0 else 0.5 if margin == 0 else 0.0 for margin in margins_N.tolist()]
    prompts = [row.get(PROMPT) or row["id"] for row in rows]
    accuracy = sum(right) / len(right)
    low, _ = wilson(accuracy, len(set(prompts)), _ONE_SIDED)
    metrics = {"rated_pairs_accuracy": accuracy, "rated_pairs_low": low, "rated_pairs": float(len(rows))}
    return Measured(
        metrics,
        {"most_wrong": _most_wrong(rows, margins_N.tolist()), "left_out": len(examples) - len(fitting)},
        (Outcomes("rated_pairs_accuracy", rows, right, prompts),),
    )


def _parent(name: str, subject: Subject) -> Subject:
    parent = open_subject(name, subject.compute)
    if parent.tokenizer.vocab_size != subject.tokenizer.vocab_size:
        raise UserError(
            f"evaluations.{subject.name}.measures.rated_pairs.parent is {name!r}, which has another vocabulary; name a "
            "model that this one was trained from"
        )
    return parent


def _records(subject: Subject, split: str, source: str | None) -> list[dict[str, Any]]:
    """The pairs of a split; of a source maybe none."""
    return [row for row in records(subject, "preferences", split) if source in (None, row["source"])]


@torch.inference_mode()
def _margins(task: preference.Preference, subject: Subject, pairs: Sequence[Any], batch_size: int) -> torch.Tensor:
    """margins_N: ln p of the chosen answer less that of the rejected one, float64 on the CPU."""
    margins: list[torch.Tensor] = []
    model = subject.model.eval()
    for first in range(0, len(pairs), batch_size):
        batch = on_device(task.collate(pairs[first : first + batch_size]), model)
        with autocast(subject.compute):
            predictions = task.predictions(model, batch)
        logprobs_N = -functional.cross_entropy(predictions.scores_NC.float(), predictions.targets_N, reduction="none")
        sums_S = logprobs_N.new_zeros(len(batch["inputs"])).index_add(0, predictions.rows_N, logprobs_N)
        chosen_B, rejected_B = sums_S.double().cpu().chunk(2)
        margins.append(chosen_B - rejected_B)
    return torch.cat(margins)


def _most_wrong(rows: Sequence[Mapping[str, Any]], margins: Sequence[float]) -> list[dict[str, Any]]:
    ordered = sorted(range(len(rows)), key=lambda place: margins[place])
    return [
        {"record": rows[place]["id"], "margin_nats": margins[place]}
        | {name: mask(rows[place][name]) for name in ("instruction", "chosen", "rejected")}
        for place in ordered[:_SHOWN]
        if margins[place] < 0
    ]
