"""What a crash left here, and whether the machine is fit: `python -m pipeline.cli.doctor [--mend]`, or `make doctor`.

Looks at temporary files and folders, DVC's locks, processes whose guard was killed, records that MLflow never got,
saved training states, free space, and the environment against requirements.lock. Without `--mend` nothing is touched.
With it, whatever no living process uses is cleaned up; nothing that could be the only copy of anything is removed.
Damage inside files is the business of `make fsck`. Exit code 1 if something is left to mend.
"""

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pipeline.orchestration import environment, leftovers
from pipeline.orchestration.leftovers import Finding

Check = Callable[[Path], list[Finding]]
CHECKS: dict[str, Check] = {
    "temporary files": leftovers.temporary,
    "DVC's locks": leftovers.dvc_locks,
    "processes": leftovers.orphans,
    "params.yaml": leftovers.flow_params,
    "tracking": leftovers.undelivered,
    "training states": leftovers.states,
    "set aside": leftovers.set_aside,
    "disk": environment.disk,
    "programs": environment.programs,
    "packages": environment.packages,
}


@dataclass(frozen=True)
class Line:
    """One line of the summary."""

    state: str
    """`ok`, `note` (to know), `mend` (to do) or `done`."""
    topic: str
    says: str


def examine(root: Path, mend: bool = False) -> list[Line]:
    """The summary of a project, in the order of CHECKS; with `mend`, what can be mended is."""
    lines = []
    for topic, check in CHECKS.items():
        found = check(root)
        lines += [_line(topic, one, mend) for one in found] or [Line("ok", topic, "nothing to do")]
    return lines


def _line(topic: str, one: Finding, mend: bool) -> Line:
    if one.mend is None or not mend:
        todo = "; `make doctor MEND=1` does it" if one.mend else ""
        return Line(one.state, topic, one.says + (f": {one.todo}{todo}" if one.todo else ""))
    try:
        return Line("done", topic, f"{one.says}: {one.mend()}")
    except (OSError, ValueError) as error:
        return Line("mend", topic, f"{one.says}: not mended: {error}")


def main(arguments: list[str] | None = None) -> int:
    """Examines the project in the working directory; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.cli.doctor", description=__doc__.split("\n")[0])
    parser.add_argument("--mend", action="store_true", help="clean up what no living process uses")
    options = parser.parse_args(arguments)
    lines = examine(Path(), options.mend)
    for line in lines:
        print(f"{line.state:<5} {line.topic:<16} {line.says}")
    left = sum(line.state == "mend" for line in lines)
    print(f"doctor: {left} to mend" if left else "doctor: healthy")
    return 1 if left else 0


if __name__ == "__main__":
    sys.exit(main())
