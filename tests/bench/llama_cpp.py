"""GGUF files in llama.cpp itself, beside this project: token ids of texts, and greedy answers.

    npm install --prefix FOLDER node-llama-cpp                 # has llama.cpp in prebuilt binaries
    python -m tests.bench.llama_cpp --node FOLDER [--model models/chat-lora ...] [--samples data/samples]
    python -m tests.bench.llama_cpp --node FOLDER --adopt FILE.gguf   # a released file beside the folder made of it

Without `--model`, random models: one per family, and one per pre-tokenizer that gguf_format.py names. Their likeliest
tokens are often nearly equal, and llama.cpp keeps its KV cache in half precision, so some long answers part ways.
`--samples` asks a chat model the first 100 instructions of the test split instead of five questions.
"""

import argparse
import json
import random
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from pipeline import tokenizer as vocabularies
from pipeline.inference.generation import generate
from pipeline.model import checkpoint, gguf_adoption, gguf_format
from pipeline.model.gpt import GPT
from pipeline.prompts import templates
from pipeline.prompts.request import Request
from pipeline.tokenizer import Tokenizer
from pipeline.tokenizer.adopted import PROBES
from tests.models import shape
from tests.specs import TEXT, written
from tests.tokenizer import test_adopted

WORDS = "Ayşe İzmir'de yaşıyor. Merhaba dünya, bu mesaj 2024'te yazıldı! We'll see. "
LETTERS = [*"abcçğıiİIöşüÇĞÖŞÜ ABZ  \n\t'.,!?19०٣-_/é日ß👍ΑβЖжǅ\u0307\u00a0", "'s", "'LL", "\r\n"]
# Name -> family of the network, pattern of the vocabulary or style of an adopted one.
MODELS = {
    "gpt2": ("gpt2", "gpt2"),
    "llama": ("llama", "cl100k_base"),
    "mistral": ("mistral", "gpt2"),
    "qwen2": ("qwen2", "gpt2"),
    "qwen3": ("qwen3", "o200k_base"),
    "arcee": ("arcee", "gpt2"),
    "smollm": ("llama", "smollm2"),
}
QUESTIONS = ("Where is Ankara?", "Name three colours.", "2 + 2 =", "Write a short poem about rain.", "Ankara nerede?")
PROGRAM = """
import {getLlama, LlamaLogLevel} from "node-llama-cpp"; import fs from "fs";
const [file, cases] = process.argv.slice(2);
const given = JSON.parse(fs.readFileSync(cases, "utf8"));
const llama = await getLlama({gpu: false, build: "never", logLevel: LlamaLogLevel.error, maxThreads: 1});
const model = await llama.loadModel({modelPath: file});
const ids = given.texts.map((text) => Array.from(model.tokenize(text, false)));
const sequence = (await model.createContext({contextSize: given.context})).getSequence();
const answers = [];
for (const prompt of given.prompts) {
  await sequence.clearHistory();
  const answer = [];
  for await (const token of sequence.evaluate(prompt, {temperature: 0})) {
    if (given.stop.includes(token) || answer.length >= given.most) break;
    answer.push(token);
  }
  answers.push(answer);
}
fs.writeFileSync("answers.json", JSON.stringify({ids, answers}));
process.exit(0);
"""


def random_model(folder: Path, family: str, source: str) -> Path:
    """A random model with a vocabulary learned from a few sentences, or adopted from a folder of that style."""
    if source in vocabularies.PATTERNS:
        tokenizer = vocabularies.train([WORDS * 50], 400, source)
    else:
        (folder / "theirs").mkdir(parents=True)
        test_adopted.write(test_adopted.make(source), folder / "theirs", source)
        tokenizer = vocabularies.adopt(folder / "theirs")
    tokenizer.save(folder / "words")
    generator = torch.Generator().manual_seed(1)
    size: dict[str, Any] = {"vocab_size": tokenizer.vocab_size, "context_length": 128}
    if family == "mistral":  # llama.cpp has no window, and its texts here are as long as the context
        size["sliding_window"] = 128
    model = GPT(shape(family, **size), generator)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
    checkpoint.save(model, folder / "model", tokenizer=folder / "words", metadata=written([TEXT.within(128)]))
    return folder / "model"


def texts(number: int) -> list[str]:
    """Texts on which pre-tokenizers differ: those of the adoption, and random strings of many scripts and blanks."""
    draw = random.Random(4)
    drawn = ["".join(draw.choice(LETTERS) for _ in range(draw.randint(1, 25))) for _ in range(number)]
    return [text for text in [*PROBES, *drawn] if "<|" not in text]


