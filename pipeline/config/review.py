"""Settings of the review: the policy that a candidate must meet. Read outside the graph: a change retrains nothing."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from pipeline.config.section import Section

Margin = Annotated[float, Field(ge=0)]
"""A difference in the units of its metric."""


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
    not_worse: dict[str, Margin]
    """Metric -> margin by which the candidate may be worse than the champion; met where the 95 % interval of the
    difference stays within it. A metric that the model does not have is no rule."""
    max_slice_loss: dict[str, Margin]
    """Metric -> most that any slice (language, source, label, length, further columns) may be worse than the
    champion's; in the metric's units, as the margins of `not_worse`."""
    risks: dict[str, RiskBounds] = Field(examples=[{"exposure_bits": {"warn": 2.0, "fail": 4.0}}])
    """Metric of risk -> its bounds; one that was not measured leaves the decision to a person."""


class Signing(Section):
    """Signatures of decisions."""

    key: str
    """Path of an OpenSSH private key file (`ssh-keygen -t ed25519`) outside the project; `~` is the home folder. Its
    passphrase, if it has one, is read from the environment variable TOHUM_SIGNING_PASSPHRASE."""


class Review(Section):
    """Settings of the review of candidates."""

    policy: Policy
    """Rules that a candidate must meet to become the champion."""
    identity: Literal["any", "verified"]
    """`verified`: a decision needs a login at MLflow's server or a signature; `any`: without either the entry says
    `unverified` and the user of the computer."""
    signing: Signing | None = Field(examples=[{"key": "~/.ssh/id_ed25519"}])
    """Signs each decision; null: none is signed."""
    signers: dict[str, str]
    """Name -> public key (`ssh-ed25519 AAAA...`) of the people who may sign; with any, `tohum registry check` names
    an entry that is signed by another key."""
    anchor: Literal["git-note", "print"]
    """Where the head of the ledger is noted outside MLflow: in refs/notes/tohum-ledger of the project's repository, or
    only on the screen."""
