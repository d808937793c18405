"""Validation of a tokenizer.json of unknown origin: form of its entries, a model that gives equal ids on every call."""

from collections.abc import Mapping
from typing import Any

from pipeline.errors import UserError
from pipeline.foreign import AGAIN, shown, whole
from pipeline.tokenizer.library import kind_of

MOST_IDS = 1 << 24
"""Bound of ids; the largest published vocabularies have a few hundred thousand."""
MODELS = ("BPE", "Unigram", "WordLevel", "WordPiece")
"""The models of the tokenizers library."""


def require_tokens(raw: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    """The added tokens of a tokenizer.json in the order of their ids.

    Raises:
        UserError: an entry of another form than expected, or an id of two tokens; names `name` and the entry.
    """
    _require_types(raw, name)
    model, added = raw["model"], raw.get("added_tokens") or []
    _require_model(model, name)
    vocab = _pieces(model.get("vocab"), name) if kind_of(model) == "Unigram" else _tokens(model.get("vocab"), name)
    if kind_of(model) == "BPE":
        _require_merges(model.get("merges"), name)
    added_ids = _added_ids(added, name)
    clashes = {number: token for token, number in vocab.items() if added_ids.get(number, token) != token}
    for number, token in clashes.items():
        raise UserError(f"{name}: id {number} is that of {shown(token)} and {shown(added_ids[number])}; {AGAIN}")
    return sorted(added, key=lambda token: token["id"])


def _require_types(raw: Mapping[str, Any], name: str) -> None:
    for key, kind in (("model", dict), ("added_tokens", list), ("pre_tokenizer", dict), ("normalizer", dict)):
        value = raw.get(key)
        if not isinstance(value, kind) and (value is not None or key == "model"):
            raise UserError(
                f"{name}: not a tokenizer.json of the tokenizers library: {key} is {shown(value)}, expected "
                f"{'a list' if kind is list else 'an object'}; {AGAIN}"
            )


def _require_model(model: Mapping[str, Any], name: str) -> None:
    """Raises UserError for a model that the library does not know, or that gives other ids from call to call."""
    if kind_of(model) not in MODELS:
        raise UserError(f"{name}: model.type is {shown(kind_of(model))}; one of: {', '.join(MODELS)}; {AGAIN}")
    if model.get("dropout"):
        raise UserError(
            f"{name}: model.dropout is {shown(model['dropout'])}, so ids change from call to call; expected null or 0: "
            "remove it from a copy of the folder"
        )


def _tokens(vocab: Any, name: str) -> dict[str, int]:
    if not isinstance(vocab, dict) or not vocab:
        raise UserError(f"{name}: model.vocab is {shown(vocab)}, expected an object {{token: id}}; {AGAIN}")
    for token, number in vocab.items():
        whole(number, f"{name}: model.vocab: the id of {shown(token)}", MOST_IDS - 1, 0)
    return vocab


def _pieces(vocab: Any, name: str) -> dict[str, int]:
    """Piece -> id of a Unigram model's vocabulary, a list of [piece, score]."""
    if not isinstance(vocab, list) or not vocab:
        raise UserError(f"{name}: model.vocab is {shown(vocab)}, expected a list of [piece, score]; {AGAIN}")
    for piece in vocab:
        if not isinstance(piece, list) or len(piece) != 2 or not isinstance(piece[0], str):
            raise UserError(f"{name}: model.vocab has {shown(piece)}, expected [piece, score]; {AGAIN}")
    return {piece[0]: number for number, piece in enumerate(vocab)}


def _require_merges(merges: Any, name: str) -> None:
    if not isinstance(merges, list):
        raise UserError(f"{name}: model.merges is {shown(merges)}, expected a list of pairs; {AGAIN}")
    for merge in merges:
        pair = merge.split(" ") if isinstance(merge, str) else merge
        if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(half, str) and half for half in pair):
            raise UserError(f"{name}: model.merges has {shown(merge)}, expected two tokens; {AGAIN}")


def _added_ids(added: list[Any], name: str) -> dict[int, str]:
    """Id -> added token."""
    ids: dict[int, str] = {}
    for token in added:
        if not isinstance(token, dict) or not isinstance(token.get("content"), str) or not token["content"]:
            raise UserError(f"{name}: added_tokens has {shown(token)}, expected content and id; {AGAIN}")
        number = whole(token.get("id"), f"{name}: added_tokens: the id of {shown(token['content'])}", MOST_IDS - 1, 0)
        if ids.setdefault(number, token["content"]) != token["content"]:
            raise UserError(
                f"{name}: id {number} is that of {shown(token['content'])} and {shown(ids[number])}; {AGAIN}"
            )
    return ids
