"""Energy of stages from their run records, and carbon from it by the intensity of the grid, where that is given."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from pipeline.config.params import Grid
from pipeline.reporting.wording import Words


class Energy(NamedTuple):
    """The energy of some stages."""

    watt_hours: float
    how: str
    """measured, estimated, or both."""


def of(records: Iterable[Mapping[str, Any]]) -> Energy | None:
    """The energy of all records, measured where it was, else estimated; None where no record has any."""
    total, kinds = 0.0, set()
    for record in records:
        for kind in ("measured", "estimated"):
            value = record.get(f"energy_wh_{kind}")
            if value is not None:
                total += float(value)
                kinds.add(kind)
                break
    if not kinds:
        return None
    return Energy(total, kinds.pop() if len(kinds) == 1 else "both")


def how(record: Mapping[str, Any]) -> str:
    """measured or estimated; empty where the record has no energy."""
    one = of([record])
    return one.how if one else ""


def sentences(energy: Energy | None, grid: Grid, words: Words) -> list[str]:
    """The energy, and the carbon with its factors and their source, or that it is not stated."""
    if energy is None:
        return []
    used, known = words.number(energy.watt_hours, 3), words(f"costs.{energy.how}")
    said = [words("costs.energy total", energy=used, how=known)]
    if grid.grams_per_kwh is None:
        return [*said, words("costs.no carbon")]
    carbon = energy.watt_hours / 1000 * grid.grams_per_kwh
    return [
        *said,
        words("costs.carbon", carbon=words.general(carbon, 3), energy=used, how=known,
              intensity=words.general(grid.grams_per_kwh, 4), source=grid.source),
    ]  # fmt: skip
