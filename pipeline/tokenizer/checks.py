"""Validation of a tokenizer.json of unknown origin: form of its entries, byte-level BPE, no change of text."""

from collections.abc import Mapping
from typing import Any

from pipeline.errors import UserError
from pipeline.foreign import AGAIN, shown, whole
from pipeline.tokenizer import encoders, vocabulary
from pipeline.tokenizer.pretokenizer import flat

MOST_IDS = 1 << 24
"""Bound of ids; the largest published vocabularies have a few hundred thousand."""


def require_tokens(raw: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    """The added tokens of a tokenizer.json in the order of their ids.

    Raises:
        UserError: an entry of another form than expected, or an id of two tokens; names `name` and the entry.
    """
    _require_types(raw, name)
    model, added = raw["model"], raw.get("added_tokens") or []
    if kind_of(model) != "BPE":
        return []  # `require_byte_level` refuses it and names its type
    vocab = model.get("vocab")
    if not isinstance(vocab, dict) or not vocab:
        raise UserError(f"{name}: model.vocab is {shown(vocab)}, expected an object {{token: id}}; {AGAIN}")
    for token, number in vocab.items():
        whole(number, f"{name}: model.vocab: the id of {shown(token)}", MOST_IDS - 1, 0)
    _require_merges(model.get("merges"), name)
    added_ids = _added_ids(added, name)
    clashes = {number: token for token, number in vocab.items() if added_ids.get(number, token) != token}
    for number, token in clashes.items():
        raise UserError(f"{name}: id {number} is that of {shown(token)} and {shown(added_ids[number])}; {AGAIN}")
    return sorted(added, key=lambda token: token["id"])


def kind_of(model: Mapping[str, Any]) -> Any:
    """`model.type`; older files leave it out, and the tokenizers library then tells BPE by its merges."""
    return model.get("type", "BPE" if "merges" in model else None)


def _require_types(raw: Mapping[str, Any], name: str) -> None:
    for key, kind in (("model", dict), ("added_tokens", list), ("pre_tokenizer", dict), ("normalizer", dict)):
        value = raw.get(key)
        if not isinstance(value, kind) and (value is not None or key == "model"):
            raise UserError(
                f"{name}: not a tokenizer.json of the tokenizers library: {key} is {shown(value)}, expected "
                f"{'a list' if kind is list else 'an object'}; {AGAIN}"
            )


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


def require_byte_level(raw: Mapping[str, Any], name: str) -> None:
    """Raises UserError for a tokenizer.json that is no byte-level BPE or that changes text before encoding."""
    model, steps = raw["model"], flat(raw.get("pre_tokenizer"))
    normalizer = raw.get("normalizer") or {}
    inner = normalizer.get("normalizers", [normalizer]) if normalizer else []
    reasons = [
        (kind_of(model) == "BPE", f"model.type is {shown(kind_of(model))}, expected BPE"),
        (not model.get("byte_fallback"), "it falls back to bytes, as SentencePiece does"),
        (not model.get("dropout"), "it has dropout, so ids change from call to call"),
        (not model.get("continuing_subword_prefix"), "it marks parts of words"),
        (not model.get("end_of_word_suffix"), "it marks ends of words"),
        (any(step["type"] == "ByteLevel" for step in steps), "its pre_tokenizer has no ByteLevel step"),
        (not any(step.get("add_prefix_space") for step in steps), "add_prefix_space alters the text"),
        (all(step.get("type") == "NFC" for step in inner), f"its normalizer changes text: {inner}"),
    ]
    faults = [reason for fine, reason in reasons if not fine]
    letters = set(vocabulary.byte_letters()) if not faults else set()
    strange = [] if faults else [token for token in encoders.ordinary(raw) if not letters.issuperset(token)]
    if strange:
        faults.append(f"token {strange[0]!r} has characters that stand for no byte")
    if not faults and (missing := [letter for letter in sorted(letters) if letter not in model["vocab"]]):
        faults.append(f"{len(missing)} of the 256 bytes have no token, so not every text could be encoded")
    if faults:
        raise UserError(
            f"{name}: cannot be adopted with equal ids: {'; '.join(faults)}; expected a byte-level BPE as of "
            "GPT-2, Llama 3, Qwen or SmolLM2"
        )
