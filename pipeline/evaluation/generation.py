"""Samples from a language model, and the numbers that tell a degenerate one (Li et al. 2016, distinct-n)."""

import itertools
from typing import Annotated, Any

import torch
from pydantic import Field

from pipeline.config.recipe import seed_for
from pipeline.config.section import Count, Positive, Section
from pipeline.evaluation import Subject
from pipeline.inference.generation import generate
from pipeline.model.device import lowered


class Settings(Section):
    samples: Positive
    max_tokens: Positive
    temperature: Annotated[float, Field(ge=0)]
    top_k: Count
    """0 keeps all."""
    top_p: Annotated[float, Field(gt=0, le=1)]
    seed: int


def measure(settings: Settings, subject: Subject) -> tuple[dict[str, float], dict[str, Any]]:
    """distinct_2 (share of different token pairs), repetition_share (tokens equal to the one before), empty_share."""
    start = [subject.tokenizer.end_of_text]
    device = subject.model.embed.weight.device
    with lowered(subject.model, subject.compute):
        outputs = generate(
            subject.model,
            [start] * settings.samples,
            max_tokens=min(settings.max_tokens, subject.model.room() - 1),
            temperature=settings.temperature,
            top_k=settings.top_k,
            top_p=settings.top_p,
            stop=[subject.tokenizer.end_of_text],
            generator=torch.Generator(device).manual_seed(seed_for(settings.seed, "generation")),
        )
    pairs = [pair for ids in outputs for pair in itertools.pairwise(ids)]
    metrics = {
        "distinct_2": len(set(pairs)) / len(pairs) if pairs else 0.0,
        "repetition_share": sum(a == b for a, b in pairs) / len(pairs) if pairs else 1.0,
        "empty_share": sum(not ids for ids in outputs) / len(outputs),
    }
    return metrics, {"samples": [subject.tokenizer.decode(ids) for ids in outputs]}
