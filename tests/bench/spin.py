"""How long OpenMP's threads should spin while they wait: training speed alone and beside a busy process.

    python tests/bench/spin.py [--rounds 3]

Prints JSON: GOMP_SPINCOUNT -> median milliseconds a step, `alone` and `beside_one` (a process that counts). The
settings take turns, so that a machine that grows slower meanwhile slows all of them. Shape: the embedded default's base
model at its batch; libgomp reads the setting at start, so every measurement is a process of its own.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys

from pipeline.paths import CODE as ROOT

SETTINGS = ("2000", "5000", "20000", "default")
STEP = """
import json, sys, time
import torch
from pipeline import config
from pipeline.model.gpt import GPT
from pipeline.model.config import ModelConfig
from pipeline.optimizers import muon
params = config.load()
torch.set_num_threads(params.compute.threads)
recipe = params.pretrain
generator = torch.Generator().manual_seed(0)
model = GPT(ModelConfig(**recipe.model.model_dump(), vocab_size=params.tokenize.vocab_size), generator)
names, tensors = zip(*model.named_parameters())
settings = muon.Settings(learning_rate=0.02, matrix_learning_rate=0.05, momentum=0.9, weight_decay=0.01, beta1=0.9,
                         beta2=0.95, epsilon=1e-8)
optimizer = muon.build(settings, [{"params": list(tensors), "names": list(names), "factor": 1.0, "begins": 0.0}])
size = (recipe.ordering.batch_size, recipe.model.context_length)
ids = torch.randint(params.tokenize.vocab_size, size, generator=generator)
seconds = []
for _ in range(15):
    began = time.perf_counter()
    torch.nn.functional.cross_entropy(model(ids).flatten(0, 1), ids.flatten()).backward()
    optimizer.step()
    optimizer.zero_grad()
    seconds.append(time.perf_counter() - began)
print(json.dumps(sorted(seconds[5:])[5] * 1000))
"""


def step_ms(setting: str) -> float:
    """Median milliseconds of a step in a fresh process with this spin count."""
    environment = {name: value for name, value in os.environ.items() if name != "GOMP_SPINCOUNT"}
    if setting != "default":
        environment["GOMP_SPINCOUNT"] = setting
    done = subprocess.run(
        [sys.executable, "-c", STEP], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    return float(json.loads(done.stdout))


def measure(rounds: int) -> dict[str, float]:
    """Setting -> median over the rounds, the settings taking turns."""
    times: dict[str, list[float]] = {setting: [] for setting in SETTINGS}
    for _ in range(rounds):
        for setting in SETTINGS:
            times[setting].append(step_ms(setting))
    return {setting: round(statistics.median(found), 1) for setting, found in times.items()}


def main() -> None:
    """Measures alone, then beside one process that keeps a core busy."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    alone = measure(rounds)
    busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        beside = measure(rounds)
    finally:
        busy.kill()
        busy.wait()
    print(json.dumps({"unit": "ms a step", "rounds": rounds, "alone": alone, "beside_one": beside}, indent=1))


if __name__ == "__main__":
    main()
