"""Files as people bring them, made by code, each with the right guess beside it.

About 150 files of 30 to 120 rows in English, Turkish and other languages. Every second file (`TUNED`) may be looked at
while the guess is changed; the others (`HELD_OUT`) are for counting only.
"""

import csv
import gzip
import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.feather

from tests.studies.file_writers import (
    Rows,
    article,
    as_bytes,
    jsonl,
    question,
    save_dataset,
    sentence,
    several,
    table,
    write_parquet,
    xlsx,
    zipped,
)


@dataclass(frozen=True)
class Expected:
    """The right guess; an empty field is not compared."""

    kind: str
    format: str
    columns: dict[str, str]
    rows: int
    encoding: str | None = None
    labels: frozenset[str] = frozenset()


@dataclass(frozen=True)
class OrdinaryFile:
    """A file, folder or pattern, and its right guess."""

    name: str
    make: Callable[[Path], Path]
    """Writes it below a folder; returns the path that a user gives."""
    expected: Expected


FILES: list[OrdinaryFile] = []


def add(name: str, make: Callable[[Path], Path], expected: Expected) -> None:
    FILES.append(OrdinaryFile(name, make, expected))


def labelled(
    rng: random.Random,
    n: int,
    language: str,
    labels: Sequence[Any],
    text: str = "text",
    label: str = "label",
    **more: Any,
) -> Rows:
    """Rows of a label and a text; `more`: name -> value, or a function of the row's number."""
    return [
        {label: rng.choice(labels), text: sentence(rng, language)}
        | {name: value(k) if callable(value) else value for name, value in more.items()}
        for k in range(n)
    ]


def expect_labels(
    rows: Rows,
    text: str,
    label: str,
    form: str = "csv",
    encoding: str | None = "utf-8",
    names: Sequence[str] | None = None,
) -> Expected:
    found = names if names is not None else {str(row[label]) for row in rows}
    return Expected("labelled", form, {"text": text, "label": label}, len(rows), encoding, frozenset(found))


