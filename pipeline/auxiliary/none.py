"""No auxiliary loss: only the objective is minimised."""

from pipeline.auxiliary import Losses
from pipeline.config.section import Section
from pipeline.contracts import Learner


class Settings(Section):
    """No settings."""


def build(_settings: Settings, learner: Learner) -> Losses:
    """The objective's own losses."""
    return learner.objective.losses
