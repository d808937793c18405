"""The page of a watched model: both languages in a headless Chromium, and every part for the case that needs it."""

import re
from pathlib import Path
from typing import Any

import pytest

from pipeline.reporting import watch_page
from tests.browser import opened

BASE: dict[str, Any] = {
    "model": "spam-lora", "model_sha256": "ab" * 32, "time": "2026-11-29T20:40:00.000Z", "level": 0.001,
    "requests": 500,
    "from_time": "2026-11-28T10:00:00.000Z", "until_time": "2026-11-29T20:39:00.000Z",
    "reference": {"source": "records", "observations": 770, "right": 386, "judged": 397},
    "missing": [{"name": "thumbs", "count": 3, "needed": 40}, {"name": "loss", "count": 0, "needed": 0}],
}  # fmt: skip


def statistic(name: str, window: float, drifted: bool, category: str | None = None) -> dict[str, Any]:
    bounds = {"reference": 0.5, "low": 0.45, "high": 0.55, "observations": 500, "p_value": 0.0001 if drifted else 0.4}
    return {"name": name, "category": category, "window": window, "drifted": drifted} | bounds


def measure(value: float, worse: bool) -> dict[str, Any]:
    bounds = {
        "low": value - 0.05,
        "high": value + 0.05,
        "reference": 0.97,
        "reference_low": 0.95,
        "reference_high": 0.98,
    }
    return {
        "name": "accuracy",
        "count": 80,
        "value": value,
        "reference_count": 397,
        "p_value": 0.01,
        "worse": worse,
    } | bounds


def looks(*drifted: bool) -> list[dict[str, Any]]:
    return [
        BASE | {
            "number": i + 1, "verdict": "alarm" if here else "quiet",
            "statistics": [statistic("unknown_words", 0.7 if here else 0.5, here),
                           statistic("label", 0.5, False, "<spam>"), statistic("characters", 1234.5, False)],
            "quality": [measure(0.7 if here else 0.96, here)],
        }
        for i, here in enumerate(drifted)
    ]  # fmt: skip


EPISODES = [
    {"kind": "alarm", "began": "2026-11-29T20:40:00.000Z", "ended": None, "evidence": ["accuracy"]},
    {"kind": "warning", "began": "2026-11-20T20:40:00.000Z", "ended": "2026-11-21T20:40:00.000Z",
     "evidence": ["unknown_words", "label"]},
]  # fmt: skip


def said(page: str) -> str:
    return " ".join(re.sub(r"<style.*?</style>|<[^>]*>", " ", page, flags=re.DOTALL).split())


def test_render_says_what_kind_of_evidence_there_is_in_both_languages() -> None:
    english = said(watch_page.render("spam-lora", looks(False, True), EPISODES, "en"))
    assert "Alarm: answers have become worse" in english
    assert "accepted answers by ratings: 3 requests with evidence; 40 are needed." in english
    assert "still open" in english
    warned = [look | {"verdict": "warning"} for look in looks(False)]
    assert "This is input drift: it may cost nothing." in said(watch_page.render("spam-lora", warned, [], "en"))
    turkish = said(watch_page.render("spam-lora", looks(False, True), EPISODES, "tr"))
    assert "Alarm: yanıtlar kötüleşti" in turkish
    assert "%70,0" in turkish
    assert "1.234,5" in turkish


def test_render_marks_the_looks_that_found_drift_and_escapes_labels() -> None:
    page = watch_page.render("spam-lora", looks(False, True, True), EPISODES, "en")
    assert page.count('class="out"') == 4  # two looks of the accuracy and of the unknown words
    assert "&lt;spam&gt;" in page
    assert "<spam>" not in page


def test_render_leaves_out_the_looks_at_another_model() -> None:
    other = looks(True)[0] | {"model_sha256": "cd" * 32}
    page = watch_page.render("spam-lora", [other, *looks(False)], [], "en")
    assert 'class="out"' not in page
    assert "There was none." in page


def test_pages_have_no_error_no_sideways_scrolling_and_enough_contrast(tmp_path: Path) -> None:
    with opened(tmp_path / "browser") as browser:
        for language in ("en", "tr"):
            page = tmp_path / f"{language}.html"
            page.write_text(
                watch_page.render("spam-lora", looks(False, True, False), EPISODES, language), encoding="utf-8"
            )
            for width, scheme in ((400, "dark"), (1200, "light")):
                browser.open(page, width, scheme)
                found = browser.errors(), browser.beyond_the_edge(), browser.poor_contrast()
                assert found == ([], 0, []), (language, width)
            assert all(marked for _, marked in browser.tabbed())
            assert browser.missed() == []


@pytest.mark.parametrize("language", ["en", "tr"])
def test_render_draws_a_statistic_without_spread(language: str) -> None:
    flat = looks(False)
    flat[0]["statistics"] = [statistic("unknown_words", 0.5, False) | {"low": 0.5, "high": 0.5}]
    assert "<svg" in watch_page.render("spam-lora", flat, [], language)
