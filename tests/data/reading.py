"""Shared by tests of formats and sources: writes bytes to a file and reads them as the download stage does."""

from pathlib import Path

from pipeline.data.ledger import RowLog
from pipeline.data.sources import files

TXT = {"name": "txt", "encoding": "utf-8", "documents": "file", "separator": None, "max_characters": None}
CSV = {"name": "csv", "encoding": "utf-8", "delimiter": ",", "header": True, "quoting": "standard"}
SEMICOLON = CSV | {"delimiter": ";"}
TSV = {"name": "tsv", "encoding": "utf-8", "header": False, "quoting": "none"}
JSON = {"name": "json", "encoding": "utf-8", "records": None}
JSONL = {"name": "jsonl", "encoding": "utf-8"}
HEADERLESS = {"label": "0", "text": "1"}


class Reader:
    """Writes bytes to a file, reads them through the source, keeps rows and rejections."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.rejections: list = []

    def __call__(self, name: str, data: bytes | str, kind: str = "labelled", **fields) -> list[dict]:
        path = self.folder / name
        path.write_bytes(data.encode() if isinstance(data, str) else data)
        return self.read(str(path), kind, **fields)

    def read(self, path: str, kind: str = "labelled", notes: list[str] | None = None, **fields) -> list[dict]:
        spelled = {
            "sha256": None,
            "columns": {},
            "labels": {},
            "language": "en",
            "split": None,
            "format": CSV,
        }
        entry = files.Settings.model_validate({"path": path, "kind": kind} | spelled | fields)
        self.rejections = []
        log = RowLog("mine", self.rejections.extend)
        rows = [row for _, table in files.read(entry, "mine", log) for row in table.to_pylist()]
        log.flush()
        assert log.accepted[kind] == len(rows)
        if notes is not None:
            notes += log.notes
        return rows

    def reasons(self) -> list[tuple[int, str]]:
        return [(row.line, row.reason) for row in self.rejections]


def texts(rows):
    return [row["text"] for row in rows]
