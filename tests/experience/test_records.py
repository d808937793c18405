"""Records: batches with the columns of the loss, aligned with the targets."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.experience import batch_of, ranks_share
from tests.learners import chat_learner, classifier, records


def parts(learner: Any, **more: Any) -> Any:
    from pipeline.config.recipe import Schedule
    from pipeline.ordering.shuffled import Shuffled

    schedule = Schedule(
        shape="constant", steps=2, warmup_steps=0, final_share=1.0, accumulate=2, batch_warmup_steps=0, clip_norm=0.0
    )
    return SimpleNamespace(task=learner.task, ordering=Shuffled(3), schedule=schedule, seed=1)


def test_batch_of_gives_columns_cut_or_filled_to_the_width_of_the_batch() -> None:
    """Column values stay at their positions: position t belongs to the prediction of token t + 1."""
    learner = chat_learner()
    width = max(len(learner.examples[i][0]) for i in range(2)) - 1
    wide = torch.arange(2 * (width + 3)).reshape(2, -1).float()
    columns = {"wide": wide, "narrow": wide[:, :4], "number": torch.tensor([7.0, 8.0])}
    batch = batch_of(learner.model, learner.task, learner.examples, np.array([1, 0]), columns)
    assert batch["rows"].tolist() == [1, 0]
    assert torch.equal(batch["wide"], wide[[1, 0], :width])
    assert torch.equal(batch["narrow"][:, :4], wide[[1, 0], :4])
    assert float(batch["narrow"][:, 4:].abs().sum()) == 0
    assert batch["narrow"].shape == batch["targets"].shape
    assert batch["number"].tolist() == [8.0, 7.0]


def test_batch_of_keeps_columns_of_tasks_without_positions() -> None:
    learner = classifier()
    column = torch.arange(12.0).reshape(6, 2)
    batch = batch_of(learner.model, learner.task, learner.examples, np.array([2, 5]), {"soft": column})
    assert torch.equal(batch["soft"], column[[2, 5]])


def test_batch_of_refuses_a_column_with_the_name_of_a_tensor_of_the_task() -> None:
    learner = classifier()
    with pytest.raises(ValueError, match="column 'targets' of the loss has the name of a tensor of the task"):
        batch_of(learner.model, learner.task, learner.examples, np.array([0]), {"targets": torch.zeros(6)})


@pytest.mark.parametrize("world", [1, 2, 4])
def test_ranks_share_a_micro_batch_without_loss_or_repeat(world: int) -> None:
    rows = np.array([4, 1, 3, 0, 2])
    assert np.concatenate([ranks_share(rows, rank, world) for rank in range(world)]).tolist() == rows.tolist()


def test_records_of_all_ranks_are_those_of_one_process() -> None:
    learner = classifier()
    experience = records(learner.model, parts(learner), learner.examples)
    whole = [batch.rows.tolist() for batch in experience.batches(1)]
    assert len(whole) == 2
    shares = [[batch.rows.tolist() for batch in experience.batches(1, rank, 2)] for rank in (0, 1)]
    assert [first + second for first, second in zip(*shares, strict=True)] == whole
    assert experience.problem({"scores": torch.zeros(1)}) == "it has scores, which is not part of this run"
    assert (experience.memory, experience.figures, experience.problem({})) == ({}, {}, None)
