"""The chain of decisions: every edit, drop, reordering and truncation of its stored texts is found.

Lost otherwise: a model serves that nobody approved, or a decision is denied that somebody made.
"""

import json
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from pipeline.config.review import Review
from pipeline.errors import UserError
from pipeline.registry import identity, ledger, signing
from pipeline.registry.ledger import Anchor, Chain, Entry

MODEL = "tohum-spam"
DECISIONS = [("approve", 1), ("reject", 2), ("approve", 3), ("approve", 4), ("roll back", 3), ("approve", 5)]


def entry(before: Chain, action: str, version: int, **changed: object) -> Entry:
    """The next entry of a chain."""
    made = Entry(
        n=len(before.entries) + 1, model=before.model, action=action, version=str(version),  # type: ignore[arg-type]
        version_sha256=ledger.sha256_of(f"version {version}"), who="ada", identity="login",
        when="2026-11-29T12:00:00+00:00", why=f"iyi: ğ “{version}”", despite="", evaluated_sha256=None,
        figures={"accuracy": 0.5 + version / 100, "loss_nats": float("nan")}, before=before.head,
        policy={"outcome": "met", "rules": [{"rule": "gates", "state": "pass", "sentence": "x" * 11000}]},
    )  # fmt: skip
    return replace(made, **changed).sealed()  # type: ignore[arg-type]


def stored(model: str = MODEL) -> dict[str, str]:
    """The texts of six decisions."""
    texts: dict[str, str] = {}
    for action, version in DECISIONS:
        texts |= entry(ledger.read(model, texts), action, version).texts()
    return texts


def anchors(texts: dict[str, str], model: str = MODEL) -> list[Anchor]:
    """The heads that git would have noted."""
    return [Anchor(model, e.n, e.hash) for e in ledger.read(model, texts).entries]


def test_read_gives_the_entries_and_the_champions_in_force() -> None:
    texts = stored() | stored("other")
    chain = ledger.read(MODEL, texts, anchors(texts) + anchors(texts, "other"))
    assert chain.problems == ()
    assert [(e.action, int(e.version)) for e in chain.entries] == DECISIONS
    assert [e.version for e in chain.champions()] == ["1", "3", "5"]
    assert chain.rejection("2") is not None
    assert chain.rejection("5") is None
    assert chain.entries[0].figures == {"accuracy": 0.51, "loss_nats": "nan"}
    assert ledger.models(texts) == ["other", MODEL]
    assert all(len(text) <= ledger.LONGEST for text in texts.values())


def edit(texts: dict[str, str], draw: random.Random) -> None:
    """Changes one character of one text."""
    key = draw.choice(sorted(texts))
    place = draw.randrange(len(texts[key]))
    other = draw.choice([c for c in '01az{}" ğ' if c != texts[key][place]])
    texts[key] = texts[key][:place] + other + texts[key][place + 1 :]


def edit_and_hash_again(texts: dict[str, str], draw: random.Random) -> None:
    """Changes a field of one entry and gives it and all that follow new hashes."""
    entries = ledger.read(MODEL, texts).entries
    first = draw.randrange(len(entries))
    field = draw.choice(["why", "who", "when", "version_sha256", "despite"])
    chain = Chain(MODEL, entries[:first], ())
    for e in entries[first:]:
        changed = replace(e, before=chain.head, **({field: "another"} if e is entries[first] else {})).sealed()
        chain = chain._replace(entries=(*chain.entries, changed))
        texts |= changed.texts()


def drop(texts: dict[str, str], draw: random.Random) -> None:
    """Removes one text: an entry, or a part of the figures that it names."""
    del texts[draw.choice(sorted(texts))]


def drop_and_close_the_gap(texts: dict[str, str], draw: random.Random) -> None:
    """Removes one entry and gives the later ones the numbers before theirs."""
    last = len(DECISIONS)
    for n in range(draw.randrange(1, last), last):
        texts[ledger.entry_key(MODEL, n)] = texts[ledger.entry_key(MODEL, n + 1)]
    del texts[ledger.entry_key(MODEL, last)]


def reorder(texts: dict[str, str], draw: random.Random) -> None:
    """Exchanges two entries."""
    one, other = (ledger.entry_key(MODEL, n) for n in draw.sample(range(1, len(DECISIONS) + 1), 2))
    texts[one], texts[other] = texts[other], texts[one]


