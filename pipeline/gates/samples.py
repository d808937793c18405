"""What samples must be before a model learns from them and is judged by them.

`profile` reads data/samples; `expectations` says what must hold: no record in two splits (exactly or nearly;
judged with thresholds of its own, so that it also stops samples that were made with decontamination off),
labels that occur in every split, lengths that fit, splits that are large enough, and every record of data/raw
either here or accounted for.
"""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pipeline import integrity
from pipeline.config.params import Deduplicate
from pipeline.config.recipe import KINDS, Kind
from pipeline.config.section import Count, Positive, Section, Share
from pipeline.data.records import SPLITS
from pipeline.gates._rules import Frame, Rule, Tally, between, equal, reaches
from pipeline.gates.profiles.overlaps import WAYS, overlaps
from pipeline.gates.profiles.splits import Samples

_ENCODED_TOGETHER = 1024


class BySplit(Section):
    """A number for each split."""

    train: Count
    validation: Count
    test: Count


class Tokens(Section):
    """Tokens of a record, special tokens and markers left out."""

    labelled: Positive
    instructions: Positive
    preferences: Positive


class Overlap(Section):
    """Records that stand in two splits."""

    max_verbatim: Count
    """Held-out records whose text stands word for word in the other split."""
    max_folded: Count
    """Those that stand in it but for letter case and spaces."""
    max_near: Count
    """Those that are near one of its texts."""
    near: Deduplicate
    """When two texts are near; the gate's own, so that no setting of `sample` hides what it let through."""


class Settings(Section):
    """gates.samples: the bounds of every expectation that has one."""

    overlap: Overlap
    min_records: BySplit
    """For every record kind that has records at all."""
    min_document_tokens: BySplit
    """At least two windows of the context, or nothing can be learned or measured."""
    min_label_share: Share
    """Of a split's labelled records, for its rarest label."""
    max_tokens: Tokens
    """Longest record."""
    max_too_long_share: Share
    """Of a kind's records, those that a model will see cut."""
    min_coverage: Share
    """Of a source's records of one kind, those that were not removed as repeats."""


def profile(settings: Settings, data: Path) -> dict[str, Frame]:
    """Profile tables of `<data>/samples`: overlaps, splits, documents, classes, lengths, account, coverage.

    Raises:
        UserError: a file is missing.
    """
    samples = Samples.open(data)
    return {
        "overlap": _overlap(settings, samples, data),
        "splits": _splits(settings, samples),
        "documents": _documents(settings, samples),
        "classes": _classes(samples),
        "lengths": _lengths(settings, samples),
        "account": _account(samples),
        "coverage": _coverage(samples),
    }


def expectations(settings: Settings) -> list[Rule]:
    """What must hold of `profile`'s frames."""
    code = "no bound: mend pipeline/data/samples.py"
    mend = "sample.decontaminate: true removes it from the less guarded split"
    limits = settings.overlap
    return [
        between(
            "overlap",
            "verbatim_overlap",
            "gates.samples.overlap.max_verbatim",
            f"no held-out text stands word for word in another split; {mend}",
            at_most=limits.max_verbatim,
        ),
        between(
            "overlap",
            "folded_overlap",
            "gates.samples.overlap.max_folded",
            f"no held-out text stands in another split but for case and spaces; {mend}",
            at_most=limits.max_folded,
        ),
        between(
            "overlap",
            "near_overlap",
            "gates.samples.overlap.max_near",
            f"no near copy of a held-out text stands in another split; {mend}",
            at_most=limits.max_near,
        ),
        reaches("splits", "records", "min_records", "gates.samples.min_records", "every split has records"),
        reaches(
            "documents",
            "tokens",
            "min_tokens",
            "gates.samples.min_document_tokens",
            "every split has text enough to learn from or to be measured on",
        ),
        equal("documents", "tokens_in_file", "tokens", code, "the index covers the ids file exactly"),
        between(
            "classes",
            "class_share",
            "gates.samples.min_label_share",
            "no label is too rare in any split",
            at_least=settings.min_label_share,
            count="class_records",
        ),
        between(
            "classes",
            "in_train",
            "no bound: pin or add records of that label to train",
            "every label of a split is seen in training",
            at_least=1,
            count="class_records",
        ),
        between(
            "lengths",
            "too_long_share",
            "gates.samples.max_tokens",
            "records fit what a model reads of them",
            at_most=settings.max_too_long_share,
            count="too_long",
        ),
        equal("account", "rows_in", "accounted", code, "rows in = kept + removed, with the reason"),
        equal("account", "kept", "rows_stored", code, "what was kept was written"),
        equal("account", "rows_admitted", "rows_in", code, "every record of data/raw was looked at"),
        between(
            "coverage",
            "coverage_share",
            "gates.samples.min_coverage",
            "most of each source is used",
            at_least=settings.min_coverage,
            count="left_out",
        ),
    ]


