"""Encoding of a text file: UTF-8 with and without a byte order mark, UTF-16, windows-1254 (Turkish), windows-1252.

The Windows code pages of Turkish (1254: ğ ı İ ş Ş Ğ) and Western Europe (1252: ð ý Ý þ Þ Ð) differ in six letters only,
so the frequency of those six beside other accented letters decides.
"""

import codecs
from collections import Counter
from itertools import islice

from pipeline.data.formats._text import File, chunks, refuse_binary
from pipeline.errors import UserError

_CHUNKS = 64  # of CHUNK bytes: the part of a file that is looked at
_TURKISH = frozenset(b"\xd0\xdd\xde\xf0\xfd\xfe")
_NOT_TURKISH = frozenset(
    b"\xe0\xe1\xe3\xe4\xe5\xe6\xe8\xe9\xed\xf1\xf2\xf3\xf5\xf8\xfa\xdf\xc0\xc1\xc4\xc5\xc6\xc8\xc9\xd1\xd3\xd8"
)
_SHARED = frozenset(b"\xe7\xf6\xfc\xc7\xd6\xdc")  # ç ö ü Ç Ö Ü: in both code pages
_ASCII = bytes(range(0x80))
_NO_LETTERS = bytes(byte for byte in range(0x100) if byte >= 0x80 or not chr(byte).isalpha())


def detect(file: File) -> tuple[str, str]:
    """The encoding's name in params.yaml, and a sentence on it.

    Raises:
        UserError: binary, UTF-32, or in none of these encodings.
    """
    head = b"".join(islice(chunks(file), 1))
    refuse_binary(file, head)
    if head.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        raise UserError(f"{file.shown}: is UTF-32, which few programs read; save it as UTF-8")
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16", "encoding UTF-16, by its byte order mark"
    if (order := _wide(head)) is not None:
        if order == "big":
            raise UserError(f"{file.shown}: looks like UTF-16 (big-endian) without a byte order mark; save it as UTF-8")
        return "utf-16", "encoding UTF-16 without a byte order mark, by its zero bytes"
    if head.startswith(codecs.BOM_UTF8):
        return "utf-8-sig", "encoding UTF-8 with a byte order mark, which is no part of the text"
    return _eight_bit(file)


def _wide(head: bytes) -> str | None:
    """Byte order of UTF-16 without a mark; None for other text."""
    sample = head[:2000]
    if len(sample) < 8 or sample.count(0) > 0.6 * len(sample):
        return None
    even, odd = sample[::2].count(0), sample[1::2].count(0)
    if max(even, odd) < 0.4 * len(sample) / 2:
        return None
    return "big" if even > odd else "little"


def _eight_bit(file: File) -> tuple[str, str]:
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    bytes_seen: Counter[int] = Counter()
    wide = faults = read = 0
    for chunk in islice(chunks(file), _CHUNKS):
        read += 1
        text = decoder.decode(chunk)
        faults += text.count("\ufffd") - chunk.count("\ufffd".encode())
        if not chunk.isascii():
            wide += len(text) - len(text.encode("ascii", "ignore"))
            bytes_seen.update(chunk.translate(None, _ASCII))
            bytes_seen[0] += len(chunk.translate(None, _NO_LETTERS))
    if read < _CHUNKS:
        faults += decoder.decode(b"", final=True).count("\ufffd")
    if faults <= 0 or wide - faults > 10 * faults:  # a single broken letter: the strict reader names its place
        return "utf-8", "encoding UTF-8" + ("" if bytes_seen else " (only ASCII characters)")
    return _code_page(bytes_seen, file)


def _code_page(bytes_seen: Counter[int], file: File) -> tuple[str, str]:
    plain = bytes_seen.pop(0, 0)
    high = sum(bytes_seen.values())
    known = [name for name in ("windows-1254", "windows-1252") if _decodes(bytes_seen, name)]
    if not known or high > plain:
        raise UserError(
            f"{file.shown}: not UTF-8, and its bytes do not read as windows-1254 or windows-1252 either; expected "
            "UTF-8: save the file as UTF-8"
        )
    turkish = sum(bytes_seen[byte] for byte in _TURKISH)
    western = sum(bytes_seen[byte] for byte in _NOT_TURKISH)
    shared = sum(bytes_seen[byte] for byte in _SHARED)
    name = "windows-1254" if turkish > western or (shared and not turkish and not western) else "windows-1252"
    name = name if name in known else known[0]
    reason = "Turkish letters" if name == "windows-1254" else "Western European letters"
    return name, f"encoding {name}, not UTF-8: its bytes read as {reason} (format.encoding)"


def _decodes(bytes_seen: Counter[int], encoding: str) -> bool:
    try:
        bytes(bytes_seen).decode(encoding)
    except UnicodeDecodeError:
        return False
    return True
