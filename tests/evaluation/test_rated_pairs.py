"""Agreement with held-out ratings: what the model has raised beside its reference, counted by prompt."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from pipeline import integrity
from pipeline.data.records import PROMPT
from pipeline.errors import UserError
from pipeline.evaluation import Measured, Subject, rated_pairs
from pipeline.model.gpt import GPT
from pipeline.significance import wilson
from pipeline.tasks import open_task
from tests.evaluation.test_measures import COMPUTE, TOKENIZER
from tests.models import shape
from tests.specs import ANSWERS, changed

N = 12


def network(seed: int) -> GPT:
    return GPT(shape(vocab_size=TOKENIZER.vocab_size, context_length=96), torch.Generator().manual_seed(seed)).eval()


@pytest.fixture
def subject(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Subject:
    """A model that says `yes` more often than its reference `ref`; two pairs a prompt, `yes` chosen, and another
    source's pair, where it is rejected.
    """
    monkeypatch.chdir(tmp_path)
    rows = [
        {"id": str(i), "instruction": f"q{i // 2}", "input": "", "history": None, "language": "en",
         PROMPT: f"p{i // 2}", "chosen": "yes", "rejected": ("no", "never")[i % 2], "source": "round"}
        for i in range(N)
    ]  # fmt: skip
    rows.append(rows[0] | {"id": "other", "chosen": "no", "rejected": "yes", "source": "other"})
    Path("preferences").mkdir()
    for split in ("validation", "test"):
        pq.write_table(
            pa.Table.from_pylist(rows if split == "test" else rows[:0], pq_schema(rows)), f"preferences/{split}.parquet"
        )
    integrity.write_manifest(Path("preferences"))
    task = open_task(changed(ANSWERS, template="chat", max_tokens=80, max_prompt_tokens=60), TOKENIZER)  # type: ignore[arg-type]
    model = network(1)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    batch = task.collate([task.example({"instruction": "q0", "input": "", "history": None, "output": "yes"})])
    for _ in range(5):
        task.losses(model, batch).mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    made = Subject("m", model, TOKENIZER, (task,), tmp_path, COMPUTE)  # type: ignore[arg-type]
    known = {"ref": made._replace(name="ref", model=network(1)), "m": made}
    monkeypatch.setattr(rated_pairs, "open_subject", lambda name, _: known[name])
    return made


def pq_schema(rows: list[dict[str, Any]]) -> pa.Schema:
    return pa.schema([(name, pa.string()) for name in rows[0]])


def measured(subject: Subject, **changes: Any) -> Measured:
    fields = {"split": "held_out", "source": "round", "parent": "ref", "batch_size": 5} | changes
    return Measured(*rated_pairs.measure(rated_pairs.Settings.model_validate(fields), subject))


def test_rated_pairs_counts_prompts_where_a_prompt_has_several_pairs(subject: Subject) -> None:
    """Lost otherwise: ten ratings of one prompt pass the gate as ten independent ones do."""
    metrics, details, (outcome,) = measured(subject)
    assert metrics["rated_pairs_accuracy"] == 1.0
    assert metrics["rated_pairs"] == N
    assert metrics["rated_pairs_low"] == pytest.approx(wilson(1.0, N // 2, 0.1)[0])
    assert metrics["rated_pairs_low"] < wilson(1.0, N, 0.1)[0]
    assert len(set(outcome.clusters or ())) == N // 2
    assert details["most_wrong"] == []


def test_rated_pairs_measures_the_named_source_beside_the_parent(subject: Subject) -> None:
    other = measured(subject, source="other")
    assert other.metrics["rated_pairs_accuracy"] == 0.0
    assert [one["record"] for one in other.details["most_wrong"]] == ["other"]
    assert measured(subject, parent="m").metrics["rated_pairs_accuracy"] == 0.5
    everything = measured(subject, source=None)
    assert everything.metrics["rated_pairs_accuracy"] == pytest.approx(N / (N + 1))


def test_rated_pairs_refuses_a_source_without_held_out_pairs(subject: Subject) -> None:
    with pytest.raises(UserError, match="no held-out pair of source ratings-9; rate more"):
        measured(subject, source="ratings-9")
