"""params.yaml as frozen, typed sections; the parts of a recipe bring settings of their own."""

from pipeline.config.check import check, choice, load
from pipeline.paths import PARAMS

__all__ = ["PARAMS", "check", "choice", "load"]
