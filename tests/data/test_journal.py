"""The journal: durable before acknowledged, bounded, whole after kills and full disks, without whoever is erased."""

import errno
import os
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from pipeline import segments
from pipeline.data import journal as module
from pipeline.data import snapshot
from pipeline.data.journal import Damage, Journal, NotKeptError, pseudonym, read, secret, standing, superseded
from pipeline.data.journal_status import status
from tests.torture import journal as torture

TURKISH = "İstanbul'da ışık 🌙, café et cafe\u0301"


def request(identity: str = "req-1", user: str = "u-a", **fields: Any) -> dict[str, Any]:
    given = {"kind": "request", "id": identity, "model": "chat", "model_sha256": "0" * 64, "task": "chat", "user": user}
    return given | {"consent": "store", "text": TURKISH, "answers": [{"text": "evet", "finish": "stop"}]} | fields


def rating(identity: str, of: str = "req-1", rater: str = "u-a", form: str = "thumb", value: Any = "up") -> Any:
    fields = {"kind": "rating", "id": identity, "request": of, "rater": rater, "form": form, "value": value}
    return fields | {"consent": "store"}


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No waits for the disk, in tests of many appends that are about something else."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


def ids(folder: Path, **options: Any) -> list[str]:
    return [entry.get("id", entry["kind"]) for entry in read(folder, **options)]


