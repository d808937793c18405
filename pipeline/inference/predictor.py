"""Predictions of a model folder, as the registry serves them: a label with its score, or text.

    answer(Path("models/spam-lora"), ["Free prize!"])       -> [{"label": "spam", "score": 0.98}]
    answer(Path("models/chat-lora"), ["Where is Ayşe?"])    -> [{"completion": "..."}]

Greedy by default. An answer does not depend on the other texts of a request: sampled ones are drawn one by
one, each from the setting `seed` and its own text. The model's task is read from its folder (tohum.json), so only the
folder and this code are needed; nothing is pickled.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from pipeline.errors import UserError
from pipeline.inference import answers
from pipeline.inference.answers import Sampling
from pipeline.inference.labels import probabilities
from pipeline.model import checkpoint
from pipeline.seeds import seed_for
from pipeline.tasks import Labelling, Request, open_tasks
from pipeline.tokenizer import Tokenizer

GENERATION: dict[str, int | float] = {
    "max_tokens": 64,
    "temperature": 0.0,
    "top_k": 0,
    "top_p": 1.0,
    "seed": 1,
}
"""Generation settings and their defaults: greedy (temperature 0), no filter."""
_BATCH_SIZE = 16


class Predictor:
    """A loaded model folder. Raises UserError where the folder is not whole."""

    def __init__(self, folder: Path, device: str = "cpu") -> None:
        self._model = checkpoint.load(folder, device)  # before other files: it compares all with the manifest
        self.task = open_tasks(folder, Tokenizer.load(folder), self._model.room())[0]
        """The task that the model answers; a merged model's first."""
        self._device = device

    def answer(
        self, texts: Sequence[str | Request], params: Mapping[str, int | float] | None = None
    ) -> list[dict[str, Any]]:
        """One answer per text or request, in order: `label` and `score` (its probability), or `completion`.

        Raises:
            UserError: a text that is no string, an unknown or impossible setting.
        """
        requests = [_request(row, text) for row, text in enumerate(texts)]
        if isinstance(self.task, Labelling):
            return self._labels(self.task, requests)
        settings = GENERATION | dict(params or {})
        if unknown := sorted(set(settings) - set(GENERATION)):
            raise UserError(f"unknown settings {unknown}; one of: {', '.join(GENERATION)}")
        return [{"completion": text} for text in self._completions(requests, settings)]

    def probabilities(self, requests: Sequence[Request]) -> list[dict[str, float]]:
        """Label -> probability of every request, for a model that answers with a label. Raises UserError otherwise."""
        if not isinstance(self.task, Labelling):
            raise UserError(f"this model's task is {self.task.spec.name}, which has no labels")
        rows = probabilities(self._model, self.task, requests, _BATCH_SIZE).tolist()
        return [dict(zip(self.task.labels, row, strict=True)) for row in rows]

    def _labels(self, task: Labelling, requests: Sequence[Request]) -> list[dict[str, Any]]:
        best = probabilities(self._model, task, requests, _BATCH_SIZE).max(dim=-1)
        return [
            {"label": task.labels[index], "score": score}
            for index, score in zip(best.indices.tolist(), best.values.tolist(), strict=True)
        ]

    def _completions(self, requests: Sequence[Request], settings: Mapping[str, int | float]) -> list[str]:
        greedy = settings["temperature"] == 0
        size = _BATCH_SIZE if greedy else 1
        sampling = Sampling(
            int(settings["max_tokens"]),
            float(settings["temperature"]),
            int(settings["top_k"]),
            float(settings["top_p"]),
        )
        completions: list[str] = []
        for first in range(0, len(requests), size):
            batch = requests[first : first + size]
            seed = seed_for(int(settings["seed"]), "serving", *(request.text for request in batch))
            generator = None if greedy else torch.Generator(self._device).manual_seed(seed)
            completions += answers.answer(self._model, self.task, batch, sampling, generator)
        return completions


def _request(row: int, text: Any) -> Request:
    if isinstance(text, Request):
        return text
    if not isinstance(text, str):
        raise UserError(f"input {row} is {type(text).__name__}, expected text")
    return Request(text)


def answer(
    folder: Path, texts: Sequence[str | Request], params: Mapping[str, int | float] | None = None
) -> list[dict[str, Any]]:
    """Answers of the model in `folder`; see Predictor.answer."""
    return Predictor(folder).answer(texts, params)
