"""Studies: what is compared must differ in what is named alone, and nothing that ran may run or be lost again."""

import json
import math
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from pipeline import config, files, integrity
from pipeline.config import edit
from pipeline.config.params import Params
from pipeline.errors import UserError
from pipeline.studies import trials
from pipeline.studies.trials import Trial, flops_a_token, keys, mean_and_error, recipe_of, weights
from stages import pretrain
from tests.models import network
from tests.projects import small

SHORT = {"schedule.steps": 4, "schedule.warmup_steps": 1, "validation.every": 2, "validation.batches": 2}
TRIALS = [Trial("plain", 1, SHORT), Trial("capped", 1, SHORT | {"optimizer.learning_rate": 0.001})]


@pytest.fixture
def params(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Params:
    monkeypatch.chdir(tmp_path)
    small(tmp_path)
    return config.load()


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Trials run in this process; the list names them."""
    names: list[str] = []

    def here(commands: Mapping[str, list[str]], lanes: int) -> None:
        for name, command in commands.items():
            names.append(name)
            monkeypatch.setattr("sys.argv", command)
            trials.work()

    monkeypatch.setattr(trials, "beside", here)
    return names


def test_recipe_of_changes_only_the_named_settings(params: Params) -> None:
    changed = recipe_of(params, Trial("one", 5, {"model.n_layers": 3, "optimizer.learning_rate": 0.5}))
    assert (changed.model.n_layers, changed.seed) == (3, 5)
    assert changed.optimizer.model_dump()["learning_rate"] == 0.5
    back = {"model.n_layers": 1, "optimizer.learning_rate": params.pretrain.optimizer.model_dump()["learning_rate"]}
    assert recipe_of(params, Trial("one", params.pretrain.seed, back)) == params.pretrain


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model.layers": 3}, "odd: pretrain has no model.layers; one of: family, n_layers"),
        ({"modell.n_layers": 3}, "odd: pretrain has no modell.n_layers; one of: nothing there"),
        ({"model.n_layers": -1}, r"odd: pretrain.model.n_layers: .*greater than 0"),
        ({"optimizer": {"name": "adamw"}}, r"odd: pretrain.optimizer.learning_rate is missing"),
    ],
)
def test_recipe_of_refuses_a_change_that_does_not_fit(params: Params, changes: dict[str, object], words: str) -> None:
    with pytest.raises(UserError, match=words):
        recipe_of(params, Trial("odd", 1, changes))


def test_keys_depend_on_every_input_and_not_on_the_name(params: Params) -> None:
    """Lost otherwise: a study would show what another recipe or other documents found."""
    own = keys(params, TRIALS)
    assert keys(params, [one._replace(name="other") for one in TRIALS]) == own
    assert len({*own, *keys(params, [one._replace(seed=2) for one in TRIALS])}) == 4
    more = params.model_copy(update={"compute": params.compute.model_copy(update={"threads": 2})})
    assert keys(more, TRIALS) == own  # a trial has one thread, whatever the project has
    half = params.model_copy(update={"compute": params.compute.model_copy(update={"precision": "bfloat16"})})
    assert not {*keys(half, TRIALS)} & {*own}
    (trials.SAMPLES / "documents/other.json").write_text("{}")
    assert not {*keys(params, TRIALS)} & {*own}


def test_run_runs_each_trial_once(params: Params, ran: list[str]) -> None:
    first = trials.run(params, [*TRIALS, TRIALS[0]._replace(name="the same again")])
    assert len(ran) == 2
    assert first[0] == first[2] != first[1]
    assert trials.run(params, TRIALS) == first[:2]
    assert len(ran) == 2
    (trials.FOLDER / f"{keys(params, TRIALS)[0]}.json").unlink()  # as if it had been stopped before
    again = trials.run(params, TRIALS)
    assert ran[2:] == ["plain, seed 1"]
    assert [one._replace(seconds=0) for one in again] == [one._replace(seconds=0) for one in first[:2]]


def test_run_trains_as_pretrain_and_measures_all_held_out_documents(params: Params, ran: list[str]) -> None:
    (result,) = trials.run(params, TRIALS[:1])
    edit.change(config.PARAMS, {f"pretrain.{name}": value for name, value in SHORT.items()})
    pretrain.main()
    training = files.read_json(Path("reports/training/base.json"))
    assert training["tokens"] == result.tokens == 4 * 2 * 16
    from pipeline.evaluation import open_subject, perplexity

    settings = perplexity.Settings(split="validation", batch_size=32, max_documents=None)
    metrics, _, _ = perplexity.measure(settings, open_subject("base", params.compute))
    assert metrics["loss_nats"] == pytest.approx(result.loss_nats, abs=1e-6)
    assert result.known_nats is None
    assert result.seconds > 0


def test_run_raises_user_error_without_samples(params: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    with pytest.raises(UserError, match="dvc repro sample"):
        trials.run(params, TRIALS)


def test_work_refuses_a_trial_whose_inputs_changed(params: Params, monkeypatch: pytest.MonkeyPatch) -> None:
    """A study runs for hours; whoever edits params.yaml meanwhile would poison it for good."""
    (key,) = keys(params, TRIALS[:1])
    edit.change(config.PARAMS, {"pretrain.model.n_layers": 2})
    monkeypatch.setattr("sys.argv", ["trial", key, json.dumps(TRIALS[0]._asdict())])
    with pytest.raises(UserError, match="changed while the study ran"):
        trials.work()
    assert trials.kept(key) is None


def test_run_keeps_a_diverged_trial(params: Params, ran: list[str]) -> None:
    """It diverges every time: as an error it would keep the study from ever coming to an end."""
    wild = Trial("wild", 1, SHORT | {"optimizer.learning_rate": 1e30, "schedule.clip_norm": 0.0})
    first = trials.run(params, [wild, *TRIALS])
    assert first[0].loss_nats == float("inf")
    assert first[1].loss_nats < 10
    assert trials.run(params, [wild, *TRIALS]) == first
    assert len(ran) == 3


def test_recipe_of_takes_factors(params: Params) -> None:
    old = params.pretrain
    wider = {"model.d_ff": {"times": 1.5}, "optimizer.learning_rate": {"times": 0.5}}
    made = recipe_of(params, Trial("wider", 1, wider | {"validation.every": {"of": "schedule.steps", "times": 0.1}}))
    assert made.model.d_ff == round(1.5 * old.model.d_ff)
    assert made.optimizer.model_dump()["learning_rate"] == 0.5 * old.optimizer.model_dump()["learning_rate"]
    assert made.validation.every == round(0.1 * old.schedule.steps)


def test_recipe_of_refuses_another_shape_of_open_weights(params: Params) -> None:
    start = params.pretrain.start.model_copy(update={"kind": "folder"})
    opened = params.model_copy(update={"pretrain": params.pretrain.model_copy(update={"start": start})})
    with pytest.raises(UserError, match=r"model\.n_layers is about fresh weights"):
        recipe_of(opened, Trial("deeper", 1, {"model.n_layers": 3}))


def test_run_gives_the_entropy_only_where_all_documents_have_it(
    params: Params, ran: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A law would else be fitted to a floor that is another one's."""
    index = trials.SAMPLES / "documents/validation.parquet"
    table = pq.read_table(index)

    def knowing(bits: list[float | None]) -> Path:
        column = pa.array(bits, type=table.schema.field("bits").type)
        files.write_table(index, table.set_column(table.column_names.index("bits"), "bits", column))
        integrity.write_manifest(trials.SAMPLES)
        return index

    knowing([8.0] * len(table))
    (all_known,) = trials.run(params, TRIALS[:1])
    lengths = table["length"].to_pylist()
    assert all_known.known_nats == pytest.approx(8.0 * math.log(2) * len(table) / sum(lengths))
    knowing([8.0] * (len(table) - 1) + [None])
    (one_missing,) = trials.run(params, TRIALS[:1])
    assert one_missing.known_nats is None


def test_weights_and_flops_equal_a_count_by_hand() -> None:
    """Two blocks, 16 wide, 32 in the MLP, two heads of 8 and one of keys and values, a vocabulary of 30."""
    block = 16 * 16 + 2 * 16 * 8 + 16 * 16 + 3 * 16 * 32 + 2 * 16
    untied = network("llama", tie_embeddings=False)
    assert weights(untied) == 2 * block + 16 + 30 * 16
    assert weights(network("llama")) == weights(untied)  # tied: the table is the head
    assert flops_a_token(untied) == 6 * weights(untied) + 6 * 2 * 2 * 8 * 16
    learned = network("gpt2", tie_embeddings=False)
    assert weights(learned) == learned.num_parameters() - 30 * 16 - 16 * 16  # neither table multiplies


def test_mean_and_error() -> None:
    mean, error = mean_and_error([1.0, 2.0, 3.0])
    assert mean == 2.0
    assert error == pytest.approx(4.303 / 3**0.5, rel=1e-3)  # Student's quantile for two degrees of freedom
    assert mean_and_error([4.0])[0] == 4.0
    assert mean_and_error([4.0])[1] != mean_and_error([4.0])[1]  # not a number


def test_work_prints_its_result(
    params: Params, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.set_num_threads(1)
    (key,) = keys(params, TRIALS[:1])
    monkeypatch.setattr("sys.argv", ["trial", key, json.dumps(TRIALS[0]._asdict())])
    trials.work()
    assert "plain, seed 1: " in capsys.readouterr().out
    assert trials.kept(key) is not None
