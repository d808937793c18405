"""Served models: champions and versions of the registry, and folders of the project, loaded and swapped.

    models:/tohum-chat-lora@champion   the version that the ledger of decisions says; swapped when that changes
    models:/tohum-chat-lora/3          that version, whatever the review says of it
    chat-lora                          models/chat-lora of this project, which no review has seen

A registered version is read and compared with its hashes before it is loaded, and a champion with the ledger
(registry/store.py): an alias that was moved without a decision is not served.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pipeline import files, integrity
from pipeline.config.params import Params
from pipeline.errors import UserError
from pipeline.inference import labels
from pipeline.inference.engine import Engine
from pipeline.model import checkpoint
from pipeline.model.gpt import GPT
from pipeline.paths import MODELS
from pipeline.serving.compiled import engine_of
from pipeline.tasks import Request, Scoring, Task, open_tasks
from pipeline.tokenizer import Tokenizer

if TYPE_CHECKING:
    from pipeline.inference.embeddings import Embedder
    from pipeline.registry import Registry

_LOG = logging.getLogger("tohum.serving")
_SCORED_TOGETHER = 32
Standing = Literal["champion", "not the champion", "unreviewed"]
_URI, _CHAMPION = "models:/", "@champion"


@dataclass(eq=False)
class Loaded:
    """A model in memory. Never changes; a swap puts another one in its place."""

    folder: Path
    version: str | None
    """Number of the registered version; None for a folder of the project."""
    standing: Standing
    sha256: str
    """Of the folder."""
    model: GPT
    task: Task
    engine: Engine | None
    """None where the task is answered by scores."""
    _embedder: "Embedder | None" = None

    @classmethod
    def read(cls, folder: Path, version: str | None, standing: Standing, device: str, rows: int) -> "Loaded":
        """Loads a folder.

        Args:
            folder: of the model.
            version: number of the registered version.
            standing: what the review says.
            device: of the network.
            rows: answers computed together.

        Raises:
            UserError: a file that differs from its recorded hash, or a folder that is not whole.
        """
        folder = folder.absolute()
        integrity.require_intact(folder)
        sha256 = files.sha256_of(folder)
        model = checkpoint.load(folder, device)
        task = open_tasks(folder, Tokenizer.load(folder), model.room())[0]
        engine = None if isinstance(task, Scoring) else engine_of(model, task, rows, folder.name)
        if files.sha256_of(folder) != sha256:
            raise UserError(f"{folder}: changed while it was loaded; try again")
        return cls(folder, version, standing, sha256, model, task, engine)

    def score(self, inputs: Sequence[Request]) -> list[dict[str, Any]]:
        """The whole answer to every request, of a model that answers with labels or a number."""
        assert isinstance(self.task, Scoring)
        return self.task.answers(labels.scores(self.model, self.task, inputs, _SCORED_TOGETHER))

    def embed(self, inputs: Sequence[str]) -> list[list[float]]:
        """The embedding of every text, of length 1. The first call reads the folder's pooling and weights again."""
        if self._embedder is None:
            from pipeline.inference.embeddings import Embedder

            if files.sha256_of(self.folder) != self.sha256:
                raise UserError(f"{self.folder.name}: its folder changed after it was loaded; start the server again")
            self._embedder = Embedder(self.folder, device=str(self.model.embed.weight.device))
        vectors_ND = self._embedder.embed(inputs)
        return [vector.tolist() for vector in vectors_ND]


class Slot:
    """A served name and the model that answers for it now."""

    def __init__(self, name: str, asked: str, loaded: Loaded | None) -> None:
        """`name`: as clients call it; `asked`: as the command line did."""
        self.name, self.asked, self.loaded = name, asked, loaded
        self.fault = ""
        """The reason why no other model was swapped in, or why there is none; empty where all is well."""


