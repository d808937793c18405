"""Small clean data/ folders for the gates' tests, and the settings under which they pass."""

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import files, tokenizer
from pipeline.config.recipe import ALL_KINDS, KINDS, Kind
from pipeline.data.collect import PASSAGES, REJECTIONS
from pipeline.data.records import CONTENT, SPLITS, added_columns, record_id, schema
from pipeline.data.unencodable import REJECTIONS_FILE, UNENCODABLE_SCHEMA
from pipeline.gates import _expectations, _verdict
from pipeline.gates._rules import Expectation, Frame
from pipeline.tokenizer.encoders import UnencodableError

CHARACTERS = {"at_least": 10, "at_most": 2000}
GATES: dict[str, Any] = {
    "raw": {
        "min_rows": {"documents": 20, "labelled": 10, "instructions": 0, "preferences": 0},
        "characters": dict.fromkeys(ALL_KINDS, CHARACTERS),
        "max_encoding_faults": 0,
        "language": {"sample": None, "max_disagreement": 0.0, "min_share": {"en": 0.3, "tr": 0.3}},
        "max_duplicate_share": 0.0,
        "labels": {"min_labels": 2, "min_share": 0.2, "max_contradictions": 0},
        "max_personal": {"email": 0, "phone": 0, "card": 0, "iban": 0, "identity": 0},
        "max_spelled_specials": 0,
        "max_rejected_share": 0.1,
        "grounding": {"min_share": 0.5, "max_ungrounded_share": 0.1},
        "ratings": {
            "share_from_raters": 5,
            "max_rater_share": 0.3,
            "max_top_share": 0.3,
            "max_self_contradiction_share": 0.1,
            "max_against_share": 0.45,
            "max_opposing_raters": 0,
            "max_opposing_group": 0,
        },
        "attributes": {},
    },
    "tokens": {
        "min_documents": 10,
        "bytes_per_token": {"at_least": 1.5, "at_most": 12.0},
        "outliers": {"below": 1.2, "min_tokens": 16, "max_share": 0.0},
        "max_unknown_share": 0.1,
        "max_rejected_share": 0.0,
        "max_unused_vocabulary_share": 0.8,
        "round_trip_documents": 1000,
        "max_spelled_specials": 0,
    },
    "samples": {
        "overlap": {
            "max_verbatim": 0,
            "max_folded": 0,
            "max_near": 0,
            "near": {"near_threshold": 0.85, "shingle_words": 5, "permutations": 64, "seed": 1},
        },
        "min_records": {"train": 1, "validation": 1, "test": 1},
        "min_document_tokens": {"train": 100, "validation": 20, "test": 20},
        "min_label_share": 0.2,
        "max_tokens": {"labelled": 500, "instructions": 200, "preferences": 200},
        "max_too_long_share": 0.0,
        "max_left_out_share": 0.0,
        "min_coverage": 0.9,
        "max_split_groups": 0,
        "max_out_of_order": 0,
        "max_test_prompts": 0,
    },
    "model": {
        "min_distinct_2": 0.1,
        "max_repetition_share": 0.5,
        "max_empty_share": 0.5,
        "baseline": {"documents": "block", "labelled": "warn"},
    },
}

WORDS = {
    "en": "the and with from this that house river bread garden window morning letter friend market winter "
    "table music paper street bridge forest candle silver teacher summer village mountain kitchen story",
    "tr": "ve bir bu için çok ama gibi daha ev ırmak ekmek bahçe pencere sabah mektup arkadaş çarşı kış masa "
    "müzik kâğıt sokak köprü orman mum gümüş öğretmen yaz köy dağ mutfak öykü",
}

Rows = dict[Kind, list[dict[str, Any]]]


def text_of(rng: random.Random, language: str, n_words: int) -> str:
    """Distinct text in which the language is plain."""
    return " ".join(rng.choice(WORDS[language].split()) for _ in range(n_words)).capitalize() + "."


