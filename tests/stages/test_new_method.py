"""A new tuner is one file and one params entry: the README's example, added to a graph that has run.

Lost otherwise: adding a tuner would train other recipes again, or need changes in more places than the README says.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from pipeline.paths import CODE as ROOT
from pipeline.studies.guess import guess
from pipeline.studies.workspace import workspace

pytestmark = pytest.mark.slow
MESSAGES = {
    "ham": "akşama {} getirir misin, evde kalmadı",
    "spam": "tebrikler, {} kazandınız, hemen arayın",
}
THINGS = [
    "elma", "armut", "ekmek", "süt", "çay", "şeker", "tuz", "biber", "limon", "kavun", "üzüm", "incir", "ceviz",
    "badem", "pirinç", "bulgur", "yağ", "bal",
]  # fmt: skip


def repro(root: Path) -> set[str]:
    """Runs the graph; returns the stages that ran."""
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(["dvc", "repro"], cwd=root, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return set(re.findall(r"^Running stage '(.*)':$", done.stdout, re.M))


def test_a_new_tuner_runs_its_own_stages_alone_when_added_to_a_graph_that_has_run(tmp_path: Path) -> None:
    data = tmp_path / "messages.csv"
    rows = [(text.format(f"{a} ve {b}"), label) for a in THINGS for b in THINGS for label, text in MESSAGES.items()]
    data.write_text("text,label\n" + "".join(f'"{text}",{label}\n' for text, label in rows), encoding="utf-8")
    root = tmp_path / "project"
    workspace(data, guess(data), root)
    params = yaml.safe_load((root / "params.yaml").read_text(encoding="utf-8"))
    params["runtime"]["progress"] = False
    for recipe in (params["pretrain"], *params["finetune"].values()):
        recipe["schedule"] |= {"steps": 20, "warmup_steps": 2}
        recipe["validation"] |= {"every": 10, "batches": 2}
    generation = params["evaluations"]["base"]["measures"].pop("generation")
    write(root, params)
    subprocess.run([sys.executable, "-m", "dvc", "init", "--no-scm", "--quiet"], cwd=root, check=True)
    assert "finetune@spam-lora" in repro(root)

    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.S)
    (example,) = (code for code in blocks if "(Tuner)" in code)
    assert example.count("\n") < 40
    (root / "pipeline/tuners/norms.py").write_text(example, encoding="utf-8")
    params["finetune"]["spam-norms"] = params["finetune"]["spam-lora"] | {"tuner": {"name": "norms"}}
    params["evaluations"]["spam-norms"] = params["evaluations"]["spam-lora"]
    write(root, params)
    own = {"finetune@spam-norms", "evaluate@spam-norms", "validate-model@spam-norms"}
    assert repro(root) == own | {"code", "report"}  # `code` writes one fingerprint per stage
    trained = yaml.safe_load((root / "reports/training/spam-norms.json").read_text(encoding="utf-8"))
    assert 0 < trained["trainable_share"] < 0.02

    metrics = root / "reports/evaluation/base/metrics.json"
    before = yaml.safe_load(metrics.read_text(encoding="utf-8"))
    kept = set((root / ".tohum/measures").iterdir())
    params["evaluations"]["base"]["measures"]["generation"] = generation
    write(root, params)
    assert repro(root) == {"code", "evaluate@base", "validate-model@base", "report"}
    assert len(set((root / ".tohum/measures").iterdir()) - kept) == 1  # the other measures of that model did not run
    assert before.items() < yaml.safe_load(metrics.read_text(encoding="utf-8")).items()


def write(root: Path, params: object) -> None:
    (root / "params.yaml").write_text(yaml.safe_dump(params, allow_unicode=True, sort_keys=False), encoding="utf-8")
