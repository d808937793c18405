"""A headless Chromium that tests look at pages with, spoken to in its DevTools protocol.

The distribution's Chromium or Chrome. Without one, tests skip; where TOHUM_BROWSER is `required` (CI) they fail.
"""

import base64
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_DEADLINE_S = 120

# Every visible text with its own colour and the colour behind it, as WCAG 2.2, 1.4.3 computes contrast.
_CONTRAST = """
(() => {
  const parse = text => { const n = text.match(/[\\d.]+/g).map(Number); return [n[0], n[1], n[2], n[3] ?? 1]; };
  const over = (top, under) => top.slice(0, 3).map((c, i) => c * top[3] + under[i] * (1 - top[3])).concat(1);
  const behind = element => {
    const layers = [];
    for (let e = element; e; e = e.parentElement) layers.push(parse(getComputedStyle(e).backgroundColor));
    return layers.reverse().reduce((under, top) => over(top, under), [255, 255, 255, 1]);
  };
  const opacity = element => {
    let value = 1;
    for (let e = element; e; e = e.parentElement) value *= Number(getComputedStyle(e).opacity);
    return value;
  };
  const light = c => { c /= 255; return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4; };
  const luminance = c => 0.2126 * light(c[0]) + 0.7152 * light(c[1]) + 0.0722 * light(c[2]);
  const poor = [];
  let texts = 0;
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node; (node = walker.nextNode());) {
    const element = node.parentElement;
    if (!node.data.trim() || !element.checkVisibility()) continue;
    if (['STYLE', 'TITLE', 'title'].includes(element.tagName)) continue;
    texts += 1;
    const style = getComputedStyle(element);
    let under = behind(element);
    if (element.closest('svg')) {
      const box = element.closest('a, g')?.querySelector(':scope > rect');
      if (box) under = over(parse(getComputedStyle(box).fill), under);
    }
    const ink = parse(element.closest('svg') ? style.fill : style.color);
    ink[3] *= opacity(element);
    const [a, b] = [luminance(over(ink, under)), luminance(under)];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) poor.push(`${ratio.toFixed(2)}: ${node.data.trim().slice(0, 60)}`);
  }
  return {texts, poor};
})()
"""
# Tag of the focused element and whether an outline marks it; null after the last one. The element is marked as reached.
_FOCUS = """
(() => {
  const e = document.activeElement, s = getComputedStyle(e);
  if (e === document.body || e === document.documentElement) return null;
  e.dataset.reached = 'yes';
  return [e.tagName, s.outlineStyle !== 'none' && parseFloat(s.outlineWidth) > 0];
})()
"""
_MISSED = """
[...document.querySelectorAll('a[href], summary, [tabindex]')]
  .filter(e => e.checkVisibility() && !e.dataset.reached).map(e => e.outerHTML.slice(0, 80))
"""


def executable() -> str:
    """Path of the browser; skips the test where there is none, or fails it where CI must have one."""
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    if found is None:
        if os.environ.get("TOHUM_BROWSER") == "required":
            pytest.fail(f"none of {', '.join(NAMES)} is on PATH, and TOHUM_BROWSER is `required`")
        pytest.skip("no Chromium on this machine")
    return found


