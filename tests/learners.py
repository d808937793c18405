"""Learners for tests of weightings and losses: a small model, a task and a few records."""

from functools import partial
from typing import Any

import torch

from pipeline.config.recipe import Compute
from pipeline.contracts import Learner
from pipeline.experience.records import Records as Experience
from pipeline.model.gpt import GPT
from pipeline.tasks import TaskContext
from pipeline.training.schedule import micro_batches
from tests.fakes import ByteTokenizer, instruction, labelled
from tests.models import network
from tests.variants import build

COMPUTE = Compute(
    device="cpu", threads=1, precision="float32", compile=False, checkpoint_activations=False, weights="float32"
)
TOKENIZER = ByteTokenizer()
MESSAGES = [
    labelled("ödül kazandın", "spam", source="trusted"), labelled("akşama gel", "ham", source="trusted"),
    labelled("ödül", "spam", source="found"), labelled("gel", "spam", source="found"),
    labelled("kazandın", "ham", source="found"), labelled("akşam", "ham", source="found"),
]  # fmt: skip
PREFERENCES = [
    instruction("Nerede?", "", chosen="İzmir", rejected="hiç"),
    instruction("Kim?", "", chosen="Ayşe", rejected="o geldi"),
    instruction("Ne zaman?", "", given="dün", chosen="dün akşam", rejected="yok"),
]  # fmt: skip
ANSWERS = [instruction("Nerede?", "İzmir"), instruction("Kim?", "Ayşe geldi")]


class Records:
    """Records as examples of a task."""

    def __init__(self, records: list[dict[str, Any]], task: Any) -> None:
        self.records, self.examples = records, [task.example(record) for record in records]

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, i: int) -> Any:
        return self.examples[i]

    def column(self, name: str) -> list[str]:
        return [record[name] for record in self.records]


def records(model: GPT, parts: Any, examples: Any) -> Experience:
    """Examples as the experience of a recipe's parts."""
    return Experience(model, parts.task, examples, parts.ordering, partial(micro_batches, parts.schedule), parts.seed)


def small(labels: int = 2, family: str = "llama", **changes: Any) -> GPT:
    """A network with the byte vocabulary."""
    return network(family, labels, vocab_size=TOKENIZER.vocab_size, context_length=48, **changes)


def classifier(model: GPT | None = None, messages: list[dict[str, Any]] = MESSAGES, **more: Any) -> Learner:
    """A learner of two labels."""
    context = TaskContext(TOKENIZER, 48, ["ham", "spam"])  # type: ignore[arg-type]
    task = build("tasks", "classify", context, max_tokens=40)
    records = Records(messages, task)
    return Learner(model or small(), task, records, COMPUTE, TOKENIZER, **more)  # type: ignore[arg-type]


def chat_learner(model: GPT | None = None, **more: Any) -> Learner:
    """A learner of answers to instructions."""
    context = TaskContext(TOKENIZER, 48, [])  # type: ignore[arg-type]
    task = build("tasks", "instruct", context, template="chat", max_tokens=48, max_prompt_tokens=36)
    records = Records(ANSWERS, task)
    return Learner(model or small(0), task, records, COMPUTE, TOKENIZER, **more)  # type: ignore[arg-type]


def judged_learner(name: str, model: GPT | None = None, **more: Any) -> Learner:
    """A learner of preferences by task preference, reward or thumbs; its reference is a smaller model."""
    context = TaskContext(TOKENIZER, 48, [])  # type: ignore[arg-type]
    task = build("tasks", name, context, template="chat", max_tokens=48, max_prompt_tokens=36)
    model = model or small(0)
    if name == "reward":
        model.add_score(1, torch.Generator().manual_seed(1))
    more = {"reference": lambda: small(0, n_layers=1)} | more
    return Learner(model, task, Records(PREFERENCES, task), COMPUTE, TOKENIZER, **more)  # type: ignore[arg-type]


def batch_of(loss: Any, learner: Learner, rows: list[int]) -> dict[str, Any]:
    """These examples with the columns of the loss, as training gives them."""
    columns = loss.columns(learner.model, learner.examples)
    return learner.batch(rows) | {name: column_E[rows] for name, column_E in columns.items()}
