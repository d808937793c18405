"""Tasks: a wrong loss mask or head trains on the wrong tokens while the loss falls."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.config import plugins
from pipeline.config.recipe import Model
from pipeline.data.conversations import Turn, of_turns
from pipeline.errors import UserError
from pipeline.model.config import ModelConfig
from pipeline.model.gpt import GPT
from pipeline.prompts.spec import parsed, written
from pipeline.tasks import IGNORED, Reason, Request, TaskContext, open_task, per_example, token_losses
from tests import variants
from tests.fakes import ByteTokenizer, instruction, labelled
from tests.variants import Variant

TOKENIZER = ByteTokenizer()
SHAPE = Model(
    family="gpt2", n_layers=1, n_heads=2, n_kv_heads=2, head_dim=4, d_model=8, d_ff=16, context_length=64,
    dropout=0.0, tie_embeddings=True, bias=True, rope_theta=1e4, norm_epsilon=1e-5, logit_softcap=None,
)  # fmt: skip
MESSAGES = [labelled("ödül kazandın!", "spam"), labelled("akşama gel", "ham")]
WINDOWS = [{"ids": np.arange(17)}, {"ids": np.array([*range(1, 9), TOKENIZER.end_of_text, *range(8)])}]
# Two records with the columns of every kind, so that any task finds its own.
RECORDS: list[dict[str, Any]] = [
    WINDOWS[0] | MESSAGES[0] | instruction("Nerede?", "İzmir", chosen="İzmir", rejected="hiç"),
    WINDOWS[1] | MESSAGES[1] | instruction("Kim?", "Ayşe", given="Ayşe geldi.", chosen="Ayşe", rejected="o"),
]
TASKS = [task for task in variants.variants("tasks") if task.name != "unchanged"]  # it has no examples
TAUGHT = [task for task in TASKS if task.name != "prompts"]  # it learns from rollouts alone
CONTEXT = TaskContext(TOKENIZER, SHAPE.context_length, ["ham", "spam"], label_cells=["1", "2.5"])  # type: ignore[arg-type]
LABELS = {"multi_label": ('["ham", "spam"]', "[]"), "regress": ("1", "2.5")}
"""Label cells of the two records for tasks that read another form than one label."""
JUDGED = ("preference", "thumbs", "reward")
"""Tasks whose batches have two answers an example."""


def model() -> GPT:
    return GPT(ModelConfig(**SHAPE.model_dump(), vocab_size=TOKENIZER.vocab_size), torch.Generator().manual_seed(1))


def records_of(variant: Variant) -> list[dict[str, Any]]:
    """The two records, with labels in the form that the task reads."""
    cells = LABELS.get(variant.name, ("spam", "ham"))
    return [record | {"label": cell} for record, cell in zip(RECORDS, cells, strict=True)]


def first_ids(name: str, example: Any) -> list[int]:
    """Ids of an example's text, or of its first answer."""
    ids: list[int] = {"preference": lambda: example[0][0], "thumbs": lambda: example[0][0][0]}.get(
        name, lambda: example[0]
    )()
    return ids


def made(name: str, **changes: Any) -> Any:
    return variants.build("tasks", name, CONTEXT, **changes)


def test_thumbs_are_up_for_liked_and_chosen_answers_alone() -> None:
    """Lost otherwise: kto raises the answers that people disliked."""
    task = made("thumbs")
    pairs = task.collate([task.example(record) for record in RECORDS])
    assert pairs["good"].tolist() == [[True, True], [False, False]]  # the chosen answers, the rejected ones
    rated = {"prompt": "Nerede?", "history": None, "answers": '["İzmir"]'}
    batch = task.collate([task.example(rated | {"verdict": f"thumb:{value}"}) for value in ("down", "up")])
    assert batch["good"].tolist() == [[False, True]]
    assert isinstance(task.example(rated | {"verdict": "choice:0"}), Reason)


@pytest.mark.parametrize("variant", TAUGHT, ids=str)
def test_every_task_gives_a_loss_per_example_and_lowers_it(variant: Variant) -> None:
    """Two dozen updates on two examples must lower the loss of any task."""
    torch.manual_seed(0)
    network, learned = model(), variant.build(CONTEXT)
    learned.prepare(network, torch.Generator().manual_seed(2))
    batch = learned.collate([learned.example(record) for record in records_of(variant)])
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-2)
    before = learned.losses(network, batch)
    assert before.shape == (2,)
    for _ in range(24):
        optimizer.zero_grad()
        learned.losses(network, batch).mean().backward()
        optimizer.step()
    assert learned.losses(network, batch).mean() < 0.8 * before.mean()


