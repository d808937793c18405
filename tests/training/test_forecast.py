"""forecast.py: memory and time of a training before it runs, from its own records; what cannot fit does not begin."""

from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline import config, files
from pipeline.config import plugins
from pipeline.config.recipe import Compute, Finetune
from pipeline.errors import UserError
from pipeline.model.config import ModelConfig
from pipeline.paths import TOKENIZER
from pipeline.tasks import IGNORED
from pipeline.tokenizer import Tokenizer
from pipeline.training import footprint, forecast, forecast_batches, forecast_rollouts
from stages import pretrain
from tests import projects
from tests.folders import write_raw

SHAPE: dict[str, Any] = {
    "family": "llama", "n_layers": 2, "n_heads": 2, "n_kv_heads": 1, "head_dim": 8, "d_model": 16, "d_ff": 32,
    "context_length": 16, "dropout": 0.0, "tie_embeddings": True, "bias": False, "rope_theta": 10000.0,
    "norm_epsilon": 1e-5, "logit_softcap": None,
}  # fmt: skip


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
    assert (result["lengths"], result["at_most"]) == ("samples", False)
    assert result["batch"] == {"tokens": 32, "predicted": 32, "longest": 16}
    assert result["seconds"] > 660 * result["seconds_update"]
    assert result["refusal"] is None
    unknown = forecast.forecast("finetune.spam-lora", params)  # no labelled record is there: the longest texts
    assert (unknown["lengths"], unknown["at_most"]) == ("longest", True)
    assert unknown["batch"] == {"tokens": 256, "predicted": 0, "longest": 16}


def drawn(where: str, kind: Any, folder: Path, epochs: float | None = None, method: str | None = None) -> Any:
    """The batches of a recipe whose raw records are in a folder, without samples; the vocabulary is not there."""
    params = config.load()
    if method is not None:
        params = params.model_copy(update={"tokenize": params.tokenize.model_copy(update={"method": method})})
    recipe = params.pretrain if where == "pretrain" else params.finetune[where.removeprefix("finetune.")]
    if epochs is not None:
        schedule = recipe.schedule.model_copy(update={"steps": None, "epochs": epochs})
        recipe = recipe.model_copy(update={"schedule": schedule})
    shape = ModelConfig(**params.pretrain.model.model_dump(), vocab_size=300)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(forecast_batches, "RAW", folder)
        patch.setattr(forecast_batches, "SAMPLES", folder / "none")
        if method != "vocabulary":
            patch.setattr(forecast_batches, "TOKENIZER", folder / "none")
        return forecast_batches.drawn(recipe, kind, where, shape, None, params)


