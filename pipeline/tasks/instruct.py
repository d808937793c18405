"""Instruction tuning: next-token loss on the answer only (Wei et al. 2022; loss mask as in Alpaca).

A record with earlier turns is asked after them, and its last answer alone is learned. Prompts are cut by
pipeline/prompts/templates.py, answers never.
"""

from typing import ClassVar, Literal

from pydantic import Field

from pipeline.config.section import Positive, Section
from pipeline.tasks import Answering, TaskContext, TaskSpec, answering_spec
from pipeline.tokenizer import Tokenizer


class Settings(Section):
    """Prompt template and length limits."""

    reads: ClassVar[frozenset[str]] = frozenset({"instructions"})
    head: ClassVar[str] = "language"
    emits: ClassVar[str] = "tokens"
    form: ClassVar[str] = "answers"
    measures: ClassVar[tuple[str, ...]] = ("exact_match",)
    template: Literal["chat", "alpaca", "model"] = Field(examples=["chat", "alpaca"])
    """chat: special tokens mark the turns; alpaca: plain headings; model: the chat template of the folder that the
    tokenizer was adopted from (`tokenize.method: folder`), with its end of a turn."""
    max_tokens: Positive = Field(examples=[64])
    """Longest prompt with its answer in tokens; at most the model's context_length."""
    max_prompt_tokens: Positive = Field(examples=[54])
    """Longest prompt in tokens, in training and in use; a longer one is cut."""


def build(settings: Settings, context: TaskContext) -> "Instruct":
    """The task of these settings. Raises UserError for limits or a template that do not fit."""
    return Instruct(answering_spec("instruct", settings, context), context.tokenizer)


def of(spec: TaskSpec, tokenizer: Tokenizer) -> "Instruct":
    """The task of a trained model."""
    return Instruct(spec, tokenizer)


class Instruct(Answering):
    """Next-token prediction on the last answer."""

    LEARNS_EARLIER = False
