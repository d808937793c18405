"""A world so small that expected reward, KL and their gradients are exact: every answer is enumerated.

Four ids (the end of an answer, a, b, ab), answers of at most three tokens, four prompts of different lengths, a real
GPT as policy and another as reference. The letters have two spellings, [a, b] and [ab], so tokenising a text again does
not give the drawn ids back; the padding is an id that is also drawn; one prompt's answers all have the same score.

Shapes: P prompts, A answers of a prompt (40), X weights.
"""

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pipeline.model.gpt import GPT
from pipeline.tasks import IGNORED, TaskSpec
from pipeline.tasks.prompts import Prompt, Prompts
from tests.models import network

STOP, MAX_TOKENS = 0, 3
SPELLED = {STOP: "", 1: "a", 2: "b", 3: "ab"}
PROMPTS = ("b", "aab", "abab", "ba")
EVEN = "ba"
"""The prompt all of whose answers have the same score."""
RECORDS = [{"instruction": text, "input": "", "output": "", "language": "en"} for text in PROMPTS]


class Letters:
    """The vocabulary, with the interface of pipeline.tokenizer.Tokenizer."""

    vocab_size, end_of_text, pad = len(SPELLED), STOP, 1
    chat_template = None
    text_prefix: tuple[int, ...] = ()
    text_suffix: tuple[int, ...] = ()

    def encode(self, text: str) -> list[int]:
        """The longest spelling first, as a tokenizer would."""
        ids = []
        while text:
            ids.append(3 if text.startswith("ab") else 1 if text[0] == "a" else 2)
            text = text.removeprefix(SPELLED[ids[-1]])
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(SPELLED[i] for i in ids)


class Asked(Prompts):
    """Task `prompts`, whose prompt is the instruction without a template."""

    opens, stop = "", STOP

    def example(self, record: Mapping[str, Any]) -> Prompt:
        ids = self.tokenizer.encode(record["instruction"])
        return Prompt(ids, [IGNORED] * len(ids), record)


def task() -> Asked:
    spec = TaskSpec(name="prompts", template="alpaca", max_tokens=8, max_prompt_tokens=5)
    return Asked(spec, Letters())  # type: ignore[arg-type]


def policy(seed: int = 0, scale: float = 12.0, **changes: Any) -> GPT:
    """A network whose distributions differ from token to token."""
    shape = {"vocab_size": 4, "context_length": 8, "n_layers": 1, "d_model": 8, "d_ff": 8, "head_dim": 4}
    model = network("llama", **shape | changes)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0.0, 0.02 * scale, generator=generator)
    return model.eval()


def score(record: Mapping[str, Any], text: str) -> float:
    """The judge's score of a text: any function of both; the same for all answers to EVEN."""
    if record["instruction"] == EVEN:
        return 0.5
    weight = 1 + len(record["instruction"])
    return (text.count("a") * weight + 3 * text.startswith("b") + 2 * text.endswith("b") * weight) % 7 / 7


def answers() -> list[tuple[int, ...]]:
    """All answers: those that end by the stop id, and those of MAX_TOKENS without it."""
    begun = [ids for size in range(MAX_TOKENS) for ids in product((1, 2, 3), repeat=size)]
    return [*((*ids, STOP) for ids in begun), *product((1, 2, 3), repeat=MAX_TOKENS)]


Table = dict[tuple[tuple[int, ...], tuple[int, ...]], tuple[float, ...]]
"""(prompt, answer) -> a number for every token of the answer."""


class Exact(NamedTuple):
    """Expectations over all prompts, equally likely, and all answers."""

    reward: Tensor
    kl: Tensor
    """KL(policy || reference) of whole answers, nats."""
    reward_X: Tensor
    """Gradient of the expected reward."""
    kl_X: Tensor
    """Gradient of the KL."""
    logprobs: "Table"
    """ln p of every token under the policy."""
    reference: "Table"
    """The same under the reference."""


