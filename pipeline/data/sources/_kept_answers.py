"""Answers of chat models on disk, a file each, by prompt, model and settings."""

import hashlib
import json
import threading
from dataclasses import asdict, dataclass
from pathlib import Path

from pipeline import files
from pipeline.config.params import ChatModel


@dataclass(frozen=True)
class Answer:
    """An answer as received; `text` is empty where the model gave none."""

    text: str
    model: str
    """Name of the model as the server states it; of a folder, its SHA-256."""
    finish: str
    """Reason of the end: `stop`, `length` where max_tokens cut it, or another word of the server's."""


@dataclass(frozen=True)
class Refusal:
    """A prompt that the server refused for itself; not kept, so that a rerun asks again."""

    detail: str


class Kept:
    """Received answers, a file each, by prompt, model and settings."""

    def __init__(self, folder: Path, model: ChatModel) -> None:
        """`folder`: where they are kept; `model`: its settings that decide the answer."""
        decisive = {"endpoint", "model", "sha256", "temperature", "max_tokens", "seed"}
        self._folder, self._settings = folder, model.model_dump(include=decisive)
        self._writing = threading.Lock()

    def key(self, prompt: str) -> str:
        """SHA-256 of prompt, model and settings."""
        text = json.dumps({"prompt": prompt, **self._settings}, sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()

    def get(self, prompt: str) -> Answer | None:
        """The kept answer to a prompt; None where there is none, or a damaged file."""
        try:
            return Answer(**json.loads(self._path(prompt).read_text(encoding="utf-8")))
        except (FileNotFoundError, ValueError, TypeError):
            return None

    def put(self, prompt: str, answer: Answer) -> None:
        """Keeps an answer, atomically; ASCII, since an answer may hold halves of surrogate pairs."""
        with self._writing:
            files.write_text(self._path(prompt), json.dumps(asdict(answer), sort_keys=True, indent=1) + "\n")

    def _path(self, prompt: str) -> Path:
        key = self.key(prompt)
        return self._folder / key[:2] / f"{key}.json"
