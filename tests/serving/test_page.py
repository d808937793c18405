"""The page of the server in a headless Chromium: a conversation, consent, ratings, failures, keyboard, looks."""

import base64
import dataclasses
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from pipeline.data.journal import read, standing
from pipeline.serving import static
from tests.browser import Browser, opened
from tests.served import Site, SlowEngine, until

FOLDER = Path(static.__file__).parent / "page"
WORDS = {language: json.loads((FOLDER / f"page.{language}.json").read_text("utf-8")) for language in ("en", "tr")}
ENGLISH = WORDS["en"]
TURKISH = "İstanbul'da ılık bir gün, IŞIK ve ğüşöç ☀"
HOSTILE = '<script>window.hit = 1</script><img src=x onerror="window.hit = 1"> **bold** [a](javascript:hit=1)'
LAST = "[...document.querySelectorAll('.turn')].at(-1)"


class Page:
    """The page in a tab, by what a person sees and presses."""

    def __init__(self, browser: Browser, site: Site) -> None:
        self.browser, self.site = browser, site

    def open(self, language: str = "en", width: int = 1000, scheme: str = "light") -> "Page":
        """Opens it anew in a browser of this language that has never seen it."""
        browser = self.browser
        browser.call("Storage.clearDataForOrigin", origin=self.site.address, storageTypes="all")
        agent = browser.value("navigator.userAgent")
        browser.call("Emulation.setUserAgentOverride", userAgent=agent, acceptLanguage=language)
        browser.open(self.site.address + "/", width, scheme)
        browser.until("document.querySelector('#about').textContent")
        return self

    def text(self, selector: str, of: str = "document") -> str:
        return str(self.browser.value(f"{of}.querySelector({selector!r})?.textContent ?? ''"))

    def press(self, words: str, of: str = "document") -> None:
        """Presses the button with these words."""
        find = f"[...{of}.querySelectorAll('button')].find(e => e.textContent === {words!r} && e.checkVisibility())"
        self.browser.until(f"!!{find}")
        self.browser.value(f"{find}.click()")

    def switch(self, name: str) -> None:
        self.browser.value(f"document.querySelector('#{name}').click()")

    def choose(self, model: str) -> None:
        chosen = f"m.value = {model!r}, m.dispatchEvent(new Event('change'))"
        self.browser.value(f"(m => ({chosen}))(document.querySelector('#model'))")

    def write(self, text: str) -> None:
        self.browser.value("document.querySelector('#question').focus()")
        self.browser.write(text)

    def send(self, text: str) -> None:
        """Types and presses Enter."""
        self.write(text)
        self.browser.key("Enter", "\r")

    def ended(self) -> str:
        """Waits for the end of the last turn; its note."""
        self.browser.until(
            f"{LAST}?.querySelector(':scope > .note').textContent && !document.querySelector('#send').hidden"
        )
        return self.text(".note", LAST)

    def ask(self, text: str) -> str:
        """Sends a text, waits, and gives the first answer."""
        self.send(text)
        self.ended()
        return self.text(".said", LAST)

    def says(self, status: str) -> None:
        """Waits until the line of the status says this."""
        self.browser.until(f"document.querySelector('#status').textContent === {status!r}")

    def requests(self) -> list[dict[str, Any]]:
        return [dict(entry) for entry in self.entries() if entry["kind"] == "request"]

    def ratings(self, request: str) -> list[tuple[str, Any]]:
        """Form and value of the ratings of a request that stand."""
        given = [entry for entry in self.entries() if entry["kind"] == "rating" and entry["request"] == request]
        return [(one["form"], one["value"]) for one in standing(given)]

    def entries(self) -> list[Any]:
        return list(read(self.site.server.records._folder))


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with opened(tmp_path_factory.mktemp("browser")) as tab:
        yield tab


@pytest.fixture
def page(browser: Browser, site: Site) -> Page:
    return Page(browser, site).open()


@pytest.fixture
def slow(site: Site) -> Iterator[SlowEngine]:
    loaded = site.server.shelf.slots["chat-full"].loaded
    assert loaded is not None
    engine = loaded.engine
    loaded.engine = slowed = SlowEngine(loaded)  # type: ignore[assignment]
    yield slowed
    slowed.goes_on = True
    until(lambda: not site.server.decoder.answers, "answers are left")
    loaded.engine = engine


