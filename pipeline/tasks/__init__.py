"""Tasks: what a model is asked and answers, as training examples and as requests. Each file is one task.

A file has `build(settings, context) -> Task`, the task of a recipe, and `of(spec, tokenizer) -> Task`, the task of a
trained model from its folder's tohum.json. Training, evaluation, serving and chat take prompt and answer from here.

Shapes: B examples, T positions, N predicted positions of a batch, D model width, V vocabulary, C classes or outputs of
a head.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.config import plugins
from pipeline.contracts import IGNORED, Batch, Predictions, per_example
from pipeline.errors import UserError
from pipeline.model import shared_prompts
from pipeline.model.gpt import GPT
from pipeline.prompts import examples, templates, thresholds
from pipeline.prompts import spec as specs
from pipeline.prompts.examples import Reason
from pipeline.prompts.request import Request
from pipeline.prompts.spec import TaskSpec
from pipeline.prompts.vocabulary import without_middle
from pipeline.tokenizer import Tokenizer

__all__ = [
    "IGNORED",
    "Answering",
    "Batch",
    "Labelling",
    "Paired",
    "Predictions",
    "Reason",
    "Request",
    "Scoring",
    "ScoringHead",
    "Task",
    "TaskContext",
    "TaskSpec",
    "open_task",
    "open_tasks",
    "padded",
    "per_example",
    "predicted_tokens",
    "require_room",
    "require_room_for_text",
    "token_losses",
    "with_targets",
]


class TaskContext(NamedTuple):
    """Everything a task is built from besides its settings."""

    tokenizer: Tokenizer
    context_length: int
    """Of the model, in tokens."""
    labels: Sequence[str]
    """The distinct labels of the training split, sorted; empty if records have none."""
    where: str = "params.yaml: task"
    """The task's section of params.yaml, for errors."""
    label_cells: Sequence[str] = ()
    """The label column of the training split, a cell per record (pipeline/data/label_cells.py)."""


class Task(ABC):
    """Base class: the prompt and the answer of a task, its training examples and their loss."""

    spec: TaskSpec
    """What the trained model's folder remembers: labels, template, limits."""
    tokenizer: Tokenizer

    def __init__(self, spec: TaskSpec, tokenizer: Tokenizer) -> None:
        self.spec, self.tokenizer = spec, tokenizer

    @abstractmethod
    def prompt(self, request: Request) -> list[int]:
        """Ids of what the model reads before it answers, at most `spec.max_prompt_tokens`."""

    @abstractmethod
    def example(self, record: Mapping[str, Any]) -> Any:
        """One record as token ids, ready to collate, or the Reason why it makes no example."""

    @abstractmethod
    def collate(self, examples: Sequence[Any]) -> Batch:
        """Examples as tensors, padded to the longest of the batch."""

    @abstractmethod
    def predictions(self, model: GPT, batch: Batch) -> Predictions:
        """Scores and targets at every position that enters the loss."""

    def prepare(self, model: GPT, _generator: torch.Generator) -> None:
        """Adds the head that the task needs, or removes another; all randomness comes from the generator."""
        model.score = None

    @property
    def stop(self) -> int:
        """The id that ends an answer."""
        return self.tokenizer.end_of_text

    @property
    def opens(self) -> str:
        """The prefix of an answer's text, which is no part of the answer."""
        return ""

    def answer(self, text: str) -> str:
        """The answer in a generated text, or in the first piece of one that is longer than `opens`."""
        return text.removeprefix(self.opens)

    def losses(self, model: GPT, batch: Batch) -> Tensor:
        """losses_B: the mean of `losses_of` over each example's positions; 0 for an example without any."""
        return self.losses_of(self.predictions(model, batch))

    def losses_of(self, predictions: Predictions) -> Tensor:
        """losses_B of predictions: cross-entropy in nats, unless a task says otherwise."""
        return per_example(token_losses(predictions.scores_NC, predictions.targets_N), predictions)

    def decisions(self, scores_NC: Tensor) -> Tensor:
        """The answer at every position without thresholds, in the form of the targets: the likeliest choice."""
        return scores_NC.argmax(-1)

    def with_decision(self, _scores_NC: Tensor, _targets_N: Tensor) -> TaskSpec:
        """The spec with the decision thresholds that fit validation records best; the same without any to choose."""
        return self.spec


