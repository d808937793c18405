"""Task records of trained models that tests share."""

from typing import Any

from pipeline.prompts.spec import TEXT, TaskSpec, written

SPAM = TaskSpec(name="classify", labels=("ham", "spam"), max_tokens=32, max_prompt_tokens=32)
ANSWERS = TaskSpec(name="instruct", template="chat", max_tokens=40, max_prompt_tokens=30)
REWARD = TaskSpec(name="reward", template="chat", max_tokens=40, max_prompt_tokens=30)
WORDS = TaskSpec(
    name="cloze", labels=("ham", "spam"), pattern="{text}{label}", verbalizers={"ham": " e", "spam": " s"},
    max_tokens=32, max_prompt_tokens=31,
)  # fmt: skip

__all__ = ["ANSWERS", "REWARD", "SPAM", "TEXT", "WORDS", "changed", "labels_of", "written"]


def changed(spec: TaskSpec, **changes: Any) -> TaskSpec:
    """The spec with other fields."""
    return spec.model_copy(update=changes)


def labels_of(spec: TaskSpec) -> list[str] | None:
    """The labels as `checkpoint.save` takes them."""
    return list(spec.outputs) or None
