"""Log-likelihood of continuations: a wrong one ranks every choice of every benchmark wrongly."""

import numpy as np
import pytest
import torch

from pipeline.errors import UserError
from pipeline.inference.generation import generate
from pipeline.inference.likelihood import Ids, beginning, ids_nats, nats, token_nats
from pipeline.model.adapters import SoftPrompt
from pipeline.model.gpt import GPT
from pipeline.prompts.spec import TaskSpec
from pipeline.tasks import open_task
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


@pytest.mark.parametrize("family", ["gpt2", "llama", "mistral"])
def test_nats_of_a_model_with_virtual_tokens_equals_one_text_at_a_time(family: str) -> None:
    model = model_of(family)
    model.virtual = SoftPrompt(torch.randn(3, 16, generator=torch.Generator().manual_seed(1)))
    scored = nats(model, TOKENIZER, PAIRS, 5)  # type: ignore[arg-type]
    expected = one_by_one(model, rows_of(PAIRS))
    assert [one.nats for one in scored] == pytest.approx([values.sum() for values in expected], abs=1e-4)


def test_nats_cuts_a_long_context_on_the_left_and_says_by_how_much() -> None:
    """The last positions of the context, as lm-evaluation-harness keeps them."""
    model = model_of("llama", context_length=32)
    question = "a very long question that does not fit, of so many letters"
    (scored,) = nats(model, TOKENIZER, [(question, " yes")], 1)  # type: ignore[arg-type]
    ids = [TOKENIZER.end_of_text, *TOKENIZER.encode(f"{question} yes")]
    (expected,) = one_by_one(model, [Ids(ids[-33:-4], ids[-4:])])
    assert scored.nats == pytest.approx(expected.sum(), abs=1e-5)
    assert scored.cut == len(ids) - 33


def test_nats_calls_a_continuation_greedy_when_greedy_decoding_writes_it() -> None:
    model = model_of("llama")
    prompt = [TOKENIZER.end_of_text, *TOKENIZER.encode("abc")]
    (written,) = generate(model, [prompt], max_tokens=4, temperature=0.0, top_k=0, top_p=1.0, stop=[])
    other = [*written[:2], (written[2] + 1) % 256, written[3]]
    greedy, not_greedy = ids_nats(model, [Ids(prompt, written), Ids(prompt, other)], 2)
    assert greedy.greedy
    assert not not_greedy.greedy
    assert greedy.nats < not_greedy.nats


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_nats_refuses_a_score_that_is_not_finite_and_names_the_record(value: float) -> None:
    """Lost otherwise: a model whose logits are NaN would get every pair right, as the argmax of NaN is the first."""
    model = model_of("llama")
    broken = ord("Q")
    with torch.no_grad():
        model.head.weight = torch.nn.Parameter(model.head.weight.clone())  # type: ignore[union-attr]
        model.head.weight[broken] = value  # type: ignore[union-attr]
    pairs = [("", "fine"), ("", "not Qfine")]
    with pytest.raises(UserError, match=r"^record [ab]: the log-likelihood of token \d+ .* is -?(nan|inf); expected a"):
        nats(model, TOKENIZER, pairs, 1, names=["record a", "record b"])  # type: ignore[arg-type]


def test_nats_names_the_record_whose_token_has_no_probability(monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of("llama")
    logits = model.logits
    forbidden = torch.zeros(TOKENIZER.vocab_size).index_fill(0, torch.tensor([ord("Q")]), -torch.inf)
    monkeypatch.setattr(model, "logits", lambda x: logits(x) + forbidden)
    names = ["record a", "record b"]
    with pytest.raises(UserError, match="record b: the log-likelihood of token 5 of its continuation is -inf"):
        nats(model, TOKENIZER, [("", "fine"), ("", "not Qfine")], 2, names=names)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        (("a", ""), "pair 2: its continuation has no token"),
        (("a", "b" * 33), "pair 2: its continuation has 33 tokens and the model 32 positions"),
    ],
)
def test_nats_refuses_a_continuation_that_cannot_be_scored(pair: tuple[str, str], message: str) -> None:
    model = model_of("llama", context_length=32)
    with pytest.raises(UserError, match=message):
        nats(model, TOKENIZER, [("a", "b"), pair], 2)  # type: ignore[arg-type]


def test_nats_of_no_pairs_is_empty() -> None:
    assert nats(model_of("llama"), TOKENIZER, [], 2) == []  # type: ignore[arg-type]


def test_beginning_is_the_vocabularys_own_of_unchanged_open_weights_and_else_end_of_text() -> None:
    words = ByteTokenizer()
    words.text_prefix = (258,)
    unchanged, trained = (
        open_task(TaskSpec(name=name, max_prompt_tokens=9), words)  # type: ignore[arg-type]
        for name in ("unchanged", "next_token")
    )
    assert beginning([unchanged], words) == (258,)  # type: ignore[arg-type]
    assert beginning([trained], words) == (words.end_of_text,)  # type: ignore[arg-type]
    assert beginning([unchanged], TOKENIZER) == (words.end_of_text,)  # type: ignore[arg-type]