def cut_off(texts: dict[str, str], draw: random.Random) -> None:
    """Removes the last entries; the rest is a chain without a fault."""
    for n in range(draw.randrange(1, len(DECISIONS) + 1), len(DECISIONS) + 1):
        del texts[ledger.entry_key(MODEL, n)]


def add(texts: dict[str, str], draw: random.Random) -> None:
    """Adds an entry far beyond the last one, or one of another model under this one's number."""
    chain = ledger.read(MODEL, texts)
    far = replace(entry(chain, "approve", 9), n=len(DECISIONS) + draw.randrange(2, 9)).sealed()
    foreign = entry(chain, "approve", 9, model="other")
    if draw.random() < 0.5:
        texts |= far.texts()
    else:
        texts[ledger.entry_key(MODEL, foreign.n)] = foreign.texts()[ledger.entry_key("other", foreign.n)]


CHANGES = [edit, edit_and_hash_again, drop, drop_and_close_the_gap, reorder, cut_off, add]


@pytest.mark.parametrize("change", CHANGES)
def test_read_finds_every_change_of_the_stored_texts(change: Callable[[dict[str, str], random.Random], None]) -> None:
    """150 of each of seven kinds: 1,050 changes, all found."""
    texts = stored()
    heads = anchors(texts)
    missed = []
    for number in range(150):
        changed = dict(texts)
        change(changed, random.Random(number))
        assert changed != texts
        if not ledger.read(MODEL, changed, heads).problems:
            missed.append(number)
    assert missed == []


def test_read_needs_an_anchor_to_find_a_truncation() -> None:
    """Why heads are noted outside the store: without one, the shortened chain looks whole."""
    texts = stored()
    heads = anchors(texts)
    cut_off(texts, random.Random(1))
    assert ledger.read(MODEL, texts).problems == ()
    (problem, *_) = ledger.read(MODEL, texts, heads[-1:]).problems
    assert "the chain was cut off" in problem


def test_read_finds_a_roll_back_to_another_version_than_the_champion_before() -> None:
    texts = stored()
    texts |= entry(ledger.read(MODEL, texts), "roll back", 2).texts()
    assert "of champions before version 3 was it" in ledger.read(MODEL, texts).problems[0]


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"n":1}', "[" * 100_000, '"\\ud800"'])
def test_read_explains_an_entry_that_is_none(text: str) -> None:
    texts = stored()
    texts[ledger.entry_key(MODEL, 2)] = text
    assert any(problem.startswith("entry 2 ") for problem in ledger.read(MODEL, texts).problems)


def test_entry_refuses_a_reason_that_the_store_would_cut_off() -> None:
    with pytest.raises(UserError, match=r"--reason and --despite: 7000 characters are too many .* shorten them by"):
        entry(Chain(MODEL, (), ()), "approve", 1, why="x" * 7000).texts()
    with pytest.raises(UserError, match="no valid Unicode"):
        entry(Chain(MODEL, (), ()), "approve", 1, why="\udce9")


@pytest.mark.parametrize(("one", "other"), [("a b", "a:20b"), ("a~", "a%7E"), ("ğ", "%C4%9F"), ("a.b", "a%2Eb")])
def test_key_of_gives_different_names_different_keys(one: str, other: str) -> None:
    assert ledger.key_of(one) != ledger.key_of(other)
    assert "/" not in ledger.key_of(one) + ledger.key_of(other)


def write_key(path: Path, key: ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey) -> Path:
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))
    path.chmod(0o600)
    return path


@pytest.fixture
def key(tmp_path: Path) -> Path:
    return write_key(tmp_path / "id_ed25519", ed25519.Ed25519PrivateKey.generate())


def signed(key: Path, **changed: object) -> Entry:
    """An entry that the holder of a key has signed."""
    signer = signing.Signer(key)
    unsigned = entry(
        Chain(MODEL, (), ()), "approve", 1, identity="signature", who=f"ada, {signing.fingerprint(signer.public)}",
        key=signer.public, **changed,
    )  # fmt: skip
    return replace(unsigned, signature=signer.sign(unsigned.hash))


