"""From a recipe to a model folder, for pairs of task and tuner."""

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from pipeline import config, files, tokenizer
from pipeline.config import plugins
from pipeline.config.params import Params
from pipeline.errors import UserError
from pipeline.evaluation import open_subject
from pipeline.files import write_table
from pipeline.inference.labels import probabilities
from pipeline.inference.predictor import Predictor
from pipeline.model import checkpoint
from pipeline.paths import CODE as ROOT
from pipeline.tasks import Request
from pipeline.tracking.tracker import NullTracker
from pipeline.training import build
from pipeline.training import recipe as recipes
from pipeline.tuners.full import Full
from tests.fakes import labelled
from tests.models import network

CLOZE = {
    "name": "cloze", "pattern": "{text} It is{label}", "verbalizers": {"ham": " message", "spam": " spam"},
    "max_tokens": 40,
}  # fmt: skip
TUNERS: list[dict[str, Any]] = [
    {"name": "full"},
    {"name": "bottleneck", "width": 2, "with_base": True},
    {"name": "prompt", "virtual_tokens": 4, "text": "spam", "with_base": True},
]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a base model, its vocabulary and a few messages."""
    import pyarrow as pa

    from pipeline.data.records import SCHEMAS

    monkeypatch.chdir(tmp_path)
    tokenizer.train(["Ayşe geldi, ödül kazandın! It is a message, it is spam. " * 20], 300, "gpt2").save(Path("words"))
    vocabulary = tokenizer.Tokenizer.load(Path("words")).vocab_size
    base = network("llama", vocab_size=vocabulary, context_length=48, tie_embeddings=False)
    checkpoint.save(base, Path("models/base"), tokenizer=Path("words"))
    rows = [labelled(f"ödül {i}" if i % 2 else f"akşam {i}", "spam" if i % 2 else "ham") for i in range(12)]
    full = [{"id": str(i), "source": "own", "language": "tr", "split": "train"} | row for i, row in enumerate(rows)]
    for split in ("train", "validation"):
        names = SCHEMAS["labelled"].names
        table = pa.Table.from_pylist([{name: row.get(name) for name in names} for row in full])
        write_table(Path(f"data/samples/labelled/{split}.parquet"), table)
    return tmp_path


def params_of(task: dict[str, Any], tuner: dict[str, Any], loss: str = "cross_entropy") -> Params:
    raw = yaml.safe_load((ROOT / "infra/profiles/embedded.yaml").read_text(encoding="utf-8"))
    raw["runtime"]["progress"], raw["search"] = False, {}
    chosen = raw["finetune"]["spam-lora"]
    chosen |= {"task": task, "tuner": tuner, "loss": {"name": loss}}
    chosen["schedule"] |= {"steps": 3, "warmup_steps": 1}
    chosen["validation"] |= {"every": 2}
    return config.check(raw)


def train(params: Params, start: str = "base") -> None:
    recipe, folder = params.finetune["spam-lora"], Path("models") / start
    recipes.train(
        "spam-lora", "finetune.spam-lora", recipe, "labelled",
        lambda generator, device: checkpoint.load(folder, str(device)),
        [folder], params, NullTracker(), folder,
    )  # fmt: skip


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize("tuner", TUNERS, ids=lambda tuner: tuner["name"])
@pytest.mark.parametrize("task", [{"name": "classify", "max_tokens": 40}, CLOZE], ids=lambda part: part["name"])
def test_train_writes_a_model_that_can_be_loaded_and_classifies(task: dict[str, Any], tuner: dict[str, Any]) -> None:
    """Lost otherwise: a run of hours would end in an error at the last step."""
    params = params_of(task, tuner)
    train(params)
    subject = open_subject("spam-lora", params.compute)
    found = probabilities(subject.model, subject.labelling("m"), [Request("ödül 1"), Request("akşam 2" * 40)], 2)
    assert found.shape == (2, 2)
    torch.testing.assert_close(found.sum(1), torch.ones(2))


def relabel(cells: list[str]) -> None:
    """Replaces the labels of both splits."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    for split in ("train", "validation"):
        path = Path(f"data/samples/labelled/{split}.parquet")
        table = pq.ParquetFile(path).read()
        place = table.column_names.index("label")
        write_table(path, table.set_column(place, table.schema.field("label"), pa.array(cells)))