class Browser:
    """One tab."""

    def __init__(self, socket: Any) -> None:
        self._socket, self._number = socket, 0
        self.events: list[dict[str, Any]] = []
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **arguments: Any) -> dict[str, Any]:
        """Calls a method of the protocol and returns its result; events that come meanwhile are kept."""
        self._number += 1
        self._socket.send(json.dumps({"id": self._number, "method": method, "params": arguments}))
        while True:
            message = self._receive()
            if message.get("id") == self._number:
                assert "error" not in message, message
                return message["result"]

    def _receive(self) -> dict[str, Any]:
        message = json.loads(self._socket.recv(timeout=_DEADLINE_S))
        if "method" in message:
            self.events.append(message)
        return message

    def open(self, page: Path | str, width: int, scheme: str = "light", media: str = "") -> None:
        """Loads a file or an address in a window of this width, in a colour scheme, on screen or (media: print) on
        paper."""
        self.events.clear()
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
        feature = {"name": "prefers-color-scheme", "value": scheme}
        self.call("Emulation.setEmulatedMedia", media=media, features=[feature])
        self.call("Page.navigate", url=page if isinstance(page, str) else page.resolve().as_uri())
        while not any(event["method"] == "Page.loadEventFired" for event in self.events):
            self._receive()

    def value(self, script: str) -> Any:
        """The value of an expression on the page; of a promise, that which it gives."""
        result = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def key(self, name: str, text: str = "", shift: bool = False) -> None:
        """Presses and releases a key: `Enter`, `Escape`, `Tab`, ...; `text` is what it types."""
        code = {"Enter": 13, "Escape": 27, "Tab": 9, " ": 32}[name]
        known = {"key": name, "code": "Space" if name == " " else name, "windowsVirtualKeyCode": code}
        known["modifiers"] = 8 if shift else 0
        typed = {"text": text, "unmodifiedText": text} if text else {}
        self.call("Input.dispatchKeyEvent", type="keyDown", **known, **typed)
        self.call("Input.dispatchKeyEvent", type="keyUp", **known)

    def write(self, text: str) -> None:
        """Types a text where the focus is."""
        self.call("Input.insertText", text=text)

    def until(self, script: str) -> Any:
        """The value of an expression as soon as it is true; a minute at most, as a busy machine delays it."""
        end = time.monotonic() + _DEADLINE_S / 2
        while not (found := self.value(script)):
            assert time.monotonic() < end, f"not true after {_DEADLINE_S / 2:.0f} s: {script}"
            time.sleep(0.02)
        return found

    def awaited(self, method: str) -> dict[str, Any]:
        """Parameters of the next event of this name, which is taken out of `events`."""
        while True:
            for place, event in enumerate(self.events):
                if event["method"] == method:
                    return dict(self.events.pop(place)["params"])
            self._receive()

    def picture(self, path: Path) -> None:
        """Writes the whole page as a PNG file."""
        shot = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(shot["data"]))

    def errors(self, loads: bool = True) -> list[str]:
        """Errors of the console, uncaught exceptions, and (loads) addresses loaded besides the page itself."""
        self.value("1")  # events before this answer have arrived with it
        found = []
        for event in self.events:
            params = event["params"]
            if event["method"] == "Runtime.exceptionThrown":
                found.append(params["exceptionDetails"]["text"])
            elif event["method"] == "Runtime.consoleAPICalled" and params["type"] in ("error", "assert"):
                found.append(str(params["args"]))
            elif event["method"] == "Log.entryAdded" and params["entry"]["level"] == "error":
                found.append(params["entry"]["text"])
            elif loads and event["method"] == "Network.requestWillBeSent" and params["type"] != "Document":
                found.append(f"loads {params['request']['url']}")
        return found

    def beyond_the_edge(self) -> int:
        """Pixels by which the page is wider than the window; 0: no horizontal scrolling."""
        return int(self.value("document.documentElement.scrollWidth - document.documentElement.clientWidth"))

    def poor_contrast(self) -> list[str]:
        """Texts whose contrast with what is behind them is below 4.5, with the ratio."""
        found = self.value(_CONTRAST)
        assert found["texts"] > 0
        return list(found["poor"])

    def tabbed(self, most: int = 500) -> list[tuple[str, bool]]:
        """What the Tab key reaches from the top: tag, and whether the focus is marked by an outline."""
        self.value("(body => (body.tabIndex = -1, body.focus(), body.removeAttribute('tabindex')))(document.body)")
        reached = []
        for _ in range(most):
            for kind in ("keyDown", "keyUp"):
                self.call("Input.dispatchKeyEvent", type=kind, key="Tab", code="Tab", windowsVirtualKeyCode=9)
            focus = self.value(_FOCUS)
            if focus is None:
                break
            reached.append((str(focus[0]), bool(focus[1])))
        return reached

    def missed(self) -> list[str]:
        """Links and parts to open or scroll that `tabbed` has not reached."""
        return list(self.value(_MISSED))


@contextmanager
def opened(folder: Path) -> Iterator[Browser]:
    """A browser with one tab; its profile is written below `folder`."""
    from websockets.sync.client import connect

    profile = folder / "profile"
    command = [
        executable(), "--headless", "--disable-gpu", "--no-first-run", "--hide-scrollbars", "--disable-extensions",
        "--disable-background-networking", "--disable-dev-shm-usage", "--remote-debugging-port=0",
        f"--user-data-dir={profile}", *(["--no-sandbox"] if os.geteuid() == 0 else []), "about:blank",
    ]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        port, _ = _port(profile / "DevToolsActivePort", process)
        import httpx

        tabs = httpx.get(f"http://127.0.0.1:{port}/json", timeout=_DEADLINE_S).json()
        (tab,) = [tab for tab in tabs if tab["type"] == "page"]
        with connect(tab["webSocketDebuggerUrl"], max_size=None) as socket:
            yield Browser(socket)
    finally:
        process.terminate()
        process.wait(timeout=_DEADLINE_S)


def _port(path: Path, process: "subprocess.Popen[bytes]") -> tuple[int, str]:
    """The port that the browser chose, and the path of its own socket."""
    end = time.monotonic() + _DEADLINE_S
    while time.monotonic() < end:
        assert process.poll() is None, f"the browser ended with {process.returncode}"
        lines = path.read_text(encoding="utf-8").split() if path.is_file() else []
        if len(lines) == 2:
            return int(lines[0]), lines[1]
        time.sleep(0.05)
    raise AssertionError(f"no {path} after {_DEADLINE_S} s")
