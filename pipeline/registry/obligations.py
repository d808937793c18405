"""Two lists at the end of the model card: what Annex IV of the EU AI Act and what KVKK ask, and what facts answer.

Annex IV of Regulation (EU) 2024/1689, points 1 to 9; law 6698 on the protection of personal data (KVKK), articles 3 to
12 and 16, always in Turkish. Each row has the facts of the graph that answer a part of it and what is left to a person.
Neither list claims that the law applies or is met.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import yaml

from pipeline.baseline import beside
from pipeline.registry.facts import Facts
from pipeline.registry.markdown import table
from pipeline.reporting.wording import FOLDER, Words, load

_KVKK = "kvkk.yaml"
_MEMORISATION = ("exposure", "extraction", "membership", "personal")  # in the names of the metrics about it


def annex(facts: Facts, name: str, summary: str, words: Words) -> str:
    """Annex IV, point by point.

    Args:
        facts: of the model.
        name: the registered model's.
        summary: what the model is, in a sentence.
        words: of the card.
    """
    filled = _filled(facts, name, summary, words)
    numbers = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
    rows = [
        [
            point,
            words(f"annex.{number} asked"),
            filled.get(number) or words("annex.nothing"),
            words(f"annex.{number} left") if words.has(f"annex.{number} left") else words("annex.all left"),
        ]
        for point, number in enumerate(numbers, start=1)
    ]
    header = [words(f"annex.{column}") for column in ("point", "asked", "filled", "left")]
    return "\n\n".join([f"## {words('annex.heading')}", words("annex.about"), table(header, rows)])


def _filled(facts: Facts, name: str, summary: str, words: Words) -> dict[str, str]:
    """Point -> the facts that answer a part of it."""
    start = words("annex.from scratch")
    if facts.open_weights:
        repository = facts.open_weights.get("repository") or words("annex.unknown")
        start = words("annex.from open", repository=repository)
    required = sum(any(limit is not None for limit in bound.values()) for bound in facts.thresholds.values())
    risks = words("annex.three no risks")
    if facts.risks:
        risks = words.count("annex.three risks", len(facts.risks))
    return {
        "one": words("annex.one filled", name=name, sha256=facts.sha256, summary=summary),
        "two": words(
            "annex.two filled", stages=" → ".join(facts.stages), start=start, gates=", ".join(facts.gates),
            resources=words("annex.resources" if facts.runs else "annex.no resources"),
        ),
        "three": words(
            "annex.three filled", groups=words("annex.three groups") if facts.slices else "", risks=risks
        ),
        "four": words(
            "annex.four filled", required=words.count("annex.four required", required),
            baseline=words("annex.four baseline") if beside(facts.metrics) else "",
        ) + ".",
        "five": words("annex.five filled") if facts.risks else "",
        "six": words(
            "annex.six filled", commit=facts.tags.get("git.commit", "")[:12] or words("annex.unknown"),
            model=facts.model,
        ),
    }  # fmt: skip


def kvkk(facts: Facts) -> str:
    """The list of KVKK, in Turkish whatever the language of the card."""
    words = _words()
    rows = [
        ["3, 6", "data", _personal_data(facts, words)],
        ["4", "purpose", _purpose(facts, words)],
        ["5", "basis", _basis(facts, words)],
        ["8, 9", "transfer", _transfer(facts, words)],
        ["7", "erasure", words("kvkk.erasure filled")],
        ["10, 11", "notice", ""],
        ["12", "security", words("kvkk.security filled")],
        ["16", "register", ""],
    ]
    shown = [
        [
            article,
            words(f"kvkk.{key} asked"),
            answer or words("kvkk.none"),
            words(f"kvkk.{key} left") if words.has(f"kvkk.{key} left") else words("kvkk.all"),
        ]
        for article, key, answer in rows
    ]
    header = [words(f"kvkk.{column}") for column in ("article", "asked", "filled", "left")]
    return "\n\n".join([f"## {words('kvkk.heading')}", words("kvkk.about"), table(header, shown)])


@cache
def _words() -> Words:
    """The Turkish words, with those of this list."""
    own = yaml.safe_load((FOLDER / _KVKK).read_text(encoding="utf-8"))["kvkk"]
    return Words("tr", load("tr").table | {f"kvkk.{key}": str(text) for key, text in own.items()})


def _personal_data(facts: Facts, words: Words) -> str:
    said = []
    rows = facts.gates.get("raw", {}).get("profile", {}).get("records", [])
    if rows:
        found = _found(rows, words)
        total = sum(int(row["rows"]) for row in rows)
        many = words("kvkk.data found", counts=", ".join(found)) if found else words("kvkk.data found none")
        said.append(words("kvkk.data searched", rows=words.integer(total), found=many))
    else:
        said.append(words("kvkk.data not searched"))
    if _bases(facts) == ["synthetic"]:
        said.append(words("kvkk.data synthetic"))
    about = [
        f"{metric} {words.general(value)}"
        for metric, value in sorted(facts.metrics.items())
        if any(name in metric for name in _MEMORISATION)
    ]
    if about:
        said.append(words("kvkk.data measured", metrics=", ".join(about)))
    return " ".join(said)


def _found(rows: Sequence[Mapping[str, Any]], words: Words) -> list[str]:
    """`e-posta 3`: records with a sort of personal data, sort by sort, as one record may hold several."""
    sorts = dict.fromkeys(key for row in rows for key in row if key.startswith("personal_"))
    counts = {key: sum(int(row.get(key, 0)) for row in rows) for key in sorts}
    return [f"{words(f'kvkk.{key}')} {words.integer(n)}" for key, n in counts.items() if n]


def _purpose(facts: Facts, words: Words) -> str:
    kinds = sorted({kind for entry in facts.sources.values() for kind, n in (entry.get("rows") or {}).items() if n})
    task = facts.tasks[0].name
    named = words(f"kind.{task}") if words.has(f"kind.{task}") else words("kind.next_token")
    return words(
        "kvkk.purpose filled",
        task=named,
        kinds=", ".join(words(f"records.{kind}") for kind in kinds) or words("annex.unknown"),
    )


def _bases(facts: Facts) -> Sequence[str]:
    """Every consent basis that a source or one of its records states."""
    stated = (entry.get("consents") or {entry.get("consent"): 1} for entry in facts.sources.values())
    return sorted({str(basis) for bases in stated for basis in bases if basis})


def _basis(facts: Facts, words: Words) -> str:
    shown = []
    for name, entry in sorted(facts.sources.items()):
        stated = entry.get("consents") or {}
        bases = ", ".join(f"{basis} {words.integer(n)}" for basis, n in sorted(stated.items()))
        shown.append(f"{name}: {bases or entry.get('consent') or words('annex.unknown')}")
    return words("kvkk.basis filled", bases="; ".join(shown)) if shown else ""


def _transfer(facts: Facts, words: Words) -> str:
    addresses = [str(entry.get("address") or name) for name, entry in sorted(facts.sources.items())]
    asked = [
        str(entry["details"]["asked"]) for entry in facts.sources.values() if entry.get("details", {}).get("asked")
    ]
    sent = words("kvkk.transfer sent", asked=", ".join(asked)) if asked else ""
    return words("kvkk.transfer filled", addresses=", ".join(addresses), asked=sent) if addresses else ""
