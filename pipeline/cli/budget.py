"""What to train for a budget: `make budget MINUTES=10` or `FLOPS=1e15`, by the law that `make scaling` found.

Proposes size, tokens, batch and learning rates; with APPLY=1 they go into params.yaml. Minutes count by the speed of
the proposed shape itself, timed here with params.yaml's compute.
"""

import argparse
import math

from pipeline import config, files
from pipeline.cli import fastest
from pipeline.cli.scaling import FOUND
from pipeline.config import edit
from pipeline.config.params import Params
from pipeline.config.recipe import Pretrain
from pipeline.data.shards import Shard
from pipeline.entry import entry
from pipeline.errors import UserError
from pipeline.studies import budget, trials
from pipeline.studies.budget import Proposal, changes, proposal, sized, spoken
from pipeline.studies.scaling import Law, Rule, shape
from pipeline.studies.trials import Trial

# How long a shape is timed.
_TIMED_S = 5.0


def main() -> None:
    """Proposes for a budget."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.cli.budget", description=__doc__)
    given = parser.add_mutually_exclusive_group(required=True)
    given.add_argument("--minutes", type=float, help="of training on this machine, with params.yaml's compute")
    given.add_argument("--flops", type=float, help="operations of training")
    parser.add_argument("--apply", action="store_true", help="write the proposal into params.yaml")
    options = parser.parse_args()
    if any(one is not None and one <= 0 for one in (options.minutes, options.flops)):
        raise UserError("a budget is more than nothing; give minutes or operations above 0")
    propose(config.load(), options.minutes, options.flops, options.apply)


def propose(params: Params, minutes: float | None, flops: float | None, apply: bool) -> None:
    """Shows, and with `apply` writes, what a budget is best spent on."""
    if not FOUND.exists():
        raise UserError(f"{FOUND}: no such file; `make scaling` makes it")
    raw = files.read_json(FOUND)
    if raw["of"] != budget.of(params):
        raise UserError(f"{FOUND} is of other documents, code, precision or recipe; run `make scaling` again")
    # what the law's factors are factors of, even after a proposal went into params.yaml
    params = params.model_copy(update={"pretrain": Pretrain.model_validate(raw["pretrain"])})
    law, rule = Law(**raw["law"]), Rule(**raw["rule"])
    there = len(Shard.open(trials.SAMPLES / "documents", "train").ids)
    vocabulary = trials.Tokenizer.load(trials.TOKENIZER).vocab_size
    speed = None
    if flops is not None:
        found = proposal(law, params.pretrain, vocabulary, lambda heads: flops)
    else:
        assert minutes is not None
        found, speed = timed(params, law, vocabulary, 60 * minutes)
    changed = changes(params.pretrain, found, rule)
    for line in spoken(found, speed, raw["largest"], there):
        print(line)
    print("\n".join(f"  pretrain.{name}: {value:g}" for name, value in changed.items()))
    if apply:
        print(edit.change(config.PARAMS, {f"pretrain.{name}": value for name, value in changed.items()}), end="")


def timed(params: Params, law: Law, vocabulary: int, seconds: float) -> tuple[Proposal, float]:
    """The proposal for so many seconds here, by the speed of the proposed shape itself: operations a second."""
    speeds: dict[int, float] = {}

    def measured(heads: int) -> float:
        nearest = min(speeds, key=lambda one: abs(math.log(one / heads)))
        return speeds[nearest] * seconds

    heads = params.pretrain.model.n_heads
    while heads not in speeds:
        trial = Trial("budget", params.pretrain.seed, shape(params.pretrain, heads))
        shaped = params.model_copy(update={"pretrain": trials.recipe_of(params, trial)})
        _, step_s, tokens = fastest.measure(shaped, _TIMED_S)
        speeds[heads] = tokens * sized(params.pretrain, heads, vocabulary)[1] / step_s
        found = proposal(law, params.pretrain, vocabulary, measured)
        heads = found.heads
    return found, speeds[found.heads]


if __name__ == "__main__":
    entry(main, again="nothing is kept of it")
