"""Settings of the review: the policy that a candidate must meet. Read outside the graph: a change retrains nothing."""

from pydantic import Field, model_validator

from pipeline.config.section import Section, Share


class RiskBounds(Section):
    """Bounds of a metric of risk; fail above warn: higher values are worse; fail below warn: lower ones are."""

    warn: float
    """Value from which the review warns."""
    fail: float
    """Value from which the policy is not met."""

    @model_validator(mode="after")
    def _differ(self) -> "RiskBounds":
        if self.warn == self.fail:
            raise ValueError(
                f"warn and fail are both {self.warn}; the one that is worse must differ, it says which way"
            )
        return self

    def state(self, value: float) -> str:
        """pass, warn or fail."""
        sign = 1 if self.fail > self.warn else -1
        if sign * value >= sign * self.fail:
            return "fail"
        return "warn" if sign * value >= sign * self.warn else "pass"


class Policy(Section):
    """A candidate meets the policy where every rule passes; a person decides where chance leaves one open."""

    better: list[str]
    """Metrics in which the candidate must be significantly better than the champion."""
    not_worse: dict[str, Share]
    """Metric -> margin by which the candidate may be worse than the champion; met where the 95 % interval of the
    difference stays within it. A metric that the model does not have is no rule."""
    max_slice_loss: Share | None
    """Most that any slice (language, source, label, length, further columns) may be worse than the champion's in a
    metric of `not_worse`; null: no rule."""
    risks: dict[str, RiskBounds] = Field(examples=[{"exposure_bits": {"warn": 2.0, "fail": 4.0}}])
    """Metric of risk -> its bounds; a metric that the model does not have is no rule."""


class Review(Section):
    """Settings of the review of candidates."""

    policy: Policy
    """Rules that a candidate must meet to become the champion."""
