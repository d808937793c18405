"""Requests to a registered model over MLflow's scoring server: answers, and a 400 in a sentence for what has none."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from pipeline.data import conversations
from pipeline.errors import UserError
from pipeline.inference import requests
from pipeline.inference.predictor import Predictor
from pipeline.prompts.request import Request
from pipeline.registry import admission
from pipeline.registry.packing import pack
from tests.registries import make_model, params

TALK = [{"role": "user", "content": "Ayşe nerede?"}, {"role": "assistant", "content": "İzmir'de."}]
HISTORY = json.dumps(TALK, ensure_ascii=False)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with the packed models spam-full, chat-full, base and reward."""
    before, folder = Path.cwd(), tmp_path_factory.mktemp("project")
    os.chdir(folder)
    with_reward = params()
    for entries in (with_reward.finetune, with_reward.evaluations):  # its card names the parts of chat-full
        entries["reward"] = entries["chat-full"]  # type: ignore[index, assignment]
    for name in ("spam-full", "chat-full", "base", "reward"):
        make_model(name)
        pack(Path("models") / name, Path("packed") / name, admission.admit(name, with_reward), "card")
    yield folder
    os.chdir(before)


@pytest.fixture(scope="module")
def servers(project: Path) -> dict[str, Any]:
    """A client of `mlflow models serve` per model."""
    import mlflow
    from fastapi.testclient import TestClient
    from mlflow.pyfunc.scoring_server import init

    names = ("spam-full", "chat-full", "base", "reward")
    return {name: TestClient(init(mlflow.pyfunc.load_model(str(project / "packed" / name)))) for name in names}


def table(*texts: Any, **columns: Any) -> dict[str, Any]:
    rows = [{"text": text} | {name: values[i] for name, values in columns.items()} for i, text in enumerate(texts)]
    return {"dataframe_records": rows}


def post(server: Any, body: Any) -> tuple[int, Any]:
    response = server.post("/invocations", json=body)
    return response.status_code, response.json()


def test_the_server_gives_every_labels_probability(servers: dict[str, Any], project: Path) -> None:
    status, said = post(servers["spam-full"], table("free prize", "", "ı"))
    assert status == 200
    expected = Predictor(project / "models/spam-full").probabilities(
        [Request(text) for text in ("free prize", "", "ı")]
    )
    for answer, shares in zip(said["predictions"], expected, strict=True):
        assert answer["probabilities"] == pytest.approx(shares)
        assert answer["score"] == answer["probabilities"][answer["label"]] == max(answer["probabilities"].values())


def test_the_server_takes_a_list_csv_and_columns_in_any_order(servers: dict[str, Any]) -> None:
    """Lost otherwise: the first column would be read, whatever its name."""
    server, expected = servers["spam-full"], post(servers["spam-full"], table("free prize"))
    assert post(server, {"inputs": ["free prize"]}) == expected
    csv = server.post("/invocations", content="text\nfree prize\n", headers={"content-type": "text/csv"})
    assert (csv.status_code, csv.json()) == expected
    # MLflow drops columns that the signature does not name, with a warning in its log
    assert post(server, {"dataframe_split": {"columns": ["id", "text"], "data": [[7, "free prize"]]}}) == expected


def test_the_server_answers_after_earlier_messages_and_with_an_input(servers: dict[str, Any], project: Path) -> None:
    """Lost otherwise: a conversation could not be continued by a registered model."""
    predictor = Predictor(project / "models/chat-full")
    body = table("Emin misin?", "Özetle", input=[None, "uzun metin"], history=[HISTORY, None])
    status, said = post(servers["chat-full"], body | {"params": {"max_tokens": 5}})
    assert status == 200
    asked = [Request("Emin misin?", "", conversations.earlier(HISTORY)), Request("Özetle", "uzun metin")]
    assert said["predictions"] == predictor.answer(asked, {"max_tokens": 5})


