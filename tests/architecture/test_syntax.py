"""Fingerprints of source files: equal for equal programs, in every Python version; different for different ones."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline import syntax
from pipeline.paths import CODE as ROOT

EXAMPLE = '''
"""A module."""
from __future__ import annotations
import os.path as p
from typing import TYPE_CHECKING
if TYPE_CHECKING:
    from x import Y
LIMIT: float = 1e-05
"""An attribute."""
NAMES = {"a": 1, **{}, 'ü': b"\\x00\\xff", "n": None, "e": ..., "c": 2j, "t": True, "i": 1, "f": 1.0, "big": 10**40}
@p.decorated(1, *[2], k=3, **{})
class A(list, metaclass=type):
    """A class."""
    field: int = 0
    async def f(self, a, /, b: int = 1, *c, d=None, e, **g) -> "Y":
        """A function."""
        async with a as b, c: yield [x async for x in d if x if not x]
        return lambda *_, k=1: (yield)
def g(x):
    global LIMIT
    try:
        del x[1:2, ...], x.y
    except (ValueError, OSError) as error: raise KeyError(f"{x!r:>{LIMIT}} {x=} a" "b" f"{{{x}}}" 'c') from error
    else: assert x, "no"
    finally: x @= -1 if not x else ~x
    while (y := x) and 1 < y <= 2 or y is not None: continue
    else: break
    for [i, *j] in zip(x): pass
    match x:
        case {"k": [1, *_, A(z, w=2)], **rest} | None if rest: pass
        case -1 | "s" | p.q as z: nonlocal_ = {*x}, {i: j for i in x}, (i for i in x)
'''
GOLDEN = "307af2fecc376677818765cd1baa3449"


def fingerprint(text: str) -> str:
    return syntax.parsed(ast.parse(text)).fingerprint


def test_fingerprint_of_an_example_is_the_recorded_one() -> None:
    """Recorded with Python 3.11: another version that gives another one would rerun every stage of a colleague."""
    assert fingerprint(EXAMPLE) == GOLDEN


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"""A module."""', '"""Another sentence."""  # and a comment'),
        ('"""A module."""\n', ""),
        ('    """A class."""\n', "    pass\n"),
        ('"""An attribute."""', ""),
        ("    from x import Y\n", "    from x import Y, Z\n"),
        ("field: int = 0", "field: int = (0)  # parentheses, comments and blank lines\n\n"),
        ("1e-05", "0.00001"),
        ("b\"\\x00\\xff\"", "b'\\x00\\xff'"),
        ('"n": None', '"n":\n    None'),
        ('"b" f"{{', '"" "b" f"{{'),
    ],
)  # fmt: skip
def test_fingerprint_is_the_same_when_nothing_that_runs_differs(old: str, new: str) -> None:
    assert old in EXAMPLE
    assert fingerprint(EXAMPLE.replace(old, new, 1)) == fingerprint(EXAMPLE)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"t": True', '"t": 1'),
        ('"i": 1', '"i": 1.0'),
        ('"i": 1', '"i": "1"'),
        ('b"\\x00', '"\\x00'),
        ("field: int = 0", "field: float = 0"),
        ("k=3", "j=3"),
        ("d=None, e", "d, e=None"),
        ("async with", "with"),
        ("1 < y <= 2", "1 < y < 2"),
        ("is not None", "is None"),
        ("-1 if not x else ~x", "~x if not x else -1"),
        ("global LIMIT", "LIMIT = 1"),
        ("{x!r:>{LIMIT}}", "{x!s:>{LIMIT}}"),
        ("{x!r:>{LIMIT}}", "{x!r:<{LIMIT}}"),
        ("else: break", "else: continue"),
        ("x[1:2, ...]", "x[:2, ...]"),
        ("**{}, 'ü'", "'ü'"),
        ("case -1 |", "case 1 |"),
        ("w=2", "w=3"),
        ("[i, *j]", "[*i, j]"),
    ],
)
def test_fingerprint_differs_when_the_program_does(old: str, new: str) -> None:
    assert old in EXAMPLE
    assert fingerprint(EXAMPLE.replace(old, new, 1)) != fingerprint(EXAMPLE)


def others() -> list[str]:
    """The other interpreters on this machine, 3.11 or newer."""
    places = [*Path("/usr/bin").glob("python3.*"), *Path("/usr/local/bin").glob("python3.*")]
    places += Path.home().glob(".pyenv/versions/3.*/bin/python3")
    found: dict[str, str] = {}
    for place in places:
        show = "import sys; print('%d.%d' % sys.version_info[:2])"
        done = subprocess.run([str(place), "-c", show], capture_output=True, text=True, check=False)
        version = done.stdout.strip()
        if done.returncode == 0 and tuple(map(int, version.split("."))) >= (3, 11):
            found.setdefault(version, str(place))
    found.pop(f"{sys.version_info[0]}.{sys.version_info[1]}", None)
    return sorted(found.values())


SHOW = """
import pathlib, sys
from pipeline import syntax
for path in sorted(pathlib.Path("pipeline").rglob("*.py")):
    print(path, syntax.read(path).fingerprint)
"""


@pytest.mark.parametrize("interpreter", others())
def test_fingerprints_are_equal_in_another_python(interpreter: str) -> None:
    """Where there is one; the recorded example stands for the others."""
    command = ["-I", "-c", f"import sys; sys.path.insert(0, '.'){SHOW}"]
    shown = [
        subprocess.run([python, *command], cwd=ROOT, capture_output=True, text=True, check=True).stdout
        for python in (sys.executable, interpreter)
    ]
    assert shown[0].count("\n") > 100
    assert shown[0] == shown[1]
