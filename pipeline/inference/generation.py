"""Text generation: KV cache, temperature, top-k, top-p, stop ids, batches of prompts of different lengths.

`generate` answers many prompts at once, `stream` one prompt token by token. Greedy decoding at temperature 0; the order
of the filters (temperature, top-k, top-p; nucleus sampling: Holtzman et al. 2020) is that of transformers, and greedy
ids equal its own. The context is a hard limit: a prompt that fills it is refused before anything is computed, and an
answer stops where prompt and answer together fill it.

Shapes: B prompts, T tokens of the newest piece, S all tokens, V vocab_size, D d_model.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.errors import UserError
from pipeline.inference.cuda_graph import Decoder
from pipeline.model.cache import KeyValue, KVCache, StaticKVCache
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
        generator: source of the draws, on the model's device; may be None at temperature 0.
        prefix: learned keys and values before the prompt.
        use_cache: false computes everything anew for each token: slow, the reference for tests.

    Returns:
        New ids per prompt, without the prompt and without the stop id; fewer than max_tokens where the context ends.

    Raises:
        UserError: an empty prompt, a prompt that leaves no room in the context, an impossible setting.
    """
    sampling = Sampling(temperature, top_k, top_p, generator)
    request = _Request(model, prompts, max_tokens, sampling, prefix, use_cache)
    request.check()
    if not isinstance(model, LibraryModel):
        return _answers(request, stop) if prompts else []
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
    return _until_stop(request.steps(), stop)


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
        if self.temperature == 0:
            return logits_BV.argmax(dim=-1)
        logits_BV = logits_BV.float() / self.temperature
        if 0 < self.top_k < logits_BV.shape[-1]:
            least_B1 = logits_BV.topk(self.top_k, dim=-1).values[:, -1:]
            logits_BV = logits_BV.masked_fill(logits_BV < least_B1, -torch.inf)
        if self.top_p < 1:
            sorted_BV, order_BV = logits_BV.sort(dim=-1, descending=True, stable=True)
            probability_BV = sorted_BV.softmax(-1)
            # An id is kept while those before it do not reach top_p; the first always is.
            beyond_BV = probability_BV.cumsum(-1) - probability_BV >= self.top_p
            beyond_BV[:, 0] = False
            dropped_BV = torch.zeros_like(beyond_BV).scatter(1, order_BV, beyond_BV)
            logits_BV = logits_BV.masked_fill(dropped_BV, -torch.inf)
        return torch.multinomial(logits_BV.softmax(-1), 1, generator=self.generator)[:, 0]


@dataclass(frozen=True)
class _Request:
    """Prompts to answer and all settings."""

    model: GPT
    prompts: Sequence[Sequence[int]]
    max_tokens: int
    sampling: Sampling
    prefix: Sequence[KeyValue] | None
    use_cache: bool

    def check(self) -> None:
        """Raises UserError for prompts or settings that cannot be answered, naming the first."""
        sampling = self.sampling
        temperature, top_k, top_p = sampling.temperature, sampling.top_k, sampling.top_p
        if self.max_tokens < 1 or temperature < 0 or top_k < 0 or not 0 < top_p <= 1:
            raise UserError(
                f"max_tokens {self.max_tokens}, temperature {temperature}, top_k {top_k}, top_p {top_p}; expected "
                "max_tokens >= 1, temperature >= 0, top_k >= 0 (0 keeps all), 0 < top_p <= 1"
            )
        if temperature > 0 and sampling.generator is None:
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
        cache = _cache(offset + new_BT.shape[1] + steps, new_BT.device) if self.use_cache else None
        decoder: Decoder | None = None
        training = model.training
        model.eval()
        try:
            for step in range(steps):
                if decoder is not None:
                    next_B = sampling.draw(decoder.step(new_BT))
                    new_BT = next_B[:, None]
                    yield next_B.tolist()
                    continue
                first = step == 0 or cache is None
                keys_BS = positions_BT = None  # without padding: causal, positions counted on
                if ragged:
                    # Finished rows are computed on with the others; their positions stay inside the context.
                    last = model.config.context_length - offset - 1
                    positions_BT = ((mask_BS.cumsum(1) - 1).clamp(0, last) + offset)[:, -new_BT.shape[1] :]
                    keys_BS = F.pad(mask_BS, (offset, 0), value=True)
                with torch.inference_mode():
                    prefix = self.prefix if first else None
                    x_BTD = model.hidden(new_BT, mask=keys_BS, positions_BT=positions_BT, prefix=prefix, cache=cache)
                    next_B = sampling.draw(model.logits(x_BTD[:, -1]))
                    new_BT = next_B[:, None] if cache is not None else torch.cat((new_BT, next_B[:, None]), dim=1)
                    if isinstance(cache, StaticKVCache):
                        decoder = Decoder(model, cache, mask_BS)
                    elif ragged:
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


def _cache(capacity: int, device: torch.device) -> KVCache:
    """Of fixed shapes on a GPU, where launching a step takes longest; a CPU reads only the filled part."""
    return StaticKVCache(capacity) if device.type == "cuda" else KVCache(capacity)


def _padded_left(prompts: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Ids [B, T] with zeros before shorter prompts, and a mask, true at real tokens."""
    length = max(map(len, prompts))
    ids = torch.zeros(len(prompts), length, dtype=torch.long)
    mask = torch.zeros(len(prompts), length, dtype=torch.bool)
    for row, prompt in enumerate(prompts):
        ids[row, length - len(prompt) :] = torch.tensor(prompt, dtype=torch.long)
        mask[row, length - len(prompt) :] = True
    return ids.to(device), mask.to(device)
