"""Open weights as they are: nothing is trained and no loss is measured; the base model is a copy of its start.

For a start that recipes fine-tune at once: an encoder has no next-token loss, and the validation of a large decoder
takes time. The folder answers like a model of task next_token where its network has a language head.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from pipeline.config.section import Section
from pipeline.errors import UserError
from pipeline.model.gpt import GPT
from pipeline.tasks import Batch, Predictions, Request, Task, TaskContext, TaskSpec
from pipeline.tokenizer import Tokenizer


class Settings(Section):
    """No settings."""

    reads: ClassVar[frozenset[str]] = frozenset({"documents"})
    head: ClassVar[str] = "language"
    emits: ClassVar[str] = "tokens"
    form: ClassVar[str] = "windows"


def build(_settings: Settings, context: TaskContext) -> "Unchanged":
    """The task."""
    return Unchanged(TaskSpec(name="unchanged"), context.tokenizer)


def of(spec: TaskSpec, tokenizer: Tokenizer) -> "Unchanged":
    """The task of a model folder."""
    return Unchanged(spec, tokenizer)


class Unchanged(Task):
    """A text to continue; no examples."""

    def prompt(self, request: Request) -> list[int]:
        """Ids of the text between the vocabulary's own tokens; without any, after end-of-text.

        As the folder's tokenizer.json has them (pipeline/tokenizer/export.py). A long text loses its start.
        """
        assert self.spec.max_prompt_tokens is not None
        before, after = self.tokenizer.text_prefix, self.tokenizer.text_suffix
        if not (before or after):
            before = (self.tokenizer.end_of_text,)
        ids = self.tokenizer.encode(request.text)
        most = self.spec.max_prompt_tokens - len(before) - len(after)
        return [*before, *ids[max(0, len(ids) - most) :], *after]

    def example(self, _record: Mapping[str, Any]) -> Any:
        """No example. Raises UserError."""
        raise _no_examples()

    def collate(self, _examples: Sequence[Any]) -> Batch:
        """No batch. Raises UserError."""
        raise _no_examples()

    def predictions(self, _model: GPT, _batch: Batch) -> Predictions:
        """No predictions. Raises UserError."""
        raise _no_examples()


def _no_examples() -> UserError:
    return UserError(
        "task unchanged trains on nothing: it has no examples and no loss; use next_token to train on texts"
    )
