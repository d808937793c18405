"""Zero-shot and few-shot prompting: a language model as it is, asked with 0, 4 or 8 examples in the prompt.

Labelled texts are classified by their label words (Brown et al. 2020, section 2.4): the label with the highest
log p(label | prompt), summed over its tokens. Instructions are answered greedily, in the model's own chat template
where it has one, else in Alpaca's layout; the examples are earlier turns.

The part that all prompts begin with, instruction and examples, is computed once for our own families.

Shapes: B prompts, T tokens, K tokens of a label, C labels, N prompts in all, D model width.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from pipeline.data.conversations import Earlier, Turn
from pipeline.errors import UserError
from pipeline.inference.generation import generate
from pipeline.model.cache import KeyValue, KVRecorder
from pipeline.model.gpt import GPT
from pipeline.model.library import LibraryModel
from pipeline.prompts import templates
from pipeline.prompts.request import Request
from pipeline.prompts.vocabulary import without_middle
from pipeline.studies.released import template_of
from pipeline.tokenizer import Tokenizer

SHOTS = (0, 4, 8)
"""Numbers of examples in the prompt."""
NAMES = {0: "zero-shot", 4: "4-shot", 8: "8-shot"}
"""Number of examples -> name of the method."""
_BATCH_TOKENS = 2048
_NEXT_SECTION = "\n\n### "
_UNCUT = 1 << 20
"""Limit of a prompt, in tokens, with which no turn is dropped."""
Record = Mapping[str, Any]
"""A row of data/samples."""


def examples(rows: Sequence[Record], shots: int, seed: int = 1) -> list[Record]:
    """Training records for a prompt, drawn by a seed; of labelled texts every label in turn.

    Raises:
        UserError: fewer records than examples.
    """
    if len(rows) < shots:
        raise UserError(f"{shots} examples are wanted and there are {len(rows)} training records")
    shuffled = random.Random(seed).sample(list(rows), len(rows))
    by_label: dict[str, list[Record]] = {}
    for row in shuffled:
        by_label.setdefault(str(row.get("label", "")), []).append(row)
    queues = [by_label[label] for label in sorted(by_label)]
    chosen: list[Record] = []
    while len(chosen) < shots:
        chosen += [queue.pop() for queue in queues if queue][: shots - len(chosen)]
    return chosen


def label_prompts(
    tokenizer: Tokenizer, labels: Sequence[str], shown: Sequence[Record], texts: Sequence[str], limit: int
) -> list[list[int]]:
    """Prompts that end where the label follows.

    Args:
        tokenizer: of the model.
        labels: named in the prompt's first line.
        shown: labelled records, the examples.
        texts: to be classified.
        limit: tokens of a text; a longer one loses its middle.
    """

    def asked(text: str) -> list[int]:
        ids = without_middle(tokenizer.encode(text), limit)
        return [*tokenizer.encode("Text: "), *ids, *tokenizer.encode("\nLabel:")]

    start = [*tokenizer.text_prefix, *tokenizer.encode(f"Classify each text as one of: {', '.join(labels)}.\n\n")]
    for row in shown:
        start += [*asked(row["text"]), *tokenizer.encode(f" {row['label']}\n\n")]
    return [[*start, *asked(text)] for text in texts]


@torch.no_grad()
def label_scores(model: GPT, prompts: Sequence[Sequence[int]], words: Sequence[Sequence[int]]) -> Tensor:
    """log p(label | prompt), [N, C], float32 on the CPU.

    Args:
        model: with a language head.
        prompts: token ids.
        words: the token ids of each label.

    Raises:
        UserError: a prompt that is longer than the model's context.
    """
    _require_room(model, prompts, max(map(len, words)))
    shared, past = _shared(model, prompts)
    rest = [list(prompt[shared:]) for prompt in prompts]
    at_once = all(len(word) == 1 for word in words)
    scores_NC = torch.zeros(len(prompts), len(words))
    for rows in _batches([shared + len(ids) for ids in rest]):
        if at_once:
            logits_BV = _logits(model, [rest[i] for i in rows], 1, past)[:, 0]
            scores_NC[rows] = logits_BV[:, [word[0] for word in words]]
            continue
        for place, word in enumerate(words):
            logits_BKV = _logits(model, [[*rest[i], *word[:-1]] for i in rows], len(word), past)
            index_BK1 = torch.tensor(list(word), device=logits_BKV.device)[None, :, None].expand(len(rows), -1, 1)
            scores_NC[rows, place] = logits_BKV.gather(2, index_BK1)[:, :, 0].sum(1).cpu()
    return scores_NC


def _logits(model: GPT, rows: Sequence[Sequence[int]], wanted: int, past: Sequence[KeyValue] | None) -> Tensor:
    """Log-probabilities after the last `wanted` ids of each row: [B, wanted, V]."""
    device = model.embed.weight.device
    longest = max(map(len, rows))
    ids_BT = torch.tensor([[*row, *[0] * (longest - len(row))] for row in rows], device=device)
    lengths_B = torch.tensor([len(row) for row in rows], device=device)[:, None]
    index_T = torch.arange(longest, device=device)
    wanted_BT = (index_T >= lengths_B - wanted) & (index_T < lengths_B)
    x_ND = model.hidden(ids_BT, wanted_BT=wanted_BT, prefix=past)
    return model.logits(x_ND).float().log_softmax(-1).view(len(rows), wanted, -1)


def answer_prompts(
    tokenizer: Tokenizer, shown: Sequence[Record], rows: Sequence[Record], limit: int
) -> list[list[int]]:
    """Prompts of questions, after examples as earlier turns.

    Args:
        tokenizer: of the model.
        shown: instructions with answers, the examples.
        rows: instructions to be answered.
        limit: tokens of a question; a longer one loses its middle.
    """
    template = template_of(tokenizer)
    before = [] if template == "model" else list(tokenizer.text_prefix)
    turns = tuple(Turn(_question(row, tokenizer, limit), row["output"]) for row in shown)
    prompts = []
    for row in rows:
        request = Request(_question(row, tokenizer, limit), "", Earlier("", turns))
        made = templates.prompt(tokenizer, template, request, _UNCUT, learns_earlier=False)
        prompts.append([*before, *made.ids])
    return prompts


def _question(row: Record, tokenizer: Tokenizer, limit: int) -> str:
    text = Request(row["instruction"], row["input"]).text
    ids = tokenizer.encode(text)
    return text if len(ids) <= limit else tokenizer.decode(without_middle(ids, limit))


def answers(model: GPT, tokenizer: Tokenizer, prompts: Sequence[Sequence[int]], max_tokens: int) -> list[str]:
    """Greedy answers in the order of the prompts.

    Raises:
        UserError: a prompt that is longer than the model's context.
    """
    _require_room(model, prompts, max_tokens)
    template = template_of(tokenizer)
    stop = {tokenizer.end_of_text, templates.end_of_answer(tokenizer, template)}
    shared, past = _shared(model, prompts)
    texts = [""] * len(prompts)
    for rows in _batches([shared + len(prompt) + max_tokens for prompt in prompts]):
        said = generate(
            model, [prompts[i][shared:] for i in rows], max_tokens=max_tokens, temperature=0.0, top_k=0, top_p=1.0,
            stop=stop, prefix=past,
        )  # fmt: skip
        for i, ids in zip(rows, said, strict=True):
            text = templates.answer_text(tokenizer, template, tokenizer.decode(ids))
            texts[i] = text.split(_NEXT_SECTION)[0].strip()
    return texts


def _require_room(model: GPT, prompts: Sequence[Sequence[int]], more: int) -> None:
    longest = max(map(len, prompts)) + more
    if longest > model.room():
        raise UserError(f"its prompts take up to {longest} tokens, the context has {model.room()}")


@torch.no_grad()
def _shared(model: GPT, prompts: Sequence[Sequence[int]]) -> tuple[int, list[KeyValue] | None]:
    """The number of ids that all prompts begin with, and their keys and values; 0 and None where it is not worth it."""
    first = prompts[0]
    most = min(map(len, prompts)) - 1
    shared = next((i for i in range(most) if any(prompt[i] != first[i] for prompt in prompts)), most)
    if isinstance(model, LibraryModel) or shared < 1 or len(prompts) == 1:
        return 0, None
    recorder = KVRecorder()
    model.hidden(torch.tensor([list(first[:shared])], device=model.embed.weight.device), cache=recorder)
    return shared, recorder.layers


def _batches(lengths: Sequence[int]) -> list[list[int]]:
    """Rows of like length together, each batch of at most 2,048 tokens."""
    order = sorted(range(len(lengths)), key=lambda i: lengths[i])
    batches: list[list[int]] = [[]]
    for i in order:
        if batches[-1] and lengths[i] * (len(batches[-1]) + 1) > _BATCH_TOKENS:
            batches.append([])
        batches[-1].append(i)
    return batches


def answer_score(name: str) -> Callable[[str, Record], float]:
    """The score of one answer, 0 to 1: `exact_match` or `chrf`."""
    from pipeline.data import language

    if name == "exact_match":
        return lambda text, row: float(language.exact_match(text, row["output"], row["language"]))
    from sacrebleu.metrics.chrf import CHRF

    chrf = CHRF()
    return lambda text, row: float(chrf.sentence_score(text, [row["output"]]).score) / 100
