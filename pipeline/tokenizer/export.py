"""Tokenizer files of an exported model: transformers' AutoTokenizer gives the ids that the model was trained on.

    describe(tokenizer, task, context_length)  ->  InputFormat: special tokens around a text, its limit, chat template
    write(folder, tokenizer, input_format)     ->  tokenizer.json and tokenizer_config.json of that format

A vocabulary belongs to many models, and each task puts other tokens around a text: end-of-text before it (language
models, whose training documents begin with it), end-of-text after it (classifiers, whose head reads it), a pattern
(cloze), or the markers of a chat template. The vocabulary's own post-processor (a beginning-of-text token in an adopted
tokenizer.json) is replaced, because training does not apply it.

Formats: TemplateProcessing and Strip of the tokenizers library; tokenizer_config.json and chat templates (Jinja, with a
`generation` block around the trained tokens) of transformers.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pipeline import files
from pipeline.errors import UserError
from pipeline.tokenizer import vocabulary
from pipeline.tokenizer.adopted import FILES, text_of
from pipeline.tokenizer.library import kind_of

if TYPE_CHECKING:
    from pipeline.tokenizer import Tokenizer

_TOKENIZER, _SETTINGS, _MAP, _JINJA = FILES

_KEPT_ROLES = ("unk_token", "sep_token", "cls_token", "mask_token")

_ROLES = (
    "{% if message['role'] not in ['system', 'user', 'assistant'] %}"
    "{{ raise_exception('role ' ~ message['role'] ~ '; expected system, user or assistant') }}{% endif %}"
)
# The texts that pipeline.prompts.templates renders.
CHAT_TEMPLATES = {
    "chat": (
        "{% for message in messages %}" + _ROLES + "{% if message['role'] == 'assistant' %}"
        "{{ '<|assistant|>' }}{% generation %}{{ ' ' + message['content'] + eos_token }}{% endgeneration %}"
        "{% else %}{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
    ),
    "alpaca": (
        "{% for message in messages %}" + _ROLES + "{% if message['role'] == 'assistant' %}"
        "{% generation %}{{ message['content'] + eos_token }}{% endgeneration %}"
        "{% elif message['role'] == 'system' %}{{ message['content'] + '\n\n' }}"
        "{% else %}{{ '### Instruction:\n' + message['content'] + '\n\n### Response:\n' }}{% endif %}{% endfor %}"
    ),
}
"""Template of a task -> its `chat_template`."""
FOLDERS_OWN = "model"
"""Template of a task that keeps the chat template of the adopted folder, with its own special tokens."""
_OPENING_SPACE = ("chat",)
"""Templates whose answers are trained with a space before them; decoding removes it, as in Llama 2's tokenizer."""


@dataclass(frozen=True)
class InputFormat:
    """How texts become the input of one model."""

    before: tuple[int, ...]
    """Ids before every text."""
    after: tuple[int, ...]
    """Ids after every text."""
    max_tokens: int
    """Longest input in tokens, `before` and `after` included: transformers' `model_max_length`."""
    side: Literal["left", "right"]
    """Where batches are padded and long texts truncated: left for models that generate, right for classifiers."""
    template: str | None = None
    """Chat template, one of CHAT_TEMPLATES, or FOLDERS_OWN; None: texts, no messages."""
    ends: tuple[int, ...] = ()
    """Ids that end an answer, the usual one first: `eos_token_id` of generation_config.json, and of a reward model the
    one that its head reads; (): the task has no answers in text."""


def first_task(content: Mapping[str, Any]) -> dict[str, Any]:
    """The task that a model answers, from the content of its tohum.json: a TaskSpec of pipeline.prompts as a dict."""
    tasks = content.get("tasks")
    return dict(tasks[0]) if tasks else {**content, "name": content.get("objective", "next_token")}  # version 1


