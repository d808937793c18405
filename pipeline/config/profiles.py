"""Profiles: named overlays on the embedded default. `tohum profile NAME [NAME ...]` applies them.

A profile is a YAML file in infra/profiles: dotted paths and the value that each is set to (`pretrain.model.d_model:
64`; a mapping is set whole, not merged), and `recipes` in a short notation (pipeline/config/variants.py). params.yaml
becomes embedded.yaml with the overlays in order, every recipe spelled out, so the change shows in `git diff`. The
result is checked before it is written, and the user's own changes in params.yaml are never overwritten without --force.
"""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from pipeline import config, files
from pipeline.config import variants
from pipeline.errors import UserError
from pipeline.paths import PROFILES, WORK

BASE = "embedded"
_APPLIED = WORK / "profile.json"
"""Names of the profiles applied last, and the SHA-256 of the params file written from them."""
REMOVED = object()
"""In place of a value: the key is taken out."""
_BLOCKS = {"download.sources": 2}
"""Levels of a mapping that are written over several lines; 0 for the others."""
_MAPPINGS = ("finetune", "evaluations", variants.KEY)
"""Keys whose value is a mapping by name. Others may be null, and config checks what they hold."""


def available() -> list[str]:
    """The names of the profiles, the embedded default first."""
    names = sorted(path.stem for path in PROFILES.glob("*.yaml"))
    return [BASE, *(name for name in names if name != BASE)]


def apply(
    names: list[str], force: bool = False, target: Path = config.PARAMS, more: Mapping[str, Any] | None = None
) -> None:
    """Writes the embedded default with the overlays `names` to `target`.

    Args:
        names: profiles, in order.
        force: overwrite changes of the user's own.
        target: the params file.
        more: dotted paths and values on top of the profiles.

    Raises:
        UserError: no such profile, a profile file that is not readable, a path that params.yaml does not have, a
            result that config refuses, or changes in `target` that are in no profile. Nothing is written then.
    """
    text = rendered(names, more)
    require_replaceable(force, target)
    files.write_text(target, text)
    files.write_json(target.parent / _APPLIED, {"names": names, "sha256": files.sha256_of(target)})


def require_replaceable(force: bool, target: Path = config.PARAMS) -> None:
    """Raises UserError where `target` holds changes of the user's own, unless `force`."""
    if target.exists() and not force and not _unchanged(target) and not _is_profile(target):
        raise UserError(
            f"{target}: it holds changes that no profile made and that would be lost; commit or copy them, then "
            "run again with `tohum profile --force`"
        )


def rendered(names: list[str], more: Mapping[str, Any] | None = None) -> str:
    """The params file of these profiles as text, comments kept, every recipe spelled out, checked by config.

    Args:
        names: profiles, in order.
        more: dotted paths and values on top of the profiles.

    Raises:
        UserError: no such profile, a profile file that is not readable, a path that is not there, a result that
            config refuses.
    """
    unknown = [name for name in names if name not in available()]
    if unknown:
        raise UserError(f"profile {unknown[0]!r} is not in {PROFILES}; one of: {', '.join(available())}")
    text = (PROFILES / f"{BASE}.yaml").read_text(encoding="utf-8")
    overlays = [name for name in names if name != BASE]
    if overlays or more:
        yaml_format = _round_trip()
        params = yaml_format.load(text)
        for name in overlays:
            for path, value in overlay(name).items():
                _set(params, path.split("."), value, f"infra/profiles/{name}.yaml: {path}")
        change(params, more or {})
        stream = io.StringIO()
        yaml_format.dump(params, stream)
        text = stream.getvalue()
    shown = f"profile {' + '.join(names)}"
    try:
        params = yaml.safe_load(text)
    except yaml.YAMLError as error:  # what ruamel reads and yaml does not, such as an unknown tag
        raise UserError(f"{shown}: not readable as YAML: {error}") from None
    config.check(params, shown)
    return text