def test_drawn_takes_lengths_of_raw_records_where_there_are_no_samples(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lost otherwise: `tohum plan` foretells 4 hours and 14 GiB of a training of 27 minutes and 2 GiB."""
    monkeypatch.chdir(made)
    asked = [{"instruction": f"ask {i:2d}", "input": "", "output": "four"} for i in range(40)]
    write_raw(tmp_path, labelled=[{"text": f"ten bytes{i % 7}", "label": "ham"} for i in range(40)], instructions=asked)
    texts = drawn("finetune.spam-lora", "labelled", tmp_path)
    assert (texts.lengths, texts.n_examples, len(texts.batches)) == ("raw", 36, 2)
    assert forecast.sizes(texts.batches[0], padded=False) == (16 * (4 + 8), 0, 4 + 8)
    answers = drawn("finetune.chat-lora", "instructions", tmp_path)
    assert answers.lengths == "raw"
    assert forecast.sizes(answers.batches[0], padded=False) == (32 * (11 + 2), 32 * 3, 11 + 2)
    longest = drawn("finetune.spam-lora", "labelled", tmp_path / "none")
    assert (longest.lengths, longest.n_examples) == ("longest", None)
    assert forecast.sizes(longest.batches[0], padded=False) == (16 * 16, 0, 16)


def test_drawn_measures_bytes_a_token_by_the_tokenizer_and_takes_characters_as_tokens(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(made)
    text = "ışıklar"
    write_raw(tmp_path, labelled=[{"text": text, "label": "ham"}] * 16)
    n_tokens = len(Tokenizer.load(TOKENIZER).encode(text))
    assert n_tokens < len(text)
    for method, expected in (("vocabulary", n_tokens), ("characters", len(text)), (None, 4)):
        batch = drawn("finetune.spam-lora", "labelled", tmp_path, method=method).batches[0]
        assert batch["lengths"].tolist() == [min(16, expected + 8)] * 16


def test_drawn_counts_windows_of_raw_documents_for_epochs(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lost otherwise: passes over documents that are not tokenized yet are foretold as one update each."""
    monkeypatch.chdir(made)
    write_raw(tmp_path, documents=[{"text": f"{i:10d}"} for i in range(640)])  # 4 tokens and end-of-text
    windows = drawn("pretrain", "documents", tmp_path, epochs=2.0)
    assert (windows.lengths, windows.n_examples) == ("longest", 180)
    assert drawn("pretrain", "documents", tmp_path).n_examples is None
    assert drawn("pretrain", "documents", tmp_path / "none", epochs=2.0).n_examples is None


def test_forecast_has_no_seconds_for_epochs_over_records_that_are_not_there(
    made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lost otherwise: a long training is foretold as one update; and one that may fit is refused."""
    monkeypatch.chdir(made)
    monkeypatch.setattr(footprint, "machine_bytes", lambda: 100 << 20)
    params = config.load()
    recipe = params.finetune["spam-lora"]
    recipe = recipe.model_copy(update={"schedule": recipe.schedule.model_copy(update={"steps": None, "epochs": 3.0})})
    unknown = forecast.forecast("finetune.a", params.model_copy(update={"finetune": {"a": recipe}}))
    assert (unknown["seconds"], unknown["refusal"], unknown["at_most"]) == (None, None, True)


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


def test_forecast_of_rollouts_counts_longest_answers_reference_cache_and_drawing(
    made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lost otherwise: two thirds of the time, and a second model."""
    monkeypatch.chdir(made)
    params = changed()
    chat = params.finetune["chat-lora"]
    fields = chat.model_dump(by_alias=True) | {
        "judge": {"name": "rule", "reads": "models/base", "check": "exact_match"},
        "task": {"name": "prompts", "template": "chat", "max_tokens": 16, "max_prompt_tokens": 10},
        "loss": {"name": "grpo"} | plugins.example("losses", "grpo"),
        "experience": {
            "name": "rollouts", "prompts": 4, "samples": 2, "updates": 2, "max_tokens": 6, "temperature": 1.0,
        },
        "ordering": {"name": "shuffled", "batch_size": 4},
    }  # fmt: skip
    drawn = Finetune.model_validate(fields)
    asked = params.model_copy(update={"finetune": params.finetune | {"drawn": drawn}})
    found = forecast.forecast("finetune.drawn", asked)
    assert found["batch"]["tokens"] == 4 * found["batch"]["longest"]
    assert found["seconds"] > 0
    batches = [{"inputs": torch.zeros(4, 15), "targets": torch.zeros(4, 15)}]
    beside = forecast_rollouts.beside(drawn, batches)
    assert beside == footprint.Beside(frozen=1, trained=0, cached=8 * 16)
    assert forecast_rollouts.beside(chat, batches) == footprint.Beside()
    ppo = drawn.model_copy(update={"loss": drawn.loss.model_copy(update={"name": "ppo"})})
    assert forecast_rollouts.beside(ppo, batches).trained == 1
    per_block = forecast_rollouts.seconds(drawn, 4, 0.5, 0.25)
    blocks, answers = drawn.schedule.updates / 2, drawn.validation.batches * 4 / 8
    validations = -(-drawn.schedule.updates // drawn.validation.every)
    assert per_block == pytest.approx(6 * 0.5 * (blocks + validations * answers) + blocks * 2 * 0.25)
    assert forecast_rollouts.seconds(chat, 4, 0.5, 0.25) == 0.0


def test_footprint_counts_models_beside_the_trained_one() -> None:
    config = ModelConfig(**SHAPE, vocab_size=300)
    counts, batch = footprint.Counts(1000, 1000, 0), footprint.BatchShape(10, 10, 5)
    compute = Compute(device="cpu", threads=1, precision="float32", compile=False, checkpoint_activations=False,
                      weights="float32")  # fmt: skip
    alone = footprint.footprint(config, counts, "adamw", compute, batch)
    both = footprint.footprint(config, counts, "adamw", compute, batch, footprint.Beside(2, 1, 0))
    assert both.weights - alone.weights == 3 * 4000
    assert both.gradients - alone.gradients == 4000
    assert both.optimizer - alone.optimizer == 2 * 4000
    assert both.activations == 2 * alone.activations
    cached = footprint.footprint(config, counts, "adamw", compute, batch, footprint.Beside(0, 0, 10**6))
    assert cached.activations == 8.0 * config.n_layers * config.n_kv_heads * config.head_dim * 10**6
