"""Back-translation: the text is translated into another language and back by a chat model (Sennrich et al. 2016)."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import Field, model_validator

from pipeline.config.params import ChatModel
from pipeline.config.section import Section
from pipeline.data.formats._shape import BadRow
from pipeline.data.originals import Changed, Context, Original
from pipeline.data.sources._passages import unwritable

if TYPE_CHECKING:
    from pipeline.data.sources._kept_answers import Answer, Refusal
    from pipeline.data.sources._prompts import Templates

_AT_ONCE = 256


class Settings(Section):
    """The language between, and the model."""

    through: Annotated[str, Field(pattern="^[a-z]{2,3}$")]
    """Language of the translation (ISO 639-1); texts in this language get no twin."""
    prompts: str | None
    """A YAML file in inputs/ with prompts of your own, target language -> template with {text}, as in
    pipeline/data/augment/translation_prompts.yaml; null: these."""
    ask: ChatModel
    """The model: an endpoint, or a model folder of this project that translates."""

    @model_validator(mode="after")
    def _changes_are_seen(self) -> "Settings":
        from pathlib import Path

        from pipeline.data.sources._inputs import require_inputs

        if self.prompts is not None:
            require_inputs(Path(self.prompts).parent)
        return self


def build(settings: Settings, context: Context) -> "BackTranslation":
    """The augmentation. Raises UserError for prompts that are missing or faulty."""
    from pipeline.data.sources import _prompts
    from pipeline.paths import PACKAGE

    own = PACKAGE / "data/augment" / "translation_prompts.yaml"
    path = Path(settings.prompts) if settings.prompts is not None else own
    return BackTranslation(settings, _prompts.read(path, "text", f"{context.where}.prompts"), context)


@dataclass(frozen=True)
class BackTranslation:
    """Two requests for each text; answers are kept (pipeline/data/sources/_chat.py)."""

    settings: Settings
    templates: "Templates"
    context: Context

    def texts(self, originals: Iterable[Original]) -> Iterator[Changed]:
        """Texts there and back; None where the language is unknown or the one between, or the same text came back.

        Raises:
            UserError: the model cannot be asked.
        """
        several = iter(originals)
        while chunk := list(islice(several, _AT_ONCE)):
            results: dict[int, Changed] = dict.fromkeys(range(len(chunk)))
            known = [n for n, one in enumerate(chunk) if one.language not in ("und", self.settings.through)]
            results |= self._translated({n: (chunk[n].text, self.settings.through) for n in known})
            there = {n: (text, chunk[n].language) for n in known if isinstance(text := results[n], str)}
            results |= self._translated(there)
            yield from (None if text == chunk[n].text else text for n, text in results.items())

    def _translated(self, texts: dict[int, tuple[str, str]]) -> dict[int, Changed]:
        """Number -> translation of (text, target language), or the reason why there is none."""
        from pipeline.data.sources._chat import answers
        from pipeline.paths import ANSWERS

        prompts = [self.templates.filled(language, text, language=language) for text, language in texts.values()]
        received = answers(self.settings.ask, prompts, ANSWERS, f"{self.context.where}.ask")
        return dict(zip(texts, map(_translation, received), strict=True))


def _translation(answer: "Answer | Refusal") -> str | BadRow:
    from pipeline.data.sources._kept_answers import Refusal

    if isinstance(answer, Refusal):
        return BadRow("refused", answer.detail)
    if answer.finish == "length":
        return BadRow("cut_off", f"the translation ended at max_tokens, in {answer.text[-40:]!r}; expected all of it")
    if not answer.text.strip():
        return BadRow("no_answer", "the translation is empty; expected a text")
    return unwritable(answer.text.strip()) or answer.text.strip()
