"""Judges: scores of rules, functions, reward models and the world, and the errors of judges that cannot score."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from pipeline.contracts import Judged
from pipeline.errors import UserError
from pipeline.judges import Context
from pipeline.judges.rule import last_number
from pipeline.model import checkpoint
from pipeline.model.gpt import GPT
from tests.learners import COMPUTE, small
from tests.models import network
from tests.variants import build


def judged(answer: str, expected: str = "", **record: Any) -> Judged:
    return Judged(
        {"id": "r1", "language": "tr", "instruction": "Nerede?", "output": expected} | record, (1, 2), (3,), answer
    )


def context(tokenizer: Any = None, template: str = "chat") -> Context:
    task: Any = SimpleNamespace(spec=SimpleNamespace(template=template))
    return Context(tokenizer, COMPUTE, task, "finetune.tuned.judge")


@pytest.mark.parametrize(
    ("check", "answer", "expected", "score"),
    [
        ("exact_match", "IĞDIR.", "ığdır", 1.0),
        ("exact_match", "Iğdır ili", "ığdır", 0.0),
        ("contains", "Cevap: IĞDIR ili", "ığdır", 1.0),
        ("contains", "İzmir", "ığdır", 0.0),
        ("number", "Toplam 1,234 kalem", "... #### 1234", 1.0),
        ("number", "12 - 5 = 7.", "7", 1.0),
        ("number", "bilmiyorum", "7", 0.0),
        ("number", "7", "8", 0.0),
        ("number", "Toplam 35 kg", "3,5", 0.0),
    ],
)
def test_rule_scores_an_answer_by_the_expected_one(check: str, answer: str, expected: str, score: float) -> None:
    judge = build("judges", "rule", context(), check=check)
    assert judge.scores([judged(answer, expected)]).tolist() == [score]


def test_rule_compares_with_the_chosen_answer_of_preferences_and_names_a_record_without_any() -> None:
    judge = build("judges", "rule", context())
    assert judge.scores([Judged({"id": "p", "language": "en", "chosen": "Yes."}, (1,), (2,), "yes")]).tolist() == [1.0]
    with pytest.raises(UserError, match="record q has neither output nor chosen"):
        judge.scores([Judged({"id": "q"}, (1,), (2,), "yes")])
    numbers = build("judges", "rule", context(), check="number")
    with pytest.raises(UserError, match="the expected answer 'hiç' has none"):
        numbers.scores([judged("3", "hiç")])


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("1.234.567 TL", 1234567.0), ("3.5", 3.5), ("1,234.5", 1234.5), ("-7,", -7.0), ("yok", None), ("1.2.3", None),
        ("3,5 kg", 3.5), ("-0,25", -0.25), ("1.234,5", 1234.5), ("1,234", 1234.0), ("1.234.567,89", 1234567.89),
        ("1,234,567.5", 1234567.5), ("1,2,3", None), ("12,34.5", None),
    ],
)  # fmt: skip
def test_last_number_reads_english_and_turkish_thousands_and_decimals(text: str, number: float | None) -> None:
    assert last_number(text) == number


def function(tmp_path: Path, code: str, name: str = "score") -> Any:
    path = tmp_path / "judge.py"
    path.write_text(code, encoding="utf-8")
    return build("judges", "function", context(), reads=str(path), function=name)


def test_function_scores_with_the_record_and_the_answer(tmp_path: Path) -> None:
    code = "def score(record, answer):\n    return len(answer) + (record['output'] == answer)\n"
    assert function(tmp_path, code).scores([judged("abc", "abc"), judged("ab")]).tolist() == [4.0, 2.0]


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("def score(record, answer)\n    return 1\n", r"judge\.py:1: SyntaxError: .*; correct the file"),
        ("x = 1 / 0\n", r"judge\.py:1: ZeroDivisionError: division by zero; correct the file"),
        ("raise SystemExit(0)\n", r"judge\.py:1: SystemExit: 0; correct the file"),
        (
            "def grade(r, a): ...\n",
            r"it has no function 'score', which finetune\.tuned\.judge\.function names",
        ),
    ],
)
def test_function_names_file_and_line_of_a_file_that_cannot_judge(tmp_path: Path, code: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        function(tmp_path, code)
    with pytest.raises(UserError, match=r"finetune\.tuned\.judge\.reads is 'inputs/no\.py'; there is no such"):
        build("judges", "function", context(), reads="inputs/no.py")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("return record['missing']", r"judge\.py:2: KeyError: 'missing', for record r1, answer 'abc'; correct"),
        ("raise SystemExit(0)", r"judge\.py:2: SystemExit: 0, for record r1, answer 'abc'; correct the file"),
        ("return None", r"score gives None for record r1, answer 'abc'; expected a finite number"),
        ("return float('nan')", r"score gives nan for record r1"),
    ],
)
def test_function_names_line_record_and_answer_of_a_score_that_fails(tmp_path: Path, body: str, words: str) -> None:
    judge = function(tmp_path, f"def score(record, answer):\n    {body}\n")
    with pytest.raises(UserError, match=words):
        judge.scores([judged("abc")])


def test_none_scores_nothing() -> None:
    with pytest.raises(UserError, match=r"finetune\.tuned\.judge\.name is 'none', and 1 answers need a score"):
        build("judges", "none", context()).scores([judged("abc")])


def test_world_scores_answers_by_their_true_utility() -> None:
    from pipeline.data.sources.world.taste import utility

    texts = ["Merhaba!", "Teşekkür ederim, çok naziksiniz."]
    scores = build("judges", "world", context()).scores([judged(text) for text in texts]).tolist()
    assert scores == pytest.approx([utility("Nerede?", text, "tr").value for text in texts])


WORDS = "Ğüzel a question 0123456789 answer. " * 30


@pytest.fixture(scope="module")
def reward(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, GPT, Any]:
    """A reward model's folder, the model, and its tokenizer."""
    from pipeline.tokenizer import Tokenizer, train

    folder = tmp_path_factory.mktemp("reward")
    train([WORDS], 300, "gpt2").save(folder / "words")
    tokenizer = Tokenizer.load(folder / "words")
    model = network("llama", 1, vocab_size=tokenizer.vocab_size, context_length=48).eval()
    metadata = {"version": 2, "tasks": [{"name": "instruct", "template": "chat", "max_tokens": 48}]}
    checkpoint.save(model, folder / "model", tokenizer=folder / "words", labels=["reward"], metadata=metadata)
    return folder / "model", model, tokenizer