def _tables() -> None:
    rng = random.Random(1)
    headers = [
        ("en", "text", "label"),
        ("en", "review", "sentiment"),
        ("en", "Message Body", "Category"),
        ("en", "tweet_text", "airline_sentiment"),
        ("tr", "metin", "etiket"),
        ("tr", "Yorum", "Duygu"),
        ("tr", "Müşteri Mesajı", "Konu"),
        ("tr", "şikayet_metni", "Kategori"),
        ("de", "Nachricht", "Klasse"),
        ("de", "Bewertungstext", "Stimmung"),
        ("fr", "commentaire", "étiquette"),
        ("fr", "Avis", "catégorie"),
        ("es", "comentario", "sentimiento"),
        ("es", "mensaje", "clase"),
        ("en", "viesti", "tunnelma"),
        ("en", "ujumbe", "aina"),
        ("tr", "rəy", "növ"),
        ("en", "szöveg", "hangulat"),
    ]
    names = {
        "tr": ["şikayet", "teşekkür", "soru"],
        "de": ["gut", "schlecht"],
        "fr": ["bon", "mauvais"],
        "es": ["bueno", "malo"],
    }
    delimiters = [",", ";", "\t", "|"]
    for k, (language, text, label) in enumerate(headers):
        labels = names.get(language, ["positive", "negative", "neutral"])
        rows = labelled(rng, 40 + 3 * k, language, labels, text, label)
        if k % 3 == 0:
            rows = [{text: row[text], label: row[label]} for row in rows]
        delimiter = delimiters[k % 4]
        suffix = "tsv" if delimiter == "\t" else "csv"
        quoting = csv.QUOTE_ALL if k % 5 == 0 else csv.QUOTE_MINIMAL
        data = table(rows, delimiter, quoting=quoting, end="\r\n" if k % 2 else "\n")
        add(f"header-{k}-{suffix}", as_bytes(f"data.{suffix}", data.encode()), expect_labels(rows, text, label, suffix))
    for k, (language, encoding) in enumerate(
        [
            ("tr", "utf-8-sig"),
            ("tr", "windows-1254"),
            ("tr", "utf-16"),
            ("fr", "windows-1252"),
            ("de", "windows-1252"),
            ("es", "utf-8-sig"),
            ("tr", "windows-1254"),
            ("en", "utf-16"),
            ("tr", "windows-1254"),
            ("fr", "utf-8-sig"),
        ]
    ):
        labels = names.get(language, ["good", "bad"])
        rows = labelled(
            rng,
            50,
            language,
            labels,
            "Mesaj" if language == "tr" else "text",
            "Etiket" if language == "tr" else "class",
        )
        label, text = rows[0]
        if k % 2:
            rows = [row | {text: f'{row[text]}\n{sentence(rng, language)} "{k}"; son'} for row in rows]
        data = table(rows, ";" if k % 3 else ",", end="\r\n").encode(encoding)
        add(f"encoding-{k}-{encoding}", as_bytes("veri.csv", data), expect_labels(rows, text, label, encoding=encoding))
    for k, language in enumerate(["en", "tr", "en", "tr", "de", "en"]):
        rows = labelled(rng, 60, language, ["ham", "spam"] if k % 2 else ["0", "1"], "1", "0")
        if k > 2:
            rows = [{"0": row["1"], "1": row["0"]} for row in rows]
        text, label = ("1", "0") if k <= 2 else ("0", "1")
        suffix = ["csv", "tsv"][k % 2]
        data = table(rows, "\t" if suffix == "tsv" else ",", header=False)
        add(f"headerless-{k}", as_bytes(f"mesajlar.{suffix}", data.encode()), expect_labels(rows, text, label, suffix))
    ids: list[tuple[str, Any]] = [
        ("id", lambda k: 10**17 + k),
        ("tweet_id", lambda k: 570306133677760513 + k),
        ("", lambda k: k),
        ("uuid", lambda k: f"{k:08x}-1b2c-4d5e-8f90-{k * 7919:012x}"),
        ("sipariş no", lambda k: f"SP-{1000 + k}-TR"),
        ("url", lambda k: f"https://example.org/a/{k}"),
        ("created_at", lambda k: f"2024-0{k % 9 + 1}-1{k % 9} 10:{k % 60:02d}"),
        ("user", lambda k: f"@kisi_{k}"),
        ("eposta", lambda k: f"kisi{k}@example.org"),
        ("likes", lambda k: k * 37 % 101),
    ]
    for k, (name, value) in enumerate(ids):
        language = "tr" if k % 2 else "en"
        body, mark = ("yorum", "duygu") if k % 2 else ("body", "topic")
        rows = [
            {name: value(j)} | row for j, row in enumerate(labelled(rng, 45, language, ["a1", "b2", "c3"], body, mark))
        ]
        add(f"beside-{k}-{name}", as_bytes("export.csv", table(rows).encode()), expect_labels(rows, body, mark))
    rows = labelled(rng, 70, "tr", [0, 1], "cumle", "label")
    rows = [row | {"label_text": ["olumsuz", "olumlu"][row["label"]]} for row in rows]
    add("twin-csv", as_bytes("a.csv", table(rows).encode()), expect_labels(rows, "cumle", "label_text"))
    rows = labelled(rng, 70, "en", [1, 2, 3], "content", "category_id", category=lambda k: "")
    rows = [row | {"category": {1: "sport", 2: "world", 3: "tech"}[row["category_id"]]} for row in rows]
    add("twin-jsonl", as_bytes("a.jsonl", jsonl(rows).encode()), expect_labels(rows, "content", "category", "jsonl"))
    rows = labelled(rng, 80, "en", [1, 2, 3, 4, 5], "review_text", "rating", date="2024-01-05", verified="Y")
    add("stars", as_bytes("reviews.csv", table(rows).encode()), expect_labels(rows, "review_text", "rating"))
    rows = labelled(rng, 64, "tr", [0, 1], "text", "label")
    add("codes-csv", as_bytes("a.csv", table(rows, ";").encode()), expect_labels(rows, "text", "label"))
    rows = labelled(rng, 90, "tr", [f"niyet_{k}" for k in range(30)], "utterance", "intent")
    add("many-labels", as_bytes("a.csv", table(rows).encode()), expect_labels(rows, "utterance", "intent"))
    rows = labelled(
        rng, 50, "en", ["yes", "no"], "text", "label", split=lambda k: "train" if k % 4 else "test", lang="en"
    )
    add("split-and-lang", as_bytes("a.csv", table(rows).encode()), expect_labels(rows, "text", "label"))
    texts = [{"yorum": sentence(rng, "tr")} for _ in range(40)]
    add(
        "one-column",
        as_bytes("a.csv", table(texts).encode()),
        Expected("documents", "csv", {"text": "yorum"}, 40, "utf-8"),
    )
    texts = [{"id": k, "title": sentence(rng, "en", (2, 4)), "content": article(rng, "en")} for k in range(35)]
    add(
        "title-and-content",
        as_bytes("news.csv", table(texts).encode()),
        Expected("documents", "csv", {"text": "content"}, 35, "utf-8"),
    )
    texts = [
        {"başlık": sentence(rng, "tr", (2, 4)), "haber_metni": article(rng, "tr"), "tarih": f"0{k % 9 + 1}.05.2023"}
        for k in range(35)
    ]
    add(
        "haber",
        as_bytes("haber.csv", table(texts, ";").encode()),
        Expected("documents", "csv", {"text": "haber_metni"}, 35, "utf-8"),
    )
    rows = labelled(rng, 45, "en", ["a", "b"])
    blank = table(rows).replace("\n", "\n\n", 3) + "\n  \n"
    add("blank-lines", as_bytes("a.csv", blank.encode()), expect_labels(rows, "text", "label"))
    add(
        "excel-tail",
        as_bytes("a.csv", ("sep=;\r\n" + table(rows, ";", end="\r\n") + ";\r\n" * 5).encode("utf-8-sig")),
        expect_labels(rows, "text", "label", encoding="utf-8-sig"),
    )
    rows = [
        row | {"text": row["text"] + rng.choice(['"', "", ' "so"', ""])}
        for row in labelled(rng, 60, "en", ["ham", "spam"])
    ]
    raw = "".join(f"{row['label']}\t{row['text']}\n" for row in rows)
    add(
        "quotes-in-tsv",
        as_bytes("SMSCollection", raw.encode()),
        Expected("labelled", "tsv", {"text": "1", "label": "0"}, 60, "utf-8", frozenset(["ham", "spam"])),
    )
    add("no-ending-csv", as_bytes("veri", table(rows, ";").encode()), expect_labels(rows, "text", "label"))
    add(
        "txt-table",
        as_bytes("a.txt", table(labelled(rng, 50, "tr", ["x", "y"]), "\t").encode()),
        Expected("labelled", "tsv", {"text": "text", "label": "label"}, 50, "utf-8", frozenset("xy")),
    )
    add("gzip", as_bytes("a.csv.gz", gzip.compress(table(rows).encode())), expect_labels(rows, "text", "label"))
    rows = [{"Soru": question(rng, "tr"), "Cevap": sentence(rng, "tr")} for _ in range(40)]
    add(
        "soru-cevap",
        as_bytes("sss.csv", table(rows, ";").encode("windows-1254")),
        Expected("instructions", "csv", {"instruction": "Soru", "output": "Cevap"}, 40, "windows-1254"),
    )
    rows = [{"frage": question(rng, "de"), "antwort": sentence(rng, "de"), "quelle": "web"} for _ in range(40)]
    add(
        "frage-antwort",
        as_bytes("faq.csv", table(rows).encode()),
        Expected("instructions", "csv", {"instruction": "frage", "output": "antwort"}, 40, "utf-8"),
    )
    rows = [{"kysymys": question(rng, "en"), "vastaus": sentence(rng, "en")} for _ in range(40)]
    add(
        "unknown-question",
        as_bytes("faq.tsv", table(rows, "\t").encode()),
        Expected("instructions", "tsv", {"instruction": "kysymys", "output": "vastaus"}, 40, "utf-8"),
    )
    rows = [{"article": article(rng, "en"), "highlights": sentence(rng, "en"), "id": k} for k in range(40)]
    add(
        "summaries",
        as_bytes("cnn.csv", table(rows).encode()),
        Expected("instructions", "csv", {"instruction": "article", "output": "highlights"}, 40, "utf-8"),
    )
    rows = [{"en": sentence(rng, "en"), "tr": sentence(rng, "tr")} for _ in range(40)]
    add(
        "translation-tsv",
        as_bytes("pairs.tsv", table(rows, "\t").encode()),
        Expected("instructions", "tsv", {"instruction": "en", "output": "tr"}, 40, "utf-8"),
    )
    rows = [{"messages": json.dumps(openai(rng, "tr"), ensure_ascii=False)} for _ in range(30)]
    add(
        "chats-in-csv",
        as_bytes("chats.csv", table(rows).encode()),
        Expected("instructions", "csv", {"messages": "messages"}, 30, "utf-8"),
    )


