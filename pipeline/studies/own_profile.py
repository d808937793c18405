"""Profile `files` for one data file: its source, the recipes over its records, and budgets that scale with the data.

The file is read, tokenized and sampled in a scratch folder as the stages would do it, and the sizes follow from the
result (sizing.py). Nothing is trained, and no out of a stage is touched.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from pipeline import config
from pipeline.config import profiles
from pipeline.config.recipe import Kind
from pipeline.data.collect import collect
from pipeline.data.samples import sample
from pipeline.data.tokens import tokenize
from pipeline.errors import UserError
from pipeline.paths import INPUTS, WORK
from pipeline.studies import released, sizing, workspace
from pipeline.studies.guess import Guess
from pipeline.studies.released import Base
from pipeline.studies.sizes import Sizes, measured
from pipeline.studies.sizing import FULL, Setting
from pipeline.studies.survey import Survey, survey

_ON_BASE: tuple[Kind, ...] = ("labelled", "instructions")
"""Records that a released model is fine-tuned on."""
_DOCUMENTS = 200
"""Different texts from which the gates' own bounds on their number stay."""
_STATE_IT = "write it here"
"""Licence and consent until the user states them."""


def apply(names: list[str], guessed: Guess, force: bool, base: Base | None = None) -> None:
    """Writes params.yaml: the profiles, with this data as the only source and budgets sized to it.

    Args:
        names: profiles; `files` is one of them.
        guessed: the user's data; a copy is put into inputs/ if it is not there.
        force: overwrite changes of the user's own in params.yaml.
        base: a released model that one LoRA recipe starts from, in place of the profiles' recipes.

    Raises:
        UserError: a file that cannot be read or learned from, a name that inputs/ has already, or changes in
            params.yaml that would be lost.
    """
    print("guessed\n" + "\n".join(f"  {sentence}" for sentence in guessed.sentences), flush=True)
    if base is not None:
        print(f"base {base.folder}: {base.described}, licence {base.licence or 'not stated'}", flush=True)
    profiles.require_replaceable(force)
    INPUTS.mkdir(exist_ok=True)
    if guessed.inputs is not None:
        guessed.inputs.copy_to(INPUTS)
    place = INPUTS / "file"  # the guess knows its own path below inputs/
    raw = yaml.safe_load(profiles.rendered(names))
    changes = _own(raw, place, guessed) if base is None else _on_base(place, guessed, base)
    profiles.change(raw, changes)
    surveyed = survey(raw["download"]["sources"], guessed.kind)
    settings = [*workspace.by_survey(surveyed, FULL), *_row_bounds(surveyed, texts=base is None)]
    sizing.apply(raw, settings, guessed.kind)
    sizes = _measured(raw, guessed.kind)
    if base is None:
        settings += sizing.sized(raw, sizes, FULL)
        settings += _bounds(settings, sizes)
    else:
        settings += sizing.sized_on_base(raw, sizes, FULL, base.context_length)
        settings += _record_bounds(settings, sizes)
    settings += _coverage(raw, surveyed, sizes)
    sizing.apply(raw, settings, guessed.kind)
    print("settings by the data (the others as in the profiles):")
    print("\n".join(sizing.described(settings)))
    workspace.print_duration(raw, sizes)
    profiles.apply(names, force=force, more=changes | sizing.spelled_out(raw, settings, guessed.kind))


def _own(raw: Mapping[str, Any], place: Path, guessed: Guess) -> dict[str, Any]:
    """Changes by dotted path: the file as the source, and only the recipes over its records."""
    kept = ["base", *(name for name, recipe in raw["finetune"].items() if recipe["data"] == guessed.kind)]
    changes: dict[str, Any] = {"download.sources": workspace.sources(place, guessed, _STATE_IT)}
    for section in ("finetune", "evaluations", "search"):
        removed = [name for name in raw[section] if name not in kept]
        if len(removed) < len(raw[section]):
            changes |= {f"{section}.{name}": profiles.REMOVED for name in removed}
        elif removed:
            changes[section] = {}
    if guessed.label_form == "several":
        changes |= workspace.several_labels(raw, kept[1:])
    one_label = guessed.kind == "labelled" and guessed.label_form == "one"
    if not one_label and "bag_of_words" in raw["evaluations"]["base"]["measures"]:
        changes["evaluations.base.measures.bag_of_words"] = profiles.REMOVED
    changes["register.models"] = [name for name in raw["register"]["models"] if name in kept]
    return changes


