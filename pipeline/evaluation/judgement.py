"""Judgement: a model's sampled answers beside those of its reference, by a judge, by the truth, and by their KL.

The win rate is the share of pairs of answers to one prompt of which the model's has the higher score; equal scores
count half. The KL is that of sampled answers, per step over the whole vocabulary (pipeline/inference/divergence.py).
With a pool of the reference's answers, the best that any policy reaches at a KL stands beside it, and best-of-n
(pipeline/frontier.py). With `states`, the training states that were kept along the way are measured too.

The truth is a judge that no training saw: the hidden utility of the embedded world's requests.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from pydantic import Field

from pipeline import comparison, frontier, outcomes
from pipeline.config import plugins
from pipeline.config.recipe import Part
from pipeline.config.section import Count, Positive, Section
from pipeline.data.personal import mask
from pipeline.errors import UserError
from pipeline.evaluation import Measured, Subject, open_subject, records
from pipeline.inference.divergence import Divergences, divergences
from pipeline.inference.engine import RowSettings
from pipeline.inference.judged import Floats, Sampled, sample
from pipeline.inference.kept_weights import kept_updates, with_kept_weights
from pipeline.judges import Context, Judge
from pipeline.outcomes import Outcomes
from pipeline.seeds import seed_for

NUMBERS = (1, 4, 16, 64)
"""n of best-of-n, as far as the pool reaches."""
_BUDGETS = (0.25, 0.5, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 10.0)
_SHOWN = 4  # samples each of the largest losses, the smallest changes and the largest gains


class Settings(Section):
    """Prompts, reference, judges and sampling."""

    split: Literal["validation", "test"] = Field(examples=["test"])
    """Split of the records whose prompts are asked."""
    data: Literal["instructions", "preferences"] = Field(default="instructions", examples=["instructions"])
    """Kind of these records."""
    source: str | None = Field(default=None, examples=[None])
    """Only the records of this source of `download.sources`; null: all."""
    max_records: Positive | None = Field(examples=[3])
    """Ask the first so many distinct prompts; null: all."""
    parent: str | None = Field(examples=[None])
    """Reference: base, or a model that this one was trained from; null: none, and neither wins nor a KL."""
    judge: Part | None = Field(examples=[{"name": "rule", "reads": "models/base", "check": "exact_match"}])
    """A judge (pipeline/judges), such as the reward model that was learned from; null: none."""
    truth: Part | None = Field(default=None, examples=[None])
    """The judge that is right: `{name: world, ...}`, which no training should have seen; null: not known."""
    samples: Positive = Field(examples=[2])
    """Answers to each prompt."""
    pool: Count = Field(default=0, examples=[0])
    """Answers of the reference to each prompt, for best-of-n and the best possible reward at a KL; 0: neither."""
    budget_nats: float = Field(default=10.0, gt=0, examples=[10.0])
    """KL at which the best possible reward is stated."""
    states: bool = Field(default=False, examples=[False])
    """Measure the kept training states (the recipe's `states`) too: reward against KL along the training."""
    max_tokens: Positive = Field(examples=[8])
    """Longest answer in tokens."""
    temperature: float = Field(default=1.0, gt=0, examples=[1.0])
    """Divides the logits before softmax, of the model and the reference."""
    seed: int = Field(default=1, examples=[1])
    """Seed of the samples."""


class _Setting(NamedTuple):
    """Everything that the models of one measure share."""

    settings: Settings
    subject: Subject
    rows: list[dict[str, Any]]
    judges: dict[str, Judge]
    """`true` (the truth) and `judge`, as far as they are named."""

    def sampled(self, model: Any, samples: int, purpose: str) -> Sampled:
        how = RowSettings(
            self.settings.max_tokens, self.settings.temperature, seed=seed_for(self.settings.seed, purpose)
        )
        return sample(model, self.subject.answering("judgement"), self.rows, samples, how, self.subject.compute)

    def kl(self, model: Any, parent: Any, answers: Sampled) -> Divergences:
        return divergences(model, parent, answers.drawn, self.subject.compute, self.settings.temperature)

    def rewards(self, answers: Sampled) -> dict[str, Floats]:
        """Judge -> scores_PS."""
        return {name: answers.scores(judge) for name, judge in self.judges.items()}


def measure(settings: Settings, subject: Subject) -> Measured:
    """true_reward and judge_reward (means), true_win_rate and judge_win_rate against the parent with their 95 %
    intervals, kl_nats with its log-ratio estimate, answer_tokens, ended_share; with a pool best_possible_reward and
    best_possible_share, the model's reward as a share of it (not by a reward model, whose scores have no zero);
    details: wins, samples beside the parent's, best-of-n, the best possible by KL, and the states along the training.

    Raises:
        UserError: no prompts, neither judge nor truth, no parent where one is needed, or a judge that cannot score.
    """
    task = subject.answering("judgement")
    rows = _prompts(settings, subject)
    named = {"true": settings.truth, "judge": settings.judge}
    judges = {
        name: _opened(part, subject, task, "truth" if name == "true" else name) for name, part in named.items() if part
    }
    if not judges:
        raise UserError("neither judge nor truth is named; name one: a file of pipeline/judges")
    if settings.parent is None and (settings.pool or settings.states):
        raise UserError("pool and states need a reference; name a parent, or set pool to 0 and states to false")
    shared = _Setting(settings, subject, rows, judges)
    own = shared.sampled(subject.model, settings.samples, "own")
    rewards = shared.rewards(own)
    metrics = {f"{name}_reward": float(scores.mean()) for name, scores in rewards.items()}
    metrics |= {"judged_prompts": float(len(rows)), "answer_tokens": float(own.tokens.mean())}
    metrics["ended_share"] = float(own.ended.mean())
    by_record = [_outcome(f"{name}_reward", rows, scores.mean(axis=1)) for name, scores in rewards.items()]
    by_record.append(Outcomes("answer_tokens", rows, own.tokens.mean(axis=1).tolist()))
    if settings.parent is None:
        return Measured(metrics, {"samples": _shown(rows, own, rewards, None, {})}, tuple(by_record))
    parent = open_subject(settings.parent, subject.compute)
    beside = _beside(shared, parent, own, rewards)
    return Measured(metrics | beside.metrics, beside.details, (*by_record, *beside.outcomes))


def _beside(shared: _Setting, parent: Subject, own: Sampled, rewards: Mapping[str, Floats]) -> Measured:
    """Everything that needs the reference: wins, KL, samples before, best-of-n, the states along the training."""
    settings, rows = shared.settings, shared.rows
    theirs = shared.sampled(parent.model, max(settings.samples, settings.pool), "parent")
    pool = shared.rewards(theirs)
    before = {name: scores[:, : settings.samples] for name, scores in pool.items()}
    kl = shared.kl(shared.subject.model, parent.model, own)
    kl_P = kl.kl_nats.reshape(-1, settings.samples).mean(axis=1)
    metrics = {"kl_nats": float(kl_P.mean()), "kl_log_ratio_nats": float(kl.log_ratio_nats.mean()),
               "answer_tokens_parent": float(theirs.tokens.mean())}  # fmt: skip
    details: dict[str, Any] = {"parent": settings.parent, "kl_error_nats": _error(kl_P), "wins": {}}
    by_record = [Outcomes("kl_nats", rows, kl_P.tolist())]
    for name, scores in rewards.items():
        won = wins(scores, before[name])
        compared = win_interval(won, rows, f"{name}_win_rate")
        metrics |= {f"{name}_reward_parent": float(pool[name].mean()), f"{name}_win_rate": compared["rate"],
                    f"{name}_win_rate_low": compared["low"], f"{name}_win_rate_high": compared["high"]}  # fmt: skip
        details["wins"][name] = compared
        by_record.append(_outcome(f"{name}_win_rate", rows, won))
    details["samples"] = _shown(rows, own, rewards, theirs.first(settings.samples), before)
    if settings.pool:
        details["frontier"], more = _frontier(settings, pool, rewards)
        metrics |= more
    if settings.states:
        details["along"] = _along(shared, parent, {name: scores.mean(axis=1) for name, scores in pool.items()})
    return Measured(metrics, details, tuple(by_record))


def _outcome(metric: str, rows: Sequence[Mapping[str, Any]], values_P: Floats) -> Outcomes:
    """The outcomes of a metric whose name depends on the judge."""
    values = values_P.tolist()
    return {
        "true_reward": Outcomes("true_reward", rows, values), "judge_reward": Outcomes("judge_reward", rows, values),
        "true_win_rate": Outcomes("true_win_rate", rows, values),
        "judge_win_rate": Outcomes("judge_win_rate", rows, values),
    }[metric]  # fmt: skip


def _prompts(settings: Settings, subject: Subject) -> list[dict[str, Any]]:
    """The first record of every distinct prompt."""
    distinct: dict[tuple[str, str, str], dict[str, Any]] = {}
    for row in records(subject, settings.data, settings.split, settings.source):
        distinct.setdefault((row["instruction"], row["input"], str(row.get("history"))), row)
    if not distinct:
        raise UserError(
            f"data/samples/{settings.data}/{settings.split}.parquet has no records; raise split.{settings.split}"
        )
    return list(distinct.values())[: settings.max_records]


def _opened(part: Part, subject: Subject, task: Any, key: str) -> Judge:
    where = f"evaluations.{subject.name}.measures.judgement.{key}"
    build: Callable[[Any, Context], Judge] = plugins.load("judges", part.name).build
    return build(part.settings("judges", where), Context(subject.tokenizer, subject.compute, task, where))


def wins(ours_PS: Floats, theirs_PS: Floats) -> Floats:
    """wins_P: the share of pairs of answers in which ours has the higher score, equal ones counted half."""
    difference = ours_PS[:, :, None] - theirs_PS[:, None, :]
    return np.asarray((np.sign(difference).mean(axis=(1, 2)) + 1) / 2)


def win_interval(wins_P: Floats, rows: Sequence[Mapping[str, Any]], metric: str) -> dict[str, Any]:
    """rate, its 95 % interval low and high, and the verdict, by the paired comparison of all models: both sides' wins
    on the same records (pipeline/comparison.py).
    """
    sides = [
        outcomes.table({"judgement": [outcomes.plain(_outcome(metric, rows, side))]}) for side in (wins_P, 1 - wins_P)
    ]
    (one,) = comparison.compare(sides[0], sides[1])
    low, high = (1 + one.low) / 2, (1 + one.high) / 2
    return {"rate": one.candidate, "low": max(0.0, low), "high": min(1.0, high), "verdict": one.verdict,
            "p_value": one.p_value, "prompts": one.records}  # fmt: skip


def _error(values_P: Floats) -> float:
    """Standard error of a mean over prompts; 0 for one prompt."""
    return float(values_P.std(ddof=1) / np.sqrt(len(values_P))) if len(values_P) > 1 else 0.0


def _frontier(
    settings: Settings, pool: Mapping[str, Floats], rewards: Mapping[str, Floats]
) -> tuple[dict[str, Any], dict[str, float]]:
    """Best-of-n by each judge, and the best possible reward by KL; in the truth where it is known, else in the judge's.

    Returns:
        Details, and metrics.
    """
    value = "true" if "true" in pool else "judge"
    best_of = [
        {"by": judge, "n": n, "kl_nats": frontier.kl_of_best(n)}
        | {f"{name}_reward": float(frontier.best_of(n, pool[judge], pool[name]).mean()) for name in pool}
        for judge in pool
        for n in NUMBERS
        if n <= settings.pool
    ]
    budgets = sorted({*(budget for budget in _BUDGETS if budget < settings.budget_nats), settings.budget_nats})
    possible = [{"budget_nats": budget} | frontier.best_at(budget, pool[value])._asdict() for budget in budgets]
    best = float(possible[-1]["reward"])
    metrics = {"best_possible_reward": best}
    has_zero = value == "true" or (settings.judge is not None and settings.judge.name != "reward_model")
    if best > 0 and has_zero:  # of a reward model only differences mean anything
        metrics["best_possible_share"] = float(rewards[value].mean()) / best
    return {"in": value, "samples": settings.pool, "best_of": best_of, "best_possible": possible}, metrics


def _along(shared: _Setting, parent: Subject, start: Mapping[str, Floats]) -> dict[str, Any]:
    """The states along the training: KL, rewards and tokens of each, and the curve of over-optimisation through them.

    The training starts at its reference, so that update 0 has its rewards and a KL of 0.
    """
    points = [
        {"update": 0, "kl_nats": 0.0} | {f"{name}_reward": float(mean_P.mean()) for name, mean_P in start.items()}
    ]
    gains: dict[str, list[Floats]] = {name: [np.zeros(len(shared.rows))] for name in start}
    for update in kept_updates(shared.subject.name):
        with with_kept_weights(shared.subject.model, shared.subject.name, update) as model:
            answers = shared.sampled(model, shared.settings.samples, f"state {update}")
            kl = shared.kl(model, parent.model, answers)
        rewards = shared.rewards(answers)
        points.append(
            {"update": update, "kl_nats": float(kl.kl_nats.mean()), "answer_tokens": float(answers.tokens.mean())}
            | {f"{name}_reward": float(scores.mean()) for name, scores in rewards.items()}
        )
        for name, scores in rewards.items():
            gains[name].append(scores.mean(axis=1) - start[name])
    curves = {}
    moved = sum(point["kl_nats"] > 0 for point in points)
    for name, gains_CP in gains.items() if moved >= frontier.LEAST_CHECKPOINTS else ():
        curve = frontier.fit([point["kl_nats"] for point in points], gains_CP, shared.settings.seed)
        curves[name] = curve._asdict() | {"turns": curve.turns}
    return {"points": points, "curves": curves}


def _shown(
    rows: Sequence[Mapping[str, Any]], own: Sampled, rewards: Mapping[str, Floats], theirs: Sampled | None,
    beside: Mapping[str, Floats],
) -> list[dict[str, Any]]:  # fmt: skip
    """First answers to show: the largest losses, the smallest changes, the largest gains."""
    name = next(iter(rewards))
    gain_P = rewards[name][:, 0] - (beside[name][:, 0] if beside else 0.0)
    order = np.argsort(gain_P, kind="stable").tolist()
    middle = len(order) // 2
    kept = [*order[:_SHOWN], *order[middle - _SHOWN // 2 : middle + _SHOWN // 2], *order[-_SHOWN:]]
    shown = []
    for i in dict.fromkeys(kept if len(order) > 3 * _SHOWN else order):
        question = "\n".join(filter(None, (rows[i]["instruction"], rows[i]["input"])))
        one: dict[str, Any] = {"question": mask(question)[:300], "answer": mask(own.texts[i * own.samples])[:600]}
        one |= {f"{judge}_reward": float(scores[i, 0]) for judge, scores in rewards.items()}
        if theirs is not None:
            one["before"] = mask(theirs.texts[i * theirs.samples])[:600]
            one |= {f"{judge}_reward_before": float(scores[i, 0]) for judge, scores in beside.items()}
        shown.append(one)
    return shown
