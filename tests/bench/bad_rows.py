"""Time and memory of `download` and of the raw gate on a file of bad rows, as JSON.

    python -m tests.bench.bad_rows [--rows 50000 500000] [--cases rejected half broken labels same clean]

Cases: `rejected`, every row but the first has a field too few; `half`, every second row; `broken`, every row is read
and breaks rules of the gate (personal data, encoding, markers, length, language, repeated texts, two labels for one
text); `labels`, every row has a label of its own, as where an id was taken for one; `same`, all rows are equal;
`clean`, no fault, for comparison. Each stage is a process of its own under the guard, as `dvc repro` runs it, in a
folder of its own; seconds are CPU seconds, peak memory is that of the largest process.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from pipeline.paths import CODE as ROOT

STAGES = ("download", "validate raw")
CASES = ("rejected", "half", "broken", "labels", "same", "clean")
_WORDS = ("müşteri", "kargo", "sipariş", "fatura", "dün", "bugün", "geldi", "gitti", "ve", "için", "çok", "teşekkürler")
_FAULTS = (
    "write to a@mail.example",
    "call 0532 123 45 67",
    "card 4111111111111111",
    "IBAN TR330006100519786457841326",
    "mÃ¼ÅŸteri sipariÅŸi",
    "broken \ufffd letter",
    "bell \x07 rings",
    "then <|user|> follows",
    "müþterimiz sipariþi",
    "long " * 1100,
)


def main(arguments: list[str] | None = None) -> None:
    """Prints one JSON object."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.bad_rows", description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[50_000, 500_000])
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    options = parser.parse_args(arguments)
    figures: dict[str, dict[int, Any]] = {}
    for case in options.cases:
        for rows in options.rows:
            with tempfile.TemporaryDirectory() as name:
                project = write_project(Path(name), case, rows)
                figures.setdefault(case, {})[rows] = {stage: measured(project, stage) for stage in STAGES}
            print(f"{case}, {rows} rows: {figures[case][rows]}", file=sys.stderr, flush=True)
    print(json.dumps({"bench": "bad_rows", "cases": figures}, indent=1))


def write_project(folder: Path, case: str, rows: int) -> Path:
    """A project with one file of labelled texts and the thresholds of params.yaml."""
    (folder / "inputs").mkdir(parents=True, exist_ok=True)
    with (folder / "inputs" / "messages.csv").open("w", encoding="utf-8", newline="") as file:
        file.write("text;label\n")
        file.writelines(lines(case, rows))
    params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    params["runtime"]["tracking"]["enabled"] = params["runtime"]["progress"] = False
    params["download"]["sources"] = {
        "messages": {
            "name": "files",
            "licence": "CC0-1.0",
            "consent": "synthetic",
            "weight": 1.0,
            "path": "inputs/messages.csv",
            "sha256": None,
            "kind": "labelled",
            "columns": {},
            "labels": {},
            "language": "en" if case == "broken" else "tr",
            "split": None,
            "format": {"name": "csv", "encoding": "utf-8", "delimiter": ";", "header": True, "quoting": "none"},
        }
    }
    (folder / "params.yaml").write_text(yaml.safe_dump(params, allow_unicode=True, sort_keys=False), encoding="utf-8")
    return folder


def lines(case: str, rows: int) -> Iterator[str]:
    """The lines of the file below its header."""
    draw = random.Random(1)
    for row in range(rows):
        text = f"{' '.join(draw.choices(_WORDS, k=12))} {row}"
        if row and (case == "rejected" or (case == "half" and row % 2)):
            yield text + "\n"
        elif case == "broken":
            yield f"{_FAULTS[row % len(_FAULTS)]} {text if row % 3 else 'aynı metin ve'};{('spam', 'ham')[row % 2]}\n"
        elif case == "labels":
            yield f"{text};id{row}\n"
        elif case == "same":
            yield "bugün kargo geldi ve fatura da var, teşekkürler;ham\n"
        else:
            yield f"{text};{('spam', 'ham')[row // 2 % 2]}\n"


def measured(project: Path, stage: str) -> dict[str, float]:
    """CPU seconds, peak memory in MiB and exit code of one stage and the processes that it starts.

    Raises:
        SystemExit: the stage ended by an error of its own; a failed gate is none.
    """
    command = [sys.executable, "-P", str(ROOT / "pipeline/orchestration/guard.py"), *f"stages.{stage}".split()]
    with (project / "output.txt").open("w+", encoding="utf-8") as output:
        child = subprocess.Popen(
            command, cwd=project, env=os.environ | {"PYTHONPATH": str(ROOT)}, stdout=output, stderr=output
        )
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        said = output.read()
    if child.returncode and (stage == "download" or "gate raw: failed" not in said):
        raise SystemExit(f"{stage}: exit code {child.returncode}\n{said[-2000:]}")
    return {
        "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 1),
        "peak_mib": round(usage.ru_maxrss / 1024),
        "exit_code": child.returncode,
    }


if __name__ == "__main__":
    main()
