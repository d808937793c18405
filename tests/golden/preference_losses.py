"""Golden losses of preference tuning: a tiny model, pairs of token ids, and the values that TRL's trainers give.

    python -m tests.golden.preference_losses        # in an environment with trl; writes preference_losses.json

DPOTrainer, KTOTrainer and RewardTrainer train on the ids as they are (`_prepare_dataset` is skipped, the order is that
of the list), with AdamW at a constant rate, without clipping; `logging_steps=1` gives the loss of every update. The
weights come from a formula, so no file of weights is needed. tests/losses/test_golden.py compares.
"""

import json
import tempfile
from pathlib import Path
from typing import Any

import torch

FILE = Path(__file__).with_suffix(".json")
BETA, RATE, BATCH, UPDATES = 0.1, 1e-3, 4, 50
VOCABULARY, WIDTH, LAYERS, HEADS, HIDDEN, CONTEXT = 48, 32, 2, 2, 64, 32
END, PAD = 0, 1
CONFIG = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": VOCABULARY, "hidden_size": WIDTH,
    "num_hidden_layers": LAYERS, "num_attention_heads": HEADS, "num_key_value_heads": HEADS, "head_dim": WIDTH // HEADS,
    "intermediate_size": HIDDEN, "max_position_embeddings": CONTEXT, "rms_norm_eps": 1e-5, "rope_theta": 1e4,
    "tie_word_embeddings": False, "bos_token_id": None, "eos_token_id": END, "pad_token_id": PAD, "hidden_act": "silu",
    "attention_bias": False, "mlp_bias": False, "attention_dropout": 0.0,
}  # fmt: skip
REWARD_CONFIG = CONFIG | {
    "architectures": ["LlamaForSequenceClassification"], "id2label": {"0": "reward"}, "label2id": {"reward": 0},
    "problem_type": "regression",
}  # fmt: skip
DPO = {
    "sigmoid": {},
    "ipo": {"loss_type": ["ipo"]},
    "robust": {"loss_type": ["robust"], "label_smoothing": 0.2},
    "length_normalised": {"loss_type": ["sigmoid_norm"]},
}
"""Our settings' names in the test -> TRL's DPOConfig."""
KTO = {"kto": {}, "kto_weighted": {"desirable_weight": 1.5, "undesirable_weight": 0.75}}
REWARD = {"reward": {}, "reward_centered": {"center_rewards_coefficient": 0.01}}


def _drawn(seed: int, count: int, most: int) -> list[int]:
    """`count` numbers below `most` by a congruential generator, which is the same everywhere."""
    numbers = []
    for _ in range(count):
        seed = (seed * 1103515245 + 12345) % 2**31
        numbers.append((seed >> 8) % most)
    return numbers


def pairs() -> list[dict[str, list[int]]]:
    """16 prompts of 3 to 8 ids with a chosen and a rejected answer of 1 to 9 ids, each ended by END."""
    made = []
    for number in range(16):
        sizes = _drawn(number + 1, 3, 8)
        prompt, chosen, rejected = (
            [2 + i for i in _drawn(97 * number + 31 * place + 5, 1 + size + (2 if place == 0 else 0), VOCABULARY - 2)]
            for place, size in enumerate(sizes)
        )
        made.append({"prompt_ids": prompt, "chosen_ids": [*chosen, END], "rejected_ids": [*rejected, END]})
    return made


def thumbs() -> list[dict[str, Any]]:
    """The answers of `pairs` by themselves: of every third pair the rejected one, else the chosen one."""
    return [
        {
            "prompt_ids": pair["prompt_ids"],
            "completion_ids": pair["rejected_ids" if number % 3 == 0 else "chosen_ids"],
            "label": number % 3 != 0,
        }
        for number, pair in enumerate(pairs())
    ]


def weights(scale: float = 1.0, head: bool = True) -> dict[str, torch.Tensor]:
    """Weights of the tiny model under transformers' names; `head`: the language head, else one of a reward."""
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (VOCABULARY, WIDTH)}
    for layer in range(LAYERS):
        at = f"model.layers.{layer}."
        shapes |= {f"{at}self_attn.{name}_proj.weight": (WIDTH, WIDTH) for name in "qkvo"}
        shapes |= {f"{at}mlp.{name}_proj.weight": (HIDDEN, WIDTH) for name in ("gate", "up")}
        shapes[f"{at}mlp.down_proj.weight"] = (WIDTH, HIDDEN)
        shapes |= {f"{at}{name}_layernorm.weight": (WIDTH,) for name in ("input", "post_attention")}
    shapes["model.norm.weight"] = (WIDTH,)
    shapes |= {"lm_head.weight": (VOCABULARY, WIDTH)} if head else {"score.weight": (1, WIDTH)}
    made = {}
    for number, (name, shape) in enumerate(shapes.items()):
        index = torch.arange(torch.Size(shape).numel(), dtype=torch.float64)
        values = torch.frac(torch.sin(index * 12.9898 + 78.233 * (number + 1)) * 43.758) * 0.3 * scale
        made[name] = ((1 + 0.1 * values) if len(shape) == 1 else values).float().view(shape)
    return made