def test_reward_model_gives_the_score_of_prompt_and_answer(reward: tuple[Path, GPT, Any]) -> None:
    folder, model, tokenizer = reward
    judge = build("judges", "reward_model", context(tokenizer), reads=str(folder))
    answers = [Judged({}, (5, 6, 7), (8,), ""), Judged({}, (9, 4), (1, 2, 3, 4), "")]
    with torch.no_grad():
        expected = [float(model.classify(torch.tensor([[*one.prompt, *one.answer]]))[0, 0]) for one in answers]
    assert judge.scores(answers).tolist() == pytest.approx(expected, abs=1e-6)
    assert judge.scores(answers[1:]).tolist() == pytest.approx(expected[1:], abs=1e-6)
    assert not any(p.requires_grad for p in judge.model.parameters())


def test_reward_model_reads_the_end_of_a_text_that_is_longer_than_its_context(reward: tuple[Path, GPT, Any]) -> None:
    folder, model, tokenizer = reward
    judge = build("judges", "reward_model", context(tokenizer), reads=str(folder))
    prompt, answer = tuple(range(5, 45)), tuple(range(50, 62))
    with torch.no_grad():
        expected = float(model.classify(torch.tensor([[*prompt, *answer][-48:]]))[0, 0])
    assert judge.scores([Judged({}, prompt, answer, "")]).tolist() == pytest.approx([expected], abs=1e-6)


def test_reward_model_refuses_another_pin_template_vocabulary_or_kind_of_model(reward: tuple[Path, GPT, Any]) -> None:
    folder, _, tokenizer = reward
    with pytest.raises(UserError, match=r"whose files have SHA-256 [0-9a-f]{64}; write it as sha256"):
        build("judges", "reward_model", context(tokenizer), reads=str(folder), sha256="0" * 64)
    with pytest.raises(UserError, match="template 'chat', and the recipe's task has 'alpaca'"):
        build("judges", "reward_model", context(tokenizer, "alpaca"), reads=str(folder))
    other: Any = SimpleNamespace(vocab_size=300, encode=lambda _: [1, 2], end_of_text=tokenizer.end_of_text)
    with pytest.raises(UserError, match="which has another vocabulary than the trained model"):
        build("judges", "reward_model", context(other), reads=str(folder))
    plain = folder.parent / "plain"
    checkpoint.save(small(0), plain)
    with pytest.raises(UserError, match="which has no single reward; name a model that was trained with task reward"):
        build("judges", "reward_model", context(tokenizer), reads=str(plain))
