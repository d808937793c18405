"""Gate on data/samples: the expectations on samples before training and evaluation.

`profile` reads data/samples; `EXPECTATIONS` is the table of conditions: no record in two splits (exactly or nearly,
with thresholds of the gate's own, so that samples made without decontamination are stopped too), no group in two
splits, splits in the order of time, labels that occur in every split, lengths that fit, splits that are large enough,
and every record of data/raw kept or removed with a reason.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pipeline import integrity
from pipeline.config.params import Deduplicate
from pipeline.config.recipe import Finetune, Kind
from pipeline.config.section import Count, Positive, Section, Share
from pipeline.data.label_cells import labels_of
from pipeline.data.records import SPLITS
from pipeline.gates._rules import (
    MOST_EXAMPLES,
    Example,
    Expectation,
    Frame,
    Row,
    Tally,
    at_least,
    at_most,
    equals,
    reaches,
    suite,
)
from pipeline.gates._wording import Said
from pipeline.gates.profiles import added, prompts
from pipeline.gates.profiles.examples import left_out
from pipeline.gates.profiles.overlaps import WAYS, overlaps
from pipeline.gates.profiles.splits import Samples
from pipeline.gates.profiles.values import MOST_VALUES

_ENCODED_TOGETHER = 1024


class BySplit(Section):
    """One number per split."""

    train: Count
    validation: Count
    test: Count


class TokensByKind(Section):
    """Tokens of a record, special tokens and markers left out."""

    labelled: Positive
    instructions: Positive
    preferences: Positive


class Overlap(Section):
    """Contamination: held-out records that occur in another split too."""

    max_verbatim: Count
    """Held-out records whose text occurs word for word in the other split."""
    max_folded: Count
    """Held-out records whose text occurs there apart from letter case and spaces."""
    max_near: Count
    """Held-out records with a near duplicate there."""
    near: Deduplicate
    """The similarity of near duplicates; the gate's own, so that no setting of `sample` can hide a leak."""


class Settings(Section):
    """gates.samples: the bounds of every expectation that has one."""

    overlap: Overlap
    min_records: BySplit
    """Fewest records of every kind that has records at all, but ratings."""
    min_document_tokens: BySplit
    """Fewest tokens of documents; below two windows of the context training and evaluation are impossible."""
    min_label_share: Share
    """Of a split's labelled records, for its rarest label."""
    max_tokens: TokensByKind
    """Longest record."""
    max_too_long_share: Share
    """Share of a kind's records that are truncated for the model."""
    max_left_out_share: Share
    """Share of a kind's records that make no example of a recipe's task (an answer too long for its max_tokens, a label
    unknown in training); training leaves them out."""
    min_coverage: Share
    """Share of a source's records of one kind that were not removed as duplicates."""
    max_split_groups: Count
    """Groups of one kind (column `group`) with records in more than one split."""
    max_out_of_order: Count
    """With split.by time: records of a later split that are not later than every record of an earlier one, as a source
    may pin them."""
    max_test_prompts: Count
    """Records of a journal outside test whose prompt is that of a test record, of any kind."""