def instructions(samples: Path) -> list[str]:
    """The first 100 questions of the test split."""
    import pyarrow.parquet as pq

    rows = pq.read_table(samples / "instructions/test.parquet").slice(0, 100).to_pylist()
    return [Request.of_record(row).text for row in rows]


def compare(folder: Path, node: Path, scratch: Path, questions: Sequence[str] = QUESTIONS) -> dict[str, int]:
    """Texts with other ids and prompts with other greedy answers in llama.cpp than here."""
    gguf_format.write(folder, scratch / "model.gguf")
    return beside(scratch / "model.gguf", folder, node, scratch, questions)


def compare_adopted(file: Path, node: Path, scratch: Path) -> dict[str, int]:
    """As `compare`, for a released GGUF file and the folder that `tohum adopt` makes of it."""
    folder = gguf_adoption.adopt(file, scratch / "adopted").folder
    return beside(file.resolve(), folder, node, scratch)


def beside(file: Path, folder: Path, node: Path, scratch: Path, questions: Sequence[str] = QUESTIONS) -> dict[str, int]:
    """A GGUF file in llama.cpp beside the folder of the same model here; prompts of a chat model are chats."""
    tokenizer, model = Tokenizer.load(folder), checkpoint.load(folder)
    all_texts, context, most = texts(6000), min(model.config.context_length, 512), 24
    stop = {tokenizer.end_of_text}
    prompts = [[tokenizer.end_of_text, *tokenizer.encode(text)][: context // 2] for text in all_texts[:40]]
    if tokenizer.chat_template is not None:
        prompts = [templates.prompt(tokenizer, "model", Request(text), context // 2).ids for text in questions]
        stop = {templates.end_of_answer(tokenizer, "model")}
    theirs = in_llama_cpp(
        file, {"texts": all_texts, "prompts": prompts, "context": context, "most": most}, stop, node, scratch
    )
    greedy = {"temperature": 0.0, "top_k": 0, "top_p": 1.0, "stop": stop}
    ours = generate(model, prompts, max_tokens=most, **greedy)  # type: ignore[arg-type]
    ids = tokenizer.encode_batch(all_texts)
    return {
        "texts": len(all_texts),
        "other_ids": sum(a.tolist() != b for a, b in zip(ids, theirs["ids"], strict=True)),
        "prompts": len(prompts),
        "other_answers": sum(a != b for a, b in zip(ours, theirs["answers"], strict=True)),
    }


def in_llama_cpp(file: Path, cases: dict[str, Any], stop: set[int], node: Path, scratch: Path) -> Any:
    """Ids of the texts and greedy answers to the prompts, by llama.cpp."""
    (scratch / "cases.json").write_text(json.dumps(cases | {"stop": sorted(stop)}), encoding="utf-8")
    (scratch / "program.mjs").write_text(PROGRAM, encoding="utf-8")
    if not (scratch / "node_modules").is_symlink():  # node looks for packages beside the program
        (scratch / "node_modules").symlink_to((node / "node_modules").resolve())
    subprocess.run(["node", "program.mjs", str(file), "cases.json"], cwd=scratch, check=True)
    return json.loads((scratch / "answers.json").read_text(encoding="utf-8"))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--node", type=Path, help="folder with node_modules/node-llama-cpp")
    parser.add_argument("--adopt", type=Path, action="append", default=[], help="a GGUF file; may be repeated")
    parser.add_argument("--model", type=Path, action="append", default=[], help="a model folder; may be repeated")
    parser.add_argument("--samples", type=Path, help="data/samples of a project")
    options = parser.parse_args()
    questions = QUESTIONS if options.samples is None else instructions(options.samples)
    if options.node is None:
        print(json.dumps({"bench": "llama_cpp", "skipped": "--node names no folder with node-llama-cpp"}))
        return
    results = {}
    with tempfile.TemporaryDirectory() as scratch:
        for path in options.adopt:
            (Path(scratch) / path.stem).mkdir()
            results[path.name] = compare_adopted(path, options.node, Path(scratch) / path.stem)
        folders = {path.name: path for path in options.model}
        if not folders and not results:
            folders = {name: random_model(Path(scratch) / name, *of) for name, of in MODELS.items()}
        for name, folder in folders.items():
            results[name] = compare(folder, options.node, Path(scratch), questions)
    print(json.dumps({"bench": "llama_cpp", "models": results}, indent=1))


if __name__ == "__main__":
    main()