def test_append_keeps_text_and_numbers_entries(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal")
    for entry in (request(), request("req-2", text="\ud800 half a pair"), rating("rat-1")):
        journal.append(entry)
    first, second, third = read(tmp_path / "journal")
    assert first["text"] == TURKISH
    assert second["text"] == "\ud800 half a pair"
    assert [first["n"], second["n"], third["n"]] == [1, 2, 3]
    assert first["time"].endswith("Z")
    assert list(read(tmp_path / "journal", after=2)) == [third]
    assert (tmp_path / "journal").stat().st_mode & 0o077 == 0
    assert all(path.stat().st_mode & 0o077 == 0 for path in (tmp_path / "journal").iterdir())


def test_append_shares_fsyncs_and_returns_after_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(tmp_path)
    synced: list[int] = []
    acknowledged: list[bool] = []
    begun = threading.Barrier(17)
    real = os.fsync

    def fsync(descriptor: int) -> None:
        if not synced:
            begun.wait()  # the first commit lasts until all others wait for theirs
        real(descriptor)
        synced.append(os.fstat(descriptor).st_size)

    def client(number: int) -> None:
        if number:
            begun.wait()
        journal.append(rating(f"rat-{number}"))
        acknowledged.append(synced[-1] > 0)

    monkeypatch.setattr(os, "fsync", fsync)
    threads = [threading.Thread(target=client, args=(number,)) for number in range(17)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ids(tmp_path)) == 17
    assert len(synced) < 17
    assert all(acknowledged)


@pytest.mark.parametrize(
    "entry",
    [
        {"kind": "remark"},
        {"kind": "rating", "id": "rat-1"},
        rating("rat-1", form="stars"),
        rating("rat-1", value="sideways"),
        rating("rat-1", form="choice", value=True),
        request(settings={"temperature": float("nan")}),
    ],
)
def test_append_refuses_entries_without_their_fields(tmp_path: Path, entry: dict[str, Any]) -> None:
    journal = Journal(tmp_path)
    with pytest.raises(ValueError):  # noqa: PT011 - JSON's own for NaN
        journal.append(entry)
    assert ids(tmp_path) == []


def test_append_skips_a_torn_last_line(tmp_path: Path) -> None:
    Journal(tmp_path).append(rating("rat-1"))
    (segment,) = segments.segments(tmp_path)
    with segment.path.open("ab") as stream:
        stream.write(b'{"n": 2, "kind": "rating", "id": "rat-torn')
    assert ids(tmp_path) == ["rat-1"]
    Journal(tmp_path).append(rating("rat-2"))
    assert ids(tmp_path) == ["rat-1", "rat-2"]


def test_read_names_a_damaged_line_and_continues(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    for number in range(3):
        journal.append(request(f"req-{number}"))
    (segment,) = segments.segments(tmp_path)
    content = bytearray(segment.path.read_bytes())
    content[content.index(b"req-1") + 4] ^= 1
    segment.path.write_bytes(content)
    found: list[Damage] = []
    assert ids(tmp_path, on_damage=found.append) == ["req-0", "req-2"]
    assert found == [Damage(segment.path, 2)]
    Journal(tmp_path).append(rating("rat-3"))
    assert [entry["n"] for entry in read(tmp_path, on_damage=found.append)] == [1, 3, 4]


@pytest.mark.parametrize("call", ["write", "fsync"])
def test_append_says_not_kept_and_tears_nothing_on_a_full_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    journal = Journal(tmp_path)
    journal.append(rating("rat-1"))
    real = os.write

    def full(descriptor: int, *content: Any) -> int:
        if content:
            real(descriptor, bytes(content[0])[:20])
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, call, full)
        with pytest.raises(NotKeptError, match="rat-2 was not kept: No space left on device"):
            journal.append(rating("rat-2"))
    (segment,) = segments.segments(tmp_path)
    assert segment.path.read_bytes().endswith(b"}\n")
    journal.append(rating("rat-3"))
    assert ids(tmp_path) == ["rat-1", "rat-3"]


def test_append_fails_for_all_that_wait_when_their_commit_breaks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal(tmp_path)
    begun = threading.Barrier(3)
    said: list[str] = []

    def broken(batch: list[Any]) -> None:
        if len(batch) == 1 and not said:
            said.append("first")
            begun.wait()
            while len(journal._queue) < 2:
                time.sleep(0.001)
        raise RuntimeError("broken")

    def client(number: int) -> None:
        if number:
            begun.wait()
        try:
            journal.append(rating(f"rat-{number}"))
            said.append("kept")
        except (NotKeptError, RuntimeError):
            said.append("not kept")

    monkeypatch.setattr(journal, "_write", broken)
    threads = [threading.Thread(target=client, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert said == ["first", *["not kept"] * 3]
    (tmp_path / ".lock").write_bytes(b"\0" * 20)  # as a power cut may leave it
    Journal(tmp_path).append(rating("rat-after"))
    assert ids(tmp_path) == ["rat-after"]


def test_two_processes_journals_share_one_sequence(tmp_path: Path, quick: None) -> None:
    first, second = Journal(tmp_path, 1 << 16, 0), Journal(tmp_path, 1 << 16, 0)
    for number in range(60):
        (first if number % 3 else second).append(request(f"req-{number}"))
    entries = list(read(tmp_path))
    assert [entry["id"] for entry in entries] == [f"req-{number}" for number in range(60)]
    assert [entry["n"] for entry in entries] == list(range(1, 61))
    assert len(segments.segments(tmp_path)) > 2


def test_limit_drops_old_requests_but_no_rating_that_was_not_exported(tmp_path: Path, quick: None) -> None:
    limit = 1 << 16
    journal = Journal(tmp_path, limit, 0)
    journal.append(request("req-rated"))
    journal.append(rating("rat-1", "req-rated"))
    for number in range(400):
        journal.append(request(f"req-{number}"))
    held = ids(tmp_path)
    assert held[:2] == ["req-rated", "rat-1"]
    assert held[-1] == "req-399"
    assert "req-0" not in held
    assert sum(segment.path.stat().st_size for segment in segments.segments(tmp_path)) <= limit
    journal.append({"kind": "export", "file": "inputs/ratings.jsonl", "file_sha256": "0" * 64})
    for number in range(400, 1200):
        journal.append(request(f"req-{number}"))
    assert "req-rated" not in ids(tmp_path)


def test_limit_keeps_a_rating_that_arrived_while_the_others_were_exported(
    tmp_path: Path, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal, real = Journal(tmp_path / "journal", 1 << 16, 0), snapshot._about
    for entry in (request("req-early"), rating("rat-early", "req-early"), request("req-late")):
        journal.append(entry)

    def slow(folder: Path) -> Any:
        found = real(folder)
        journal.append(rating("rat-late", "req-late"))
        return found

    monkeypatch.setattr(snapshot, "_about", slow)
    written = snapshot.write(tmp_path / "journal", tmp_path / "ratings.jsonl")
    assert (written.ratings, written.until) == (1, 3)
    journal.append(snapshot.mark(written))
    assert status(tmp_path / "journal").not_exported == 1
    for number in range(800):
        journal.append(request(f"req-{number}"))
    held = ids(tmp_path / "journal")
    assert {"req-late", "rat-late"} <= {*held}
    assert "req-early" not in held


def test_limit_refuses_entries_where_only_unexported_ratings_are_left(tmp_path: Path, quick: None) -> None:
    journal = Journal(tmp_path, 1 << 14, 0)
    kept: list[str] = []

    def rate_on() -> None:
        for number in range(1000):
            journal.append(rating(f"rat-{number}"))
            kept.append(f"rat-{number}")

    with pytest.raises(NotKeptError, match="tohum journal export"):
        rate_on()
    assert ids(tmp_path) == kept
    journal.append({"kind": "export", "file": "inputs/ratings.jsonl", "file_sha256": "0" * 64})
    journal.append(rating("rat-after"))
    assert ids(tmp_path)[-2:] == ["export", "rat-after"]


def test_age_drops_requests_after_keep_days(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def days_ago(days: int) -> None:
        past = (datetime.now(UTC) - timedelta(days=days)).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        monkeypatch.setattr(module, "now", lambda: past)

    for days in (40, 20, 0):
        days_ago(days)
        journal = Journal(tmp_path, 1 << 20, 30)
        journal.append(request(f"req-{days}"))
        if days == 40:
            journal.append(request("req-rated"))
            journal.append(rating("rat-1", "req-rated"))
    assert ids(tmp_path) == ["req-rated", "rat-1", "req-20", "req-0"]


def test_erase_takes_out_a_user_everywhere(tmp_path: Path, quick: None) -> None:
    journal, beside = Journal(tmp_path, 1 << 16, 0), Journal(tmp_path, 1 << 16, 0)
    for number in range(40):
        journal.append(request(f"req-a{number}", "u-a"))
        beside.append(request(f"req-b{number}", "u-b"))
        journal.append(rating(f"rat-on-a{number}", f"req-a{number}", "u-b"))
        journal.append(rating(f"rat-by-a{number}", f"req-b{number}", "u-a"))
        journal.append({"kind": "label", "request": f"req-a{number}", "label": "ham", "by": "file"})
    last = [entry["n"] for entry in read(tmp_path)][-1]
    first, *_ = segments.segments(tmp_path)
    damaged = first.path.read_bytes().replace(b"evet", b"evef", 1)
    first.path.write_bytes(damaged)
    first.path.with_name(f".{first.path.name}.tmp").write_bytes(damaged)  # left by a process that was killed
    assert beside.erase("u-a") == 160
    journal.append(request("req-after", "u-b"))
    entries = list(read(tmp_path, on_damage=lambda damage: pytest.fail(str(damage))))
    assert [entry.get("id") for entry in entries[:-2]] == [f"req-b{number}" for number in range(40)]
    assert entries[-2]["kind"] == "erasure"
    assert entries[-2]["n"] > last
    text = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert text.count(b"u-a") == 1
    assert journal.erase("u-a") == 0


def test_standing_ratings_follow_later_ones_and_undo() -> None:
    said = [
        rating("rat-1", value="up"),
        rating("rat-2", value="down"),  # supersedes rat-1
        rating("rat-2", value="down"),  # the same one, sent again
        rating("rat-3", form="choice", value=0),
        rating("rat-4", rater="u-b", value="up"),
        rating("rat-5", form="correction", value=TURKISH),
        rating("rat-6", form="undo", value=None),  # takes back the correction, its rater's latest
        rating("rat-7", form="undo", value="rat-3"),
        rating("rat-8", rater="u-c", form="undo", value="thumb"),  # of a rater who has given none
    ]
    assert [entry["id"] for entry in standing(said)] == ["rat-2", "rat-4"]
    assert superseded(said) == {"rat-1", "rat-3", "rat-5"}
    again = [*said, rating("rat-9", form="choice", value=1), rating("rat-10", form="undo", value="thumb")]
    assert [entry["id"] for entry in standing(again)] == ["rat-4", "rat-9"]


def test_pseudonym_is_of_this_project_only(tmp_path: Path) -> None:
    here, there = secret(tmp_path / "a"), secret(tmp_path / "b")
    assert pseudonym("ayşe", here) == pseudonym("ayşe", secret(tmp_path / "a"))
    assert pseudonym("ayşe", here) != pseudonym("ayşe", there)
    assert "ayşe" not in pseudonym("ayşe", here)
    assert (tmp_path / "a").stat().st_mode & 0o077 == 0


def test_acknowledged_ratings_survive_kills(tmp_path: Path) -> None:
    found = torture.run(5, tmp_path)
    assert found["misses"] == []
    assert found["ratings_in_the_journal"] > 0
