"""Rollouts: answers that the model draws itself while it is trained, in blocks of some updates (on-policy learning).

At the first update of a block the model answers `prompts` prompts `samples` times each, the recipe's judge scores the
answers, and the loss computes its columns (advantages, reference log-probabilities). The updates of the block learn
from this buffer, in the order of the recipe's sampler over it: `updates` times `schedule.accumulate` times
`ordering.batch_size` examples, so with 16 prompts, 8 samples and 4 updates a batch size of 32 is one pass over the
buffer, and of 64 two.

Prompts come in shuffled passes over the training records; none is lost or repeated within a pass. The answers of a
block are a function of (weights, seed, block), and the buffer is part of the saved training state.

Validation draws one answer to each held-out prompt, with the same random numbers every time. `validation_loss_nats` is
then the loss's own (`Loss.validate`), or minus the mean score. The tracker has the figures of
every block as block_<name>: reward, share of groups without spread, those of the loss.

Shapes: E rollouts of a block, prompts x samples; those of a group (one prompt) are consecutive.
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

import numpy as np
from pydantic import Field
from torch import Tensor

from pipeline import policy
from pipeline.config.section import Positive, Section
from pipeline.contracts import Batch, Examples, Judged, Rollout
from pipeline.data.shards import batch_rows
from pipeline.errors import UserError
from pipeline.experience import Context, Experience, HeldOut, MicroBatch, Rows, batch_of, micro_rows, ranks_share
from pipeline.experience.rollouts import buffer as buffers
from pipeline.experience.rollouts.buffer import Buffer
from pipeline.experience.rollouts.drawing import Draws, draw, steps
from pipeline.model.gpt import GPT
from pipeline.seeds import seed_for
from pipeline.tasks import IGNORED, Task

__all__ = ["Rollouts", "Settings", "build", "steps"]
_SHOWN = 60  # characters of a prompt or an answer in a message


class Settings(Section):
    """Size of a block and how answers are drawn."""

    prompts: Positive = Field(examples=[16])
    """Prompts of a block."""
    samples: Positive = Field(examples=[8])
    """Answers to each prompt."""
    updates: Positive = Field(examples=[4])
    """Updates that learn from a block before the next is drawn."""
    max_tokens: Positive = Field(examples=[8])
    """Longest answer in tokens."""
    temperature: float = Field(gt=0, examples=[1.0])
    """Temperature of the draws; log-probabilities and ratios are at this temperature."""


def build(settings: Settings, context: Context) -> "Rollouts":
    """The experience. Raises UserError for answers for which the model's context has no room."""
    room, longest = context.learner.model.room(), context.learner.task.spec.max_prompt_tokens or 0
    if longest + settings.max_tokens > room:
        raise UserError(
            f"params.yaml: experience.max_tokens is {settings.max_tokens} and task.max_prompt_tokens {longest}; the "
            f"model has room for {room} tokens together; lower either"
        )
    return Rollouts(settings, context)


