"""Sizes of a run that follow from the data: context length, vocabulary, batch sizes, updates and limits.

The same function serves `tohum try` and `tohum which` (few updates) and `tohum profile files --data FILE` (a full run);
they differ by their `Budget`. Every derived setting carries its reason.
"""

import copy
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from pipeline.config.recipe import Kind
from pipeline.errors import UserError
from pipeline.studies.sizes import Sizes
from pipeline.studies.survey import HELD_OUT

LIMIT = "finetune.*.task.max_tokens"
"""Setting of the longest example of fine-tuning."""
_PROMPT_LIMIT = "finetune.*.task.max_prompt_tokens"
_BYTES_PER_ID = 100
"""Bytes of text that support one id of a vocabulary."""
_LEAST_WINDOW = 16
"""Fewest tokens of a window."""
_LEAST_PROMPT = 24
"""Tokens of a prompt, its markers included, below which nothing of a question is left."""
_EXACT = 8
"""Median tokens of an answer up to which it is expected to the letter."""
_RECORDS_TOKENS = 4
"""Tokens of an update of fine-tuning, in updates of pretraining."""
_GENERATED = 128
"""Most tokens of an answer that is generated to be measured."""
_EPOCHS = 20
"""Passes over the records after which more updates only repeat them."""


@dataclass(frozen=True)
class Budget:
    """Bounds of a run, for data of any size."""

    context_length: int
    """Longest context in tokens."""
    window: int
    """Longest window of running text, where no record needs more."""
    vocab_size: tuple[int, int]
    """Smallest and largest vocabulary."""
    window_tokens: int
    """Tokens of an update of pretraining."""
    pretrain: tuple[int, int]
    """Fewest and most updates of pretraining."""
    finetune: tuple[int, int]
    """Fewest and most updates of fine-tuning."""
    pretrain_epochs: float
    """Passes over the text, within the bounds above."""
    finetune_epochs: float
    """Passes over the records, within the bounds above."""
    tokens: int
    """Most tokens of one training."""
    tested: int = HELD_OUT
    """Records wanted in the test split."""


TRY = Budget(1024, 128, (512, 2048), 512, (150, 600), (150, 300), 4, 3, 400_000)
"""A minute or two on two cores."""
FULL = Budget(2048, 256, (512, 8192), 1024, (660, 20_000), (120, 5_000), 4, 3, 50_000_000)
"""As long as the data is worth; four epochs of text as in Muennighoff et al. 2023."""


class Setting(NamedTuple):
    """A derived setting of params.yaml."""

    path: str
    """Dotted; `*` stands for every recipe."""
    value: Any
    reason: str


def vocabulary(text_bytes: int, budget: Budget) -> Setting:
    """The size of a vocabulary for so many bytes of text: a power of two."""
    low, high = budget.vocab_size
    size = min(high, max(low, 2 ** int(math.log2(max(1, text_bytes / _BYTES_PER_ID)))))
    return Setting("tokenize.vocab_size", size, f"{text_bytes:,} bytes of text, an id for every {_BYTES_PER_ID} bytes")


def sized(raw: Mapping[str, Any], sizes: Sizes, budget: Budget) -> list[Setting]:
    """The settings of pretraining and of all recipes over `sizes.kind` for these sizes.

    Args:
        raw: params; the recipes' batch sizes are upper bounds, and virtual tokens of their tuners take context.
        sizes: of the data.
        budget: bounds.

    Raises:
        UserError: an empty split, text or records that are too few or too long, with the one thing to change.
    """
    _require_records(sizes)
    recipes = {name: recipe for name, recipe in raw["finetune"].items() if recipe["data"] == sizes.kind}
    virtual = max((recipe["tuner"].get("virtual_tokens", 0) for recipe in recipes.values()), default=0)
    room = min(budget.context_length - virtual, _room(sizes, virtual)) if recipes else 0
    limits = _limits(sizes, budget, virtual, room) if recipes else []
    context = _context(sizes, budget, limits[0].value + virtual if limits else 0)
    settings = [context, *_pretraining(sizes, budget, context.value)]
    return settings + (_of_recipes(raw, recipes, limits, sizes, budget) if recipes else [])


def sized_on_base(raw: Mapping[str, Any], sizes: Sizes, budget: Budget, context_length: int) -> list[Setting]:
    """As `sized`, for recipes that start from a released model as it is: the records' settings alone.

    Args:
        raw: params.
        sizes: of the data, in tokens of the released model.
        budget: bounds.
        context_length: of the released model.
    """
    _require_records(sizes)
    recipes = {name: recipe for name, recipe in raw["finetune"].items() if recipe["data"] == sizes.kind}
    limits = _limits(sizes, budget, 0, min(budget.context_length, context_length))
    return _of_recipes(raw, recipes, limits, sizes, budget)


