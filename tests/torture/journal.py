"""A server's journal under load, its process killed: acknowledged ratings are there once, whatever the moment.

Each try is a process with eight clients that rate without pause, in small segments, so that segments are begun and old
requests dropped meanwhile. It is killed by SIGKILL at a random moment; the next process continues in the same folder,
and its clients first send again what was not acknowledged. Now and then the kill leaves half a line, as a power cut
does, or a user's lines are being erased.
"""

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

PROMISE = "An acknowledged rating is in the journal once, at whatever moment the server is killed"
COUNT = 50
CLIENTS = 8
_LIMIT = 1 << 21

SERVER = """
import os, sys, threading
from pathlib import Path
from pipeline.data.journal import Journal

journal = Journal(Path("journal"), {limit}, 0)
start, clients, again = int(sys.argv[1]), {clients}, sys.argv[2:]

def rating(identity):
    request = {{"kind": "request", "id": f"req-{{identity}}", "model": "chat", "model_sha256": "0" * 64, "task": "chat",
               "user": "u-kept", "consent": "store", "text": "ışık " * 20, "answers": []}}
    value = {{"kind": "rating", "id": identity, "request": f"req-{{identity}}", "rater": "u-kept", "form": "thumb",
             "value": "up", "consent": "store"}}
    journal.append(request)
    journal.append(value)
    os.write(1, f"{{identity}}\\n".encode())

def client(number):
    count = start
    for identity in again[number::clients]:
        rating(identity)
    while True:
        identity = f"rat-{{number}}-{{count}}"
        os.write(2, f"{{identity}}\\n".encode())
        rating(identity)
        count += 1

for number in range(clients):
    threading.Thread(target=client, args=(number,)).start()
"""


def run(count: int, folder: Path) -> dict[str, Any]:
    """Kills `count` servers one after the other; every lost or doubled rating is a miss."""
    from pipeline.data.journal import Journal, read, standing

    rng = random.Random(25)
    acknowledged: set[str] = set()
    again: list[str] = []
    misses: list[str] = []
    journal, erased = folder / "journal", 0
    for number in range(count):
        sent, got = _killed(folder, number * 1_000_000, again, rng)
        acknowledged |= set(got)
        again = [identity for identity in dict.fromkeys([*again, *sent]) if identity not in acknowledged]
        if number % 3 == 1:
            _tear(journal, rng)
        if number % 5 == 2:
            erased += _erased_while_killed(folder, rng)
        entries = list(read(journal, on_damage=lambda damage: misses.append(str(damage))))
        held = [entry["id"] for entry in standing(entries) if entry["rater"] == "u-kept"]
        lost = acknowledged - set(held)
        numbers = [entry["n"] for entry in entries]
        if lost or len(set(held)) < len(held) or numbers != sorted(set(numbers)):
            misses.append(
                f"kill {number}: {len(lost)} lost, {len(held) - len(set(held))} doubled, numbers {numbers[-3:]}"
            )
        if number % 10 == 9:  # exported ratings may go from now on, so what is kept stays bounded
            Journal(journal, _LIMIT, 0).append({"kind": "export", "file": "inputs/x.jsonl", "file_sha256": "0" * 64})
            acknowledged.clear()
    return {
        "tried": count, "held": count - len(misses), "ratings_in_the_journal": len(held), "unacknowledged": len(again),
        "misses": misses[:5],
    }  # fmt: skip


def _killed(folder: Path, start: int, again: list[str], rng: random.Random) -> tuple[list[str], list[str]]:
    """Starts a server, kills it; the ratings that its clients sent and those that were acknowledged."""
    code = SERVER.format(limit=_LIMIT, clients=CLIENTS)
    with (folder / "sent").open("w+b") as sent, (folder / "got").open("w+b") as got:
        server = subprocess.Popen(
            [sys.executable, "-c", code, str(start), *again],
            cwd=folder,
            stdout=got,
            stderr=sent,
            env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
        )
        while os.fstat(got.fileno()).st_size == 0 and server.poll() is None:
            time.sleep(0.005)
        time.sleep(rng.uniform(0, 0.4))
        assert server.poll() is None, (folder / "sent").read_text()[-2000:]
        server.send_signal(signal.SIGKILL)
        server.wait()
    texts = [(folder / name).read_text().split("\n")[:-1] for name in ("sent", "got")]
    return texts[0], texts[1]


def _tear(journal: Path, rng: random.Random) -> None:
    """Appends the beginning of a line, which no process has acknowledged."""
    from pipeline import segments

    last = segments.segments(journal)[-1].path
    line = segments.sealed(10**9, segments.body({"kind": "rating", "id": "rat-torn", "text": "İ" * 50}))
    with last.open("ab") as stream:
        stream.write(line[: rng.randrange(1, len(line))])


def _erased_while_killed(folder: Path, rng: random.Random) -> int:
    """Another user's ratings come, and the process that erases them is killed; a second one finishes."""
    from pipeline.data.journal import Journal, read

    code = f"""
from pathlib import Path
from pipeline.data.journal import Journal
journal = Journal(Path("journal"), {_LIMIT}, 0)
for i in range(20):
    journal.append({{"kind": "rating", "id": f"rat-gone-{{i}}", "request": "req-gone", "rater": "u-gone",
                    "form": "thumb", "value": "up", "consent": "store"}})
print("rated", flush=True)
journal.erase("u-gone")
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=folder,
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert process.stdout is not None
    process.stdout.readline()
    time.sleep(rng.uniform(0, 0.02))
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    journal = folder / "journal"
    erased = Journal(journal, _LIMIT, 0).erase("u-gone")
    assert not [entry for entry in read(journal) if entry.get("rater") == "u-gone"]
    return erased


if __name__ == "__main__":
    from tests.torture import main

    main(run, COUNT, PROMISE)
