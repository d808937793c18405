"""The ledger of decisions: a hash chain of entries per registered model, read from and written as plain texts.

An entry is one decision of a person: approve, reject, roll back, or adopt (a champion from before there was a ledger).
It holds the hash of the entry before it, as RFC 6962 logs and git do, so an edit, a drop or a reordering breaks the
chain. A chain alone cannot show that its end was cut off: the heads noted outside the store (anchors.py) show that.

Texts are stored under keys, a mapping that only grows (ledger_store.py: params of one MLflow run):

    <model>/000001            the entry: canonical JSON with its hash and signature
    <model>/seen/<sha256>/0   the figures and the policy's result that the person saw, canonical JSON in parts
"""

import hashlib
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, NamedTuple, get_args
from urllib.parse import quote

from pipeline.errors import UserError
from pipeline.registry import signing

Action = Literal["adopt", "approve", "reject", "roll back"]
Identity = Literal["login", "signature", "unverified"]
START = "0" * 64
"""`before` of the first entry."""
LONGEST = 6000
"""Characters of a stored text; MLflow cuts longer params off without an error."""
_PART = 5000
_HEX = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Entry:
    """One decision about one version of a registered model."""

    n: int
    """Number in the model's chain, from 1."""
    model: str
    """Name of the registered model."""
    action: Action
    """The decision; `roll back` names the version that is the champion again."""
    version: str
    """Number of the version decided on."""
    version_sha256: str
    """SHA-256 over all files of that version."""
    who: str
    """MLflow's login, the signer, or `unverified: <os user>`."""
    identity: Identity
    """How `who` is known: named by MLflow's server, by a signature of this entry, or not at all."""
    when: str
    """UTC, ISO 8601, seconds."""
    why: str
    """The reason that the person gave."""
    despite: str
    """Why it is the champion although the policy was not met or the version was rejected before; else empty."""
    evaluated_sha256: str | None
    """SHA-256 of the model folder that was evaluated; None for a model that no graph of this project made."""
    figures: Mapping[str, Any]
    """Metrics of the version, as in its metrics.json."""
    policy: Mapping[str, Any]
    """Result of the policy (policy.py); {} where none was computed."""
    key: str = ""
    """The signer's public key in OpenSSH's form; empty without a signature."""
    before: str = START
    """Hash of the entry before."""
    hash: str = ""
    """SHA-256 of the canonical JSON of all of the above; figures and policy by their hash."""
    signature: str = ""
    """Ed25519 signature of the hash, base64; empty without one."""

    @property
    def by(self) -> str:
        """The person, and how that is known."""
        return self.who if self.identity == "unverified" else f"{self.who} ({self.identity})"

    def seen(self) -> str:
        """Figures and policy as one text."""
        return canonical({"figures": plain(self.figures), "policy": plain(self.policy)})

    def head(self) -> dict[str, Any]:
        """The hashed fields, with figures and policy replaced by their SHA-256."""
        content = {field.name: getattr(self, field.name) for field in fields(self)}
        for name in ("figures", "policy", "hash", "signature"):
            del content[name]
        return content | {"seen_sha256": sha256_of(self.seen())}

    def sealed(self) -> "Entry":
        """The same entry with its hash."""
        return replace(self, hash=sha256_of(canonical(self.head())))

    def texts(self) -> dict[str, str]:
        """The texts to store, the entry's own last.

        Raises:
            UserError: a reason too long to be stored, or that is no Unicode text.
        """
        seen, key = self.seen(), key_of(self.model)
        parts = [seen[start : start + _PART] for start in range(0, len(seen), _PART)]
        texts = {f"{key}/seen/{sha256_of(seen)}/{part}": text for part, text in enumerate(parts)}
        own = canonical(self.head() | {"hash": self.hash, "signature": self.signature})
        if len(own) > LONGEST:
            raise UserError(
                f"--reason and --despite: {len(self.why) + len(self.despite)} characters are too many for "
                f"an entry of the ledger; shorten them by {len(own) - LONGEST}"
            )
        return texts | {entry_key(self.model, self.n): own}

    def json(self) -> dict[str, Any]:
        """All fields, for a page or a program."""
        content = {field.name: getattr(self, field.name) for field in fields(self)}
        return content | {"figures": plain(self.figures), "policy": plain(self.policy)}


class Anchor(NamedTuple):
    """The head of a chain as it was noted outside the store."""

    model: str
    n: int
    hash: str


class Chain(NamedTuple):
    """The entries of one model that could be read, and the problems found; an intact chain has none."""

    model: str
    entries: tuple[Entry, ...]
    problems: tuple[str, ...]

    @property
    def head(self) -> str:
        """Hash of the last entry."""
        return self.entries[-1].hash if self.entries else START

    def champions(self) -> tuple[Entry, ...]:
        """The approvals in force, oldest first: the last is the champion's, the one before is rolled back to."""
        return _walk(self.entries)[0]

    def rejection(self, version: str) -> Entry | None:
        """The rejection of a version, unless it was approved afterwards."""
        about = [entry for entry in self.entries if entry.version == version]
        return about[-1] if about and about[-1].action == "reject" else None


def key_of(model: str) -> str:
    """A registered model's name as the beginning of keys; different names give different keys.

    MLflow allows letters, digits and `_-./: ` in a param's key, and neither `/` nor `:` in a model's name.
    """
    return quote(model, safe="").replace("~", "%7E").replace("%", ":")


def entry_key(model: str, n: int) -> str:
    """The key of an entry."""
    return f"{key_of(model)}/{n:06d}"


