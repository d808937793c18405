"""Observations: counts without text, on disk after a kill, readable past damaged lines."""

import json
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest

from pipeline.errors import UserError
from pipeline.watching.observations import Facts, ObservationLog, Vocabulary, folded_words, observe, read

NOON = datetime(2026, 11, 29, 12, tzinfo=UTC)
KNOWN = Vocabulary.of(["Ayşe lives in Izmir", "Ayşe Iğdır'da yaşıyor", "Call 0555 now"])


def test_observe_has_no_word_of_the_text_when_all_facts_are_given() -> None:
    text = "Gizlilik şarttır: Zeynep'in telefonu 05551234567"
    line = json.dumps(
        observe(text, Facts(request="req-1", model="chat", label="ham"), KNOWN).plain(), ensure_ascii=False
    )
    assert not [word for word in folded_words(text) if word in line.casefold()]
    assert "05551234567" not in line


def test_observe_counts_words_outside_the_vocabulary_when_case_and_numbers_differ() -> None:
    assert observe("AYŞE IĞDIR'DA YAŞIYOR", None, KNOWN).unknown_words == 0.0
    assert observe("Call 0777 now", None, KNOWN).unknown_words == 0.0
    assert observe("Bugün Ayşe", None, KNOWN).unknown_words == 0.5
    assert observe("!?", None, KNOWN).unknown_words is None
    assert observe("Bugün Ayşe").unknown_words is None


def test_observe_counts_the_last_message_of_the_user_when_a_conversation_is_asked() -> None:
    messages: list[dict[str, object]] = [
        {"role": "user", "content": "a long first message"},
        {"role": "assistant", "content": "yes"},
        {"role": "user", "content": [{"type": "text", "text": "and now"}]},
    ]
    seen = observe(messages, Facts(tokens=4), KNOWN)
    assert (seen.characters, seen.words, seen.turns, seen.fertility) == (7, 2, 2, 2.0)
    assert observe([{"role": "system", "content": "be kind"}]).turns == 0


def test_observe_measures_the_distance_from_the_centre_when_an_embedding_is_given() -> None:
    vocabulary = Vocabulary((), centre=[2.0, 0.0])
    assert observe("a", Facts(embedding=[0.0, 3.0]), vocabulary).distance == pytest.approx(1.0)
    assert observe("a", Facts(embedding=[5.0, 0.0]), vocabulary).distance == pytest.approx(0.0)
    assert observe("a", Facts(embedding=[1.0, 0.0, 0.0]), vocabulary).distance is None


def test_vocabulary_is_the_same_when_read_again(tmp_path: Path) -> None:
    assert Vocabulary.read(tmp_path) is None
    Vocabulary(("bir", "iki"), centre=[3.0, 4.0]).write(tmp_path)
    again = Vocabulary.read(tmp_path)
    assert again is not None
    assert again.words == {"bir", "iki"}
    assert again.centre is not None
    assert again.centre.tolist() == [0.6, 0.8]
    (tmp_path / "vocabulary.json").write_text("[")
    with pytest.raises(UserError, match=r"vocabulary.json: damaged; remove it and run `tohum watch`"):
        Vocabulary.read(tmp_path)


def test_log_keeps_every_line_when_threads_append(tmp_path: Path) -> None:
    log = ObservationLog(tmp_path)

    def append(thread: int) -> None:
        for i in range(50):
            log.append(observe("kısa mesaj", Facts(request=f"{thread}-{i}", model="m"), KNOWN, NOON))

    threads = [threading.Thread(target=append, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    log.close()
    assert {seen.request for seen in read(tmp_path)} == {f"{t}-{i}" for t in range(4) for i in range(50)}


def test_read_skips_a_line_when_it_is_torn_or_damaged(tmp_path: Path) -> None:
    first, second = (observe("bir", Facts(request=name, model="m"), None, NOON) for name in ("a", "b"))
    log = ObservationLog(tmp_path)
    log.append(first)
    log.close()
    path = tmp_path / "2026-11-29.jsonl"
    with path.open("ab") as file:
        file.write(b'{"time":"2026-11-29T12:00:00.000Z","requ')
    log.append(second)
    log.close()
    with path.open("ab") as file:
        file.write(b"\xff\xfe\n[1]\n")
        file.write(json.dumps(first.plain() | {"characters": "ten"}).encode() + b"\n")
        file.write(json.dumps({"time": first.time, "request": "c", "model": "m", "language": "tr"}).encode() + b"\n")
    assert list(read(tmp_path)) == [first, second]


def test_read_returns_one_model_after_a_time_when_asked(tmp_path: Path) -> None:
    log = ObservationLog(tmp_path)
    for day, model in ((27, "a"), (28, "b"), (29, "a")):
        log.append(observe("bir", Facts(model=model), None, NOON.replace(day=day)))
    assert [seen.time[:10] for seen in read(tmp_path, "a")] == ["2026-11-27", "2026-11-29"]
    assert [seen.model for seen in read(tmp_path, since="2026-11-27T12:00:00.000Z")] == ["b", "a"]


def test_log_removes_old_days_when_a_day_begins(tmp_path: Path) -> None:
    log = ObservationLog(tmp_path, keep_days=2)
    for day in (25, 26, 27, 28):
        log.append(observe("bir", None, None, NOON.replace(day=day)))
    assert sorted(path.stem for path in tmp_path.iterdir()) == ["2026-11-26", "2026-11-27", "2026-11-28"]
