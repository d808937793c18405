"""Tokens a second of the decoding engine beside the model's own modules and llama.cpp; equal rows in any company; JSON.

    npm install --prefix FOLDER node-llama-cpp
    python -m tests.bench.decoding [--model models/chat-lora] [--node FOLDER] [--tokens 200] [--equal 1000]

One thread, CPU time, float32 (llama.cpp keeps its KV cache in half precision), greedy, prompts of 20 ids, contestants
in turns, medians of the rounds; alone and 32 rows. `modules` is the step that the engine replaced: `GPT.hidden` with a
KV cache, all rows of one length. `engine` is the server's, with compiled code; `engine_torch` is that of the graph's
stages, and of a server without a C++ compiler. `equal` draws prompts and settings, greedy or by temperature, top-k and
top-p: each row alone, and in an engine where up to 31 others join and leave at random; ids and log-probabilities have
to be the same.
"""

import argparse
import json
import random
import statistics
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import process_time
from typing import Any

import torch

from pipeline.inference.engine import Engine, RowSettings, Token
from pipeline.model import checkpoint, gguf_format, native
from pipeline.model.cache import KVCache
from pipeline.model.gpt import GPT
from tests.models import shape

PROMPT = 20
ROWS = 32
PROGRAM = """
import {getLlama, LlamaLogLevel} from "node-llama-cpp"; import fs from "fs";
const [file, cases] = process.argv.slice(2);
const given = JSON.parse(fs.readFileSync(cases, "utf8"));
const llama = await getLlama({gpu: false, build: "never", logLevel: LlamaLogLevel.error, maxThreads: 1});
const model = await llama.loadModel({modelPath: file});
const rates = [];
for (const rows of given.rows) {
  const context = await model.createContext({
    contextSize: given.context, sequences: rows, batchSize: 512, threads: 1,
    batching: {itemPrioritizationStrategy: "maximumParallelism"},
  });
  const sequences = Array.from({length: rows}, () => context.getSequence());
  const run = async () => {
    const began = process.cpuUsage();
    await Promise.all(sequences.map(async (sequence, row) => {
      let left = given.tokens;
      for await (const token of sequence.evaluate(given.prompts[row], {temperature: 0, yieldEogToken: true})) {
        if (--left == 0) break;
      }
      await sequence.clearHistory();
    }));
    const used = process.cpuUsage(began);
    return rows * given.tokens / ((used.user + used.system) / 1e6);
  };
  await run();
  const several = [];
  for (let round = 0; round < given.rounds; round++) several.push(await run());
  rates.push(several);
  await context.dispose();
}
fs.writeFileSync("rates.json", JSON.stringify(rates));
process.exit(0);
"""


def main(arguments: list[str] | None = None) -> None:
    """Prints one JSON object."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.decoding", description=__doc__)
    parser.add_argument("--model", type=Path, help="a model folder; none: random weights of the embedded shape")
    parser.add_argument("--node", type=Path, help="folder with node_modules/node-llama-cpp")
    parser.add_argument("--tokens", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--equal", type=int, default=1000, help="rows compared alone and in company")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    model = embedded() if options.model is None else checkpoint.load(options.model).eval()
    tokens = min(options.tokens, model.room() - PROMPT - 1)
    result: dict[str, Any] = {
        "bench": "decoding", "model": str(options.model), "weights": model.num_parameters(), "tokens": tokens,
        "compiled": native.library() is not None, "tokens_per_second": rates(model, tokens, options.rounds),
    }  # fmt: skip
    if options.node is not None and options.model is not None:
        result["tokens_per_second"] |= llama_cpp(options.model, options.node, model, tokens, options.rounds)
    if options.equal:
        result["equal"] = equal(model, options.equal)
    print(json.dumps(result, indent=1))


def embedded() -> GPT:
    """Random weights in the shape of params.yaml's base model."""
    config = shape(
        "qwen3", n_layers=4, n_heads=3, n_kv_heads=3, head_dim=32, d_model=96, d_ff=288, vocab_size=2048,
        context_length=256, tie_embeddings=False,
    )  # fmt: skip
    return GPT(config, torch.Generator().manual_seed(1)).eval()


def prompts(model: GPT, rows: int) -> list[list[int]]:
    """Random ids."""
    rng = random.Random(4)
    return [[rng.randrange(model.config.vocab_size) for _ in range(PROMPT)] for _ in range(rows)]


