"""Log-likelihood of continuations after contexts, for measures of pairs, choices and answers.

    scored = nats(model, tokenizer, [("Ankara is in", " Turkey"), ("Ankara is in", " Peru")], batch_size=32)
    scored[0].nats < scored[1].nats      # -ln p(continuation | context): the lower, the likelier
    scored = subject_nats(subject, pairs, batch_size, names=[row["id"] for row in rows])   # in a measure

Token ids and positions are those of lm-evaluation-harness on the exported folder: a text begins after the tokens that
training puts before one, the continuation's ids are those of context + continuation behind as many ids as the context
alone has, and blanks at the end of a context count to the continuation. A context for which the model has too few
positions loses its beginning (`Scored.cut`).

Beginnings that several texts share are computed once. A prompt that all texts begin with becomes keys and values
(`prefix` of `GPT.hidden`); texts that begin alike, such as the choices of one question or two sentences of a minimal
pair, share a row: their common beginning, the trunk, and behind it their endings, the branches, which do not attend to
each other (tree attention; Cai et al. 2024, "Medusa", section 3.1). Logits are computed only where they score a token.
Models that transformers computes (`LibraryModel`) have neither: each of their texts is a row of its own.

Shapes: B rows, T positions, P positions before the rows (prefix, virtual tokens), N scored positions, V vocabulary.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import pairwise
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from pipeline.config.recipe import Compute
from pipeline.errors import UserError
from pipeline.model.cache import KeyValue, KVRecorder
from pipeline.model.device import autocast
from pipeline.model.gpt import GPT
from pipeline.model.library import LibraryModel
from pipeline.tasks import Task
from pipeline.tokenizer import Tokenizer

_LEAST_PREFIX = 8  # shared ids for which keys and values of their own are worth a pass
_LEAST_SAVED = 0.15  # share of a group's ids that a trunk saves, below which its texts are rows of their own
_LONGEST_ROW = 768  # ids of a trunk with its branches; attention takes the square
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


class Measured(Protocol):
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
    subject: Measured, pairs: Sequence[tuple[str, str]], batch_size: int, names: Sequence[str] | None = None
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
            for batch in _batches(_rows(texts, shared, not isinstance(model, LibraryModel)), batch_size):
                packed = _packed(texts, ends, batch, shared)
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


class _Text(NamedTuple):
    """The ids of context and continuation, cut on the left to the model's positions."""

    ids: list[int]
    first: int
    """Index of the first id of the continuation, 1 or more."""

    @property
    def scored(self) -> int:
        """Tokens of the continuation."""
        return len(self.ids) - self.first


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


def _text(row: Ids, room: int, name: str) -> _Text:
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
    return _Text(ids, len(ids) - len(row.continuation))


# -- rows of trunks and branches --------------------------------------------------------------------------------------


class _Row(NamedTuple):
    """Texts that are computed together."""

    members: list[int]
    """Indices of the texts."""
    trunk: int
    """Number of first input ids, the prefix included, that all of them share."""
    length: int
    """Input ids in all, the prefix left out."""


def _shared(a: Sequence[int], b: Sequence[int]) -> int:
    """The number of first ids that two texts share."""
    for i, (x, y) in enumerate(zip(a, b, strict=False)):
        if x != y:
            return i
    return min(len(a), len(b))


def _shared_prefix(model: GPT, texts: Sequence[_Text]) -> tuple[list[KeyValue] | None, int]:
    """Keys and values of the beginning that all texts share, and its length; none where it is short."""
    if len(texts) < 2 or isinstance(model, LibraryModel) or model.virtual is not None:
        return None, 0
    low, high = min(text.ids for text in texts), max(text.ids for text in texts)
    # one input id at least remains for every text, and its logits score the first token of the continuation
    shared = min(_shared(low, high), *(text.first - 1 for text in texts))
    if shared < _LEAST_PREFIX:
        return None, 0
    recorder = KVRecorder()
    model.hidden(torch.tensor([low[:shared]], device=model.embed.weight.device), cache=recorder)
    return recorder.layers, shared


def _rows(texts: Sequence[_Text], shared: int, joins: bool) -> list[_Row]:
    """Texts that begin alike, in rows; the last id of a text is no input, as nothing is predicted after it."""
    order = sorted(range(len(texts)), key=lambda i: texts[i].ids)
    rows: list[_Row] = []
    for i in order:
        length = len(texts[i].ids) - 1 - shared
        alone = _Row([i], len(texts[i].ids) - 1, length)
        joined = _joined(texts, rows[-1], i, length, shared) if rows and joins else None
        if joined is None:
            rows.append(alone)
        else:
            rows[-1] = joined
    return rows


def _joined(texts: Sequence[_Text], row: _Row, new: int, length: int, shared: int) -> _Row | None:
    """The row with one more text; None where a trunk saves too little."""
    last = texts[row.members[-1]]
    # Sorted texts: the trunk of all is the shortest beginning that neighbours share.
    trunk = min(row.trunk, _shared(last.ids[:-1], texts[new].ids[:-1]))
    n = len(row.members)
    alone = sum(len(texts[i].ids) - 1 - shared for i in row.members) + length
    saved = n * (trunk - shared)
    if saved < _LEAST_SAVED * alone or saved < (n - 1) * (row.trunk - shared) or alone - saved > _LONGEST_ROW:
        return None
    return _Row([*row.members, new], trunk, alone - saved)