@pytest.mark.parametrize("variant", TAUGHT, ids=str)
def test_every_task_gives_an_example_the_same_loss_alone_and_in_a_batch(variant: Variant) -> None:
    """Padding would otherwise change the loss of an example beside a longer one."""
    network, learned = model().eval(), variant.build(CONTEXT)
    learned.prepare(network, torch.Generator().manual_seed(2))
    examples = [learned.example(record) for record in records_of(variant)]
    together = learned.losses(network, learned.collate(examples))
    alone = torch.cat([learned.losses(network, learned.collate([example])) for example in examples])
    assert torch.allclose(together, alone, atol=1e-6)


@pytest.mark.parametrize("variant", TAUGHT, ids=str)
def test_every_task_has_predictions_that_give_its_losses(variant: Variant) -> None:
    """Lost otherwise: a teacher would be compared at other positions than those that are trained."""
    network, learned = model().eval(), variant.build(CONTEXT)
    learned.prepare(network, torch.Generator().manual_seed(2))
    batch = learned.collate([learned.example(record) for record in records_of(variant)])
    predictions = learned.predictions(network, batch)
    losses = learned.losses_of(predictions)
    if variant.name not in (*LABELS, *JUDGED):
        by_hand = per_example(token_losses(predictions.scores_NC, predictions.targets_N), predictions)
        torch.testing.assert_close(losses, by_hand)
    torch.testing.assert_close(learned.losses(network, batch), losses)


@pytest.mark.parametrize("variant", [v for v in TASKS if v.name in ("chat", "instruct", "next_token")], ids=str)
def test_a_task_on_tokens_gives_the_mean_cross_entropy_of_its_targets(variant: Variant) -> None:
    """The head runs on the positions with a target alone; the losses must be those of running it on all."""
    network, learned = model().eval(), variant.build(CONTEXT)
    batch = learned.collate([learned.example(record) for record in RECORDS])
    windows = variant.name == "next_token"
    if not windows:
        batch["targets"][0] = IGNORED  # the loss of an example without any answer is zero, not NaN
    hidden_BTD = network.hidden(batch["inputs"], segments_BT=batch.get("segments"))
    losses_BT = torch.nn.functional.cross_entropy(
        network.logits(hidden_BTD).mT, batch["targets"], ignore_index=IGNORED, reduction="none"
    )
    expected = losses_BT.sum(1) / (batch["targets"] != IGNORED).sum(1).clamp(min=1)
    torch.testing.assert_close(learned.losses(network, batch), expected)
    assert (expected == 0).tolist() == [not windows, False]


def test_instruct_has_targets_in_the_answer_and_its_end_alone() -> None:
    learned = made("instruct")
    ids, targets = learned.example(RECORDS[1])
    batch = learned.collate([(ids, targets)])
    seen = batch["targets"][0][batch["targets"][0] != IGNORED].tolist()
    assert seen == [*" Ayşe".encode(), TOKENIZER.end_of_text]
    prompt = learned.prompt(Request("Kim?", "Ayşe geldi."))
    assert ids[: len(prompt)] == prompt
    assert TOKENIZER.decode(prompt) == "Kim?\nAyşe geldi."
    assert learned.answer(TOKENIZER.decode(seen[:-1])) == "Ayşe"


def test_instruct_learns_the_last_answer_of_a_conversation_alone_and_chat_every_learned_one() -> None:
    history = of_turns([Turn("a", "bir"), Turn("b", "iki", learned=False), Turn("c", "üç")])
    taught = {}
    for name in ("instruct", "chat"):
        learned = made(name, max_tokens=60)
        ids, targets = learned.example(instruction("d", "dört", history=history))
        assert ids[: len(ids) - len(" dört".encode()) - 1] == learned.prompt(
            Request.of_record(instruction("d", "", history=history))
        )
        taught[name] = TOKENIZER.decode([i for i in targets if i != IGNORED])
    assert taught == {"instruct": " dört", "chat": " bir üç dört"}


def test_instruct_cuts_a_long_prompt_and_keeps_the_answer() -> None:
    learned = made("instruct")
    ids, targets = learned.example(instruction("soru " * 100, "cevap"))
    assert len(ids) == 54 + len(" cevap") + 1
    assert TOKENIZER.decode([i for i in targets if i != IGNORED]) == " cevap"


@pytest.mark.parametrize("name", ["instruct", "chat"])
def test_an_answer_that_fits_is_never_refused_and_one_token_more_is_a_reason(name: str) -> None:
    """A short room for the prompt used to refuse records that fit."""
    learned, prompt = made(name, max_tokens=64, max_prompt_tokens=54), len("soru") + 3
    fits, too_long = (learned.example(instruction("soru", "a" * (64 - prompt - 2 + more))) for more in (0, 1))
    assert len(fits[0]) == 64
    assert too_long == Reason("answer_too_long", f"its prompt has {prompt} tokens and its answer 58; max_tokens is 64")


