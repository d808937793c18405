"""Chat fine-tuning: next-token loss on every answer of a conversation, with all other turns masked out of the loss.

Loss mask: Touvron et al. 2023 (Llama 2), section 3.1, zeroes the loss on the user's tokens. An answer with `weight: 0`
is read and not learned. Turns that the one cut drops (pipeline/prompts/templates.py) are not learned either.
"""

from typing import ClassVar, Literal

from pydantic import Field

from pipeline.config.section import Positive, Section
from pipeline.tasks import Answering, TaskContext, TaskSpec, answering_spec
from pipeline.tokenizer import Tokenizer


class Settings(Section):
    """Chat template and length limits."""

    reads: ClassVar[frozenset[str]] = frozenset({"instructions"})
    head: ClassVar[str] = "language"
    emits: ClassVar[str] = "tokens"
    form: ClassVar[str] = "answers"
    measures: ClassVar[tuple[str, ...]] = ("exact_match",)
    template: Literal["chat", "alpaca", "model"] = Field(examples=["chat", "alpaca"])
    """chat: special tokens mark the turns; alpaca: plain headings; model: the chat template of the folder that the
    tokenizer was adopted from (`tokenize.method: folder`), with its end of a turn."""
    max_tokens: Positive = Field(examples=[64])
    """Longest conversation in tokens; at most the model's context_length."""
    max_prompt_tokens: Positive = Field(examples=[54])
    """Longest conversation before the last answer in tokens, in training and in use; a longer one is cut."""


def build(settings: Settings, context: TaskContext) -> "Chat":
    """The task of these settings. Raises UserError for limits or a template that do not fit."""
    return Chat(answering_spec("chat", settings, context), context.tokenizer)


def of(spec: TaskSpec, tokenizer: Tokenizer) -> "Chat":
    """The task of a trained model."""
    return Chat(spec, tokenizer)


class Chat(Answering):
    """Next-token prediction on answers."""

    LEARNS_EARLIER = True
