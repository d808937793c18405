"""Predictions of a model folder, as the registry serves them: labels with their probabilities, a number, or text.

    answer(Path("models/spam-lora"), ["Free prize!"])       -> [{"label": "spam", "score": 0.98}]
    answer(Path("models/chat-lora"), ["Where is Ayşe?"])    -> [{"completion": "..."}]

Greedy by default. An answer does not depend on the other texts of a request: sampled ones are drawn each from the
setting `seed` and its own text. The model's task is read from its folder (tohum.json), so only the
folder and this code are needed; nothing is pickled.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.errors import UserError
from pipeline.inference import answers, labels
from pipeline.inference.answers import Sampling
from pipeline.model import checkpoint
from pipeline.seeds import seed_for
from pipeline.tasks import Request, Scoring, open_tasks
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
_ROWS = 32  # of a batch of answers


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
        """One answer per text or request, in order.

        `label` and `score` (its probability); `labels` and `probabilities` (multi_label); `value` (regress);
        `reward` of the request's own answer (reward); or `completion`.

        Raises:
            UserError: a text that is no string, an unknown or impossible setting; for a reward model a request without
                an answer to score, which every plain text is.
        """
        requests = [_request(row, text) for row, text in enumerate(texts)]
        if isinstance(self.task, Scoring):
            return [
                {key: value for key, value in row.items() if key != "probabilities" or "score" not in row}
                for row in self.scored(requests)
            ]
        settings = GENERATION | dict(params or {})
        if unknown := sorted(set(settings) - set(GENERATION)):
            raise UserError(f"unknown settings {unknown}; one of: {', '.join(GENERATION)}")
        return [{"completion": text} for text in self._completions(requests, settings)]

    def probabilities(self, requests: Sequence[Request]) -> list[dict[str, float]]:
        """Label -> probability of every request, for a model that answers with labels. Raises UserError otherwise."""
        if not self.task.spec.labels:
            raise UserError(f"this model's task is {self.task.spec.name}, which has no labels")
        return [row["probabilities"] for row in self.scored(requests)]

    def scored(self, requests: Sequence[Request]) -> list[dict[str, Any]]:
        """The whole answer to every request, probabilities included, of a model that answers with labels or a number.

        Raises:
            UserError: a model that answers in text.
        """
        if not isinstance(self.task, Scoring):
            raise UserError(f"this model's task is {self.task.spec.name}, which has no labels")
        return self.task.answers(labels.scores(self._model, self.task, requests, _BATCH_SIZE))

    def _completions(self, requests: Sequence[Request], settings: Mapping[str, int | float]) -> list[str]:
        sampling = Sampling(
            int(settings["max_tokens"]),
            float(settings["temperature"]),
            int(settings["top_k"]),
            float(settings["top_p"]),
        )
        completions: list[str] = []
        for first in range(0, len(requests), _ROWS):
            batch = requests[first : first + _ROWS]
            seeds = [seed_for(int(settings["seed"]), "serving", request.text) for request in batch]
            completions += answers.answer(self._model, self.task, batch, sampling, seeds)
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
