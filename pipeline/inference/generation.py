"""Text from a model, id by id: KV cache, temperature, top-k, top-p, stop ids, batches of ragged prompts.

`generate` answers many prompts at once, `stream` one prompt as it goes. Greedy at temperature 0; the order of
the filters (temperature, top-k, top-p; nucleus sampling: Holtzman et al. 2020) is that of transformers, and
greedy ids are equal to its own. The context is a hard end: a prompt that fills it is refused before anything
is computed, and an answer stops where prompt and answer together fill it.
"""

from collections.abc import Collection, Iterator, Sequence

import torch
from torch import Tensor

from pipeline.errors import UserError
from pipeline.inference.cuda_graph import Decoder
from pipeline.model.cache import KeyValue, KVCache, StaticKVCache
from pipeline.model.gpt import GPT


def generate(
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
    """Answers every prompt.

    Args:
        model: any of ours, adapters included; left in the mode it was in.
        prompts: token ids, at least one each.
        max_tokens: most new tokens per prompt.
        temperature: 0 takes the likeliest id and draws nothing.
        top_k: only so many likeliest ids; 0 keeps all.
        top_p: only the fewest likeliest ids that reach this probability together; 1 keeps all.
        stop: ids that end an answer; not part of it.
        generator: source of the draws, on the model's device; may be None at temperature 0.
        prefix: learned keys and values before the prompt.
        use_cache: false computes everything anew for each token: slow, the reference for tests.

    Returns:
        New ids per prompt, without the prompt and without the stop id; fewer than max_tokens where the
        context ends.

    Raises:
        UserError: an empty prompt, a prompt that leaves no room in the context, an impossible setting.
    """
    _check(model, prompts, max_tokens, temperature, top_k, top_p, generator, prefix)
    answers: list[list[int]] = [[] for _ in prompts]
    if not prompts:
        return answers
    room = model.room(prefix)
    going = [True] * len(prompts)
    for ids_B in _steps(model, prompts, max_tokens, temperature, top_k, top_p, generator, prefix, use_cache):
        for row, token in enumerate(ids_B):
            if going[row] and token not in stop:
                answers[row].append(token)
            going[row] = going[row] and token not in stop and len(prompts[row]) + len(answers[row]) < room
        if not any(going):
            break
    return answers


def stream(
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
    _check(model, [ids], max_tokens, temperature, top_k, top_p, generator, prefix)
    return _until(_steps(model, [ids], max_tokens, temperature, top_k, top_p, generator, prefix, True), stop)


def _until(steps: Iterator[list[int]], stop: Collection[int]) -> Iterator[int]:
    for (token,) in steps:
        if token in stop:
            return
        yield token


def choose(
    logits_BV: Tensor, temperature: float, top_k: int, top_p: float, generator: torch.Generator | None
) -> Tensor:
    """One id per row, [B], from last-position logits."""
    if temperature == 0:
        return logits_BV.argmax(dim=-1)
    logits_BV = logits_BV.float() / temperature
    if 0 < top_k < logits_BV.shape[-1]:
        least_B1 = logits_BV.topk(top_k, dim=-1).values[:, -1:]
        logits_BV = logits_BV.masked_fill(logits_BV < least_B1, -torch.inf)
    if top_p < 1:
        sorted_BV, order_BV = logits_BV.sort(dim=-1, descending=True, stable=True)
        probability_BV = sorted_BV.softmax(-1)
        # An id stays while those before it do not reach top_p; the first always stays.
        beyond_BV = probability_BV.cumsum(-1) - probability_BV >= top_p
        beyond_BV[:, 0] = False
        dropped_BV = torch.zeros_like(beyond_BV).scatter(1, order_BV, beyond_BV)
        logits_BV = logits_BV.masked_fill(dropped_BV, -torch.inf)
    return torch.multinomial(logits_BV.softmax(-1), 1, generator=generator)[:, 0]


def _steps(
    model: GPT,
    prompts: Sequence[Sequence[int]],
    max_tokens: int,
    temperature: float,
    top_k: int,
    top_p: float,
    generator: torch.Generator | None,
    prefix: Sequence[KeyValue] | None,
    use_cache: bool,
) -> Iterator[list[int]]:
    """The next id of every row, step by step, until max_tokens or until no row has room."""
    new_BT, mask_BT = _padded_left(prompts, model.embed.weight.device)
    length = new_BT.shape[1]
    steps = min(max_tokens, model.room(prefix) - min(map(len, prompts)))
    offset = model.config.context_length - model.room(prefix)
    ragged = not bool(mask_BT.all())
    cache = _cache(offset + length + steps, new_BT.device) if use_cache else None
    decoder: Decoder | None = None
    training = model.training
    model.eval()
    try:
        for step in range(steps):
            if decoder is not None:
                next_B = choose(decoder.step(new_BT), temperature, top_k, top_p, generator)
                new_BT = next_B[:, None]
                yield next_B.tolist()
                continue
            first = step == 0 or cache is None
            keys_BS = positions_BT = None  # as they follow each other
            if ragged:
                # Rows that are done or have no room go on as ballast; their positions stay inside the context.
                last = model.config.context_length - offset - 1
                positions_BT = ((mask_BT.cumsum(1) - 1).clamp(0, last) + offset)[:, -new_BT.shape[1] :]
                keys_BS = torch.nn.functional.pad(mask_BT, (offset, 0), value=True)
            with torch.inference_mode():
                x_BTD = model.hidden(
                    new_BT, mask=keys_BS, positions_BT=positions_BT, prefix=prefix if first else None, cache=cache
                )
                next_B = choose(model.logits(x_BTD[:, -1]), temperature, top_k, top_p, generator)
                new_BT = next_B[:, None] if cache is not None else torch.cat((new_BT, next_B[:, None]), dim=1)
                if isinstance(cache, StaticKVCache):
                    decoder = Decoder(model, cache, mask_BT)
                elif ragged:
                    mask_BT = torch.cat((mask_BT, mask_BT.new_ones(len(next_B), 1)), dim=1)
            yield next_B.tolist()
    finally:
        model.train(training)


def _cache(capacity: int, device: torch.device) -> KVCache:
    """Of fixed shapes on a GPU, where launching a step takes longest; a CPU reads only what is full."""
    return StaticKVCache(capacity) if device.type == "cuda" else KVCache(capacity)


def _padded_left(prompts: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Ids [B, T] with zeros before shorter prompts, and the mask of what is real."""
    length = max(map(len, prompts))
    ids = torch.zeros(len(prompts), length, dtype=torch.long)
    mask = torch.zeros(len(prompts), length, dtype=torch.bool)
    for row, prompt in enumerate(prompts):
        ids[row, length - len(prompt) :] = torch.tensor(prompt, dtype=torch.long)
        mask[row, length - len(prompt) :] = True
    return ids.to(device), mask.to(device)


def _check(
    model: GPT,
    prompts: Sequence[Sequence[int]],
    max_tokens: int,
    temperature: float,
    top_k: int,
    top_p: float,
    generator: torch.Generator | None,
    prefix: Sequence[KeyValue] | None,
) -> None:
    if max_tokens < 1 or temperature < 0 or top_k < 0 or not 0 < top_p <= 1:
        raise UserError(
            f"max_tokens {max_tokens}, temperature {temperature}, top_k {top_k}, top_p {top_p}; expected "
            "max_tokens >= 1, temperature >= 0, top_k >= 0 (0 keeps all), 0 < top_p <= 1"
        )
    if temperature > 0 and generator is None:
        raise ValueError("sampling needs an explicit generator")
    room = model.room(prefix)
    for row, prompt in enumerate(prompts):
        if not prompt:
            raise UserError(f"prompt {row} is empty; begin with at least the end-of-text id")
        if len(prompt) >= room:
            raise UserError(
                f"prompt {row} has {len(prompt)} tokens, the context {room}: no room for an answer; "
                f"shorten it to at most {room - 1}"
            )
        if not 0 <= min(prompt) <= max(prompt) < model.config.vocab_size:
            raise UserError(
                f"prompt {row} has an id outside 0..{model.config.vocab_size - 1}; "
                "encode it with this model's own tokenizer"
            )
