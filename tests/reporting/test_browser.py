"""The pages in a headless Chromium: no error, nothing loaded, no sideways scrolling, contrast, keyboard, paper."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline import files
from pipeline.gates import _page, _wording, raw
from pipeline.reporting import model_page, report
from pipeline.reporting.wording import Language, load
from tests import reports
from tests.browser import Browser, opened
from tests.gates.builders import GATES, Raw, all_failed

LEAST_WIDTH = 400
LANGUAGES = ("en", "tr")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every kind of page in both languages: reports/<language>/..."""
    folder = tmp_path_factory.mktemp("pages")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for language in LANGUAGES:
            params = reports.write(language, grid=reports.GRID)
            review = model_page.Review(
                reports.policy(params), "1", "2", "ab" * 32, "tohum promote spam-full 2 --sha256 " + "ab" * 32
            )
            made = {f"models/{name}": model_page.render(name, params) for name in reports.MODELS}
            made |= {"report": report.render(params), "costs": report.render_costs(params.report)}
            made |= {"review/spam-full": model_page.render("spam-full", params, review=review)}
            made |= {"gates/raw": gate(language, folder), "scaling": scaling(language)}
            for name, page in made.items():
                files.write_text(folder / language / f"{name}.html", page)
    return folder


def gate(language: Language, folder: Path) -> str:
    """The page of gate raw with every rule failed."""
    data, settings = Raw().write(folder / "data"), raw.Settings.model_validate(GATES["raw"])
    wording = _wording.load(language)
    judged = all_failed("raw", raw.profile(settings, data), raw.expectations(settings))
    return _page.page(judged.verdict(wording), wording)


def scaling(language: Language) -> str:
    """The page of a scaling law with six trials."""
    trials = [
        {"weights": n, "tokens": d, "flops": 6.0 * n * d, "loss_nats": 2 + 1e5 / d, "seconds": 9.0}
        for n in (10**5, 10**6)
        for d in (10**5, 10**6, 10**7)
    ]
    return report.render_scaling(trials, lambda _, d: 2 + 1e5 / d, ["-"], load(language))


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with opened(tmp_path_factory.mktemp("browser")) as tab:
        yield tab


def pages(folder: Path) -> list[Path]:
    found = sorted(path for language in LANGUAGES for path in (folder / language).rglob("*.html"))
    assert len(found) == 2 * (len(reports.MODELS) + 5)
    return found


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_have_no_error_no_sideways_scrolling_and_enough_contrast(
    folder: Path, browser: Browser, scheme: str
) -> None:
    for page in pages(folder):
        for width in (LEAST_WIDTH, 1200):
            browser.open(page, width, scheme)
            found = browser.errors(), browser.beyond_the_edge(), browser.poor_contrast()
            assert found == ([], 0, []), (page, width)


def test_dark_pages_are_dark_and_paper_is_white(folder: Path, browser: Browser) -> None:
    page = folder / "en/models/spam-full.html"
    colour = "getComputedStyle(document.documentElement).backgroundColor"
    browser.open(page, 1200, "light")
    assert browser.value(colour) == "rgb(255, 255, 255)"
    browser.open(page, 1200, "dark")
    assert browser.value(colour) != "rgb(255, 255, 255)"
    browser.open(page, 1200, "dark", media="print")
    assert browser.value(colour) == "rgb(255, 255, 255)"
    assert browser.poor_contrast() == []


def test_paper_shows_what_is_folded_on_the_screen(folder: Path, browser: Browser) -> None:
    visible = "[...document.querySelectorAll('details:not([open]) table')].map(e => e.checkVisibility())"
    page = folder / "en/models/chat-full.html"
    browser.open(page, 1200)
    assert set(browser.value(visible)) == {False}
    browser.open(page, 1200, media="print")
    assert set(browser.value(visible)) == {True}


@pytest.mark.parametrize("name", ["models/spam-full", "review/spam-full", "report"])
def test_every_part_is_reached_by_keyboard_and_marked(folder: Path, browser: Browser, name: str) -> None:
    browser.open(folder / f"en/{name}.html", LEAST_WIDTH)
    reached = browser.tabbed()
    assert len(reached) > 5
    assert browser.missed() == []
    assert [tag for tag, marked in reached if not marked] == []


BROKEN = {
    "errors": "<script>missing()</script>",
    "loads": '<img src="picture.png" alt="">',
    "wide": "<div style='width: 900px'>x</div>",
    "grey": "<p style='color: #999; background: #fff'>pale</p>",
    "faded": "<p style='opacity: .5'>faded</p>",
    "unmarked": "<a href='#x' style='outline: none'>x</a><a href='#y' tabindex='-1'>y</a>",
}


def broken(folder: Path, name: str) -> Path:
    head = '<!doctype html><meta charset="utf-8"><title>t</title><body style="background: #fff; color: #555">'
    path = folder / f"broken/{name}.html"
    files.write_text(path, head + "<p style='color: #000'>text</p>" + BROKEN[name])
    return path


def test_the_checks_find_planted_faults(folder: Path, browser: Browser) -> None:
    """Lost otherwise: a check that finds nothing anywhere would pass every page."""
    browser.open(broken(folder, "errors"), LEAST_WIDTH)
    assert browser.errors() != []
    browser.open(broken(folder, "loads"), LEAST_WIDTH)
    assert any("picture.png" in error for error in browser.errors())
    browser.open(broken(folder, "wide"), LEAST_WIDTH)
    assert browser.beyond_the_edge() > 400
    for name, words in (("grey", "pale"), ("faded", "faded")):
        browser.open(broken(folder, name), LEAST_WIDTH)
        (poor,) = browser.poor_contrast()
        assert words in poor
    browser.open(broken(folder, "unmarked"), LEAST_WIDTH)
    assert browser.tabbed() == [("A", False)]
    (missed,) = browser.missed()
    assert "#y" in missed
