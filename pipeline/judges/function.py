"""A function of your own, in a Python file below inputs/: `def score(record, answer) -> float`.

`record` is a dictionary with the columns of the record that was asked (instruction, input, output or chosen, language,
id, ...), `answer` the text of the answer. Equal arguments must give equal scores, or a training cannot be repeated or
resumed to the same bits. The file is a dependency of the stage: a change of it trains anew. It is run as any Python
file is, so judge with a file that you trust.
"""

import math
import runpy
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from pipeline.config.section import Section
from pipeline.errors import UserError
from pipeline.judges import Context, Judge, Judged

Score = Callable[[Mapping[str, Any], str], float]
_FAULTS = (Exception, SystemExit)  # sys.exit(0) would end the training as if it had succeeded


class Settings(Section):
    """File and name of the function."""

    source_of: ClassVar[str] = "file"
    reads: str = Field(examples=["inputs/judge.py"])
    """A Python file below inputs/."""
    function: str = Field(pattern=r"^[A-Za-z_]\w*$", examples=["score"])
    """Name of the function in it."""


def build(settings: Settings, context: Context) -> "Function":
    """The judge. Raises UserError for a file that is not there, fails when it is run, or has no such function."""
    path = Path(settings.reads)
    if not path.is_file():
        raise UserError(f"params.yaml: {context.where}.reads is {settings.reads!r}; there is no such file; write it")
    try:
        names = runpy.run_path(str(path))
    except _FAULTS as error:
        raise UserError(f"{_place(path, error)}: {_words(error)}; correct the file") from error
    function = names.get(settings.function)
    if not callable(function):
        known = ", ".join(sorted(name for name, value in names.items() if callable(value) and name[0] != "_"))
        raise UserError(
            f"{path}: it has no function {settings.function!r}, which {context.where}.function names; it has "
            f"{known or 'none'}"
        )
    return Function(function, path, settings.function)


class Function(Judge):
    """The scores that a function gives."""

    def __init__(self, function: Score, path: Path, name: str) -> None:
        self._function, self._path, self._name = function, path, name

    def scores(self, judged: Sequence[Judged]) -> Tensor:
        """scores_E. Raises UserError where the function fails or gives no finite number; names line and record."""
        return torch.tensor([self._score(one) for one in judged])

    def _score(self, judged: Judged) -> float:
        of = f"record {judged.record.get('id')}, answer {judged.text[:60]!r}"
        try:
            found = self._function(dict(judged.record), judged.text)
        except _FAULTS as error:
            raise UserError(f"{_place(self._path, error)}: {_words(error)}, for {of}; correct the file") from error
        try:
            score = float(found)
        except (TypeError, ValueError):
            score = math.nan
        if not math.isfinite(score):
            raise UserError(f"{self._path}: {self._name} gives {found!r:.60} for {of}; expected a finite number")
        return score


def _place(path: Path, error: BaseException) -> str:
    """The file, with the line where the error arose in it."""
    if isinstance(error, SyntaxError) and error.lineno:
        return f"{path}:{error.lineno}"
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename) == path]
    return f"{path}:{lines[-1]}" if lines else str(path)


def _words(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
