"""Exposure: memorisation of secrets (canaries) in the training text.

Carlini et al. 2019, "The Secret Sharer", definition 4: exposure = log2 |R| - log2 rank, where rank is the secret's
position when all secrets R of its form are sorted by the model's loss after the canary's beginning. The rank is
estimated among secrets sampled from R (section 4.3), with other digits in place of the digits, so exposure is at most
log2 of their number. For a model not trained on a secret every rank is equally likely: the mean is then log2 e = 1.44
bits, a little less for few candidates (`exposure_chance_bits`).
"""

import math
import random
import re
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import torch
from pydantic import Field
from torch.nn import functional as F

from pipeline.config.section import Positive, Section
from pipeline.data.shards import Shard
from pipeline.errors import UserError
from pipeline.evaluation import Subject, records, slices
from pipeline.model.device import autocast
from pipeline.seeds import seed_for
from pipeline.tasks import IGNORED, Request, padded, predicted_tokens


class Settings(Section):
    """Canaries, the number of candidates and batch size."""

    kind: Literal["documents", "instructions"] = Field(examples=["documents", "instructions"])
    """Record kind whose training split has the canaries: in the text of documents, in the answers of instructions."""
    pattern: str = Field(pattern=r"\(\?P<secret>", examples=["code is (?P<secret>[0-9 ]{11})"])
    """Regular expression of a canary with its secret in a group `secret`: "code is (?P<secret>[0-9 ]{11})"."""
    candidates: Positive = Field(examples=[16])
    """Secrets to rank among, the planted one included."""
    batch_size: Positive = Field(examples=[8])
    """Secrets in a batch."""
    seed: int = Field(examples=[1])
    """Seed of the sampled secrets."""


class Canary(NamedTuple):
    """A secret at its first occurrence in the training split."""

    prompt: list[int]
    """Ids before the canary."""
    before: str
    """The canary's text before the secret."""
    secret: str
    after: str
    """The canary's text after the secret."""


def measure(settings: Settings, subject: Subject) -> tuple[dict[str, float], dict[str, Any]]:
    """exposure_bits (mean, and by number of occurrences), exposure_max_bits, exposure_chance_bits, canaries,
    exposure_candidates; details: every canary without its secret.

    Raises:
        UserError: an invalid pattern, a pattern without a match, or a secret with too few digits.
    """
    rows: list[dict[str, Any]] = []
    for number, (canary, times) in enumerate(canaries(settings, subject)):
        drawn = [canary.secret, *others(canary.secret, settings.candidates - 1, seed_for(settings.seed, number))]
        nats_N = secret_nats(subject, canary, drawn, settings.batch_size)
        rank = 1 + int((nats_N[1:] < nats_N[0]).sum()) + int((nats_N[1:] == nats_N[0]).sum()) / 2
        shown = f"{subject.tokenizer.decode(canary.prompt)}{canary.before}"[-200:]
        exposure = math.log2(len(drawn)) - math.log2(rank)
        rows.append({"canary": shown, "times": times, "rank": rank, "exposure_bits": exposure})
    n = settings.candidates
    metrics = {
        "exposure_bits": _mean(rows),
        "exposure_max_bits": max(row["exposure_bits"] for row in rows),
        "exposure_chance_bits": math.log2(n) - math.lgamma(n + 1) / math.log(2) / n,
        "canaries": float(len(rows)),
        "exposure_candidates": float(n),
    }
    for times in sorted({row["times"] for row in rows}):
        metrics[f"exposure_bits_times_{times}"] = _mean([row for row in rows if row["times"] == times])
    return metrics, {"canaries": rows}


def _mean(rows: list[dict[str, Any]]) -> float:
    return float(sum(row["exposure_bits"] for row in rows) / len(rows))


