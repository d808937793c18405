"""Bases on which the records of a project may be used, by source, for the model card."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple


class Basis(NamedTuple):
    """Records of one source with one basis."""

    source: str
    basis: str
    """As the record's column `consent` states it, else as its source does; empty: not stated."""
    records: int
    licence: str
    stated_by: str
    """record or source."""


def bases(sources: Mapping[str, Mapping[str, Any]]) -> Iterator[Basis]:
    """Every basis with its number of records, source after source.

    Args:
        sources: `sources` of data/raw/provenance.json.
    """
    for name, entry in sorted(sources.items()):
        total = sum((entry.get("rows") or {}).values())
        licence, stated = str(entry.get("licence") or ""), dict(sorted((entry.get("consents") or {}).items()))
        for basis, records in stated.items():
            yield Basis(name, basis, records, licence, "record")
        rest = total - sum(stated.values())
        if rest or not stated:
            yield Basis(name, str(entry.get("consent") or ""), rest, licence, "source")


def forgotten(ledger: Mapping[str, Mapping[str, Mapping[str, int]]]) -> int | None:
    """Number of records that the list of forgotten records left out; None where params.yaml names no list.

    Args:
        ledger: `sources` of data/raw/ledger.json.
    """
    counts = [n["forgotten"] for kinds in ledger.values() for n in kinds.values() if "forgotten" in n]
    return sum(counts) if counts else None
