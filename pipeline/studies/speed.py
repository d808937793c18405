"""Expected duration of a small run: the seconds of an update of its own network, measured here.

    python -m pipeline.studies.speed '{"compute": ..., "model": ..., "vocab_size": ..., "shapes": [[4, 128, true]]}'

prints the seconds that loading torch takes and the seconds of an update of each shape, as JSON: examples, tokens, and
whether every token is predicted, by the language head.
It is a process of its own, so that the caller neither loads torch nor takes its threads.
"""

import json
import statistics
import sys
import time
from typing import Any

from pipeline.entry import entry
from pipeline.orchestration.process import Processes, StageError

_PREFIX = "measured: "
_WARM_UP, _TIMED = 2, 3
# Adapters and validation make an update of fine-tuning longer than one of the plain network.
_BESIDE_FULL = 2.0
# Stages besides trainings and what belongs to each model: code, download, three gates, tokenize, sample, report.
_STAGES = 8
_STAGES_OF_A_MODEL = 3  # training, evaluation, gate


def expected_seconds(raw: dict[str, Any], record_tokens: int, beside: int = 1) -> tuple[float, int] | None:
    """Seconds that the graph would take here, and its number of stages; None where nothing can be timed.

    Args:
        raw: params with their final sizes.
        record_tokens: tokens of a usual record with its template.
        beside: recipes that run at the same time.
    """
    recipes = list(raw["finetune"].values())
    text = (raw["pretrain"]["ordering"]["batch_size"], raw["pretrain"]["model"]["context_length"], True)
    updates = {text: raw["pretrain"]["schedule"]["steps"] * 1.0}
    for recipe in recipes:
        shape = (recipe["ordering"]["batch_size"], max(2, record_tokens), recipe["data"] != "labelled")
        updates[shape] = updates.get(shape, 0.0) + _BESIDE_FULL * recipe["schedule"]["steps"] / beside
    wanted = {
        "compute": raw["compute"],
        "model": raw["pretrain"]["model"],
        "vocab_size": raw["tokenize"]["vocab_size"] or 50_257,
        "shapes": list(updates),
    }
    try:
        lines = Processes().run([__name__, json.dumps(wanted)], timeout_s=60, tell=lambda _: None)
        loading, *each = json.loads(next(line for line in lines if line.startswith(_PREFIX)).removeprefix(_PREFIX))
    except (StageError, StopIteration):
        return None
    stages = _STAGES + _STAGES_OF_A_MODEL * (1 + len(recipes))
    starts = _STAGES + _STAGES_OF_A_MODEL * (1 + len(recipes) / beside)
    return starts * loading + sum(n * seconds for n, seconds in zip(updates.values(), each, strict=True)), stages


def words(seconds: float) -> str:
    """A duration as people say it: `about 40 s`, `about 3 min`."""
    return (
        f"about {max(10, 10 * round(seconds / 10))} s" if seconds < 55 else f"about {max(1, round(seconds / 60))} min"
    )


def measure(wanted: dict[str, Any]) -> list[float]:
    """Median seconds of an update (forward, backward, AdamW) of each shape."""
    import torch

    from pipeline.config.recipe import Compute
    from pipeline.model.config import ModelConfig
    from pipeline.model.device import autocast, set_up
    from pipeline.model.gpt import GPT

    compute = Compute.model_validate(wanted["compute"])
    device = set_up(compute)
    seconds = []
    for batch, tokens, predicts in wanted["shapes"]:
        fields = wanted["model"] | {"vocab_size": wanted["vocab_size"]}
        fields["context_length"] = max(tokens, fields["context_length"])
        model = GPT(ModelConfig(**fields), torch.Generator().manual_seed(1)).to(device)
        optimizer = torch.optim.AdamW(model.parameters())
        ids_BT = torch.randint(0, wanted["vocab_size"], (batch, tokens), device=device)
        times = []
        for _ in range(_WARM_UP + _TIMED):
            began = time.perf_counter()
            with autocast(compute):
                hidden_BTD = model.hidden(ids_BT)
                scores_BTV = model.logits(hidden_BTD) if predicts else hidden_BTD
            targets_BT = ids_BT if predicts else ids_BT * 0
            loss = torch.nn.functional.cross_entropy(scores_BTV.float().flatten(0, -2), targets_BT.flatten())
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]  # torch's stub has no types here
            optimizer.step()
            float(loss.detach())
            times.append(time.perf_counter() - began)
        seconds.append(statistics.median(times[_WARM_UP:]))
    return seconds


def work() -> None:
    """Measures the shapes of this process's command line and prints the figures."""
    began = time.perf_counter()
    import torch  # noqa: F401 - its import is what is timed

    loading = time.perf_counter() - began
    print(_PREFIX + json.dumps([loading, *measure(json.loads(sys.argv[1]))]))


if __name__ == "__main__":
    entry(work, again="nothing is kept of it")