def canaries(settings: Settings, subject: Subject) -> list[tuple[Canary, int]]:
    """The canaries of the training split in their order, each with its number of occurrences."""
    try:
        pattern = re.compile(settings.pattern)
    except re.error as error:
        raise UserError(
            f"params.yaml: exposure.pattern is {settings.pattern!r}: {error}; expected a regular expression"
        ) from None
    first: dict[tuple[str, str, str, str], Canary] = {}
    times: dict[tuple[str, str, str, str], int] = {}
    for instruction, prompt, text in _texts(settings.kind, subject):
        for match in pattern.finditer(text):
            start, end = match.span("secret")
            parts = text[match.start() : start], match["secret"], text[end : match.end()]
            first.setdefault((instruction, *parts), Canary(prompt, *parts))
            times[instruction, *parts] = times.get((instruction, *parts), 0) + 1
    if not first:
        raise UserError(
            f"params.yaml: exposure.pattern is {settings.pattern!r} and matches no training text of the "
            f"{settings.kind}; plant canaries (download.sources.*.planted) or correct the pattern"
        )
    return [(first[key], count) for key, count in times.items()]


def _texts(kind: str, subject: Subject) -> Iterator[tuple[str, list[int], str]]:
    """(instruction or '', ids before the text, text) of every training record."""
    if kind == "documents":
        shard = Shard.open(subject.samples / kind, "train")
        for row in range(len(shard)):
            yield "", [shard.end_of_text], subject.tokenizer.decode(shard.document(row)[:-1].tolist())
        return
    task = subject.answering("exposure")
    for record in records(subject, kind, "train"):
        yield record["instruction"], task.prompt(Request.of_record(record)), task.opens + record["output"]


def others(secret: str, count: int, seed: int) -> list[str]:
    """`count` different secrets of the same form: other digits in place of digits, a leading digit other than 0 only by
    one other than 0 (a leading 0 changes the tokenisation, and such a number would always have the higher loss).

    Raises:
        UserError: the form has no more than `count` secrets.
    """
    choices = [secret[i] if not _is_digit(secret[i]) else _choices(secret, i) for i in range(len(secret))]
    if (forms := math.prod(map(len, choices))) <= count:
        raise UserError(
            f"params.yaml: exposure.candidates is {count + 1}, a secret of {sum(map(_is_digit, secret))} digits has "
            f"{forms} forms; lower it or let the pattern's group take all digits"
        )
    rng, secrets = random.Random(seed), {secret: None}
    while len(secrets) <= count:
        secrets["".join(map(rng.choice, choices))] = None
    return list(secrets)[1:]


def _is_digit(character: str) -> bool:
    return character.isascii() and character.isdigit()


def _choices(secret: str, i: int) -> str:
    """The digits that may replace digit `i`."""
    leads = i == 0 or not _is_digit(secret[i - 1])
    return "123456789" if leads and secret[i] != "0" else "0123456789"


@torch.no_grad()
def secret_nats(subject: Subject, canary: Canary, secrets: list[str], batch_size: int) -> torch.Tensor:
    """nats_N: the loss of the canary after its prompt with each of N secrets."""
    device, prompt = next(subject.model.parameters()).device, canary.prompt
    rows = [subject.tokenizer.encode(canary.before + secret + canary.after) for secret in secrets]
    prompt = prompt[-max(1, subject.model.room() + 1 - max(map(len, rows))) :]
    nats = []
    for part in slices(len(rows), batch_size):
        inputs_BT = padded([[*prompt, *ids[:-1]] for ids in rows[part]], 0)
        targets_BT = padded([[*[IGNORED] * (len(prompt) - 1), *ids] for ids in rows[part]], IGNORED)
        batch = {"inputs": inputs_BT.to(device), "targets": targets_BT.to(device)}
        with autocast(subject.compute):
            predictions = predicted_tokens(subject.model, batch)
        losses_N = F.cross_entropy(predictions.scores_NC.float(), predictions.targets_N, reduction="none").double()
        nats.append(losses_N.new_zeros(predictions.n_examples).index_add(0, predictions.rows_N, losses_N).cpu())
    return torch.cat(nats)
