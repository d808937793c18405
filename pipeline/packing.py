"""A model folder as an MLflow model: the folder, the package's code, a signature; no pickle anywhere."""

import warnings
from pathlib import Path
from typing import Any

import mlflow

_SERVED_WITH = (
    "torch",
    "numpy",
    "safetensors",
    "tiktoken",
    "tokenizers",
    "regex",
    "pydantic",
    "PyYAML",
    "pandas",
)


def pack(folder: Path, target: Path, task: dict[str, Any]) -> None:
    """Writes `target` as an MLflow model: the folder's files, the package's code, a signature; no pickle."""
    from importlib.metadata import version

    package = Path(__file__).parent
    example = ["Where does Ayşe live?"] if "template" in task else ["Merhaba"]
    requirements = [f"{name}=={version(name).split('+')[0]}" for name in ("mlflow", *_SERVED_WITH)]
    with warnings.catch_warnings():
        # MLflow advises type hints, though a signature is given; filters it resets, this it leaves alone.
        shown = warnings.showwarning
        warnings.showwarning = lambda said, *more: None if "type hints" in str(said) else shown(said, *more)
        mlflow.pyfunc.save_model(
            str(target),
            python_model=str(package / "_pyfunc.py"),
            artifacts={"model": str(folder)},
            code_paths=[str(package)],
            signature=signature(task),
            input_example=example,
            pip_requirements=requirements,
        )


def signature(task: dict[str, Any]) -> mlflow.models.ModelSignature:
    """Texts in; label and score, or a completion with its generation settings, out."""
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema

    from pipeline.labelling import answers_with_label
    from pipeline.serving import GENERATION

    texts = Schema([ColSpec("string")])
    if answers_with_label(task):
        return ModelSignature(texts, Schema([ColSpec("string", "label"), ColSpec("double", "score")]))
    kinds = {int: "long", float: "double"}
    settings = [ParamSpec(key, kinds[type(value)], value) for key, value in GENERATION.items()]
    return ModelSignature(texts, Schema([ColSpec("string", "completion")]), ParamSchema(settings))
