"""Records as training examples in token ids, or the reason why a record makes none. No torch.

Tasks make their examples here, and the samples gate asks the same functions, so training meets no record that the gate
did not count. A task's `Settings.form` names the function: answers, prompts, pairs, thumbs, labels, label_sets or
numbers.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from pipeline.data import label_cells
from pipeline.prompts import templates
from pipeline.prompts.request import Request
from pipeline.prompts.spec import TaskSpec
from pipeline.prompts.vocabulary import Vocabulary
from pipeline.tokenizer.chat_template import RefusedConversationError


class Reason(NamedTuple):
    """Why a record makes no example: counted at the samples gate, left out of training."""

    code: str
    """answer_too_long, refused_by_template, not_a_thumb, unknown_label, not_a_list or not_a_number."""
    detail: str
    """The value found and the bound, in words."""


class AnswerExample(NamedTuple):
    """Prompt and answer."""

    ids: list[int]
    learned: list[bool]
    """Per id: whether it belongs to an answer that training learns."""


def answer_example(
    tokenizer: Vocabulary, spec: TaskSpec, record: Mapping[str, Any], learns_earlier: bool
) -> AnswerExample | Reason:
    """Prompt and answer of a record of instructions.

    Args:
        tokenizer: the model's vocabulary.
        spec: template and limits.
        record: instruction, input, history, output.
        learns_earlier: whether the answers of earlier turns are learned too.
    """
    assert spec.template is not None
    assert spec.max_tokens is not None
    assert spec.max_prompt_tokens is not None
    try:
        prompt = templates.prompt(
            tokenizer,
            spec.template,
            Request.of_record(record),
            spec.max_prompt_tokens,
            learns_earlier=learns_earlier,
        )
        answer = templates.answer(tokenizer, spec.template, record["output"])
    except RefusedConversationError as error:
        return Reason("refused_by_template", str(error))
    if len(prompt.ids) + len(answer) > spec.max_tokens:
        return Reason(
            "answer_too_long",
            f"its prompt has {len(prompt.ids)} tokens and its answer {len(answer)}; max_tokens is {spec.max_tokens}",
        )
    return AnswerExample(prompt.ids + answer, prompt.learned + [True] * len(answer))


class Thumb(NamedTuple):
    """An answer that was judged by itself."""

    example: AnswerExample
    good: bool
    """Whether it was chosen, or got a thumb up."""


def prompt_ids(tokenizer: Vocabulary, spec: TaskSpec, record: Mapping[str, Any]) -> list[int] | Reason:
    """The prompt of a record of instructions or preferences, without an answer; arguments as `answer_example`."""
    assert spec.template is not None
    assert spec.max_prompt_tokens is not None
    try:
        return templates.prompt(tokenizer, spec.template, Request.of_record(record), spec.max_prompt_tokens).ids
    except RefusedConversationError as error:
        return Reason("refused_by_template", str(error))


def pair_example(tokenizer: Vocabulary, spec: TaskSpec, record: Mapping[str, Any]) -> list[AnswerExample] | Reason:
    """The chosen and the rejected answer of a preference, each after the same prompt; arguments as `answer_example`."""
    pair = []
    for column in ("chosen", "rejected"):
        example = answer_example(tokenizer, spec, {**record, "output": record[column]}, learns_earlier=False)
        if isinstance(example, Reason):
            return example._replace(detail=f"{column}: {example.detail}")
        pair.append(example)
    return pair


def thumb_examples(tokenizer: Vocabulary, spec: TaskSpec, record: Mapping[str, Any]) -> list[Thumb] | Reason:
    """The rated answer of a rating of form thumb, or both answers of a preference: chosen up, rejected down.

    A rating of another form has no thumb, which is a Reason; arguments as of `answer_example`.
    """
    if "chosen" in record:
        pair = pair_example(tokenizer, spec, record)
        return pair if isinstance(pair, Reason) else [Thumb(pair[0], True), Thumb(pair[1], False)]
    form, _, value = record["verdict"].partition(":")
    if form != "thumb":
        return Reason("not_a_thumb", f"its verdict is {record['verdict']!r:.40}; expected thumb:up or thumb:down")
    asked = {"instruction": record["prompt"], "input": "", "history": record.get("history")}
    example = answer_example(tokenizer, spec, asked | {"output": json.loads(record["answers"])[0]}, False)
    return example if isinstance(example, Reason) else [Thumb(example, value == "up")]


def label_index(labels: Sequence[str], record: Mapping[str, Any]) -> int | Reason:
    """The class index of a labelled record."""
    try:
        return labels.index(record["label"])
    except ValueError:
        known = ", ".join(labels)
        return Reason("unknown_label", f"label {record['label']!r} is not in the training split: {known}")


def label_indices(labels: Sequence[str], record: Mapping[str, Any]) -> list[int] | Reason:
    """The class indices of a record with several labels, ascending; empty where it has none."""
    cell = record["label"]
    several = label_cells.several_in(cell)
    if several is None:
        return Reason("not_a_list", f"label is {cell!r:.60}; expected a JSON list of labels: label_form: several")
    if unknown := [label for label in several if label not in labels]:
        return Reason("unknown_label", f"label {unknown[0]!r} is not in the training split: {', '.join(labels)}")
    return sorted(labels.index(label) for label in several)


def target_number(record: Mapping[str, Any]) -> float | Reason:
    """The number in a record's label."""
    number = label_cells.number_in(record["label"])
    return Reason("not_a_number", f"label is {record['label']!r:.60}; expected a number") if number is None else number


def reason(form: str | None, tokenizer: Vocabulary, spec: TaskSpec, record: Mapping[str, Any]) -> Reason | None:
    """Why a record makes no example of a task; None if it makes one.

    Args:
        form: `Settings.form` of the task; None for a task of which every record is an example.
        tokenizer: the model's vocabulary.
        spec: the task's labels, template and limits.
        record: a record of the kind that the task reads.
    """
    made: Any = None
    if form == "answers":
        made = answer_example(tokenizer, spec, record, learns_earlier=spec.name == "chat")
    elif form == "prompts":
        made = prompt_ids(tokenizer, spec, record)
    elif form == "pairs":
        made = pair_example(tokenizer, spec, record)
    elif form == "thumbs":
        made = thumb_examples(tokenizer, spec, record)
        if isinstance(made, Reason) and made.code == "not_a_thumb":  # meant for another task: not a fault of the data
            return None
    elif form == "labels":
        made = label_index(spec.labels or (), record)
    elif form == "label_sets":
        made = label_indices(spec.labels or (), record)
    elif form == "numbers":
        made = target_number(record)
    return made if isinstance(made, Reason) else None
