"""DVC's graph as data: the stages with their upstream stages, outs, and reasons for being stale.

`read()` reads DVC's own index and status once, so that the flow and the plan need no further call of DVC to know which
stages are cached. `meta:` of a stage in dvc.yaml holds the hints for the flow.
"""

import difflib
import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError

from pipeline.config.section import Section
from pipeline.errors import UserError
from pipeline.orchestration import code_changes
from pipeline.paths import CODE_OF_STAGES


class Meta(Section):
    """Hints for the flow in a stage's `meta:`; DVC ignores them, so changing them makes nothing stale."""

    retries: Annotated[int, Field(ge=0)] = 0
    """Tries after the first."""
    timeout_s: Annotated[float, Field(gt=0)] | None = None
    """Seconds for a try; null for no limit."""
    tags: tuple[str, ...] = ()
    """Prefect's concurrency limits go by these; stages tagged `gpu` never run side by side."""
    cores: Annotated[int, Field(gt=0)] | None = None
    """Cores the stage keeps busy; null takes them all."""


_KINDS = ("always", "parameter", "command", "dependency", "out")


@dataclass(frozen=True)
class Change:
    """A reason why a stage is stale; `kind` is one of _KINDS."""

    kind: str
    name: str
    how: str


@dataclass(frozen=True)
class Stage:
    """One stage of dvc.yaml with its `foreach` key resolved."""

    name: str
    command: str
    upstream: tuple[str, ...]
    outs: tuple[str, ...]
    """Paths as dvc.yaml writes them."""
    meta: Meta = field(default_factory=Meta)
    needs: tuple[str, ...] = ()
    """Dependencies that no stage makes and that are not there."""
    changes: tuple[Change, ...] = ()
    """Empty when DVC detects no change."""
    restorable: bool = False
    """Whether DVC's run cache holds the outs of exactly these inputs."""


@dataclass(frozen=True)
class Graph:
    """The stages in topological order: each after its upstream stages."""

    stages: dict[str, Stage]

    def __iter__(self) -> Iterator[Stage]:
        return iter(self.stages.values())

    def affected(self) -> set[str]:
        """The stages that are stale or downstream of a stale one."""
        affected: set[str] = set()
        for stage in self:
            if stage.changes or self.stale_before(stage, affected):
                affected.add(stage.name)
        return affected

    def stale_before(self, stage: Stage, affected: set[str]) -> list[str]:
        """The `affected` stages that this one waits for and whose outs may change.

        Without stage `code`: which of its outs change is known, and is listed in the changes of the others.
        """
        return sorted(affected.intersection(stage.upstream) - {code_changes.STAGE})

    def only(self, targets: Iterable[str]) -> "Graph":
        """The targets and everything upstream of them; `finetune` stands for every `finetune@...`.

        Raises:
            UserError: a target that names no stage.
        """
        wanted: set[str] = set()
        for target in targets:
            named = [name for name in self.stages if name == target or name.startswith(f"{target}@")]
            if not named:
                close = difflib.get_close_matches(target, self.stages, n=1)
                hint = f" (did you mean {close[0]!r}?)" if close else ""
                raise UserError(f"dvc.yaml: no stage {target!r}{hint}; one of: {', '.join(self.stages)}")
            wanted.update(named)
        for stage in reversed(list(self)):
            if stage.name in wanted:
                wanted.update(stage.upstream)
        return Graph({name: stage for name, stage in self.stages.items() if name in wanted})


def read(*, restorable: bool = False) -> Graph:
    """Reads the graph of the project in the working directory.

    Args:
        restorable: also look up each stale stage in DVC's run cache.

    Raises:
        UserError: no DVC project here, or a dvc.yaml or params.yaml that DVC refuses.
    """
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    # Looking into the run cache would announce a checkout that is not made.
    logging.getLogger("dvc").setLevel(logging.WARNING)
    try:
        with Repo(_wait_for_lock=True) as repo:
            status = repo.status()
            return _graph(repo, status, restorable)
    except DvcException as error:
        raise UserError(f"{_chain(error)}; fix it, then `dvc status` shows the stages") from None