def canonical(content: Any) -> str:
    """JSON with sorted keys and no spaces: equal contents give equal texts.

    Raises:
        UserError: a text that is not valid Unicode.
    """
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UserError(f"ledger: {text[error.start - 20 : error.end]!a} is no valid Unicode; write it anew") from None
    return text


def plain(content: Any) -> Any:
    """The content with values that JSON has no form for (NaN, infinity) as texts."""
    if isinstance(content, float) and not math.isfinite(content):
        return str(content)
    if isinstance(content, Mapping):
        return {str(key): plain(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [plain(value) for value in content]
    return content


def sha256_of(text: str) -> str:
    """SHA-256 of a text in UTF-8."""
    return hashlib.sha256(text.encode()).hexdigest()


def models(texts: Iterable[str]) -> list[str]:
    """Keys (`key_of`) of the models with entries among stored texts."""
    return sorted({key.partition("/")[0] for key in texts if re.fullmatch(r"[^/]+/\d+", key)})


def read(model: str, texts: Mapping[str, str], anchors: Sequence[Anchor] = ()) -> Chain:
    """Reads and checks the chain of one model.

    Args:
        model: name of the registered model.
        texts: key -> text, of all models.
        anchors: heads noted outside the store; of other models too.
    """
    pattern = re.compile(re.escape(key_of(model)) + r"/(\d+)")
    numbers = sorted(int(match[1]) for key in texts if (match := pattern.fullmatch(key)))
    entries: list[Entry] = []
    problems = [f"entry {n} is missing" for n in range(1, max(numbers, default=0) + 1) if n not in numbers]
    before: str | None = START
    for n in numbers:
        try:
            entry = _parse(texts.get(entry_key(model, n), ""), key_of(model), texts)
        except ValueError as error:
            problems.append(f"entry {n} {error}")
            before = None
            continue
        entries.append(entry)
        if (entry.n, entry.model) != (n, model):
            problems.append(f"entry {n} says that it is entry {entry.n} of {entry.model}")
        if before is not None and entry.before != before:
            problems.append(f"entry {n} does not follow the entry before it")
        if why := signing.problem(entry):
            problems.append(f"entry {n} {why}")
        before = entry.hash
    problems += _walk(entries)[1]
    hashes = {entry.n: entry.hash for entry in entries}
    for anchor in anchors:
        if anchor.model != model:
            continue
        if anchor.n not in hashes:
            problems.append(f"entry {anchor.n} was noted outside the store and is not in it: the chain was cut off")
        elif hashes[anchor.n] != anchor.hash:
            problems.append(f"entry {anchor.n} is not the one that was noted outside the store")
    return Chain(model, tuple(entries), tuple(dict.fromkeys(problems)))


def _walk(entries: Iterable[Entry]) -> tuple[tuple[Entry, ...], list[str]]:
    """The approvals in force after the entries, and the roll backs that do not fit."""
    stack: list[Entry] = []
    problems = []
    for entry in entries:
        if entry.action in ("approve", "adopt"):
            stack.append(entry)
        elif entry.action == "roll back":
            below = stack[-2] if len(stack) > 1 else None
            if below is None or (below.version, below.version_sha256) != (entry.version, entry.version_sha256):
                expected = "there is none" if below is None else f"version {below.version} was it"
                problems.append(
                    f"entry {entry.n} rolls back to version {entry.version}; of champions before {expected}"
                )
            else:
                stack.pop()
    return tuple(stack), problems


def _parse(text: str, key: str, texts: Mapping[str, str]) -> Entry:
    """An entry from its text. Raises ValueError with the rest of a sentence that begins with the entry's number."""
    try:
        content = json.loads(text)
        written = canonical(content)
    except (ValueError, RecursionError, UserError):
        raise ValueError("is not readable") from None
    if not isinstance(content, dict) or written != text:
        raise ValueError("was edited: its text is not in canonical form")
    expected = {field.name for field in fields(Entry)} - {"figures", "policy"} | {"seen_sha256"}
    if set(content) != expected:
        raise ValueError(f"has other fields: {', '.join(map(str, sorted(set(content) ^ expected)))}")
    if not _is_well_formed(content):
        raise ValueError("has a field of another form")
    seen = content.pop("seen_sha256")
    entry = Entry(**content, **_seen(key, seen, texts))
    if sha256_of(canonical(entry.head())) != entry.hash:
        raise ValueError("was edited: its content does not give its hash")
    return entry


def _is_well_formed(content: Mapping[str, Any]) -> bool:
    kinds = {name: isinstance(value, str) for name, value in content.items()}
    kinds["n"] = type(content["n"]) is int
    kinds["evaluated_sha256"] = content["evaluated_sha256"] is None or isinstance(content["evaluated_sha256"], str)
    return (
        all(kinds.values())
        and content["action"] in get_args(Action)
        and content["identity"] in get_args(Identity)
        and all(_HEX.fullmatch(content[name]) for name in ("hash", "before", "seen_sha256"))
    )


def _seen(key: str, sha256: str, texts: Mapping[str, str]) -> dict[str, Any]:
    """Figures and policy from their parts. Raises ValueError where they do not give their hash."""
    parts: list[str] = []
    while (part := texts.get(f"{key}/seen/{sha256}/{len(parts)}")) is not None:
        parts.append(part)
    seen = "".join(parts)
    if sha256_of(seen) != sha256:
        raise ValueError("has lost the figures and the policy's result, or they were edited")
    content: dict[str, Any] = json.loads(seen)
    return {"figures": content["figures"], "policy": content["policy"]}