def record(kind: Kind, content: dict[str, str], language: str, number: int, **other: Any) -> dict[str, Any]:
    """A row of a kind's schema."""
    values = {
        "source": "made",
        "language": language,
        "split": None,
        "origin": f"made:{kind}:{number}",
    } | content
    values["id"] = record_id(kind, *(content[name] for name in CONTENT[kind]))
    return (values | {"bits": None} if kind == "documents" else values) | other


def clean_rows(documents: int = 40, others: int = 24) -> Rows:
    """Records of all kinds that every gate admits."""
    rng = random.Random(5)
    rows: Rows = {kind: [] for kind in KINDS}
    for i in range(max(documents, others)):
        code = ("en", "tr")[i % 2]
        texts = [text_of(rng, code, n) for n in (40, 14, 14, 3, 3)]
        if i < documents:
            rows["documents"].append(record("documents", {"text": texts[0]}, code, i))
        if i < others:
            label = ("spam", "ham")[i // 2 % 2]
            rows["labelled"].append(record("labelled", {"text": texts[1], "label": label}, code, i))
            asked = {"instruction": texts[2], "input": ""}
            rows["instructions"].append(record("instructions", asked | {"output": texts[3]}, code, i))
            ranked = asked | {"chosen": texts[3], "rejected": texts[4]}
            rows["preferences"].append(record("preferences", ranked, code, i))
    return rows


class Raw:
    """data/raw in the making: change what you like, then `write`."""

    def __init__(self) -> None:
        self.rows = clean_rows()
        self.sources: dict[str, dict[str, Any]] = {"made": {"licence": "CC0-1.0", "consent": "synthetic"}}
        self.rejections: list[dict[str, Any]] = []
        self.passages: list[dict[str, str]] = []
        self.account: dict[str, Any] | None = None
        self.tables: dict[str, pa.Table] = {}

    def add(self, kind: Kind, text: str, language: str = "en", **other: Any) -> None:
        """One more record; `text` is its first column, the other columns are those of the first record."""
        rows = self.rows[kind]
        content = {name: rows[0][name] for name in CONTENT[kind]} | {CONTENT[kind][0]: text}
        rows.append(record(kind, content, language, len(rows), **other))

    def add_answer(self, answer: str, passage: str, language: str = "en") -> None:
        """One more instruction, with the passage that it is about."""
        asked = {"instruction": f"What happened in story {len(self.passages)}?", "input": "", "output": answer}
        row = record("instructions", asked, language, len(self.rows["instructions"]))
        self.rows["instructions"].append(row)
        self.passages.append({"id": row["id"], "source": "made", "passage": passage})

    def rate(self, ratings: list[dict[str, Any]]) -> None:
        """Adds ratings, of which data/raw has none otherwise."""
        self.rows.setdefault("ratings", []).extend(ratings)
        self.sources["made"]["columns"] = {"ratings": ["consent", "time", "prompt_id"]}

    def ledger(self) -> dict[str, Any]:
        """The account that fits the rows."""
        return {
            "made": {
                kind: {"rows_in": len(rows), "kept": len(rows), "rejected": 0, "sampled_out": 0}
                for kind, rows in self.rows.items()
                if rows
            }
        }

    def write(self, data: Path) -> Path:
        """Writes `<data>/raw`; returns `data`."""
        raw = data / "raw"
        raw.mkdir(parents=True, exist_ok=True)
        for kind in self.rows:
            table = self.tables.get(kind)
            if table is None:
                whole = schema(kind, _added(kind, self.rows[kind]))
                nullable = pa.schema([field.with_nullable(True) for field in whole])
                table = pa.Table.from_pylist(self.rows[kind], schema=nullable)
            pq.write_table(table, raw / f"{kind}.parquet")
        pq.write_table(pa.Table.from_pylist(self.rejections, schema=REJECTIONS), raw / "rejections.parquet")
        if self.passages:
            pq.write_table(pa.Table.from_pylist(self.passages, schema=PASSAGES), raw / "passages.parquet")
        files.write_json(raw / "provenance.json", {"sources": self.sources})
        files.write_json(raw / "ledger.json", {"sources": self.account or self.ledger()})
        return data


class Tokens:
    """data/tokens in the making, for the documents of a Raw."""

    def __init__(self, raw: Raw, vocabulary: Path | None = None) -> None:
        """`vocabulary`: folder of a published one; None: trained on the documents."""
        self.raw = raw
        texts = [row["text"] for row in raw.rows["documents"]]
        adopted = vocabulary and tokenizer.adopt(vocabulary)
        self.tokenizer = adopted or tokenizer.train(iter(texts), 400, "gpt2")
        self.rejected: list[dict[str, Any]] = []
        self.ids = [[*self._ids(row, text), self.tokenizer.end_of_text] for row, text in enumerate(texts)]
        self.index = [
            {
                "id": row["id"],
                "source": "made",
                "language": row["language"],
                "split": "train",
                "start": start,
                "length": len(ids),
                "bytes": len(row["text"].encode()),
                "bits": None,
            }
            for row, ids, start in zip(raw.rows["documents"], self.ids, starts_of(self.ids), strict=True)
        ]
        self.meta = {
            "dtype": "uint16",
            "vocab_size": self.tokenizer.vocab_size,
            "n_documents": len(texts),
            "n_tokens": sum(map(len, self.ids)),
            "end_of_text": self.tokenizer.end_of_text,
        }

    def _ids(self, row: int, text: str) -> list[int]:
        try:
            return self.tokenizer.encode(text)
        except UnencodableError as error:
            identity = self.raw.rows["documents"][row]["id"]
            self.rejected.append({"row": row, "id": identity, "reason": error.reason, "detail": str(error)})
            return []

    def write(self, data: Path) -> Path:
        """Writes `<data>/raw` and `<data>/tokens`; returns `data`."""
        self.raw.write(data)
        folder = data / "tokens"
        folder.mkdir(exist_ok=True)
        np.array([number for ids in self.ids for number in ids], "<u2").tofile(folder / "ids.bin")
        pq.write_table(pa.Table.from_pylist(self.index, schema=INDEX), folder / "index.parquet")
        files.write_json(folder / "meta.json", self.meta)
        if self.rejected:
            pq.write_table(pa.Table.from_pylist(self.rejected, schema=UNENCODABLE_SCHEMA), folder / REJECTIONS_FILE)
        self.tokenizer.save(folder / "tokenizer")
        return data


class Samples:
    """data/samples in the making: rows by kind and split, ledgers that fit."""

    def __init__(self, tokens: Tokens) -> None:
        self.tokens = tokens
        self.rows: dict[Kind, dict[str, list[dict[str, Any]]]] = {
            kind: {split: [row for i, row in enumerate(rows) if SPLITS[max(0, i % 5 - 2)] == split] for split in SPLITS}
            for kind, rows in tokens.raw.rows.items()
        }
        self.account: dict[str, Any] = {}
        self.cut_ids = 0

    def ledger(self) -> dict[str, Any]:
        """The account that fits the rows."""
        kept = {kind: {split: len(rows) for split, rows in splits.items()} for kind, splits in self.rows.items()}
        return {
            kind: {
                "rows_in": sum(counts.values()),
                "kept": counts,
                "removed": {"duplicate": 0, "near_duplicate": 0, "contamination": 0},
            }
            for kind, counts in kept.items()
        }

    def write(self, data: Path) -> Path:
        """Writes raw, tokens and samples; returns `data`."""
        self.tokens.write(data)
        folder = data / "samples"
        for kind, splits in self.rows.items():
            (folder / kind).mkdir(parents=True, exist_ok=True)
            added = _added(kind, [row for rows in splits.values() for row in rows])
            for split, rows in splits.items():
                if kind == "documents":
                    self._documents(folder / kind, split, rows, added)
                else:
                    table = pa.Table.from_pylist(rows, schema=schema(kind, added))
                    pq.write_table(table, folder / kind / f"{split}.parquet")
        files.write_json(folder / "documents" / "meta.json", self.tokens.meta)
        files.write_json(folder / "ledger.json", self.ledger() | self.account)
        return data

    def _documents(self, folder: Path, split: str, rows: list[dict[str, Any]], added: list[str]) -> None:
        made = self.tokens.tokenizer
        ids = [[*made.encode(row["text"]), made.end_of_text] for row in rows]
        index = [
            {
                "id": row["id"],
                "source": row["source"],
                "language": row["language"],
                "split": split,
                "start": start,
                "length": len(one),
                "bytes": len(row["text"].encode()),
                "bits": None,
                **{name: row.get(name) for name in added},
            }
            for row, one, start in zip(rows, ids, starts_of(ids), strict=True)
        ]
        flat = np.array([number for one in ids for number in one], "<u2")
        flat[: len(flat) - self.cut_ids].tofile(folder / f"{split}.bin")
        whole = pa.schema([*INDEX, *(pa.field(name, pa.string()) for name in added)])
        pq.write_table(pa.Table.from_pylist(index, schema=whole), folder / f"{split}.parquet")


INDEX = pa.schema(
    [
        ("id", pa.string()),
        ("source", pa.string()),
        ("language", pa.string()),
        ("split", pa.string()),
        ("start", pa.int64()),
        ("length", pa.int32()),
        ("bytes", pa.int32()),
        ("bits", pa.float64()),
    ]
)


def _added(kind: Kind, rows: list[dict[str, Any]]) -> list[str]:
    """Columns of some rows beyond the schema of their kind."""
    return added_columns(kind, sorted({name for row in rows for name in row}))


def starts_of(ids: list[list[int]]) -> list[int]:
    """Offset of each list in their concatenation."""
    return np.concatenate([[0], np.cumsum([len(one) for one in ids])])[:-1].astype(int).tolist()


_validate, _known = _expectations.validate, {}


def _validate_once(frames: Mapping[str, Frame], expectations: Sequence[Expectation]) -> list[_expectations.Result]:
    """Great Expectations, asked once per frame and its expectations: most tests spoil one frame of many."""
    results: dict[int, _expectations.Result] = {}
    for name in {expectation.frame for expectation in expectations}:
        chosen = {i: expectation for i, expectation in enumerate(expectations) if expectation.frame == name}
        key = repr((frames[name].rows, frames[name].columns, list(chosen.values())))
        if key not in _known:
            _known[key] = _validate({name: frames[name]}, list(chosen.values()))
        results |= zip(chosen, _known[key], strict=True)
    return [results[i] for i in range(len(expectations))]


def verdict_on(gate: str, frames: dict[str, Frame], expectations: list[Expectation]) -> dict[str, Any]:
    """The verdict without waivers."""
    with patch.object(_expectations, "validate", _validate_once):
        return _verdict.reach(gate, frames, expectations, [])


def all_failed(gate: str, frames: Mapping[str, Frame], expectations: Sequence[Expectation]) -> _verdict.Judgement:
    """Every expectation failed on every row, without asking Great Expectations."""
    results = [
        _expectations.Result(False, dict(one.arguments), {}, list(range(len(frames[one.frame].rows))))
        for one in expectations
    ]
    return _verdict.Judgement(gate, frames, expectations, [], results)


def failed(verdict: dict[str, Any]) -> set[str]:
    """The columns on which an expectation did not hold, warnings included."""
    return {one["column"] for one in verdict["results"] if not one["success"]}


def entry(verdict: dict[str, Any], column: str) -> dict[str, Any]:
    """The failed result on a column."""
    return next(one for one in verdict["results"] if one["column"] == column and not one["success"])