def describe(tokenizer: "Tokenizer", task: Mapping[str, Any], context_length: int) -> InputFormat:
    """The format of a task.

    Args:
        tokenizer: the model's vocabulary.
        task: from `first_task`.
        context_length: of the model in tokens, without virtual ones.
    """
    end = tokenizer.end_of_text
    match task["name"]:
        case "classify" | "multi_label" | "regress":
            after = tokenizer.text_suffix or (end,)
            return InputFormat(tokenizer.text_prefix, after, task["max_tokens"], "right")
        case "cloze":
            opening, closing = (
                tokenizer.encode(text) for text in task["pattern"].removesuffix("{label}").split("{text}")
            )
            return InputFormat((end, *opening), tuple(closing), task["max_prompt_tokens"], "left")
        case "instruct" | "chat":
            ends = _ends(tokenizer) if task["template"] == FOLDERS_OWN else (end,)
            return InputFormat((), (), context_length, "left", task["template"], ends)
        case "reward":
            end = _ends(tokenizer)[0] if task["template"] == FOLDERS_OWN else end
            return InputFormat((), (), context_length, "right", task["template"], (end,))
        case "unchanged":
            around = tokenizer.text_prefix, tokenizer.text_suffix
            before, after = around if any(around) else ((end,), ())
        case _:
            before, after = (end,), ()
    template = FOLDERS_OWN if tokenizer.method == "folder" and tokenizer.chat_template is not None else None
    ends = (end,) if template is None else tuple(dict.fromkeys((end, *_ends(tokenizer))))
    return InputFormat(before, after, context_length, "left", template, ends)


def _ends(tokenizer: "Tokenizer") -> tuple[int, ...]:
    """The end of a turn in the folder's chat template, its eos_token and end-of-text, without repetitions."""
    template = tokenizer.chat_template
    assert template is not None
    eos = template.markers.get(template.variables.get("eos_token", ""))
    try:
        turn = [template.turn.end]
    except UserError:  # a language model keeps its folder's template as it is, also one that cannot be trained on
        turn = []
    return tuple(dict.fromkeys([*turn, *([eos.number] if eos else []), tokenizer.end_of_text]))


def write(folder: Path, tokenizer: "Tokenizer", input_format: InputFormat) -> None:
    """Rewrites tokenizer.json and tokenizer_config.json in `folder` for a model's input format.

    A special token's name in a text stays text (`split_special_tokens`), except where a chat template has to place
    special tokens by their names.
    """
    raw, template = json.loads((folder / _TOKENIZER).read_bytes()), _template(tokenizer, input_format)
    raw |= {"truncation": None, "padding": None, "post_processor": _post_processor(tokenizer, input_format)}
    if not _is_sum_of_bytes(raw.get("decoder")):
        pass  # a vocabulary's own decoder, which may strip a space itself (Llama 2), stays as it is
    elif input_format.template in _OPENING_SPACE:
        strip = {"type": "Strip", "content": " ", "start": 1, "stop": 0}
        raw["decoder"] = {"type": "Sequence", "decoders": [*_decoders(raw.get("decoder")), strip]}
    else:
        raw["decoder"] = _without_strip(raw.get("decoder"))
    raw["model"].setdefault("type", kind_of(raw["model"]))  # older files leave it out, and not every reader infers it
    settings = _settings(tokenizer, input_format, template) | _roles(folder, tokenizer)
    _replace(folder / _TOKENIZER, raw)
    _replace(folder / _SETTINGS, settings)
    for name in (_MAP, _JINJA):  # an adopted vocabulary's: they would overrule tokenizer_config.json
        (folder / name).unlink(missing_ok=True)


def pad_token(tokenizer: "Tokenizer", input_format: InputFormat) -> str | None:
    """The padding token of the exported folder.

    transformers' classifiers read the last token that is not padding, so padding with the token that ends every text
    would hide it: then another special token is taken, and without any, None (batches of several texts are refused
    there).
    """
    names = {number: text for text, number in tokenizer.special.items()}
    read = (*input_format.after, *(input_format.ends if input_format.side == "right" else ()))  # a reward model's end
    if tokenizer.pad not in read:
        return names[tokenizer.pad]
    taken = {*read, tokenizer.unknown}  # unknown text in a padded batch would count as padding
    return next((text for text, number in tokenizer.special.items() if number not in taken), None)


def vocabulary_part(tokenizer_json: bytes) -> dict[str, Any]:
    """The parts of a tokenizer.json that are equal for all models of one vocabulary."""
    raw: dict[str, Any] = json.loads(tokenizer_json)
    if _is_sum_of_bytes(raw.get("decoder")):
        raw["decoder"] = _without_strip(raw.get("decoder"))
    return {key: value for key, value in raw.items() if key not in ("post_processor", "truncation", "padding")}


def _template(tokenizer: "Tokenizer", input_format: InputFormat) -> str | None:
    """The chat template: the task's, or that of the adopted folder."""
    if input_format.template == FOLDERS_OWN:
        return tokenizer.chat_template.source if tokenizer.chat_template is not None else None
    return None if input_format.template is None else CHAT_TEMPLATES[input_format.template]


