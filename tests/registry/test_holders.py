"""Versions trained on a record, by the hashes in their tags: lost otherwise, one that holds it stays in service."""

from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.registry.holders import holders

DOCUMENTS, OTHER, MESSAGES = "d0" * 16 + ".dir", "d1" * 16 + ".dir", "e0" * 16 + ".dir"
CONTENTS = {DOCUMENTS: frozenset({"a", "b"}), MESSAGES: frozenset({"c"})}
LOCKED: dict[str, dict[str, str]] = {}


class Registry:
    """Versions of one project: name -> tags of its versions, oldest first."""

    def __init__(self, **tags: list[dict[str, str]]) -> None:
        self._versions = {
            f"tohum-{name}": [
                SimpleNamespace(name=f"tohum-{name}", version=str(number), tags=own)
                for number, own in enumerate(several, 1)
            ]
            for name, several in tags.items()
        }

    def models(self) -> list[str]:
        return sorted(self._versions)

    def versions(self, model: str) -> list[Any]:
        return self._versions[model][::-1]

    def at(self, model: str, alias: str) -> Any:
        return self._versions[model][-1] if alias == "champion" else None


def base(documents: str, out: str) -> dict[str, str]:
    return {"dvc.in.data/samples/documents": documents, "dvc.out.models/base": out}


def tuned(out: str) -> dict[str, str]:
    return {"dvc.in.data/samples/labelled": MESSAGES, "dvc.in.models/base": out, "dvc.out.models/spam": "s"}


@pytest.mark.parametrize(
    ("record", "states"),
    [
        ("a", {"base": ["unknown", "trained on it"], "spam": ["unknown", "trained on it"]}),
        ("c", {"base": ["unknown", "not trained on it"], "spam": ["trained on it", "trained on it"]}),
        ("x", {"base": ["unknown", "not trained on it"], "spam": ["unknown", "not trained on it"]}),
    ],
)
def test_holders_follow_a_version_to_the_data_of_its_base(record: str, states: dict[str, list[str]]) -> None:
    """The base's first version is made from data that no cache holds, its second from known data."""
    registry: Any = Registry(base=[base(OTHER, "b1"), base(DOCUMENTS, "b2")], spam=[tuned("b1"), tuned("b2")])
    found = {(one.name, one.version): one for one in holders(registry, {record}, CONTENTS.get, LOCKED)}
    assert {
        name: [found[f"tohum-{name}", version].state for version in ("1", "2")] for name in ("base", "spam")
    } == states
    assert "in no cache here" in found["tohum-base", "1"].why
    assert found["tohum-spam", "2"].aliases == ("champion",)


def test_holders_take_the_base_of_the_project_where_none_is_registered() -> None:
    registry: Any = Registry(spam=[tuned("b9")])
    locked = {"base": {"out": "b9", "data/samples/documents": DOCUMENTS}}
    assert holders(registry, {"b"}, CONTENTS.get, locked)[0].state == "trained on it"
    [unknown] = holders(registry, {"b"}, CONTENTS.get, LOCKED)
    assert unknown.state == "unknown"
    assert "models/base b9" in unknown.why


def test_holders_do_not_clear_a_version_without_tags() -> None:
    registry: Any = Registry(base=[{}])
    assert holders(registry, {"a"}, CONTENTS.get, LOCKED)[0].state == "unknown"
