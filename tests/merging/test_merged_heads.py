"""Tasks with heads in a merged model: one task a head, thresholds of the scores that they were chosen on."""

from pathlib import Path

import pytest
import torch

from pipeline.config.recipe import Merge
from pipeline.errors import UserError
from pipeline.merging import merge, merged_tasks
from pipeline.model import checkpoint
from pipeline.prompts.spec import TaskSpec
from tests.model import library_models
from tests.specs import SPAM, changed

NUMBER = TaskSpec(name="regress", mean=2.0, deviation=1.0, max_tokens=32, max_prompt_tokens=32)


def test_merged_tasks_drop_thresholds_that_were_chosen_on_the_scores_of_one_model() -> None:
    decided = changed(SPAM, thresholds={"ham": 0.7, "spam": 0.3}, decided_by="f1")
    (merged,) = merged_tasks([[decided], [SPAM]], "merge.both")
    assert (merged.thresholds, merged.decided_by) == (None, None)


def test_merged_tasks_refuse_two_tasks_that_need_the_same_head() -> None:
    """Lost otherwise: a head of probabilities would be averaged with one of a number."""
    with pytest.raises(UserError, match=r"differ in name \('classify' and 'regress'"):
        merged_tasks([[SPAM], [NUMBER]], "merge.both")
    with pytest.raises(UserError, match=r"differ in deviation"):
        merged_tasks([[NUMBER], [changed(NUMBER, deviation=3.0)]], "merge.both")
    assert merged_tasks([[NUMBER], [NUMBER]], "merge.both") == [NUMBER]


def test_merge_refuses_classifiers_that_transformers_computes(tmp_path: Path) -> None:
    """Lost otherwise: two classifiers of one BERT are said to have been tuned from another model."""
    library_models.written("bert", tmp_path / "base")
    for name, seed in (("first", 1), ("second", 2)):
        model = checkpoint.load(tmp_path / "base")
        model.add_score(2, torch.Generator().manual_seed(seed))
        checkpoint.save(model, tmp_path / name, labels=["ham", "spam"])
    chosen = Merge.model_validate(
        {"of": "base", "first": "first", "second": "second", "rule": {"name": "linear", "scales": [1.0, 1.0]}}
    )
    with pytest.raises(UserError, match=r"merge\.both: first is a classifier that transformers computes"):
        merge("both", chosen, tmp_path)