class Shelf:
    """All served models."""

    def __init__(self, names: Sequence[str], params: Params, device: str) -> None:
        """Loads the models.

        Args:
            names: as on the command line; none: every champion of the project.
            params: of the project.
            device: of the networks.

        Raises:
            UserError: a model that is not there, is not whole, or is a champion without a decision; two of one name.
        """
        self._params, self._device = params, device
        self._rows = params.serving.limits.rows
        self._registry: Registry | None = None
        self.slots: dict[str, Slot] = {}
        for asked in names or self._champions():
            slot = self._slot(asked)
            if slot.name in self.slots:
                other = self.slots[slot.name].asked
                raise UserError(f"{asked} and {other} are both served as {slot.name!r}; name one of them")
            self.slots[slot.name] = slot

    @property
    def watched(self) -> list[Slot]:
        """The slots that follow the registry."""
        return [slot for slot in self.slots.values() if slot.asked.endswith(_CHAMPION)]

    def look(self, swapped: Callable[[Slot], None] = lambda _: None) -> None:
        """Loads champions that have changed. One that cannot be loaded leaves the present one, with a line in the log.

        Args:
            swapped: called after each swap.
        """
        for slot in self.watched:
            try:
                number = self._number(slot.asked)
                present = None if slot.loaded is None else slot.loaded.version
                if number != present:
                    slot.loaded = None if number is None else self._read_champion(slot.asked, number)
                    _LOG.warning("%s: version %s instead of %s", slot.name, number or "none", present or "none")
                    swapped(slot)
                slot.fault = "" if slot.loaded else f"{slot.asked}: has no champion now"
            except UserError as error:
                if str(error) != slot.fault:
                    _LOG.warning("%s: not changed: %s", slot.name, error)
                slot.fault = str(error)

    def _champions(self) -> list[str]:
        """Every registered model of the project that has a champion."""
        from pipeline.registry import reachable

        with reachable(self._params.runtime.tracking.uri):
            registry = self._open_registry()
            found = [
                f"{_URI}{name}{_CHAMPION}" for name in registry.models() if registry.at(f"{_URI}{name}", "champion")
            ]
        if not found:
            raise UserError(
                "no registered model has a champion; review one (`tohum review`), or name a model of this project: "
                f"tohum serve {' '.join(_folders()[:1]) or 'MODEL'}"
            )
        return found

    def _slot(self, asked: str) -> Slot:
        if not asked.startswith(_URI):
            if not (MODELS / asked).is_dir() or Path(asked).name != asked:
                raise UserError(f"models/{asked}: no such model; one of: {', '.join(_folders()) or 'none yet'}")
            loaded = Loaded.read(MODELS / asked, None, "unreviewed", self._device, self._rows)
            return Slot(asked, asked, loaded)
        number = self._number(asked)
        if number is None:
            raise UserError(f"{asked}: there is no champion; review a candidate and promote it: tohum review")
        if asked.endswith(_CHAMPION):
            loaded = self._read_champion(asked, number)
            return Slot(loaded.folder.name, asked, loaded)
        champion = self._number(f"{asked.rpartition('@')[0] or asked.rpartition('/')[0]}{_CHAMPION}")
        standing: Standing = "champion" if number == champion else "not the champion"
        loaded = Loaded.read(self._download(asked), number, standing, self._device, self._rows)
        return Slot(f"{loaded.folder.name}/{number}", asked, loaded)

    def _read_champion(self, uri: str, number: str) -> Loaded:
        loaded = Loaded.read(self._download(uri), number, "champion", self._device, self._rows)
        if self._number(uri) != number:
            raise UserError(f"{uri}: the champion changed while version {number} was loaded; look again")
        return loaded

    def _number(self, uri: str) -> str | None:
        """The version that a name in the registry means now; None for a champion that is not there.

        Raises:
            UserError: no such version, or an alias that was moved without a decision.
        """
        from pipeline.registry import reachable

        with reachable(self._params.runtime.tracking.uri):
            registry = self._open_registry()
            version = registry.champion(uri.removesuffix(_CHAMPION)) if uri.endswith(_CHAMPION) else registry.find(uri)
        return None if version is None else str(version.version)

    def _download(self, uri: str) -> Path:
        from pipeline.registry import reachable

        with reachable(self._params.runtime.tracking.uri):
            return self._open_registry().download(uri)

    def _open_registry(self) -> "Registry":
        if self._registry is None:
            from pipeline.registry import Registry

            self._registry = Registry(self._params)
        return self._registry


def _folders() -> list[str]:
    return sorted(path.name for path in MODELS.glob("*") if path.is_dir())