class Rollouts(Experience):
    """Blocks of answers to the training prompts."""

    def __init__(self, settings: Settings, context: Context) -> None:
        learner = context.learner
        self.settings, self._context, self._learner = settings, context, learner
        self.examples = learner.examples
        self._task: Task = learner.task  # type: ignore[assignment]  # the whole task: prompts, end and text of answers
        self._buffer: Buffer | None = None
        self._columns: dict[str, Tensor] = {}
        self._figures: dict[str, float] = {}

    # -- blocks -------------------------------------------------------------------------------------------------------

    @property
    def size(self) -> int:
        """E."""
        return self.settings.prompts * self.settings.samples

    @property
    def sized(self) -> Examples:
        """Prompts of the first block with answers of the greatest length."""
        answer = [self._task.stop] * self.settings.max_tokens
        rows = np.repeat(self._prompts_of(0), self.settings.samples)
        prompts = [self.examples[int(row)].ids for row in rows]
        return [([*ids, *answer], [*[IGNORED] * len(ids), *answer]) for ids in prompts]

    def begin(self, model: GPT, number: int) -> None:
        """Fills the buffer at the first update of a block."""
        block = number // self.settings.updates
        if self._buffer is None or self._buffer.block != block:
            self._buffer = self._filled(model, block)
            self._columns = self._buffer.all_columns
            self._warn(self._buffer)

    def batches(self, number: int, rank: int = 0, world: int = 1) -> list[MicroBatch]:
        """The micro-batches of the update: rows of the buffer, in passes that begin with the block."""
        buffer = self._full()
        micro = self._context.micro
        first = micro(buffer.block * self.settings.updates).start
        numbers = range(micro(number).start - first, micro(number).stop - first)
        seed = seed_for(self._context.seed, "rollouts", buffer.block, "order")
        shares = [
            ranks_share(rows, rank, world) for rows in micro_rows(self._context.ordering, numbers, len(buffer), seed)
        ]
        return [self._micro_batch(buffer, rows) for rows in shares if len(rows)]

    def seen(self, updates: int) -> int:
        """Prompts of their blocks."""
        return -(-updates // self.settings.updates) * self.settings.prompts

    def _micro_batch(self, buffer: Buffer, rows: Rows) -> MicroBatch:
        return MicroBatch(rows, lambda: batch_of(self._learner.model, self._task, buffer, rows, self._columns))

    def _full(self) -> Buffer:
        if self._buffer is None:
            raise ValueError("the buffer is empty; call begin first")
        return self._buffer

    def _prompts_of(self, block: int) -> Rows:
        """Numbers of the prompts of a block among the training examples."""
        seed = seed_for(self._context.seed, "rollouts", "prompts")
        return batch_rows(len(self.examples), self.settings.prompts, block, seed)

    def _filled(self, model: GPT, block: int) -> Buffer:
        seed = seed_for(self._context.seed, "rollouts", block)
        buffer = self._drawn(model, self.examples, self._prompts_of(block), self.settings.samples, seed, block)
        texts = [rollout.text for rollout in buffer.rollouts]
        self._figures = {
            "reward": float(buffer.scores_E.double().mean()),
            "answer_tokens": sum(len(rollout.answer) for rollout in buffer.rollouts) / len(buffer),
            "ended_share": sum(rollout.ended for rollout in buffer.rollouts) / len(buffer),
            "empty_share": sum(not text.strip() for text in texts) / len(buffer),
            "groups_without_spread": len(buffer.without_spread()) / self.settings.prompts,
        } | getattr(self._context.loss, "figures", {})
        return buffer

    def _drawn(  # noqa: PLR0913 - everything that decides the answers
        self, model: GPT, examples: Examples, rows: Rows, samples: int, seed: int, block: int
    ) -> Buffer:
        """Answers to the prompts of these examples, with scores and the columns of the loss."""
        settings = self.settings
        prompts = [examples[int(row)] for row in rows]
        draws = Draws(samples, settings.max_tokens, settings.temperature, seed)
        answers = draw(model, self._task, [prompt.ids for prompt in prompts], draws, self._learner.compute)
        rollouts = []
        for place, answer in enumerate(answers):
            group = place // samples
            logprobs = answer.logprobs or (0.0,) * len(answer.ids)
            rollouts.append(self._rollout(prompts[group], answer.ids, logprobs, answer.ended, group))
        records_E = np.repeat(rows, samples)
        buffer = Buffer(block, rollouts, records_E, self._scores(rollouts), settings.temperature, settings.max_tokens)
        if any(answer.logprobs is None for answer in answers):
            buffer.rollouts = self._with_logprobs(model, buffer)
        buffer.columns = self._context.loss.columns(model, buffer)
        return buffer

    def _rollout(
        self, prompt: Any, ids: tuple[int, ...], logprobs: tuple[float, ...], ended: bool, group: int
    ) -> Rollout:
        text = self._task.answer(self._task.tokenizer.decode(list(ids[:-1] if ended else ids)))
        return Rollout(prompt.record, tuple(prompt.ids), ids, logprobs, text, ended, group)

    def _with_logprobs(self, model: GPT, buffer: Buffer) -> list[Rollout]:
        """The rollouts with the log-probabilities that the training forward gives them."""
        training = model.training
        model.eval()
        drawn = policy.Drawn(cast(policy.Buffer, buffer))
        logprobs_ET = drawn.computed(self._learner, policy.model_logprobs(model, self.settings.temperature))
        model.train(training)
        found = []
        for row, rollout in enumerate(buffer.rollouts):
            values_A = logprobs_ET[row, drawn.mask_ET[row]]
            found.append(rollout._replace(logprobs=tuple(values_A.tolist())))
        return found

    def _scores(self, rollouts: Sequence[Rollout]) -> Tensor:
        """scores_E of the judge.

        Raises:
            UserError: no judge, or a score that is no finite number.
        """
        judge = self._learner.judge
        if judge is None:
            raise UserError(f"{self._context.where}: rollouts need a judge, and pretraining has none")
        scores_E = judge.scores([Judged(one.record, one.prompt, one.answer, one.text) for one in rollouts])
        if scores_E.shape != (len(rollouts),):
            raise UserError(
                f"params.yaml: {self._context.where}.judge gives scores of shape {list(scores_E.shape)} to "
                f"{len(rollouts)} answers; expected one score an answer"
            )
        scores_E = scores_E.detach().float().cpu()
        for rollout, score in zip(rollouts, scores_E.tolist(), strict=True):
            if not np.isfinite(score):
                raise UserError(
                    f"params.yaml: {self._context.where}.judge scores an answer to {_shown(rollout)} with {score}; "
                    f"expected a finite number; the answer is {rollout.text[:_SHOWN]!r}"
                )
        return scores_E

    def _warn(self, buffer: Buffer) -> None:
        """Names prompts that teach nothing."""
        empty, flat, groups = buffer.without_text(), buffer.without_spread(), self.settings.prompts
        where = f"{self._context.where}: block {buffer.block}"
        if empty:
            print(
                f"warning: {where}: {len(empty)} of {groups} prompts got only empty answers, the first "
                f"{_shown(buffer.rollouts[empty[0]])}; look at the start model's answers",
                file=sys.stderr,
            )
        if self._context.compares_samples and self.settings.samples > 1 and len(flat) == groups:
            print(
                f"warning: {where}: the answers to each prompt all have one score, {float(buffer.scores_E[0]):.6g} for "
                f"{_shown(buffer.rollouts[0])}; the loss compares the answers to a prompt and learns nothing from it; "
                "raise experience.samples or temperature, or take another judge",
                file=sys.stderr,
            )

    # -- validation ---------------------------------------------------------------------------------------------------

    def held_out(self, model: GPT, examples: Examples, batches: int) -> HeldOut:
        """One answer to each of the first validation prompts, drawn by the same numbers at every call."""
        size = self._context.ordering.batch_size
        rows = np.arange(min(len(examples), batches * size))
        drawn = self._drawn(model, examples, rows, 1, seed_for(self._context.seed, "rollouts", "validation"), -1)
        reward = float(drawn.scores_E.double().mean())
        figures = {
            "loss": -reward,
            "reward": reward,
            "answer_tokens": sum(len(rollout.answer) for rollout in drawn.rollouts) / len(drawn),
            "ended_share": sum(rollout.ended for rollout in drawn.rollouts) / len(drawn),
        }
        return HeldOut(self._in_order(model, drawn, size), figures)

    def _in_order(self, model: GPT, drawn: Buffer, size: int) -> Iterator[Batch]:
        columns = drawn.all_columns
        for first in range(0, len(drawn), size):
            rows = np.arange(first, min(first + size, len(drawn)))
            yield batch_of(model, self._task, drawn, rows, columns)

    # -- the saved state ----------------------------------------------------------------------------------------------

    @property
    def memory(self) -> dict[str, Tensor]:
        """The buffer; empty before the first update."""
        return {} if self._buffer is None else self._buffer.tensors()

    def problem(self, memory: Mapping[str, Tensor]) -> str | None:
        """The reason why a saved buffer is not one of this run, or None."""
        return buffers.problem(memory, self.size, len(self.examples))

    def restore(self, memory: Mapping[str, Tensor]) -> None:
        """Takes over a saved buffer."""
        records_E = buffers.records_of(memory)
        rollouts = [
            self._rollout(self.examples[int(row)], ids, logprobs, ended, place // self.settings.samples)
            for place, (row, (ids, logprobs, ended)) in enumerate(
                zip(records_E, buffers.answers_of(memory), strict=True)
            )
        ]
        self._buffer = Buffer(
            int(memory["block"][0]), rollouts, records_E, memory["scores"], self.settings.temperature,
            self.settings.max_tokens, buffers.columns_of(memory),
        )  # fmt: skip
        self._columns = self._buffer.all_columns

    @property
    def figures(self) -> dict[str, float]:
        """Of the newest block: reward, answer_tokens, ended_share, empty_share, groups_without_spread, the loss's."""
        return self._figures


def _shown(rollout: Rollout) -> str:
    """A prompt in a message."""
    record = rollout.record
    asked = str(record.get("instruction") or record.get("text") or "")
    return f"record {record.get('id')} ({record.get('origin')}: {asked[:_SHOWN]!r})"
