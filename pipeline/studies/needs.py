"""Inputs that a study needs, checked before any library is loaded; an error names the command that makes them."""

import re

from pipeline.config.params import Params
from pipeline.errors import UserError
from pipeline.paths import EVALUATION, REPORTS, SAMPLES, TOKENIZER

SCALING_LAW = REPORTS / "scaling.json"
"""The law and the rule that `tohum scaling` fitted."""
SEED = re.compile(r"^(?P<method>.+)-s\d+$")
"""Name of a recipe that is one of several seeds of a method."""


def samples() -> None:
    """Raises UserError where there are no documents or no vocabulary to train on."""
    if missing := [str(path) for path in (SAMPLES / "documents", TOKENIZER) if not path.exists()]:
        raise UserError(f"{', '.join(missing)}: not there yet; run `dvc repro sample` first")


def scaling_law() -> None:
    """Raises UserError where no scaling law was fitted."""
    if not SCALING_LAW.exists():
        before = "" if (SAMPLES / "documents").exists() else " (after `dvc repro sample`)"
        raise UserError(f"{SCALING_LAW}: no such file; `tohum scaling` makes it{before}")


def methods(params: Params) -> None:
    """Raises UserError where params.yaml compares no methods, or their models were not evaluated."""
    compared = [name for name in params.finetune if SEED.match(name)]
    if not compared:
        raise UserError(
            "params.yaml: no recipe is one of several seeds (named lora-s1, lora-s2...); probe a file "
            "(tohum which FILE, minutes), or run profile `methods` (tohum profile methods, make repro, half an hour)"
        )
    wanted = ["base", *compared]
    missing = [name for name in wanted if not (EVALUATION / name / "metrics.json").exists()]
    if missing:
        shown = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
        raise UserError(
            f"{len(missing)} of {len(wanted)} models have no result yet ({shown}); run `make repro` first "
            "(`tohum plan` shows for how long)"
        )
