"""The reference of a watched model: observations of the records that it was evaluated on, and the accuracy that was
reviewed.

The vocabulary is of training texts and the observations are of held-out texts, because a text that the vocabulary was
made from has no unknown word, and every live text would look new beside it. Kept in `.tohum/watch/<model>/`:
`reference.json` and `vocabulary.json`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from pipeline import files, integrity, outcomes
from pipeline.config.recipe import Kind
from pipeline.errors import UserError
from pipeline.paths import EVALUATION, SAMPLES
from pipeline.seeds import seed_for
from pipeline.watching.champion import Champion
from pipeline.watching.observations import Facts, Observation, Vocabulary, label_text, observe

FILE = "reference.json"
FEWEST = 100
"""Held-out records that a reference needs."""
_MOST = 1_500  # held-out records: more narrow the bands little
_MOST_TRAIN = 20_000  # texts of the vocabulary
_CENTRED = 300  # training texts of the embeddings' centre
_COLUMNS: dict[Kind, tuple[str, str]] = {"labelled": ("text", ""), "instructions": ("instruction", "input")}


@dataclass(frozen=True)
class Reference:
    """Observations to compare with, and the reviewed accuracy."""

    model_sha256: str
    source: str
    """`records` of the project, or `requests` that were accepted as the normal state."""
    observations: tuple[Observation, ...]
    vocabulary: Vocabulary
    right: int | None = None
    """Test records answered right; None: not known."""
    judged: int | None = None
    """Test records with a label."""

    @classmethod
    def of(cls, texts: Sequence[str], answers: Sequence[Facts], vocabulary: Vocabulary, **known: Any) -> "Reference":
        """A reference of held-out texts and what the model says of them.

        Args:
            texts: not among those that the vocabulary was made from.
            answers: facts of each text.
            vocabulary: of training texts.
            known: model_sha256, source, right, judged.
        """
        observations = (observe(text, fact, vocabulary) for text, fact in zip(texts, answers, strict=True))
        return cls(observations=tuple(observations), vocabulary=vocabulary, **known)

    @classmethod
    def read(cls, folder: Path, model_sha256: str) -> "Reference | None":
        """The kept reference; None where there is none, or one of another model.

        Raises:
            UserError: a damaged file.
        """
        path = folder / FILE
        try:
            content = files.read_json(path)
            vocabulary = Vocabulary.read(folder)
            if content["model_sha256"] != model_sha256 or vocabulary is None:
                return None
            observations = tuple(Observation(**row) for row in content.pop("observations"))
            return cls(observations=observations, vocabulary=vocabulary, **content)
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError):
            raise UserError(f"{path}: damaged; remove it and run `tohum watch`, which makes it anew") from None

    def write(self, folder: Path) -> None:
        """Keeps the reference, the vocabulary first: a kill between the two leaves none of this model."""
        (folder / FILE).unlink(missing_ok=True)
        self.vocabulary.write(folder)
        rows = [{"version": None, "model_sha256": None} | row.plain() for row in self.observations]
        content = {"source": self.source, "right": self.right, "judged": self.judged, "observations": rows}
        files.write_json(folder / FILE, content | {"model_sha256": self.model_sha256})


def of_records(champion: Champion, model_sha256: str, samples: Path = SAMPLES) -> Reference | None:
    """The reference of a model on this project's records; None where there are too few held-out ones.

    Raises:
        UserError: a damaged file.
    """
    kind = champion.kind
    splits = {split: _rows(kind, samples, split, champion) for split in ("train", "validation", "test")}
    held_out = [*splits["test"], *splits["validation"]]
    if len(held_out) < FEWEST:
        return None
    generator = np.random.default_rng(seed_for(1, "watch", "reference"))
    chosen = sorted(generator.permutation(len(held_out))[:_MOST].tolist())
    train = [_text(kind, row) for row in splits["train"][:_MOST_TRAIN]]
    centre = _centre(champion, train[:: max(1, len(train) // _CENTRED)][:_CENTRED])
    texts = [_text(kind, held_out[i]) for i in chosen]
    answers = champion.measured(texts, embedded=centre is not None)
    known = [
        label_text(held_out[i]["label"]) == answer.label
        for i, answer in zip(chosen, answers, strict=True)
        # thresholds were chosen on validation records, on which a model looks a little better than it is
        if i < len(splits["test"]) and answer.label is not None
    ]
    right, judged = (sum(known), len(known)) if known else _reviewed(champion.folder.name, model_sha256)
    return Reference.of(
        texts, answers, Vocabulary.of(train, centre), model_sha256=model_sha256, source="records",
        right=right, judged=judged,
    )  # fmt: skip


def _rows(kind: Kind, samples: Path, split: str, champion: Champion) -> list[dict[str, Any]]:
    """The records of a split; none where the project has no such file."""
    if kind == "documents":
        return _documents(samples, split, champion)
    path = samples / kind / f"{split}.parquet"
    if not path.is_file():
        return []
    integrity.require_intact(path)
    rows: list[dict[str, Any]] = pq.ParquetFile(path).read().to_pylist()
    return rows


def _documents(samples: Path, split: str, champion: Champion) -> list[dict[str, Any]]:
    from pipeline.data.shards import Shard
    from pipeline.tokenizer import Tokenizer

    if not (samples / "documents" / f"{split}.parquet").is_file():
        return []
    shard, tokenizer = Shard.open(samples / "documents", split), Tokenizer.load(champion.folder)
    return [
        {"text": tokenizer.decode(shard.document(row)[:-1].tolist())} for row in range(min(len(shard), _MOST_TRAIN))
    ]


def _text(kind: Kind, row: Mapping[str, Any]) -> str:
    """The text that a client would send as the user's last message."""
    if kind == "documents":
        return str(row["text"])
    first, second = _COLUMNS[kind]
    return "\n".join(filter(None, (row[first], row.get(second) if second else None)))


def _centre(champion: Champion, texts: Sequence[str]) -> list[float] | None:
    """The mean embedding of texts; None for a model that gives none."""
    try:
        vectors = champion.embeddings(texts)
    except UserError:
        return None
    return vectors.mean(0).astype(float).tolist() if len(vectors) else None


def _reviewed(model: str, model_sha256: str) -> tuple[int, int] | tuple[None, None]:
    """Right answers and records of the evaluation of a text model by exact match; None, None without one."""
    folder = EVALUATION / model
    if not (folder / "details.json").is_file() or not (folder / "outcomes.parquet").is_file():
        return None, None
    if integrity.read_json(folder / "details.json").get("model_sha256") != model_sha256:
        return None, None
    table = outcomes.by_metric(outcomes.read(folder / "outcomes.parquet"))
    values = next((outcomes.values_of(rows) for (_, metric), rows in table.items() if metric == "exact_match"), None)
    return (None, None) if values is None else (int(values.sum()), len(values))
