"""Log-likelihood of continuations after contexts, for measures of pairs, choices and answers.

    scored = nats(model, tokenizer, [("Ankara is in", " Turkey"), ("Ankara is in", " Peru")], batch_size=32)
    scored[0].nats < scored[1].nats      # -ln p(continuation | context): the lower, the likelier
    scored = subject_nats(subject, pairs, batch_size, names=[row["id"] for row in rows])   # in a measure

Token ids and positions are those of lm-evaluation-harness on the exported folder: a text begins after the tokens that
training puts before one, the continuation's ids are those of context + continuation behind as many ids as the context
alone has, and blanks at the end of a context count to the continuation. A context for which the model has too few
positions loses its beginning (`Scored.cut`).

Beginnings that several texts share are computed once: a prompt that all texts begin with becomes keys and values
(`prefix` of `GPT.hidden`), and texts that begin alike, such as the choices of one question or the two sentences of a
minimal pair, share a row (model/shared_rows.py). Logits are computed only where they score a token. Models that
transformers computes (`LibraryModel`) have neither: each of their texts is a row of its own.

Shapes: N scored positions of a batch, M scored tokens (several may follow one position), V vocabulary.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch

from pipeline.config.recipe import Compute
from pipeline.errors import UserError
from pipeline.model.cache import KeyValue, KVRecorder
from pipeline.model.device import autocast
from pipeline.model.gpt import GPT
from pipeline.model.library import LibraryModel
from pipeline.model.shared_rows import Packed, Text, batches, mask_of, packed_batch, rows_of, shared_ids
from pipeline.tasks import Task
from pipeline.tokenizer import Tokenizer

_LEAST_PREFIX = 8  # shared ids for which keys and values of their own are worth a pass
_LOGITS_AT_ONCE = 256  # positions whose logits are in memory at once


class Scored(NamedTuple):
    """The likelihood of one continuation."""

    nats: float
    """-ln p(continuation | context), summed over its tokens: 0 or more, the lower the likelier."""
    tokens: int
    """Tokens of the continuation."""
    bytes: int
    """UTF-8 bytes of the continuation; 0 where it was given as ids."""
    greedy: bool
    """Whether each of its tokens is the likeliest one, so that greedy decoding writes it."""
    cut: int = 0
    """Tokens left out at the beginning of the context, for which the model has no position."""


class Ids(NamedTuple):
    """A context and its continuation as token ids."""

    context: Sequence[int]
    continuation: Sequence[int]


class LanguageSubject(Protocol):
    """The part of an evaluation's subject that is needed here."""

    @property
    def model(self) -> GPT:
        """The model, in evaluation mode."""

    @property
    def tokenizer(self) -> Tokenizer:
        """Its vocabulary."""

    @property
    def tasks(self) -> tuple[Task, ...]:
        """Its tasks, the one that it answers as first."""

    @property
    def compute(self) -> Compute:
        """Precision and device."""


def subject_nats(
    subject: LanguageSubject, pairs: Sequence[tuple[str, str]], batch_size: int, names: Sequence[str] | None = None
) -> list[Scored]:
    """`nats` of an evaluation's subject, in its precision and behind the tokens that its texts begin with."""
    start = beginning(subject.tasks, subject.tokenizer)
    precision = autocast(subject.compute)
    return nats(
        subject.model, subject.tokenizer, pairs, batch_size, precision=precision, start=start, names=names
    )  # fmt: skip


def beginning(tasks: Sequence[Task], tokenizer: Tokenizer) -> tuple[int, ...]:
    """The ids before a text: end-of-text, as in training; of unchanged open weights their own, where they have some."""
    unchanged = bool(tasks) and tasks[0].spec.name == "unchanged"
    return (unchanged and tokenizer.text_prefix) or (tokenizer.end_of_text,)


def nats(  # noqa: PLR0913 - each decides the scores, or names them
    model: GPT,
    tokenizer: Tokenizer,
    pairs: Sequence[tuple[str, str]],
    batch_size: int,
    *,
    precision: AbstractContextManager[Any] | None = None,
    start: Sequence[int] | None = None,
    names: Sequence[str] | None = None,
) -> list[Scored]:
    """The likelihood of each continuation after its context, in the order of `pairs`.

    Args:
        model: a language model.
        tokenizer: its vocabulary.
        pairs: (context, continuation); an empty context scores the continuation as a whole text.
        batch_size: continuations in a batch; their number changes scores by rounding only (1e-5 nats).
        precision: autocast; None: as the weights are.
        start: ids before every text; None: end-of-text.
        names: of the pairs, for errors; None: their numbers.

    Raises:
        UserError: a continuation without a token, or longer than the model's context; a score that is not finite; a
            model without a language head. Each names the pair.
    """
    start = (tokenizer.end_of_text,) if start is None else tuple(start)
    names = names or [f"pair {number}" for number in range(1, len(pairs) + 1)]
    rows = _encoded(tokenizer, pairs, start)
    scored = ids_nats(model, rows, batch_size, precision=precision, names=names)
    return [one._replace(bytes=len(pair[1].encode())) for one, pair in zip(scored, pairs, strict=True)]


def ids_nats(
    model: GPT,
    rows: Sequence[Ids],
    batch_size: int,
    *,
    precision: AbstractContextManager[Any] | None = None,
    names: Sequence[str] | None = None,
) -> list[Scored]:
    """`nats` of contexts and continuations that are ids already; a context has at least one."""
    by_token = token_nats(model, rows, batch_size, precision=precision, names=names)
    room = model.room()
    return [
        Scored(
            float(values.sum()),
            len(values),
            0,
            bool(greedy.all()),
            max(0, len(row.context) + len(row.continuation) - 1 - room),
        )
        for row, (values, greedy) in zip(rows, by_token, strict=True)
    ]


