"""The description of a pipeline's run in MLflow: scores, gates, pages and stages as Markdown, with links.

Links are addresses within MLflow's own pages (`#/experiments/...`), so that they hold for every server.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Stage:
    """One stage's run."""

    run_id: str
    name: str
    status: str
    tags: Mapping[str, str]


def describe(
    experiment: str,
    run_id: str,
    tags: Mapping[str, str],
    figures: Mapping[str, float],
    stages: Sequence[Stage],
    pages: Sequence[str],
) -> str:
    """Markdown for one pipeline's run.

    Args:
        experiment: the experiment's id; `run_id`: the pipeline's run, with its `tags`.
        figures: the pipeline's metrics; those called `<model>/<score>` are scores of models.
        stages: the runs below it, in the order in which they started.
        pages: paths of its artifacts (`report.html`, `gates/raw`).
    """
    run = f"#/experiments/{experiment}/runs"
    return "\n\n".join(
        part
        for part in (
            _code(tags),
            _scores(figures),
            _pages(f"{run}/{run_id}/artifacts", pages, stages),
            "Stages: " + ", ".join(f"[{one.name}]({run}/{one.run_id}) {one.status.lower()}" for one in stages),
        )
        if part
    )


def digest(text: str) -> str:
    """SHA-256 of a text; hexadecimal."""
    return hashlib.sha256(text.encode()).hexdigest()


def _code(tags: Mapping[str, str]) -> str:
    if "git.commit" not in tags:
        return ""
    changed = " with uncommitted changes" if tags.get("git.dirty") == "true" else ""
    return f"Commit `{tags['git.commit'][:12]}`{changed}."


def _scores(figures: Mapping[str, float]) -> str:
    rows = [(*key.split("/", 1), value) for key, value in sorted(figures.items()) if "/" in key]
    if not rows:
        return ""
    return "\n".join(
        [
            "| model | score | value |",
            "|---|---|---:|",
            *(f"| {m} | {score} | {value:.4f} |" for m, score, value in rows),
        ]
    )


def _pages(address: str, pages: Sequence[str], stages: Sequence[Stage]) -> str:
    def links() -> Iterator[str]:
        verdicts = {key: words for one in stages for key, words in one.tags.items() if key.startswith("gate.")}
        for page in sorted(pages, key=lambda page: (page.startswith("gates/"), page)):
            if page.startswith("gates/"):
                gate = page.removeprefix("gates/")
                words = verdicts.get(f"gate.{gate}", "")
                yield f"[gate {gate}]({address}/{page}/page.html) {words}".rstrip()
            elif page != "gates":
                yield f"[{page}]({address}/{page})"

    found = list(links())
    return "Pages: " + ", ".join(found) if found else ""
