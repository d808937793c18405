"""The results of looks for people: the page reports/watch/<model>.html, and figures in MLflow."""

import math
from pathlib import Path
from typing import Any

from pipeline import config, files
from pipeline.paths import WATCH, WATCH_PAGES
from pipeline.reporting import watch_page
from pipeline.seeds import seed_for
from pipeline.tracking.stage import tracked_search
from pipeline.watching.looking import Look
from pipeline.watching.state import State

_VERDICTS = {"quiet": 0.0, "warning": 1.0, "alarm": 2.0}


def publish(look: Look) -> Path:
    """Writes the page and, with runtime.tracking.enabled, hands the figures of a fresh look to MLflow's sender.

    Both may be repeated: a step of a metric arrives once.

    Returns:
        The page's path.
    """
    params, state = config.load(), State.read(WATCH / look.model)
    history: list[dict[str, Any]] = [*state.history[:-1], look.plain()]
    path = WATCH_PAGES / f"{look.model}.html"
    episodes = [episode.model_dump() for episode in state.episodes]
    files.write_text(path, watch_page.render(look.model, history, episodes, params.report.language))
    if look.fresh or look.new:
        uid = f"{seed_for(1, 'watch run', look.model, look.model_sha256):032x}"[-32:]
        tags = {"tohum.watched": look.model, "tohum.verdict": look.verdict, "model_sha256": look.model_sha256}
        with tracked_search("watch", f"watch-{look.model}", params, uid, tags) as run:
            run.log(figures(look), step=look.number)
            run.artifact(path)
    return path


def figures(look: Look) -> dict[str, float]:
    """The metrics of a look: verdict (0 quiet, 1 warning, 2 alarm), each statistic and its p-value, quality."""
    values = {"verdict": _VERDICTS[look.verdict], "level": look.level, "requests": float(look.requests)}
    for one in look.statistics:
        name = one.name if one.category is None else f"{one.name}/{_plain(one.category)}"
        values |= {f"statistic/{name}": one.window, f"p_value/{name}": one.p_value}
    for measure in look.quality:
        values |= {f"quality/{measure.name}": measure.value, f"p_value/{measure.name}": measure.p_value}
    return {key: value for key, value in values.items() if math.isfinite(value)}


def _plain(category: str) -> str:
    """A category as part of a metric's name, in which MLflow takes letters, digits and a few signs."""
    return "".join(sign if sign.isascii() and (sign.isalnum() or sign in "_-. ") else "_" for sign in category)[:60]