class Scoring(Task):
    """A task whose answer is read from scores at the end of the prompt: labels or a number."""

    @abstractmethod
    def target(self, record: Mapping[str, Any]) -> Any:
        """The target of a labelled record in the form that the loss takes, or the Reason why it has none."""

    @abstractmethod
    def class_scores(self, model: GPT, inputs_BT: Tensor, lengths_B: Tensor) -> Tensor:
        """scores_BC in the order of `spec.outputs`, before softmax or sigmoid, for prompts padded on the right."""

    @abstractmethod
    def answers(self, scores_NC: Tensor) -> list[dict[str, Any]]:
        """The answers in the form that the predictor, the registry and chat give, for float32 scores on the CPU."""

    @abstractmethod
    def shown(self, answer: Mapping[str, Any]) -> str:
        """One of `answers` as a line of text."""

    def example(self, record: Mapping[str, Any]) -> tuple[list[int], Any] | Reason:
        """Ids of the prompt, and the target."""
        target = self.target(record)
        return target if isinstance(target, Reason) else (self.prompt(Request(record["text"])), target)

    def collate(self, examples: Sequence[tuple[list[int], Any]]) -> Batch:
        """inputs_BT padded on the right, lengths_B, targets_B (multi_label: targets_BC)."""
        rows = [ids for ids, _ in examples]
        return {
            "inputs": padded(rows, self.tokenizer.pad),
            "lengths": torch.tensor([len(row) for row in rows]),
            "targets": torch.tensor([target for _, target in examples]),
        }

    def predictions(self, model: GPT, batch: Batch) -> Predictions:
        """The scores of every text."""
        scores_BC = self.class_scores(model, batch["inputs"], batch["lengths"])
        rows_B = torch.arange(len(scores_BC), device=scores_BC.device)
        return Predictions(scores_BC, batch["targets"], rows_B, len(scores_BC))


class Labelling(Scoring):
    """A task that answers with one of its labels."""

    def __init__(self, spec: TaskSpec, tokenizer: Tokenizer) -> None:
        super().__init__(spec, tokenizer)
        self.labels = list(spec.labels or ())

    def target(self, record: Mapping[str, Any]) -> int | Reason:
        """The class index."""
        return examples.label_index(self.labels, record)

    @property
    def thresholds(self) -> list[float] | None:
        """The decision thresholds in the order of `labels`; None: argmax."""
        chosen = self.spec.thresholds
        return None if chosen is None else [chosen[label] for label in self.labels]

    def with_decision(self, scores_NC: Tensor, targets_N: Tensor) -> TaskSpec:
        """The spec with the thresholds that have the highest macro-averaged F1, or the lowest mean cost."""
        if self.spec.decided_by is None:
            return self.spec
        true_N, n_labels = targets_N.numpy(), len(self.labels)
        costs_CC = thresholds.cost_matrix(self.spec.costs or {}, self.labels)

        def objective(answers_N: thresholds.Indices) -> float:
            if self.spec.decided_by == "cost":
                return -thresholds.mean_cost(true_N, answers_N, costs_CC)
            return thresholds.macro_f1(true_N, answers_N, n_labels)

        chosen = thresholds.for_one_label(scores_NC.double().softmax(-1).numpy(), objective)
        return self.spec.model_copy(update={"thresholds": dict(zip(self.labels, chosen, strict=True))})

    def indices(self, probabilities_NC: Tensor) -> list[int]:
        """The class index that is answered to each text, by the decision thresholds where there are some."""
        table_NC = np.asarray(probabilities_NC, np.float64)
        answered: list[int] = thresholds.answered(table_NC, self.thresholds).tolist()
        return answered

    def answers(self, scores_NC: Tensor) -> list[dict[str, Any]]:
        """`label`, its probability `score`, and the `probabilities` of all labels."""
        probabilities_NC = scores_NC.softmax(-1)
        return [
            {
                "label": self.labels[index],
                "score": row[index],
                "probabilities": dict(zip(self.labels, row, strict=True)),
            }
            for index, row in zip(self.indices(probabilities_NC), probabilities_NC.tolist(), strict=True)
        ]

    def shown(self, answer: Mapping[str, Any]) -> str:
        """The label with its probability."""
        return f"{answer['label']} ({answer['score']:.3f})"


