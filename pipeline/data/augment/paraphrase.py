"""Paraphrase by template: the text in another wording around it, such as `Please tell me: {text}`."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field, model_validator

from pipeline.config.section import Section
from pipeline.data.originals import Changed, Context, Original


class Settings(Section):
    """Templates."""

    templates: str | None = Field(examples=[None])
    """A YAML file in inputs/, language -> list of templates with {text}, as in
    pipeline/data/augment/paraphrases.yaml; null: these, made for questions and requests."""

    @model_validator(mode="after")
    def _changes_are_seen(self) -> "Settings":
        from pathlib import Path

        from pipeline.data.sources._inputs import require_inputs

        if self.templates is not None:
            require_inputs(Path(self.templates).parent)
        return self


def build(settings: Settings, context: Context) -> "Paraphrase":
    """The augmentation. Raises UserError for templates that are missing or faulty."""
    from pipeline.data.sources import _prompts
    from pipeline.paths import PACKAGE

    own = PACKAGE / "data/augment" / "paraphrases.yaml"
    path = Path(settings.templates) if settings.templates is not None else own
    return Paraphrase(_prompts.read_lists(path, "text", f"{context.where}.templates"), context)


@dataclass(frozen=True)
class Paraphrase:
    """A template drawn for each text."""

    templates: dict[str, list[str]]
    context: Context

    def texts(self, originals: Iterable[Original]) -> Iterator[Changed]:
        """Texts in templates; None for a language without templates."""
        for original in originals:
            templates = self.templates.get(original.language, [])
            if not templates:
                yield None
                continue
            drawn = templates[int(self.context.draws("paraphrase", original).random() * len(templates))]
            before, _, after = drawn.partition("{text}")
            yield f"{before}{original.text}{after}"
