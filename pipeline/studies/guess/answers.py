"""Instructions, conversations and preferences: the columns of questions and answers."""

from pipeline.studies.guess.columns import Column
from pipeline.studies.guess.names import is_language, plain
from pipeline.studies.guess.picker import Picker, Roles, is_meta, says

_PAIRS = (
    ("instruction", "output"),
    ("long", "summary"),
    ("input", "output"),
    ("source", "target"),
    ("input", "target"),
    ("long", "output"),
    ("long", "target"),
)
"""Roles by whose names a question and its answer are told, the surest first."""


def preferences(picker: Picker) -> Roles | None:
    """Columns of a better and a worse answer, by their names, and of their prompt, if it is not in both."""
    chosen, rejected = picker.best("chosen", says), picker.best("rejected", says)
    if chosen is None or rejected is None:
        return None
    columns = {"chosen": chosen.name, "rejected": rejected.name}
    others = {chosen.name, rejected.name}
    prompt = picker.wished(picker.wishes.text) or picker.best("instruction", says, others)
    if prompt is not None and not (prompt.is_conversation and _is_whole(chosen)):
        columns = {"instruction": prompt.name, **columns}
        context = _context(picker, {*others, prompt.name})
        if context is not None and not prompt.is_conversation:
            columns |= {"input": context.name}
    elif prompt is None and not (chosen.is_conversation or chosen.transcripts >= 0.8 * chosen.seen):
        return None
    return Roles("preferences", columns)


def messages(picker: Picker) -> Roles | None:
    """The column whose values are lists of messages that begin with a question or a system message."""
    wished = picker.wished(picker.wishes.text)
    pool = [wished] if wished is not None else list(picker.all.values())
    talks = [column for column in pool if column.is_conversation and _is_whole(column)]
    if wished is None and len(talks) > 1:
        named = [column for column in talks if plain(column.name) in ("messages", "conversations", "conversation")]
        talks = named[:1] or talks
    if not talks:
        return None
    if len(talks) == 1:
        name = talks[0].name
    else:
        name = picker.ask("which column holds the conversations", [column.name for column in talks])
    return Roles("instructions", {"messages": name})


def pairs(picker: Picker) -> Roles | None:
    """Columns of questions and answers by their names; else the two languages of a translation."""
    if picker.wishes.text is not None or picker.wishes.label is not None:
        return None
    for asked, answered in _PAIRS:
        answer = picker.best(answered, says)
        question = picker.best(asked, says, {answer.name} if answer else set())
        if question is None or answer is None:
            continue
        if asked in ("input", "long", "source") and answer.is_label(picker.rows) and picker.wishes.kind is None:
            continue
        columns = {"instruction": question.name, "output": answer.name}
        context = _context(picker, {question.name, answer.name})
        if asked == "instruction" and context is None:
            context = picker.best("long", says, {question.name, answer.name}, most=1000)
        if asked == "instruction" and context is not None and not question.is_conversation:
            columns = {"instruction": question.name, "input": context.name, "output": answer.name}
        return Roles("instructions", columns)
    return _translation(picker)


def written_messages(picker: Picker) -> Roles | None:
    """Conversations as JSON text, as tables hold them."""
    pool = [picker.wished(picker.wishes.text)] if picker.wishes.text is not None else list(picker.all.values())
    written = [c for c in pool if c is not None and c.written >= 0.8 * c.seen > 0]
    return Roles("instructions", {"messages": written[0].name}) if len(written) == 1 else None


def named_pair(picker: Picker) -> Roles | None:
    """With `kind: instructions`: the columns that the user names as text and label, or the only two texts."""
    question, answer = picker.wished(picker.wishes.text), picker.wished(picker.wishes.label)
    if picker.wishes.kind != "instructions":
        return _asked_and_answered(picker)
    texts = [c.name for c in picker.texts() if c not in (question, answer)]
    if question is None and texts:
        asked = picker.ask("which column holds the questions", texts) if len(texts) > 2 - bool(answer) else texts[0]
        question = picker.all[asked]
        texts.remove(asked)
    if answer is None and texts:
        answer = picker.all[picker.ask("which column holds the answers", texts) if len(texts) > 1 else texts[0]]
    if question is None or answer is None:
        return None
    return Roles("instructions", {"instruction": question.name, "output": answer.name})


def _asked_and_answered(picker: Picker) -> Roles | None:
    """Two texts of which one ends in question marks."""
    if picker.wishes.text is not None or picker.wishes.label is not None:
        return None
    texts = [c for c in picker.texts() if not c.is_label(picker.rows) and not is_meta(c)]
    asking = [c for c in texts if c.questions >= 0.7 * c.texts]
    if len(texts) != 2 or len(asking) != 1:
        return None
    other = next(c for c in texts if c is not asking[0])
    told = f"{asking[0].name!r} ends in question marks"
    return Roles("instructions", {"instruction": asking[0].name, "output": other.name}, (told,))


def _translation(picker: Picker) -> Roles | None:
    pair = [c for c in picker.texts() if is_language(c.name)]
    if len(pair) != 2 or len(picker.texts()) > 2:
        return None
    first, second = pair
    told = f"a translation from {first.name} to {second.name}"
    return Roles("instructions", {"instruction": first.name, "output": second.name}, (told,))


def _context(picker: Picker, but: set[str]) -> Column | None:
    """The column of an `input`, which may be empty everywhere."""
    return picker.best("input", lambda c: c.seen == 0 or says(c), but, most=1000)


def _is_whole(column: Column) -> bool:
    """Whether the lists of messages begin with a question, so that they hold the prompt too."""
    return column.is_conversation and column.openings >= 0.8 * (column.conversations + column.written)
