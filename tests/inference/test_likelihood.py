"""Log-likelihood of continuations: a wrong one ranks every choice of every benchmark wrongly."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch

from pipeline.errors import UserError
from pipeline.inference import likelihood
from pipeline.inference.likelihood import Ids, ids_nats, nats, token_nats
from pipeline.model.adapters import VirtualTokens
from pipeline.model.gpt import GPT
from tests.fakes import ByteTokenizer
from tests.models import network

FAMILIES = ("gpt2", "llama", "mistral", "qwen2", "qwen3", "arcee", "nanochat")
TOKENIZER = ByteTokenizer()
QUESTION = "Which city is the capital? Answer:"
PAIRS = [
    ("", "the cat sleeps"),
    ("", "the cat sleep"),
    ("", "x"),
    *((QUESTION + end, choice) for end in ("", " It is") for choice in (" Ankara", " Ankara.", " Rome", " R")),
    ("ışık ", "çiğ"),
]


def model_of(family: str, context_length: int = 96) -> GPT:
    model = network(family, vocab_size=TOKENIZER.vocab_size, context_length=context_length).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(len(name)))
    return model


def one_by_one(model: GPT, rows: list[Ids]) -> list[np.ndarray]:
    """-ln p of every token of each continuation, a text at a time."""
    values = []
    for row in rows:
        ids = torch.tensor([[*row.context, *row.continuation]])
        with torch.no_grad():
            logs_TV = model(ids[:, :-1])[0].double().log_softmax(-1)
        first = len(row.context) - 1
        values.append(-logs_TV[torch.arange(first, ids.shape[1] - 1), ids[0, first + 1 :]].numpy())
    return values


def rows_of(pairs: list[tuple[str, str]]) -> list[Ids]:
    encoded = [
        (TOKENIZER.encode(context.rstrip()), TOKENIZER.encode(context + continuation))
        for context, continuation in pairs
    ]
    return [Ids([TOKENIZER.end_of_text, *before], whole[len(before) :]) for before, whole in encoded]


@pytest.mark.parametrize("family", FAMILIES)
def test_nats_equals_one_text_at_a_time_for_shared_and_separate_beginnings(family: str) -> None:
    """Lost otherwise: a text that shares a row with others would attend to them, or stand at another position."""
    model, rows = model_of(family), rows_of(PAIRS)
    expected = one_by_one(model, rows)
    for batch_size in (1, 5, 100):
        scored = nats(model, TOKENIZER, PAIRS, batch_size)  # type: ignore[arg-type]
        assert [one.nats for one in scored] == pytest.approx([values.sum() for values in expected], abs=1e-4)
        assert [one.tokens for one in scored] == [len(row.continuation) for row in rows]
        assert [one.bytes for one in scored] == [len(continuation.encode()) for _, continuation in PAIRS]


@pytest.mark.parametrize("family", FAMILIES)
def test_token_nats_equals_one_text_at_a_time_behind_a_beginning_of_all(family: str) -> None:
    """Lost otherwise: positions behind the shared keys and values would be counted from 0, or windows be wider."""
    model = model_of(family)
    rows = rows_of([(f"{QUESTION}{end}", choice) for end in (" a", " bb", " cc") for choice in (" Rome", " Ankara")])
    for (values, greedy), expected in zip(token_nats(model, rows, 4), one_by_one(model, rows), strict=True):
        assert values == pytest.approx(expected, abs=1e-4)
        assert greedy.dtype == bool


def test_token_nats_reads_a_shared_context_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model, read = model_of("llama"), []
    hidden = model.hidden
    monkeypatch.setattr(model, "hidden", lambda ids, **inputs: read.append(ids.numel()) or hidden(ids, **inputs))
    rows = rows_of([(QUESTION, choice) for choice in (" Ankara", " Rome", " Paris", " Oslo")])
    token_nats(model, rows, 4)
    assert sum(read) == len(QUESTION) + 1 + sum(len(row.continuation) - 1 for row in rows) - 3  # the blank is shared


def test_nats_of_a_model_with_virtual_tokens_equals_one_text_at_a_time() -> None:
    model = model_of("llama")
    model.virtual = VirtualTokens(torch.randn(3, 16, generator=torch.Generator().manual_seed(1)))
    scored = nats(model, TOKENIZER, PAIRS, 5)  # type: ignore[arg-type]
    expected = one_by_one(model, rows_of(PAIRS))
    assert [one.nats for one in scored] == pytest.approx([values.sum() for values in expected], abs=1e-4)