FAULTS = [
    ("spam-full", table(None, "a"), "row 1: text is null; expected a string"),
    ("spam-full", table("a", None), "row 2: text is null; expected a string"),
    ("spam-full", table(7), "row 1: text is 7 (int); expected a string"),
    ("spam-full", table("a", 2.5), "row 2: text is 2.5 (float); expected a string"),
    ("spam-full", table(True), "row 1: text is True (bool); expected a string"),
    ("spam-full", table(["a", "b"]), "row 1: text is ['a', 'b'] (list); expected a string"),
    (
        "spam-full",
        {"dataframe_split": {"columns": ["a", "b"], "data": [["x", "y"]]}},
        "is missing inputs ['text']",
    ),
    ("spam-full", {"dataframe_records": []}, "is missing inputs ['text']"),
    ("base", table("a") | {"params": {"max_tokens": -1}}, "max_tokens is -1; expected at least 1"),
    ("base", table("a") | {"params": {"max_tokens": 0}}, "max_tokens is 0; expected at least 1"),
    ("base", table("a") | {"params": {"temperature": -0.5}}, "temperature is -0.5; expected at least 0"),
    ("base", table("a") | {"params": {"top_k": -3}}, "top_k is -3; expected at least 0"),
    ("base", table("a") | {"params": {"top_p": 0.0}}, "top_p is 0.0; expected more than 0"),
    ("base", table("a") | {"params": {"top_p": 1.5}}, "top_p is 1.5; expected at most 1"),
    ("base", table("a") | {"params": {"max_tokens": "viele"}}, "max_tokens"),
    ("chat-full", table("a", input=[3]), "row 1: input is 3 (int); expected a string"),
    ("chat-full", table("a", history=["{"]), "row 1: history: "),
    ("chat-full", table("a", history=[json.dumps(TALK[:1])]), "expected the earlier messages as JSON"),
]


@pytest.mark.parametrize(("name", "body", "reason"), FAULTS, ids=[f"{n}-{r[:40]}" for n, _, r in FAULTS])
def test_the_server_answers_400_with_the_reason(servers: dict[str, Any], name: str, body: Any, reason: str) -> None:
    """Lost otherwise: a null was an unexpected error with a stack trace, a number was read as a text."""
    status, said = post(servers[name], body)
    assert status == 400
    assert reason in said["message"]
    assert "Traceback" not in json.dumps(said)


def test_signature_names_the_columns(servers: dict[str, Any], project: Path) -> None:
    import mlflow

    def named(name: str) -> list[str]:
        return mlflow.models.get_model_info(str(project / "packed" / name)).signature.inputs.input_names()

    assert named("spam-full") == named("base") == ["text"]
    assert named("chat-full") == ["text", "input", "history"]


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"text": ["a"], "note": ["b"]}, "the request has a column 'note'; expected 'text'"),
        ({"note": ["b"]}, "the request has a column 'note'; expected 'text'"),
        ({}, "the request has no column 'text'; expected 'text'"),
    ],
)
def test_answers_refuses_other_columns(project: Path, columns: dict[str, Any], reason: str) -> None:
    predictor = Predictor(project / "models/spam-full")
    with pytest.raises(UserError, match=reason):
        requests.answers(predictor, pd.DataFrame(columns))
    with pytest.raises(UserError, match="two columns 'text'; expected 'text'"):
        requests.answers(predictor, pd.DataFrame([["a", "b"]], columns=["text", "text"]))
    with pytest.raises(UserError, match="the request is list; expected a table"):
        requests.answers(predictor, ["a"])


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"heat": 1}, "heat is no setting of an answer; one of: max_tokens, temperature"),
        ({"temperature": float("nan")}, "temperature is nan; expected a number"),
        ({"seed": True}, "seed is True; expected a whole number"),
        ({"max_tokens": 2.5}, "max_tokens is 2.5; expected a whole number"),
        ({"top_k": "3"}, "top_k is '3'; expected a whole number"),
    ],
)
def test_answers_refuses_settings_that_are_no_numbers(project: Path, settings: dict[str, Any], reason: str) -> None:
    predictor = Predictor(project / "models/base")
    with pytest.raises(UserError, match=reason):
        requests.answers(predictor, pd.DataFrame({"text": ["a"]}), settings)


def test_the_server_of_a_reward_model_scores_answers_and_refuses_a_text_without_one(
    servers: dict[str, Any], project: Path
) -> None:
    """Lost otherwise: a question alone would get the score of an empty answer, which looks like any other."""
    texts, said = ["Ayşe nerede?", "Ayşe nerede?"], ["İzmir'de.", "free prize"]
    status, body = post(servers["reward"], table(*texts, answer=said))
    assert status == 200
    asked = [Request(text, answer=answer) for text, answer in zip(texts, said, strict=True)]
    predictor = Predictor(project / "models/reward")
    rewards = [row["reward"] for row in body["predictions"]]
    assert rewards == pytest.approx([row["reward"] for row in predictor.answer(asked)])
    assert abs(rewards[0] - rewards[1]) > 1e-4
    status, body = post(servers["reward"], table(*texts))
    assert (status, "answer" in str(body)) == (400, True)
    with pytest.raises(UserError, match="no column 'answer'; expected 'text' and 'answer' and optionally input"):
        requests.answers(predictor, pd.DataFrame({"text": texts}))
    with pytest.raises(UserError, match="row 2: answer is null; expected a string"):
        requests.answers(predictor, pd.DataFrame({"text": texts, "answer": ["x", None]}))
    with pytest.raises(UserError, match="comes without an answer, and this is a reward model"):
        predictor.answer(["Ayşe nerede?"])
