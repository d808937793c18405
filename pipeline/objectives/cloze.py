"""Cloze (pattern-verbalizer) fine-tuning: the language model predicts the label as a word, so no new head is needed.

Schick & Schuetze 2021 (PET), section 3.1: a pattern turns the text into a prompt, a verbalizer maps each label to a
word, and the label's probability is the softmax over the labels' words only; meant for few examples (Gao et al. 2021).
A causal model predicts at the end, so a pattern ends with {label}. The score of a word of several tokens is the sum of
their log-probabilities.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from pipeline.config.section import Positive, Section
from pipeline.errors import UserError
from pipeline.model.gpt import GPT
from pipeline.objectives import Batch, Objective, ObjectiveContext, Predictions, padded, require_room


class Settings(Section):
    """Pattern, verbalizers and length limit."""

    pattern: str = Field(examples=["{text} It is{label}"])
    """Prompt with {text} once and {label} at its end: "{text} This message is{label}"."""
    verbalizers: dict[str, str] = Field(examples=[{"ham": "h", "spam": "s"}, {"ham": " message", "spam": " spam"}])
    """Label -> its word, with the leading space that it has in running text: " spam"."""
    max_tokens: Positive = Field(examples=[48])
    """Longest prompt with its label in tokens; at most the model's context_length."""


def build(settings: Settings, context: ObjectiveContext) -> "Cloze":
    """The objective for the labels of `context`.

    Raises:
        UserError: a pattern without {text} or {label}, verbalizers that do not name exactly the labels or are not
            distinct, or max_tokens that exceeds the context_length or leaves no room for a text.
    """
    where = "params.yaml: objective"
    counts = settings.pattern.count("{text}"), settings.pattern.count("{label}")
    if counts != (1, 1) or not settings.pattern.endswith("{label}"):
        raise UserError(
            f"{where}.pattern is {settings.pattern!r}; expected {{text}} once and {{label}} once, at the end"
        )
    if set(settings.verbalizers) != set(context.labels):
        raise UserError(
            f"{where}.verbalizers names {', '.join(sorted(settings.verbalizers)) or 'no label'}; the labels of the "
            f"data are {', '.join(context.labels) or 'none'}"
        )
    if len(set(settings.verbalizers.values())) < len(settings.verbalizers) or "" in settings.verbalizers.values():
        raise UserError(f"{where}.verbalizers are {settings.verbalizers}; expected a different word for each label")
    require_room(settings.max_tokens, context)
    objective = Cloze(settings, context)
    if (room := _parts(context.tokenizer, objective.task)[2]) < 1:
        raise UserError(
            f"{where}.max_tokens is {settings.max_tokens}, pattern and label alone take {settings.max_tokens - room}; "
            "raise max_tokens or shorten the pattern"
        )
    return objective


class Cloze(Objective):
    """Cross-entropy over the words of the labels."""

    def __init__(self, settings: Settings, context: ObjectiveContext) -> None:
        self.labels = list(context.labels)
        self.task: dict[str, Any] = {"objective": "cloze", "labels": self.labels} | settings.model_dump()
        self._tokenizer = context.tokenizer
        self._words = words(context.tokenizer, self.task)
        self._index = {label: i for i, label in enumerate(self.labels)}

    def prepare(self, model: GPT, _generator: torch.Generator) -> None:
        """Removes the classification head of a start model that has one."""
        model.score = None

    def example(self, record: Mapping[str, Any]) -> tuple[list[int], int]:
        """Ids of the prompt, and the class index."""
        if record["label"] not in self._index:
            raise UserError(
                f"{record['origin']}: label {record['label']!r} is not among the labels of the training split: "
                f"{', '.join(self.labels)}"
            )
        return read(self._tokenizer, self.task, record["text"]), self._index[record["label"]]

    def collate(self, examples: Sequence[tuple[list[int], int]]) -> Batch:
        """inputs_BT padded on the right, lengths_B, targets_B."""
        rows = [ids for ids, _ in examples]
        return {
            "inputs": padded(rows, self._tokenizer.pad),
            "lengths": torch.tensor([len(row) for row in rows]),
            "targets": torch.tensor([target for _, target in examples]),
        }

    def predictions(self, model: GPT, batch: Batch) -> Predictions:
        """The scores of the labels' words for every text."""
        scores_BC = class_scores(model, self._words, batch["inputs"], batch["lengths"])
        rows_B = torch.arange(len(scores_BC), device=scores_BC.device)
        return Predictions(scores_BC, batch["targets"], rows_B, len(scores_BC))


def words(tokenizer: Any, task: Mapping[str, Any]) -> list[list[int]]:
    """Token ids of each label's word, in the order of the labels."""
    return [tokenizer.encode(task["verbalizers"][label]) for label in task["labels"]]


def read(tokenizer: Any, task: Mapping[str, Any], text: str) -> list[int]:
    """Ids of the prompt up to the label; a long text loses its middle, the pattern stays whole."""
    first, last, room = _parts(tokenizer, task)
    ids = tokenizer.encode(text)
    if len(ids) > room:
        head = room // 2
        ids = ids[:head] + ids[len(ids) - (room - head) :]
    return [*first, *ids, *last]


def _parts(tokenizer: Any, task: Mapping[str, Any]) -> tuple[list[int], list[int], int]:
    """Ids before the text, ids after it, and the largest number of tokens of the text."""
    before, after = task["pattern"].removesuffix("{label}").split("{text}")
    first, last = [tokenizer.end_of_text, *tokenizer.encode(before)], tokenizer.encode(after)
    return first, last, task["max_tokens"] - len(first) - len(last) - max(map(len, words(tokenizer, task))) + 1


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