@pytest.fixture
def answer(browser: Browser) -> Iterator[Callable[..., dict[str, Any]]]:
    """Answers the page's next request in place of the server; gives the request."""
    browser.call("Fetch.enable", patterns=[{"urlPattern": "*/v1/chat/completions*"}])

    def fulfil(status: int = 200, body: str = "", reason: str = "", **headers: str) -> dict[str, Any]:
        paused = browser.awaited("Fetch.requestPaused")
        if reason:
            browser.call("Fetch.failRequest", requestId=paused["requestId"], errorReason=reason)
        else:
            pairs = [{"name": name.replace("_", "-"), "value": value} for name, value in headers.items()]
            content = base64.b64encode(body.encode()).decode()
            browser.call(
                "Fetch.fulfillRequest", requestId=paused["requestId"], responseCode=status, responseHeaders=pairs,
                body=content,
            )  # fmt: skip
        return dict(paused["request"])

    yield fulfil
    browser.call("Fetch.disable")


def chunk(text: str, index: int = 0, finish: str | None = None) -> str:
    choice = {"index": index, "delta": {"content": text}, "finish_reason": finish}
    return f"data: {json.dumps({'choices': [choice]})}\n\n"


def error(message: str, code: str = "") -> str:
    return json.dumps({"error": {"message": message, "code": code}})


def test_page_streams_an_answer_that_escape_stops(page: Page, slow: SlowEngine) -> None:
    before = len(page.requests())
    page.switch("store")
    page.send(TURKISH)
    until(lambda: slow.steps == 1, "the answer did not begin")
    assert page.browser.value(f"{LAST}.querySelector('.said').getAttribute('aria-busy')") == "true"
    assert page.text("#status") == ENGLISH["answering"]
    assert page.browser.value("document.querySelector('#send').hidden")
    page.browser.key("Escape")
    assert page.ended() == ENGLISH["stopped stored"]
    until(lambda: not page.site.server.decoder.answers, "the row is still there")
    assert len(page.requests()) == before
    assert page.browser.value(f"{LAST}.querySelector('.answer .actions').children.length") == 0
    slow.goes_on = True
    page.press(ENGLISH["regenerate"])
    page.browser.until(f"{LAST}.querySelector('.note').textContent === {ENGLISH['kept']!r}")
    assert page.text("#status") in (ENGLISH["answered"], ENGLISH["cut"])
    assert page.browser.errors(loads=False) == []


def test_page_stores_nothing_without_consent_and_each_message_once_with_it(page: Page) -> None:
    """Lost otherwise: text of a person who said no would be on disk."""
    before = page.requests()
    assert not page.browser.value("document.querySelector('#store').checked")
    assert page.text("#store-help") == ENGLISH["consent.off"]
    page.ask("a secret that nobody may keep")
    assert page.text(".note", LAST) == ENGLISH["not kept"]
    assert page.browser.value(f"{LAST}.querySelectorAll('.answer button').length") == 0
    assert page.requests() == before
    page.press(ENGLISH["new"])
    page.switch("store")
    assert page.text("#store-help") == ENGLISH["consent.on"]
    said = page.ask(TURKISH)
    (kept,) = page.requests()[len(before) :]
    assert kept["messages"] == [{"role": "user", "content": TURKISH}]
    assert [one["text"] for one in kept["answers"]] == [said]
    assert page.text(".note", LAST) == ENGLISH["kept"]
    for path in page.site.server.records._folder.rglob("*"):
        assert not path.is_file() or b"a secret that" not in path.read_bytes()


def test_page_sends_no_earlier_text_without_consent_along_with_a_stored_message(page: Page) -> None:
    """Lost otherwise: consent to one message puts the whole conversation before it into the journal."""
    page.ask("gizli soru")
    page.switch("store")
    page.ask("saklanan soru")
    page.ask("ikinci saklanan")
    stored = page.requests()[-2:]
    said = [[message["content"] for message in entry["messages"] if message["role"] == "user"] for entry in stored]
    assert said == [["saklanan soru"], ["saklanan soru", "ikinci saklanan"]]
    page.press(ENGLISH["consent.forget"])
    page.press(ENGLISH["consent.sure"])
    page.says(ENGLISH["consent.forgotten"].replace("{n}", "2"))
    page.switch("store")
    page.ask("sonraki")
    assert [message["content"] for message in page.requests()[-1]["messages"]] == ["sonraki"]