def write_model(folder: Path, scale: float = 1.0, head: bool = True) -> None:
    """Writes config.json and model.safetensors."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(CONFIG if head else REWARD_CONFIG))
    save_file(weights(scale, head), str(folder / "model.safetensors"), metadata={"format": "pt"})


def mismatched_thumbs() -> list[dict[str, Any]]:
    """`thumbs` with the answer of the row before it in its batch, as KTOTrainer adds it when it tokenises."""
    rows = thumbs()
    for number, row in enumerate(rows):
        first = number - number % BATCH
        row["KL_completion_ids"] = rows[first + (number - first - 1) % BATCH]["completion_ids"]
    return rows


def on_ids(trainer: Any) -> Any:
    """The trainer on rows of ids, in their order."""
    from torch.utils.data import SequentialSampler

    class OnIds(trainer):  # type: ignore[misc]
        def _prepare_dataset(self, dataset: Any, *_: Any, **__: Any) -> Any:
            return dataset

        def _get_train_sampler(self, train_dataset: Any = None) -> Any:
            return SequentialSampler(train_dataset if train_dataset is not None else self.train_dataset)

    return OnIds


def losses(trainer: Any) -> list[float]:
    """The loss of every update of a training, not rounded as in its log."""
    seen: list[float] = []
    compute = trainer.compute_loss

    def recorded(*inputs: Any, **more: Any) -> Any:
        loss = compute(*inputs, **more)
        seen.append(float((loss[0] if isinstance(loss, tuple) else loss).detach()))
        return loss

    trainer.compute_loss = recorded
    trainer.train()
    return seen


def main() -> None:
    """Trains with TRL and writes the losses of every update."""
    import trl
    from datasets import Dataset
    from tokenizers import Tokenizer, models
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({f"t{i}": i for i in range(VOCABULARY)}, unk_token="t2"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, eos_token="t0", pad_token="t1", unk_token="t2")
    temporary = Path(tempfile.mkdtemp())
    write_model(temporary / "start")
    write_model(temporary / "reference", 0.9)
    write_model(temporary / "reward", head=False)
    shared = {
        "output_dir": str(temporary / "out"), "per_device_train_batch_size": BATCH, "max_steps": UPDATES,
        "learning_rate": RATE, "lr_scheduler_type": "constant", "weight_decay": 0.0, "max_grad_norm": 0.0,
        "adam_beta1": 0.9, "adam_beta2": 0.95, "adam_epsilon": 1e-8, "bf16": False, "use_cpu": True,
        "gradient_checkpointing": False, "max_length": None, "logging_steps": 1, "save_strategy": "no",
        "report_to": "none", "disable_tqdm": True,
    }  # fmt: skip

    def trained(trainer: Any, args: Any, model: Any, rows: list[dict[str, Any]], **more: Any) -> list[float]:
        table = Dataset.from_list(rows)
        return losses(on_ids(trainer)(model=model, args=args, train_dataset=table, processing_class=tokenizer, **more))

    def causal(name: str) -> Any:
        return AutoModelForCausalLM.from_pretrained(temporary / name, dtype=torch.float32)

    found: dict[str, Any] = {}
    for names, trainer, configured, rows in (
        (DPO, trl.DPOTrainer, trl.DPOConfig, pairs()),
        (KTO, trl.KTOTrainer, trl.KTOConfig, mismatched_thumbs()),
    ):
        for name, settings in names.items():
            args = configured(**shared, beta=BETA, **settings)
            found[name] = trained(trainer, args, causal("start"), rows, ref_model=causal("reference"))
    whole = [{key: pair["prompt_ids"] + pair[key] for key in ("chosen_ids", "rejected_ids")} for pair in pairs()]
    for name, settings in REWARD.items():
        model = AutoModelForSequenceClassification.from_pretrained(temporary / "reward", dtype=torch.float32)
        found[name] = trained(trl.RewardTrainer, trl.RewardConfig(**shared, **settings), model, whole)
    content = {"trl": trl.__version__, "torch": torch.__version__, "losses": found}
    FILE.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
