"""A request is asked as it was taught: training, evaluation, the predictor, chat and a loaded registry model.

If these prompts differ, the registry certifies a model under other conditions than those in which it is used.
"""

import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from pipeline import files, tokenizer
from pipeline.cli import _talk
from pipeline.config.recipe import Compute
from pipeline.data import conversations
from pipeline.data.conversations import Turn
from pipeline.evaluation import Subject, greedy_answers, label_probabilities, open_subject
from pipeline.inference import answers
from pipeline.inference.answers import Sampling
from pipeline.inference.predictor import Predictor
from pipeline.model import checkpoint
from pipeline.prompts.request import Request
from pipeline.tasks import Answering, Labelling, Reason, Task, TaskContext
from tests import variants
from tests.models import network
from tests.prompts import chat_templates

COMPUTE = Compute(
    device="cpu", threads=1, precision="float32", compile=False, checkpoint_activations=False, weights="float32"
)
CONTEXT = 96
SETTINGS: dict[str, dict[str, Any]] = {
    "next_token": {"mask_documents": False, "logits_at_once": None},
    "classify": {"max_tokens": 40},
    "cloze": {
        "pattern": "Metin: {text} Tür:{label}",
        "verbalizers": {"ham": " iyi", "spam": " kötü"},
        "max_tokens": 48,
    },
    "instruct": {"template": "chat", "max_tokens": 90, "max_prompt_tokens": 60},
    "chat": {"template": "alpaca", "max_tokens": 95, "max_prompt_tokens": 80},
    "chat_model": {"template": "model", "max_tokens": 95, "max_prompt_tokens": 80},
}
"""Task, with `_model` on a released vocabulary with a chat template of its own -> settings."""
WORDS = [
    "ışık", "göl", "İzmir'de", "prize!", "çok uzun bir cümle", "<|end|>", '[{"role": "user"}]', "\n", "é", "🙂",
]  # fmt: skip
Prompts = list[list[int]]


def requests(seed: int = 1, count: int = 200) -> list[Request]:
    """Turkish, long, empty, with and without input, after many turns."""
    rng = random.Random(seed)

    def text(most: int, least: int = 0) -> str:
        return " ".join(rng.choice(WORDS) for _ in range(rng.randint(least, most)))

    made = []
    for i in range(count):
        turns = tuple(Turn(f"soru {text(6)}", f"yanıt {text(6)}") for _ in range(rng.choice([0, 0, 1, 3, 8])))
        system = rng.choice(["", "", text(20)])
        given = text(40) if i % 3 == 0 else ""
        made.append(Request(text(rng.choice([3, 12, 120])), given, conversations.Earlier(system, turns)))
    return made


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("words") / "tokenizer"
    tokenizer.train([f"{' '.join(WORDS)} Metin: Tür: iyi kötü " * 20], 330, "gpt2").save(folder)
    theirs = chat_templates.folder(chat_templates.STYLES["mistral"], folder.with_name("theirs"))
    tokenizer.adopt(theirs).save(folder.with_name("released"))
    return folder


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Prompts:
    """The prompts that reach the model, in their order; the model itself answers nothing."""
    seen: Prompts = []

    def generate(_model: Any, prompts: Prompts, **_: Any) -> Prompts:
        seen.extend(prompts)
        return [[] for _ in prompts]

    def stream(_model: Any, ids: list[int], **_: Any) -> list[int]:
        seen.append(ids)
        return []

    monkeypatch.setattr(answers, "generate", generate)
    monkeypatch.setattr(answers, "stream", stream)
    return seen


def watch(task: Task, seen: Prompts, monkeypatch: pytest.MonkeyPatch) -> None:
    """Records the prompts that a classifier's scores are computed for."""
    if not isinstance(task, Labelling):
        return
    labels = len(task.labels)

    def class_scores(self: Any, model: Any, inputs_BT: torch.Tensor, lengths_B: torch.Tensor) -> torch.Tensor:
        seen.extend(row[:length].tolist() for row, length in zip(inputs_BT, lengths_B, strict=True))
        return torch.zeros(len(inputs_BT), labels)

    monkeypatch.setattr(type(task), "class_scores", class_scores)