def _require_records(sizes: Sizes) -> None:
    if empty := [name for name, n in sizes.records.items() if not n]:
        raise UserError(
            f"the {' and the '.join(empty)} split holds none of the {sum(sizes.records.values())} {sizes.kind} that "
            "are left after duplicates and near-duplicates were removed (data/samples/removed.parquet); add records "
            "that differ"
        )


def _of_recipes(
    raw: Mapping[str, Any], recipes: Mapping[str, Any], limits: list[Setting], sizes: Sizes, budget: Budget
) -> list[Setting]:
    """Limits, batch sizes, updates, task and measure of the recipes."""
    most = min(int(recipe["ordering"]["batch_size"]) for recipe in recipes.values())
    settings = [*limits, *_finetuning(sizes, budget, limits[0].value, most)]
    if sizes.turns:
        settings.append(
            Setting("finetune.*.task.name", "chat", "conversations of several turns; every answer is learned")
        )
    if sizes.kind == "instructions":
        settings.append(_answer_measure(raw["evaluations"][next(iter(recipes))]["measures"], sizes))
    return settings


def _answer_measure(measures: Mapping[str, Any], sizes: Sizes) -> Setting:
    """The measures of a recipe, that of its answers by their length: exact match of short ones, else overlap (chrF)."""
    usual, longest = int(np.median(sizes.answers)), int(sizes.answers.max())
    name = "exact_match" if usual <= _EXACT and "overlap" not in measures else "overlap"
    present = measures.get("overlap", measures.get("exact_match", {"split": "test", "batch_size": 64}))
    settings = {"max_records": None} | present | {"max_tokens": min(_GENERATED, _eights(longest, 8, _GENERATED))}
    if name == "overlap":
        settings.setdefault("source", None)
    others = {other: value for other, value in measures.items() if other not in ("exact_match", "overlap")}
    return Setting(
        "evaluations.*.measures", {name: settings} | others, f"half of the answers have {usual} tokens or more"
    )


