"""Kind of the records and the columns of each role, by the columns' names and content, or by the user's word."""

from collections.abc import Callable

from pipeline.config.recipe import Kind
from pipeline.studies.guess import answers, judged, texts
from pipeline.studies.guess.columns import Columns
from pipeline.studies.guess.picker import Picker, Roles, Wishes

_CHOICES: dict[Kind, tuple[Callable[[Picker], Roles | None], ...]] = {
    "preferences": (judged.choices, answers.preferences),
    "ratings": (judged.thumbs,),
    "instructions": (answers.messages, answers.pairs, answers.written_messages, answers.named_pair),
    "labelled": (texts.labelled,),
    "documents": (texts.documents,),
}
"""Choices of each kind in their order; each gives None where the columns are not of that kind."""


def choose(columns: Columns, wishes: Wishes, shown: str) -> Roles:
    """The kind and its columns.

    Args:
        columns: statistics of the columns.
        wishes: settings of the user.
        shown: the file's name in errors and questions.

    Raises:
        UserError: a column that the user names is not there, nothing looks like text, or several columns fit a role
            equally well and there is no terminal to ask on.
    """
    picker = Picker(columns, wishes, shown)
    order = tuple(_CHOICES)
    if wishes.kind is not None:
        order = (wishes.kind,)
    elif wishes.label is not None:
        order = ("labelled",)
    elif wishes.text is not None:
        order = ("labelled", "documents")
    for kind in order:
        for choice in _CHOICES[kind]:
            if (roles := choice(picker)) is not None:
                return roles
    picker.refuse(f"no column looks like {wishes.kind or 'text'}")