class ScoringHead(Scoring):
    """A task with a linear head on the hidden state of the text's last token (transformers' `score`)."""

    def prompt(self, request: Request) -> list[int]:
        """Ids of the text between the vocabulary's own tokens ([CLS], [SEP]); without any after it, end-of-text.

        A long text loses its middle.
        """
        assert self.spec.max_tokens is not None
        before, after = around_text(self.tokenizer)
        most = self.spec.max_tokens - len(before) - len(after)
        return [*before, *without_middle(self.tokenizer.encode(request.text), most), *after]

    def prepare(self, model: GPT, generator: torch.Generator) -> None:
        """Adds a new `score` head unless the model already has one of as many outputs."""
        outputs = len(self.spec.outputs)
        if model.score is None or model.score.out_features != outputs:
            model.add_score(outputs, generator)

    def class_scores(self, model: GPT, inputs_BT: Tensor, lengths_B: Tensor) -> Tensor:
        """scores_BC of the head."""
        return model.classify(inputs_BT, torch.arange(inputs_BT.shape[1], device=inputs_BT.device) < lengths_B[:, None])


class Answering(Task):
    """A task that answers a question in a prompt template: next-token loss on answers, prompts masked out."""

    LEARNS_EARLIER: ClassVar[bool]
    """Whether the answers of earlier turns are learned too, or the last one alone."""

    @property
    def opens(self) -> str:
        """The prefix of an answer's text."""
        assert self.spec.template is not None
        return templates.opens(self.tokenizer, self.spec.template)

    @property
    def stop(self) -> int:
        """The id that ends an answer: end-of-text, or the folder's end of a turn with its own template."""
        assert self.spec.template is not None
        return templates.end_of_answer(self.tokenizer, self.spec.template)

    def prompt(self, request: Request) -> list[int]:
        """Ids of the conversation up to the answer."""
        assert self.spec.template is not None
        assert self.spec.max_prompt_tokens is not None
        return templates.prompt(self.tokenizer, self.spec.template, request, self.spec.max_prompt_tokens).ids

    def example(self, record: Mapping[str, Any]) -> tuple[list[int], list[int]] | Reason:
        """Ids of prompt and answer, and as many targets: the same ids in learned answers, IGNORED elsewhere."""
        example = examples.answer_example(self.tokenizer, self.spec, record, self.LEARNS_EARLIER)
        return example if isinstance(example, Reason) else with_targets(example)

    def collate(self, examples: Sequence[tuple[list[int], list[int]]]) -> Batch:
        """inputs_BT padded on the right, targets_BT IGNORED outside of learned answers."""
        inputs = padded([ids[:-1] for ids, _ in examples], self.tokenizer.pad)
        return {"inputs": inputs, "targets": padded([targets[1:] for _, targets in examples], IGNORED)}

    def predictions(self, model: GPT, batch: Batch) -> Predictions:
        """The tokens of every answer. Padding is on the right, so causal attention needs no padding mask."""
        return predicted_tokens(model, batch)


class Paired(Answering):
    """A task on one or two judged answers to a prompt: batches of S rows, the first answers of B examples, then the
    second ones.
    """

    LEARNS_EARLIER = False

    @abstractmethod
    def n_examples(self, batch: Batch) -> int:
        """B of a batch of S rows."""

    def collate(self, examples: Sequence[Any]) -> Batch:
        """inputs_ST padded on the right, targets_ST IGNORED outside of the answers; row s belongs to example s % B."""
        return super().collate([answers[place] for place in range(len(examples[0])) for answers in examples])

    def predictions(self, model: GPT, batch: Batch) -> Predictions:
        """The tokens of all answers: `rows_N` counts the S rows, `n_examples` the B examples. What the prompts of both
        answers have in common is computed once.
        """
        kept_ST = batch["targets"] != IGNORED
        scores_NC = model.logits(shared_prompts.hidden(model, batch["inputs"], kept_ST))
        return Predictions(scores_NC, batch["targets"][kept_ST], torch.nonzero(kept_ST)[:, 0], self.n_examples(batch))

    def losses_of(self, predictions: Predictions) -> Tensor:
        """losses_B: mean cross-entropy of the first answers, nats."""
        first_N = predictions.rows_N < predictions.n_examples
        scores_NC, targets_N, rows_N = (values_N[first_N] for values_N in predictions[:3])
        return super().losses_of(Predictions(scores_NC, targets_N, rows_N, predictions.n_examples))