HEAD_TASKS = {
    "multi_label": (['["hediye", "kısa"]', "[]", '["kısa"]'] * 4, "binary_cross_entropy", {"decide": {"by": "f1"}}),
    "regress": ([str(number / 2) for number in range(12)], "squared_error", {}),
}


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize("tuner", TUNERS, ids=lambda tuner: tuner["name"])
@pytest.mark.parametrize("name", HEAD_TASKS)
def test_train_writes_a_model_that_answers_with_several_labels_or_a_number(name: str, tuner: dict[str, Any]) -> None:
    """From labels in the records to answers of the folder, with the weights that training left."""
    cells, loss, settings = HEAD_TASKS[name]
    relabel(cells)
    params = params_of({"name": name, "max_tokens": 40} | settings, tuner, loss)
    train(params)
    predictor = Predictor(Path("models/spam-lora"))
    answers = predictor.answer(["ödül 1", "akşam 2" * 40])
    if name == "regress":
        assert predictor.task.spec.mean == pytest.approx(2.75)
        assert all(-20 < answer["value"] < 25 for answer in answers)
        return
    assert predictor.task.spec.labels == ("hediye", "kısa")
    assert set(predictor.task.spec.thresholds or {}) == {"hediye", "kısa"}
    assert all(set(answer["probabilities"]) == {"hediye", "kısa"} for answer in answers)


@pytest.mark.usefixtures("project")
def test_train_refuses_labels_that_are_no_numbers_when_the_task_is_regression() -> None:
    with pytest.raises(UserError, match=r"label 'ham' is no number, which task regress needs; write label_form: numbe"):
        train(params_of({"name": "regress", "max_tokens": 40}, {"name": "full"}, "squared_error"))


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize("by", ["f1", "cost"])
def test_train_chooses_thresholds_on_validation_and_the_predictor_uses_them(by: str) -> None:
    costs = {"costs": {"ham": {"spam": 9.0}, "spam": {"ham": 1.0}}} if by == "cost" else {}
    train(params_of({"name": "classify", "max_tokens": 40, "decide": {"by": by} | costs}, {"name": "full"}))
    predictor = Predictor(Path("models/spam-lora"))
    thresholds = predictor.task.spec.thresholds
    assert thresholds is not None
    assert sum(thresholds.values()) == pytest.approx(1)
    texts = [f"ödül {number}" for number in range(12)]
    for answer, row in zip(predictor.answer(texts), predictor.probabilities([Request(t) for t in texts]), strict=True):
        assert answer["label"] == ("spam" if row["spam"] >= thresholds["spam"] else "ham")


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize(
    ("name", "weights"),
    [(name, "float32") for name in ("lora", "ia3", "prefix", "prompt", "bottleneck")] + [("lora", "bfloat16")],
)
def test_train_stores_an_adapter_without_its_base_that_loads_as_the_whole_model(
    name: str, weights: str, project: Path
) -> None:
    """The same recipe in both forms: equal weights, and all files of the whole folder again from the small one.

    With frozen weights in bfloat16 the model is that of the rounded base, and so it must be when it is read.
    """
    settings = {"name": name} | plugins.example("tuners", name)
    key = "merged" if "merged" in settings else "with_base"
    task = {"name": "classify", "max_tokens": 40}
    for form in ("whole", "spam-lora"):
        params = params_of(task, settings | {key: form == "whole"})
        train(params.model_copy(update={"compute": params.compute.model_copy(update={"weights": weights})}))
        (project / "models/spam-lora").rename(project / "models" / form)
    assert not list((project / "models/spam-lora").rglob("model.safetensors"))
    checkpoint.write_whole(Path("models/spam-lora"), Path("models/again"))
    assert files.sha256_of(Path("models/again")) == files.sha256_of(Path("models/whole"))
    loaded, whole = (checkpoint.load(Path("models") / name).state_dict() for name in ("spam-lora", "whole"))
    assert all(torch.equal(loaded[key], value) for key, value in whole.items())


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize(("steps", "weights"), [(0, "float32"), (3, "bfloat16")])
def test_train_records_the_precision_that_the_frozen_weights_had(steps: int, weights: str) -> None:
    """Lost otherwise: without a step nothing is lowered, and the folder read again is another model than was scored."""
    params = params_of(
        {"name": "classify", "max_tokens": 40}, {"name": "lora"} | plugins.example("tuners", "lora") | {"merged": False}
    )
    recipe = params.finetune["spam-lora"]
    schedule = recipe.schedule.model_copy(update={"steps": steps, "warmup_steps": 0})
    params.finetune["spam-lora"] = recipe.model_copy(update={"schedule": schedule})
    train(params.model_copy(update={"compute": params.compute.model_copy(update={"weights": "bfloat16"})}))
    assert files.read_json(Path("models/spam-lora/base.json"))["weights"] == weights


