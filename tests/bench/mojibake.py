"""Detections of wrong encodings in text files, before and after the encoding is broken, as JSON.

    python -m tests.bench.mojibake FILE [FILE ...]

`right` counts the lines of each file and those in which the raw gate finds a wrong encoding; `wrong` is the share of
detected lines among those with ğ, ı, ş or İ, after each was written in one encoding and read in another.
"""

import argparse
import gzip
import json
import re
from pathlib import Path

import pyarrow as pa

from pipeline.gates.profiles.texts import ENCODING, matches

READINGS = (
    ("cp1254", "cp1252"),
    ("cp1254", "cp1250"),
    ("cp1254", "cp857"),
    ("cp1254", "mac_roman"),
    ("mac_turkish", "cp1252"),
    ("cp857", "cp1254"),
    ("utf-8", "cp1252"),
    ("utf-8", "cp1254"),
    ("utf-8", "mac_turkish"),
)
_SPECIAL = re.compile("[ğışĞİŞ]")


def main(arguments: list[str] | None = None) -> None:
    """Prints one JSON object."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.mojibake", description=__doc__)
    parser.add_argument("files", type=Path, nargs="+")
    lines = {path.name: lines_of(path) for path in parser.parse_args(arguments).files}
    right = {name: {"lines": len(texts), "detected": detections(texts)} for name, texts in lines.items()}
    turkish = [text for texts in lines.values() for text in texts if _SPECIAL.search(text)]
    wrong = {}
    for written, read_as in READINGS if turkish else ():
        broken = [read(text, written, read_as) for text in turkish]
        wrong[f"{written} as {read_as}"] = round(detections(broken) / len(broken), 4)
    print(json.dumps({"bench": "mojibake", "right": right, "wrong": wrong}, indent=1))


def lines_of(path: Path) -> list[str]:
    """The lines of a UTF-8 file, maybe compressed, that are not blank."""
    text = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    return [line for line in text.decode("utf-8").splitlines() if line.strip()]


def detections(texts: list[str]) -> int:
    """Number of texts in which the detector finds something."""
    return sum(1 for _ in matches(pa.array(texts, pa.string()), ENCODING["mojibake"]))


def read(text: str, written: str, read_as: str) -> str:
    """The text as a reader of another encoding gets it; undefined bytes as in ISO-8859-1."""
    return "".join(_character(byte, read_as) for byte in text.encode(written, "ignore"))


def _character(byte: int, code_page: str) -> str:
    try:
        return bytes([byte]).decode(code_page)
    except UnicodeDecodeError:
        return chr(byte)


if __name__ == "__main__":
    main()
