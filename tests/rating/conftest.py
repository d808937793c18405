"""A project with one tiny model and prompts, for all tests of rating."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from pipeline.data.records import record_id, schema
from pipeline.files import write_table
from pipeline.paths import CODE as ROOT
from pipeline.rating.pairs import Model
from tests.registries import make_model

QUESTIONS = [f"Soru {number}: ne diyelim?" for number in range(40)]
HELD_OUT = "Test sorusu?"


def write_records(kind: str, split: str, rows: list[dict[str, str]]) -> None:
    """A split of data/samples; `input` is empty."""
    content = {"instructions": "output", "preferences": "chosen"}[kind]
    rows = [
        {"id": record_id(kind, row["instruction"], row[content]), "source": "test", "language": "tr", "input": "",
         "origin": f"test:{number}", **row} for number, row in enumerate(rows)
    ]  # fmt: skip
    write_table(Path(f"data/samples/{kind}/{split}.parquet"), pa.Table.from_pylist(rows, schema=schema(kind)))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project; its models are read once."""
    folder = tmp_path_factory.mktemp("rating")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        make_model("chat-full")
        make_model("spam-full")
        shutil.copy(ROOT / "params.yaml", "params.yaml")
        write_records("instructions", "train", [{"instruction": text, "output": "x"} for text in QUESTIONS])
        write_records("instructions", "test", [{"instruction": HELD_OUT, "output": "x"}])
    return folder


@pytest.fixture
def project(made: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The project as the working folder; inputs/ and params.yaml are as at first afterwards."""
    monkeypatch.chdir(made)
    yield made
    shutil.rmtree("inputs", ignore_errors=True)
    shutil.rmtree("data/samples/preferences", ignore_errors=True)
    shutil.copy(ROOT / "params.yaml", "params.yaml")


@pytest.fixture
def model(project: Path) -> Model:
    return Model.read(project / "models/chat-full")
