"""Observations drawn from a known distribution, with drift on request, and a watched model without weights."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from pipeline import config
from pipeline.paths import CODE, OBSERVATIONS, WATCH
from pipeline.watching import looking
from pipeline.watching.evidence import NOTHING, Evidence
from pipeline.watching.observations import Facts, Observation, ObservationLog, Vocabulary, observe, timestamp
from pipeline.watching.reference import Reference

START = datetime(2026, 11, 1, tzinfo=UTC)
MODEL, SHA = "spam-lora", "ab" * 32


def drawn(
    generator: np.random.Generator, n: int, *, longer: float = 1.0, unknown: float = 0.02, spam: float = 0.5
) -> list[Observation]:
    """Observations of a classifier: ten statistics, two of them categories.

    Args:
        generator: of the draws.
        n: their number.
        longer: factor of the lengths.
        unknown: share of texts with an unknown word.
        spam: share of the answered label.
    """
    characters = (generator.gamma(3, 30, n) * longer).astype(int) + 5
    return [
        Observation(
            time=timestamp(START), request=f"req-{i}", model=MODEL, version=None, model_sha256=SHA,
            characters=int(size), words=max(1, int(size / 6)), turns=1,
            language=("tr", "en", "und")[int(generator.choice(3, p=(0.45, 0.45, 0.1)))],
            unknown_words=float(generator.random() < unknown) * 0.1, fertility=float(1.5 + 0.2 * generator.normal()),
            label="spam" if generator.random() < spam else "ham", confidence=float(generator.beta(9, 1)),
            answer_nats=float(generator.gamma(2, 0.3)), answer_tokens=int(generator.poisson(20)),
            distance=float(generator.beta(2, 6)),
        )
        for i, size in enumerate(characters)
    ]  # fmt: skip


class Server:
    """The traffic of a served model in the working folder, a minute a request."""

    def __init__(self, generate: bool = False) -> None:
        self.generator = np.random.default_rng(5)
        self.log = ObservationLog(Path(OBSERVATIONS))
        self.count, self.generate = 0, generate
        reference = drawn(self.generator, 400)
        if generate:
            reference = [
                replace(one, nats_per_token=float(self.generator.gamma(9, 0.3)), label=None) for one in reference
            ]
        Reference(SHA, "records", tuple(reference), Vocabulary(("word",)), 380, 400).write(WATCH / MODEL)

    def serve(self, n: int, *, nats: float | None = None, **drift: float) -> list[str]:
        """Answers `n` requests; returns their ids. `nats`: scale of the loss of a text model."""
        ids = []
        for one in drawn(self.generator, n, **drift):
            self.count += 1
            loss = None if nats is None else float(self.generator.gamma(9, nats))
            request = f"req-{self.count}"
            self.log.append(
                replace(one, request=request, time=timestamp(self.now()), nats_per_token=loss,
                        label=None if self.generate else one.label)
            )  # fmt: skip
            ids.append(request)
        return ids

    def now(self) -> datetime:
        return START + timedelta(minutes=self.count)

    def look(self, known: Evidence = NOTHING, window: int = 200) -> looking.Look:
        return looking.look(MODEL, window=window, evidence=known, now=self.now())


class NoChampion:
    """A model folder of which only the task is known."""

    kind = "labelled"

    generates = False

    def __init__(self, folder: Path, _compute: object) -> None:
        self.folder = folder

    def facts(self, texts: Sequence[str]) -> list[Facts]:
        return [Facts() for _ in texts]


class TextChampion(NoChampion):
    """The same of a model that answers in text."""

    generates = True


def project(folder: Path, patch: pytest.MonkeyPatch, *, generate: bool = False) -> Server:
    """A project in `folder`, the working folder, whose model is served."""
    patch.chdir(folder)
    params = (CODE / "infra/profiles/embedded.yaml").read_text(encoding="utf-8")
    (folder / "params.yaml").write_text(params, encoding="utf-8")
    patch.setattr(looking, "Champion", TextChampion if generate else NoChampion)
    patch.setattr(looking, "folder_of", lambda model, sha256: Path("models") / model)
    config.load()
    return Server(generate)


__all__ = ["MODEL", "SHA", "START", "Server", "drawn", "observe", "project"]