def _settings(tokenizer: "Tokenizer", input_format: InputFormat, template: str | None) -> dict[str, Any]:
    end = next(text for text, number in tokenizer.special.items() if number == tokenizer.end_of_text)
    pad = pad_token(tokenizer, input_format)
    settings: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": _shown(tokenizer, tokenizer.text_prefix[0]) if tokenizer.text_prefix else end,
        "eos_token": end,
        "additional_special_tokens": [text for text in tokenizer.special if text not in (end, pad)],
        "clean_up_tokenization_spaces": False,
        "model_max_length": input_format.max_tokens,
        "padding_side": input_format.side,
        "truncation_side": input_format.side,
        "split_special_tokens": template is None,
    }
    if pad is not None:
        settings["pad_token"] = pad
    if template is not None:
        settings["chat_template"] = template
    if input_format.template == FOLDERS_OWN and tokenizer.chat_template is not None:
        # the template may name them, and other programs stop at its eos_token
        own = {
            role: text for role, text in tokenizer.chat_template.variables.items() if role in ("bos_token", "eos_token")
        }
        if "bos_token" not in own and "bos_token" in tokenizer.chat_template.source:
            del settings["bos_token"]  # the template writes none, and training had none
        settings |= {role: text for role, text in own.items() if text in tokenizer.special}
        kept = (*own.values(), pad)
        settings["additional_special_tokens"] = [text for text in tokenizer.special if text not in kept]
    return settings


def _roles(folder: Path, tokenizer: "Tokenizer") -> dict[str, str]:
    """Roles of special tokens that an adopted vocabulary has beside end-of-text and padding: those of BERT, <unk>."""
    if tokenizer.method != "folder":
        return {}
    settings = [json.loads((folder / name).read_bytes()) for name in (_MAP, _SETTINGS) if (folder / name).is_file()]
    written = {key: text_of(file.get(key)) for file in settings for key in _KEPT_ROLES if text_of(file.get(key))}
    roles = {key: text for key, text in written.items() if text is not None and text in tokenizer.special}
    if tokenizer.unknown is not None and tokenizer.unknown in tokenizer.special.values():
        roles["unk_token"] = _shown(tokenizer, tokenizer.unknown)
    return roles


def _post_processor(tokenizer: "Tokenizer", input_format: InputFormat) -> dict[str, Any] | None:
    """TemplateProcessing that puts the ids around a text; None without any."""
    around = {"before": input_format.before, "after": input_format.after}
    special = {
        name: {"id": name, "ids": list(ids), "tokens": [_shown(tokenizer, number) for number in ids]}
        for name, ids in around.items()
        if ids
    }
    if not special:
        return None

    def pieces(*texts: str) -> list[dict[str, Any]]:
        named = [name for name in ("before", *texts, "after") if name in special or name in texts]
        return [{"Sequence" if name in texts else "SpecialToken": {"id": name, "type_id": 0}} for name in named]

    return {"type": "TemplateProcessing", "single": pieces("A"), "pair": pieces("A", "B"), "special_tokens": special}


def _shown(tokenizer: "Tokenizer", number: int) -> str:
    """A token as in tokenizer.json, where the library's decoder would leave parts of it out (`▁`, `##`)."""
    names = {special: text for text, special in tokenizer.special.items()}
    return names[number] if number in names else tokenizer.decode([number])


def _is_sum_of_bytes(decoder: Mapping[str, Any] | None) -> bool:
    """Whether a decoder joins bytes or characters, so that a Strip in it is that of an earlier export."""
    return bool(decoder) and all(step["type"] in ("ByteLevel", "Fuse") for step in _decoders(decoder))


def _decoders(decoder: Mapping[str, Any] | None) -> list[Mapping[str, Any]]:
    """The steps of a decoder, without a Strip that an earlier export appended."""
    if not decoder:
        return []
    steps: Sequence[Mapping[str, Any]] = decoder["decoders"] if decoder["type"] == "Sequence" else [decoder]
    return [step for step in steps if step["type"] != "Strip"]


def _without_strip(decoder: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    steps = _decoders(decoder)
    if len(steps) > 1:
        return {"type": "Sequence", "decoders": steps}
    return steps[0] if steps else None


def _replace(path: Path, value: Any) -> None:
    with files.replacing(path) as temporary:
        temporary.write_bytes(vocabulary.to_json(value))
