"""Sizes that follow from the data: a wrong one stops a training, wastes minutes, or tests on nothing."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import config
from pipeline.config.recipe import Kind
from pipeline.data.samples import sample
from pipeline.errors import UserError
from pipeline.studies.probe import BUDGET, probe_params
from pipeline.studies.sizes import Sizes, measured
from pipeline.studies.sizing import FULL, LIMIT, TRY, Budget, apply, described, sized, vocabulary
from pipeline.studies.workspace import params
from pipeline.tokenizer import train
from tests.folders import write_raw, write_tokens
from tests.own_files import guessed

HEADER: dict[Kind, tuple[str, ...]] = {
    "labelled": ("text", "label"),
    "instructions": ("instruction", "output"),
    "documents": ("text",),
}
RAW = {kind: params(Path("inputs/own.csv"), guessed(kind, header)) for kind, header in HEADER.items()}
PROBE = {
    kind: probe_params(Path("inputs/own.csv"), guessed(kind, HEADER[kind])) for kind in ("labelled", "instructions")
}


def sizes(kind: Kind = "labelled", n: int = 150, tokens: int = 20, answer: int = 5, longest: int = 0) -> Sizes:
    """n records of so many tokens, 60 % of them to train on, one of them of `longest` tokens."""
    records = {"train": n * 3 // 5, "validation": n // 5, "test": n // 5}
    lengths = np.full(n if kind != "documents" else 0, tokens)
    answers = np.full(n if kind == "instructions" else 0, answer)
    if longest:
        lengths[-1:], answers[-1:] = longest, longest - tokens
    text = {name: count * tokens for name, count in records.items()}
    return Sizes(kind, text, np.full(records["train"], tokens), records, lengths, answers)


def values(raw: dict[str, Any], data: Sizes, budget: Budget = TRY) -> dict[str, Any]:
    return {setting.path: setting.value for setting in sized(raw, data, budget)}


@given(
    st.sampled_from(["labelled", "instructions", "documents"]),
    st.integers(12, 100_000), st.integers(2, 3000), st.integers(1, 200), st.sampled_from([TRY, FULL]), st.booleans(),
)  # fmt: skip
def test_sized_fits_the_data_or_says_the_one_thing_to_change(
    kind: Kind, n: int, tokens: int, answer: int, budget: Budget, probe: bool
) -> None:
    raw = copy.deepcopy(PROBE[kind] if probe and kind in PROBE else RAW[kind])
    data = sizes(kind, n, tokens, min(answer, tokens))
    try:
        settings = sized(raw, data, budget)
    except UserError as error:
        assert any(words in str(error) for words in ("add longer or more texts", "shorten or leave out"))  # noqa: PT017
        return
    apply(raw, settings, kind)
    checked = config.check(raw)
    context = checked.pretrain.model.context_length
    assert 16 <= context < min(data.text_tokens.values())
    for recipe in (checked.pretrain, *checked.finetune.values()):
        assert 1 <= recipe.schedule.warmup_steps <= recipe.schedule.steps
        assert 1 <= recipe.validation.every <= recipe.schedule.steps
    for tuned in raw["finetune"].values():
        limit = tuned["task"]["max_tokens"]
        assert limit + tuned["tuner"].get("virtual_tokens", 0) <= context
        assert limit >= min(data.lengths.max(), 24) or kind == "labelled"
        if kind == "instructions":
            fitting = (
                np.minimum(data.lengths - data.answers, tuned["task"]["max_prompt_tokens"]) + data.answers <= limit
            )
            assert fitting.mean() >= 0.98
        epochs = tuned["schedule"]["steps"] * tuned["ordering"]["batch_size"] / data.records["train"]
        assert epochs <= 21


def test_sized_keeps_a_small_data_set_from_being_repeated_for_ever() -> None:
    small, large = values(RAW["labelled"], sizes(n=30)), values(RAW["labelled"], sizes(n=50_000))
    assert small["finetune.*.schedule.steps"] * small["finetune.*.ordering.batch_size"] <= 21 * 18
    assert large["finetune.*.schedule.steps"] == TRY.finetune[1]


def test_sized_bounds_the_tokens_of_a_try_of_long_records() -> None:
    """Worked school problems of 230 tokens took ten minutes on a busy machine."""
    got = values(RAW["instructions"], sizes("instructions", n=1300, tokens=230, answer=100))
    for section, tokens in (("pretrain", got["pretrain.model.context_length"]), ("finetune.*", 230)):
        assert got[f"{section}.schedule.steps"] * got[f"{section}.ordering.batch_size"] * tokens <= TRY.tokens
    assert got["finetune.*.ordering.batch_size"] == 8


def test_sized_scales_a_full_run_with_the_data() -> None:
    steps = [values(RAW["labelled"], sizes(n=n), FULL)["finetune.*.schedule.steps"] for n in (1_000, 10_000, 100_000)]
    assert steps == [120, 1125, 5_000]  # three epochs in batches of 16, within the bounds


def test_sized_takes_the_context_of_long_answers() -> None:
    """Answers of 60 to 120 words stopped the training stage before."""
    long = values(RAW["instructions"], sizes("instructions", n=80, tokens=190, answer=170))
    assert long[LIMIT] == long["pretrain.model.context_length"] == 240  # a quarter more than 190
    assert set(long["evaluations.*.measures"]) == {"overlap"}
    short = values(RAW["instructions"], sizes("instructions", n=80, tokens=30, answer=4))
    assert set(short["evaluations.*.measures"]) == {"exact_match"}


def test_sized_leaves_out_a_few_answers_that_no_context_holds() -> None:
    settings = sized(RAW["instructions"], sizes("instructions", n=400, tokens=20, longest=5000), TRY)
    limit = next(setting for setting in settings if setting.path == LIMIT)
    assert limit.reason == "1 of 400 records are left out, their answers are longer"


def test_sized_refuses_answers_most_of_which_no_context_holds() -> None:
    with pytest.raises(UserError, match=r"^400 of 400 answers are longer than 1000 tokens.*the longest: 2000 tokens"):
        sized(RAW["instructions"], sizes("instructions", n=400, tokens=2020, answer=2000), TRY)


def test_sized_takes_task_chat_for_conversations() -> None:
    talks = sizes("instructions")._replace(turns=True)
    assert values(RAW["instructions"], talks)["finetune.*.task.name"] == "chat"
    assert "finetune.*.task.name" not in values(RAW["instructions"], sizes("instructions"))


def test_sized_refuses_a_split_that_deduplication_emptied() -> None:
    """A file of one sentence with small changes: near-duplicates of the training split are removed from the others."""
    data = sizes()._replace(records={"train": 20, "validation": 0, "test": 1})
    with pytest.raises(
        UserError, match=r"^the validation split holds none of the 21 labelled that are left after dupl"
    ):
        sized(RAW["labelled"], data, TRY)


def test_sized_cuts_a_long_text_and_says_how_many() -> None:
    settings = sized(RAW["labelled"], sizes(n=1000, longest=5000), TRY)
    limit = next(setting for setting in settings if setting.path == LIMIT)
    assert (limit.value, limit.reason) == (24, "1 of 1,000 texts are longer and lose their middle")


def test_sized_leaves_room_for_virtual_tokens_and_keeps_the_other_measures() -> None:
    probe = PROBE["instructions"]
    got = values(probe, sizes("instructions", n=80, tokens=190, answer=4), BUDGET)
    virtual = max(recipe["tuner"].get("virtual_tokens", 0) for recipe in probe["finetune"].values())
    assert got["pretrain.model.context_length"] == got[LIMIT] + virtual > got[LIMIT]
    assert set(got["evaluations.*.measures"]) == {"overlap", "perplexity"}  # the ranking and the forgetting
    assert got["finetune.*.schedule.steps"] == BUDGET.finetune[0]


@pytest.mark.parametrize(("text_bytes", "size"), [(0, 512), (150_000, 1024), (10**9, 2048)])
def test_vocabulary_is_a_power_of_two_within_the_budget(text_bytes: int, size: int) -> None:
    assert vocabulary(text_bytes, TRY).value == size


def test_described_gives_a_line_with_the_reason_of_every_setting() -> None:
    settings = sized(RAW["instructions"], sizes("instructions"), TRY)
    lines = described(settings)
    assert len(lines) == len(settings)
    assert all(setting.reason in line and setting.path in line for setting, line in zip(settings, lines, strict=True))
    assert "exact_match" in "\n".join(lines)


def test_measured_counts_the_tokens_of_the_samples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    checked = config.check(RAW["instructions"])
    instructions = [{"instruction": f"Soru {i}?", "input": "", "output": f"cevap {i} " * 3} for i in range(60)]
    raw = write_raw(Path("raw"), documents=[{"text": f"metin {i} " * 5} for i in range(60)], instructions=instructions)
    sample(checked, raw, write_tokens(raw, Path("tokens")), Path("samples"), progress=False)
    tokenizer = train(["soru cevap metin"], 262, "gpt2")
    tokenizer.save(Path("vocabulary"))
    got = measured(Path("samples"), Path("vocabulary"), "instructions")
    assert sum(got.records.values()) == len(got.lengths) == len(got.answers)
    answers = {len(f"cevap {i} " * 3) + 2 for i in range(60)}  # a token a byte
    assert set(got.answers.tolist()) <= answers
    assert got.text_tokens["train"] == int(got.documents.sum())
    assert measured(Path("samples"), Path("vocabulary"), "documents").lengths.size == 0