@torch.no_grad()
def token_nats(
    model: GPT,
    rows: Sequence[Ids],
    batch_size: int,
    *,
    precision: AbstractContextManager[Any] | None = None,
    names: Sequence[str] | None = None,
) -> list[tuple[np.ndarray, np.ndarray]]:
    """(-ln p, whether it is the likeliest) of every token of each continuation: float64 and bool, [tokens] each.

    Arguments and errors as of `ids_nats`.
    """
    names = names or [f"row {number}" for number in range(1, len(rows) + 1)]
    texts = [_text(row, model.room(), name) for row, name in zip(rows, names, strict=True)]
    ends = np.cumsum([text.scored for text in texts])  # of each text's tokens in one array of all
    values, greedy = np.zeros(sum(text.scored for text in texts)), np.zeros(sum(text.scored for text in texts), bool)
    training = model.training
    model.eval()
    try:
        with precision or nullcontext():
            prefix, shared = _shared_prefix(model, texts)
            for batch in batches(rows_of(texts, shared, not isinstance(model, LibraryModel)), batch_size):
                packed = packed_batch(texts, ends, batch, shared)
                values[packed.tokens_M], greedy[packed.tokens_M] = _scores(model, packed, prefix)
    finally:
        model.train(training)
    if not np.isfinite(values).all():
        bad = int(np.flatnonzero(~np.isfinite(values))[0])
        number = int(np.searchsorted(ends, bad, side="right"))
        raise UserError(
            f"{names[number]}: the log-likelihood of token {bad - ends[number] + texts[number].scored + 1} of its "
            f"continuation is {-values[bad]}; expected a finite number: the model's weights or logits are broken, look "
            "at its training curve"
        )
    return list(zip(np.split(values, ends[:-1]), np.split(greedy, ends[:-1]), strict=True)) if texts else []


# -- texts ------------------------------------------------------------------------------------------------------------


def _encoded(tokenizer: Tokenizer, pairs: Sequence[tuple[str, str]], start: tuple[int, ...]) -> list[Ids]:
    """Ids as lm-evaluation-harness makes them (`_encode_pair` of its api/model.py)."""
    bare = [context.rstrip() for context, _ in pairs]
    wholes = [context + continuation for context, continuation in pairs]
    texts = list(dict.fromkeys([*bare, *wholes]))
    known = dict(zip(texts, tokenizer.encode_batch(texts), strict=True))
    rows = []
    for context, whole in zip(bare, wholes, strict=True):
        before = known[context].tolist()
        rows.append(Ids([*start, *before], known[whole].tolist()[len(before) :]))
    return rows


def _text(row: Ids, room: int, name: str) -> Text:
    if not len(row.continuation):
        raise UserError(f"{name}: its continuation has no token; expected a text of at least one")
    if not len(row.context):
        raise ValueError("a context needs at least one id, such as end-of-text")
    if len(row.continuation) > room:
        raise UserError(
            f"{name}: its continuation has {len(row.continuation)} tokens and the model {room} positions; leave it "
            "out, or measure a model with a longer context"
        )
    ids = [*row.context, *row.continuation][-(room + 1) :]
    return Text(ids, len(ids) - len(row.continuation))


def _shared_prefix(model: GPT, texts: Sequence[Text]) -> tuple[list[KeyValue] | None, int]:
    """Keys and values of the beginning that all texts share, and its length; none where it is short."""
    if len(texts) < 2 or isinstance(model, LibraryModel) or model.virtual is not None:
        return None, 0
    low, high = min(text.ids for text in texts), max(text.ids for text in texts)
    # one input id at least remains for every text, and its logits score the first token of the continuation
    shared = min(shared_ids(low, high), *(text.first - 1 for text in texts))
    if shared < _LEAST_PREFIX:
        return None, 0
    recorder = KVRecorder()
    model.hidden(torch.tensor([low[:shared]], device=model.embed.weight.device), cache=recorder)
    return recorder.layers, shared


def _scores(model: GPT, packed: Packed, prefix: list[KeyValue] | None) -> tuple[np.ndarray, np.ndarray]:
    """-ln p of every scored token of a batch, and whether no token is likelier: float64 and bool, [M]."""
    device = model.embed.weight.device
    inputs: dict[str, Any] = {"wanted_BT": packed.wanted_BT.to(device)}
    if prefix is not None:
        inputs["prefix"] = prefix
    if packed.has_branches:
        past = model.config.context_length - model.room(prefix)
        window = model.config.window_within(past + int(packed.positions_BT.max()) + 1)
        inputs["mask"] = mask_of(packed, past, window).to(device)
        inputs["positions_BT"] = packed.positions_BT.to(device) + past
    hidden_ND = model.hidden(packed.ids_BT.to(device), **inputs)
    place_M = (packed.wanted_BT.flatten().cumsum(0) - 1)[packed.slots_M].to(device)
    targets_M = packed.targets_M.to(device)
    nats_M = torch.empty(len(place_M), device=device)
    likeliest_M = torch.empty(len(place_M), dtype=torch.bool, device=device)
    for first in range(0, len(hidden_ND), _LOGITS_AT_ONCE):
        logits_NV = model.logits(hidden_ND[first : first + _LOGITS_AT_ONCE]).float()
        at = ((place_M >= first) & (place_M < first + len(logits_NV))).nonzero()[:, 0]
        rows = place_M[at] - first
        chosen = logits_NV[rows, targets_M[at]]
        nats_M[at] = logits_NV.logsumexp(-1)[rows] - chosen
        likeliest_M[at] = chosen == logits_NV.amax(-1)[rows]
    return nats_M.double().cpu().numpy(), likeliest_M.cpu().numpy()
