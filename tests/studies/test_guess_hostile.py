"""Damaged, mislabelled and malicious files: a guess, or a sentence that names the file; never a traceback."""

import gzip
import io
import json
import random
import tracemalloc
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.errors import UserError
from pipeline.studies.guess import guess
from tests.studies.file_writers import table, xlsx, zipped
from tests.studies.ordinary_files import FILES

ENDINGS = ("csv", "tsv", "txt", "json", "jsonl", "parquet", "arrow", "xlsx", "xls", "zip", "csv.gz", "dat", "")
TWO_LABELS = b"text,label\nmerhaba orada,a\niyi geceler,b\nyine merhaba,a\nson mesaj,b\n"


def outcome(path: Path) -> str:
    """The kind, or the error's text, which quotes an excerpt at most; every other exception is the test's failure."""
    try:
        guessed = guess(path)
    except UserError as error:
        return str(error) if len(str(error)) < 1500 else "an error that quotes content"
    guessed.as_json().encode()
    guessed.block(Path("inputs/file")).encode()
    "\n".join(guessed.sentences).encode()
    return guessed.kind


@pytest.mark.parametrize("ending", ENDINGS)
def test_guess_ends_in_a_sentence_when_a_file_is_no_data(ending: str, tmp_path: Path) -> None:
    contents = [
        b"",
        b"\n",
        b"   ",
        b"x",
        b"{",
        b"[",
        b"{}",
        b"[]",
        b"[[]]",
        b"null",
        b'"',
        b'",',
        b"a,b\n",
        b"a,b\n1,2\n",
        b"\0" * 100,
        bytes(range(256)) * 20,
        random.Random(1).randbytes(5000),
        b"\xef\xbb\xbf",
        b"\xff\xfe",
        b"\xfe\xff\0a",
        b"\xff\xfe\0\0a\0\0\0",
        b"\r\r\r",
        b"PK\x03\x04rest",
        b"PAR1" + b"\0" * 50,
        b"\x1f\x8b\x08" + b"\0" * 50,
        b"ARROW1\0\0" + b"\0" * 30,
        b"\xff\xff\xff\xff" + b"\1" * 40,
        b"\xd0\xcf\x11\xe0" + b"\0" * 600,
        b"%PDF-1.4",
    ]
    name = f"file.{ending}" if ending else "file"
    for content in contents:
        (tmp_path / name).write_bytes(content)
        told = outcome(tmp_path / name)
        assert told in ("documents", "labelled") or name in told, (content[:20], told)


def encrypted() -> bytes:
    data = bytearray(zipped({"a.csv": TWO_LABELS}))
    data[6] |= 1
    data[data.find(b"PK\x01\x02") + 8] |= 1
    return bytes(data)


def compressed_in_an_unknown_way() -> bytes:
    data = bytearray(zipped({"a.csv": TWO_LABELS}))
    data[8] = 99
    data[data.find(b"PK\x01\x02") + 10] = 99
    return bytes(data)


def damaged(data: bytes) -> bytes:
    return data[:-40]


def parquet_of(made: pa.Table) -> bytes:
    out = io.BytesIO()
    pq.write_table(made, out)
    return out.getvalue()