def openai(rng: random.Random, language: str, system: bool = True, turns: int = 1) -> list[dict[str, str]]:
    said = [{"role": "system", "content": sentence(rng, language)}] if system else []
    for _ in range(turns):
        said += [
            {"role": "user", "content": question(rng, language)},
            {"role": "assistant", "content": sentence(rng, language)},
        ]
    return said


def sharegpt(rng: random.Random, language: str, turns: int = 2) -> list[dict[str, str]]:
    said = []
    for _ in range(turns):
        said += [{"from": "human", "value": question(rng, language)}, {"from": "gpt", "value": sentence(rng, language)}]
    return said


def _objects() -> None:
    rng = random.Random(2)
    kinds: list[tuple[str, Callable[[random.Random, str, int], dict[str, Any]], str, dict[str, str]]] = [
        (
            "alpaca",
            lambda r, g, k: {
                "instruction": question(r, g),
                "input": sentence(r, g) if k % 2 else "",
                "output": sentence(r, g),
            },
            "instructions",
            {"instruction": "instruction", "input": "input", "output": "output"},
        ),
        (
            "alpaca-missing",
            lambda r, g, k: (
                {"instruction": question(r, g), "output": sentence(r, g)} | ({"input": sentence(r, g)} if k % 2 else {})
            ),
            "instructions",
            {"instruction": "instruction", "input": "input", "output": "output"},
        ),
        (
            "dolly",
            lambda r, g, k: {
                "instruction": question(r, g),
                "context": sentence(r, g) if k % 2 else "",
                "response": sentence(r, g),
                "category": r.choice(["open_qa", "summary"]),
            },
            "instructions",
            {"instruction": "instruction", "input": "context", "output": "response"},
        ),
        (
            "question-answer",
            lambda r, g, k: {"id": k, "question": question(r, g), "answer": sentence(r, g)},
            "instructions",
            {"instruction": "question", "output": "answer"},
        ),
        (
            "prompt-completion",
            lambda r, g, k: {"prompt": question(r, g), "completion": sentence(r, g)},
            "instructions",
            {"instruction": "prompt", "output": "completion"},
        ),
        (
            "trl-prompt-completion",
            lambda r, g, k: {
                "prompt": [{"role": "user", "content": question(r, g)}],
                "completion": [{"role": "assistant", "content": sentence(r, g)}],
            },
            "instructions",
            {"instruction": "prompt", "output": "completion"},
        ),
        (
            "openai",
            lambda r, g, k: {"messages": openai(r, g, k % 2 == 0, 1 + k % 3)},
            "instructions",
            {"messages": "messages"},
        ),
        (
            "ultrachat",
            lambda r, g, k: {"prompt": question(r, g), "prompt_id": f"{k:032x}", "messages": openai(r, g, False, 2)},
            "instructions",
            {"messages": "messages"},
        ),
        (
            "sharegpt",
            lambda r, g, k: {"id": f"c{k}", "conversations": sharegpt(r, g)},
            "instructions",
            {"messages": "conversations"},
        ),
        (
            "preferences",
            lambda r, g, k: {"prompt": question(r, g), "chosen": sentence(r, g), "rejected": sentence(r, g)},
            "preferences",
            {"instruction": "prompt", "chosen": "chosen", "rejected": "rejected"},
        ),
        (
            "trl-preferences",
            lambda r, g, k: {
                "prompt": [{"role": "user", "content": question(r, g)}],
                "chosen": [{"role": "assistant", "content": sentence(r, g)}],
                "rejected": [{"role": "assistant", "content": sentence(r, g)}],
            },
            "preferences",
            {"instruction": "prompt", "chosen": "chosen", "rejected": "rejected"},
        ),
        (
            "trl-implicit",
            lambda r, g, k: (
                lambda q: {
                    "chosen": [q, {"role": "assistant", "content": sentence(r, g)}],
                    "rejected": [q, {"role": "assistant", "content": sentence(r, g)}],
                }
            )({"role": "user", "content": question(r, g)}),
            "preferences",
            {"chosen": "chosen", "rejected": "rejected"},
        ),
        (
            "documents",
            lambda r, g, k: {"text": article(r, g), "meta": {"source": "web", "n": k}},
            "documents",
            {"text": "text"},
        ),
    ]
    for k, (name, row, kind, columns) in enumerate(kinds):
        for j, language in enumerate(["en", "tr"]):
            rows = [row(rng, language, number) for number in range(36 + k)]
            lines = (k + j) % 2 == 0
            text = (
                jsonl(rows)
                if lines
                else json.dumps(rows, ensure_ascii=language == "en", indent=1 if k % 3 == 0 else None)
            )
            suffix = "jsonl" if lines else "json"
            encoding = "utf-8-sig" if k % 6 == 5 else "utf-8"
            add(
                f"{name}-{language}",
                as_bytes(f"data.{suffix}", text.encode(encoding)),
                Expected(kind, suffix, columns, len(rows), encoding),
            )
    labels: list[tuple[str, Callable[[int], Any], set[str]]] = [
        ("int", lambda k: k % 2, {"0", "1"}),
        ("bool", lambda k: k % 3 == 0, {"true", "false"}),
        ("list", lambda k: [["spor", "ekonomi", "sanat"][k % 3]], {"spor", "ekonomi", "sanat"}),
        ("int-list", lambda k: [k % 4], {"0", "1", "2", "3"}),
        ("float", lambda k: float(k % 2), {"0", "1"}),
        ("minus", lambda k: k % 3 - 1, {"-1", "0", "1"}),
    ]
    for k, (name, label, names) in enumerate(labels):
        rows = [{"text": sentence(rng, "tr"), "label": label(number)} for number in range(48)]
        form, text = ("json", json.dumps(rows, ensure_ascii=False)) if k % 2 else ("jsonl", jsonl(rows))
        add(
            f"labels-{name}",
            as_bytes(f"a.{form}", text.encode()),
            Expected("labelled", form, {"text": "text", "label": "label"}, 48, "utf-8", frozenset(names)),
        )
    rows = labelled(rng, 44, "tr", ["olumlu", "olumsuz"], "yorum", "durum")
    for key, whole in (
        ("data", {"version": "1.0", "data": rows}),
        ("records", {"records": rows, "count": 44}),
        ("result.items", {"status": "ok", "result": {"total": 44, "items": rows}}),
        ("veriler", {"veriler": rows}),
    ):
        indent = 2 if key == "veriler" else None
        add(
            f"under-{key}",
            as_bytes("a.json", json.dumps(whole, ensure_ascii=False, indent=indent).encode()),
            expect_labels(rows, "yorum", "durum", "json"),
        )
    nested = [
        {"id": k, "review": {"body": sentence(rng, "en"), "stars": k % 5 + 1}, "user": {"name": f"u{k}"}}
        for k in range(50)
    ]
    add(
        "nested-jsonl",
        as_bytes("a.jsonl", jsonl(nested).encode()),
        Expected(
            "labelled", "jsonl", {"text": "review.body", "label": "review.stars"}, 50, "utf-8", frozenset("12345")
        ),
    )
    squad = [
        {
            "id": f"q{k}",
            "context": article(rng, "en"),
            "question": question(rng, "en"),
            "answers": {"text": [sentence(rng, "en", (1, 3))], "answer_start": [k]},
        }
        for k in range(40)
    ]
    add(
        "squad",
        as_bytes("squad.jsonl", jsonl(squad).encode()),
        Expected(
            "instructions",
            "jsonl",
            {"instruction": "question", "input": "context", "output": "answers.text.0"},
            40,
            "utf-8",
        ),
    )
    add(
        "blank-jsonl",
        as_bytes("a.jsonl", (jsonl(rows).replace("\n", "\n\n", 2) + "\n").encode()),
        expect_labels(rows, "yorum", "durum", "jsonl"),
    )
    add("jsonl-in-json", as_bytes("a.json", jsonl(rows).encode()), expect_labels(rows, "yorum", "durum", "jsonl"))
    add(
        "no-ending-jsonl",
        as_bytes("export", jsonl(rows).encode("utf-8-sig")),
        expect_labels(rows, "yorum", "durum", "jsonl", "utf-8-sig"),
    )
    add(
        "cp1254-json",
        as_bytes("a.json", json.dumps(rows, ensure_ascii=False).encode("windows-1254")),
        expect_labels(rows, "yorum", "durum", "json", "windows-1254"),
    )
    some = [row if k % 3 else {"yorum": row["yorum"], "durum": row["durum"], "not": "x"} for k, row in enumerate(rows)]
    add("uneven-jsonl", as_bytes("a.jsonl", jsonl(some).encode()), expect_labels(rows, "yorum", "durum", "jsonl"))
    rows = [{"translation": {"en": sentence(rng, "en"), "tr": sentence(rng, "tr")}} for _ in range(40)]
    add(
        "translation-jsonl",
        as_bytes("a.jsonl", jsonl(rows).encode()),
        Expected("instructions", "jsonl", {"instruction": "translation.en", "output": "translation.tr"}, 40, "utf-8"),
    )


