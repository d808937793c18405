"""A probe must hold every method of the profile and nothing that params refuse; it runs for minutes before it shows."""

from pathlib import Path

import pytest
import yaml

from pipeline import config
from pipeline.config import profiles
from pipeline.config.recipe import Kind
from pipeline.errors import UserError
from pipeline.studies.guess import Guess, guess
from pipeline.studies.probe import FULL, SEEDS, methods, probe_params


@pytest.mark.parametrize(("kind", "rows"), [
    ("labelled", "v1,v2\nham,akşama gel\nspam,ödül kazandın\n"), ("instructions", "soru,cevap\nNerede?,İzmir\n"),
])  # fmt: skip
def test_probe_params_hold_every_method(kind: Kind, rows: str, tmp_path: Path) -> None:
    own = tmp_path / "own.csv"
    own.write_text(rows * 20, encoding="utf-8")
    raw = probe_params(Path("inputs/own.csv"), guess(own))
    params = config.check(raw)
    assert {"full", "lora", "ia3", "bottleneck", "prefix-10", "prompt-20", "gradual", "layers"} <= set(methods())
    assert not {"prefix-1", "prompt-50", "head-few"} & set(
        methods()
    )  # a length of each is enough, and all records count
    assert len(params.finetune) == len(methods()) * len(SEEDS)
    assert params.compute.threads == 1  # the runs go beside each other, one a core
    assert {recipe.data for recipe in params.finetune.values()} == {kind}
    for name, evaluation in params.evaluations.items():
        assert "perplexity" in evaluation.measures, name  # or forgetting could not be told
    full = yaml.safe_load(profiles.rendered([FULL[kind]]))  # which scores the prediction by the same measure
    assert full["finetune"]["lora-s1"]["data"] == kind
    assert full["evaluations"]["lora-s1"]["measures"].keys() == params.evaluations["lora-s1"].measures.keys()


def test_probe_params_refuse_running_text() -> None:
    with pytest.raises(UserError, match="holds documents; methods are compared on labelled texts"):
        probe_params(Path("x.txt"), Guess("documents", {}, {}, ()))