def rates(model: GPT, tokens: int, rounds: int) -> dict[str, dict[str, float]]:
    """Contestant -> median and slowest and fastest round, tokens a CPU second; alone and in a batch."""
    runs: dict[str, tuple[int, Callable[[], Any]]] = {}
    drawn = RowSettings(tokens, temperature=0.8, top_p=0.95)
    for name, rows in (("alone", 1), (f"rows_{ROWS}", ROWS)):
        given = prompts(model, rows)
        runs |= {
            f"{name}, modules": (rows, lambda given=given: by_modules(model, given, tokens)),
            f"{name}, engine": (rows, lambda given=given: by_engine(model, given, RowSettings(tokens))),
            f"{name}, engine_drawn": (rows, lambda given=given: by_engine(model, given, drawn)),
            f"{name}, engine_torch": (rows, lambda given=given: by_torch(model, given, RowSettings(tokens))),
        }
    seen: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(rounds + 1):
        for name, (rows, run) in runs.items():
            began = process_time()
            run()
            if number:  # the first warms up
                seen[name].append(rows * tokens / (process_time() - began))
    return {name: spread(values) for name, values in seen.items()}


def spread(values: list[float]) -> dict[str, float]:
    return {
        "median": round(statistics.median(values), 1),
        "least": round(min(values), 1),
        "most": round(max(values), 1),
    }


@torch.inference_mode()
def by_modules(model: GPT, given: list[list[int]], tokens: int) -> None:
    """Greedy decoding by GPT's modules and a cache."""
    cache, new_BT = KVCache(PROMPT + tokens), torch.tensor(given)
    for _ in range(tokens):
        new_BT = model.logits(model.hidden(new_BT, cache=cache)[:, -1]).argmax(-1)[:, None]
        new_BT.tolist()


def by_engine(model: GPT, given: list[list[int]], settings: RowSettings) -> None:
    """All prompts in one engine, with log-probabilities."""
    _decode(Engine(model, max_rows=len(given), compile_step=native.of), given, settings)


def by_torch(model: GPT, given: list[list[int]], settings: RowSettings) -> None:
    """The same as stages of the graph decode, and a server without a C++ compiler."""
    _decode(Engine(model, max_rows=len(given)), given, settings)


def _decode(engine: Engine, given: list[list[int]], settings: RowSettings) -> None:
    for prompt in given:
        engine.add(prompt, settings)
    while engine.busy:
        engine.step()


def llama_cpp(folder: Path, node: Path, model: GPT, tokens: int, rounds: int) -> dict[str, dict[str, float]]:
    """llama.cpp's rates on the file of `tohum export`."""
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        gguf_format.write(folder, scratch / "model.gguf")
        cases = {
            "rows": [1, ROWS], "prompts": prompts(model, ROWS), "tokens": tokens, "rounds": rounds,
            "context": PROMPT + tokens + 8,
        }  # fmt: skip
        (scratch / "cases.json").write_text(json.dumps(cases), encoding="utf-8")
        (scratch / "program.mjs").write_text(PROGRAM, encoding="utf-8")
        (scratch / "node_modules").symlink_to((node / "node_modules").resolve())
        subprocess.run(["node", "program.mjs", "model.gguf", "cases.json"], cwd=scratch, check=True)
        alone, many = json.loads((scratch / "rates.json").read_text(encoding="utf-8"))
    return {"alone, llama_cpp": spread(alone), f"rows_{ROWS}, llama_cpp": spread(many)}


def equal(model: GPT, count: int) -> dict[str, int]:
    """Rows whose ids, and whose log-probabilities, are the same alone and in company."""
    rng = random.Random(5)
    longest, asks = min(64, model.room() // 2), []
    for number in range(count):
        prompt = [rng.randrange(model.config.vocab_size) for _ in range(rng.randint(1, longest))]
        heat = 0.0 if number % 2 else rng.choice([0.7, 1.2])
        settings = RowSettings(
            rng.randint(4, 40), temperature=heat, top_k=rng.choice([0, 20]), top_p=rng.choice([1.0, 0.9]), seed=number
        )
        asks.append((prompt, settings))
    engine, waiting = Engine(model, max_rows=ROWS, compile_step=native.of), list(enumerate(asks))
    number_of: dict[int, int] = {}
    said: list[list[Token]] = [[] for _ in asks]
    beside = 0
    while waiting or engine.busy:
        for _ in range(rng.choice([0, 1, 4, 12]) if engine.waiting < ROWS else 0):
            if waiting:
                number, (prompt, settings) = waiting.pop(0)
                number_of[engine.add(prompt, settings)[0]] = number
        for token in engine.step():
            said[number_of[token.row]].append(token)
        beside = max(beside, engine.active)
    ids = logprobs = 0
    for (prompt, settings), company in zip(asks, said, strict=True):
        alone = Engine(model, max_rows=1, compile_step=native.of)
        alone.add(prompt, settings)
        own: list[Token] = []
        while alone.busy:
            own += alone.step()
        ids += [token.id for token in own] == [token.id for token in company]
        logprobs += [token.logprob for token in own] == [token.logprob for token in company]
    return {"rows": count, "most_beside": beside, "equal_ids": ids, "equal_logprobs": logprobs}


if __name__ == "__main__":
    main()
