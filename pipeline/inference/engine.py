"""Decoding engine: prompts join and leave a running batch at every step (continuous batching; Yu et al. 2022, "Orca").

    engine = Engine(model)
    rows = engine.add(prompt_ids, RowSettings(max_tokens=64), samples=2)
    while engine.busy:
        for token in engine.step():
            ...

One model, one thread; the owner calls `add`, `step` and `cancel`. It knows ids, not text: stop strings are its owner's.
A row's ids and log-probabilities are the same alone and beside others: each row draws from a
generator of its own, and decoding.py computes each row by itself. A long prompt is computed in pieces of `_PIECE`
tokens, at most `_PROMPT_TOKENS` a step of all prompts, so rows beside it go on. Rows of one prompt share its prefill.

Memory: the KV cache of at most `max_rows` rows of the model's context, 8 L G K bytes a position; it grows to the
longest prompt and answer that were asked for. Waiting prompts are lists of ids; the owner limits them (`waiting`).

Models that transformers computes have no cache of ours: each row keeps the library's, and is computed alone.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from pipeline.errors import UserError
from pipeline.inference.sampling import Filter, pick
from pipeline.model.cache import KeyValue
from pipeline.model.decoding import Compile, FlatModel
from pipeline.model.gpt import GPT
from pipeline.model.library import LibraryModel
from pipeline.model.row_attention import Piece
from pipeline.seeds import seed_for

_PIECE = 256  # tokens of a prompt in one pass; fixed by the prompt alone, so its numbers are the same in any company
_PROMPT_TOKENS = 512
_DRAWS = 64  # numbers drawn at once
_CAPACITY = 64  # positions by which slots grow
_SLOTS = 4  # at first; their number doubles


@dataclass(frozen=True)
class RowSettings:
    """How the answer to a prompt is drawn, and where it ends."""

    max_tokens: int
    """Most new tokens."""
    temperature: float = 0.0
    """0 takes the likeliest id."""
    top_k: int = 0
    """0 draws from all ids."""
    top_p: float = 1.0
    """1 draws from all ids."""
    stop: frozenset[int] = frozenset()
    """Ids that end an answer."""
    seed: int = 1
    """Of the draws; each sample of a prompt has its own, from this and its number."""
    top_logprobs: int = 0
    """Likeliest ids of every step that are given with their log-probabilities."""
    bias: Mapping[int, float] = field(default_factory=dict)
    """Id -> number added to its logit before anything is drawn."""


class Token(NamedTuple):
    """A new token of a row."""

    row: int
    id: int
    logprob: float
    """ln p of the id by the model itself (temperature 1, no filter, no bias); NaN in an engine without them."""
    top: tuple[tuple[int, float], ...]
    """(id, ln p) of the likeliest, in descending order, as many as `top_logprobs`."""
    finished: Literal["stop", "length"] | None
    """The row has left: at a stop id, which is `id` and no part of the answer, or at its last token."""


@dataclass(eq=False)
class _Row:
    number: int
    prompt: tuple[int, ...]
    settings: RowSettings
    filter: Filter
    generator: torch.Generator | None
    draws: list[float] = field(default_factory=list)
    """Drawn and not yet used, last first."""
    slot: int = -1
    computed: int = 0
    """Ids of the prompt whose keys and values are in the cache."""
    first_logits: Tensor | None = None
    """After the prompt, [V]; for rows of the same prompt."""
    answered: int = 0
    last: int = -1
    """The newest id."""
    state: Any = None
    """The library's cache, of a model that transformers computes."""

    @property
    def has_prompt(self) -> bool:
        return self.computed == len(self.prompt)

    def draw(self) -> float:
        """The next number in [0, 1) of the row; 0 of a greedy one."""
        if self.generator is None:
            return 0.0
        if not self.draws:
            self.draws = torch.rand(_DRAWS, dtype=torch.float64, generator=self.generator).tolist()[::-1]
        return self.draws.pop()