def _binary() -> None:
    rng = random.Random(3)
    for k, language in enumerate(["en", "tr"]):
        rows = labelled(rng, 52, language, ["iyi", "kötü", "orta"], "text", "label")
        flat = pa.Table.from_pylist(rows)
        expected = expect_labels(rows, "text", "label", "parquet", None)
        add(f"parquet-{k}", write_parquet("a.parquet", flat), expected)
        place = flat.schema.get_field_index("label")
        category = flat.set_column(place, "label", flat["label"].combine_chunks().dictionary_encode())
        add(f"parquet-category-{k}", write_parquet("a.parquet", category), expected)
        add(
            f"parquet-struct-{k}",
            write_parquet("a.parquet", pa.table({"id": list(range(52)), "row": rows})),
            Expected(
                "labelled",
                "parquet",
                {"text": "row.text", "label": "row.label"},
                52,
                None,
                frozenset(["iyi", "kötü", "orta"]),
            ),
        )
        chats = [{"messages": openai(rng, language, False, 2), "source": "web"} for _ in range(33)]
        add(
            f"parquet-chat-{k}",
            write_parquet("a.parquet", pa.Table.from_pylist(chats)),
            Expected("instructions", "parquet", {"messages": "messages"}, 33, None),
        )
        coded = [{"text": row["text"], "label": j % 2} for j, row in enumerate(rows)]
        add(
            f"parquet-int-{k}",
            write_parquet("train-00000-of-00001.parquet", pa.Table.from_pylist(coded)),
            Expected("labelled", "parquet", {"text": "text", "label": "label"}, 52, None, frozenset("01")),
        )
        add(
            f"feather-{k}",
            lambda folder, made=flat: (pyarrow.feather.write_feather(made, folder / "a.feather"), folder / "a.feather")[
                1
            ],
            expect_labels(rows, "text", "label", "arrow", None),
        )
        add(
            f"saved-dataset-{k}",
            save_dataset(coded, ["neg", "pos"], bool(k)),
            Expected("labelled", "arrow", {"text": "text", "label": "label"}, 52, None, frozenset(["neg", "pos"])),
        )
        asked = [{"question": question(rng, language), "answer": sentence(rng, language)} for _ in range(41)]
        add(
            f"saved-answers-{k}",
            save_dataset(asked, None, not k),
            Expected("instructions", "arrow", {"instruction": "question", "output": "answer"}, 41, None),
        )
        body = [["Kategori", "Mesaj"], *([row["label"], row["text"]] for row in rows)]
        add(
            f"xlsx-{k}",
            as_bytes("a.xlsx", xlsx({"Sayfa1": body})),
            Expected(
                "labelled", "xlsx", {"text": "Mesaj", "label": "Kategori"}, 52, None, frozenset(["iyi", "kötü", "orta"])
            ),
        )
        body = [["No", "Text", "Label"], *([j + 1, row["text"], j % 2] for j, row in enumerate(rows))]
        add(
            f"xlsx-codes-{k}",
            as_bytes("a.xlsx", xlsx({"Notes": [["made by hand"]], "Data": body})),
            Expected("labelled", "xlsx", {"text": "Text", "label": "Label"}, 52, None, frozenset("01")),
        )