def trained(name: str, words: Path, folder: Path) -> Task:
    """The task of a recipe, and its model's folder."""
    words = words.with_name("released") if name.endswith("_model") else words
    vocabulary = tokenizer.Tokenizer.load(words)
    task: Task = variants.build(
        "tasks", name.removesuffix("_model"), TaskContext(vocabulary, CONTEXT, ["ham", "spam"]), **SETTINGS[name]
    )
    model = network("llama", vocab_size=vocabulary.vocab_size, context_length=CONTEXT)
    task.prepare(model, torch.Generator().manual_seed(1))
    labels = None if model.score is None else list(task.spec.labels or ())
    metadata = {"version": 2, "tasks": [task.spec.within(model.room()).model_dump(exclude_none=True, mode="json")]}
    checkpoint.save(model, folder, tokenizer=words, labels=labels, metadata=metadata)
    return task


def record(request: Request) -> dict[str, Any]:
    history = conversations.of_turns(request.earlier.turns, request.earlier.system)
    return {"instruction": request.question, "input": request.input, "output": "x", "history": history or None}


def expected(task: Task, folder: Path, given: list[Request]) -> Prompts:
    """The prompts of training, from the examples themselves where the task learns records."""
    prompts = []
    for request in given:
        if isinstance(task, Answering):
            example = task.example(record(request))
            assert not isinstance(example, Reason)
            ids, targets = example
            answer = [*task.tokenizer.encode(f"{task.opens}x"), task.stop]
            assert (ids[-len(answer) :], targets[-len(answer) :]) == (answer, answer)
            prompts.append(ids[: -len(answer)])
        elif isinstance(task, Labelling):
            prompts.append(task.example({"text": request.text, "label": "ham"})[0])
        else:  # next_token learns windows; its prompt begins as a document does
            prompts.append(open_subject(folder.name, COMPUTE, folder.parent).tasks[0].prompt(request))
    return prompts


@pytest.mark.parametrize("name", list(SETTINGS))
def test_every_way_to_ask_a_model_gives_the_prompt_of_its_training(
    name: str, words: Path, asked: Prompts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "models" / name
    task, given = trained(name, words, folder), requests()
    wanted = expected(task, folder, given)
    assert max(map(len, wanted)) <= (task.spec.max_prompt_tokens or CONTEXT)
    subject = open_subject(name, COMPUTE, folder.parent)
    watch(subject.tasks[0], asked, monkeypatch)
    in_evaluation(subject, given)
    assert sorted(asked) == sorted(wanted)
    asked.clear()
    # whatever room a client leaves for the answer, the prompt is the same
    for max_tokens in (1, 64, 500):
        Predictor(folder).answer(given, {} if isinstance(task, Labelling) else {"max_tokens": max_tokens})
        assert sorted(asked) == sorted(wanted)
        asked.clear()
    for request in given:
        in_chat(subject, request)
    assert asked == wanted


def in_evaluation(subject: Subject, given: list[Request]) -> None:
    task = subject.tasks[0]
    if isinstance(task, Labelling):
        label_probabilities(subject, task, [request.text for request in given], 7)
    elif isinstance(task, Answering):
        greedy_answers(subject, task, [record(request) for request in given], 7, 5)
    else:
        answers.answer(subject.model, task, given, Sampling(5))


def in_chat(subject: Subject, request: Request) -> None:
    line = request if not isinstance(subject.tasks[0], Labelling) else Request(request.text)
    list(_talk.answer_to(subject, line, Sampling(5), torch.Generator()))


@pytest.mark.parametrize("name", list(SETTINGS))
def test_a_loaded_registry_model_asks_as_in_training(
    name: str, words: Path, asked: Prompts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through `mlflow.pyfunc.load_model` of a packed version; a client sends a table."""
    import mlflow
    import pandas as pd

    from pipeline.registry.packing import pack

    folder = tmp_path / "models" / name
    task = trained(name, words, folder)
    given = requests(2, 40)
    columns = {"input": [request.input for request in given]}
    columns["history"] = [record(request)["history"] for request in given]
    if not isinstance(task, Answering):
        given, columns = [Request(request.text) for request in given], {}
    wanted = expected(task, folder, given)
    facts: Any = SimpleNamespace(
        model=name,
        tasks=(task.spec,),
        sha256=files.sha256_of(folder),
        metrics={},
        gates={},
        evaluated={},
        review={"identity": "any", "signers": {}},
    )
    pack(folder, tmp_path / "version", facts, "card")
    served = mlflow.pyfunc.load_model(str(tmp_path / "version"))
    watch(task, asked, monkeypatch)
    served.predict(pd.DataFrame({"text": [request.question for request in given], **columns}))
    assert sorted(asked) == sorted(wanted)
