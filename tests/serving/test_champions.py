"""Champions of the registry: promoted, rolled back, and moved by hand, while the server runs."""

import os
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from pipeline.config.params import Params
from pipeline.errors import UserError
from pipeline.registry import VERSION, Registry
from pipeline.serving.keys import Keys
from pipeline.serving.models import Shelf
from pipeline.serving.server import Server
from tests.registries import make_model, params, register
from tests.served import serving, settings, until

NAME = "tohum-chat-full"
CHAMPION = f"models:/{NAME}@champion"


def here() -> Params:
    """The project's params with the whole address of its store: MLflow keeps one store a relative address."""
    return params(f"sqlite:///{Path.cwd()}/mlflow.db")


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """A project with two registered versions of a model, the first promoted."""
    before, folder = Path.cwd(), tmp_path_factory.mktemp("champions")
    os.chdir(folder)
    made = Registry(here())
    for seed in (1, 2):
        make_model("chat-full", seed)
        register(made, "chat-full")
        if seed == 1:
            promote(made, "1")
    yield made
    os.chdir(before)


def promote(registry: Registry, version: str) -> None:
    tags = registry.client.get_model_version(NAME, version).tags
    registry.promote("chat-full", version, tags[VERSION], "better")


def answer(address: str, model: str = "chat-full") -> str:
    messages = [{"role": "user", "content": "Merhaba"}]
    body = {"model": model, "messages": messages, "temperature": 1.0, "seed": 1, "max_tokens": 16}
    given = httpx.post(f"{address}/v1/chat/completions", json=body, timeout=30)
    assert given.status_code == 200, given.text
    return str(given.json()["choices"][0]["message"]["content"])


def test_server_follows_the_champion_and_refuses_an_alias_without_a_decision(
    registry: Registry, tmp_path: Path
) -> None:
    chosen = settings(tmp_path)
    shelf = Shelf([CHAMPION, f"models:/{NAME}/2"], here(), "cpu")
    server = Server(shelf, chosen, Keys(tmp_path / "keys.json"))
    slot = shelf.slots["chat-full"]

    def version() -> str | None:
        return None if slot.loaded is None else slot.loaded.version

    with serving(server) as site:
        listed = {row["id"]: row for row in httpx.get(f"{site.address}/v1/models").json()["data"]}
        assert listed["chat-full"]["review"] == "champion"
        assert (listed["chat-full/2"]["review"], listed["chat-full/2"]["version"]) == ("not the champion", "2")
        first, second = answer(site.address), answer(site.address, "chat-full/2")
        assert first != second
        assert answer(site.address, CHAMPION) == first

        promote(registry, "2")
        until(lambda: version() == "2", "the promotion was not followed")
        assert answer(site.address) == second

        registry.rollback("chat-full", "worse after all")
        until(lambda: version() == "1", "the roll back was not followed")
        assert answer(site.address) == first

        registry.client.set_registered_model_alias(NAME, "champion", "2")
        until(lambda: "without a decision" in slot.fault, "the moved alias was not noticed")
        assert version() == "1"
        assert answer(site.address) == first
        with pytest.raises(UserError, match="without a decision"):
            Shelf([CHAMPION], here(), "cpu")
        registry.client.set_registered_model_alias(NAME, "champion", "1")
        until(lambda: not slot.fault, "the repaired alias was not noticed")


def test_shelf_serves_every_champion_when_none_is_named(registry: Registry) -> None:
    shelf = Shelf([], here(), "cpu")
    assert list(shelf.slots) == ["chat-full"]
    loaded = shelf.slots["chat-full"].loaded
    assert loaded is not None
    assert (loaded.version, loaded.standing) == ("1", "champion")


def test_shelf_names_models_that_are_not_in_the_registry(registry: Registry) -> None:
    with pytest.raises(UserError, match="not in the registry"):
        Shelf([f"models:/{NAME}/9"], here(), "cpu")
    with pytest.raises(UserError, match="no champion"):
        Shelf(["models:/tohum-base@champion"], here(), "cpu")
