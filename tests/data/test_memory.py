"""If this fails, a corpus that is ten times as large needs ten times the memory, and a large one does not fit.

The full sizes are those of tests/bench/memory.py; here the growth per document is bounded. Each function runs in a fork
of a process that has imported everything, so that only what it takes itself is counted.
"""

import json
import os
import random
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.orchestration import guard
from pipeline.paths import CODE as ROOT

SIZES = (2_000, 20_000)
# Bytes of growth per document, whose text has 560: holding it all took 1,900 to 4,800. What is left are row groups and
# sorts that 2,000 documents do not fill, 80 to 390.
BOUND = 800
FUNCTIONS = ("raw", "tokens", "sample", "samples")


def made(data: Path, documents: int) -> None:
    """data/raw and data/tokens with so many documents, one in ten repeating another, and few other records."""
    from pipeline import config, files
    from pipeline.data.collect import REJECTIONS
    from pipeline.data.records import SCHEMAS, record_id
    from pipeline.data.tokens import tokenize

    draw = random.Random(1)
    words = ["".join(draw.choices("abcdefghıklmnoöprsştuüyz", k=draw.randint(2, 9))) for _ in range(500)]
    texts = [" ".join(draw.choices(words, k=90)) for _ in range(documents * 9 // 10)]
    texts += [text if i % 2 else text.rpartition(" ")[0] for i, text in enumerate(texts[: documents - len(texts)])]
    for kind, schema in SCHEMAS.items():
        chosen = texts if kind == "documents" else texts[:50] if kind == "labelled" else []
        columns = {
            "id": [record_id(kind, text, *["ham"] * (kind == "labelled")) for text in chosen],
            "source": ["made"] * len(chosen),
            "language": ["tr"] * len(chosen),
            "split": [None] * len(chosen),
            "origin": [f"made:{i}" for i in range(len(chosen))],
            "text": chosen,
            "label": ["ham"] * len(chosen),
            "bits": [None] * len(chosen),
        }
        table = pa.table({name: columns.get(name, []) for name in schema.names}, schema=schema)
        (data / "raw").mkdir(parents=True, exist_ok=True)
        pq.write_table(table, data / "raw" / f"{kind}.parquet", row_group_size=SIZES[0])
    files.write_table(data / "raw" / "rejections.parquet", REJECTIONS.empty_table())
    kept = {"documents": {"kept": documents}, "labelled": {"kept": 50}}
    files.write_json(data / "raw" / "ledger.json", {"sources": {"made": kept}})
    files.write_json(data / "raw" / "provenance.json", {"sources": {}})
    params = config.load(ROOT / "params.yaml")
    settings = params.tokenize.model_copy(update={"vocab_size": 600})
    tokenize(settings, params.split, data / "raw" / "documents.parquet", data / "tokens")


def functions(data: Path) -> dict[str, Callable[[], object]]:
    """The measured functions on one folder; `samples` reads the output of `sample`."""
    from pipeline import config, tokenizer  # noqa: F401  # imported before the fork
    from pipeline.data.samples import sample
    from pipeline.gates import raw, samples, tokens

    params = config.load(ROOT / "params.yaml")
    gates = {gate.__name__.rpartition(".")[2]: gate for gate in (raw, tokens, samples)}
    found: dict[str, Callable[[], object]] = {
        name: lambda gate=gate, name=name: gate.profile(gate.Settings.model_validate(params.gates[name]), data)
        for name, gate in gates.items()
    }
    return found | {"sample": lambda: sample(params, data / "raw", data / "tokens", data / "samples", progress=False)}


def growth(function: Callable[[], object]) -> int:
    """Bytes by which the peak of a fork of this process rises when the function runs in it."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        function()
        os.write(writer, str((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        answer = pipe.read()
    os.waitpid(child, 0)
    return int(answer)


@pytest.mark.skipif(sys.platform != "linux", reason="the peak of a fork starts at its own size on Linux alone")
def test_data_stages_use_bounded_memory_for_more_documents(tmp_path: Path) -> None:
    folders = [tmp_path / str(size) for size in SIZES]
    for folder, size in zip(folders, SIZES, strict=True):
        made(folder, size)
    command = [sys.executable, "-m", "tests.data.test_memory", *map(str, folders)]
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | guard.ENVIRONMENT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    small, large = json.loads(done.stdout)
    more = {name: (large[name] - small[name]) / (SIZES[1] - SIZES[0]) for name in FUNCTIONS}
    assert set(more) == set(small)
    assert all(bytes_each < BOUND for bytes_each in more.values()), f"bytes per document: {more}"


if __name__ == "__main__":
    made_of = [functions(Path(name)) for name in sys.argv[1:]]
    print(json.dumps([{name: growth(measured[name]) for name in FUNCTIONS} for measured in made_of]))