def _on_base(place: Path, guessed: Guess, base: Base) -> dict[str, Any]:
    """Changes by dotted path: the file's records as the source, the released model, and one LoRA recipe on it.

    Raises:
        UserError: records that such a model cannot learn from.
    """
    if guessed.kind not in _ON_BASE or (guessed.kind == "instructions" and not base.generates):
        learns = "labelled texts" if not base.generates else "labelled texts or instructions"
        raise UserError(
            f"--base {base.folder}: a {base.described} is fine-tuned on {learns}, and the data holds {guessed.kind}; "
            "choose other data or another model, or --kind if it was guessed wrong"
        )
    name, recipe, measures = released.lora_recipe(guessed.kind, base)
    entry = workspace.sources(place, guessed, _STATE_IT)["own"]
    changes: dict[str, Any] = base.changes | {
        "download.sources": {"own": entry},
        "finetune": {name: recipe},
        "evaluations": {
            "base": {"measures": {}, "thresholds": {}}, name: {"measures": measures, "thresholds": {}},
        },
        "search": {},
        "register.models": [name],
        "gates.raw.min_rows.documents": 0,
        "gates.tokens.min_documents": 0,
        "gates.tokens.max_unused_vocabulary_share": 1.0,
        "gates.samples.min_document_tokens": {"train": 0, "validation": 0, "test": 0},
    }  # fmt: skip
    if guessed.label_form == "several":
        made = {"finetune": {name: recipe}, "evaluations": changes["evaluations"]}
        profiles.change(made, workspace.several_labels(made, [name]))
        changes |= made
    return changes


def _measured(raw: dict[str, Any], kind: Kind) -> Sizes:
    """The sizes of the data after reading, tokenizing and sampling, in a scratch folder."""
    params = config.check(raw)
    WORK.mkdir(exist_ok=True)
    with TemporaryDirectory(dir=WORK, prefix="measured-") as scratch:
        folder = Path(scratch)
        collect(params.download, folder / "raw", progress=False)
        documents = folder / "raw" / "documents.parquet"
        tokenize(params.tokenize, params.split, documents, folder / "tokens", progress=False)
        sample(params, folder / "raw", folder / "tokens", folder / "samples", progress=False)
        return measured(folder / "samples", folder / "tokens" / "tokenizer", kind)


def _coverage(raw: Mapping[str, Any], surveyed: Survey, sizes: Sizes) -> list[Setting]:
    """The bound of the samples gate on the records that are used, where duplicates leave fewer than it asks for."""
    rows, used = surveyed.rows[sizes.kind], sum(sizes.records.values())
    if used >= raw["gates"]["samples"]["min_coverage"] * rows:
        return []
    reason = f"{used:,} of {rows:,} records are left without duplicates and near-duplicates"
    return [Setting("gates.samples.min_coverage", math.floor(100 * used / rows) / 100, reason)]


def _row_bounds(surveyed: Survey, texts: bool) -> list[Setting]:
    """Bounds of the gates on rows: repeated texts, few texts, and half of the rarest label's share."""
    bounds = []
    if repeated := surveyed.repeated():
        reason = "so many texts repeat another one; sampling keeps one of each"
        bounds.append(Setting("gates.raw.max_duplicate_share", math.ceil(1000 * repeated) / 1000, reason))
    if texts and (n := len(surveyed.sizes["documents"])) < _DOCUMENTS:
        paths = ("gates.raw.min_rows.documents", "gates.tokens.min_documents")
        bounds += [Setting(path, n // 2, "half of the different texts") for path in paths]
    if not surveyed.labels:
        return bounds
    counts = surveyed.label_counts()
    share = min(counts.values()) / len(surveyed.labels)
    reason = f"half of the share of the rarest label, {share:.1%}"
    bound = round(share / 2, 4)
    return bounds + [
        Setting(path, bound, reason) for path in ("gates.raw.labels.min_share", "gates.samples.min_label_share")
    ]


def _bounds(settings: Sequence[Setting], sizes: Sizes) -> list[Setting]:
    """Bounds of the gates that follow from the sizes: the longest record, and text for a few windows."""
    values = {setting.path: setting.value for setting in settings}
    context = values["pretrain.model.context_length"]
    windows = {"train": 8 * context + 1, "validation": context + 1, "test": context + 1}
    vocabulary = values["tokenize.vocab_size"]
    unused = max(0.5, round(0.4 + 256 / vocabulary, 2))
    return [
        Setting("gates.tokens.max_unused_vocabulary_share", unused, f"256 of {vocabulary} ids are single bytes"),
        Setting("gates.samples.min_document_tokens", windows, "eight windows to train on, one to validate and test on"),
        *_record_bounds(settings, sizes),
    ]


def _record_bounds(settings: Iterable[Setting], sizes: Sizes) -> list[Setting]:
    """The bound of the samples gate on the longest record."""
    values = {setting.path: setting.value for setting in settings}
    if (limit := values.get(sizing.LIMIT)) is not None:
        longest = limit - 1 if sizes.kind == "labelled" else limit  # a text gets an end-of-text token
        return [Setting(f"gates.samples.max_tokens.{sizes.kind}", longest, "as max_tokens of the recipes")]
    return []