def answer_logprobs(model: GPT, prompt: Sequence[int], temperature: float) -> Tensor:
    """logprobs_AT of every token of every answer, 0 behind its end: one plain pass, no code of a task or loss."""
    rows = [[*prompt, *answer] for answer in answers()]
    width = len(prompt) + MAX_TOKENS
    ids_AT = torch.tensor([row + [STOP] * (width - len(row)) for row in rows])
    logprobs_ATV = (model(ids_AT)[:, len(prompt) - 1 : -1].double() / temperature).log_softmax(-1)
    chosen_AT = logprobs_ATV.gather(2, ids_AT[:, len(prompt) :, None])[..., 0]
    lengths_A = torch.tensor([len(answer) for answer in answers()])
    return chosen_AT * (torch.arange(MAX_TOKENS) < lengths_A[:, None])


def scores(record: Mapping[str, Any]) -> Tensor:
    """scores_A of all answers."""
    return torch.tensor([score(record, Letters().decode(answer)) for answer in answers()], dtype=torch.float64)


def exact(model: GPT, reference: GPT, temperature: float = 1.0) -> Exact:
    """By enumeration, with automatic differentiation for the gradients."""
    reward, kl = torch.zeros(()), torch.zeros(())
    logprobs: Table = {}
    theirs: Table = {}
    for record in RECORDS:
        prompt = tuple(Letters().encode(record["instruction"]))
        ours_AT = answer_logprobs(model, prompt, temperature)
        with torch.no_grad():
            theirs_AT = answer_logprobs(reference, prompt, temperature)
        share_A = ours_AT.sum(1).exp()
        assert abs(float(share_A.detach().sum()) - 1) < 1e-5
        reward = reward + (share_A * scores(record)).sum() / len(RECORDS)
        kl = kl + (share_A * (ours_AT - theirs_AT).sum(1)).sum() / len(RECORDS)
        for row, answer in enumerate(answers()):
            logprobs[prompt, answer] = tuple(ours_AT[row, : len(answer)].tolist())
            theirs[prompt, answer] = tuple(theirs_AT[row, : len(answer)].tolist())
    return Exact(reward.detach(), kl.detach(), gradient_of(reward, model), gradient_of(kl, model), logprobs, theirs)


def best_value(reference: GPT, weight: float, temperature: float = 1.0) -> float:
    """The largest possible E[score] - weight KL, reached by p = q exp(score / weight) / Z (Korbak et al. 2022)."""
    with torch.no_grad():
        values = [
            weight * (answer_logprobs(reference, Letters().encode(record["instruction"]), temperature).sum(1)
                      + scores(record) / weight).logsumexp(0)
            for record in RECORDS
        ]  # fmt: skip
    return float(sum(values)) / len(RECORDS)


def gradient_of(value: Tensor, model: GPT) -> Tensor:
    """gradient_X over all weights, float64."""
    gradients = torch.autograd.grad(value, list(model.parameters()), retain_graph=True)
    return torch.cat([g.reshape(-1) for g in gradients]).double()


def t_values(samples_NX: Tensor, expected_X: Tensor, directions_KX: Tensor) -> Tensor:
    """t_K: distance of the samples' mean from the expectation, in standard errors, along every direction; NaN for one
    sample.
    """
    if len(samples_NX) < 2:
        return torch.full((len(directions_KX),), torch.nan)
    along_NK = samples_NX @ directions_KX.T
    errors_K = along_NK.std(0) / len(samples_NX) ** 0.5
    return (along_NK.mean(0) - directions_KX @ expected_X) / errors_K.clamp(min=1e-12)


def directions(one: Exact, count: int = 12) -> Tensor:
    """directions_KX: both gradients, and random ones."""
    random_KX = torch.randn(count, len(one.reward_X), dtype=torch.float64, generator=torch.Generator().manual_seed(7))
    both_KX = torch.cat([torch.stack([one.reward_X, one.kl_X, one.reward_X - one.kl_X]), random_KX])
    return both_KX / both_KX.norm(dim=1, keepdim=True)
