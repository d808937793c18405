"""The description of a pipeline's run in MLflow: scores, gates, pages and stages as Markdown, with links.

Links are addresses within MLflow's own pages (`#/experiments/...`), so that they hold for every server.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Stage:
    """The run of one stage."""

    run_id: str
    name: str
    status: str
    tags: Mapping[str, str]


@dataclass(frozen=True)
class Pipeline:
    """A pipeline's run and everything its description shows."""

    experiment: str
    """Id of the experiment."""
    run_id: str
    tags: Mapping[str, str]
    metrics: Mapping[str, float]
    """A metric called `<model>/<score>` is the score of a model."""
    stages: Sequence[Stage]
    """The runs below it, in the order in which they started."""
    pages: Sequence[str]
    """Paths of its artifacts (`report.html`, `models/spam-lora.html`, `gates/raw`)."""


def describe(pipeline: Pipeline) -> str:
    """The description as Markdown."""
    runs = f"#/experiments/{pipeline.experiment}/runs"
    stages = (f"[{stage.name}]({runs}/{stage.run_id}) {stage.status.lower()}" for stage in pipeline.stages)
    parts = (
        _code(pipeline.tags),
        _scores(pipeline.metrics),
        _pages(f"{runs}/{pipeline.run_id}/artifacts", pipeline.pages, pipeline.stages),
        "Stages: " + ", ".join(stages),
    )
    return "\n\n".join(part for part in parts if part)


def digest(text: str) -> str:
    """SHA-256 of a text; hexadecimal."""
    return hashlib.sha256(text.encode()).hexdigest()


def _code(tags: Mapping[str, str]) -> str:
    if "git.commit" not in tags:
        return ""
    changed = " with uncommitted changes" if tags.get("git.dirty") == "true" else ""
    return f"Commit `{tags['git.commit'][:12]}`{changed}."


def _scores(metrics: Mapping[str, float]) -> str:
    rows = [(*key.split("/", 1), value) for key, value in sorted(metrics.items()) if "/" in key]
    if not rows:
        return ""
    return "\n".join(
        [
            "| model | score | value |",
            "|---|---|---:|",
            *(f"| {model} | {score} | {value:.4f} |" for model, score, value in rows),
        ]
    )


def _pages(address: str, pages: Sequence[str], stages: Sequence[Stage]) -> str:
    def links() -> Iterator[str]:
        verdicts = {key: words for stage in stages for key, words in stage.tags.items() if key.startswith("gate.")}
        for page in sorted(pages, key=lambda page: (page.startswith("gates/"), page.startswith("models/"), page)):
            if page.startswith("gates/"):
                gate = page.removeprefix("gates/")
                words = verdicts.get(f"gate.{gate}", "")
                yield f"[gate {gate}]({address}/{page}/page.html) {words}".rstrip()
            elif page.startswith("models/"):
                name = page.removeprefix("models/").removesuffix(".html")
                yield f"[model {name}]({address}/{page})"
            elif page not in ("gates", "models"):
                yield f"[{page}]({address}/{page})"

    text = ", ".join(links())
    return f"Pages: {text}" if text else ""
