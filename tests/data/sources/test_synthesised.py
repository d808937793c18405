"""Question-answer pairs about documents: whatever the endpoint does, no answer is lost, altered or asked for twice."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

from pipeline import config
from pipeline.config.params import Download
from pipeline.data.collect import collect, describe
from pipeline.data.sources._passages import pairs, passages
from pipeline.errors import UserError
from pipeline.paths import CODE
from tests.data.sources.chat_server import ChatServer, cut, passage_of, quoting, raw, says, slow, status

TURKISH = (
    "Iğdır'ın şeftalisi İstanbul'da ünlüdür. Ağrı Dağı 5137 metre yüksekliğindedir.\n\n"
    "Şair Ömer Çağlar ılık bir güz günü doğdu. Şiirlerini Üsküdar'da yazdı ve çok sevildi."
)
ENGLISH = "The mill was built in 1874 by Ada Moss. It burned down in the winter of 1901."
TXT = {"name": "txt", "encoding": "utf-8", "documents": "file", "separator": None, "max_characters": None}


def handbook(folder: Path, **fields) -> dict:
    return {
        "name": "files", "licence": "CC0-1.0", "consent": "synthetic", "weight": 1.0, "path": f"{folder}/*.txt",
        "sha256": None, "kind": "documents", "columns": {}, "labels": {}, "language": "auto", "split": None,
        "format": TXT,
    } | fields  # fmt: skip


def asking(address: str, **fields) -> dict:
    return {
        "endpoint": address, "model": "tiny", "key": None, "folder": None, "sha256": None, "temperature": 0.0,
        "max_tokens": 200, "seed": 1, "retries": 3, "timeout_s": 5.0, "concurrency": 2,
    } | fields  # fmt: skip


def synthesised(ask: dict, **fields) -> dict:
    return {
        "name": "synthesised", "licence": "CC0-1.0", "consent": "synthetic", "weight": 1.0, "of": "handbook",
        "passage_characters": 100, "passages": None, "pairs": 2, "passage_as_input": False, "by_document": False,
        "prompts": None, "ask": ask,
        "sha256": None,
    } | fields  # fmt: skip


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr("pipeline.data.sources._chat._FIRST_PAUSE_S", 0.01)
    running = ChatServer(quoting)
    yield running
    running.close()


@pytest.fixture
def run(server, tmp_path, monkeypatch):
    """Collects a handbook and the pairs about it in an empty project."""
    monkeypatch.chdir(tmp_path)
    texts = tmp_path / "inputs/handbook"
    texts.mkdir(parents=True)
    (texts / "en.txt").write_text(ENGLISH)
    (texts / "tr.txt").write_text(TURKISH)

    def running(*script, ask=None, documents=None, **fields):
        server.script, server.requests, server.headers = list(script), [], []
        faq = synthesised(asking(server.address, **(ask or {})), **fields)
        sources = {"handbook": handbook(Path("inputs/handbook"), **(documents or {})), "faq": faq}
        summary = collect(
            Download.model_validate({"forget": None, "sources": sources}), tmp_path / "raw", progress=False
        )
        return summary, pq.read_table(tmp_path / "raw/instructions.parquet").to_pylist()

    running.folder = tmp_path
    return running


def rejections(folder: Path) -> list[dict]:
    return pq.read_table(folder / "raw/rejections.parquet").to_pylist()


def test_synthesised_asks_in_the_language_of_each_passage_and_keeps_every_letter(run, server):
    summary, rows = run()
    assert [row["output"] for row in rows] == [
        "The mill was built in 1874 by Ada Moss.",
        "Iğdır'ın şeftalisi İstanbul'da ünlüdür.",
        "Şair Ömer Çağlar ılık bir güz günü doğdu.",
    ]
    assert [row["language"] for row in rows] == ["en", "tr", "tr"]
    assert sorted("Türkçe yaz" in prompt for prompt in server.prompts) == [False, True, True]
    assert all("Iğdır" in prompt or "Ömer" in prompt for prompt in server.prompts if "Türkçe yaz" in prompt)
    assert all("2 soru" in prompt or "2 questions" in prompt for prompt in server.prompts)
    assert summary["faq"]["rows"]["instructions"] == {"rows_in": 3, "kept": 3, "rejected": 0, "sampled_out": 0}


def test_synthesised_writes_the_passage_of_every_record_beside_the_records(run):
    _, rows = run()
    beside = pq.read_table(run.folder / "raw/passages.parquet").to_pylist()
    assert [row["id"] for row in beside] == [row["id"] for row in rows]
    assert [row["passage"] for row in beside] == [ENGLISH, *TURKISH.split("\n\n")]
    assert all(row["output"] in beside_row["passage"] for row, beside_row in zip(rows, beside, strict=True))
    assert [row["input"] for row in rows] == ["", "", ""]
    _, rows = run(passage_as_input=True)
    assert [row["input"] for row in rows] == [ENGLISH, *TURKISH.split("\n\n")]


def test_synthesised_asks_nothing_in_a_second_run_and_gives_equal_bytes(run, server):
    run()
    first = {path.name: path.read_bytes() for path in (run.folder / "raw").iterdir()}
    run()
    assert server.requests == []
    assert {path.name: path.read_bytes() for path in (run.folder / "raw").iterdir()} == first


@pytest.mark.parametrize("change", [{"seed": 2}, {"temperature": 0.5}, {"model": "other"}, {"max_tokens": 201}])
def test_synthesised_asks_anew_when_a_setting_decides_the_answer(run, server, change):
    run()
    run(ask=change)
    assert len(server.requests) == 3


@pytest.mark.parametrize("change", [{"retries": 9}, {"timeout_s": 9.0}, {"concurrency": 5}])
def test_synthesised_asks_nothing_anew_when_a_setting_decides_no_answer(run, server, change):
    run()
    run(ask=change)
    assert server.requests == []


@pytest.mark.parametrize(
    "failure",
    [
        status(429, Retry_After="0.01"), status(500, b"oops"), status(503), status(408), cut,
        raw(b"<html>proxy</html>"), raw(b"{}"), raw(b'{"choices": []}'), raw(b'{"choices": [{"message": 1}]}'),
        raw(b'{"choices": [{"message": {"content": ["a"]}}]}'), raw(b"\xff\xfe\x00"), raw(b""),
    ],
)  # fmt: skip
def test_synthesised_retries_a_failed_request_when_it_may_pass(run, server, failure):
    _, rows = run(failure, failure, ask={"concurrency": 1})
    assert len(rows) == 3
    assert len(server.requests) == 5


def test_synthesised_keeps_what_arrived_when_the_endpoint_fails_for_good(run, server):
    answered = says(json.dumps({"question": "Who?", "answer": "Ada Moss"}))
    with pytest.raises(UserError, match=r"500.* after 2 attempts; answers that have arrived are kept.*faq.ask.retries"):
        run(answered, *[status(500)] * 9, ask={"concurrency": 1, "retries": 1})
    assert not (run.folder / "raw").exists()
    _, rows = run()
    assert len(server.requests) == 2
    assert rows[0]["output"] == "Ada Moss"


def test_synthesised_times_out_when_the_endpoint_is_silent(run, server):
    _, rows = run(slow(1.0, says("late")), ask={"timeout_s": 0.2, "concurrency": 1})
    assert len(rows) == 3
    assert len(server.requests) == 4


def test_synthesised_asks_several_at_once_in_order_when_concurrency_allows(run, server):
    slowly = [slow(0.3, says(json.dumps({"question": f"{k}?", "answer": "x y"}))) for k in (0, 1, 2)]
    _, rows = run(*slowly, ask={"concurrency": 3})
    assert server.most_at_once == 3
    assert [row["origin"].split(" ")[0] for row in rows] == ["en.txt:1", "tr.txt:1", "tr.txt:1"]
    run(ask={"concurrency": 1, "seed": 5})
    assert server.most_at_once == 3


@pytest.mark.parametrize(("code", "advice"), [(401, "FAQ_KEY"), (403, "FAQ_KEY"), (404, "address"), (301, "address")])
def test_synthesised_names_the_next_step_when_the_endpoint_refuses(run, server, monkeypatch, code, advice):
    monkeypatch.setenv("FAQ_KEY", "sk-secret")
    with pytest.raises(UserError, match=f"{code}.*{advice}") as error:
        run(*[status(code, b"bad key sk-secret")] * 9, ask={"key": "FAQ_KEY"})
    assert "sk-secret" not in str(error.value)


def test_synthesised_rejects_one_prompt_and_goes_on_when_only_it_is_refused(run, server):
    _, rows = run(says('{"question": "a b?", "answer": "c d"}'), status(400, b"filtered"), ask={"concurrency": 1})
    assert len(rows) == 2
    (row,) = rejections(run.folder)
    assert (row["reason"], row["kind"], row["file"]) == ("refused", "instructions", "tr.txt:1 passage 1")
    assert "400" in row["detail"]
    assert "filtered" in row["detail"]


def test_synthesised_stops_when_every_prompt_is_refused(run, server):
    for k in range(20):
        (run.folder / f"inputs/handbook/{k}.txt").write_text(f"Document {k}. {ENGLISH}")
    with pytest.raises(UserError, match=r"400.*unknown model.*5 prompts.*faq.ask"):
        run(*[status(400, b"unknown model")] * 99, ask={"concurrency": 1})
    assert len(server.requests) < 10


def test_synthesised_sends_the_key_of_the_named_variable_and_writes_it_nowhere(run, server, monkeypatch):
    monkeypatch.setenv("FAQ_KEY", "sk-secret")
    run(ask={"key": "FAQ_KEY"})
    assert {headers["Authorization"] for headers in server.headers} == {"Bearer sk-secret"}
    assert {request["path"] for request in server.requests} == {"/v1/chat/completions"}
    written = [path for path in run.folder.rglob("*") if path.is_file()]
    assert len(written) > 8
    assert not any(b"sk-secret" in path.read_bytes() for path in written)


def test_synthesised_names_the_variable_when_the_key_is_not_set(run, monkeypatch):
    monkeypatch.delenv("FAQ_KEY", raising=False)
    with pytest.raises(UserError, match=r"faq.ask.key names the environment variable FAQ_KEY, which is not set"):
        run(ask={"key": "FAQ_KEY"})


def test_synthesised_keeps_a_secret_address_out_of_every_file(run, server, monkeypatch):
    monkeypatch.setenv("LLM_ADDRESS", server.address)
    run(ask={"endpoint": "$LLM_ADDRESS"})
    assert len(server.requests) == 3
    host = server.address.split("/")[2].encode()
    assert not any(host in path.read_bytes() for path in run.folder.rglob("*") if path.is_file())
    entry = json.loads((run.folder / "raw/provenance.json").read_text())["sources"]["faq"]
    assert entry["address"] == "$LLM_ADDRESS about handbook"
    with pytest.raises(UserError, match="LLM_ADDRESS") as error:
        run(*[status(500, b"x")] * 9, ask={"endpoint": "$LLM_ADDRESS", "seed": 9, "retries": 0})
    assert host.decode() not in str(error.value)


def test_synthesised_states_its_provenance(run, server):
    run()
    entry = json.loads((run.folder / "raw/provenance.json").read_text())["sources"]["faq"]
    assert len(entry["sha256"]) == 64
    assert entry["details"]["models"] == ["tiny-2026-01-01"]
    assert entry["details"]["asked"] == server.address.split("/")[2]
    assert len(entry["details"]["prompts_sha256"]) == 64
    assert entry["details"]["settings"]["max_tokens"] == 200
    assert entry["rows"] == {"instructions": 3}


def test_synthesised_refuses_other_answers_than_pinned(run, server):
    run()
    sha256 = json.loads((run.folder / "raw/provenance.json").read_text())["sources"]["faq"]["sha256"]
    _, rows = run(sha256=sha256)
    assert len(rows) == 3
    with pytest.raises(UserError, match=rf"expected {sha256}.*restore .tohum/answers"):
        run(*[says('{"question": "Who?", "answer": "Somebody"}')] * 3, ask={"seed": 2}, sha256=sha256)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("Sure! Here are two questions.", "not_json"),
        ('["q", "a"]', "other_fields"),
        ('{"question": "q?"}', "other_fields"),
        ('{"question": "q?", "answer": "a", "note": 1}', "other_fields"),
        ('{"question": "q?", "answer": 7}', "not_text"),
        ('{"question": "q?", "answer": null}', "not_text"),
        ('{"question": " ", "answer": "a"}', "not_text"),
        ('{"question": "q?", "answer": "a\\u0000b"}', "no_character"),
        ('{"question": "q?", "answer": "\\ud83d"}', "no_character"),
        ("", "no_answer"),
        ("  \n ", "no_answer"),
        (None, "no_answer"),
    ],
)
def test_synthesised_rejects_a_faulty_answer_with_its_reason(run, server, answer, reason):
    summary, rows = run(says(answer), ask={"concurrency": 1})
    assert len(rows) == 2
    assert summary["faq"]["reasons"] == {"instructions": {reason: 1}}
    assert f"1 {reason}" in describe(summary)
    run()
    assert server.requests == []  # a faulty answer is an answer


def test_synthesised_fails_when_no_answer_is_valid(run, server):
    with pytest.raises(UserError, match=r"faq.*every answer was rejected, the first: not_json.*Sure"):
        run(*[says("Sure!")] * 9)
    with pytest.raises(UserError, match="it has no document"):
        run(documents={"kind": "labelled", "path": "inputs/handbook/none.csv", "format": _csv(run.folder)})


def _csv(folder: Path) -> dict:
    (folder / "inputs/handbook/none.csv").write_text("text,label\nhello there,ham\n")
    return {"name": "csv", "encoding": "utf-8", "delimiter": ",", "header": True, "quoting": "standard"}


def test_synthesised_takes_the_users_own_templates(run, server):
    own = run.folder / "inputs/prompts.yaml"
    own.write_text('any: "Ask {pairs} times about: {passage} {unknown}"\ntr: "Sor ({pairs}): {passage}"\n')
    server.reply = lambda prompt: '{"question": "a?", "answer": "b"}'
    run(prompts="inputs/prompts.yaml")
    assert f"Ask 2 times about: {ENGLISH} {{unknown}}" in server.prompts
    for text, message in [("en: '{passage}'", "any"), ("any: nothing", "0 times"), ("- a", "expected languages")]:
        own.write_text(text)
        with pytest.raises(UserError, match=message):
            run(prompts="inputs/prompts.yaml")


def test_synthesised_leaves_braces_of_a_passage_alone(run, server):
    (run.folder / "inputs/handbook/en.txt").write_text("Write {pairs} and {passage} in braces, and {answer} too.")
    run()
    assert any(passage_of(prompt).startswith("Write {pairs} and {passage} in") for prompt in server.prompts)


def test_synthesised_pins_pairs_where_their_document_is_pinned(run):
    _, rows = run(documents={"split": "test"})
    assert {row["split"] for row in rows} == {"test"}


def test_synthesised_groups_pairs_by_document_when_told(run):
    _, rows = run()
    assert "group" not in rows[0]
    _, rows = run(by_document=True)
    assert len(rows) == 3
    assert rows[1]["group"] == rows[2]["group"] != rows[0]["group"]


def test_synthesised_asks_about_the_first_passages_only_when_told(run, server):
    _, rows = run(passages=2)
    assert len(server.requests) == len(rows) == 2


def test_synthesised_asks_once_for_equal_passages(run, server):
    for k in range(5):
        (run.folder / f"inputs/handbook/en{k}.txt").write_text(ENGLISH)
    run(ask={"concurrency": 4})
    assert len([prompt for prompt in server.prompts if ENGLISH in prompt]) == 1


@pytest.mark.parametrize("of", ["later", "faq", "nobody"])
def test_params_refuse_a_synthesised_source_of_no_source_above_it(of):
    raw = yaml.safe_load((CODE / "params.yaml").read_text())
    sources = raw["download"]["sources"]
    raw["download"]["sources"] = {
        "faq": synthesised(asking("http://x/v1"), of=of),
        "later": sources["world"],
        **sources,
    }
    with pytest.raises(UserError, match=rf"download.sources.faq.of is '{of}'; one of the sources above it: \[\]"):
        config.check(raw)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"endpoint": None}, "an endpoint or a folder"),
        ({"folder": "models/x"}, "an endpoint or a folder"),
        ({"model": None}, "name of its model"),
        ({"endpoint": "llm.example.org"}, "endpoint"),
        ({"endpoint": None, "folder": "models/x"}, "model: null"),
    ],
)
def test_params_refuse_a_chat_model_that_is_neither_endpoint_nor_folder(run, change, message):
    with pytest.raises(UserError, match=message):
        run(ask=change)


def test_synthesised_continues_after_a_kill_and_asks_only_what_is_missing(run, server):
    """A download killed in the middle: with kill -9 nothing can be tidied up."""
    for k in range(8):
        (run.folder / f"inputs/handbook/{k}.txt").write_text(f"Chapter {k}. {ENGLISH}")
    release = []

    def holding(handler, body):
        while not release:
            time.sleep(0.01)
        handler.close_connection = True

    first = [says(json.dumps({"question": f"q{k}?", "answer": "The mill"})) for k in range(4)]
    server.script = [*first, holding]
    sources = {"handbook": handbook(Path("inputs/handbook")), "faq": synthesised(asking(server.address, concurrency=1))}
    program = textwrap.dedent(f"""
        from pathlib import Path
        from pipeline.config.params import Download
        from pipeline.data.collect import collect
        collect(Download.model_validate({{"forget": None, "sources": {sources!r}}}), Path("raw"), progress=False)
    """)
    process = subprocess.Popen(
        [sys.executable, "-c", program], cwd=run.folder, env=os.environ | {"PYTHONPATH": str(CODE)}
    )
    while len(server.requests) < 5:
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    release.append(True)
    assert not (run.folder / "raw").exists()
    answered = set(server.prompts[:4])
    _, rows = run()
    assert len(rows) > 8
    assert not answered & set(server.prompts)
    assert sum(row["output"] == "The mill" for row in rows) == 4


def test_passages_hold_whole_paragraphs_and_every_word_once():
    text = (
        "\n\n".join(f"Paragraph {k} has a few words. It ends." for k in range(7)) + "\n \n" + "word " * 60 + "x" * 250
    )
    windows = list(passages(text, 100))
    assert max(map(len, windows)) <= 100
    assert "".join("".join(windows).split()) == "".join(text.split())
    assert windows[0] == "Paragraph 0 has a few words. It ends.\n\nParagraph 1 has a few words. It ends."
    assert list(passages("", 100)) == list(passages(" \n\n ", 100)) == []


def test_pairs_skip_a_code_fence_and_name_a_line_cut_at_max_tokens():
    line = '{"question": "q?", "answer": "a"}'
    assert list(pairs(f"```json\n{line}\n```", cut=False)) == [(2, {"question": "q?", "answer": "a"})]
    (_, whole), (number, broken) = pairs(f'{line}\n{{"question": "wh', cut=True)
    assert whole == {"question": "q?", "answer": "a"}
    assert (number, broken.reason) == (2, "cut_off")
    assert [getattr(pair, "reason", None) for _, pair in pairs(f"{line}\n{line}", cut=False)] == [None, "repeated"]
