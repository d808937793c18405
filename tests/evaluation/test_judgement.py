"""Measure judgement beside figures that are known: a judge that is fooled, a reference that is the model itself."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import save_file

from pipeline import config, files, integrity
from pipeline.closure import stage_parts
from pipeline.errors import UserError
from pipeline.evaluation import Measured, Subject, judgement
from pipeline.inference.kept_weights import kept_updates, with_kept_weights
from pipeline.model.gpt import GPT
from pipeline.tasks import open_task
from tests import reports
from tests.evaluation.test_measures import COMPUTE, TOKENIZER
from tests.models import shape
from tests.specs import ANSWERS, changed

LONG = {"name": "function", "reads": "inputs/judge.py", "function": "longer"}
SHORT = LONG | {"function": "shorter"}
JUDGE = """
def longer(record, answer):
    return float(len(answer))

def shorter(record, answer):
    return -float(len(answer))

def broken(record, answer):
    return float("nan")
"""


def network(seed: int) -> GPT:
    return GPT(shape(vocab_size=TOKENIZER.vocab_size, context_length=96), torch.Generator().manual_seed(seed)).eval()


@pytest.fixture
def subject(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Subject:
    """A chat model in a folder of its own, its reference `ref`, twenty prompts and one that occurs twice."""
    monkeypatch.chdir(tmp_path)
    files.write_text(Path("inputs/judge.py"), JUDGE)
    rows = [
        {"id": str(i), "instruction": f"q{i % 20}", "input": "", "output": "no", "language": ("tr", "en")[i % 2],
         "source": "own"}
        for i in range(21)
    ]  # fmt: skip
    Path("instructions").mkdir()
    pq.write_table(pa.Table.from_pylist(rows), "instructions/test.parquet")
    integrity.write_manifest(Path("instructions"))
    task = open_task(changed(ANSWERS, template="chat", max_tokens=80, max_prompt_tokens=60), TOKENIZER)  # type: ignore[arg-type]
    model, reference = network(1), network(1)
    with torch.no_grad():  # the end of an answer is likelier: shorter answers
        end = model.embed.weight[TOKENIZER.end_of_text]
        end.add_(0.3 * torch.randn(end.shape, generator=torch.Generator().manual_seed(5)))
    made = Subject("m", model, TOKENIZER, (task,), tmp_path, COMPUTE)  # type: ignore[arg-type]
    known = {"ref": made._replace(name="ref", model=reference), "m": made}
    monkeypatch.setattr(judgement, "open_subject", lambda name, _: known[name])
    return made


def measured(subject: Subject, **changes: Any) -> Measured:
    fields: dict[str, Any] = {"split": "test", "max_records": None, "parent": "ref", "judge": LONG, "truth": SHORT,
                              "samples": 4, "max_tokens": 12}  # fmt: skip
    return Measured(*judgement.measure(judgement.Settings.model_validate(fields | changes), subject))


def test_judgement_shows_a_judge_that_contradicts_the_truth(subject: Subject) -> None:
    """Lost otherwise: a model that fools its judge has a win rate above one half and nobody sees the other one."""
    metrics, details, outcomes = measured(subject, pool=16)
    assert metrics["judged_prompts"] == 20
    assert metrics["true_win_rate"] == pytest.approx(1 - metrics["judge_win_rate"])
    assert metrics["true_reward"] == -metrics["judge_reward"]
    assert metrics["judge_win_rate_low"] <= metrics["judge_win_rate"] <= metrics["judge_win_rate_high"]
    assert metrics["kl_nats"] > 0
    assert metrics["kl_log_ratio_nats"] == pytest.approx(metrics["kl_nats"], abs=0.1)  # of the model to ref, not back
    by = {one.metric: float(np.mean(one.values)) for one in outcomes}
    assert {name: metrics[name] for name in by} == pytest.approx(by)
    assert set(by) == {"true_reward", "judge_reward", "true_win_rate", "judge_win_rate", "kl_nats", "answer_tokens"}
    best = {(row["by"], row["n"]): row for row in details["frontier"]["best_of"]}
    assert set(best) == {(by, n) for by in ("true", "judge") for n in (1, 4, 16)}
    assert best["true", 16]["true_reward"] > best["true", 1]["true_reward"] > best["judge", 16]["true_reward"]
    possible = [row["reward"] for row in details["frontier"]["best_possible"]]
    assert possible == sorted(possible)
    assert possible[-1] >= best["true", 16]["true_reward"]
    assert {"question", "answer", "before", "true_reward_before"} <= set(details["samples"][0])


def test_judgement_of_a_model_beside_itself_has_no_kl_and_wins_half(subject: Subject) -> None:
    metrics, details, _ = measured(subject, parent="m", samples=16)
    assert metrics["kl_nats"] == metrics["kl_log_ratio_nats"] == 0
    assert metrics["true_win_rate_low"] < 0.5 < metrics["true_win_rate_high"]
    assert details["wins"]["true"]["verdict"] == "cannot tell"


def test_judgement_measures_the_kept_states_and_leaves_the_model_as_it_was(
    subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {name: value.clone() for name, value in subject.model.state_dict().items()}
    for update in (2, 5, 9):
        folder = Path(f"models/m.states/step-{update:08d}")
        folder.mkdir(parents=True)
        own = {f"model.{name}": value.detach() for name, value in network(1).named_parameters()}
        own["model.embed.weight"] = own["model.embed.weight"] * (1 + update / 100)
        save_file(own | {"optimizer.0.step": torch.tensor(1.0)}, folder / "tensors.safetensors")
    integrity.write_manifest(Path("models/m.states"))
    fitted: list[np.ndarray] = []
    fit = judgement.frontier.fit
    monkeypatch.setattr(judgement.frontier, "fit", lambda kl, gains, seed: fitted.append(gains) or fit(kl, gains, seed))
    metrics, details, _ = measured(subject, states=True)
    for name, gains_CP in zip(("true", "judge"), fitted, strict=True):
        gains = [point[f"{name}_reward"] - metrics[f"{name}_reward_parent"] for point in details["along"]["points"]]
        assert np.mean(gains_CP, axis=1) == pytest.approx(gains)
    points, curves = details["along"]["points"], details["along"]["curves"]
    assert [point["update"] for point in points] == [0, 2, 5, 9]
    assert [point["kl_nats"] for point in points] == sorted(point["kl_nats"] for point in points)
    assert set(curves) == {"true", "judge"}
    assert all(torch.equal(value, before[name]) for name, value in subject.model.state_dict().items())
    assert kept_updates("m") == [2, 5, 9]
    save_file({"model.blocks.0.lora": torch.zeros(2)}, "models/m.states/step-00000009/tensors.safetensors")
    integrity.write_manifest(Path("models/m.states"))
    with (
        pytest.raises(UserError, match=r"holds blocks\.0\.lora, which models/m does not have: the tuner merged"),
        with_kept_weights(subject.model, "m", 9),
    ):
        pass


def test_frontier_gives_no_share_of_a_reward_without_a_zero() -> None:
    """Lost otherwise: the same reward model, its scores moved by a constant, gives any share one likes."""
    pool = np.random.default_rng(1).random((4, 8))
    fields: dict[str, Any] = {"split": "test", "max_records": None, "parent": "ref", "samples": 2, "max_tokens": 8,
                              "pool": 8}  # fmt: skip
    for judge, expected in ((LONG, True), ({"name": "reward_model", "reads": "models/r", "sha256": None}, False)):
        settings = judgement.Settings.model_validate(fields | {"judge": judge})
        _, metrics = judgement._frontier(settings, {"judge": pool}, {"judge": pool[:, :2]})
        assert ("best_possible_share" in metrics) is expected
        assert "best_possible_reward" in metrics


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"judge": None, "truth": None}, "neither judge nor truth is named"),
        ({"parent": None, "pool": 4}, "pool and states need a reference; name a parent"),
        ({"judge": LONG | {"function": "broken"}}, "finite number"),
        ({"judge": LONG | {"reads": "inputs/none.py"}}, "inputs/none.py"),
        ({"source": "speech"}, "source is 'speech'"),
    ],
)
def test_judgement_refuses_settings_that_cannot_work(subject: Subject, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        measured(subject, **changes)


def test_win_rate_counts_ties_half_and_its_interval_holds_in_a_null_world() -> None:
    """In at most a twentieth of worlds without any difference the interval leaves out one half."""
    assert judgement.wins(np.array([[1.0, 2.0]]), np.array([[1.0, 3.0]])).tolist() == [0.375]
    generator, missed = np.random.default_rng(2), 0
    rows = [{"id": str(i)} for i in range(60)]
    for _ in range(60):
        ours, theirs = generator.integers(0, 3, (2, 60, 4)).astype(float)
        found = judgement.win_interval(judgement.wins(ours, theirs), rows, "true_win_rate")
        missed += not found["low"] <= 0.5 <= found["high"]
    assert missed <= 3 + 2 * np.sqrt(60 * 0.05 * 0.95)


def test_params_refuse_a_measure_that_reads_a_model_which_its_own_was_not_made_with() -> None:
    """Lost otherwise: DVC keeps an old result after the other model has changed."""
    params = reports.params()
    truth = {"name": "rule", "reads": "models/base", "check": "number"}
    fields: dict[str, Any] = {"split": "test", "max_records": 5, "parent": "spam-full", "judge": None, "truth": truth,
                              "samples": 2, "max_tokens": 8}  # fmt: skip
    raw = params.model_dump(mode="json", by_alias=True)
    raw["evaluations"]["chat-full"]["measures"]["judgement"] = fields
    with pytest.raises(UserError, match=r"judgement\.parent is 'spam-full', which chat-full was not trained from"):
        config.check(raw)
    fields |= {"parent": "base", "judge": {"name": "reward_model", "reads": "models/spam-full", "sha256": None}}
    with pytest.raises(UserError, match=r"judgement\.judge\.reads is 'models/spam-full', which the model was not made"):
        config.check(raw)
    fields["judge"] = {"name": "none", "reads": "models/base"}
    with pytest.raises(UserError, match="write `null` for no judge"):
        config.check(raw)
    fields["judge"] = {"name": "function", "reads": "inputs/judge.py", "function": "score"}
    with pytest.raises(
        UserError,
        match=r"'inputs/judge\.py', which the model was not made with; one of: models/base, models/chat-full$",
    ):
        config.check(raw)  # a file cannot be pinned
    for wrong, words in (({"check": "taste"}, "judge.check"), ({"name": "taste"}, "judge")):
        fields["judge"] = truth | wrong
        with pytest.raises(UserError, match=f"judgement.{words}"):
            config.check(raw)  # not at the end of a long training
    fields["judge"] = None
    raw["evaluations"]["chat-full"]["measures"]["judgement"] = fields | {"states": True}
    raw["finetune"]["chat-full"]["states"] = 0
    with pytest.raises(UserError, match=r"states is true, and finetune\.chat-full\.states keeps none"):
        config.check(raw)
    raw["finetune"]["chat-full"]["states"] = 4
    config.check(raw)
    raw["evaluations"]["chat-full"]["measures"]["judgement"] |= {"parent": None}
    with pytest.raises(UserError, match=r"parent is None, and the states of chat-full begin at 'base'"):
        config.check(raw)
    raw["evaluations"]["chat-full"]["measures"]["judgement"] = fields
    parts = stage_parts("evaluate@chat-full", config.check(raw))
    assert (parts["judges"], parts["tasks"]) == (["rule"], ["instruct", "next_token"])