def test_thumb_is_stored_changed_and_taken_back(page: Page) -> None:
    page.switch("store")
    page.ask("Merhaba")
    request = page.requests()[-1]["id"]
    pressed = f"[...{LAST}.querySelectorAll('[aria-pressed=true]')].map(e => e.textContent)"
    page.press(ENGLISH["up"], LAST)
    page.says(ENGLISH["rated"])
    assert page.browser.value(pressed) == [ENGLISH["up"]]
    page.press(ENGLISH["down"], LAST)
    page.browser.until(f"{pressed}[0] === {ENGLISH['down']!r}")
    assert page.ratings(request) == [("thumb", "down")]
    page.press(ENGLISH["undo"], LAST)
    page.says(ENGLISH["undone"])
    assert page.browser.value(pressed) == []
    assert page.ratings(request) == []


def test_nothing_is_rated_after_consent_is_switched_off_but_ratings_are_taken_back(page: Page) -> None:
    """Lost otherwise: a person who has changed their mind would still add to the journal."""
    page.switch("store")
    page.ask("Merhaba")
    request = page.requests()[-1]["id"]
    page.switch("store")
    assert page.text(".note", LAST) == ENGLISH["kept off"]
    assert page.browser.value(f"{LAST}.querySelectorAll('.answer button').length") == 0
    page.switch("store")
    page.press(ENGLISH["up"], LAST)
    page.says(ENGLISH["rated"])
    page.switch("store")
    page.press(ENGLISH["undo"], LAST)
    page.says(ENGLISH["undone"])
    assert page.ratings(request) == []


def test_page_says_that_another_version_answers(page: Page) -> None:
    slot = page.site.server.shelf.slots["chat-full"]
    before = slot.loaded
    assert before is not None
    slot.loaded = dataclasses.replace(before, version="2", standing="champion")
    try:
        page.ask("Merhaba")
        page.says(ENGLISH["swapped"].replace("{model}", "chat-full").replace("{version}", "2"))
        expected = ENGLISH["about.champion"].replace("{model}", "chat-full").replace("{version}", "2")
        assert page.text("#about") == expected
    finally:
        slot.loaded = before


def test_two_drafts_are_chosen_from(page: Page) -> None:
    page.switch("store")
    page.switch("drafts")
    page.ask("Merhaba")
    kept = page.requests()[-1]
    drafts = page.browser.value(f"[...{LAST}.querySelectorAll('.said')].map(e => e.textContent)")
    assert drafts == [one["text"] for one in kept["answers"]]
    assert kept["settings"]["temperature"] > 0
    second = f"{LAST}.querySelectorAll('.answer')[1]"
    page.press(ENGLISH["choose"], second)
    page.browser.until(f"{second}.classList.contains('chosen')")
    assert page.ratings(kept["id"]) == [("choice", 1)]
    page.press(ENGLISH["undo"], LAST)
    page.says(ENGLISH["undone"])
    assert page.ratings(kept["id"]) == []
    assert not page.browser.value(f"{second}.classList.contains('chosen')")
    page.press(ENGLISH["tie"], LAST)
    page.says(ENGLISH["rated"])
    assert page.ratings(kept["id"]) == [("choice", "tie")]


def test_a_chosen_draft_and_a_correction_are_what_the_conversation_goes_on_with(page: Page) -> None:
    page.switch("store")
    page.ask("Birinci")
    kept = page.requests()[-1]
    page.press(ENGLISH["correct"], LAST)
    page.browser.value("document.activeElement.select()")
    page.browser.write(HOSTILE)
    page.press(ENGLISH["save"], LAST)
    page.says(ENGLISH["rated"])
    assert page.ratings(kept["id"]) == [("correction", HOSTILE)]
    assert page.text(".said", LAST) == HOSTILE
    page.switch("drafts")
    page.ask("İkinci")
    page.press(ENGLISH["choose"], f"{LAST}.querySelectorAll('.answer')[1]")
    page.says(ENGLISH["rated"])
    second = page.requests()[-1]
    assert [one["content"] for one in second["messages"]] == ["Birinci", HOSTILE, "İkinci"]
    page.ask("Üçüncü")
    assert page.requests()[-1]["messages"][3] == {"role": "assistant", "content": second["answers"][1]["text"]}
    assert page.browser.value("window.hit ?? 0") == 0


