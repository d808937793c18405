"""Kept results of measures: used again only where nothing that decides them differs, and never when damaged."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline import closure, kept_results
from pipeline.config.recipe import Compute

COMPUTE = Compute(
    device="cpu", threads=1, precision="float32", compile=False, checkpoint_activations=False, weights="float32"
)


def measured(folder: Path, key: str, measure: Callable[[], kept_results.Result]) -> kept_results.Result:
    """The kept result, or that of the measure, which is then kept: as an evaluation does it."""
    if (result := kept_results.read(folder, key)) is None:
        result = measure()
        kept_results.keep(folder, key, result)
    return result


class Counted:
    """A measure that counts how often it ran."""

    def __init__(self, metrics: Any = None, details: Any = None) -> None:
        self.runs = 0
        figures = {"accuracy": 0.1 + 0.2} if metrics is None else metrics
        by_record = [{"metric": "accuracy", "values": [0.1 + 0.2, 0.0]}]
        self.result = kept_results.Result(figures, details or {"wrong": ["ü", None]}, by_record)

    def __call__(self) -> Any:
        self.runs += 1
        return self.result


def test_measured_runs_once_and_returns_equal_numbers(tmp_path: Path) -> None:
    measure = Counted()
    first = measured(tmp_path / "kept", "k", measure)
    assert measured(tmp_path / "kept", "k", measure) == first == measure.result
    assert measure.runs == 1
    measured(tmp_path / "kept", "other", measure)
    assert measure.runs == 2


@pytest.mark.parametrize("damage", ["flipped", "cut", "empty", "folder", "of another key"])
def test_measured_runs_again_when_the_kept_file_is_damaged(damage: str, tmp_path: Path) -> None:
    """A flipped digit would be a metric that nobody measured."""
    measured(tmp_path, "k", Counted())
    path = tmp_path / "k.json"
    data = path.read_bytes()
    if damage == "folder":
        path.unlink()
        path.mkdir()
    elif damage == "of another key":
        measured(tmp_path, "l", Counted({"accuracy": 0.9}))
        path.write_bytes((tmp_path / "l.json").read_bytes())
    else:
        path.write_bytes({"flipped": data.replace(b"0.3", b"0.7"), "cut": data[:-9], "empty": b""}[damage])
        assert path.read_bytes() != data
    measure = Counted()
    assert measured(tmp_path, "k", measure) == measure.result
    assert measure.runs == 1


@pytest.mark.parametrize("odd", [{1: "a", 10: "b", 2: "c"}, {"x": float("nan")}, {"x": {1, 2}}])
def test_measured_keeps_nothing_that_would_be_written_differently_later(odd: Any, tmp_path: Path) -> None:
    measure = Counted(details=odd)
    assert measured(tmp_path, "k", measure) is not None
    assert not list(tmp_path.iterdir())


def test_prune_removes_results_that_were_not_used_for_long(tmp_path: Path) -> None:
    for name in ("old", "used"):
        measured(tmp_path, name, Counted())
        long_ago = time.time() - (kept_results.ABANDONED_DAYS + 1) * 86400
        os.utime(tmp_path / f"{name}.json", (long_ago, long_ago))
    measured(tmp_path, "used", Counted())
    measured(tmp_path, "new", Counted())
    assert sorted(path.stem for path in tmp_path.iterdir()) == ["new", "used"]


def test_key_differs_when_anything_that_decides_the_result_does(tmp_path: Path) -> None:
    samples = tmp_path / "samples"
    samples.mkdir()
    (samples / "test.parquet").write_bytes(b"1")
    code = closure.code(["pipeline.evaluation._measure_all"], {"evaluation": ["perplexity"], "tasks": ["next_token"]})
    same: dict[str, Any] = {
        "model_sha256": "0" * 64, "samples": samples, "code": code, "settings": {"split": "test"}, "compute": COMPUTE,
    }  # fmt: skip
    key = kept_results.key_of(**same)
    assert kept_results.key_of(**same) == key
    others = [
        {"model_sha256": "1" * 64},
        {
            "code": closure.code(
                ["pipeline.evaluation._measure_all"], {"evaluation": ["generation"], "tasks": ["next_token"]}
            )
        },
        {"settings": {"split": "validation"}},
        {"compute": COMPUTE.model_copy(update={"precision": "bfloat16"})},
    ]
    keys = {kept_results.key_of(**same | other) for other in others}
    (samples / "test.parquet").write_bytes(b"2")
    assert len({key, *keys, kept_results.key_of(**same)}) == 6


def test_code_of_a_measure_holds_no_other_measure() -> None:
    """Else a new measure, or a reworded one, would run all of them again."""
    code = closure.code(["pipeline.evaluation._measure_all"], {"evaluation": ["perplexity"], "tasks": ["next_token"]})
    assert "pipeline/evaluation/perplexity.py" in code
    assert "pipeline/model/gpt.py" in code
    assert "pipeline/evaluation/generation.py" not in code