def test_classify_gives_a_reason_for_a_label_outside_of_the_training_split() -> None:
    for name in ("classify", "cloze"):
        reason = made(name).example(labelled("x", "phish"))
        assert reason == Reason("unknown_label", "label 'phish' is not in the training split: ham, spam")


def test_classify_refuses_a_single_label() -> None:
    with pytest.raises(UserError, match="two or more"):
        variants.build("tasks", "classify", CONTEXT._replace(labels=["ham"]))


@pytest.mark.parametrize("variant", [v for v in TASKS if "max_tokens" in v.settings], ids=str)
def test_a_task_refuses_more_tokens_than_the_context(variant: Variant) -> None:
    with pytest.raises(UserError, match="context_length is 64; lower max_tokens"):
        variant.build(CONTEXT, max_tokens=65)


@pytest.mark.parametrize("name", ["classify", "multi_label", "regress"])
def test_a_task_with_a_head_refuses_a_limit_that_leaves_no_room_for_a_text(name: str) -> None:
    """Lost otherwise: nearly the whole text is kept, and a batch has sequences beyond the limit."""
    tokenizer = ByteTokenizer()
    tokenizer.text_prefix, tokenizer.text_suffix = (1,), (2,)
    context = CONTEXT._replace(tokenizer=tokenizer)  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"max_tokens is 2, and the vocabulary puts 2 tokens .* to 3 or more"):
        variants.build("tasks", name, context, max_tokens=2)
    assert len(variants.build("tasks", name, context, max_tokens=3).prompt(Request("uzun bir metin"))) == 3
    folder = open_task(made("classify").spec.within(1), tokenizer)  # type: ignore[arg-type]
    assert folder.prompt(Request("uzun bir metin")) == [1, 2]


@pytest.mark.parametrize("variant", [v for v in TASKS if "max_prompt_tokens" in v.settings], ids=str)
def test_a_task_refuses_limits_that_leave_no_room(variant: Variant) -> None:
    with pytest.raises(UserError, match="is 64 and max_tokens 64, which leaves no room for an answer"):
        variant.build(CONTEXT, max_tokens=64, max_prompt_tokens=64)
    with pytest.raises(UserError, match=r"max_prompt_tokens is 3, and the markers of template '(chat|alpaca)' alone"):
        variant.build(CONTEXT, max_prompt_tokens=3)
    with pytest.raises(UserError, match=r"task: template 'chat' needs the special token .* template: alpaca"):
        variant.build(CONTEXT._replace(tokenizer=ByteTokenizer(["<|endoftext|>"])), template="chat")


@pytest.mark.parametrize("variant", TASKS, ids=str)
def test_every_task_of_a_trained_model_asks_as_in_training(variant: Variant) -> None:
    """From its folder's record alone: other prompts would be asked than those that were learned."""
    learned = variant.build(CONTEXT)
    spec = parsed(written([learned.spec.within(64)]), Path("tohum.json"))[0]
    opened = open_task(spec, TOKENIZER)
    for text in ("", "kısa", "uzun bir metin " * 20):
        asked = Request(text, answer="x" if variant.name == "reward" else None)
        prompt = opened.prompt(asked)
        assert len(prompt) <= spec.max_tokens <= 64 if asked.answer else spec.max_prompt_tokens < 64
        if learned.spec.max_prompt_tokens is None:  # next_token learns windows
            continue
        assert prompt == learned.prompt(asked)
        if hasattr(plugins.settings_class("tasks", variant.name), "form"):
            words = instruction(text, "x", chosen="x", rejected="y")
            example = learned.example(records_of(variant)[1] | {"text": text} | words)
            assert first_ids(variant.name, example)[: len(prompt)] == prompt


def test_classify_cuts_the_middle_of_a_long_text() -> None:
    ids, _ = made("classify").example(labelled("a" * 40 + "b" * 40, "spam"))
    assert len(ids) == 24
    assert ids[0] == ord("a")
    assert ids[-2:] == [ord("b"), TOKENIZER.end_of_text]


def test_next_token_loses_the_beginning_of_a_long_text() -> None:
    spec = made("next_token").spec.within(20)
    assert TOKENIZER.decode(open_task(spec, TOKENIZER).prompt(Request("a" * 40 + "b" * 10))) == "aaaabbbbbbbbbb"


