"""Pairs of answers to rate: drawn from one model with different seeds, never of equal text, in shuffled order.

An answer that is empty or holds a broken character, which the gates would stop, is drawn again; so is a pair that was
judged already, in an earlier round or another source.
"""

import math
import random
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline import files, integrity
from pipeline.errors import UserError
from pipeline.inference.answer_text import AnswerText
from pipeline.inference.answers import Sampling, ends
from pipeline.inference.engine import Engine, RowSettings
from pipeline.model import checkpoint
from pipeline.rating.prompts import Asked
from pipeline.seeds import seed_for
from pipeline.tasks import Scoring, Task, open_tasks
from pipeline.tokenizer import Tokenizer

DRAWS = 8
"""Answers that are drawn to a prompt until two differ; a prompt without two different ones is left out."""
_LEAST_LOGPROB = -9999.0  # in place of minus infinity, which JSON lacks


@dataclass(frozen=True)
class Answer:
    """A drawn answer."""

    text: str
    ids: list[int]
    """Without the id that ended it."""
    logprobs: list[float]
    """ln p of each id under the model's own distribution (temperature 1, no filter)."""
    finish: str
    """stop or length."""


Drawn = tuple[int, Answer]
"""An answer with its seed."""
Judged = tuple[str, str, frozenset[str]]
"""Question, history and texts of a pair."""


@dataclass(frozen=True)
class Pair:
    """Two different answers in the order in which they are shown."""

    asked: Asked
    answers: tuple[Answer, Answer]
    settings: dict[str, Any]
    """Of the draws; with them and the weights the answers can be made again."""


@dataclass(frozen=True)
class Model:
    """A loaded model that answers in text."""

    name: str
    sha256: str
    """Of its folder."""
    task: Task
    engine: Engine

    @classmethod
    def read(cls, folder: Path) -> "Model":
        """Loads a model folder.

        Raises:
            UserError: a model that answers with labels or a number, or a folder that is not whole.
        """
        integrity.require_intact(folder)
        sha256 = files.sha256_of(folder)
        model = checkpoint.load(folder, "cpu")
        task = open_tasks(folder, Tokenizer.load(folder), model.room())[0]
        if isinstance(task, Scoring):
            raise UserError(
                f"{folder}: its task is {task.spec.name}, which answers with labels or a number; rate a model that "
                "answers in text"
            )
        return cls(folder.name, sha256, task, Engine(model.eval()))

    def draw(
        self, prompts: Sequence[Asked], sampling: Sampling, seed: int, judged: Collection[Judged] = ()
    ) -> list[Pair | None]:
        """A pair for every prompt; None where `DRAWS` answers give none, or the prompt is too long.

        A pair depends on weights, prompt, settings, seed and `judged` alone, not on the prompts beside it.

        Args:
            prompts: in any order.
            sampling: how tokens are drawn.
            seed: of the draws.
            judged: pairs that were judged already, as of `key_of`.
        """
        ids = [self._prompt_ids(asked) for asked in prompts]
        kept: list[list[Drawn]] = [[] for _ in prompts]
        found: list[tuple[Drawn, Drawn] | None] = [None for _ in prompts]
        for numbers in ((0, 1), *((number,) for number in range(2, DRAWS))):
            rows: dict[int, tuple[int, int]] = {}
            for place, asked in enumerate(prompts):
                for number in numbers if found[place] is None and ids[place] else ():
                    row_seed = self._seed(seed, asked, number)
                    [row] = self.engine.add(ids[place], self._settings(sampling, row_seed))
                    rows[row] = (place, row_seed)
            for row, answer in self._answers(rows).items():
                place, row_seed = rows[row]
                if found[place] is None and _is_fit(answer.text):
                    found[place] = _pair_of(prompts[place], kept[place], (row_seed, answer), judged)
                    kept[place].append((row_seed, answer))
        return [
            None if pair is None else self._pair(asked, pair, sampling, seed)
            for asked, pair in zip(prompts, found, strict=True)
        ]

    def _pair(self, asked: Asked, found: tuple[Drawn, Drawn], sampling: Sampling, seed: int) -> Pair:
        """The pair with its sides shuffled."""
        ordered = list(found)
        random.Random(self._seed(seed, asked, "sides")).shuffle(ordered)
        settings = asdict(sampling) | {"seeds": [row_seed for row_seed, _ in ordered], "n": 1, "stop": []}
        return Pair(asked, (ordered[0][1], ordered[1][1]), settings)

    def _prompt_ids(self, asked: Asked) -> list[int]:
        ids = self.task.prompt(asked.request)
        return ids if len(ids) < self.engine.room else []

    def _seed(self, seed: int, asked: Asked, purpose: str | int) -> int:
        return seed_for(seed, "rating", self.sha256, asked.history, asked.messages[-1].text, purpose)

    def _settings(self, sampling: Sampling, seed: int) -> RowSettings:
        return RowSettings(
            sampling.max_tokens, sampling.temperature, sampling.top_k, sampling.top_p,
            frozenset(ends(self.task)), seed,
        )  # fmt: skip

    def _answers(self, rows: dict[int, tuple[int, int]]) -> dict[int, Answer]:
        """The answers of all rows, in the order of the rows."""
        texts = {row: AnswerText(self.task) for row in rows}
        said = dict.fromkeys(rows, "")
        ids: dict[int, list[int]] = {row: [] for row in rows}
        logprobs: dict[int, list[float]] = {row: [] for row in rows}
        finished: dict[int, str] = {}
        while self.engine.busy:
            for token in self.engine.step():
                row = token.row
                if token.finished != "stop":
                    ids[row].append(token.id)
                    logprobs[row].append(token.logprob if math.isfinite(token.logprob) else _LEAST_LOGPROB)
                    said[row] += texts[row].add(token.id)
                if token.finished:
                    said[row] += texts[row].end()
                    finished[row] = token.finished
        return {row: Answer(said[row], ids[row], logprobs[row], finished[row]) for row in rows}


def key_of(asked: Asked, texts: Sequence[str]) -> Judged:
    """The key by which equal pairs of a prompt are known, whichever stands first."""
    return asked.messages[-1].text, asked.history, frozenset(text.strip() for text in texts)


def _is_fit(text: str) -> bool:
    return bool(text.strip()) and "\ufffd" not in text


def _pair_of(asked: Asked, kept: Sequence[Drawn], new: Drawn, judged: Collection[Judged]) -> tuple[Drawn, Drawn] | None:
    """The new answer with the first earlier one of another text with which it was not judged; None if there is none."""
    for old in kept:
        key = key_of(asked, (old[1].text, new[1].text))
        if len(key[2]) == 2 and key not in judged:
            return old, new
    return None