@pytest.mark.usefixtures("project")
def test_train_names_no_base_for_an_adapter_over_an_adapter() -> None:
    """Lost otherwise: peft would be sent to a folder without weights."""
    task, lora = {"name": "classify", "max_tokens": 40}, {"name": "lora"} | plugins.example("tuners", "lora")
    train(params_of(task, lora | {"merged": False}))
    Path("models/spam-lora").rename("models/first")
    params = params_of(task, lora)
    recipe = params.finetune["spam-lora"].model_copy(update={"start": "first"})
    params.finetune["spam-lora"] = recipe
    train(params, "first")
    config = files.read_json(Path("models/spam-lora/adapter/adapter_config.json"))
    assert config["base_model_name_or_path"] is None
    assert checkpoint.load(Path("models/spam-lora")).score is not None


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize(
    ("accumulate", "batch_warmup_steps", "epochs"), [(1, 0, 4.0), (2, 0, 8.0), (4, 3, 9 * 16 / 12)]
)
def test_train_counts_records_and_epochs(accumulate: int, batch_warmup_steps: int, epochs: float) -> None:
    """Lost otherwise: a model that has seen a tenth of its records once would look like a trained one."""
    params = params_of({"name": "classify", "max_tokens": 40}, {"name": "full"})
    recipe = params.finetune["spam-lora"]
    schedule = recipe.schedule.model_copy(update={"accumulate": accumulate, "batch_warmup_steps": batch_warmup_steps})
    params.finetune["spam-lora"] = recipe.model_copy(update={"schedule": schedule})
    train(params)
    summary = files.read_json(Path("reports/training/spam-lora.json"))
    assert summary["records"] == 12
    assert summary["epochs"] == pytest.approx(epochs)  # batches of 16; a warm-up to 4 over 3 updates is 2 + 3 + 4


@pytest.mark.usefixtures("project")
def test_train_refuses_virtual_tokens_that_leave_no_room() -> None:
    """Lost otherwise: the first long message would end the run with an error about positions."""
    tuner = {"name": "prompt", "virtual_tokens": 20, "text": "spam", "with_base": True}
    with pytest.raises(UserError, match=r"leave room for 28 of 48 tokens, task.max_tokens is 40; use fewer"):
        train(params_of({"name": "classify", "max_tokens": 40}, tuner))


@pytest.mark.usefixtures("project")
def test_train_refuses_a_tuner_that_trains_no_weight(monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole way: the refusal comes before torch's optimizer is built."""
    monkeypatch.setattr(Full, "apply", lambda _self, model, *_: model.requires_grad_(False))
    with pytest.raises(UserError, match=r"finetune\.spam-lora\.tuner\.name is 'full', which trains no weight"):
        train(params_of({"name": "classify", "max_tokens": 40}, {"name": "full"}))


def test_build_refuses_a_tuner_that_trains_no_weight() -> None:
    """Lost otherwise: torch's error about an empty parameter list, which names no setting."""
    model = network("nanochat").requires_grad_(False)
    with pytest.raises(
        UserError, match=r"finetune.chat.tuner.name is 'norms', which trains no weight of this nanochat"
    ):
        build._require_trainable("finetune.chat", "norms", model)


@pytest.mark.usefixtures("project")
def test_train_names_the_recipe_in_an_error_of_a_part() -> None:
    """A part knows its own settings only; of thirty recipes the user would have to guess."""
    tuner = {"name": "layers", "last": 0, "first": 0, "pattern": "zzz", "embeddings": False}
    with pytest.raises(UserError, match=r"params.yaml: finetune.spam-lora.tuner.pattern is 'zzz'"):
        train(params_of({"name": "classify", "max_tokens": 40}, tuner))