def change(params: Any, changes: Mapping[str, Any]) -> None:
    """Sets the values at dotted paths of a parsed params file, or takes keys out (REMOVED).

    Raises:
        UserError: a path that is not there.
    """
    for path, value in changes.items():
        *steps, last = path.split(".")
        if value is REMOVED:
            place = params
            for step in steps:
                place = place[step]
            del place[last]
        else:
            _set(params, [*steps, last], _in_blocks(value, _BLOCKS.get(path, 0)), path)


def overlay(name: str) -> dict[str, Any]:
    """The dotted paths of one profile and the value that each is set to, its `recipes` expanded.

    Raises:
        UserError: a file that is no YAML mapping, an empty section, a recipe in short notation that is wrong.
    """
    path = PROFILES / f"{name}.yaml"
    written = _read(path)
    values = variants.expanded(written, f"infra/profiles/{name}.yaml")
    if variants.KEY in written:
        values["finetune"] = _in_blocks(values["finetune"], depth=2)
        values["evaluations"] = _in_blocks(values["evaluations"], depth=3)
    return values


def _read(path: Path) -> Any:
    """The mapping of a profile file. Raises UserError with the line where it is no profile."""
    from ruamel.yaml.comments import CommentedMap
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    shown = f"infra/profiles/{path.name}"
    try:
        written = _round_trip().load(path.read_text(encoding="utf-8"))
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise UserError(f"{shown}, line {line}: not readable as YAML: {error.problem or error.context}") from None
    except (YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{shown}: not readable as YAML: {error}") from None
    if written is None:
        return {}
    if not isinstance(written, CommentedMap):
        found = "a list" if isinstance(written, list) else repr(written)
        raise UserError(
            f"{shown}, line 1: found {found}; expected a mapping from dotted paths in params.yaml to values, such as "
            "`pretrain.schedule.steps: 50`"
        )
    for key, value in written.items():
        line = (written.lc.data or {}).get(key, [0])[0] + 1  # a key merged in by `<<` has none
        place = f"{shown}, line {line}: {key}"
        if not isinstance(key, str):
            raise UserError(f"{place} is no text; expected a dotted path in params.yaml")
        if key in _MAPPINGS and not isinstance(value, dict):
            raise UserError(f"{place} is {'empty' if value is None else repr(value)}; expected a mapping")
    return written


def _round_trip() -> Any:
    """A reader and writer of YAML that keeps comments, quotes, the form of numbers and of mappings; no aliases."""
    from ruamel.yaml import YAML

    yaml_format = YAML()
    yaml_format.width, yaml_format.preserve_quotes = 10_000, True
    yaml_format.indent(mapping=2, sequence=4, offset=2)
    yaml_format.representer.ignore_aliases = lambda _: True
    return yaml_format


def _in_blocks(value: Any, depth: int) -> Any:
    """The mapping as YAML writes it: `depth` levels over several lines, everything further inside on one line."""
    from ruamel.yaml.comments import CommentedMap

    if not isinstance(value, dict):
        return value
    styled = CommentedMap({key: _in_blocks(inner, depth - 1) for key, inner in value.items()})
    if depth > 0:
        styled.fa.set_block_style()
    else:
        styled.fa.set_flow_style()
    return styled


def _set(params: Any, path: list[str], value: Any, where: str) -> None:
    section = params
    for step in path[:-1]:
        if not isinstance(section, dict) or step not in section:
            known = ", ".join(map(str, section)) if isinstance(section, dict) else "nothing below it"
            raise UserError(f"{where}: {step!r} is not there; one of: {known}")
        section = section[step]
    if not isinstance(section, dict):
        raise UserError(f"{where}: its parent is not a section")
    section[path[-1]] = value


def _unchanged(target: Path) -> bool:
    """Whether `target` is still, byte for byte, the file that was written by the last `apply`, of several names too."""
    try:
        applied = files.read_json(target.parent / _APPLIED)
    except (OSError, ValueError):
        return False
    return isinstance(applied, dict) and applied.get("sha256") == files.sha256_of(target)


def _is_profile(target: Path) -> bool:
    """Whether the parsed `target` equals a single profile: it holds no change of the user's own."""
    try:
        params = yaml.safe_load(target.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError):
        return False
    for name in available():
        try:
            if yaml.safe_load(rendered([name])) == params:
                return True
        except UserError:
            continue
    return False
