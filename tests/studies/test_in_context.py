"""Scores of label words and prompts with examples: a wrong sum would send users to fine-tune, or away from it."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline import tokenizer as vocabularies
from pipeline.errors import UserError
from pipeline.inference.generation import generate
from pipeline.model import checkpoint
from pipeline.model.gpt import GPT
from pipeline.studies import in_context
from tests.model import library_models
from tests.models import network

TOKENIZER = vocabularies.train(["Text: ham or spam? Label: spam, ham. Classify each text as one. " * 20], 300, "gpt2")
PROMPTS = [[7, 3, 9, 4, 11], [7, 3, 9, 8], [7, 3, 9, 5, 12, 13, 2]]
"""All begin with 7, 3, 9."""


def model_of(name: str, tmp_path: Path) -> GPT:
    if name == "own":
        return network("qwen3", vocab_size=60, context_length=48).eval()
    return checkpoint.load(library_models.written(name, tmp_path / name))


@torch.no_grad()
def one_by_one(model: Any, prompt: list[int], word: list[int]) -> float:
    """log p(word | prompt), each token in a pass of its own."""
    total = 0.0
    for k, token in enumerate(word):
        ids_1T = torch.tensor([[*prompt, *word[: k + 1]]])
        wanted_1T = torch.arange(ids_1T.shape[1])[None] >= len(prompt) - 1  # of an encoder-decoder where answers begin
        wanted_1T[:, -1] = False
        logits_NV = model.logits(model.hidden(ids_1T, wanted_BT=wanted_1T))
        total += float(logits_NV[-1].log_softmax(-1)[token])
    return total


@pytest.mark.parametrize("name", ["own", "gemma2", "t5"])
@pytest.mark.parametrize("words", [[[5], [6]], [[5, 6, 7], [8]]])
def test_label_scores_are_the_log_probabilities_of_the_words(name: str, words: list[list[int]], tmp_path: Path) -> None:
    model = model_of(name, tmp_path)
    scores_NC = in_context.label_scores(model, PROMPTS, words)
    expected = [[one_by_one(model, prompt, word) for word in words] for prompt in PROMPTS]
    torch.testing.assert_close(scores_NC, torch.tensor(expected), atol=1e-4, rtol=1e-4)


def test_label_scores_refuse_prompts_beyond_the_context(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="its prompts take up to 61 tokens, the context has 48"):
        in_context.label_scores(model_of("own", tmp_path), [[1] * 60], [[2]])


@pytest.mark.parametrize("name", ["own", "gemma"])
def test_answers_are_those_of_whole_prompts(name: str, tmp_path: Path) -> None:
    """Lost otherwise: examples that are computed once would change the answers."""
    model = (
        network("llama", vocab_size=TOKENIZER.vocab_size, context_length=96).eval()
        if name == "own"
        else checkpoint.load(library_models.written(name, tmp_path / name))
    )
    prompts = [[7, 3, 9, 4, 11], [7, 3, 9, 8], [7, 3, 9, 5, 12, 13, 2]]
    whole = generate(
        model, prompts, max_tokens=6, temperature=0.0, top_k=0, top_p=1.0, stop={TOKENIZER.end_of_text}
    )  # fmt: skip
    expected = [TOKENIZER.decode(ids).split("\n\n### ")[0].strip() for ids in whole]
    assert in_context.answers(model, TOKENIZER, prompts, 6) == expected


ROWS = [{"text": f"text {i}", "label": ("ham", "spam", "other")[min(i % 10, 2)]} for i in range(40)]


def test_examples_take_every_label_in_turn() -> None:
    shown = in_context.examples(ROWS, 8)
    assert [row["label"] for row in shown] == ["ham", "other", "spam"] * 2 + ["ham", "other"]
    assert len({row["text"] for row in shown}) == 8
    assert in_context.examples(ROWS, 8) == shown
    assert in_context.examples(ROWS, 8, seed=2) != shown
    assert in_context.examples(ROWS, 0) == []


def test_examples_refuse_more_than_there_are() -> None:
    with pytest.raises(UserError, match="8 examples are wanted and there are 5 training records"):
        in_context.examples(ROWS[:5], 8)


def test_label_prompts_end_where_the_label_follows() -> None:
    (ids,) = in_context.label_prompts(TOKENIZER, ["ham", "spam"], ROWS[:1], ["Win a prize"], 20)
    assert TOKENIZER.decode(ids) == (
        "Classify each text as one of: ham, spam.\n\nText: text 0\nLabel: ham\n\nText: Win a prize\nLabel:"
    )
    (short,) = in_context.label_prompts(TOKENIZER, ["ham", "spam"], [], ["x" * 500], 4)
    assert TOKENIZER.decode(short).endswith("Text: xxxx\nLabel:")


ASKED = [
    {"instruction": "Where?", "input": "", "output": "Home"},
    {"instruction": "Add", "input": "1, 2", "output": "3"},
]


def test_answer_prompts_without_a_chat_template_have_alpacas_headings() -> None:
    (ids,) = in_context.answer_prompts(TOKENIZER, ASKED[:1], ASKED[1:], 30)
    assert TOKENIZER.decode(ids) == (
        "### Instruction:\nWhere?\n\n### Response:\nHome\n\n### Instruction:\nAdd\n1, 2\n\n### Response:\n"
    )


def test_answer_prompts_are_the_models_own_chat_template_where_it_has_one(tmp_path: Path) -> None:
    template = (
        "{% for message in messages %}<|{{ message.role }}|>{{ message.content }}<|end|>{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>{% endif %}"
    )
    TOKENIZER.save(tmp_path)
    path = tmp_path / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"chat_template": template}), encoding="utf-8")
    vocabulary = vocabularies.Tokenizer.load(tmp_path)
    (ids,) = in_context.answer_prompts(vocabulary, ASKED[:1], ASKED[1:], 30)
    assert vocabulary.decode(ids) == (
        "<|user|>Where?<|end|><|assistant|>Home<|end|><|user|>Add\n1, 2<|end|><|assistant|>"
    )
    assert vocabulary.special["<|assistant|>"] == ids[-1]


def test_answer_score_is_exact_match_or_chrf() -> None:
    row = {"output": "İzmir", "language": "tr"}
    assert [in_context.answer_score("exact_match")(text, row) for text in ("izmir.", "Ankara")] == [1.0, 0.0]
    assert in_context.answer_score("chrf")("İzmir", row) == pytest.approx(1.0)
    assert 0 < in_context.answer_score("chrf")("İzmit", row) < 1