def test_read_takes_a_signed_entry_and_no_forged_one(key: Path, tmp_path: Path) -> None:
    """Broken on purpose: a signature taken off, of another entry, by another key, and a foreign name over one's key."""
    good = signed(key)
    assert ledger.read(MODEL, good.texts()).problems == ()
    other = write_key(tmp_path / "other", ed25519.Ed25519PrivateKey.generate())
    forged = {
        "signature that is not of its key": [
            replace(good, signature=""),
            replace(good, signature=signed(key, why="another").signature),
            replace(good, signature=signed(other).signature),
            replace(good, signature="no base64"),
        ],
        "but is signed by SHA256:": [_renamed(good, key)],
        "says that it has none": [replace(good, identity="login").sealed()],
    }
    for reason, entries in forged.items():
        for bad in entries:
            (problem,) = ledger.read(MODEL, bad.texts()).problems
            assert reason in problem, bad


def _renamed(good: Entry, key: Path) -> Entry:
    """The entry in the name of another signer, signed by the same key."""
    renamed = replace(good, who="grace, SHA256:another").sealed()
    return replace(renamed, signature=signing.Signer(key).sign(renamed.hash))


def review(identity: str = "any", signers: dict[str, str] | None = None) -> Review:
    policy = {"better": [], "not_worse": {}, "max_slice_loss": {}, "risks": {}}
    fields = {"policy": policy, "identity": identity, "signing": None, "signers": signers or {}, "anchor": "print"}
    return Review.model_validate(fields)


def test_doubt_names_a_signature_by_nobody_in_signers(key: Path, tmp_path: Path) -> None:
    good, public = signed(key), signing.Signer(key).public
    other = signing.Signer(write_key(tmp_path / "other", ed25519.Ed25519PrivateKey.generate())).public
    assert identity.doubt(review(), good) == identity.doubt(review(signers={"ada": public}), good) == ""
    assert "the key of nobody in review.signers" in identity.doubt(review(signers={"ada": other}), good)
    assert "calls grace ada" in identity.doubt(review(signers={"grace": public}), good)


def test_doubt_names_an_unverified_author_where_a_proof_is_needed(key: Path) -> None:
    unknown = entry(Chain(MODEL, (), ()), "approve", 1, identity="unverified", who="unverified: root")
    assert identity.doubt(review(), unknown) == ""
    assert "review.identity needs a login or a signature" in identity.doubt(review("verified"), unknown)
    assert identity.doubt(review("verified"), signed(key)) == ""
    assert identity.doubt(review("verified"), entry(Chain(MODEL, (), ()), "approve", 1)) == ""


def test_signer_explains_a_key_that_it_cannot_use(key: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nothing: No such file .*ssh-keygen -t ed25519"):
        signing.Signer(tmp_path / "nothing")
    with pytest.raises(UserError, match="is no Ed25519 key"):
        signing.Signer(write_key(tmp_path / "ec", ec.generate_private_key(ec.SECP256R1())))
    text = tmp_path / "text"
    text.write_text("hello")
    text.chmod(0o600)
    with pytest.raises(UserError, match="expected an OpenSSH private key"):
        signing.Signer(text)
    key.chmod(0o644)
    with pytest.raises(UserError, match="other users may read it; chmod 600"):
        signing.Signer(key)


def test_fingerprint_is_that_of_ssh_keygen(key: Path, tmp_path: Path) -> None:
    import shutil
    import subprocess

    if shutil.which("ssh-keygen") is None:
        pytest.skip("needs ssh-keygen")
    public = tmp_path / "id.pub"
    public.write_text(signing.Signer(key).public)
    shown = subprocess.run(["ssh-keygen", "-lf", public], capture_output=True, text=True, check=True).stdout
    assert signing.fingerprint(public.read_text()) == shown.split()[1]


def test_present_names_the_signer_and_without_a_key_nobody(key: Path) -> None:
    """git's identity and the computer's user are no proof."""
    public = signing.Signer(key).public
    mark = signing.fingerprint(public)
    assert identity.present("sqlite:///x.db", str(key), {"ada": public})[:2] == (f"ada, {mark}", "signature")
    assert identity.present("sqlite:///x.db", str(key), {})[:2] == (mark, "signature")
    who, how, signer = identity.present("sqlite:///x.db", None, {})
    assert (who.startswith("unverified: "), how, signer) == (True, "unverified", None)


def test_json_of_an_entry_can_be_written() -> None:
    content = entry(Chain(MODEL, (), ()), "approve", 1).json()
    assert json.loads(json.dumps(content, allow_nan=False)) == content