CODE = "no bound: fix pipeline/data/samples.py"
MIN_TOKENS = reaches("min_tokens", "gates.samples.min_document_tokens.{split}")
TOLD = "{{{}}} records of {{split}} {} {{against}}"
TOO_LONG = at_most("max_too_long_share", "gates.samples.max_tokens.{kind}")
LEFT_OUT = at_most("max_left_out_share", "gates.samples.max_left_out_share, or the recipe's task.max_tokens")
NO_EXAMPLE = (
    "{left_out} of {records_asked} records make no example of task {task} ({reasons}), a share of {left_out_share}"
)
IN_TRAIN = at_least(1, "no bound: pin or add records of that label to train")
MEND = "sample.decontaminate: true removes it from the less guarded split"
VERBATIM = f"no held-out text occurs word for word in another split; {MEND}"
FOLDED = f"no held-out text occurs in another split apart from case and spaces; {MEND}"
IN_SEVERAL = at_most("max_split_groups", "split.by: group, or gates.samples.max_split_groups")
UNORDERED = at_most("max_out_of_order", "the source's split, or gates.samples.max_out_of_order")
NEAR = f"no near duplicate of a held-out text occurs in another split; {MEND}"
# Frame, column, condition (with the setting below gates.samples that holds the bound), condition and values in words.
EXPECTATIONS: list[Row] = [
    (
        "overlap",
        "verbatim_overlap",
        at_most("overlap.max_verbatim"),
        VERBATIM,
        TOLD.format("verbatim_overlap", "occur word for word in"),
    ),
    (
        "overlap",
        "folded_overlap",
        at_most("overlap.max_folded"),
        FOLDED,
        TOLD.format("folded_overlap", "occur, apart from case and spaces, in"),
    ),
    (
        "overlap",
        "near_overlap",
        at_most("overlap.max_near"),
        NEAR,
        TOLD.format("near_overlap", "have a near duplicate in"),
    ),
    (
        "groups",
        "split_groups",
        IN_SEVERAL,
        "no group has records in two splits: a model may know a held-out customer or thread by other records",
        "{split_groups} of {groups} groups have records in more than one split",
    ),
    (
        "time_order",
        "out_of_order",
        UNORDERED,
        "split by time, every held-out record is later than the records before",
        "{out_of_order} records of {split} are not later than the latest one of {against}, {latest}",
    ),
    (
        "sent_prompts",
        "test_prompts",
        at_most("max_test_prompts"),
        "no record of a journal repeats a prompt of the test split; `tohum forget` leaves these records out",
        "{test_prompts} of {prompts} records of a journal have the prompt of a test record",
    ),
    (
        "splits",
        "records",
        reaches("min_records", "gates.samples.min_records.{split}"),
        "every split has records",
        "split {split} has {records} records",
    ),
    (
        "documents",
        "tokens",
        MIN_TOKENS,
        "every split has enough text to learn from or to be measured on",
        "split {split} has {tokens} tokens",
    ),
    (
        "documents",
        "tokens_in_file",
        equals("tokens", CODE),
        "the index covers the ids file exactly",
        "split {split}: {tokens_in_file} tokens in the file, {tokens} in the index",
    ),
    (
        "classes",
        "class_share",
        at_least("min_label_share"),
        "no label is too rare in any split",
        "{class_records} records of split {split} have the label {label}, a share of {class_share}",
    ),
    (
        "classes",
        "in_train",
        IN_TRAIN,
        "every label of a split is seen in training",
        "label {label} of split {split} has {in_train} records in train",
    ),
    (
        "lengths",
        "too_long_share",
        TOO_LONG,
        "records are not longer than a model reads",
        "{too_long} of {records_read} records have more than {max_tokens} tokens, a share of {too_long_share}; "
        "the longest has {longest}",
    ),
    ("examples", "left_out_share", LEFT_OUT, "records make an example of every recipe's task", NO_EXAMPLE),
    (
        "account",
        "rows_in",
        equals("accounted", CODE),
        "rows in = kept + removed, with the reason",
        "{rows_in} records were read; kept and removed are {accounted}",
    ),
    (
        "account",
        "kept",
        equals("rows_stored", CODE),
        "every kept record was written",
        "{kept} records were kept, {rows_stored} are in the files",
    ),
    (
        "account",
        "rows_admitted",
        equals("rows_in", CODE),
        "every record of data/raw was examined",
        "{rows_admitted} records passed the raw gate, {rows_in} were read",
    ),
    (
        "coverage",
        "coverage_share",
        at_least("min_coverage"),
        "most of each source is used",
        "{sampled} of {admitted} records of source {source} are used, a share of {coverage_share}",
    ),
]


