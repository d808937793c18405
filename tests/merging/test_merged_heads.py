"""Tasks with heads in a merged model: one task a head, thresholds of the scores that they were chosen on."""

import pytest

from pipeline.errors import UserError
from pipeline.merging import merged_tasks
from pipeline.prompts.spec import TaskSpec
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
