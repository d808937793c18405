"""Packs a model folder as an MLflow model: the folder, its card and the code that serves it, sealed; no pickle.

A folder that holds an adapter only is packed with all weights, as `merged: true` would store it. Equal models, cards
and code give equal bytes: the clock, random ids and paths of this machine that MLflow writes into MLmodel are replaced.
"""

import shutil
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import mlflow
import yaml

from pipeline import files, foreign
from pipeline.closure import closure
from pipeline.config import plugins
from pipeline.errors import UserError
from pipeline.model.library_folder import is_library
from pipeline.paths import CODE
from pipeline.prompts.spec import REWARD, TaskSpec
from pipeline.prompts.templates import FOLDERS_OWN
from pipeline.registry import contents, evidence
from pipeline.registry.card import Facts

_SERVED_WITH = (
    "torch",
    "numpy",
    "safetensors",
    "tiktoken",
    "tokenizers",
    "pydantic",
    "PyYAML",
    "pandas",
    "cryptography",
)
SERVED = "pipeline.inference.requests"
"""The module whose import closure a version holds."""


def pack(folder: Path, target: Path, facts: Facts, card: str) -> contents.Contents:
    """Writes `target` as a sealed version.

    Args:
        folder: the model folder; its name is the model's.
        target: the version's folder, not there yet.
        facts: of the admitted model: its task, the hash that the folder must have, and the metrics that review shows.
        card: the model card.

    Raises:
        UserError: the model folder changed since it was admitted, or the base of its adapter is not there.
    """
    with _whole(folder) as whole:
        _save(whole, target, facts.tasks[0])
        _fix_mlmodel(target / "MLmodel", folder.name, files.sha256_of(whole))
    # a task is loaded by its name
    modules = [SERVED, *(f"pipeline.tasks.{name}" for name in plugins.choices("tasks"))]
    for path in {path for module in modules for path in closure(module).values()}:
        copy = target / "code" / path.relative_to(CODE)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
    files.write_text(target / contents.CARD, card)
    files.write_json(target / contents.METRICS, facts.metrics)
    files.write_json(target / contents.REVIEW, facts.review)
    evidence.write(target, facts)
    files.write_text(
        target / "__pycache__",
        "Not a folder: otherwise Python writes bytecode of _pyfunc.py here, a file that is not part of the version.\n",
    )
    sealed = contents.seal(target, folder.name)
    if files.sha256_of(folder) != facts.sha256 or (whole == folder and sealed.model_sha256 != facts.sha256):
        raise UserError(f"{folder}: changed while it was being registered; run `dvc checkout {folder}`, register again")
    return sealed


@contextmanager
def _whole(folder: Path) -> Iterator[Path]:
    """The folder itself; of an adapter a temporary one of the same name with all weights."""
    if not (folder / foreign.BASE).is_file():
        yield folder
        return
    from pipeline.model import checkpoint  # imports torch, which a whole folder does not need

    with tempfile.TemporaryDirectory(prefix="tohum-") as scratch:
        whole = Path(scratch) / folder.name
        checkpoint.write_whole(folder, whole)
        yield whole


def _save(folder: Path, target: Path, task: TaskSpec) -> None:
    from importlib.metadata import version

    example = [{"text": "Where does Ayşe live?" if task.template else "Merhaba"}]
    if task.name == REWARD:
        example[0]["answer"] = "In İzmir."
    served: tuple[str, ...] = (*_SERVED_WITH, "transformers") if is_library(folder) else _SERVED_WITH
    served += ("jinja2",) if task.template == FOLDERS_OWN else ()
    requirements = [f"{name}=={version(name).split('+')[0]}" for name in ("mlflow", *served)]
    with warnings.catch_warnings():
        # MLflow recommends type hints although a signature is given, and resets filters, but not this function.
        show = warnings.showwarning
        warnings.showwarning = lambda text, *rest: None if "type hints" in str(text) else show(text, *rest)
        mlflow.pyfunc.save_model(
            str(target),
            python_model=str(Path(__file__).parent / contents.ENTRY),
            artifacts={"model": str(folder)},
            signature=signature(task),
            input_example=example,
            pip_requirements=requirements,
        )


def _fix_mlmodel(path: Path, model: str, sha256: str) -> None:
    """Replaces the values that differ from one packing to the next: time, random id, absolute paths."""
    mlmodel = yaml.safe_load(path.read_text(encoding="utf-8"))
    flavour = mlmodel["flavors"]["python_function"]
    flavour["model_code_path"] = contents.ENTRY
    flavour["artifacts"]["model"]["uri"] = f"artifacts/{model}"
    mlmodel |= {"model_uuid": sha256[:32], "utc_time_created": "1970-01-01 00:00:00.000000"}
    files.write_text(path, yaml.safe_dump(mlmodel, sort_keys=True, allow_unicode=True))


def signature(task: TaskSpec) -> mlflow.models.ModelSignature:
    """A column of texts in; labels with probabilities, a value, or a completion with its generation settings, out."""
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema
    from mlflow.types.schema import Array, Map

    from pipeline.inference.predictor import GENERATION
    from pipeline.inference.requests import columns

    texts = Schema([ColSpec("string", name, required=required) for name, required in columns(task).items()])
    shares = ColSpec(Map(DataType.double), "probabilities")  # label -> probability
    if task.name == "regress":
        return ModelSignature(texts, Schema([ColSpec("double", "value")]))
    if task.name == REWARD:
        return ModelSignature(texts, Schema([ColSpec("double", "reward")]))
    if task.name == "multi_label":
        return ModelSignature(texts, Schema([ColSpec(Array(DataType.string), "labels"), shares]))
    if task.labels:
        return ModelSignature(texts, Schema([ColSpec("string", "label"), ColSpec("double", "score"), shares]))
    kinds = {int: "long", float: "double"}
    settings = [ParamSpec(key, kinds[type(value)], value) for key, value in GENERATION.items()]
    return ModelSignature(texts, Schema([ColSpec("string", "completion")]), ParamSchema(settings))
