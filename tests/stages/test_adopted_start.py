"""From a GGUF file and a file of questions to a tuned model with the released chat template, by the real commands."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from pipeline import tokenizer as vocabularies
from pipeline.inference.predictor import Predictor
from pipeline.model import checkpoint, gguf_format
from pipeline.prompts.spec import TaskSpec
from pipeline.studies.guess import guess
from pipeline.studies.workspace import workspace
from tests.models import network
from tests.prompts.chat_templates import STYLES, folder
from tests.specs import written

pytestmark = pytest.mark.slow


def released(path: Path) -> Path:
    """A small chat model as a GGUF file, as somebody else would publish it."""
    vocabularies.adopt(folder(STYLES["smollm2"], path / "theirs")).save(path / "words")
    vocab_size = vocabularies.Tokenizer.load(path / "words").vocab_size
    model = network("llama", vocab_size=vocab_size, context_length=160, d_model=32, d_ff=64)
    task = TaskSpec(name="chat", template="model", max_tokens=160, max_prompt_tokens=120)
    checkpoint.save(model, path / "model", tokenizer=path / "words", metadata=written([task]))
    gguf_format.write(path / "model", path / "released.gguf")
    return path / "released.gguf"


def run(root: Path, *words: str) -> str:
    """A command in the project; its output."""
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(words, cwd=root, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return done.stdout


def test_an_adopted_gguf_file_is_tuned_in_its_own_chat_template(tmp_path: Path) -> None:
    """Lost otherwise: a released chat model could only be tuned in a template that no other program sends it."""
    data = tmp_path / "questions.jsonl"
    rows = [
        {"instruction": f"{a} kere {b} kaç eder?", "output": f"{a * b} eder."} for a in range(20) for b in range(20)
    ]
    data.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    root, gguf = tmp_path / "project", released(tmp_path)
    workspace(data, guess(data), root)
    printed = run(root, sys.executable, "-m", "pipeline.cli", "adopt", str(gguf))
    lines = yaml.safe_load(printed[printed.index("tokenize:") :])
    params = yaml.safe_load((root / "params.yaml").read_text(encoding="utf-8"))
    params["tokenize"] = lines["tokenize"]
    params["pretrain"]["start"] = lines["pretrain"]["start"]
    params["pretrain"]["task"] = {"name": "unchanged"}
    params["pretrain"]["schedule"] |= {"steps": 0, "warmup_steps": 0}
    params["runtime"]["progress"] = False
    params["runtime"]["tracking"]["enabled"] = False
    params["compute"]["threads"] = 1
    recipe = params["finetune"]["chat-lora"]
    recipe["task"] = {"name": "chat", "template": "model", "max_tokens": 160, "max_prompt_tokens": 120}
    recipe["schedule"] |= {"steps": 4, "warmup_steps": 1, "accumulate": 1}
    recipe["validation"] |= {"every": 2, "batches": 1}
    params["finetune"] = {"chat-lora": recipe}
    params["search"] = {}
    params["register"]["models"] = ["chat-lora"]
    params["evaluations"] = {
        "base": {"measures": {}, "thresholds": {}},
        "chat-lora": {
            "measures": {"exact_match": {"split": "test", "batch_size": 8, "max_tokens": 4, "max_records": 4}},
            "thresholds": {},
        },
    }
    (root / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False), encoding="utf-8")
    subprocess.run([sys.executable, "-m", "dvc", "init", "--no-scm", "--quiet"], cwd=root, check=True)
    run(root, "dvc", "repro", "evaluate@chat-lora")

    model = root / "models/chat-lora"
    settings = json.loads((model / "tokenizer_config.json").read_text(encoding="utf-8"))
    assert settings["chat_template"] == STYLES["smollm2"].template
    assert settings["eos_token"] == "<|im_end|>"
    predictor = Predictor(model)
    assert predictor.task.spec.template == "model"
    assert predictor.task.stop == predictor.task.tokenizer.special["<|im_end|>"]
    assert isinstance(predictor.answer(["3 kere 4 kaç eder?"], {"max_tokens": 4})[0]["completion"], str)
