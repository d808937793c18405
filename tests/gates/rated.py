"""Ratings of simulated people: honest ones with noise, and a brigade that votes against what the others see."""

import json
import random
from typing import Any

from pipeline.data.records import IDENTITY, record_id

Vote = tuple[str, int, str]
"""Rater, number of the prompt, verdict on its two answers."""


def rows(votes: list[Vote]) -> list[dict[str, Any]]:
    """Records of kind ratings; the answers of a prompt come in either order, and the verdict with them."""
    made = []
    for number, (rater, prompt, verdict) in enumerate(votes):
        answers = [f"The good answer to question {prompt}.", f"The other answer to question {prompt}."]
        if verdict.startswith("choice") and number % 2:
            answers, verdict = answers[::-1], {"choice:0": "choice:1", "choice:1": "choice:0"}.get(verdict, verdict)
        row: dict[str, Any] = {
            "source": "made", "language": "en", "split": None, "origin": f"made:ratings:{number}", "rater": rater,
            "prompt": f"What is the answer to question {prompt}?", "answers": json.dumps(answers), "verdict": verdict,
            "correction": "", "history": None, "ids": None, "logprobs": None, "settings": "{}",
            "model_sha256": "0" * 64, "consent": "store", "time": "2026-11-29T20:40:00Z",
            "prompt_id": f"{prompt:016x}",
        }  # fmt: skip
        row["id"] = record_id("ratings", *(row[name] for name in IDENTITY["ratings"]))
        made.append(row)
    return list({row["id"]: row for row in made}.values())


def crowd(seed: int, brigade: str = "none", raters: int = 100, prompts: int = 300) -> list[Vote]:
    """Votes of `raters` people, a twentieth of them a brigade if there is one.

    Honest people rate 20 to 40 prompts each and are right with a chance of their own, from 0.7 to 0.95; one in ten
    votes at random. A brigade `against` chooses the other answer on as many prompts as the busiest of them, nine times
    in ten; a brigade `noisy` seven times in ten; a brigade `loud` votes like everybody, on nearly all prompts.
    """
    rng = random.Random(seed)
    votes: list[Vote] = []
    for number in range(raters):
        right, n = (0.5 if rng.random() < 0.1 else rng.uniform(0.7, 0.95)), rng.randint(20, 40)
        if brigade != "none" and number < raters // 20:
            right, n = {
                "against": (0.1, 40), "noisy": (0.3, 40), "loud": (right, prompts - rng.randint(0, 20))
            }[brigade]  # fmt: skip
        for prompt in rng.sample(range(prompts), n):
            votes.append((f"u-{number:03}", prompt, f"choice:{int(rng.random() >= right)}"))
    rng.shuffle(votes)
    return votes
