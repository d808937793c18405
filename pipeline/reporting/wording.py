"""Words of the reports' pages and the model card, a table per language (pipeline/reporting/words)."""

from pathlib import Path
from typing import get_args

from pipeline import wording
from pipeline.errors import UserError
from pipeline.wording import Language, Words

__all__ = ["FOLDER", "Language", "Words", "load"]

FOLDER = Path(__file__).parent / "words"
_TABLES: dict[Language, str] = {"en": "en.yaml", "tr": "tr.yaml"}


def load(language: str = "en") -> Words:
    """The words of a language. Raises UserError for a language without a table."""
    known = next((name for name in get_args(Language) if name == language), None)
    if known is None:
        raise UserError(f"params.yaml: report.language is {language!r}; one of: {', '.join(get_args(Language))}")
    return wording.read(FOLDER / _TABLES[known], known)