SHEET = xlsx({"S": [["text", "label"], ["merhaba dünya", "a"], ["iyi günler", "b"]]})
HOSTILE = {
    "deep.json": (b"[" * 200_000, "nested too deeply"),
    "deep-object.json": (b'{"a":' * 50_000, "deep-object.json"),
    "deep.jsonl": ((b'{"a":' * 5000 + b"1" + b"}" * 5000 + b"\n") * 3, "deep.jsonl"),
    "surrogates.json": (
        b'[{"text":"\\ud800 merhaba orada","label":"a"},{"text":"iyi ak\\u015famlar","label":"b"}]',
        "labelled",
    ),
    "surrogate-label.jsonl": (
        b'{"text":"merhaba orada","label":"\\ud800"}\n{"text":"iyi geceler","label":"b"}\n' * 4,
        "labelled",
    ),
    "repeated-key.json": (b'[{"text":"a b","text":"c d"}]', "the key 'text' occurs twice"),
    "numbers.jsonl": (b'{"text": NaN}\n{"text": Infinity}\n', "no column looks like text"),
    "digits.jsonl": (b'{"text":"a b c","label":' + b"9" * 6000 + b"}\n" + b'{"text":"a b c","label":1}\n', "d"),
    "open-quote.csv": (b'text,label\n"abc,a\n' + b"x,b\n" * 2000, "labelled"),
    "nul.csv": (TWO_LABELS.replace(b"orada", b"or\0da"), "so it is binary"),
    "header-only.csv": (b"text,label\n", "holds no record"),
    "empty-gz.csv.gz": (gzip.compress(b""), "empty-gz.csv.gz"),
    "cut.csv.gz": (gzip.compress(TWO_LABELS * 100)[:-10], "not a whole gzip file"),
    "no-gzip.csv.gz": (TWO_LABELS, "not a whole gzip file"),
    "packed.csv": (gzip.compress(TWO_LABELS), "is gzip without .gz in its name"),
    "cut.zip": (damaged(zipped({"a.csv": TWO_LABELS})), "not a whole zip archive"),
    "encrypted.zip": (encrypted(), "cannot be unpacked"),
    "unknown.zip": (compressed_in_an_unknown_way(), "cannot be unpacked"),
    "empty.zip": (zipped({}), "empty.zip"),
    "folder.zip": (zipped({"d/": b""}), "holds no file"),
    "slip.zip": (zipped({"../evil.csv": TWO_LABELS}), "holds no file"),
    "nested.zip": (zipped({"in.zip": zipped({"a.csv": TWO_LABELS})}), "in.zip"),
    "kinds.zip": (zipped({"a.csv": TWO_LABELS, "b.jsonl": b"{}"}), "several kinds: .csv, .jsonl"),
    "cut.xlsx": (damaged(SHEET), "cut.xlsx"),
    "half.xlsx": (SHEET[: len(SHEET) // 2], "half.xlsx"),
    "table.csv": (SHEET, "labelled"),
    "text.xlsx": (TWO_LABELS, "labelled"),
    "text.parquet": (TWO_LABELS, "labelled"),
    "picture.csv": (b"\x89PNG\r\n\x1a\n" + b"\1" * 100, "picture.csv"),
    "no-rows.xlsx": (xlsx({"S": []}), "no-rows.xlsx"),
    "only-names.xlsx": (xlsx({"S": [["text", "label"]]}), "holds no record"),
    "word.docx": (zipped({"word/document.xml": b"<x/>"}), "is a Word"),
    "cut.parquet": (damaged(parquet_of(pa.table({"text": ["merhaba dünya"] * 50}))), "not a whole parquet file"),
    "no-rows.parquet": (parquet_of(pa.table({"text": pa.array([], pa.string())})), "holds no record"),
    "twice.parquet": (
        parquet_of(pa.Table.from_arrays([pa.array(["a b"])] * 2, names=["text", "text"])),
        "occur more than once",
    ),
    "odd-types.parquet": (
        parquet_of(
            pa.table(
                {
                    "text": ["merhaba dünya"] * 4,
                    "n": pa.nulls(4),
                    "b": [b"\xff"] * 4,
                    "t": pa.array([2**62] * 4, pa.timestamp("ns")),
                    "m": pa.array([[(1, "a")]] * 4, pa.map_(pa.int64(), pa.string())),
                    "u": pa.array(["x"] * 4, pa.large_string()),
                    "z": pa.array([10**18] * 4, pa.timestamp("us", tz="Europe/Istanbul")),
                }
            )
        ),
        "d",
    ),
    "unreadable-column.parquet": (
        parquet_of(pa.table({"text": ["merhaba dünya"] * 4, "day": pa.array([2**60] * 4, pa.timestamp("ms"))})),
        "documents",
    ),
    "many-columns.csv": (
        (",".join(f"c{k}" for k in range(3000)) + "\n" + (",".join("1" * 3000) + "\n") * 3).encode(),
        "no column",
    ),
    "many-keys.json": (json.dumps([{f"k{j}": "merhaba dünya" for j in range(2000)}] * 2).encode(), "many-keys.json"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_guess_ends_in_a_sentence_when_a_file_is_hostile(name: str, tmp_path: Path) -> None:
    data, expected = HOSTILE[name]
    (tmp_path / name).write_bytes(data)
    assert expected in outcome(tmp_path / name)


def test_guess_reads_a_line_of_10_mb(tmp_path: Path) -> None:
    for name, data in {
        "a.csv": b"text,label\n" + b"x" * 10_000_000 + b",a\nb c,b\nd e,a\nf g,b\n",
        "a.txt": "ışık gölge ".encode() * 800_000,
        "a.jsonl": b'{"text":"' + b"x " * 5_000_000 + b'"}\n{"text":"merhaba orada"}\n',
    }.items():
        (tmp_path / name).write_bytes(data)
        assert outcome(tmp_path / name) in ("labelled", "documents")


def test_guess_bounds_memory_for_archives_that_expand(tmp_path: Path) -> None:
    """A file of a few kilobytes must not take the machine down."""
    blank = b"a" * (64 << 20)
    sheet = io.BytesIO()
    with zipfile.ZipFile(sheet, "w", zipfile.ZIP_DEFLATED) as parts:
        parts.writestr("xl/workbook.xml", b"<workbook/>")
        for number in range(17):
            parts.writestr(f"xl/worksheets/sheet{number}.xml", blank)
    bombs = {
        "bomb.csv.gz": gzip.compress(blank),
        "bomb.zip": zipped({"a.csv": blank}),
        "table.zip": zipped({"a.parquet": b"PAR1" + b"\0" * (200 << 20)}),
        "bomb.xlsx": sheet.getvalue(),
    }
    for name, data in bombs.items():
        (tmp_path / name).write_bytes(data)
    del blank, sheet, data
    tracemalloc.start()
    for name in bombs:
        assert name in outcome(tmp_path / name)
    assert tracemalloc.get_traced_memory()[1] < 300 << 20
    tracemalloc.stop()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    file=st.sampled_from([file for file in FILES if not file.name.startswith(("saved", "folder", "glob", "kaggle"))]),
    seed=st.integers(0, 10**9),
)
def test_guess_never_fails_when_bytes_of_an_ordinary_file_change(file: object, seed: int, tmp_path: Path) -> None:
    draw = random.Random(seed)
    path = file.make(tmp_path)
    data = bytearray(path.read_bytes())
    for _ in range(draw.randint(1, 4)):
        at = draw.randrange(len(data) + 1)
        end = min(len(data), at + draw.randint(1, 40))
        odd = [b'"', b"\n", b"\0", b",", b"{", b"]", b"\\", b"\r", b"\xff", b";", b"null", draw.randbytes(7)]
        data[at:end] = draw.choice([b"", draw.choice(odd), bytes(data[: end - at]), data[at:end] + draw.choice(odd)])
        if draw.random() < 0.2:
            del data[at:]
    path.write_bytes(bytes(data))
    outcome(path)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    ending=st.sampled_from(ENDINGS),
    content=st.one_of(
        st.binary(max_size=300), st.text(max_size=300).map(lambda text: text.encode("utf-8", "surrogatepass"))
    ),
)
def test_guess_never_fails_when_bytes_are_arbitrary(ending: str, content: bytes, tmp_path: Path) -> None:
    path = tmp_path / f"a.{ending}"
    path.write_bytes(content)
    outcome(path)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(
                    st.sampled_from(["text", "label", "role", "content", "from", "value", "a"]), inner, max_size=4
                )
            ),
            max_leaves=8,
        ),
        max_size=8,
    ),
    lines=st.booleans(),
)
def test_guess_never_fails_when_objects_are_arbitrary(rows: list, lines: bool, tmp_path: Path) -> None:
    path = tmp_path / ("a.jsonl" if lines else "a.json")
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) if lines else json.dumps(rows), encoding="utf-8")
    outcome(path)


def test_guess_says_which_file_cannot_be_opened(tmp_path: Path) -> None:
    (tmp_path / "loop.csv").symlink_to(tmp_path / "loop.csv")
    assert "loop.csv" in outcome(tmp_path / "loop.csv")
    assert "nnn" in outcome(tmp_path / ("n" * 300 + ".csv"))
    (tmp_path / "table.csv").write_text(table([{"text": "a b"}]), encoding="utf-8")
    assert "no file matches" in outcome(tmp_path / "*.tsv")
