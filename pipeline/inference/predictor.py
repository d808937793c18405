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

from pipeline import files
from pipeline.data import templates
from pipeline.errors import UserError
from pipeline.inference.generation import generate
from pipeline.inference.labels import answers_with_label, labels_of, probabilities
from pipeline.model import checkpoint
from pipeline.seeds import seed_for
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
        self.task = task(folder)
        self._tokenizer = Tokenizer.load(folder)
        self._device = device

    def answer(self, texts: Sequence[str], params: Mapping[str, int | float] | None = None) -> list[dict[str, Any]]:
        """One answer per text, in order: `label` and `score` (its probability), or `completion`.

        Raises:
            UserError: a text that is no string, an unknown or impossible setting.
        """
        for row, text in enumerate(texts):
            if not isinstance(text, str):
                raise UserError(f"input {row} is {type(text).__name__}, expected text")
        if answers_with_label(self.task):
            return self._labels(texts)
        settings = GENERATION | dict(params or {})
        if unknown := sorted(set(settings) - set(GENERATION)):
            raise UserError(f"unknown settings {unknown}; one of: {', '.join(GENERATION)}")
        return [{"completion": text} for text in self._completions(texts, settings)]

    def _labels(self, texts: Sequence[str]) -> list[dict[str, Any]]:
        labels = labels_of(self.task)
        best = probabilities(self._model, self._tokenizer, self.task, texts, _BATCH_SIZE).max(dim=-1)
        return [
            {"label": labels[index], "score": score}
            for index, score in zip(best.indices.tolist(), best.values.tolist(), strict=True)
        ]

    def _completions(self, texts: Sequence[str], settings: Mapping[str, int | float]) -> list[str]:
        greedy = settings["temperature"] == 0
        size = _BATCH_SIZE if greedy else 1
        completions: list[str] = []
        for first in range(0, len(texts), size):
            batch = texts[first : first + size]
            seed = seed_for(int(settings["seed"]), "serving", *batch)
            generator = torch.Generator(self._device).manual_seed(seed)
            max_tokens = int(settings["max_tokens"])
            outputs = generate(
                self._model, [self._prompt(text, max_tokens) for text in batch], max_tokens=max_tokens,
                temperature=float(settings["temperature"]), top_k=int(settings["top_k"]),
                top_p=float(settings["top_p"]), stop=self._stop(), generator=None if greedy else generator,
            )  # fmt: skip
            completions += [self._text(ids) for ids in outputs]
        return completions

    def _text(self, ids: list[int]) -> str:
        text = self._tokenizer.decode(ids)
        if "template" in self.task:
            return templates.answer_text(self.task["template"], text)
        return text

    def _prompt(self, text: str, max_tokens: int) -> list[int]:
        """Ids of the text in the model's template, cut at the beginning where they leave no room for an answer."""
        if "template" in self.task:
            ids = templates.prompt_ids(self._tokenizer, self.task["template"], text, "")
        else:
            ids = [self._tokenizer.end_of_text, *self._tokenizer.encode(text)]
        context = self._model.room()
        return ids[-max(context // 2, context - max_tokens) :]

    def _stop(self) -> set[int]:
        stop = {self._tokenizer.end_of_text}
        if "template" in self.task:
            stop.add(templates.stop_id(self._tokenizer, self.task["template"]))
        return stop


def answer(folder: Path, texts: Sequence[str], params: Mapping[str, int | float] | None = None) -> list[dict[str, Any]]:
    """Answers of the model in `folder`; see Predictor.answer."""
    return Predictor(folder).answer(texts, params)


def task(folder: Path) -> dict[str, Any]:
    """The task that the model was trained for (`objective`, `labels`, ...); next_token if the folder names none."""
    path = folder / "tohum.json"
    return files.read_json(path) if path.is_file() else {"objective": "next_token"}
