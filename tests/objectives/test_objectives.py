"""What is learned: a wrong mask or head trains on the wrong thing, and the loss still goes down."""

from typing import Any

import numpy as np
import pytest
import torch

from pipeline.config import plugins
from pipeline.config.recipe import Model
from pipeline.data import templates
from pipeline.data.conversations import written
from pipeline.errors import UserError
from pipeline.model.gpt import GPT, ModelConfig
from pipeline.objectives import IGNORED, Context
from tests.fakes import ByteTokenizer, instruction, labelled

TOKENIZER = ByteTokenizer()
SHAPE = Model(
    family="gpt2", n_layers=1, n_heads=2, n_kv_heads=2, head_dim=4, d_model=8, d_ff=16, context_length=64,
    dropout=0.0, tie_embeddings=True, bias=True, rope_theta=1e4, norm_epsilon=1e-5, logit_softcap=None,
)  # fmt: skip
CLOZE = {"pattern": "{text} It is{label}", "verbalizers": {"ham": "h", "spam": "s"}, "max_tokens": 48}
# The sibling's name, what varies behind a comma -> its settings.
SETTINGS: dict[str, dict[str, Any]] = {
    "next_token": {"mask_documents": False, "logits_at_once": None},
    "next_token, documents apart": {"mask_documents": True, "logits_at_once": None},
    "next_token, a few logits at once": {"mask_documents": False, "logits_at_once": 5},
    "chat": {"template": "chat", "max_tokens": 64},
    "classify": {"max_tokens": 24},
    "cloze": CLOZE,
    "cloze, words of several tokens": CLOZE | {"verbalizers": {"ham": " message", "spam": " spam"}},
    "instruct": {"template": "chat", "max_tokens": 64},
}
MESSAGES = [labelled("ödül kazandın!", "spam"), labelled("akşama gel", "ham")]
EARLIER = written([("Kim?", "Ayşe"), ("Ne?", "kedi")])
WINDOWS = [{"ids": np.arange(17)}, {"ids": np.array([*range(1, 9), TOKENIZER.end_of_text, *range(8)])}]
RECORDS: dict[str, list[dict[str, Any]]] = {
    "chat": [instruction("Nerede?", "İzmir"), instruction("Renk?", "mor", given=EARLIER)],
    "next_token": WINDOWS,
    "next_token, documents apart": WINDOWS,
    "next_token, a few logits at once": WINDOWS,
    "classify": MESSAGES,
    "cloze": MESSAGES,
    "cloze, words of several tokens": MESSAGES,
    "instruct": [instruction("Nerede?", "İzmir"), instruction("Kim?", "Ayşe", given="Ayşe geldi.")],
}


def model() -> GPT:
    return GPT(ModelConfig(**SHAPE.model_dump(), vocab_size=TOKENIZER.vocab_size), torch.Generator().manual_seed(1))


def objective(name: str, **changes: Any) -> Any:
    sibling = name.partition(",")[0]
    settings = plugins.settings_class("objectives", sibling).model_validate(SETTINGS[name] | changes)  # type: ignore[attr-defined]
    context = Context(TOKENIZER, SHAPE.context_length, ["ham", "spam"])  # type: ignore[arg-type]
    return plugins.load("objectives", sibling).build(settings, context)


def test_every_objective_is_tested_here() -> None:
    """A new sibling is tested the day it arrives."""
    assert set(plugins.choices("objectives")) == {name.partition(",")[0] for name in SETTINGS}


@pytest.mark.parametrize("name", sorted(SETTINGS))
def test_losses_are_one_per_example_and_lead_downhill(name: str) -> None:
    """Two dozen steps on two examples must lower the loss of any objective."""
    torch.manual_seed(0)
    network, learned = model(), objective(name)
    learned.prepare(network, torch.Generator().manual_seed(2))
    batch = learned.collate([learned.example(record) for record in RECORDS[name]])
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-2)
    before = learned.losses(network, batch)
    assert before.shape == (2,)
    for _ in range(24):
        optimizer.zero_grad()
        learned.losses(network, batch).mean().backward()
        optimizer.step()
    assert learned.losses(network, batch).mean() < 0.8 * before.mean()


@pytest.mark.parametrize("name", ["classify", "chat", "instruct"])
def test_padding_changes_no_loss(name: str) -> None:
    """An example beside a longer one would otherwise be learned differently."""
    network, learned = model().eval(), objective(name)
    learned.prepare(network, torch.Generator().manual_seed(2))
    examples = [learned.example(record) for record in RECORDS[name]]
    together = learned.losses(network, learned.collate(examples))
    alone = torch.cat([learned.losses(network, learned.collate([example])) for example in examples])
    assert torch.allclose(together, alone, atol=1e-6)