def test_texts_of_people_and_models_are_never_html(page: Page, answer: Callable[..., dict[str, Any]]) -> None:
    page.send(HOSTILE)
    answer(200, chunk(HOSTILE[:20]) + chunk(HOSTILE[20:] + TURKISH, finish="stop") + "data: [DONE]\n\n")
    page.ended()
    assert page.text(".question", LAST) == HOSTILE
    assert page.text(".said", LAST) == HOSTILE + TURKISH
    assert page.browser.value(f"{LAST}.querySelectorAll('img, script, b, strong, a').length") == 0
    assert page.browser.value("window.hit ?? 0") == 0
    for path in FOLDER.glob("*.js"):
        code = path.read_text(encoding="utf-8")
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function|srcdoc", code)


@pytest.mark.parametrize("language", ["en", "tr"])
def test_failures_are_said_in_words(page: Page, answer: Callable[..., dict[str, Any]], language: str) -> None:
    words, again = WORDS[language], False
    page.open(language)
    done = "data: [DONE]\n\n"
    cases: list[tuple[dict[str, Any], str]] = [
        ({"status": 429, "body": error("x"), "Retry_After": "7"}, words["fault.busy"].replace("{seconds}", "7")),
        ({"status": 503, "body": error("ends")}, words["fault.ending"].replace("{detail}", "ends")),
        ({"status": 413, "body": error("x")}, words["fault.long"]),
        ({"status": 502, "body": "<html>"}, words["fault.server"].replace("{detail}", "")),
        ({"reason": "ConnectionRefused"}, words["fault.unreachable"]),
        ({"body": chunk("half an")}, words["fault.gone"]),
        ({"body": f"{chunk('half')}data: {error('no', 'timeout')}\n\n{done}"}, words["fault.slow"]),
    ]
    for case, expected in cases:
        if again:
            page.press(words["try again"], LAST)
        else:
            page.send("Merhaba")
        again = True
        answer(**case)
        page.browser.until(f"{LAST}.querySelector('.note').textContent === {expected.strip()!r}"
                           f" || {LAST}.querySelector('.note').textContent === {expected!r}")  # fmt: skip
    page.press(words["try again"], LAST)
    answer(200, chunk("whole", finish="stop") + done)
    assert page.ended() == words["not kept"]
    assert page.text(".said", LAST) == "whole"


def test_page_asks_for_a_key_and_keeps_it_only_for_the_visit(page: Page, answer: Callable[..., dict[str, Any]]) -> None:
    page.send("Merhaba")
    answer(401, error("a valid API key is needed"))
    page.browser.until("document.querySelector('#key-dialog').open")
    page.browser.write("tohum-secret")
    page.browser.key("Enter", "\r")
    asked = answer(200, chunk("Selam", finish="stop") + "data: [DONE]\n\n")
    headers = {name.lower(): value for name, value in asked["headers"].items()}
    assert headers["authorization"] == "Bearer tohum-secret"
    page.ended()
    assert page.text(".said", LAST) == "Selam"
    assert "secret" not in page.browser.value(
        "JSON.stringify(localStorage) + JSON.stringify(sessionStorage) + document.cookie"
    )
    page.send("Yine")
    answer(401, error("a valid API key is needed"))
    page.browser.until("document.querySelector('#key-dialog').open")
    assert page.browser.value("document.querySelector('#key-wrong').hidden")
    page.browser.write("another")
    page.browser.key("Enter", "\r")
    answer(401, error("a valid API key is needed"))
    page.browser.until("!document.querySelector('#key-wrong').hidden")
    assert page.browser.poor_contrast() == []
    page.browser.key("Escape")
    assert page.ended() == ENGLISH["fault.key"]


def test_consent_that_the_server_never_takes_switches_itself_off(
    page: Page, answer: Callable[..., dict[str, Any]]
) -> None:
    page.switch("store")
    page.send("Merhaba")
    answer(400, json.dumps({"error": {"message": "this server keeps no request", "param": "store"}}))
    assert "this server keeps no request" in page.ended()
    assert not page.browser.value("document.querySelector('#store').checked")
    assert page.text("#store-help") == ENGLISH["consent.off"]


