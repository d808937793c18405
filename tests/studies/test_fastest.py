"""The proposal of compute settings: a wrong one costs hours of every run, or trains everything anew for nothing."""

from pathlib import Path

import pytest
from rich.console import Console

from pipeline import config
from pipeline.config.recipe import Compute
from pipeline.errors import UserError
from pipeline.model import device
from pipeline.orchestration.process import Processes, StageError
from pipeline.paths import CODE as ROOT
from pipeline.studies import fastest
from pipeline.studies.fastest import proposal
from tests.commands import tohum
from tests.projects import small


def compute(**changes: object) -> Compute:
    return Compute.model_validate(
        {
            "device": "cpu",
            "threads": 1,
            "precision": "float32",
            "compile": False,
            "checkpoint_activations": False,
            "weights": "float32",
        }
        | changes
    )


def timing(setting: Compute, first_s: float, step_s: float, tokens: int = 100, spread: float = 0.0) -> fastest.Timing:
    """A timing whose median update is known to `spread`, a share of it."""
    return fastest.Timing(setting, first_s, step_s, tokens, ((1 - spread) * step_s, (1 + spread) * step_s))


PLAIN, COMPILED = compute(), compute(compile=True)


def test_proposal_compiles_only_where_the_recipe_is_long_enough() -> None:
    tried = [timing(PLAIN, 0.2, 0.10), timing(COMPILED, 20.0, 0.05)]
    assert proposal(tried, PLAIN, 100).compute == PLAIN  # 10 s beside 25 s
    assert proposal(tried, PLAIN, 1000).compute == COMPILED  # 100 s beside 70 s
    assert tried[1].whole_s(1) == 20.0


def test_proposal_keeps_the_present_setting_when_the_difference_is_noise() -> None:
    near = [timing(PLAIN, 0.2, 0.102), timing(compute(threads=2), 0.2, 0.100)]
    assert proposal(near, PLAIN, 500).compute == PLAIN
    assert proposal(near, compute(threads=4), 500).compute.threads == 2  # what could not be timed cannot stay
    far = [timing(PLAIN, 0.2, 0.105), near[1]]
    assert proposal(far, PLAIN, 500).compute.threads == 2
    unsure = [timing(PLAIN, 0.2, 0.105, spread=0.05), near[1]]
    assert proposal(unsure, PLAIN, 500).compute == PLAIN  # its median may be below 0.1


def test_fastest_says_that_it_cannot_tell(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Lost otherwise: `the fastest of these` of a setting that another one beat by chance."""
    present = config.load().compute
    tried = [timing(present, 0.0, 0.1005), timing(compute(threads=16), 0.0, 0.1)]
    monkeypatch.setattr(fastest, "trials", lambda *_: (tried, []))
    fastest.study(0.05, apply=False)
    assert (
        "Cannot tell 16 threads, float32, 0.5 % faster here, from the setting of params.yaml: keep that."
        in " ".join(capsys.readouterr().out.split())
    )
    monkeypatch.setattr(fastest, "trials", lambda *_: (tried[:1], []))
    fastest.study(0.05, apply=False)
    assert "params.yaml has the fastest of these: keep it." in capsys.readouterr().out


def test_expected_duration_counts_compiling() -> None:
    assert fastest.expected_s([PLAIN], 5.0) == 11.0
    assert fastest.expected_s([PLAIN, COMPILED], 5.0) == 11.0 + 36.0


def test_settings_are_those_that_the_machine_can_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """bfloat16 only where the processor multiplies it, compiling only with a compiler, the present setting first."""
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(6)), raising=False)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr(device, "has_bfloat16", lambda: False)
    monkeypatch.setattr("shutil.which", lambda name: None)
    found = list(fastest.settings(compute(threads=3)))
    assert found == [compute(threads=n) for n in (3, 1, 2, 4, 6)]
    monkeypatch.setattr(device, "has_bfloat16", lambda: True)
    monkeypatch.setattr("shutil.which", lambda name: "/usr/bin/g++")
    found = list(fastest.settings(compute()))
    assert len(found) == 4 * 2 * 2
    assert compute(threads=6, precision="bfloat16", compile=True) in found
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    found = list(fastest.settings(compute()))
    assert {one.device for one in found[1:]} == {"cuda"}
    assert len(found) == 1 + 4


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Samples and a recipe of a few small updates."""
    monkeypatch.chdir(tmp_path)
    small(tmp_path)
    return tmp_path


def test_fastest_times_updates_and_writes_the_fastest_setting(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(fastest, "settings", lambda present: iter([present, compute(threads=2)]))
    monkeypatch.setattr(fastest, "proposal", lambda tried, present, steps: tried[1])
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    assert tohum("fastest", "--seconds", "0.05") == 0
    shown = capsys.readouterr().out
    assert "2 threads, float32" in shown
    assert "`tohum fastest --apply` writes it" in shown
    assert config.load().compute.threads == 1
    assert tohum("fastest", "--seconds", "0.05", "--apply") == 0
    assert "+  threads: 2" in capsys.readouterr().out
    assert config.load().compute.threads == 2
    assert not (project / "models").exists()


def test_fastest_names_the_missing_data_once_before_it_times(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fastest, "trials", lambda wanted, seconds: pytest.fail("timed"))
    (project / "data").rename(project / "moved")
    with pytest.raises(UserError, match=r"^data/samples/documents, data/tokens/tokenizer: not there yet; run `dvc re"):
        fastest.study(0.05, apply=False)


def test_table_keeps_its_numbers_on_a_narrow_terminal() -> None:
    tried = [timing(compute(threads=16, precision="bfloat16", compile=True), 20.0, 0.05, 1000)]
    console = Console(width=80, record=True)
    console.print(fastest.table(tried, 5000, tried[0]))
    shown = console.export_text()
    assert "4 min 30 s" in shown
    assert "20,000" in shown


def test_trials_start_each_setting_with_an_empty_compile_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lost otherwise: code compiled for an earlier setting makes a later one look faster."""
    caches = []

    def run(self: Processes, command: list[str], **_: object) -> list[str]:
        caches.append(Path(self.environment["TORCHINDUCTOR_CACHE_DIR"]))
        assert list(caches[-1].iterdir()) == []
        (caches[-1] / "compiled").touch()
        return ["timed: [0.5, 0.1, 32, [0.1, 0.1]]"]

    monkeypatch.setattr(Processes, "run", run)
    fastest.trials([COMPILED, compute(compile=True, threads=2)], 0.1)
    assert caches[0] != caches[1]
    assert not caches[0].exists()


def test_trials_list_failed_settings_beside_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(self: Processes, command: list[str], **_: object) -> list[str]:
        if '"compile":true' in command[-1]:
            raise StageError("error: no compiler")
        return ["a line of a library", "timed: [0.5, 0.1, 32, [0.1, 0.1]]", "another at the end"]

    monkeypatch.setattr(Processes, "run", run)
    found, failed = fastest.trials([PLAIN, COMPILED], 0.1)
    assert found == [timing(PLAIN, 0.5, 0.1, 32)]
    assert failed == ["1 thread, float32, compiled: error: no compiler"]
    with pytest.raises(UserError, match="no setting could be timed:\n  1 thread, float32, compiled: error: no comp"):
        fastest.trials([COMPILED], 0.1)
