"""The watched model, opened from its folder: what it says of texts, as facts of observations."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline import files
from pipeline.config.recipe import Compute, Kind
from pipeline.errors import UserError
from pipeline.paths import MODELS, REGISTRY
from pipeline.watching.observations import Facts
from pipeline.watching.vocabulary import CHARACTERS_SEEN

_BATCH_SIZE = 16
_LONGEST = 2_000  # tokens of a text whose loss is computed


def folder_of(model: str, sha256: str) -> Path:
    """The folder of a served model with this hash: below models/, or the registry's copy.

    A model may be served by its registered name, which ends in the folder's.

    Raises:
        UserError: neither has these bytes.
    """
    copies = REGISTRY / sha256
    named = [path for path in MODELS.glob("*") if path.name == model or model.endswith(f"-{path.name}")]
    for place in [*sorted(named), *sorted(copies.glob("*"))] if sha256 else []:
        if place.is_dir() and files.sha256_of(place) == sha256:
            return place
    raise UserError(
        f"{model}: the requests were answered by a model with sha256 {sha256[:16]}..., which is neither below {MODELS} "
        f"nor in {copies}; get it with `dvc checkout`, or run the watch where the model is served"
    )


class Champion:
    """A model folder; weights are loaded when they are first needed."""

    def __init__(self, folder: Path, compute: Compute) -> None:
        self.folder, self._compute = folder, compute

    @cached_property
    def _opened(self) -> tuple[Any, Any]:
        from pipeline.model import checkpoint
        from pipeline.model.device import set_up
        from pipeline.tasks import open_tasks
        from pipeline.tokenizer import Tokenizer

        device = set_up(self._compute)
        model = checkpoint.load(self.folder, str(device)).eval()
        return model, open_tasks(self.folder, Tokenizer.load(self.folder), model.room())[0]

    @property
    def generates(self) -> bool:
        """Whether it answers in text; else with labels or a number."""
        from pipeline.prompts import spec

        return spec.read(self.folder)[0].generates

    @property
    def kind(self) -> Kind:
        """The kind of the records that it was evaluated on."""
        from pipeline.prompts import spec

        task = spec.read(self.folder)[0]
        if not task.generates:
            return "labelled"
        return "instructions" if task.template else "documents"

    def facts(self, texts: Sequence[str]) -> list[Facts]:
        """Tokens of each text and, of a classifier, its answer."""
        from pipeline.inference.labels import scores
        from pipeline.tasks import Request, Scoring

        model, task = self._opened
        # as the server counts them: a page beside a whole book would be drift of fertility
        counted = [Facts(tokens=len(task.tokenizer.encode(text[:CHARACTERS_SEEN]))) for text in texts]
        if not isinstance(task, Scoring) or not texts:
            return counted
        answers = task.answers(scores(model, task, [Request(text) for text in texts], _BATCH_SIZE))
        return [Facts.of_answer(answer, tokens=fact.tokens) for answer, fact in zip(answers, counted, strict=True)]

    def nats(self, texts: Sequence[str]) -> list[float | None]:
        """Mean loss a token of each text, read from the end-of-text token on; None for a text without tokens.

        Only a text model has it: the loss that it was trained to lower, on texts that people write now, needs no label.
        A classifier was trained on labels, so its loss needs them.
        """
        from pipeline.inference.token_nats import Text, token_nats

        model, task = self._opened
        rows = [task.tokenizer.encode(text)[:_LONGEST] for text in texts]
        asked = [Text([task.tokenizer.end_of_text], row) for row in rows if row]
        losses = iter(token_nats(model, asked, _BATCH_SIZE, self._compute) if asked else [])
        return [float(next(losses).mean()) if row else None for row in rows]

    def embeddings(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Embeddings [texts, width] of length 1 (pipeline/inference/embeddings.py). Raises UserError without any."""
        from pipeline.inference.embeddings import Embedder

        if not texts:
            return np.zeros((0, 0), np.float32)
        return Embedder(self.folder).embed(texts)

    def measured(self, texts: Sequence[str], embedded: bool = True) -> list[Facts]:
        """Everything that can be known of texts without labels: tokens, answer, loss of a text model, embedding."""
        facts = self.facts(texts)
        if self.generates:
            facts = [replace(fact, nats_per_token=nats) for fact, nats in zip(facts, self.nats(texts), strict=True)]
        if embedded:
            vectors = self.embeddings(texts)
            facts = [replace(fact, embedding=vector) for fact, vector in zip(facts, vectors, strict=True)]
        return facts
