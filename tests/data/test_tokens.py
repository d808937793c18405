"""Documents to ids: if these fail, every later stage reads wrong tokens, or a vocabulary has seen held-out
text."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import files
from pipeline.config.params import Split, Tokenize
from pipeline.data.placement import placement
from pipeline.data.records import SCHEMAS, record_id, schema
from pipeline.data.split import resolve
from pipeline.data.tokens import INDEX, describe, tokenize
from pipeline.errors import UserError
from pipeline.tokenizer import Tokenizer
from pipeline.tokenizer.adopted import pin
from pipeline.tokenizer.utf8 import Utf8

SPLIT = Split(by="record", seed=1, validation=0.2, test=0.2)


def method(name: str = "train", **fields: Any) -> Tokenize:
    """The `tokenize` section; what is not given is null."""
    given = {"vocab_size": None, "pattern": None, "path": None, "sha256": None}
    if name == "train":
        given |= {"vocab_size": 320, "pattern": "gpt2"}
    return Tokenize(method=name, **given | fields)


def documents(path: Path, texts: list[str], pinned: dict[int, str] | None = None, group: int = 64) -> Path:
    """A documents.parquet; `pinned` by row."""
    rows = [
        {
            "id": record_id("documents", text),
            "source": "world" if i % 2 else "files",
            "language": ("tr", "en")[i % 2],
            "split": (pinned or {}).get(i),
            "origin": f"row {i}",
            "text": text,
            "bits": None if i % 3 else i / 2,
        }
        for i, text in enumerate(texts)
    ]
    pq.write_table(pa.Table.from_pylist(rows, SCHEMAS["documents"]), path, row_group_size=group)
    return path


def texts(n: int = 700) -> list[str]:
    """More documents than are encoded at a time, one of them empty."""
    line = "{}. gün, ışıklı köyde {} kişi çay içti; they're {} in all.\n"
    return [*(line.format(i, i * 7919 % 101, i % 13) for i in range(n)), ""]


def test_tokenize_writes_ids_and_index_of_every_document(tmp_path: Path) -> None:
    """Training would read across documents, or another document than the index says."""
    given = texts()
    source = documents(tmp_path / "documents.parquet", given, {0: "test", 1: "train"})
    summary = tokenize(method(), SPLIT, source, tmp_path / "tokens")
    meta = files.read_json(tmp_path / "tokens/meta.json")
    ids = np.memmap(tmp_path / "tokens/ids.bin", dtype="<u2", mode="r")
    index = pq.read_table(tmp_path / "tokens/index.parquet")
    vocabulary = Tokenizer.load(tmp_path / "tokens/tokenizer")

    assert meta == {
        "dtype": "uint16",
        "vocab_size": 320,
        "n_documents": len(given),
        "n_tokens": len(ids),
        "end_of_text": vocabulary.end_of_text,
    }
    assert meta.items() <= summary.items()
    assert index.schema.equals(INDEX)
    place = 0
    raw = pq.read_table(source).to_pylist()
    for row, record in zip(index.to_pylist(), raw, strict=True):
        assert {key: row[key] for key in ("id", "source", "language", "bits")}.items() <= record.items()
        assert row["split"] == resolve(record["id"], record["split"], SPLIT)
        assert row["start"] == place
        assert row["bytes"] == len(record["text"].encode("utf-8"))
        place += row["length"]
        *body, end = ids[row["start"] : place].tolist()
        assert end == vocabulary.end_of_text
        assert vocabulary.decode(body) == record["text"]
    assert place == len(ids)


def test_tokenize_trains_on_the_training_split_only(tmp_path: Path) -> None:
    """Scores on held-out text would be flattered by a vocabulary that has seen it."""
    pinned = dict.fromkeys(range(701), "train") | {i: ("validation", "test")[i % 2] for i in range(300)}
    seen = texts()
    for name, secret in (("a", "zqzqzqzq "), ("b", "xwxwxwxw ")):
        given = [secret * 200 if i < 300 else text for i, text in enumerate(seen)]
        source = documents(tmp_path / f"{name}.parquet", given, pinned)
        tokenize(method(), SPLIT, source, tmp_path / name)
    assert files.sha256_of(tmp_path / "a/tokenizer") == files.sha256_of(tmp_path / "b/tokenizer")


def test_tokenize_gives_equal_bytes_for_equal_documents(tmp_path: Path) -> None:
    """dvc.lock would change from run to run, and everything after it run again."""
    for name in "ab":
        source = documents(tmp_path / f"{name}.parquet", texts())
        tokenize(method(), SPLIT, source, tmp_path / name)
    assert files.sha256_of(tmp_path / "a") == files.sha256_of(tmp_path / "b")


def test_tokenize_writes_32_bit_ids_for_a_large_vocabulary(tmp_path: Path) -> None:
    """Ids above 65,535 would wrap around and become other tokens, silently."""
    import base64

    pairs = [bytes([i // 256, i % 256]) for i in range(1 << 16)]
    tokens = [bytes([i]) for i in range(256)] + pairs
    ranks = b"".join(base64.b64encode(token) + b" %d\n" % i for i, token in enumerate(tokens))
    (tmp_path / "ranks.tiktoken").write_bytes(ranks)
    source = documents(tmp_path / "documents.parquet", ["ığ ığ", "çok iyi"])
    sha256 = files.sha256_of(tmp_path / "ranks.tiktoken")
    settings = method("ranks", pattern="gpt2", path=str(tmp_path / "ranks.tiktoken"), sha256=sha256)
    tokenize(settings, SPLIT, source, tmp_path / "out")
    ids = np.fromfile(tmp_path / "out/ids.bin", dtype="<u4")
    assert files.read_json(tmp_path / "out/meta.json")["dtype"] == "uint32"
    assert ids.max() == files.read_json(tmp_path / "out/meta.json")["end_of_text"] == len(tokens)
    text = Tokenizer.load(tmp_path / "out/tokenizer").decode(ids)
    assert text == "ığ ığ<|endoftext|>çok iyi<|endoftext|>"


def test_tokenize_requires_a_pinned_vocabulary_of_the_user(tmp_path: Path) -> None:
    """Lost otherwise: the file is edited, `dvc status` says up to date, and the ids are those of the old one."""
    source = documents(tmp_path / "documents.parquet", ["ığ ığ", "çok iyi"])
    tokenize(method("train", vocab_size=270, pattern="gpt2"), SPLIT, source, tmp_path / "made")
    folder = tmp_path / "own"
    (tmp_path / "made/tokenizer").replace(folder)
    with pytest.raises(UserError, match=r"sha256 is null; DVC does not watch .*own.* write [0-9a-f]{64}") as error:
        tokenize(method("folder", path=str(folder)), SPLIT, source, tmp_path / "out")
    sha256 = str(error.value)[-64:]
    tokenize(method("folder", path=str(folder), sha256=sha256), SPLIT, source, tmp_path / "out")
    assert (tmp_path / "out/ids.bin").is_file()


def test_tokenize_extends_a_vocabulary_by_the_training_split(tmp_path: Path) -> None:
    """New tokens learned from held-out text would flatter it; without a pin DVC would not notice another base."""
    made = texts()
    pinned = dict.fromkeys(range(701), "train") | dict.fromkeys(range(1, 701, 2), "test")
    given = [text.replace("gün", "qwqw") if i % 2 else text.upper() for i, text in enumerate(made)]
    source = documents(tmp_path / "documents.parquet", given, pinned)
    tokenize(method("train", vocab_size=270), SPLIT, documents(tmp_path / "a.parquet", made[:20]), tmp_path / "base")
    folder = tmp_path / "base/tokenizer"
    (folder / "tohum-tokenizer.json").unlink()
    with pytest.raises(UserError, match=r"sha256 is null; DVC does not watch"):
        tokenize(method("extend", vocab_size=300, path=str(folder)), SPLIT, source, tmp_path / "out")
    settings = method("extend", vocab_size=300, path=str(folder), sha256=pin(folder))
    assert tokenize(settings, SPLIT, source, tmp_path / "out")["vocab_size"] == 300
    extended, base = Tokenizer.load(tmp_path / "out/tokenizer"), Tokenizer.load(folder)
    assert extended.special == base.special
    assert len(extended.encode("ÇAY İÇTI")) < len(base.encode("ÇAY İÇTI"))
    assert not any("qw" in extended.decode([number]) for number in extended.parts)
    ids = np.fromfile(tmp_path / "out/ids.bin", dtype="<u2")
    assert ids.max() >= base.vocab_size
    assert not set(ids.tolist()) & (set(extended.special.values()) - {extended.end_of_text})


def test_tokenize_characters_cover_held_out_documents(tmp_path: Path) -> None:
    """The character benchmark would stop at a letter that stands in one held-out line only."""
    given = ["abc", "abd", "ab$"]
    source = documents(tmp_path / "documents.parquet", given, {0: "train", 1: "train", 2: "test"})
    assert tokenize(method("characters"), SPLIT, source, tmp_path / "out")["vocab_size"] == 5 + 6


def test_tokenize_counts_words_by_language(tmp_path: Path) -> None:
    """Without it, a vocabulary unfit for a language is not noticed."""
    source = documents(tmp_path / "documents.parquet", ["ab ab ab", "zz"] * 40, dict.fromkeys(range(80), "train"))
    summary = tokenize(method(vocab_size=1000), SPLIT, source, tmp_path / "out")
    assert summary["tokens_per_word"] == {"en": 1.0, "tr": 1.0}
    assert summary["bytes_per_token"] == pytest.approx(10 / 4)
    said = describe(summary, method(vocab_size=1000))
    assert "1,000 asked" in said
    assert "en 1.00, tr 1.00" in said


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (method(vocab_size=None), "tokenize.vocab_size is null; method train needs it"),
        (method("folder"), "tokenize.path is null; method folder needs it"),
        (method("extend", path="x"), "tokenize.vocab_size is null; method extend needs it"),
        (method("gpt2", vocab_size=2048), "tokenize.vocab_size is 2048; with method gpt2 it is null"),
        (method("characters", path="x"), "tokenize.path is 'x'; with method characters it is null"),
        (method(vocab_size=200), "tokenize.vocab_size is 200"),
        (method("folder", path="nowhere"), "nowhere/tokenizer.json: no such file"),
    ],
)
def test_tokenize_refuses_settings_that_do_not_fit_the_method(tmp_path: Path, settings: Tokenize, message: str) -> None:
    """A setting would be ignored in silence; and nothing half-written may stay, nor what stood there be
    lost."""
    source = documents(tmp_path / "documents.parquet", texts(20))
    tokenize(method(), SPLIT, source, tmp_path / "out")
    before = files.sha256_of(tmp_path / "out")
    with pytest.raises(UserError, match=message.replace("(", r"\(")):
        tokenize(settings, SPLIT, source, tmp_path / "out")
    assert files.sha256_of(tmp_path / "out") == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["documents.parquet", "out"]


def test_tokenize_refuses_an_empty_file(tmp_path: Path) -> None:
    """An empty corpus would surface as a strange error in training."""
    source = documents(tmp_path / "documents.parquet", [])
    with pytest.raises(UserError, match="0 documents"):
        tokenize(method(), SPLIT, source, tmp_path / "out")
    source = documents(tmp_path / "documents.parquet", ["a", "b"], {0: "test", 1: "validation"})
    with pytest.raises(UserError, match="no text to train on"):
        tokenize(method(), SPLIT, source, tmp_path / "out")
    with pytest.raises(UserError, match="no such file"):
        tokenize(method(), SPLIT, tmp_path / "missing.parquet", tmp_path / "out")
    (tmp_path / "text.parquet").write_text("not parquet", encoding="utf-8")
    with pytest.raises(UserError, match="not readable as parquet"):
        tokenize(method(), SPLIT, tmp_path / "text.parquet", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_tokenize_leaves_no_file_on_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A half-written corpus would be trained on."""
    source = documents(tmp_path / "documents.parquet", texts())

    def full(self: Tokenizer, texts: Utf8) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Tokenizer, "encode_utf8", full)
    with pytest.raises(OSError, match="No space"):
        tokenize(method(), SPLIT, source, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["documents.parquet"]


@pytest.mark.parametrize("by", ["group", "time"])
def test_tokenize_copies_added_columns_and_splits_as_the_samples_stage_does(tmp_path: Path, by: Any) -> None:
    """Otherwise the vocabulary learns from held-out documents."""
    source = documents(tmp_path / "plain.parquet", texts(60))
    rows = pq.read_table(source).to_pylist()
    for i, row in enumerate(rows):
        row |= {"group": f"g{i % 30}", "time": f"2024-01-{i % 20 + 1:02}T00:00:00Z", "region": None if i % 2 else "ege"}
    whole = schema("documents", ["group", "time", "region"])
    pq.write_table(pa.Table.from_pylist(rows, schema=whole), tmp_path / "documents.parquet")
    split = SPLIT.model_copy(update={"by": by})
    tokenize(method("characters"), split, tmp_path / "documents.parquet", tmp_path / "tokens")
    index = pq.read_table(tmp_path / "tokens/index.parquet")
    assert index.schema.names == [*INDEX.names, "group", "time", "region"]
    for name in ("group", "time", "region"):
        assert index[name].to_pylist() == [row[name] for row in rows]
    places = placement(tmp_path / "documents.parquet", split)
    assert index["split"].to_pylist() == places.names(0, len(places)).to_pylist()
    assert len(set(index["split"].to_pylist())) == 3
