"""All checks of `tohum doctor`: leftovers of killed processes, and the environment."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pipeline.orchestration import bases, environment, leftovers, temporaries
from pipeline.orchestration.leftovers import Diagnosis

Check = Callable[[Path], list[Diagnosis]]
CHECKS: dict[str, Check] = {
    "temporary files": temporaries.temporary,
    "DVC's locks": leftovers.dvc_locks,
    "processes": leftovers.orphans,
    "params.yaml": leftovers.flow_params,
    "tracking": leftovers.undelivered,
    "training states": leftovers.states,
    "set aside": leftovers.set_aside,
    "adapters": bases.adapters,
    "disk": environment.disk,
    "programs": environment.programs,
    "packages": environment.packages,
}


@dataclass(frozen=True)
class Line:
    """One line of the summary."""

    state: Literal["ok", "note", "mend", "done"]
    """`note`: for information; `mend`: to be repaired; `done`: repaired now."""
    topic: str
    text: str


def examine(root: Path, mend: bool = False) -> list[Line]:
    """The summary of a project, in the order of CHECKS; with `mend`, every diagnosis that can be repaired is."""
    lines = []
    for topic, check in CHECKS.items():
        diagnoses = check(root)
        lines += [_line(topic, diagnosis, mend) for diagnosis in diagnoses] or [Line("ok", topic, "nothing to do")]
    return lines


def _line(topic: str, diagnosis: Diagnosis, mend: bool) -> Line:
    if diagnosis.mend is None or not mend:
        mendable = "; `tohum doctor --mend` does it" if diagnosis.mend else ""
        todo = f": {diagnosis.todo}{mendable}" if diagnosis.todo else ""
        return Line(diagnosis.state, topic, diagnosis.text + todo)
    try:
        return Line("done", topic, f"{diagnosis.text}: {diagnosis.mend()}")
    except (OSError, ValueError) as error:
        return Line("mend", topic, f"{diagnosis.text}: not mended: {error}")