def test_keyboard_alone_is_enough(page: Page) -> None:
    browser = page.browser
    browser.write("one")
    browser.key("Enter", "\r", shift=True)
    browser.write("two")
    assert browser.value("document.querySelector('#question').value") == "one\ntwo"
    browser.key("Enter", "\r")
    page.ended()
    assert page.text(".question", LAST) == "one\ntwo"
    browser.until("innerHeight + scrollY >= document.body.scrollHeight - 2")  # the end is in sight
    assert browser.value("document.activeElement.id") == "question"
    browser.value("document.querySelector('#store').focus()")
    browser.key(" ", " ")
    assert browser.value("document.querySelector('#store').checked")
    page.ask("three")
    good = f"[...{LAST}.querySelectorAll('button')].find(e => e.textContent === {ENGLISH['up']!r})"
    browser.value(f"{good}.focus()")
    browser.key(" ", " ")
    page.says(ENGLISH["rated"])
    assert browser.value("document.activeElement.textContent") == ENGLISH["up"]
    assert browser.value("document.activeElement.getAttribute('aria-pressed')") == "true"
    reached = browser.tabbed()
    assert [tag for tag, marked in reached if not marked] == []
    controls = "document.querySelectorAll('button, select, textarea, input, [tabindex]')"
    seen = f"[...{controls}].filter(e => e.checkVisibility())"
    assert browser.value(f"{seen}.filter(e => !e.dataset.reached).map(e => e.outerHTML)") == []
    order = browser.value(f"{seen}.map(e => e.id || e.textContent)")
    assert (
        order.index("model")
        < order.index("store")
        < order.index(ENGLISH["up"])
        < order.index("question")
        < order.index("send")
    )


def test_page_speaks_the_language_of_the_browser_and_the_one_chosen(page: Page) -> None:
    page.open("tr-TR")
    words = WORDS["tr"]
    assert page.browser.value("document.documentElement.lang") == "tr"
    assert page.text("#send") == words["send"]
    page.switch("drafts")
    page.ask("Merhaba")
    page.press("English")
    page.browser.until("document.documentElement.lang === 'en'")
    shown = page.text("body")
    assert not [
        words[key] for key in words if words[key] != ENGLISH[key] and len(words[key]) > 9 and words[key] in shown
    ]
    assert "Draft 1" in shown
    assert page.text(".note", LAST) == ENGLISH["not kept"]
    page.browser.open(page.site.address + "/", 1000)
    page.browser.until("document.querySelector('#about').textContent")
    assert page.browser.value("document.documentElement.lang") == "en"


def test_words_are_the_same_in_both_languages_and_none_is_missing() -> None:
    fields = {
        language: {key: set(re.findall(r"{(\w+)}", text)) for key, text in WORDS[language].items()}
        for language in WORDS
    }
    assert fields["en"] == fields["tr"]
    sources = "".join(path.read_text(encoding="utf-8") for path in FOLDER.glob("*.*s")) + (
        FOLDER / "index.html"
    ).read_text("utf-8")
    named = set(re.findall(r'data-t(?:-label)?="([^"]+)"', sources)) | {key for key in ENGLISH if f'"{key}"' in sources}
    made = {f"fault.{name}" for name in re.findall(r': "(\w+)"', sources)} | {
        f"ask.{name}" for name in ("chat", "classify", "complete")
    }
    assert named <= set(ENGLISH)
    assert set(ENGLISH) <= named | made


@pytest.mark.parametrize(("scheme", "language"), [("light", "tr"), ("dark", "en")])
def test_page_fits_400_pixels_has_contrast_and_no_error(page: Page, scheme: str, language: str, tmp_path: Path) -> None:
    words = WORDS[language]
    page.open(language, 400, scheme)
    page.ask("Merhaba " * 12 + "çok" * 60)
    page.switch("store")
    page.ask(TURKISH)
    page.press(words["up"], LAST)
    page.says(words["rated"])
    page.press(words["correct"], LAST)
    page.switch("drafts")
    page.ask("Üçüncü")
    page.choose("spam-full")
    page.ask("bedava ödül")
    for width in (400, 1200):
        page.browser.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False
        )
        assert (page.browser.beyond_the_edge(), page.browser.poor_contrast()) == (0, [])
        page.browser.picture(tmp_path / f"page-{language}-{width}.png")
    assert page.browser.errors(loads=False) == []
    loaded = {
        event["params"]["request"]["url"]
        for event in page.browser.events
        if event["method"] == "Network.requestWillBeSent"
    }
    assert all(url.startswith(f"{page.site.address}/") for url in loaded)
    page.browser.call("Emulation.setEmulatedMedia", media="print")
    assert not page.browser.value("document.querySelector('#composer').checkVisibility()")
    assert page.browser.value("document.querySelector('.said').checkVisibility()")
    assert page.browser.poor_contrast() == []