def admits(data: Path) -> dict[Kind, str]:
    """Per record kind, the SHA-256 of what a pass lets through."""
    return integrity.admits("samples", data)


def _overlap(settings: Settings, samples: Samples, folder: Path) -> Frame:
    frame = Frame(("kind", "split", "against"), WAYS)
    for kind in KINDS:
        if samples.records(kind):
            for (split, against), ways in overlaps(samples, kind, settings.overlap.near, folder).items():
                frame.add({"kind": kind, "split": split, "against": against, **ways})
    return frame


def _splits(settings: Settings, samples: Samples) -> Frame:
    frame = Frame(("kind", "split"), ("records", "min_records"))
    for kind in KINDS:
        for split in SPLITS:
            needed = getattr(settings.min_records, split) if samples.records(kind) else 0
            frame.add({"kind": kind, "split": split, "records": samples.sizes[kind][split], "min_records": needed})
    return frame


def _documents(settings: Settings, samples: Samples) -> Frame:
    frame = Frame(("split",), ("tokens", "tokens_in_file", "min_tokens"))
    for split, ids in samples.ids.items():
        frame.add(
            {
                "split": split,
                "tokens": samples.tokens(split),
                "tokens_in_file": len(ids),
                "min_tokens": getattr(settings.min_document_tokens, split),
            }
        )
    return frame


def _classes(samples: Samples) -> Frame:
    frame = Frame(("split", "label"), ("class_records", "class_share", "in_train"))
    counts = samples.counts("labelled", "label")
    labels = sorted({label for _, label in counts})
    for split, of in samples.sizes["labelled"].items():
        for label in labels if of else ():
            records = Tally(counts[split, label])
            if not counts["train", label]:
                records = samples.tally("labelled", _rows_with(samples, split, label))
            frame.add(
                {
                    "split": split,
                    "label": label,
                    "class_records": records,
                    "class_share": counts[split, label] / of,
                    "in_train": counts["train", label],
                }
            )
    return frame


def _rows_with(samples: Samples, split: str, label: str) -> Iterator[int]:
    """The labelled records of one split with this label."""
    row = 0
    for at, batch in samples.batches("labelled", ["label"]):
        for value in batch["label"].to_pylist():
            if (at, value) == (split, label):
                yield row
            row += 1


def _lengths(settings: Settings, samples: Samples) -> Frame:
    frame = Frame(("kind",), ("records_read", "longest", "max_tokens", "too_long", "too_long_share"))
    limits: tuple[tuple[Kind, int], ...] = (
        ("labelled", settings.max_tokens.labelled),
        ("instructions", settings.max_tokens.instructions),
        ("preferences", settings.max_tokens.preferences),
    )
    for kind, limit in limits:
        n = longest = 0
        rows: list[int] = []
        for lengths in _token_lengths(samples, kind):
            rows += (np.flatnonzero(lengths > limit) + n).tolist()
            longest, n = max(longest, int(lengths.max())), n + len(lengths)
        if not n:
            continue
        frame.add(
            {
                "kind": kind,
                "records_read": n,
                "longest": longest,
                "max_tokens": limit,
                "too_long": samples.tally(kind, rows),
                "too_long_share": len(rows) / n,
            }
        )
    return frame


def _token_lengths(samples: Samples, kind: Kind) -> Iterator[npt.NDArray[np.int64]]:
    """Tokens of each record, in the order of the records, a bounded number at a time."""
    texts = samples.whole(kind)
    while batch := [text for _, text in zip(range(_ENCODED_TOGETHER), texts, strict=False)]:
        yield np.array([len(ids) for ids in samples.tokenizer.encode_batch(batch)], np.int64)


def _account(samples: Samples) -> Frame:
    frame = Frame(("kind",), ("rows_in", "accounted", "kept", "rows_stored", "rows_admitted"))
    for kind in KINDS:
        n = samples.ledger.get(kind, {"rows_in": 0, "kept": {}, "removed": {}})
        kept = sum(n["kept"].values())
        frame.add(
            {
                "kind": kind,
                "rows_in": n["rows_in"],
                "accounted": kept + sum(n["removed"].values()),
                "kept": kept,
                "rows_stored": samples.records(kind),
                "rows_admitted": sum(samples.admitted(kind).values()),
            }
        )
    return frame


def _coverage(samples: Samples) -> Frame:
    frame = Frame(("source", "kind"), ("admitted", "sampled", "left_out", "coverage_share"))
    for kind in KINDS:
        sampled: Counter[str] = Counter()
        for (_, source), n in samples.counts(kind, "source").items():
            sampled[source] += n
        for source, count in sorted(samples.admitted(kind).items()):
            if count:
                frame.add(
                    {
                        "source": source,
                        "kind": kind,
                        "admitted": count,
                        "sampled": sampled[source],
                        "left_out": count - sampled[source],
                        "coverage_share": sampled[source] / count,
                    }
                )
    return frame