def profile(settings: Settings, data: Path, recipes: Mapping[str, Finetune] | None = None) -> dict[str, Frame]:
    """Profile tables of `<data>/samples`.

    overlaps, groups, time order, splits, documents, classes, lengths, examples, account, coverage, sent prompts, slices
    (records of each value of an added column).

    Args:
        settings: the gate's.
        data: the folder data/.
        recipes: `finetune` of the params, whose tasks read the records; None: none.

    Raises:
        UserError: a file is missing.
    """
    samples = Samples.open(data)
    return {
        "overlap": _overlap(settings, samples, data),
        "groups": added.groups(samples, data),
        "time_order": added.time_order(samples),
        "splits": _splits(settings, samples),
        "documents": _documents(settings, samples),
        "classes": _classes(samples, _label_form(recipes or {})),
        "lengths": _lengths(settings, samples),
        "examples": _examples(samples, recipes or {}),
        "account": _account(samples),
        "coverage": _coverage(samples),
        "sent_prompts": prompts.profile(samples),
        "slices": added.slices(samples),
    }


def expectations(settings: Settings) -> list[Expectation]:
    """The expectations on `profile`'s frames."""
    return suite("gates.samples", settings, EXPECTATIONS)


def admits(data: Path) -> dict[Kind, str]:
    """Per record kind, the SHA-256 of the files that a pass admits."""
    return integrity.admits("samples", data)


def _overlap(settings: Settings, samples: Samples, folder: Path) -> Frame:
    frame = Frame(("kind", "split", "against"), WAYS)
    for kind in samples.sizes:
        if samples.records(kind):
            for (split, against), ways in overlaps(samples, kind, settings.overlap.near, folder).items():
                frame.add({"kind": kind, "split": split, "against": against, **ways})
    return frame


def _splits(settings: Settings, samples: Samples) -> Frame:
    frame = Frame(("kind", "split"), ("records", "min_records"))
    for kind in samples.sizes:
        for split in SPLITS:
            counted = samples.records(kind) and kind != "ratings"  # nobody has to rate
            needed = getattr(settings.min_records, split) if counted else 0
            frame.add({"kind": kind, "split": split, "records": samples.sizes[kind][split], "min_records": needed})
    return frame


def _documents(settings: Settings, samples: Samples) -> Frame:
    frame = Frame(("split",), ("tokens", "tokens_in_file", "min_tokens"), kind="documents")
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


def _label_form(recipes: Mapping[str, Finetune]) -> str | None:
    """How the recipes' tasks read labels: `labels` (also without any recipe), else `label_sets` or `numbers`."""
    tasks = {name: recipe for name, recipe in recipes.items() if recipe.data == "labelled"}
    forms = {getattr(recipe.part("task", f"finetune.{name}"), "form", None) for name, recipe in tasks.items()}
    return next((form for form in ("labels", "label_sets", "numbers") if form in forms), "labels")


def _classes(samples: Samples, form: str | None) -> Frame:
    """Records of every label by split; a record with several labels counts for each, a number for none."""
    counts_of = dict.fromkeys(("class_share", "in_train"), "class_records")
    frame = Frame(("split", "label"), ("class_records", "class_share", "in_train"), counts=counts_of, kind="labelled")
    cells = samples.counts("labelled", "label")
    counts: Counter[tuple[str, str]] = Counter()
    for (split, cell), n in cells.items() if form != "numbers" else ():
        for label in labels_of(cell) if form == "label_sets" else (cell,):
            counts[split, label] += n
    labels = sorted({label for _, label in counts})
    examples = _unseen_in_train(samples, counts, form) if form != "numbers" else {}
    for split, size in samples.sizes["labelled"].items():
        rarest = [label for _, _, label in sorted((counts["train", of] > 0, counts[split, of], of) for of in labels)]
        listed, more = (rarest[:MOST_VALUES], rarest[MOST_VALUES:]) if size else ([], [])
        for label in sorted(listed):
            frame.add(
                {
                    "split": split,
                    "label": label,
                    "class_records": Tally(counts[split, label], examples.get((split, label), [])),
                    "class_share": counts[split, label] / size,
                    "in_train": counts["train", label],
                }
            )
        if more:
            frame.add(
                {
                    "split": split,
                    "label": Said(f"{len(more):,} more labels", "{n} more labels", n=len(more)),
                    "class_records": sum(counts[split, label] for label in more),
                    "class_share": min(counts[split, label] for label in more) / size,
                    "in_train": min(counts["train", label] for label in more),
                }
            )
    return frame


