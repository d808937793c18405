"""A bit that turned over between two stages is used nowhere: every reader of the file says so in one sentence.

Lost otherwise: DVC takes a file for unchanged while its size and times are, so a model would be trained on, or approved
for, other bytes than its gates saw. Counts: `python -m tests.torture.flipped_bits`.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline import files, integrity
from pipeline.errors import UserError
from tests import damage
from tests.damage import BOTH, CHAT, MODELS, SPAM

FILES = [
    *(f"data/raw/{name}" for name in ("documents.parquet", "labelled.parquet", "instructions.parquet",
                                      "preferences.parquet", "rejections.parquet", "provenance.json", "ledger.json",
                                      "truth.json", "manifest.json")),
    *(f"data/tokens/{name}" for name in ("ids.bin", "index.parquet", "meta.json", "manifest.json",
                                         "tokenizer/ranks.tiktoken", "tokenizer/tohum-tokenizer.json")),
    *(f"data/samples/{name}" for name in ("documents/train.bin", "documents/train.parquet", "documents/test.bin",
                                          "documents/meta.json", "labelled/train.parquet", "labelled/test.parquet",
                                          "instructions/train.parquet", "instructions/test.parquet",
                                          "preferences/test.parquet", "removed.parquet", "ledger.json",
                                          "manifest.json")),
    "data/tickets/raw/documents.json", "data/tickets/raw/preferences.json", "data/tickets/tokens/documents.json",
    "data/tickets/samples/documents.json", "data/tickets/samples/labelled.json",
    *(f"models/{name}/{part}" for name in MODELS for part in ("model.safetensors", "config.json", "tohum.json",
                                                              "ranks.tiktoken", "manifest.json")),
    f"models/{SPAM}/adapter/adapter_model.safetensors", f"models/{SPAM}/language/head.safetensors",
    *(f"reports/evaluation/{name}/{part}.json" for name in MODELS for part in ("metrics", "details")),
    *(f"reports/evaluation/{name}/outcomes.parquet" for name in (SPAM, CHAT)),
    *(f"reports/training/{name}.json" for name in ("base", CHAT, BOTH)), "reports/training/base.csv",
    "reports/training/base.hashes.json",
    "reports/gates/raw/verdict.json", "reports/gates/samples/verdict.json", "reports/gates/base/verdict.json",
    "reports/gates/base/page.html",
]  # fmt: skip
CASES = [(path, stage) for path in FILES for stage in damage.readers(Path(path))]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        damage.finish(folder)
        yield folder


def test_cases_cover_every_kind_of_file_and_reader() -> None:
    assert len(CASES) > 100
    assert {stage for _, stage in CASES} == set(damage.STAGES) - {"download"}


@pytest.mark.parametrize(("path", "stage"), CASES, ids=[f"{path}-{stage}" for path, stage in CASES])
def test_stage_refuses_a_flipped_bit(path: str, stage: str, finished: Path) -> None:
    place = Path(path)
    with damage.flipped(place, byte=place.stat().st_size // 2, bit=2), pytest.raises(UserError) as said:
        damage.run(stage)
    assert path in str(said.value) or place.name == "manifest.json", said.value
    assert "dvc checkout" in str(said.value) or "dvc repro" in str(said.value)
    assert "\n" not in str(said.value)


@pytest.mark.usefixtures("finished")
def test_require_intact_names_both_hashes_and_the_next_step() -> None:
    place = Path("data/raw/documents.parquet")
    expected = files.sha256_of(place)
    with damage.flipped(place, byte=100, bit=0), pytest.raises(UserError) as said:
        damage.run("tokenize")
    assert re.match(
        rf"{place}: sha256 is [0-9a-f]{{64}}, not what manifest.json says \({expected}\); .*delete {place} and run "
        rf"`dvc checkout {place}`",
        str(said.value),
    )


@pytest.mark.usefixtures("finished")
def test_stages_run_again_on_restored_files() -> None:
    """The refusals above are about the flipped bit and nothing else."""
    before = {path: files.sha256_of(path) for path in damage.outs(Path()) if "runs" not in path.parts}
    for stage in (
        "validate raw",
        "tokenize",
        "validate tokens",
        "sample",
        "validate samples",
        "evaluate base",
        "report",
    ):
        damage.run(stage)
    assert {path: files.sha256_of(path) for path in before} == before


@pytest.mark.usefixtures("finished")
def test_metrics_contain_only_numbers() -> None:
    """`dvc metrics show` would make a column of every hash in them."""
    found = [*Path("reports/evaluation").glob("*/metrics.json"), *(Path(f"reports/training/{m}.json") for m in MODELS)]
    assert len(found) == 2 * len(MODELS)
    for path in found:
        assert {type(value) for value in files.read_json(path).values()} <= {int, float}


@pytest.mark.usefixtures("finished")
def test_require_admitted_refuses_a_ticket_for_other_bytes() -> None:
    """data/raw was made again, and its gate has not judged it yet."""
    place = Path("data/tickets/raw/documents.json")
    ticket = place.read_bytes()
    files.write_json(place, integrity.ticket("raw", "documents", "0" * 64))
    try:
        with pytest.raises(UserError, match=r"admits sha256 0{64}, .*documents\.parquet has .*dvc repro"):
            damage.run("tokenize")
    finally:
        place.write_bytes(ticket)


@pytest.mark.usefixtures("finished")
def test_admits_covers_exactly_the_files_of_a_kind(tmp_path: Path) -> None:
    admitted = integrity.admits("samples")
    with damage.flipped(Path("data/samples/labelled/train.parquet"), byte=9, bit=1):
        now = integrity.admits("samples")
    assert {kind for kind in admitted if admitted[kind] != now[kind]} == {"labelled"}
    before = integrity.admits("tokens")
    with damage.flipped(Path("data/tokens/meta.json"), byte=9, bit=1):
        assert integrity.admits("tokens") != before


def test_read_json_detects_every_flipped_bit(tmp_path: Path) -> None:
    place = tmp_path / "metrics.json"
    value = {"accuracy": 0.1 + 0.2, "loss_nats": 1.5, "şehir": 3.0}
    integrity.write_json(place, value)
    assert integrity.read_json(place) == value
    for byte in range(place.stat().st_size):
        for bit in range(8):
            with damage.flipped(place, byte, bit), pytest.raises(UserError, match=r"metrics\.json"):
                integrity.read_json(place)


def test_require_intact_accepts_files_without_hashes(tmp_path: Path) -> None:
    """Somebody's own model folder, and a table made by hand, have no recorded hash."""
    files.write_json(tmp_path / "metrics.json", {"accuracy": 0.5})
    assert integrity.read_json(tmp_path / "metrics.json") == {"accuracy": 0.5}
    integrity.require_intact(tmp_path / "metrics.json")


@pytest.mark.parametrize("text", ["[]", "", "\xff", '{"../../outside": "0"}', '{"a.bin": 5}', '{"a.bin": null}'])
def test_require_intact_refuses_malformed_manifests(text: str, tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(b"a")
    (tmp_path / "manifest.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError, match=r"manifest\.json"):
        integrity.require_intact(tmp_path)