def test_classifier_shows_labels_with_probabilities_and_takes_the_right_one(page: Page) -> None:
    page.open("tr")
    page.choose("spam-full")
    assert page.text("#question-label") == WORDS["tr"]["ask.classify"]
    page.switch("store")
    said = page.ask("bedava ödül")
    rows = page.browser.value(
        f"[...{LAST}.querySelectorAll('tr')].map(e => [e.children[0].textContent, e.children[2].textContent])"
    )
    assert {label for label, _ in rows} == {"ham", "spam"}
    assert rows[0][0] == said
    assert all(re.fullmatch(r"%\d+(,\d)?", share) for _, share in rows)
    right = f"(s => (s.value = 'spam', s.dispatchEvent(new Event('change'))))({LAST}.querySelector('select'))"
    page.browser.value(right)
    page.says(WORDS["tr"]["rated"])
    kept = page.requests()[-1]
    assert kept["text"] == "bedava ödül"
    labels = [one for one in page.entries() if one["kind"] == "label" and one["request"] == kept["id"]]
    assert [one["label"] for one in labels] == ["spam"]


def test_base_model_continues_a_text(page: Page) -> None:
    page.choose("base")
    assert page.text("#question-label") == ENGLISH["ask.complete"]
    page.switch("store")
    said = page.ask("Bir varmış")
    kept = page.requests()[-1]
    assert (kept["text"], kept["answers"][0]["text"]) == ("Bir varmış", said)


def test_everything_that_this_browser_sent_is_deleted_at_the_second_press(page: Page) -> None:
    page.switch("store")
    page.ask("to be forgotten")
    kept = page.requests()[-1]["id"]
    page.press(ENGLISH["consent.forget"])
    assert kept in {one["id"] for one in page.requests()}
    page.press(ENGLISH["consent.sure"])
    page.says(ENGLISH["consent.forgotten"].replace("{n}", "1"))
    assert kept not in {one["id"] for one in page.requests()}
    assert page.text(".note", LAST) == ENGLISH["not kept"]
    assert not page.browser.value("document.querySelector('#store').checked")
    assert page.browser.value("localStorage.getItem('tohum.user')") is None


def test_page_says_which_model_answers_and_whether_it_is_reviewed(page: Page) -> None:
    assert page.text("#about") == ENGLISH["about.folder"].replace("{model}", "chat-full")
    described = {
        "champion": "about.champion", "not the champion": "about.other", "unreviewed": "about.unreviewed",
    }  # fmt: skip
    page.browser.call("Fetch.enable", patterns=[{"urlPattern": "*/v1/models"}])
    try:
        for review, key in described.items():
            page.browser.value("location.reload()")
            listed = {"id": "chat", "ready": True, "version": "3", "review": review, "task": "chat", "endpoint": "x"}
            content = base64.b64encode(json.dumps({"data": [listed]}).encode()).decode()
            paused = page.browser.awaited("Fetch.requestPaused")
            page.browser.call("Fetch.fulfillRequest", requestId=paused["requestId"], responseCode=200, body=content)
            expected = ENGLISH[key].replace("{model}", "chat").replace("{version}", "3")
            page.browser.until(f"document.querySelector('#about').textContent === {expected!r}")
    finally:
        page.browser.call("Fetch.disable")


def test_page_is_served_under_a_policy_that_runs_no_other_code(site: Site) -> None:
    with httpx.Client(base_url=site.address) as http:
        index = http.get("/")
        policy = index.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert not re.search(r"<script(?![^>]*src=)|<style|\sstyle=|\son\w+=", index.text)
        for name in re.findall(r'(?:src|href)="([^"]+)"', index.text):
            assert http.get(name).status_code == 200, name
