"""Cloze (pattern-verbalizer) fine-tuning: the language model predicts the label as a word, so no new head is needed.

Schick & Schuetze 2021 (PET), section 3.1: a pattern turns the text into a prompt, a verbalizer maps each label to a
word, and the label's probability is the softmax over the labels' words only; meant for few examples (Gao et al. 2021).
A causal model predicts at the end, so a pattern ends with {label}. The score of a word of several tokens is the sum of
their log-probabilities.
"""

from collections.abc import Sequence
from typing import ClassVar

import torch
from pydantic import Field, model_validator
from torch import Tensor
from torch.nn import functional as F

from pipeline.config.section import Positive, Section
from pipeline.errors import UserError
from pipeline.model.gpt import GPT
from pipeline.prompts.vocabulary import without_middle
from pipeline.tasks import Labelling, Request, TaskContext, TaskSpec, require_room
from pipeline.tokenizer import Tokenizer


class Settings(Section):
    """Pattern, verbalizers and length limit."""

    reads: ClassVar[frozenset[str]] = frozenset({"labelled"})
    head: ClassVar[str] = "language"
    emits: ClassVar[str] = "classes"
    form: ClassVar[str] = "labels"
    measures: ClassVar[tuple[str, ...]] = ("accuracy", "f1")
    pattern: str = Field(examples=["{text} It is{label}"])
    """Prompt with {text} once and {label} at its end: "{text} This message is{label}"."""
    verbalizers: dict[str, str] = Field(examples=[{"ham": "h", "spam": "s"}, {"ham": " message", "spam": " spam"}])
    """Label -> its word, with the leading space that it has in running text: " spam"."""
    max_tokens: Positive = Field(examples=[48])
    """Longest prompt with its label in tokens; at most the model's context_length."""

    @model_validator(mode="after")
    def _pattern_and_words_fit(self) -> "Settings":
        counts = self.pattern.count("{text}"), self.pattern.count("{label}")
        if counts != (1, 1) or not self.pattern.endswith("{label}"):
            raise ValueError(f"pattern is {self.pattern!r}; expected {{text}} once and {{label}} once, at the end")
        words = set(self.verbalizers.values())
        if len(words) < max(2, len(self.verbalizers)) or "" in words:
            raise ValueError(f"verbalizers are {self.verbalizers}; expected a different word for each of the labels")
        return self


def build(settings: Settings, context: TaskContext) -> "Cloze":
    """The task for the labels of `context`.

    Raises:
        UserError: verbalizers that do not name exactly the labels, or max_tokens that exceeds the context_length or
            leaves no room for a text.
    """
    where = context.where
    if set(settings.verbalizers) != set(context.labels):
        raise UserError(
            f"{where}.verbalizers names {', '.join(sorted(settings.verbalizers)) or 'no label'}; the labels of the "
            f"data are {', '.join(context.labels) or 'none'}"
        )
    require_room(settings.max_tokens, context)
    task = Cloze(TaskSpec(name="cloze", labels=tuple(context.labels), **settings.model_dump()), context.tokenizer)
    longest = longest_prompt(task)
    if (room := longest - task.fixed) < 1:
        raise UserError(
            f"{where}.max_tokens is {settings.max_tokens}, pattern and label alone take {settings.max_tokens - room}; "
            "raise max_tokens or shorten the pattern"
        )
    return Cloze(task.spec.model_copy(update={"max_prompt_tokens": longest}), context.tokenizer)


def of(spec: TaskSpec, tokenizer: Tokenizer) -> "Cloze":
    """The task of a trained model."""
    if spec.max_prompt_tokens is None:  # a folder of version 1
        spec = spec.model_copy(update={"max_prompt_tokens": longest_prompt(Cloze(spec, tokenizer))})
    return Cloze(spec, tokenizer)


def longest_prompt(task: "Cloze") -> int:
    """The most tokens of a prompt that leave room for every label's word."""
    assert task.spec.max_tokens is not None
    return task.spec.max_tokens - max(map(len, task.words)) + 1


class Cloze(Labelling):
    """Cross-entropy over the words of the labels."""

    def __init__(self, spec: TaskSpec, tokenizer: Tokenizer) -> None:
        super().__init__(spec, tokenizer)
        assert spec.pattern is not None
        assert spec.verbalizers is not None
        self.words = [tokenizer.encode(spec.verbalizers[label]) for label in self.labels]
        """Token ids of each label's word."""
        before, after = spec.pattern.removesuffix("{label}").split("{text}")
        self._before, self._after = [tokenizer.end_of_text, *tokenizer.encode(before)], tokenizer.encode(after)

    @property
    def fixed(self) -> int:
        """Tokens of a prompt without its text."""
        return len(self._before) + len(self._after)

    def prompt(self, request: Request) -> list[int]:
        """Ids of the prompt up to the label; a long text loses its middle, the pattern stays whole."""
        assert self.spec.max_prompt_tokens is not None
        text = without_middle(self.tokenizer.encode(request.text), self.spec.max_prompt_tokens - self.fixed)
        return [*self._before, *text, *self._after]

    def class_scores(self, model: GPT, inputs_BT: Tensor, lengths_B: Tensor) -> Tensor:
        """scores_BC: log p(word of the class | prompt)."""
        return class_scores(model, self.words, inputs_BT, lengths_B)


def class_scores(model: GPT, words: Sequence[Sequence[int]], inputs_BT: Tensor, lengths_B: Tensor) -> Tensor:
    """log p(word of the class | prompt), [B, C], float32; one pass if every word is one token, else one per class."""
    rows_B = torch.arange(len(inputs_BT), device=inputs_BT.device)
    if all(len(word) == 1 for word in words):
        logits_BV = model.logits(model.hidden(inputs_BT)[rows_B, lengths_B - 1])
        return logits_BV.float().log_softmax(-1)[:, [word[0] for word in words]]
    scores = []
    for word in words:
        ids_BT = F.pad(inputs_BT, (0, len(word) - 1))
        for k, token in enumerate(word[:-1]):
            ids_BT[rows_B, lengths_B + k] = token
        at_BK = lengths_B[:, None] - 1 + torch.arange(len(word), device=inputs_BT.device)
        logits_BKV = model.logits(model.hidden(ids_BT)[rows_B[:, None], at_BK])
        target_K = torch.tensor(word, device=inputs_BT.device)
        scores.append(logits_BKV.float().log_softmax(-1)[:, torch.arange(len(word)), target_K].sum(1))
    return torch.stack(scores, dim=1)