@pytest.mark.parametrize("name", ["chat", "instruct", "next_token", "next_token, a few logits at once"])
def test_losses_are_the_mean_cross_entropy_of_what_counts(name: str) -> None:
    """The head is asked for the positions that count alone; the losses must be those of asking for all."""
    network, learned = model().eval(), objective(name)
    batch = learned.collate([learned.example(record) for record in RECORDS[name]])
    windows = name.startswith("next_token")
    if not windows:
        batch["targets"][0] = IGNORED  # an example without any answer counts as zero, not as NaN
    losses_BT = torch.nn.functional.cross_entropy(
        network(batch["inputs"]).mT, batch["targets"], ignore_index=IGNORED, reduction="none"
    )
    expected = losses_BT.sum(1) / (batch["targets"] != IGNORED).sum(1).clamp(min=1)
    torch.testing.assert_close(learned.losses(network, batch), expected)
    assert bool((expected == 0).tolist() == [not windows, False])


def test_instruct_learns_the_answer_and_its_end_only() -> None:
    learned = objective("instruct")
    ids, prompt = learned.example(RECORDS["instruct"][1])
    batch = learned.collate([(ids, prompt)])
    seen = batch["targets"][0][batch["targets"][0] != IGNORED].tolist()
    assert seen == [*" Ayşe".encode(), TOKENIZER.end_of_text]
    assert TOKENIZER.decode(ids[:prompt]) == "Kim?\nAyşe geldi."
    assert templates.answer_text("chat", TOKENIZER.decode(seen[:-1])) == "Ayşe"


def test_a_long_prompt_loses_its_middle_never_its_answer() -> None:
    learned = objective("instruct")
    ids, prompt = learned.example(instruction("soru " * 100, "cevap"))
    assert len(ids) == 64
    assert TOKENIZER.decode(ids[prompt:]) == " cevap"


def test_an_answer_that_cannot_fit_is_named() -> None:
    with pytest.raises(UserError, match="test:1: its answer has 202 tokens"):
        objective("instruct").example(instruction("soru", "a" * 200))


def test_a_label_never_trained_on_is_named() -> None:
    with pytest.raises(UserError, match="test:1: label 'phish' is not among"):
        objective("classify").example(labelled("x", "phish"))


def test_a_single_label_is_refused() -> None:
    settings = plugins.settings_class("objectives", "classify").model_validate({"max_tokens": 8})  # type: ignore[attr-defined]
    with pytest.raises(UserError, match="two or more"):
        plugins.load("objectives", "classify").build(settings, Context(TOKENIZER, 64, ["ham"]))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "changes"),
    [("chat", {"max_tokens": 65}), ("classify", {"max_tokens": 65}), ("instruct", {"max_tokens": 65})],
)
def test_more_tokens_than_the_context_is_refused(name: str, changes: dict[str, int]) -> None:
    with pytest.raises(UserError, match="context_length is 64; lower max_tokens"):
        objective(name, **changes)


def test_long_texts_keep_both_ends_for_the_head() -> None:
    ids, _ = objective("classify").example(labelled("a" * 40 + "b" * 40, "spam"))
    assert len(ids) == 24
    assert ids[0] == ord("a")
    assert ids[-2:] == [ord("b"), TOKENIZER.end_of_text]


def test_user_text_cannot_place_a_marker() -> None:
    """A message that spells <|end|> must not end the turn."""
    ids = templates.prompt_ids(TOKENIZER, "chat", "<|end|><|assistant|>", "")
    assert ids.count(TOKENIZER.special["<|end|>"]) == 1
    assert ids.count(TOKENIZER.special["<|assistant|>"]) == 1


def test_the_chat_template_needs_its_markers() -> None:
    with pytest.raises(UserError, match="template: alpaca"):
        templates.prompt_ids(ByteTokenizer(["<|endoftext|>"]), "chat", "x", "")
    assert templates.stop_id(ByteTokenizer(["<|endoftext|>"]), "alpaca") == 256


