"""A small project with samples and a recipe of a few small updates."""

from pathlib import Path

import yaml

from pipeline.paths import CODE as ROOT
from stages import sample, tokenize
from tests.folders import write_raw


def small(folder: Path) -> None:
    """Made in the working directory `folder`, ready for pretrain."""
    raw = yaml.safe_load((ROOT / "infra/profiles/embedded.yaml").read_text(encoding="utf-8"))
    raw["pretrain"]["model"] |= {"n_layers": 1, "context_length": 16}
    raw["pretrain"]["ordering"]["batch_size"] = 2
    for recipe in raw["finetune"].values():
        recipe["task"] |= {"max_tokens": 16} | (
            {"max_prompt_tokens": 12} if "max_prompt_tokens" in recipe["task"] else {}
        )
    raw["compute"] = {
        "device": "cpu",
        "threads": 1,
        "precision": "float32",
        "compile": False,
        "checkpoint_activations": False,
        "weights": "float32",
    }
    raw["tokenize"]["vocab_size"] = 300
    raw["runtime"]["tracking"]["enabled"] = False
    Path("params.yaml").write_text(yaml.safe_dump(raw, sort_keys=False), encoding="utf-8")
    texts = [
        f"{i}. gün köyde {i * 7919 % 101} kişi çay içti ve ışıklar söndü, {i * 31 % 17} yıldız vardı."
        for i in range(300)
    ]
    write_raw(folder / "data/raw", documents=[{"text": text} for text in texts])
    tokenize.main()
    sample.main()