class Engine:
    """A running batch of rows of one model; see the module. Small weights are copied when it is made."""

    def __init__(
        self,
        model: GPT,
        *,
        max_rows: int = 32,
        prefix: Sequence[KeyValue] | None = None,
        logprobs: bool = True,
        compile_step: Compile | None = None,
    ) -> None:
        """Prepares a model on the CPU.

        Args:
            model: in evaluation mode; any family, adapters included.
            max_rows: rows computed in one step; more wait.
            prefix: keys and values before every prompt; None: the model's own virtual tokens, where it has some.
            logprobs: compute log-probabilities; false saves their time.
            compile_step: as of FlatModel; the server's (serving/compiled.py).

        Raises:
            UserError: a model without a language head.
        """
        if max_rows < 1:
            raise ValueError(f"max_rows {max_rows}, expected 1 or more")
        self._model, self._max_rows, self._logprobs = model, max_rows, logprobs
        if prefix is None and model.virtual is not None:
            with torch.no_grad():
                prefix = model.virtual.key_values(model)
        self._prefix = prefix
        self._past = 0 if prefix is None else prefix[0][0].shape[2]
        self.room = model.room(prefix)
        """Positions of a prompt with its answer."""
        self._flat = None if isinstance(model, LibraryModel) else FlatModel(model, compile_step)
        self._waiting: deque[_Row] = deque()
        self._active: list[_Row] = []
        self._free: list[int] = []
        self._prompts: dict[tuple[int, ...], _Row] = {}
        """The active row from which other rows of a prompt copy its keys and values."""
        self._next = 0

    def add(self, prompt: Sequence[int], settings: RowSettings, *, samples: int = 1) -> list[int]:
        """Queues a prompt; the numbers of its rows, one for each sample. They join at the next steps.

        Raises:
            UserError: an empty prompt or one that leaves no room for an answer, an id that the vocabulary does not
                have, or an impossible setting.
        """
        one = Filter(settings.temperature, settings.top_k, settings.top_p)
        one.check(settings.max_tokens)
        ids = tuple(prompt)
        self._check(ids, settings, samples)
        numbers = []
        for sample in range(samples):
            generator = None
            if settings.temperature:
                generator = torch.Generator().manual_seed(seed_for(settings.seed, "decoding", sample))
            self._waiting.append(_Row(self._next, ids, settings, one, generator))
            numbers.append(self._next)
            self._next += 1
        return numbers

    def cancel(self, row: int) -> None:
        """Takes a row out before the next step; nothing where it has left."""
        for one in self._waiting:
            if one.number == row:
                self._waiting.remove(one)
                return
        for one in self._active:
            if one.number == row:
                self._leave(one)
                return

    @property
    def busy(self) -> bool:
        """Whether any row is active or waits."""
        return bool(self._active or self._waiting)

    @property
    def is_compiled(self) -> bool:
        """Whether compiled code computes the steps."""
        return self._flat is not None and self._flat.is_compiled

    @property
    def waiting(self) -> int:
        """Rows that have not joined."""
        return len(self._waiting)

    @property
    def active(self) -> int:
        """Rows that are computed."""
        return len(self._active)

    @torch.inference_mode()
    def step(self) -> list[Token]:
        """Lets waiting rows join, computes one token of every row whose prompt is done, lets finished ones leave.

        Returns:
            The new tokens in the order of the rows' numbers; none while long prompts are read, or without rows.
        """
        while self._waiting and len(self._active) < self._max_rows:
            self._join(self._waiting.popleft())
        if not self._active:
            return []
        if isinstance(self._model, LibraryModel):
            rows, logits_BV = self._computed_by_library(self._model)
            return self._tokens(rows, logits_BV)
        assert self._flat is not None
        rows, logits = self._computed(self._flat)
        return [] if logits is None else self._tokens(rows, logits)

    # -- rows join and leave ------------------------------------------------------------------------------------------

    def _check(self, ids: tuple[int, ...], settings: RowSettings, samples: int) -> None:
        V = self._model.config.vocab_size
        if not ids:
            raise UserError("the prompt is empty; begin with at least the end-of-text id")
        if len(ids) >= self.room:
            raise UserError(
                f"the prompt has {len(ids)} tokens, the context {self.room}: no room for an answer; shorten it to at "
                f"most {self.room - 1}"
            )
        if not 0 <= min(ids) <= max(ids) < V:
            raise UserError(f"the prompt has an id outside 0..{V - 1}; encode it with this model's own tokenizer")
        if outside := [token for token in settings.bias if not 0 <= token < V]:
            raise UserError(f"bias names id {outside[0]}; expected one of 0..{V - 1}")
        if not 0 <= settings.top_logprobs <= V or samples < 1:
            raise UserError(
                f"top_logprobs {settings.top_logprobs}, samples {samples}; expected top_logprobs 0..{V}, samples >= 1"
            )

    def _join(self, row: _Row) -> None:
        if self._flat is None:
            self._active.append(row)
            return
        cache = self._flat.cache
        needed = self._past + min(len(row.prompt) + row.settings.max_tokens, self.room)
        needed = min(-(-needed // _CAPACITY) * _CAPACITY, self._model.config.context_length)
        before = cache.slots
        slots = before if self._free else min(self._max_rows, max(_SLOTS, 2 * before))
        written = {one.slot: self._past + one.computed + one.answered for one in self._active}
        cache.reserve(slots, needed, written)
        self._free += range(slots - 1, before - 1, -1)
        row.slot = self._free.pop()
        self._active.append(row)
        self._prompts.setdefault(row.prompt, row)

    def _leave(self, row: _Row) -> None:
        self._active.remove(row)
        if self._flat is None:
            return
        self._free.append(row.slot)
        if self._prompts[row.prompt] is row:
            others = [one for one in self._active if one.prompt == row.prompt]
            if others:
                self._prompts[row.prompt] = max(others, key=lambda one: one.computed)
            else:
                del self._prompts[row.prompt]

    # -- one pass -----------------------------------------------------------------------------------------------------

    def _computed(self, flat: FlatModel) -> tuple[list[_Row], Tensor | None]:
        """Rows that get a token, and their logits [B, V]; none where only prompts are read."""
        pieces, computed = self._pieces(flat)
        logits_BV = flat.step(pieces)
        waits = False
        for index, row in enumerate(computed):
            waits = waits or not row.has_prompt
            if row.has_prompt and not row.answered:
                row.first_logits = logits_BV[index].clone()
        followers = [row for row in self._active if not row.has_prompt and self._prompts[row.prompt].has_prompt]
        for row in followers:
            first = self._prompts[row.prompt]
            flat.cache.copy(first.slot, row.slot, self._past + len(row.prompt))
            row.computed, row.first_logits = first.computed, first.first_logits
        if not waits and not followers:
            return computed, logits_BV
        parts = {row.number: logits_BV[index] for index, row in enumerate(computed)}
        rows = [row for row in self._active if row.has_prompt]
        logits = [parts.get(row.number, row.first_logits) for row in rows]
        return rows, torch.stack([one for one in logits if one is not None]) if rows else None

    def _pieces(self, flat: FlatModel) -> tuple[list[Piece], list[_Row]]:
        """The tokens of this step and their rows: the newest of every answer, and the next ones of prompts."""
        pieces, rows, budget = [], [], _PROMPT_TOKENS
        for row in self._active:
            if row.has_prompt:
                pieces.append(Piece(row.slot, self._past + row.computed + row.answered - 1, (row.last,)))
            elif self._prompts[row.prompt] is row and budget > 0:
                if not row.computed and self._prefix is not None:
                    flat.cache.fill(row.slot, self._prefix)
                ids = row.prompt[row.computed : row.computed + _PIECE]
                pieces.append(Piece(row.slot, self._past + row.computed, ids))
                row.computed += len(ids)
                budget -= len(ids)
            else:
                continue
            rows.append(row)
        return pieces, rows

    def _computed_by_library(self, model: LibraryModel) -> tuple[list[_Row], Tensor]:
        """As `_computed`, row by row: the library's numbers change with padding."""
        logits = []
        for row in self._active:
            ids = [row.last] if row.answered else row.prompt
            x_1D, row.state = model.advance(torch.tensor([ids], device=model.embed.weight.device), row.state)
            logits.append(model.logits(x_1D))
        return list(self._active), torch.cat(logits)

    def _tokens(self, rows: Sequence[_Row], logits_BV: Tensor) -> list[Token]:
        """Draws an id for every row."""
        ids = pick(_biased(logits_BV, rows), [row.filter for row in rows], [row.draw() for row in rows])
        logprobs, tops = self._own_logprobs(rows, logits_BV, ids)
        tokens = []
        for row, token, logprob, top in zip(rows, ids, logprobs, tops, strict=True):
            finished: Literal["stop", "length"] | None = None
            row.last = token
            row.answered += 1
            if token in row.settings.stop:
                finished = "stop"
            elif row.answered == row.settings.max_tokens or len(row.prompt) + row.answered == self.room:
                finished = "length"
            if finished is not None:
                self._leave(row)
            tokens.append(Token(row.number, token, logprob, top, finished))
        return tokens

    def _own_logprobs(
        self, rows: Sequence[_Row], logits_BV: Tensor, ids: Sequence[int]
    ) -> tuple[list[float], list[tuple[tuple[int, float], ...]]]:
        """ln p of the drawn ids and of the likeliest ones, by the model's own distribution."""
        nothing: list[tuple[tuple[int, float], ...]] = [()] * len(rows)
        if not self._logprobs:
            return [float("nan")] * len(rows), nothing
        logits_BV = logits_BV.float()
        sums_B1 = logits_BV.logsumexp(-1, keepdim=True)
        chosen = (logits_BV.gather(1, torch.tensor(ids)[:, None]) - sums_B1)[:, 0].tolist()
        for index, row in enumerate(rows):
            if count := row.settings.top_logprobs:
                best = (logits_BV[index] - sums_B1[index]).topk(count)
                nothing[index] = tuple(zip(best.indices.tolist(), best.values.tolist(), strict=True))
        return chosen, nothing


def _biased(logits_BV: Tensor, rows: Sequence[_Row]) -> Tensor:
    """Logits with the rows' biases; the same tensor where no row has one."""
    if not any(row.settings.bias for row in rows):
        return logits_BV
    logits_BV = logits_BV.clone()
    for index, row in enumerate(rows):
        if bias := row.settings.bias:
            logits_BV[index, torch.tensor(list(bias))] += torch.tensor(list(bias.values()), dtype=logits_BV.dtype)
    return logits_BV
