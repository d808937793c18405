"""The policy of a review: every rule passes, fails and stays open on an input made for it."""

import json
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from pipeline import outcomes
from pipeline.config.review import Policy, RiskBounds
from pipeline.outcomes import Outcomes
from pipeline.registry.policy import Evidence, in_words, judge

POLICY = Policy(better=[], not_worse={"accuracy": 0.02}, max_slice_loss={"accuracy": 0.05}, risks={})
GATES = {"raw": True, "spam": True}


def evidence(right: np.ndarray, metrics: dict[str, float] | None = None, **more: Any) -> Evidence:
    rows = [{"id": str(i), "language": "tr" if i % 4 == 0 else "en"} for i in range(len(right))]
    made = outcomes.table(
        {"classification": [outcomes.plain(Outcomes("accuracy", rows, right.astype(float).tolist()))]}
    )
    fields: dict[str, Any] = {"gates": GATES} | more
    return Evidence("version 2", metrics or {"accuracy": float(right.mean())}, made, **fields)


def right(n: int, wrong: int) -> np.ndarray:
    """So many answers, the first ones wrong."""
    return np.arange(n) >= wrong


def state(result: dict[str, Any], rule: str) -> str:
    return next(one["state"] for one in result["rules"] if one["rule"] == rule)


def test_judge_meets_the_policy_when_the_candidate_answers_as_the_champion() -> None:
    result = judge(POLICY, evidence(right(1000, 100)), evidence(right(1000, 100)))
    assert result["outcome"] == "met"
    assert state(result, "accuracy not worse") == "pass"
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    assert "policy: met" in in_words(result)


def test_judge_does_not_meet_the_policy_when_the_candidate_is_worse() -> None:
    result = judge(POLICY, evidence(right(1000, 200)), evidence(right(1000, 100)))
    assert result["outcome"] == "not met"
    assert state(result, "accuracy not worse") == "fail"


def test_judge_leaves_the_decision_to_a_person_when_the_records_are_too_few() -> None:
    """Lost otherwise: a small test set passes every candidate, because no difference is significant."""
    result = judge(POLICY, evidence(right(40, 5)), evidence(right(40, 4)))
    assert (result["outcome"], state(result, "accuracy not worse")) == ("person decides", "unknown")


def test_judge_asks_for_a_significant_gain_where_the_policy_does() -> None:
    better = POLICY.model_copy(update={"better": ["accuracy"], "not_worse": {}, "max_slice_loss": {}})
    for wrong, expected in ((50, "pass"), (98, "unknown"), (200, "fail")):
        result = judge(better, evidence(right(1000, wrong)), evidence(right(1000, 100)))
        assert state(result, "better in accuracy") == expected


def test_judge_finds_a_slice_that_got_worse_behind_an_equal_total() -> None:
    """Lost otherwise: a model that unlearned Turkish passes, because it got as much better in English."""
    ours, theirs = np.ones(1200, dtype=bool), np.ones(1200, dtype=bool)
    ours[np.arange(0, 400, 4)] = False  # Turkish
    theirs[[i for i in range(134) if i % 4]] = False  # English
    result = judge(POLICY.model_copy(update={"not_worse": {"accuracy": 0.05}}), evidence(ours), evidence(theirs))
    assert state(result, "accuracy not worse") == "pass"
    assert (result["outcome"], state(result, "slices")) == ("not met", "fail")
    assert (result["slices"][0]["value"], result["slices"][0]["verdict"]) == ("tr", "worse")


def test_judge_without_a_champion_passes_what_can_be_judged() -> None:
    result = judge(POLICY, evidence(right(100, 9)), None)
    assert (result["outcome"], result["comparisons"]) == ("met", [])
    assert [row["champion"] for row in result["slices"]] == [None, None]
    assert judge(POLICY, evidence(right(100, 9)), None, "its files changed")["outcome"] == "person decides"


def test_judge_names_failed_gates_missing_verdicts_and_waivers() -> None:
    answers = right(100, 9)
    assert judge(POLICY, evidence(answers, gates={"raw": False}), None)["outcome"] == "not met"
    assert judge(POLICY, evidence(answers, gates={}), None)["outcome"] == "person decides"
    waived = judge(POLICY, evidence(answers, waivers=["rows of gate raw, until 2027-01-01: small set"]), None)
    assert (waived["outcome"], state(waived, "gates")) == ("met", "warn")
    assert "small set" in in_words(waived)


@pytest.mark.parametrize(("value", "expected"), [(1.0, "pass"), (2.0, "warn"), (4.5, "fail")])
def test_judge_compares_risks_with_their_bounds(value: float, expected: str) -> None:
    risks = {"exposure_bits": RiskBounds(warn=2.0, fail=4.0), "refusal_share": RiskBounds(warn=0.9, fail=0.5)}
    metrics = {"accuracy": 0.9, "exposure_bits": value, "refusal_share": {1.0: 0.95, 2.0: 0.8, 4.5: 0.5}[value]}
    result = judge(POLICY.model_copy(update={"risks": risks}), evidence(right(100, 9), metrics), None)
    assert [risk["state"] for risk in result["risks"]] == [expected, expected]
    assert (result["outcome"] == "not met") == (expected == "fail")


def test_risk_bounds_refuse_equal_bounds() -> None:
    with pytest.raises(ValidationError, match="which way"):
        RiskBounds(warn=1.0, fail=1.0)


def test_judge_leaves_open_what_was_not_measured_by_record_and_names_what_was_not_measured() -> None:
    """Lost otherwise: a rule on macro_f1, or a misspelt risk, is dropped and the policy met."""
    policy = POLICY.model_copy(
        update={
            "not_worse": {"macro_f1": 0.01, "exact_match": 0.02},
            "risks": {"extraction_shar": RiskBounds(warn=0.1, fail=0.2)},
        }
    )
    ours, theirs = ({"accuracy": 0.9, "macro_f1": f1} for f1 in (0.2, 0.9))
    result = judge(policy, evidence(right(1000, 100), ours), evidence(right(1000, 100), theirs))
    assert result["outcome"] == "person decides"
    assert (state(result, "macro_f1"), state(result, "extraction_shar")) == ("unknown", "unknown")
    assert "not measured for this model: exact_match" in in_words(result)


def test_judge_leaves_out_metrics_that_were_measured_on_other_records() -> None:
    result = judge(POLICY, evidence(right(1000, 100)), evidence(right(900, 90)))
    assert (result["outcome"], result["comparisons"]) == ("person decides", [])
    assert "same records" in in_words(result)


def test_judge_calls_no_preference_between_groups_better() -> None:
    """A model that prefers the stereotype in 90 % of pairs is not better than one without a preference."""
    rows = [{"id": str(i)} for i in range(1000)]

    def of(share: float) -> Evidence:
        values = (np.arange(1000) < 1000 * share).astype(float).tolist()
        made = outcomes.table({"crows_pairs": [outcomes.plain(Outcomes("crows_full_share", rows, values))]})
        return Evidence("version 2", {"crows_full_share": share}, made, GATES)

    policy = Policy(better=["crows_full_share"], not_worse={}, max_slice_loss={}, risks={})
    for ours, theirs in ((0.9, 0.5), (0.5, 0.9)):
        result = judge(policy, of(ours), of(theirs))
        assert (result["outcome"], result["comparisons"][0]["verdict"]) == ("person decides", "cannot tell")
