"""Reads and validates params.yaml: every section, every part's own settings, and constraints between them."""

from pathlib import Path
from typing import Any

import yaml

from pipeline.config import plugins
from pipeline.config.params import Params
from pipeline.config.recipe import AXES, Recipe
from pipeline.config.section import validated
from pipeline.errors import UserError
from pipeline.paths import PARAMS


def choice(kind: str, arguments: list[str], choices: list[str]) -> str:
    """The single command-line argument, which names a `kind` (model, recipe). Raises UserError with the choices."""
    if len(arguments) != 1 or arguments[0] not in choices:
        given = " ".join(arguments) or "nothing"
        raise UserError(f"which {kind}? found {given!r}; one of: {', '.join(choices)}")
    return arguments[0]


def load(path: Path = PARAMS) -> Params:
    """Reads and checks a params file, the parts' own settings included.

    Raises:
        UserError: unreadable file, unknown key, wrong type, unknown part, a recipe or merge of an unknown model.
    """
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; run from the project's root, or pass its path") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not readable as YAML: {error}") from None
    return check(raw, path.name)


def check(raw: Any, name: str = "params.yaml") -> Params:
    """Checks parsed YAML as `load` does; errors call the file `name`."""
    from pipeline.config import compatibility, measure_rules, search_space

    params: Params = validated(Params, raw, "", name)
    above: list[str] = []
    for source, entry in params.download.sources.items():
        settings = entry.settings("data/sources", f"download.sources.{source}")
        if (of := getattr(settings, "of", None)) is not None and of not in above:
            raise UserError(f"{name}: download.sources.{source}.of is {of!r}; one of the sources above it: {above}")
        above.append(source)
    recipes: dict[str, Recipe] = {"pretrain": params.pretrain}
    recipes |= {f"finetune.{model}": recipe for model, recipe in params.finetune.items()}
    for where, recipe in recipes.items():
        for axis in AXES:
            recipe.part(axis, where)
    compatibility.check(params, name)
    for model, merge in params.merge.items():
        merge.rule.settings("merging", f"merge.{model}.rule")
    for model, evaluation in params.evaluations.items():
        for measure, fields in evaluation.measures.items():
            where = f"evaluations.{model}.measures.{measure}"
            validated(plugins.settings_class("evaluation", measure, where), fields, where)
    for fault in measure_rules.faults(params):
        raise UserError(f"{name}: {fault}")
    for gate, fields in params.gates.items():
        validated(plugins.settings_class("gates", gate, f"gates.{gate}"), fields, f"gates.{gate}")
    search_space.check(params)
    return params