def with_targets(example: examples.AnswerExample) -> tuple[list[int], list[int]]:
    """Ids, and as many targets: the same ids in learned answers, IGNORED elsewhere."""
    return example.ids, [i if taught else IGNORED for i, taught in zip(*example, strict=True)]


def answering_spec(name: str, settings: Any, context: TaskContext) -> TaskSpec:
    """The spec of an `Answering` task with settings template, max_tokens and max_prompt_tokens.

    Raises:
        UserError: limits that exceed the context or leave no room for an answer or a question, or a template that the
            vocabulary cannot spell.
    """
    require_room(settings.max_tokens, context)
    limits = {"max_tokens": settings.max_tokens, "max_prompt_tokens": settings.max_prompt_tokens}
    if settings.max_prompt_tokens >= settings.max_tokens:
        raise UserError(
            f"{context.where}.max_prompt_tokens is {settings.max_prompt_tokens} and max_tokens {settings.max_tokens}, "
            "which leaves no room for an answer; lower max_prompt_tokens or raise max_tokens"
        )
    try:
        markers = templates.markers(context.tokenizer, settings.template)
    except UserError as error:
        raise UserError(f"{context.where}: {error}") from None
    if markers >= settings.max_prompt_tokens:
        raise UserError(
            f"{context.where}.max_prompt_tokens is {settings.max_prompt_tokens}, and the markers of template "
            f"{settings.template!r} alone take up to {markers} tokens; raise it"
        )
    return TaskSpec(name=name, template=settings.template, **limits)


def open_task(spec: TaskSpec, tokenizer: Tokenizer) -> Task:
    """The task of a trained model. Raises UserError for a task that this checkout does not have."""
    task: Task = plugins.load("tasks", spec.name).of(spec, tokenizer)
    return task


def open_tasks(folder: Path, tokenizer: Tokenizer, room: int) -> tuple[Task, ...]:
    """The tasks of a model folder, the one that it answers as first.

    Args:
        folder: of the model.
        tokenizer: its vocabulary.
        room: tokens of its context, virtual tokens left out.

    Raises:
        UserError: a damaged tohum.json, or an unknown task.
    """
    return tuple(open_task(spec.within(room), tokenizer) for spec in specs.read(folder))


def token_losses(scores_NC: Tensor, targets_N: Tensor) -> Tensor:
    """losses_N: cross-entropy in nats, float32 for scores of any precision."""
    return nn.functional.cross_entropy(scores_NC.float(), targets_N, reduction="none")


def around_text(tokenizer: Tokenizer) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The ids before and after a text whose head reads it: the vocabulary's own; without any after it, end-of-text."""
    return tokenizer.text_prefix, tokenizer.text_suffix or (tokenizer.end_of_text,)


def require_room_for_text(max_tokens: int, context: TaskContext) -> None:
    """Raises UserError if `max_tokens` exceeds context_length, or the tokens around a text leave no room for one."""
    require_room(max_tokens, context)
    if max_tokens <= (around := sum(map(len, around_text(context.tokenizer)))):
        raise UserError(
            f"{context.where}.max_tokens is {max_tokens}, and the vocabulary puts {around} tokens around every text, "
            f"which leaves no room for it; set max_tokens to {around + 1} or more"
        )


def require_room(max_tokens: int, context: TaskContext) -> None:
    """Raises UserError if `max_tokens` exceeds the model's context_length."""
    if max_tokens > context.context_length:
        raise UserError(
            f"{context.where}.max_tokens is {max_tokens}, the model's context_length is {context.context_length}; "
            "lower max_tokens"
        )


def padded(rows: Sequence[Sequence[int]], value: int) -> Tensor:
    """Rows of different lengths as one int64 tensor [B, longest], filled on the right with `value`."""
    longest = max(map(len, rows))
    return torch.tensor([[*row, *[value] * (longest - len(row))] for row in rows], dtype=torch.long)


def predicted_tokens(model: GPT, batch: Batch) -> Predictions:
    """Next-token scores at the positions whose target is not IGNORED; the language head runs on these only."""
    kept_BT = batch["targets"] != IGNORED
    rows_N = torch.nonzero(kept_BT)[:, 0]
    hidden_ND = model.hidden(batch["inputs"], wanted_BT=kept_BT)
    return Predictions(model.logits(hidden_ND), batch["targets"][kept_BT], rows_N, len(kept_BT))
