"""The planted world through DVC: every data gate stops it, with exactly the planted list.

A user loses the meaning of a green gate if this fails: a fault that is known to be there must be found, whole, and
nothing else with it.
"""

import json
import os
import shutil
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.paths import CODE as ROOT

pytestmark = pytest.mark.slow
FAILED = {"raw": "validate@raw", "tokens": "validate@tokens", "samples": "validate@samples"}


class Planted:
    """A scratch project of the profile, with fewer clean records so that the test takes seconds."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir()
        for name in ("pipeline", "stages", "infra", "inputs"):
            shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("dvc.yaml", "params.yaml", ".dvcignore"):
            shutil.copy(ROOT / name, root / name)
        self.run(sys.executable, "-m", "pipeline.cli", "profile", "embedded-planted", "--force")
        self.params = yaml.safe_load((root / "params.yaml").read_text(encoding="utf-8"))
        self.params["download"]["sources"]["world"] |= {
            "documents": 1500, "labelled": 600, "instructions": 300, "preferences": 300,
        }  # fmt: skip
        self.params["runtime"]["tracking"]["enabled"] = False
        self._write()
        self.run(sys.executable, "-m", "dvc", "init", "--no-scm", "--quiet")

    def run(self, *command: str) -> None:
        subprocess.run(command, cwd=self.root, env=self._environment(), check=True, capture_output=True)

    def stopped_at(self, gate: str) -> str:
        """Runs up to the gate; what it printed on its way down."""
        command = [sys.executable, "-m", "dvc", "repro", FAILED[gate]]
        done = subprocess.run(command, cwd=self.root, env=self._environment(), capture_output=True, text=True)
        assert done.returncode != 0, done.stdout
        assert f"failed to reproduce '{FAILED[gate]}'" in done.stderr, done.stdout + done.stderr
        assert not (self.root / "data/tickets" / gate / "documents.json").exists()
        return done.stdout

    def failures(self, gate: str) -> dict[str, dict[str, Any]]:
        """Column -> what the verdict says of the expectation that failed."""
        verdict = json.loads((self.root / f"reports/gates/{gate}/verdict.json").read_text(encoding="utf-8"))
        assert not verdict["passed"]
        return {result["column"]: result for result in verdict["results"] if not result["success"]}

    def waive(self, gate: str) -> None:
        """Admits what the gate named."""
        for column, failed in self.failures(gate).items():
            self.params["waivers"].append({
                "gate": gate, "expectation": failed["expectation"], "column": column, "reason": "planted",
                "until": "2100-01-01",
            })  # fmt: skip
        self._write()

    def planted(self) -> dict[str, list[dict[str, Any]]]:
        """Kind -> the records the world says it planted."""
        truth = json.loads((self.root / "data/raw/truth.json").read_text(encoding="utf-8"))
        found = defaultdict(list)
        for one in truth["sources"]["world"]["planted"]:
            found[one["planted"]].append(one)
        return found

    def _write(self) -> None:
        text = yaml.safe_dump(self.params, allow_unicode=True, sort_keys=False)
        (self.root / "params.yaml").write_text(text, encoding="utf-8")

    def _environment(self) -> dict[str, str]:
        return os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}


def ids(records: list[dict[str, Any]]) -> list[str]:
    return sorted(record["id"] for record in records)


def test_every_data_gate_stops_the_planted_world_with_the_planted_list(tmp_path: Path) -> None:
    world = Planted(tmp_path / "project")

    printed = world.stopped_at("raw")
    planted, found = world.planted(), world.failures("raw")
    whole = {
        "too_short": "too_short", "too_long": "too_long", "duplicate_share": "duplicates",
        "language_disagreement_share": "wrong_language", "spelled_specials": "special_token_text",
    } | {f"personal_{kind}": f"personal_{kind}" for kind in ("email", "phone", "card", "iban", "identity")}  # fmt: skip
    for column, kind in whole.items():
        assert planted[kind]
        assert ids(found[column]["records"]) == ids(planted[kind])
        assert column in printed
    # spoilt text shows as U+FFFD, as letters of another encoding, or as both
    spoilt = {record["id"] for column in ("mojibake", "replacement_characters") for record in found[column]["records"]}
    assert sorted(spoilt) == ids(planted["mojibake"])
    assert found["label_share"]["count"] == len(planted["label_imbalance"])
    assert set(found) == {*whole, "mojibake", "replacement_characters", "label_share"}
    world.waive("raw")

    world.stopped_at("tokens")
    found = world.failures("tokens")
    assert ids(found["outlier_share"]["records"]) == ids(planted["incompressible"])
    in_documents = [one for one in planted["special_token_text"] if one["kind"] == "documents"]
    assert ids(found["spelled_specials"]["records"]) == ids(in_documents)
    assert found["bytes_per_token"]["offenders"][0].startswith("und: ")  # the language of nothing but random characters
    assert set(found) == {"outlier_share", "spelled_specials", "bytes_per_token"}
    world.waive("tokens")

    world.stopped_at("samples")
    found = world.failures("samples")
    leaked = [one for one in planted["leaks"] if one["what"] == "the test record"]
    assert ids(found["folded_overlap"]["records"]) == ids(leaked)
    originals = [one for one in planted["near_duplicates"] if one["what"] == "the original"]
    assert ids(found["near_overlap"]["records"]) == ids(originals)
    assert found["class_share"]["count"] == len(planted["label_imbalance"])
    assert set(found) == {"folded_overlap", "near_overlap", "class_share"}