def test_class_scores_are_the_log_probabilities_of_the_labels_words() -> None:
    """With words of several tokens, and whatever the batch is padded with."""
    network = model().eval()
    task = made("cloze", verbalizers={"ham": " message", "spam": " spam"})
    prompts = [task.prompt(Request(text)) for text in ("kısa", "daha uzun bir metin")]
    inputs = torch.zeros(2, max(map(len, prompts)), dtype=torch.long)
    for row, prompt in enumerate(prompts):
        inputs[row, : len(prompt)] = torch.tensor(prompt)
    with torch.no_grad():
        scores = task.class_scores(network, inputs, torch.tensor([len(prompt) for prompt in prompts]))
        for row, prompt in enumerate(prompts):
            for column, word in enumerate(task.words):
                ids = torch.tensor([prompt + word])
                logp = network(ids).log_softmax(-1)[0]
                by_hand = sum(float(logp[len(prompt) + k - 1, token]) for k, token in enumerate(word))
                assert float(scores[row, column]) == pytest.approx(by_hand, abs=1e-4)


def test_cloze_cuts_the_middle_of_a_long_text_and_keeps_the_pattern() -> None:
    ids = made("cloze").prompt(Request("a" * 100 + "b" * 100))
    assert len(ids) == 48
    assert TOKENIZER.decode(ids[1:]).endswith("b It is")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"pattern": "{text} is"}, "at the end"),
        ({"pattern": "It is{label}"}, "once"),
        ({"verbalizers": {"ham": "h", "scam": "s"}}, "names ham, scam; the labels of the data are ham, spam"),
        ({"verbalizers": {"ham": "h", "spam": "h"}}, "a different word for each"),
        ({"pattern": "{text}{label} is{label}"}, "once, at the end"),
        ({"max_tokens": 7}, "pattern and label alone take 7"),
        ({"max_tokens": 65}, "context_length is 64"),
    ],
)
def test_cloze_refuses_patterns_verbalizers_and_limits_that_cannot_work(changes: dict[str, Any], words: str) -> None:
    with pytest.raises((UserError, ValueError), match=words):
        made("cloze", **changes)


def test_next_token_gives_the_same_gradients_in_less_memory_when_few_logits_are_held_at_once() -> None:
    """With other gradients the option would train another model."""
    found = []
    for logits_at_once in (None, 5):
        network, learned = model(), made("next_token", logits_at_once=logits_at_once)
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


def test_next_token_gives_documents_of_a_window_the_scores_they_have_alone_when_masked() -> None:
    """Lost otherwise: the beginning of a text would be predicted from unrelated text before it in the shard."""
    network, learned = model().eval(), made("next_token", mask_documents=True)
    end = TOKENIZER.end_of_text
    first, second = np.array([5, 6, 7, 8]), np.array([end, 1, 2, 3, end, 9])
    whole = learned.predictions(network, learned.collate([np.concatenate([first, second])]))
    inputs = [torch.from_numpy(part)[None] for part in (first, second[:4], second[4:5])]
    alone = torch.cat([network(ids)[0] for ids in inputs])
    torch.testing.assert_close(whole.scores_NC, alone, atol=1e-5, rtol=0)


@pytest.mark.parametrize("logits_at_once", [None, 5])
def test_next_token_gives_the_same_losses_when_head_and_loss_are_compiled(
    logits_at_once: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Traced as on a GPU, without its code generation."""
    from pipeline.tasks import next_token

    network, learned = model(), made("next_token", logits_at_once=logits_at_once)
    batch = learned.collate([learned.example(record) for record in WINDOWS])
    found = []
    traced = torch.compile(next_token.head_losses, backend="aot_eager")
    network.static_shapes = True
    assert not next_token._fuses(network)  # on a CPU compiling them gains nothing
    monkeypatch.setattr(next_token, "_fused", lambda: traced)
    for fuses in (False, True):
        monkeypatch.setattr(next_token, "_fuses", lambda model, fuses=fuses: fuses)
        losses = learned.losses(network, batch)
        losses.sum().backward()
        found.append([losses.detach(), *(p.grad.clone() for p in network.parameters())])
        network.zero_grad()
    for plain, fused in zip(*found, strict=True):
        torch.testing.assert_close(fused, plain)


def test_unchanged_cuts_the_beginning_of_a_long_text_and_keeps_the_vocabularys_own_tokens() -> None:
    tokenizer = ByteTokenizer()
    tokenizer.text_prefix, tokenizer.text_suffix = (1,), (2,)
    task = open_task(parsed(written([made("unchanged").spec.within(8)]), Path("tohum.json"))[0], tokenizer)  # type: ignore[arg-type]
    assert task.prompt(Request("abcdefgh")) == [1, *b"efgh", 2]
