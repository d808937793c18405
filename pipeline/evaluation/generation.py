"""Samples of a language model, and metrics of degenerate text: distinct-2 (Li et al. 2016) and repetition."""

import itertools
from typing import Any

import torch
from pydantic import Field

from pipeline.config.section import Count, Positive, Section
from pipeline.evaluation import Subject
from pipeline.inference.generation import generate
from pipeline.model.device import lowered
from pipeline.seeds import seed_for


class Settings(Section):
    """Number of samples, their length and the sampling parameters."""

    samples: Positive = Field(examples=[2])
    """Number of samples."""
    max_tokens: Positive = Field(examples=[8])
    """Longest sample in tokens."""
    temperature: float = Field(ge=0, examples=[1.0])
    """Divides the logits before softmax; 0 samples greedily."""
    top_k: Count = Field(examples=[0])
    """Sample from the k most likely tokens; 0: from all."""
    top_p: float = Field(gt=0, le=1, examples=[1.0])
    """Sample from the most likely tokens whose probabilities sum to p (nucleus sampling); 1: from all."""
    seed: int = Field(examples=[1])
    """Seed of the samples."""


def measure(settings: Settings, subject: Subject) -> tuple[dict[str, float], dict[str, Any]]:
    """distinct_2 (share of distinct token pairs), repetition_share (tokens equal to the previous one), empty_share;
    details: the samples.
    """
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