def _limits(sizes: Sizes, budget: Budget, virtual: int, room: int) -> list[Setting]:
    """The longest example of fine-tuning in tokens, at most `room`, and of instructions the longest prompt."""
    n = len(sizes.lengths)
    if sizes.kind == "labelled":
        limit = _eights(int(np.quantile(sizes.lengths, 0.99)), 24, room)
        longer = int((sizes.lengths > limit).sum())
        reason = f"{longer:,} of {n:,} texts are longer and lose their middle"
        return [Setting(LIMIT, limit, reason if longer else f"the longest text has {sizes.lengths.max()} tokens")]
    prompts = sizes.lengths - sizes.answers
    longest, longest_prompt = int(sizes.lengths.max()), int(prompts.max())
    if longest <= room:
        limit = _eights(longest + longest // 4, 32, room)  # questions in use may be longer than those of the data
        prompt = min(limit - 1, max(_LEAST_PROMPT, longest_prompt + longest_prompt // 4))
        return [
            Setting(LIMIT, limit, f"the longest record has {longest} tokens with its template; a quarter more in use"),
            Setting(_PROMPT_LIMIT, prompt, f"the longest prompt has {longest_prompt} tokens; a quarter more in use"),
        ]
    prompt = min(max(_LEAST_PROMPT, longest_prompt), room - int(np.quantile(sizes.answers, 0.99)))
    if prompt < _LEAST_PROMPT:
        longer = int((sizes.answers + _LEAST_PROMPT > room).sum())
        bound = "this run" if room == budget.context_length - virtual else "so little text"
        raise UserError(
            f"{longer:,} of {n:,} answers are longer than {room - _LEAST_PROMPT} tokens, the most that {bound} takes "
            f"({sizes.longest}: {sizes.answers.max()} tokens); shorten or leave out these records"
        )
    left_out = int((np.minimum(prompts, prompt) + sizes.answers > room).sum())
    cut = int((prompts > prompt).sum())
    return [
        Setting(LIMIT, room, f"{left_out:,} of {n:,} records are left out, their answers are longer"),
        Setting(_PROMPT_LIMIT, prompt, f"{cut:,} of {n:,} prompts are longer and lose their middle"),
    ]


def _room(sizes: Sizes, virtual: int = 0) -> int:
    """The longest window that every split of the text fills, without virtual tokens."""
    name, tokens = min(sizes.text_tokens.items(), key=lambda pair: pair[1])
    room = (tokens - 1) // 8 * 8 - virtual
    if room < _LEAST_WINDOW:
        raise UserError(
            f"the {name} split has {tokens} tokens of text, expected at least {_LEAST_WINDOW + virtual + 8}, for a "
            "window of text; add longer or more texts"
        )
    return room


def _context(sizes: Sizes, budget: Budget, needed: int) -> Setting:
    """The context length: that of the records, else of the documents, and never more than the splits fill."""
    path = "pretrain.model.context_length"
    room = _room(sizes)
    usual = _eights(int(np.quantile(sizes.documents, 0.9)), 32, budget.window)
    comfortable = max(32, min(sizes.text_tokens["validation"] // 4, sizes.text_tokens["train"] // 8) // 8 * 8)
    value = min(room, max(needed, min(usual, comfortable)))
    if value == needed:
        return Setting(path, value, "the longest example of the recipes")
    if value == usual:
        return Setting(
            path,
            value,
            f"nine of ten documents have at most {usual} tokens"
            if usual < budget.window
            else "the most of this budget",
        )
    return Setting(path, value, f"the validation split has {sizes.text_tokens['validation']:,} tokens of text")


def _pretraining(sizes: Sizes, budget: Budget, context: int) -> list[Setting]:
    """Batch size, updates and validation of pretraining."""
    tokens = sizes.text_tokens["train"]
    windows = max(1, (tokens - 1) // context)
    batch = _power(min(budget.window_tokens / context, windows / 4))
    steps = _updates(windows, batch, budget.pretrain, budget.pretrain_epochs, _EPOCHS / 2)
    steps = min(steps, max(1, budget.tokens // (batch * context)))
    epochs = steps * batch / windows
    checked = max(1, -(-max(1, (sizes.text_tokens["validation"] - 1) // context) // batch))
    return [
        Setting("pretrain.ordering.batch_size", batch, f"{windows:,} windows of {context} tokens to train on"),
        Setting("pretrain.schedule.steps", steps, f"{epochs:.1f} epochs of {tokens:,} tokens"),
        Setting("pretrain.schedule.warmup_steps", max(1, steps // 10), "a tenth of the updates"),
        Setting("pretrain.validation.every", max(1, steps // 5), "five validations"),
        Setting("pretrain.validation.batches", min(20, checked), "the validation split, at most 20 batches"),
    ]


def _finetuning(sizes: Sizes, budget: Budget, limit: int, most: int) -> list[Setting]:
    """Batch size, updates and validation of the recipes."""
    n = sizes.records["train"]
    usual = min(limit, float(sizes.lengths.mean()))
    batch = _power(min(most, n / 4, max(2, _RECORDS_TOKENS * budget.window_tokens / usual)))
    steps = _updates(n, batch, budget.finetune, budget.finetune_epochs, _EPOCHS)
    steps = min(steps, max(1, int(budget.tokens / (batch * usual))))
    checked = max(1, -(-sizes.records["validation"] // batch))
    return [
        Setting("finetune.*.ordering.batch_size", batch, f"{n:,} records of up to {limit} tokens to train on"),
        Setting("finetune.*.schedule.steps", steps, f"{steps * batch / n:.1f} epochs of {n:,} records"),
        Setting("finetune.*.schedule.warmup_steps", max(1, steps // 10), "a tenth of the updates"),
        Setting("finetune.*.validation.every", max(1, steps // 5), "five validations"),
        Setting("finetune.*.validation.batches", min(20, checked), "the validation split, at most 20 batches"),
    ]


def _updates(n: int, batch: int, bounds: tuple[int, int], epochs: float, most_epochs: float) -> int:
    """Updates for so many epochs of n examples, within the bounds, and within the most epochs."""
    low, high = bounds
    steps = min(high, max(low, math.ceil(epochs * n / batch)))
    return max(1, min(steps, math.ceil(most_epochs * n / batch)))


def _power(value: float) -> int:
    """The power of two nearest to a value, at least 1."""
    return int(2 ** round(math.log2(max(1.0, value))))


def _eights(value: int, low: int, high: int) -> int:
    """The multiple of eight at or above a value, within bounds that may be none."""
    return max(min(low, high), min(high, -(-value // 8) * 8))


def apply(raw: dict[str, Any], settings: list[Setting], kind: Kind) -> None:
    """Writes the settings into params; `finetune.*` stands for every recipe over `kind`, `evaluations.*` for theirs."""
    for path, value in spelled_out(raw, settings, kind).items():
        place: Any = raw
        *steps, last = path.split(".")
        for step in steps:
            place = place[step]
        place[last] = copy.deepcopy(value)


def spelled_out(raw: Mapping[str, Any], settings: Iterable[Setting], kind: Kind) -> dict[str, Any]:
    """The settings by dotted path, with the name of every recipe over `kind` in place of `*`."""
    recipes = [name for name, recipe in raw["finetune"].items() if recipe["data"] == kind]
    return {
        path.replace("*", name): value for path, value, _ in settings for name in (recipes if "*" in path else [""])
    }


def described(settings: list[Setting]) -> list[str]:
    """A line for each setting: its path, value and reason."""
    width = max(len(setting.path) for setting in settings)
    return [f"  {path:<{width}}  {_shown(value):>6}  {reason}" for path, value, reason in settings]


def _shown(value: Any) -> str:
    """A value; of a mapping its keys."""
    return ", ".join(value) if isinstance(value, dict) else str(value)
