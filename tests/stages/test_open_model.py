"""The README's way from an open model and a CSV to a reviewed model, command by command, with a tiny encoder made here.

Lost otherwise: the main job of most users stops at a command that the README promises.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import transformers

from pipeline import config
from pipeline.inference.predictor import Predictor
from pipeline.paths import CODE
from pipeline.tokenizer import adopt
from tests.tokenizer import foreign

pytestmark = pytest.mark.slow
HAM, SPAM = "ışık gün köfte yıl", "they're don't 345 x=1"


def commands(readme: str) -> list[str]:
    """The lines of the how-to's block."""
    text = (CODE / readme).read_text(encoding="utf-8")
    (block,) = (part for part in re.findall(r"```sh\n(.*?)```", text, re.S) if "tohum adopt inputs/encoder" in part)
    return [line.partition("#")[0].strip() for line in block.splitlines()]


def encoder(folder: Path) -> None:
    """A BERT of one block with a WordPiece vocabulary, whose two kinds of words it tells apart by chance alone."""
    foreign.write("wordpiece", folder)
    vocabulary = adopt(folder)
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    bert = transformers.BertConfig(vocab_size=vocabulary.vocab_size, pad_token_id=vocabulary.pad, **sizes)
    transformers.set_seed(1)
    transformers.BertModel(bert).save_pretrained(folder)
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n", encoding="utf-8")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of the project as a clone has it, with the model and the data."""
    for name in ("pipeline", "stages", "infra"):
        shutil.copytree(CODE / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("dvc.yaml", ".dvcignore", "params.yaml", "pyproject.toml", "Makefile", "requirements.lock"):
        shutil.copy(CODE / name, tmp_path / name)
    (tmp_path / "inputs").mkdir()
    encoder(tmp_path / "inputs/encoder")
    words = HAM.split(), SPAM.split()
    rows = [
        f'"{" ".join([*words[kind], foreign.WORDS[(i * 7 + j) % 9], str(i)])}",{("ham", "spam")[kind]}'
        for i in range(60)
        for j, kind in enumerate((0, 1))
    ]
    (tmp_path / "messages.csv").write_text("text,label\n" + "\n".join(rows) + "\n", encoding="utf-8")
    for words_of_git in (["init", "--quiet"], ["add", "-A"], ["commit", "--quiet", "-m", "start"]):
        subprocess.run(
            ["git", "-c", "user.name=a", "-c", "user.email=a@b.example", *words_of_git], cwd=tmp_path, check=True
        )
    return tmp_path


def run(line: str, project: Path) -> str:
    """Runs one command of the README in the project."""
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    words = line.split()
    if words[0] == "tohum":
        words = [sys.executable, "-m", "pipeline.cli", *words[1:]]
    done = subprocess.run(words, cwd=project, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_how_to_ends_with_the_reviewed_model_as_champion(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = commands("README.md")
    assert lines == commands("README.tr.md")
    subprocess.run([sys.executable, "-m", "dvc", "init", "--quiet", "--force"], cwd=project, check=True)
    shown: dict[str, str] = {}
    for line in lines:
        if line.startswith("tohum promote"):
            (sha256,) = set(re.findall(r"--sha256 ([0-9a-f]{64})", shown["tohum review label-lora"]))
            line = line.replace("HASH", sha256)
        shown[line] = run(line, project)
        if line.startswith("tohum profile"):
            params = (project / "params.yaml").read_text(encoding="utf-8")
            raw_licence = "licence: write it here"
            assert raw_licence in params
    assert "apache-2.0" in shown["tohum adopt inputs/encoder"]
    folder = project / "models/label-lora"
    assert (folder / "base.json").is_file()
    assert not (folder / "model.safetensors").exists()
    assert "label-lora" in run("tohum list", project)
    monkeypatch.chdir(project)
    assert config.load().pretrain.task.name == "unchanged"
    answers = Predictor(folder).answer([HAM, SPAM])
    assert [answer["label"] for answer in answers] == ["ham", "spam"]
