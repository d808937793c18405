"""Writers of data files for tests: sentences in several languages, tables, JSON, spreadsheets, archives, folders."""

import csv
import io
import json
import random
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import pyarrow as pa
import pyarrow.parquet as pq

Rows = list[dict[str, Any]]

_WORDS = {
    "tr": (
        "kargo paket ürün sipariş müşteri fatura iade renk beden ödeme mağaza servis hafta akşam bugün dün yarın geldi "
        "gelmedi bozuk güzel hızlı geç teşekkürler lütfen bakar mısınız çok memnun kaldım değil için ama şimdi açtım "
        "kırık çıktı ışık gölge ığdır İstanbul İzmir Ağrı Şişli öğretmen çocuk"
    ),
    "en": (
        "parcel order item customer invoice refund colour size payment store service week evening today arrived "
        "never broken nice fast late thanks please could you very happy with it not for but now opened the box and "
        "found that this was what we wanted from London Boston teacher child"
    ),
    "de": "Paket Bestellung Kunde Rechnung Größe schön schnell spät danke bitte könnten Sie über das Gerät für mich",
    "fr": "colis commande client facture très bien reçu déjà été où ça français élève à la maison hier soir merci",
    "es": "paquete pedido cliente factura talla rápido tarde gracias por favor señor mañana llegó también está aquí",
}


_TEXTS = {language: words.split() for language, words in _WORDS.items()}


def sentence(rng: random.Random, language: str = "en", words: tuple[int, int] = (5, 16)) -> str:
    said = " ".join(rng.choice(_TEXTS[language]) for _ in range(rng.randint(*words)))
    return said[0].upper() + said[1:] + rng.choice([".", "!", "", "...", "."])


def question(rng: random.Random, language: str = "en") -> str:
    ask = {"tr": "Acaba", "en": "Why is", "de": "Warum ist", "fr": "Pourquoi", "es": "Por qué"}[language]
    return f"{ask} {sentence(rng, language, (3, 8)).rstrip('.!').replace('İ', 'i').lower()}?"


def article(rng: random.Random, language: str = "en") -> str:
    return " ".join(sentence(rng, language) for _ in range(rng.randint(4, 9)))


def as_bytes(name: str, data: bytes) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return path

    return make


def table(
    rows: Rows, delimiter: str = ",", header: bool = True, quoting: int = csv.QUOTE_MINIMAL, end: str = "\n"
) -> str:
    out = io.StringIO()
    names = list(dict.fromkeys(name for row in rows for name in row))
    writer = csv.writer(out, delimiter=delimiter, quoting=quoting, lineterminator=end)
    if header:
        writer.writerow(names)
    writer.writerows([["" if row.get(name) is None else row[name] for name in names] for row in rows])
    return out.getvalue()


def jsonl(rows: Sequence[Any]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def xlsx(sheets: dict[str, list[list[Any]]]) -> bytes:
    """A spreadsheet of inline strings and numbers (ECMA-376, part 1)."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as parts:
        parts.writestr(
            "[Content_Types].xml",
            '<?xml version="1.0"?><Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types">'
            '<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
            '<Override PartName="/xl/workbook.xml" '
            'ContentType="application/vnd.openxmlformats-officedocument.spreadsheetml.sheet.main+xml"/>'
            + "".join(
                f'<Override PartName="/xl/worksheets/sheet{k}.xml" '
                'ContentType="application/vnd.openxmlformats-officedocument.spreadsheetml.worksheet+xml"/>'
                for k in range(1, len(sheets) + 1)
            )
            + "</Types>",
        )
        office = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
        parts.writestr(
            "_rels/.rels",
            '<?xml version="1.0"?><Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">'
            f'<Relationship Id="r1" Type="{office}/officeDocument" Target="xl/workbook.xml"/></Relationships>',
        )
        main = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
        parts.writestr(
            "xl/workbook.xml",
            f'<?xml version="1.0"?><workbook xmlns="{main}" xmlns:r="{office}"><sheets>'
            + "".join(f'<sheet name="{escape(n)}" sheetId="{k}" r:id="r{k}"/>' for k, n in enumerate(sheets, start=1))
            + "</sheets></workbook>",
        )
        parts.writestr(
            "xl/_rels/workbook.xml.rels",
            '<?xml version="1.0"?><Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">'
            + "".join(
                f'<Relationship Id="r{k}" Type="{office}/worksheet" Target="worksheets/sheet{k}.xml"/>'
                for k in range(1, len(sheets) + 1)
            )
            + "</Relationships>",
        )
        for k, rows in enumerate(sheets.values(), start=1):
            body = "".join(
                f'<row r="{r}">' + "".join(_cell(f"{chr(65 + c)}{r}", v) for c, v in enumerate(row)) + "</row>"
                for r, row in enumerate(rows, start=1)
            )
            parts.writestr(
                f"xl/worksheets/sheet{k}.xml",
                f'<?xml version="1.0"?><worksheet xmlns="{main}"><sheetData>{body}</sheetData></worksheet>',
            )
    return out.getvalue()


def _cell(place: str, value: Any) -> str:
    if value is None or value == "":
        return ""
    if isinstance(value, int | float):
        return f'<c r="{place}"><v>{value}</v></c>'
    return f'<c r="{place}" t="inlineStr"><is><t xml:space="preserve">{escape(str(value))}</t></is></c>'


def zipped(members: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return out.getvalue()


def write_parquet(name: str, made: pa.Table) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        pq.write_table(made, folder / name, row_group_size=17)
        return folder / name

    return make


def save_dataset(rows: Rows, names: list[str] | None, splits: bool) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        import datasets

        features = {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=names)} if names else None
        whole = datasets.Dataset.from_list(rows, features=datasets.Features(features) if features else None)
        halves = datasets.DatasetDict({"train": whole.select(range(30)), "test": whole.select(range(30, len(rows)))})
        (halves if splits else whole).save_to_disk(str(folder / "saved"))
        return folder / "saved"

    return make


def several(files: dict[str, bytes], given: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        for name, data in files.items():
            as_bytes(name, data)(folder)
        return folder / given

    return make
