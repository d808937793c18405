"""Text generation: the answers to many prompts at once, or to one token by token.

On a CPU the decoding engine computes them (engine.py), on a GPU steps of fixed shapes (cuda_graph.py). Greedy decoding
at temperature 0; greedy ids equal those of transformers. The context is a hard limit: a prompt that fills it is refused
before anything is computed, and an answer stops where prompt and answer together fill it.

Shapes: B prompts, T tokens of the newest piece, S all tokens, V vocab_size, D d_model.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.errors import UserError
from pipeline.inference.cuda_graph import Decoder
from pipeline.inference.engine import Engine, RowSettings, Token
from pipeline.inference.sampling import Filter, kept
from pipeline.model.cache import KeyValue, StaticKVCache
from pipeline.model.gpt import GPT
from pipeline.model.library import LibraryModel


def generate(  # noqa: PLR0913 - one argument per setting, as in transformers' generate
    model: GPT,
    prompts: Sequence[Sequence[int]],
    *,
    max_tokens: int,
    temperature: float,
    top_k: int,
    top_p: float,
    stop: Collection[int],
    generator: torch.Generator | None = None,
    seeds: Sequence[int] | None = None,
    prefix: Sequence[KeyValue] | None = None,
    use_cache: bool = True,
) -> list[list[int]]:
    """New token ids for every prompt.

    Args:
        model: any of ours, adapters included; left in the mode it was in.
        prompts: token ids, at least one each.
        max_tokens: most new tokens per prompt.
        temperature: divides the logits; 0 takes the likeliest id and draws nothing.
        top_k: draw from so many likeliest ids; 0 keeps all.
        top_p: draw from the fewest likeliest ids whose probabilities add up to this; 1 keeps all.
        stop: ids that end an answer; not part of it.
        generator: source of the draws, on the model's device; may be None at temperature 0. On a CPU each row gets a
            generator of its own, seeded by this one.
        seeds: one for each prompt, instead of `generator`: its draws do not depend on the other prompts.
        prefix: learned keys and values before the prompt.
        use_cache: false computes everything anew for each token: slow, the reference for tests.

    Returns:
        New ids per prompt, without the prompt and without the stop id; fewer than max_tokens where the context ends.

    Raises:
        UserError: an empty prompt, a prompt that leaves no room in the context, an impossible setting.
    """
    sampling = Sampling(temperature, top_k, top_p, generator)
    request = _Request(model, prompts, max_tokens, sampling, prefix, use_cache, seeds)
    request.check()
    if not prompts:
        return []
    if request.by_engine:
        return request.engine_answers(frozenset(stop))
    if seeds is not None and temperature > 0:
        return [_answers(request.alone(row), stop)[0] for row in range(len(prompts))]
    if not isinstance(model, LibraryModel):
        return _answers(request, stop)
    # transformers gives a row the same numbers alone and beside others only where nothing is padded
    answers: list[list[int]] = [[] for _ in prompts]
    for length in sorted({len(prompt) for prompt in prompts}):
        rows = [row for row, prompt in enumerate(prompts) if len(prompt) == length]
        part = _answers(replace(request, prompts=[prompts[row] for row in rows]), stop)
        for row, answer in zip(rows, part, strict=True):
            answers[row] = answer
    return answers


def _answers(request: "_Request", stop: Collection[int]) -> list[list[int]]:
    """New ids per prompt of a checked request."""
    prompts, room = request.prompts, request.model.room(request.prefix)
    answers: list[list[int]] = [[] for _ in prompts]
    unfinished = [True] * len(prompts)
    for ids_B in request.steps():
        for row, token in enumerate(ids_B):
            if unfinished[row] and token not in stop:
                answers[row].append(token)
            fits = len(prompts[row]) + len(answers[row]) < room
            unfinished[row] = unfinished[row] and token not in stop and fits
        if not any(unfinished):
            break
    return answers


def stream(  # noqa: PLR0913 - as `generate`
    model: GPT,
    ids: Sequence[int],
    *,
    max_tokens: int,
    temperature: float,
    top_k: int,
    top_p: float,
    stop: Collection[int],
    generator: torch.Generator | None = None,
    prefix: Sequence[KeyValue] | None = None,
) -> Iterator[int]:
    """Yields the answer to one prompt id by id, as each is known; arguments and errors as in `generate`."""
    sampling = Sampling(temperature, top_k, top_p, generator)
    request = _Request(model, [ids], max_tokens, sampling, prefix, use_cache=True)
    request.check()  # checked here, not when the first id is requested
    return request.engine_stream(frozenset(stop)) if request.by_engine else _until_stop(request.steps(), stop)


def _until_stop(steps: Iterator[list[int]], stop: Collection[int]) -> Iterator[int]:
    for (token,) in steps:
        if token in stop:
            return
        yield token


@dataclass(frozen=True)
class Sampling:
    """The rule by which the next id is drawn from logits; settings as in `generate`."""

    temperature: float
    top_k: int
    top_p: float
    generator: torch.Generator | None

    def draw(self, logits_BV: Tensor) -> Tensor:
        """One id per row, [B]."""
        one = Filter(self.temperature, self.top_k, self.top_p)
        if one.temperature == 0:
            return logits_BV.argmax(dim=-1)
        return torch.multinomial(kept(logits_BV, one).softmax(-1), 1, generator=self.generator)[:, 0]


@dataclass(frozen=True)
class _Request:
    """Prompts to answer and all settings."""

    model: GPT
    prompts: Sequence[Sequence[int]]
    max_tokens: int
    sampling: Sampling
    prefix: Sequence[KeyValue] | None
    use_cache: bool
    seeds: Sequence[int] | None = None
    """One for each prompt, instead of the sampling's generator."""

    def check(self) -> None:
        """Raises UserError for prompts or settings that cannot be answered, naming the first."""
        sampling = self.sampling
        Filter(sampling.temperature, sampling.top_k, sampling.top_p).check(self.max_tokens)
        if sampling.temperature > 0 and sampling.generator is None and self.seeds is None:
            raise ValueError("sampling needs an explicit generator")
        room, vocab_size = self.model.room(self.prefix), self.model.config.vocab_size
        for row, prompt in enumerate(self.prompts):
            if not prompt:
                raise UserError(f"prompt {row} is empty; begin with at least the end-of-text id")
            if len(prompt) >= room:
                raise UserError(
                    f"prompt {row} has {len(prompt)} tokens, the context {room}: no room for an answer; "
                    f"shorten it to at most {room - 1}"
                )
            if not 0 <= min(prompt) <= max(prompt) < vocab_size:
                raise UserError(
                    f"prompt {row} has an id outside 0..{vocab_size - 1}; encode it with this model's own tokenizer"
                )

    def alone(self, row: int) -> "_Request":
        """The request of one prompt with its own seed."""
        assert self.seeds is not None
        generator = torch.Generator(self.model.embed.weight.device).manual_seed(self.seeds[row])
        return replace(self, prompts=[self.prompts[row]], sampling=replace(self.sampling, generator=generator))

    @property
    def by_engine(self) -> bool:
        """Whether the decoding engine answers: our own families on a CPU."""
        engine = self.use_cache and not _has_fixed_shapes(self.model.embed.weight.device)
        return engine and not isinstance(self.model, LibraryModel)

    def engine_answers(self, stop: frozenset[int]) -> list[list[int]]:
        """New ids per prompt, all of them rows of one engine."""
        answers: list[list[int]] = [[] for _ in self.prompts]
        for token in self._engine_tokens(stop):
            if token.finished != "stop":
                answers[token.row].append(token.id)
        return answers

    def engine_stream(self, stop: frozenset[int]) -> Iterator[int]:
        """New ids of the only prompt, as each is known."""
        for token in self._engine_tokens(stop):
            if token.finished != "stop":
                yield token.id

    def _engine_tokens(self, stop: frozenset[int]) -> Iterator[Token]:
        """The tokens of all prompts, whose rows have the numbers of the prompts."""
        sampling, seeds = self.sampling, self.seeds or [0] * len(self.prompts)
        if sampling.generator is not None:
            device = sampling.generator.device
            drawn = torch.randint(2**62, (len(seeds),), generator=sampling.generator, device=device)
            seeds = drawn.tolist()
        training = self.model.training
        self.model.eval()
        try:
            engine = Engine(self.model, max_rows=len(seeds), prefix=self.prefix, logprobs=False)
            for prompt, seed in zip(self.prompts, seeds, strict=True):
                engine.add(
                    prompt,
                    RowSettings(
                        self.max_tokens, sampling.temperature, sampling.top_k, sampling.top_p, stop=stop, seed=seed
                    ),
                )
            while engine.busy:
                yield from engine.step()
        finally:
            self.model.train(training)

    def steps(self) -> Iterator[list[int]]:
        """The next id of every row, step by step, until max_tokens or until no row has room."""
        model, sampling = self.model, self.sampling
        if isinstance(model, LibraryModel):
            yield from self._library_steps(model)
            return
        new_BT, mask_BS = _padded_left(self.prompts, model.embed.weight.device)
        steps = min(self.max_tokens, model.room(self.prefix) - min(map(len, self.prompts)))
        offset = model.config.context_length - model.room(self.prefix)  # positions of the prefix
        ragged = not bool(mask_BS.all())
        cache = _cache(offset + new_BT.shape[1] + steps) if self.use_cache else None
        decoder: Decoder | None = None
        training = model.training
        model.eval()
        try:
            for _ in range(steps):
                if decoder is not None:
                    next_B = sampling.draw(decoder.step(new_BT))
                    new_BT = next_B[:, None]
                    yield next_B.tolist()
                    continue
                keys_BS = positions_BT = None  # without padding: causal, positions counted on
                if ragged:
                    # Finished rows are computed on with the others; their positions stay inside the context.
                    last = model.config.context_length - offset - 1
                    positions_BT = (mask_BS.cumsum(1) - 1).clamp(0, last) + offset
                    keys_BS = F.pad(mask_BS, (offset, 0), value=True)
                with torch.inference_mode():
                    x_BTD = model.hidden(
                        new_BT, mask=keys_BS, positions_BT=positions_BT, prefix=self.prefix, cache=cache
                    )
                    next_B = sampling.draw(model.logits(x_BTD[:, -1]))
                    if cache is not None:
                        decoder, new_BT = Decoder(model, cache, mask_BS), next_B[:, None]
                    else:
                        new_BT = torch.cat((new_BT, next_B[:, None]), dim=1)
                        mask_BS = torch.cat((mask_BS, mask_BS.new_ones(len(next_B), 1)), dim=1)
                yield next_B.tolist()
        finally:
            model.train(training)

    def _library_steps(self, model: LibraryModel) -> Iterator[list[int]]:
        """As `steps`, for prompts of one length, by the library's own cache."""
        new_BT, state = torch.tensor(self.prompts, device=model.embed.weight.device), None
        training = model.training
        model.eval()
        try:
            for _ in range(min(self.max_tokens, model.room() - new_BT.shape[1])):
                with torch.inference_mode():
                    x_BD, state = model.advance(new_BT, state)
                    next_B = self.sampling.draw(model.logits(x_BD))
                new_BT = next_B[:, None]
                yield next_B.tolist()
        finally:
            model.train(training)


def _has_fixed_shapes(device: torch.device) -> bool:
    """Whether steps are recorded and replayed there: on a GPU, where launching a step takes longest."""
    return device.type == "cuda"


def _cache(capacity: int) -> StaticKVCache:
    return StaticKVCache(capacity)


def _padded_left(prompts: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Ids [B, T] with zeros before shorter prompts, and a mask, true at real tokens."""
    length = max(map(len, prompts))
    ids = torch.zeros(len(prompts), length, dtype=torch.long)
    mask = torch.zeros(len(prompts), length, dtype=torch.bool)
    for row, prompt in enumerate(prompts):
        ids[row, length - len(prompt) :] = torch.tensor(prompt, dtype=torch.long)
        mask[row, length - len(prompt) :] = True
    return ids.to(device), mask.to(device)
