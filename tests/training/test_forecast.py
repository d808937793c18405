"""forecast.py: memory and time of a training before it runs, from its own records; what cannot fit does not begin."""

from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline import config, files
from pipeline.errors import UserError
from pipeline.tasks import IGNORED
from pipeline.training import footprint, forecast
from stages import pretrain
from tests import projects


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project ready for pretrain."""
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        projects.small(folder)
    return folder


def changed(**compute: Any) -> config.params.Params:
    params = config.load()
    return params.model_copy(update={"compute": params.compute.model_copy(update=compute)})


def test_forecast_counts_weights_and_batches_of_the_recipe(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The blocks are extrapolated from fewer: the weights of all of them must come out exactly."""
    monkeypatch.chdir(made)
    params = changed()
    model = params.pretrain.model.model_copy(update={"n_layers": 3})
    params = params.model_copy(update={"pretrain": params.pretrain.model_copy(update={"model": model})})
    result = forecast.forecast("pretrain", params)
    assert result["from_records"]
    assert result["batch"] == {"tokens": 32, "predicted": 32, "longest": 16}
    assert result["seconds"] > 660 * result["seconds_update"]
    assert result["refusal"] is None
    unknown = forecast.forecast("finetune.spam-lora", params)  # no labelled record is there: the longest texts
    assert not unknown["from_records"]
    assert unknown["batch"] == {"tokens": 256, "predicted": 0, "longest": 16}


def test_forecast_is_printed_for_every_recipe_that_can_be_built(
    made: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(made)
    monkeypatch.setattr("sys.argv", ["forecast", "finetune.chat-lora", "finetune.spam-layers"])
    real = forecast.forecast

    def one_fails(where: str, params: Any) -> dict[str, Any]:
        if where == "finetune.chat-lora":
            raise UserError("open weights that are not here")
        return real(where, params)

    monkeypatch.setattr(forecast, "forecast", one_fails)
    forecast.main()
    printed = capsys.readouterr()
    assert printed.err.startswith("finetune.chat-lora: open weights")
    assert printed.out.startswith('forecast: {"where": "finetune.spam-layers", "memory_mib": ')


def test_sizes_leave_out_padding_where_the_network_does() -> None:
    targets_BT = torch.tensor([[IGNORED, 3, IGNORED, IGNORED], [IGNORED, 3, 4, 5]])
    answers = {"inputs": torch.ones(2, 4, dtype=torch.long), "targets": targets_BT}
    assert forecast.sizes(answers, padded=False) == (2 + 4, 4, 4)
    assert forecast.sizes(answers, padded=True) == (8, 4, 4)
    texts = {"inputs": torch.ones(2, 4, dtype=torch.long), "targets": torch.zeros(2), "lengths": torch.tensor([4, 1])}
    assert forecast.sizes(texts, padded=False) == (5, 0, 4)
    assert forecast.sizes(texts, padded=True) == (8, 0, 4)


def test_train_refuses_before_it_starts_a_training_that_does_not_fit(
    made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lost otherwise: the machine ends the stage in the middle of its first update."""
    monkeypatch.chdir(made)
    monkeypatch.setattr(footprint, "machine_bytes", lambda: 100 << 20)
    with pytest.raises(UserError, match=r"params.yaml: pretrain needs about \d+ MiB of memory .* there are 100; "):
        pretrain.main()
    assert not Path("models/base").exists()
    assert "seconds_total" in files.read_json(Path("reports/runs/pretrain.json"))
