"""Reward model: a number for an answer to a prompt, the higher the better, learned from preferences.

A linear head with one output reads the hidden state of the token that ends the answer (Stiennon et al. 2020, section
3.4; Ouyang et al. 2022, section 3.5). The folder is a <Family>ForSequenceClassification with num_labels 1, as TRL's
RewardTrainer writes one. Prompt and answer are those of task `instruct`. A reward has no zero: only differences between
answers to one prompt mean anything.

A batch has 2B rows, the B chosen answers first. The task's own loss is that of Bradley and Terry: -ln p(chosen is
better) = -ln sigmoid(reward of chosen - reward of rejected).
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from pipeline.config.section import Positive, Section
from pipeline.contracts import Batch, Predictions
from pipeline.errors import UserError
from pipeline.model import shared_prompts
from pipeline.model.gpt import GPT
from pipeline.model.library import LibraryModel
from pipeline.prompts import examples, templates
from pipeline.prompts.vocabulary import without_middle
from pipeline.tasks import Reason, Request, ScoringHead, TaskContext, TaskSpec, answering_spec, padded
from pipeline.tokenizer import Tokenizer


class Settings(Section):
    """Prompt template and length limits."""

    reads: ClassVar[frozenset[str]] = frozenset({"preferences"})
    head: ClassVar[str] = "scalar"
    emits: ClassVar[str] = "pairs"
    form: ClassVar[str] = "pairs"
    template: Literal["chat", "alpaca", "model"] = Field(examples=["chat", "alpaca"])
    """As of `instruct`; a model that was tuned on instructions keeps its template."""
    max_tokens: Positive = Field(examples=[64])
    """Longest prompt with its answer in tokens; at most the model's context_length."""
    max_prompt_tokens: Positive = Field(examples=[54])
    """Longest prompt in tokens; a longer one is cut."""


def build(settings: Settings, context: TaskContext) -> "Reward":
    """The task of these settings. Raises UserError for limits or a template that do not fit."""
    return Reward(answering_spec("reward", settings, context), context.tokenizer)


def of(spec: TaskSpec, tokenizer: Tokenizer) -> "Reward":
    """The task of a trained model."""
    return Reward(spec, tokenizer)


class Reward(ScoringHead):
    """Scores of answers."""

    def prompt(self, request: Request) -> list[int]:
        """Ids of the prompt and of the answer to score; a long answer loses its middle, never its end.

        Raises:
            UserError: a request without an answer.
        """
        if request.answer is None:
            raise UserError(
                f"{request.text[:60]!r} comes without an answer, and this is a reward model: it scores an answer to a "
                "prompt; give `answer` beside the text"
            )
        assert self.spec.template is not None
        assert self.spec.max_tokens is not None
        assert self.spec.max_prompt_tokens is not None
        asked = templates.prompt(self.tokenizer, self.spec.template, request, self.spec.max_prompt_tokens).ids
        answer = templates.answer(self.tokenizer, self.spec.template, request.answer)
        room = self.spec.max_tokens - len(asked) - 1
        return [*asked, *without_middle(answer[:-1], room), answer[-1]]

    def target(self, record: Mapping[str, Any]) -> Reason:
        """No record has a target of its own: a pair tells which of two answers is better."""
        return Reason("not_a_number", f"record {record.get('id')} is a pair, which gives no reward to an answer")

    def example(self, record: Mapping[str, Any]) -> Any:
        """Ids of the prompt with the chosen and with the rejected answer."""
        pair = examples.pair_example(self.tokenizer, self.spec, record)
        return pair if isinstance(pair, Reason) else [answer.ids for answer in pair]

    def collate(self, examples: Sequence[Any]) -> Batch:
        """inputs_ST padded on the right, lengths_S, shared_S (first ids that both answers of a pair have in common) and
        targets_S, which are 0 and not used; S = 2B: rows 0 to B-1 chosen, B to 2B-1 rejected.
        """
        rows = [pair[place] for place in (0, 1) for pair in examples]
        lengths_S = torch.tensor([len(row) for row in rows])
        return {
            "inputs": padded(rows, self.tokenizer.pad),
            "lengths": lengths_S,
            "shared": torch.tensor([shared(*pair) for pair in examples] * 2),
            "targets": torch.zeros_like(lengths_S),
        }

    def predictions(self, model: GPT, batch: Batch) -> Predictions:
        """Rewards of all answers, [2B, 1]; `rows_N` counts the 2B rows, `n_examples` the B pairs; targets are 0."""
        if isinstance(model, LibraryModel):
            scores_S1 = self.class_scores(model, batch["inputs"], batch["lengths"])
        else:  # what both answers begin with is computed once
            assert model.score is not None
            index_T = torch.arange(batch["inputs"].shape[1], device=batch["inputs"].device)
            last_ST = index_T == batch["lengths"][:, None] - 1
            scores_S1 = model.score(shared_prompts.hidden(model, batch["inputs"], last_ST, batch["shared"]))
        rows_S = torch.arange(len(scores_S1), device=scores_S1.device)
        return Predictions(scores_S1, batch["targets"], rows_S, len(rows_S) // 2)

    def losses_of(self, predictions: Predictions) -> Tensor:
        """losses_B of Bradley and Terry, nats."""
        chosen_B, rejected_B = predictions.scores_NC.float().squeeze(1).chunk(2)
        return -F.logsigmoid(chosen_B - rejected_B)

    def decisions(self, scores_NC: Tensor) -> Tensor:
        """rewards_N."""
        return scores_NC.squeeze(1)

    def answers(self, scores_NC: Tensor) -> list[dict[str, Any]]:
        """The `reward` of each answer."""
        return [{"reward": reward} for reward in scores_NC.squeeze(1).double().tolist()]

    def shown(self, answer: Mapping[str, Any]) -> str:
        """The reward."""
        return f"reward {answer['reward']:.6g}"


def shared(first: Sequence[int], second: Sequence[int]) -> int:
    """Number of ids with which both begin; the last one of the shorter is not counted."""
    most = min(len(first), len(second)) - 1
    return next((at for at in range(most) if first[at] != second[at]), most)
