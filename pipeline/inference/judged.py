"""Answers that a model samples to records, and their scores by a judge.

Shapes: P prompts, S samples of a prompt.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pipeline.config.recipe import Compute
from pipeline.contracts import Judged, JudgeProtocol
from pipeline.errors import UserError
from pipeline.inference.answers import ends
from pipeline.inference.divergence import Drawn, draw
from pipeline.inference.engine import RowSettings
from pipeline.model.gpt import GPT
from pipeline.seeds import seed_for
from pipeline.tasks import Request, Task

Floats = npt.NDArray[np.float64]


class Sampled(NamedTuple):
    """The answers of one model to all records."""

    records: Sequence[Mapping[str, Any]]
    samples: int
    """S."""
    drawn: list[Drawn]
    """S answers to each record, in their order."""
    texts: list[str]
    """The answers in text, without the stop id."""

    @property
    def tokens(self) -> Floats:
        """Tokens of every answer without the stop id, [P, S]."""
        return np.array([len(one.said) for one in self.drawn], np.float64).reshape(-1, self.samples)

    @property
    def ended(self) -> Floats:
        """1 for every answer that ended by a stop id, else 0; [P, S]."""
        return np.array([one.ended for one in self.drawn], np.float64).reshape(-1, self.samples)

    def first(self, samples: int) -> "Sampled":
        """The first so many answers to each record."""
        kept = [i for i in range(len(self.drawn)) if i % self.samples < samples]
        return Sampled(self.records, samples, [self.drawn[i] for i in kept], [self.texts[i] for i in kept])

    def scores(self, judge: JudgeProtocol) -> Floats:
        """scores_PS of a judge.

        Raises:
            UserError: a score that is not a finite number.
        """
        judged = [
            Judged(self.records[one.row], one.prompt, one.ids, text)
            for one, text in zip(self.drawn, self.texts, strict=True)
        ]
        scores_E = judge.scores(judged).double().cpu().numpy()
        if not np.isfinite(scores_E).all():
            bad = int(np.flatnonzero(~np.isfinite(scores_E))[0])
            raise UserError(
                f"the judge's score of {self.texts[bad]!r:.60} to record {judged[bad].record['id']} is "
                f"{scores_E[bad]}; expected a finite number"
            )
        return np.asarray(scores_E).reshape(-1, self.samples)


def sample(  # noqa: PLR0913 - the parts of a model, and how it is asked
    model: GPT,
    task: Task,
    records: Sequence[Mapping[str, Any]],
    samples: int,
    how: RowSettings,
    compute: Compute,
) -> Sampled:
    """So many answers to each record.

    Args:
        model: a model of this task.
        task: gives prompts, the end of an answer and its text.
        records: instructions or preferences, each with `id`.
        samples: of each record.
        how: temperature and longest answer; its `seed` and the record's id decide the draws.
        compute: precision of the params.

    Raises:
        UserError: a prompt that leaves no room for an answer.
    """
    stop = frozenset(ends(task))
    asks = [
        (
            task.prompt(Request.of_record(record)),
            RowSettings(how.max_tokens, how.temperature, stop=stop, seed=seed_for(how.seed, "judged", record["id"])),
        )
        for record in records
    ]
    drawn = draw(model, asks, samples, compute)
    texts = [task.answer(task.tokenizer.decode(list(one.said))) for one in drawn]
    return Sampled(records, samples, drawn, texts)