def _batches(rows: Sequence[_Row], batch_size: int) -> Iterator[list[_Row]]:
    """Rows of like length, `batch_size` texts at a time; rows of one text apart, which need no mask."""
    ordered = sorted(rows, key=lambda row: (len(row.members) > 1, row.length))
    batch: list[_Row] = []
    for row, after in pairwise([*ordered, None]):
        assert row is not None
        batch.append(row)
        full = sum(len(one.members) for one in batch) >= batch_size
        if after is None or full or (len(after.members) > 1) != (len(row.members) > 1):
            yield batch
            batch = []


class _Packed(NamedTuple):
    """A batch as tensors on the CPU; M scored tokens."""

    ids_BT: Tensor
    positions_BT: Tensor
    """Counted from the prefix's end."""
    branches_BT: Tensor
    """0 in the trunk, the branch's number behind it, -1 in padding."""
    wanted_BT: Tensor
    """Positions whose logits score a token."""
    slots_M: Tensor
    """Row times T plus position whose logits score the token."""
    targets_M: Tensor
    tokens_M: np.ndarray
    """Index of the token among those of all texts."""
    has_branches: bool


def _packed(texts: Sequence[_Text], ends: np.ndarray, batch: Sequence[_Row], shared: int) -> _Packed:
    width = max(row.length for row in batch)
    ids, positions = (np.zeros((len(batch), width), dtype=np.int64) for _ in range(2))
    branches = np.full((len(batch), width), -1, dtype=np.int64)
    slots, targets, tokens = [], [], []
    for b, row in enumerate(batch):
        trunk = row.trunk - shared
        ids[b, :trunk] = texts[row.members[0]].ids[shared : row.trunk]
        positions[b, :trunk], branches[b, :trunk] = np.arange(trunk), 0
        end = trunk
        for branch, member in enumerate(row.members, start=1):
            text = texts[member]
            rest = text.ids[row.trunk : -1]
            here = slice(end, end + len(rest))
            ids[b, here], branches[b, here] = rest, branch
            positions[b, here] = np.arange(trunk, trunk + len(rest))
            before = np.arange(text.first - 1, len(text.ids) - 1)  # the input ids after which tokens are predicted
            slots.append(b * width + np.where(before < row.trunk, before - shared, before - row.trunk + end))
            targets.append(text.ids[text.first :])
            tokens.append(np.arange(ends[member] - text.scored, ends[member]))
            end += len(rest)
    slots_M = torch.from_numpy(np.concatenate(slots))
    wanted = torch.zeros(len(batch) * width, dtype=torch.bool)
    wanted[slots_M] = True
    return _Packed(
        torch.from_numpy(ids), torch.from_numpy(positions), torch.from_numpy(branches), wanted.view(len(batch), width),
        slots_M, torch.from_numpy(np.concatenate(targets)), np.concatenate(tokens),
        any(len(row.members) > 1 for row in batch),
    )  # fmt: skip


def _mask(packed: _Packed, past: int, window: int | None) -> Tensor:
    """[B, 1, T, P + T], true where a token may attend: the prefix, the trunk before it, and its own branch."""
    at_BT, branches_BT = packed.positions_BT + past, packed.branches_BT
    of_row = (branches_BT[:, None] == 0) | (branches_BT[:, None] == branches_BT[:, :, None])
    distance = at_BT[:, :, None] - at_BT[:, None]
    mask = of_row & (distance >= 0)
    before = torch.ones(*at_BT.shape, past, dtype=torch.bool)
    if window is not None:
        mask &= distance < window
        before = at_BT[:, :, None] - torch.arange(past) < window
    return torch.cat((before, mask), dim=2)[:, None]


def _scores(model: GPT, packed: _Packed, prefix: list[KeyValue] | None) -> tuple[np.ndarray, np.ndarray]:
    """-ln p of every scored token of a batch, and whether no token is likelier: float64 and bool, [M]."""
    device = model.embed.weight.device
    inputs: dict[str, Any] = {"wanted_BT": packed.wanted_BT.to(device)}
    if prefix is not None:
        inputs["prefix"] = prefix
    if packed.has_branches:
        past = model.config.context_length - model.room(prefix)
        window = model.config.window_within(past + int(packed.positions_BT.max()) + 1)
        inputs["mask"] = _mask(packed, past, window).to(device)
        inputs["positions_BT"] = packed.positions_BT.to(device) + past
    hidden_ND = model.hidden(packed.ids_BT.to(device), **inputs)
    place_M = (packed.wanted_BT.flatten().cumsum(0) - 1)[packed.slots_M].to(device)
    targets_M = packed.targets_M.to(device)
    nats_M, likeliest_M = (
        hidden_ND.new_empty(len(place_M), dtype=torch.float32),
        torch.empty_like(place_M, dtype=torch.bool),
    )
    for first in range(0, len(hidden_ND), _LOGITS_AT_ONCE):
        logits_NV = model.logits(hidden_ND[first : first + _LOGITS_AT_ONCE]).float()
        at = ((place_M >= first) & (place_M < first + len(logits_NV))).nonzero()[:, 0]
        rows = place_M[at] - first
        chosen = logits_NV[rows, targets_M[at]]
        nats_M[at] = logits_NV.logsumexp(-1)[rows] - chosen
        likeliest_M[at] = chosen == logits_NV.amax(-1)[rows]
    return nats_M.double().cpu().numpy(), likeliest_M.cpu().numpy()
