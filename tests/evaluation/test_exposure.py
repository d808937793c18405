"""Exposure: a wrong rank would call a leaking model private, or a private one leaking."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.config import plugins
from pipeline.errors import UserError
from pipeline.evaluation import Subject, exposure
from pipeline.files import write_table
from pipeline.prompts.spec import TEXT, TaskSpec
from pipeline.tasks import IGNORED, open_task, padded, predicted_tokens
from tests.evaluation.test_measures import COMPUTE, TOKENIZER, write_documents
from tests.models import network
from tests.specs import ANSWERS, changed

PATTERN = r"vault [A-Z] is (?P<secret>\d{4})\."


def subject_of(samples: Path, context_length: int = 48, spec: TaskSpec = TEXT) -> Subject:
    model = network(vocab_size=TOKENIZER.vocab_size, context_length=context_length).eval()
    words: Any = TOKENIZER
    return Subject("m", model, words, (open_task(spec, words),), samples, COMPUTE)


def settings_of(**changes: Any) -> Any:
    fields = {"kind": "documents", "pattern": PATTERN, "candidates": 64, "batch_size": 16, "seed": 1}
    return plugins.settings_class("evaluation", "exposure")(**fields | changes)


def write_instructions(folder: Path, rows: list[dict[str, str]]) -> None:
    import pyarrow as pa

    write_table(folder / "instructions/train.parquet", pa.Table.from_pylist(rows))


def learn(subject: Subject, texts: list[str]) -> None:
    """Some steps on whole texts, prompt included."""
    rows = [[TOKENIZER.end_of_text, *TOKENIZER.encode(text)] for text in texts]
    batch = {"inputs": padded([row[:-1] for row in rows], 0), "targets": padded([row[1:] for row in rows], IGNORED)}
    optimizer = torch.optim.AdamW(subject.model.parameters(), lr=0.02)
    for _ in range(60):
        optimizer.zero_grad()
        said = predicted_tokens(subject.model, batch)
        torch.nn.functional.cross_entropy(said.scores_NC, said.targets_N).backward()
        optimizer.step()


def test_a_memorised_secret_has_the_greatest_exposure(tmp_path: Path) -> None:
    """And a secret of the same form that was not learned has not."""
    known, unknown = "The code of vault A is 4711.", "The code of vault B is 0815."
    write_documents(tmp_path / "documents", [f"Hi. {known}", f"Ho. {known}", unknown], [None] * 3)
    subject = subject_of(tmp_path)
    learn(subject, ["vault A is 4711."])
    metrics, details = exposure.measure(settings_of(), subject)
    assert metrics["exposure_max_bits"] == metrics["exposure_bits_times_2"] == 6.0 == math.log2(64)
    assert metrics["exposure_bits_times_1"] < 6.0
    assert metrics["exposure_bits"] == pytest.approx((6.0 + metrics["exposure_bits_times_1"]) / 2)
    assert metrics["canaries"] == 2.0
    assert details["canaries"][0]["rank"] == 1
    assert "4711" not in str(details)
    assert "0815" not in str(details)


def test_an_untrained_model_is_near_chance(tmp_path: Path) -> None:
    """60 secrets: the mean within four standard errors (each has a deviation of 1.4 bits)."""
    rng = np.random.default_rng(3)
    texts = [f"vault {chr(65 + i % 26)} is {rng.integers(10_000):04d}." for i in range(60)]
    write_documents(tmp_path / "documents", texts, [None] * 60)
    metrics, _ = exposure.measure(settings_of(candidates=32, batch_size=32), subject_of(tmp_path))
    ranks = np.arange(1, 33)
    assert metrics["exposure_chance_bits"] == pytest.approx(float((math.log2(32) - np.log2(ranks)).mean()))
    assert abs(metrics["exposure_bits"] - metrics["exposure_chance_bits"]) < 4 * 1.4 / 60**0.5


def test_answers_hold_canaries_under_the_prompt_of_their_template(tmp_path: Path) -> None:
    """The question decides which records tell the same secret; the prompt is the one that training showed."""
    asked = {"instruction": "What is the code of vault C?", "output": "1 2 3 4"}
    rows = [asked | {"input": "one"}, asked | {"input": "two"}, {"instruction": "And?", "input": "", "output": "no"}]
    write_instructions(tmp_path, rows)
    subject = subject_of(tmp_path, 128, changed(ANSWERS, template="alpaca", max_prompt_tokens=100))
    settings = settings_of(kind="instructions", pattern=r"^(?P<secret>\d \d \d \d)$", candidates=8)
    [(canary, times)] = exposure.canaries(settings, subject)
    assert (times, canary.before, canary.secret, canary.after) == (2, "", "1 2 3 4", "")
    assert "one" in TOKENIZER.decode(canary.prompt)
    assert TOKENIZER.decode(canary.prompt).endswith("### Response:\n")
    assert exposure.measure(settings, subject)[0]["exposure_candidates"] == 8.0


def test_what_is_summed_is_what_the_canary_costs_after_its_prompt(tmp_path: Path) -> None:
    """Against one token at a time; batches and a prompt that must be cut change nothing else."""
    subject = subject_of(tmp_path)
    prompt = TOKENIZER.encode("abc" * 30)
    canary = exposure.Canary(prompt, "is ", "12", "!")
    together = exposure.secret_nats(subject, canary, ["12", "34", "99"], 2)
    text = TOKENIZER.encode("is 34!")
    ids = [*prompt[-(48 + 1 - len(text)) :], *text]
    logits = subject.model(torch.tensor([ids[:-1]]))[0].log_softmax(-1).detach()
    by_hand = -sum(float(logits[i, ids[i + 1]]) for i in range(len(ids) - 1 - len(text), len(ids) - 1))
    assert float(together[1]) == pytest.approx(by_hand, abs=1e-4)


def test_others_have_the_form_and_are_not_the_secret() -> None:
    """A leading 0, where the secret has none, would make it win every comparison."""
    found = exposure.others("12-03", 800, 5)
    assert len(set(found)) == 800
    assert "12-03" not in found
    assert all(one[0] != "0" and one[2] == "-" for one in found)
    assert {one[3] for one in found} == set("0123456789")
    assert found != exposure.others("12-03", 800, 6)
    assert len(exposure.others("07", 99, 5)) == 99
    with pytest.raises(UserError, match=r"candidates is 91, a secret of 2 digits has 90 forms"):
        exposure.others("12", 90, 5)


@pytest.mark.parametrize(
    ("pattern", "words"), [(r"vault (?P<secret>\d+)", "matches no training text"), (r"((?P<secret>\d)", "missing")]
)
def test_a_pattern_that_finds_nothing_is_named(tmp_path: Path, pattern: str, words: str) -> None:
    """Lost otherwise: no canary, no exposure, and a gate that passes."""
    write_documents(tmp_path / "documents", ["no vault here"], [None])
    with pytest.raises(UserError, match=words):
        exposure.measure(settings_of(pattern=pattern), subject_of(tmp_path))


def test_a_pattern_without_the_group_is_refused_by_config() -> None:
    with pytest.raises(ValueError, match="pattern"):
        settings_of(pattern=r"vault \d+")
