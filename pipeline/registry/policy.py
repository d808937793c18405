"""The policy's result for a candidate: its rules, the comparison with the champion, slices and risks, as plain JSON.

    outcome   met, not met, or person decides: no rule fails, but chance or a missing figure leaves one open
    rules     each with its state (pass, warn, fail, unknown), a sentence, and the key and values of that sentence,
              from which a page says it in its language (pipeline.reporting.rules)
    comparisons, slices, risks   the figures behind the rules

The rule `not worse` is one of non-inferiority: the interval of the difference must lie above the margin, so a
comparison with too few records is open, not passed (Piaggio et al. 2012).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from pipeline import comparison, outcomes
from pipeline.comparison import Compared
from pipeline.config.review import Policy
from pipeline.outcomes import direction, lower_is_better
from pipeline.reporting import rules as in_language
from pipeline.reporting.risks import judged
from pipeline.reporting.wording import load

Rule = dict[str, Any]


@dataclass(frozen=True)
class Evidence:
    """The results of one model's evaluation."""

    name: str
    """The version in words, `version 3`."""
    metrics: Mapping[str, float]
    outcomes: pa.Table
    """By record (pipeline.outcomes)."""
    gates: Mapping[str, bool] = field(default_factory=dict)
    """Gate -> whether it passed."""
    waivers: Sequence[str] = ()
    """Expectations that passed by a waiver only, in words."""


def judge(policy: Policy, candidate: Evidence, champion: Evidence | None, obstacle: str = "") -> dict[str, Any]:
    """The result; JSON.

    Args:
        policy: the rules.
        candidate: the version under review.
        champion: the version in service, evaluated on the same records; None: there is none, or it could not be.
        obstacle: the reason why an existing champion could not be evaluated.
    """
    compared = comparison.compare(candidate.outcomes, champion.outcomes) if champion else []
    slices = _slices(policy, candidate, champion)
    risks = [
        {"metric": one.metric, "value": one.value, "warn": one.warn, "fail": one.fail, "state": one.state}
        for one in judged(candidate.metrics, policy.risks)
    ]  # fmt: skip
    rules = [*_gate_rules(candidate), *_champion_rules(policy, candidate, champion, compared, obstacle)]
    rules += [*_slice_rules(policy, slices), *_risk_rules(risks)]
    states = {rule["state"] for rule in rules}
    return {
        "outcome": "not met" if "fail" in states else "person decides" if "unknown" in states else "met",
        "champion": champion.name if champion else "",
        "rules": rules,
        "comparisons": [{key: value for key, value in vars(one).items() if key != "p_value"} for one in compared],
        "slices": slices,
        "risks": risks,
    }


def in_words(result: Mapping[str, Any]) -> str:
    """The result as lines of text."""
    lines = [f"policy: {result['outcome']}"]
    lines += [f"  {rule['state']:<8}{rule['rule']}: {rule['sentence']}" for rule in result["rules"]]
    for one in result["comparisons"]:
        interval = f"{one['difference']:+.4g} ({one['low']:+.4g} to {one['high']:+.4g})"
        lines.append(
            f"  {one['metric']}: {one['candidate']:.4g} beside {one['champion']:.4g}, difference {interval}, "
            f"{one['verdict']}; of {one['records']:,} records, "
            f"{one['detectable']:.3g} would be found in 80 %"
        )
    return "\n".join(lines)


def _gate_rules(candidate: Evidence) -> list[Rule]:
    failed = [gate for gate, passed in candidate.gates.items() if not passed]
    if failed:
        return [_rule("gates", "fail", "gates failed", gates=", ".join(failed))]
    if not candidate.gates:
        return [_rule("gates", "unknown", "gates unknown")]
    if candidate.waivers:
        return [_rule("gates", "warn", "gates waived", waivers="; ".join(candidate.waivers))]
    return [_rule("gates", "pass", "gates passed", gates=", ".join(candidate.gates))]


