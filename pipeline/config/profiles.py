"""Profiles: named overlays on the embedded default. `tohum profile NAME [NAME ...]` applies them.

A profile is a YAML file in infra/profiles of dotted paths and the value each is set to (`pretrain.model.d_model: 64`;
a mapping is set whole, nothing is merged into it). params.yaml becomes embedded.yaml with the overlays in order, so the
change shows in `git diff`. The result is checked before anything is written, and changes of the user's own in
params.yaml are never overwritten unless --force says so.
"""

import io
import json
from pathlib import Path
from typing import Any

import yaml

from pipeline import config, files
from pipeline.errors import UserError
from pipeline.paths import PROFILES

BASE = "embedded"


def available() -> list[str]:
    """The names of the profiles, the embedded default first."""
    names = sorted(path.stem for path in PROFILES.glob("*.yaml"))
    return [BASE, *(name for name in names if name != BASE)]


def apply(names: list[str], force: bool = False, target: Path = config.PARAMS) -> None:
    """Writes the embedded default with the overlays `names` to `target`.

    Raises:
        UserError: no such profile, a path that params.yaml does not have, a result that config refuses, or changes in
            `target` that are in no profile. Nothing was written then.
    """
    text = rendered(names)
    if target.exists() and not force:
        found = yaml.safe_load(target.read_text(encoding="utf-8"))
        if not _is_profile(found):
            raise UserError(
                f"{target}: it holds changes that no profile made and that would be lost; commit or copy them, then "
                "run again with `tohum profile --force`"
            )
    files.write_text(target, text)


def rendered(names: list[str]) -> str:
    """The params file of these profiles as text, comments kept, checked by config."""
    from ruamel.yaml import YAML

    for name in names:
        if name not in available():
            raise UserError(f"profile {name!r} is not in {PROFILES}; one of: {', '.join(available())}")
    reader = YAML()
    reader.width, reader.preserve_quotes = 120, True
    reader.indent(mapping=2, sequence=4, offset=2)
    raw = (PROFILES / f"{BASE}.yaml").read_text(encoding="utf-8")
    overlays = [name for name in names if name != BASE]
    if not overlays:
        config.check(yaml.safe_load(raw), f"profile {BASE}")
        return raw
    params = reader.load(raw)
    for name in overlays:
        for path, value in _overlay(name, reader).items():
            _set(params, path.split("."), value, f"infra/profiles/{name}.yaml: {path}")
    stream = io.StringIO()
    reader.dump(params, stream)
    config.check(yaml.safe_load(stream.getvalue()), f"profile {' + '.join(names)}")
    return stream.getvalue()


def _overlay(name: str, reader: Any) -> Any:
    """The profile's paths and values; where it writes recipes by YAML merge keys, they come spelled out."""
    text = (PROFILES / f"{name}.yaml").read_text(encoding="utf-8")
    if "<<:" in text:
        return json.loads(json.dumps(yaml.safe_load(text)))
    return reader.load(text) or {}


def _set(params: Any, path: list[str], value: Any, where: str) -> None:
    place = params
    for step in path[:-1]:
        if not isinstance(place, dict) or step not in place:
            known = ", ".join(map(str, place)) if isinstance(place, dict) else "nothing below it"
            raise UserError(f"{where}: {step!r} is not there; one of: {known}")
        place = place[step]
    if not isinstance(place, dict):
        raise UserError(f"{where}: its parent is not a section")
    place[path[-1]] = value


def _is_profile(found: Any) -> bool:
    """Whether a params file is what some single profile, or the default, gives: nothing of the user's is in it."""
    for name in available():
        try:
            if yaml.safe_load(rendered([name])) == found:
                return True
        except UserError:
            continue
    return False