def _unseen_in_train(
    samples: Samples, counts: Counter[tuple[str, str]], form: str | None
) -> dict[tuple[str, str], list[Example]]:
    """Examples of the first records whose label does not occur in train, by split and label."""
    examples: dict[tuple[str, str], list[Example]] = {}
    row = shown = 0
    for split, batch in samples.batches("labelled", ["label"]):
        for place, label in enumerate(batch["label"].to_pylist(), row):
            for one in labels_of(label) if form == "label_sets" else (label,):
                if shown < MOST_EXAMPLES and not counts["train", one]:
                    examples.setdefault((split, one), []).append(samples.example("labelled", place))
                    shown += 1
        row += len(batch)
    return examples


def _lengths(settings: Settings, samples: Samples) -> Frame:
    columns = ("records_read", "longest", "max_tokens", "too_long", "too_long_share")
    frame = Frame(("kind",), columns, counts={"too_long_share": "too_long"})
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
    """Numbers of tokens of the records, in their order, a bounded number of records at a time."""
    texts = samples.whole_texts(kind)
    while batch := [text for _, text in zip(range(_ENCODED_TOGETHER), texts, strict=False)]:
        yield np.array([len(ids) for ids in samples.tokenizer.encode_batch(batch)], np.int64)


def _examples(samples: Samples, recipes: Mapping[str, Finetune]) -> Frame:
    columns = ("records_asked", "left_out", "left_out_share")
    frame = Frame(("kind", "split", "task", "reasons"), columns, counts={"left_out_share": "left_out"})
    for found in left_out(samples, recipes):
        reasons = ", ".join(f"{reason} {count}" for reason, count in sorted(found.reasons.items()))
        frame.add(
            {
                "kind": found.kind,
                "split": found.split,
                "task": found.task,
                "reasons": reasons or Said("none", "no reason"),
                "records_asked": found.records,
                "left_out": found.left_out,
                "left_out_share": found.left_out.count / found.records,
            }
        )
    return frame


def _account(samples: Samples) -> Frame:
    frame = Frame(("kind",), ("rows_in", "accounted", "kept", "rows_stored", "rows_admitted"))
    for kind in samples.sizes:
        counts = samples.row_counts.get(kind, {"rows_in": 0, "kept": {}, "removed": {}})
        kept = sum(counts["kept"].values())
        frame.add(
            {
                "kind": kind,
                "rows_in": counts["rows_in"],
                "accounted": kept + sum(counts["removed"].values()),
                "kept": kept,
                "rows_stored": samples.records(kind),
                "rows_admitted": sum(samples.admitted(kind).values()),
            }
        )
    return frame


def _coverage(samples: Samples) -> Frame:
    columns = ("admitted", "sampled", "left_out", "coverage_share")
    frame = Frame(("source", "kind"), columns, counts={"coverage_share": "left_out"})
    for kind in samples.sizes:
        sampled: Counter[str] = Counter()
        for (_, source), n in samples.counts(kind, "source").items():
            sampled[source] += n
        twins = samples.row_counts.get(kind, {}).get("twins", {}).get("left_out", {})  # never meant to be sampled
        for source, admitted in sorted(samples.admitted(kind).items()):
            if count := admitted - twins.get(source, 0):
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