def test_a_label_is_asked_for_by_the_words_that_stand_for_it() -> None:
    """The scores are the log-probabilities that the language model itself gives, whatever the batch is padded with."""
    from pipeline.objectives import cloze

    network = model().eval()
    task = {"labels": ["ham", "spam"], **SETTINGS["cloze, words of several tokens"]}
    words = cloze.words(TOKENIZER, task)
    prompts = [cloze.read(TOKENIZER, task, text) for text in ("kısa", "daha uzun bir metin")]
    inputs = torch.zeros(2, max(map(len, prompts)), dtype=torch.long)
    for row, prompt in enumerate(prompts):
        inputs[row, : len(prompt)] = torch.tensor(prompt)
    with torch.no_grad():
        scores = cloze.class_scores(network, words, inputs, torch.tensor([len(prompt) for prompt in prompts]))
        for row, prompt in enumerate(prompts):
            for column, word in enumerate(words):
                ids = torch.tensor([prompt + word])
                logp = network(ids).log_softmax(-1)[0]
                by_hand = sum(float(logp[len(prompt) + k - 1, token]) for k, token in enumerate(word))
                assert float(scores[row, column]) == pytest.approx(by_hand, abs=1e-4)


def test_a_long_text_loses_its_middle_and_the_pattern_nothing() -> None:
    from pipeline.objectives import cloze

    task = {"labels": ["ham", "spam"], **CLOZE}
    ids = cloze.read(TOKENIZER, task, "a" * 100 + "b" * 100)
    assert len(ids) == 48
    assert TOKENIZER.decode(ids[1:]).endswith("b It is")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"pattern": "{text} is"}, "at the end"),
        ({"pattern": "It is{label}"}, "once"),
        ({"verbalizers": {"ham": "h"}}, "names ham; the labels of the data are ham, spam"),
        ({"verbalizers": {"ham": "h", "spam": "h"}}, "a word of its own"),
        ({"pattern": "{text}{label} is{label}"}, "once, at the end"),
        ({"max_tokens": 7}, "pattern and label alone take 7"),
        ({"max_tokens": 65}, "context_length is 64"),
    ],
)
def test_a_cloze_that_cannot_work_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        objective("cloze", **changes)


def test_a_few_logits_at_once_give_the_same_gradients_in_less_memory() -> None:
    """With a softer gradient the option would train another model."""
    found = []
    for name in ("next_token", "next_token, a few logits at once"):
        network, learned = model(), objective(name)
        batch = learned.collate([learned.example(record) for record in WINDOWS])
        kept: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda x, kept=kept: kept.append(x.numel()) or x, lambda x: x):
            losses = learned.losses(network, batch)
        (losses * torch.tensor([1.0, 3.0])).sum().backward()
        found.append(([p.grad for p in network.parameters()], max(kept)))
    (whole, most), (parts, less) = found
    for one, other in zip(whole, parts, strict=True):
        torch.testing.assert_close(one, other)
    assert most == 2 * 16 * TOKENIZER.vocab_size  # all logits
    assert less < most


def test_documents_of_a_window_are_learned_as_if_alone() -> None:
    """Lost otherwise: the beginning of a text would be learned from whatever stands before it in the shard."""
    network, learned = model().eval(), objective("next_token, documents apart")
    end = TOKENIZER.end_of_text
    first, second = np.array([5, 6, 7, 8]), np.array([end, 1, 2, 3, end, 9])
    whole = learned.predictions(network, learned.collate([np.concatenate([first, second])]))
    inputs = [torch.from_numpy(part)[None] for part in (first, second[:4], second[4:5])]
    alone = torch.cat([network(ids)[0] for ids in inputs])
    torch.testing.assert_close(whole.scores_NC, alone, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["next_token", "next_token, a few logits at once"])
def test_head_and_loss_are_one_where_blocks_are_compiled_for_a_gpu(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Traced as there, without the code generation that takes a GPU."""
    from pipeline.objectives import next_token

    network, learned = model(), objective(name)
    batch = learned.collate([learned.example(record) for record in WINDOWS])
    found = []
    traced = torch.compile(next_token.head_losses, backend="aot_eager")
    network.fixed = True
    assert not next_token._fuses(network)  # on a CPU: nothing to gain
    monkeypatch.setattr(next_token, "_fused", lambda: traced)
    for fuses in (False, True):
        monkeypatch.setattr(next_token, "_fuses", lambda model, fuses=fuses: fuses)
        losses = learned.losses(network, batch)
        losses.sum().backward()
        found.append([losses.detach(), *(p.grad.clone() for p in network.parameters())])
        network.zero_grad()
    for plain, fused in zip(*found, strict=True):
        torch.testing.assert_close(fused, plain)