def _folders() -> None:
    rng = random.Random(4)
    for k, language in enumerate(["en", "tr"]):
        texts = {f"books/{name}.txt": "\n\n".join(article(rng, language) for _ in range(5)).encode() for name in "abcd"}
        add(
            f"folder-txt-{k}",
            several(texts | {"books/README.md": b"about"}, "books"),
            Expected("documents", "txt", {}, 20, "utf-8"),
        )
        classes = {
            f"yorumlar/{split}/{label}/{j}.txt": article(rng, language).encode()
            for split in ("train", "test")
            for label in ("neg", "pos")
            for j in range(6)
        }
        add(
            f"folder-labels-{k}",
            several(classes | {"yorumlar/README": b"about"}, "yorumlar"),
            Expected("labelled", "txt", {}, 24, "utf-8", frozenset(["neg", "pos"])),
        )
        rows = labelled(rng, 60, language, ["x", "y"])
        parts = {f"parts/part-{j}.csv": table(rows[20 * j : 20 * j + 20]).encode() for j in range(3)}
        add(f"folder-csv-{k}", several(parts, "parts"), expect_labels(rows, "text", "label"))
        add(f"glob-csv-{k}", several(parts, "parts/part-*.csv"), expect_labels(rows, "text", "label"))
        deep = {
            f"set/{split}/{j}.jsonl": jsonl(rows[30 * j : 30 * j + 30]).encode()
            for j, split in enumerate(["train", "test"])
        }
        add(f"folder-jsonl-{k}", several(deep, "set"), expect_labels(rows, "text", "label", "jsonl"))
        kaggle = {
            "comp/train.csv": table([{"id": j} | row for j, row in enumerate(rows)]).encode(),
            "comp/test.csv": table([{"id": j, "text": sentence(rng, language)} for j in range(30)]).encode(),
        }
        add(f"kaggle-{k}", several(kaggle, "comp"), expect_labels(rows, "text", "label"))
        one = zipped(
            {
                "export/data.csv": table(rows, ";").encode(),
                "__MACOSX/export/._data.csv": b"\0\5\x16\7",
                "export/README.txt": b"hello",
            }
        )
        add(f"zip-csv-{k}", as_bytes("export.zip", one), expect_labels(rows, "text", "label"))
        two = zipped(
            {f"{name}.jsonl": jsonl(rows[30 * j : 30 * j + 30]).encode() for j, name in enumerate(["train", "dev"])}
        )
        add(f"zip-jsonl-{k}", as_bytes("set.zip", two), expect_labels(rows, "text", "label", "jsonl"))
        book = "\n\n".join(article(rng, language) for _ in range(25))
        add(
            f"txt-{k}",
            as_bytes("kitap.txt", book.encode("windows-1254" if k else "utf-8")),
            Expected("documents", "txt", {}, 25, "windows-1254" if k else "utf-8"),
        )
        lines = "\n".join(sentence(rng, language).rstrip(".!") + "." for _ in range(80)) + "\n"
        add(
            f"txt-lines-{k}",
            as_bytes("cumleler.txt", lines.encode("utf-8-sig")),
            Expected("documents", "txt", {}, 80, "utf-8-sig"),
        )
        even = "\n\n".join(f"{sentence(rng, 'tr')}, {sentence(rng, 'tr')}, {i}" for i in range(30))
        add(
            f"txt-even-commas-{k}", as_bytes("notlar.txt", even.encode()), Expected("documents", "txt", {}, 30, "utf-8")
        )
        add(f"txt-no-ending-{k}", as_bytes("kitap", book.encode()), Expected("documents", "txt", {}, 25, "utf-8"))
        add(
            f"gz-jsonl-{k}",
            as_bytes("a.jsonl.gz", gzip.compress(jsonl(rows).encode())),
            expect_labels(rows, "text", "label", "jsonl"),
        )


_tables()
_objects()
_binary()
_folders()
TUNED, HELD_OUT = FILES[::2], FILES[1::2]
