"""Contestants of a bench in turns: each in a process of its own, a few updates at a time, the others waiting.

All run in a stage's environment (guard.py), peers too.
"""

import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.orchestration import guard

MARK = "turn: "


# The parent.


def compare(
    module: str,
    contestants: list[str],
    case: Path,
    rounds: int,
    *,
    unit: str = "tokens",
    pythons: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Figures of every contestant, each a process of `module`, and ours over each peer's.

    Args:
        module: run as `python -m MODULE --contestant NAME --case FILE`.
        contestants: in the order of their turns.
        case: file of the case, JSON.
        rounds: turns of each that count.
        unit: the figures count these a second.
        pythons: contestant -> interpreter; this process's for all others.
    """
    processes = {}
    for name in contestants:
        command = [(pythons or {}).get(name, sys.executable), "-m", module, "--contestant", name, "--case", str(case)]
        environment = guard.ENVIRONMENT | {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"} | os.environ
        processes[name] = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
        )
    turns: dict[str, list[dict[str, float]]] = {name: [] for name in contestants}
    try:
        for process in processes.values():
            answer(process)  # ready
        for _ in range(rounds + 1):
            for name, process in processes.items():
                process.stdin.write("go\n")
                process.stdin.flush()
                turns[name].append(answer(process))
        ends = {name: answer(process) for name, process in processes.items()}
    finally:
        for process in processes.values():
            process.kill()
            process.communicate()
    # The first turn is warm-up. A contestant that packs needs fewer updates, and may have none left in the last turns.
    speeds = {name: [speeds_of(turn, unit) for turn in turns[name][1:] if turn["tokens"]] for name in contestants}
    figures = {name: medians(speeds[name]) | ends[name] for name in contestants}
    if "ours" in figures:
        figures |= {f"ours / {name}": ratios(speeds, figures, name) for name in contestants if name != "ours"}
    return figures


def speeds_of(turn: dict[str, float], unit: str) -> dict[str, float]:
    """Real tokens, or another unit, per second of wall and of CPU time."""
    return {
        f"{unit}_per_second": turn["tokens"] / turn["wall"],
        f"{unit}_per_cpu_second": turn["tokens"] / turn["cpu"],
    }


def medians(speeds: list[dict[str, float]]) -> dict[str, Any]:
    """The median of each speed over the rounds."""
    return {name: shortened(statistics.median(turn[name] for turn in speeds)) for name in speeds[0]}


def shortened(value: float) -> float:
    """A whole number, or three digits of a small one."""
    return round(value) if value >= 1000 else float(f"{value:.3g}")


def ratios(speeds: dict[str, list[dict[str, float]]], figures: dict[str, Any], peer: str) -> dict[str, Any]:
    """Ours over a peer: speeds as [lower quartile, median, upper quartile] over the rounds, memory as one number."""
    pairs = list(zip(speeds["ours"], speeds[peer], strict=False))
    quartiles = {
        name: [round(q, 2) for q in statistics.quantiles([a[name] / b[name] for a, b in pairs], method="inclusive")]
        for name in pairs[0][0]
    }
    return quartiles | {"peak_mib": round(figures["ours"]["peak_mib"] / figures[peer]["peak_mib"], 2)}


def answer(process: Any) -> dict[str, float]:
    """The next report of a contestant."""
    for line in process.stdout:
        if line.startswith(MARK):
            return json.loads(line.removeprefix(MARK))
    raise RuntimeError(f"a contestant ended: {process.args[-3]}\n{process.stderr.read()[-2000:]}")


# A contestant.


class Turns:
    """Counts updates; at the end of each turn reports, and waits for the next."""

    def __init__(self, case: Any, tokens: list[int]) -> None:
        self.case, self.tokens, self.done = case, tokens, 0
        self.first = 0
        self.wait({"ready": 1})

    def wait(self, report: dict[str, Any]) -> None:
        print(f"\n{MARK}{json.dumps(report)}", flush=True)
        sys.stdin.readline()
        self.wall, self.cpu = time.perf_counter(), time.process_time()

    def update(self) -> None:
        """One update is done."""
        self.done += 1
        if self.done < self.case.warm or (self.done - self.case.warm) % self.case.turn:
            return
        report = {
            "tokens": sum(self.tokens[self.first : self.done]),
            "wall": time.perf_counter() - self.wall,
            "cpu": time.process_time() - self.cpu,
        }
        self.first = self.done
        if self.done < self.case.updates:
            self.wait(report)
        else:
            print(f"\n{MARK}{json.dumps(report)}", flush=True)


def end(report: dict[str, Any]) -> None:
    """Prints a contestant's last report."""
    print(f"\n{MARK}{json.dumps(report)}", flush=True)


class InOrder:
    """Examples as they stand, as all contestants get them."""

    def __init__(self, batch_size: int) -> None:
        self.batch_size = batch_size

    def rows(self, n_examples: int, step: int, seed: int) -> Any:
        import numpy as np

        return (step * self.batch_size + np.arange(self.batch_size)) % n_examples


def peak_mib() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