def _champion_rules(
    policy: Policy, candidate: Evidence, champion: Evidence | None, compared: Sequence[Compared], obstacle: str
) -> list[Rule]:
    if champion is None:
        if obstacle:
            return [_rule("champion", "unknown", "champion obstacle", obstacle=obstacle)]
        return [_rule("champion", "pass", "champion none")]
    named = list(dict.fromkeys([*policy.better, *policy.not_worse, *policy.max_slice_loss]))
    wanted = [name for name in named if name in candidate.metrics or name in champion.metrics]
    if not wanted:
        return [_rule("champion", "unknown", "no values")]
    by_record = {metric for _, metric in outcomes.by_metric(candidate.outcomes)}
    rules = []
    if others := [name for name in named if name not in wanted]:
        rules.append(_rule("others", "pass", "not measured", metrics=", ".join(others)))
    for name in wanted:
        of_metric = [one for one in compared if one.metric == name]
        if direction(name) == "neither":
            rules.append(_rule("metric", "unknown", "no direction", metric=name))
            continue
        if not of_metric:
            of = "champion" if name in by_record else "candidate"
            rules.append(_rule("metric", "unknown", f"no {of} values", metric=name))
        rules += [_better(one) for one in of_metric if name in policy.better]
        rules += [_not_worse(one, policy.not_worse[name]) for one in of_metric if name in policy.not_worse]
    return rules


def _better(one: Compared) -> Rule:
    state = {"better": "pass", "worse": "fail"}.get(one.verdict, "unknown")
    known = {"metric": one.metric, "verdict": one.verdict}
    if state != "unknown":
        return _rule("better", state, "better", **known)
    return _rule("better", state, "better open", records=one.records, detectable=one.detectable, **known)


def _not_worse(one: Compared, margin: float) -> Rule:
    low, high = (-one.high, -one.low) if lower_is_better(one.metric) else (one.low, one.high)
    state = "pass" if low >= -margin else "fail" if high < -margin else "unknown"
    known = {"gain": (low + high) / 2, "low": low, "high": high, "margin": margin}
    return _rule("not worse", state, f"not worse {state}", metric=one.metric, **known)


def _slices(policy: Policy, candidate: Evidence, champion: Evidence | None) -> list[dict[str, Any]]:
    """Every slice of the policy's metrics beside the champion's, else alone, the worst first."""
    metrics = {*policy.not_worse, *policy.better, *policy.max_slice_loss}
    if champion is None:
        shown = [one for one in outcomes.slices(candidate.outcomes) if one.metric in metrics]
        ordered = sorted(shown, key=lambda one: -one.mean if lower_is_better(one.metric) else one.mean)
        return [
            {"measure": one.measure, "metric": one.metric, "dimension": one.dimension, "value": one.value,
             "records": one.records, "candidate": one.mean, "low": one.low, "high": one.high, "champion": None,
             "verdict": ""}
            for one in ordered
        ]  # fmt: skip
    both = comparison.compare_slices(candidate.outcomes, champion.outcomes, metrics)
    rows = [
        {"measure": one.measure, "metric": one.metric, "dimension": dimension, "value": value, "records": one.records,
         "candidate": one.candidate, "low": one.low, "high": one.high, "champion": one.champion, "verdict": one.verdict}
        for dimension, value, one in both
    ]  # fmt: skip
    return sorted(rows, key=_gain)


def _gain(row: Mapping[str, Any]) -> float:
    """Difference from the champion, positive where the candidate is better."""
    difference = float(row["candidate"] - row["champion"])
    return -difference if lower_is_better(row["metric"]) else difference


def _slice_rules(policy: Policy, slices: Sequence[Mapping[str, Any]]) -> list[Rule]:
    margins = policy.max_slice_loss
    slices = [row for row in slices if row["metric"] in margins and row["champion"] is not None]
    if not slices:
        return []
    beyond = [row for row in slices if _gain(row) < -margins[row["metric"]]]
    found = [row for row in beyond if row["verdict"] == "worse"]
    state = "fail" if found else "unknown" if beyond else "pass"
    named = [
        {key: row[key] for key in ("metric", "dimension", "value", "candidate", "champion", "records")}
        for row in (found or beyond or slices[:1])[:3]
    ]
    return [_rule("slices", state, f"slices {state}", most=dict(margins), slices=named)]


def _risk_rules(risks: Sequence[Mapping[str, Any]]) -> list[Rule]:
    return [
        _rule("metric", risk["state"], "risk unmeasured", metric=risk["metric"])
        if risk["value"] is None
        else _rule("metric", risk["state"], "risk", **{key: risk[key] for key in ("metric", "value", "warn", "fail")})
        for risk in risks
    ]


def _rule(kind: str, state: str, key: str, **values: Any) -> Rule:
    """One rule, with its name and sentence in English: those that the ledger keeps."""
    rule = {"state": state, "kind": kind, "key": key, "values": values}
    return {"rule": in_language.name(rule, load()), "sentence": in_language.sentence(rule, load()), **rule}