def _graph(repo: Any, status: dict[str, Any], restorable: bool) -> Graph:
    import networkx

    graph = repo.index.graph  # an edge leads from a stage to an upstream one
    order = networkx.lexicographical_topological_sort(graph.reverse(), key=lambda stage: stage.addressing)
    made = [out.fs_path for stage in graph for out in stage.outs]
    stages = {}
    code = _expected_code(repo, status)
    for stage in order:
        name = stage.addressing
        changes = tuple(_changes(status.get(name, [])))
        moved = False
        if name in code:
            changes = _with_code_changes(stage, changes, code[name], repo.root_dir)
            moved = code[name] != code_changes.last_written(name, Path(repo.root_dir))
        stages[name] = Stage(
            name=name,
            command="; ".join(stage.cmd) if isinstance(stage.cmd, list) else stage.cmd or "",
            upstream=tuple(sorted(other.addressing for other in graph.successors(stage))),
            outs=tuple(Path(out.fs_path).relative_to(repo.root_dir).as_posix() for out in stage.outs),
            meta=_meta(name, stage.meta),
            needs=tuple(_missing(stage, made, repo.root_dir)),
            changes=changes,
            restorable=restorable and bool(changes) and not moved and _in_run_cache(stage),
        )
    return Graph(stages)


def _expected_code(repo: Any, status: dict[str, Any]) -> dict[str, str]:
    """Stage -> the text of its file in data/code; empty where stage `code` has nothing to run, or is not there."""
    if code_changes.STAGE not in status:
        return {}
    outs = [out.def_path for stage in repo.index.stages if stage.addressing == code_changes.STAGE for out in stage.outs]
    return code_changes.expected(Path(repo.root_dir)) if outs == [CODE_OF_STAGES.as_posix()] else {}


def _with_code_changes(stage: Any, changes: tuple[Change, ...], text: str, root: str) -> tuple[Change, ...]:
    """A stage's changes where stage `code` is yet to run: by its output if it ran now, not by its last output."""
    path = code_changes.path_of(stage.addressing)
    locked = next((dep.hash_info.value for dep in stage.deps if dep.def_path == path), None)
    if locked is None:  # never run: DVC's own reasons are complete
        return changes
    found = code_changes.changes(stage.addressing, text, locked, Path(root))
    kept = tuple(change for change in changes if change.name != path)
    return kept + tuple(Change("dependency", name, how) for name, how in found.items())


def _missing(stage: Any, made: list[str], root: str) -> Iterator[str]:
    for dep in stage.deps:
        path = getattr(dep, "fs_path", "")  # a dependency on params has no path
        pairs = ((f"{path}/", f"{out}/") for out in made)
        if path and not Path(path).exists() and not any(a.startswith(b) or b.startswith(a) for a, b in pairs):
            yield Path(path).relative_to(root).as_posix() if path.startswith(root) else path


def _meta(name: str, raw: Any) -> Meta:
    try:
        return Meta.model_validate(raw or {})
    except ValidationError as error:
        problem = error.errors()[0]
        path = ".".join(map(str, problem["loc"]))
        known = ", ".join(Meta.model_fields)
        raise UserError(
            f"dvc.yaml: stage {name}: meta.{path}: {problem['msg']}, found {problem['input']!r}; keys: {known}"
        ) from None


def _changes(entries: list[Any]) -> Iterator[Change]:
    """One stage's entries of `dvc status` as changes, the most telling kind first."""
    return iter(sorted(_unordered(entries), key=lambda change: _KINDS.index(change.kind)))


def _unordered(entries: list[Any]) -> Iterator[Change]:
    for entry in entries:
        if isinstance(entry, str):
            yield Change("always" if entry == "always changed" else "command", entry, "modified")
            continue
        for what, states in entry.items():
            for name, how in states.items():
                if isinstance(how, dict):
                    yield from (Change("parameter", key, str(state)) for key, state in how.items())
                else:
                    yield Change("out" if what == "changed outs" else "dependency", name, str(how))


def _in_run_cache(stage: Any) -> bool:
    """Whether the run cache holds this stage's outs; DVC compares with the present data/code."""
    from dvc.stage.cache import RunCacheNotFoundError

    try:
        stage.save_deps()
        for out in stage.outs:  # else DVC takes the outs in dvc.lock, which are those of the dependencies before
            out.hash_info = type(out.hash_info)()  # an empty one
        stage.repo.stage_cache.restore(stage, dry=True)
    except (RunCacheNotFoundError, OSError):
        return False
    except Exception as error:  # a missing dependency has a class of its own in each of DVC's parts
        if type(error).__module__.startswith("dvc"):
            return False
        raise
    return True


def _chain(error: BaseException) -> str:
    """DVC's message and, in brackets, its cause."""
    cause = error.__cause__
    return f"{error} ({cause})" if cause else str(error)
