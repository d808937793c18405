"""TRL's GRPO losses on fixed completions, for test_grpo.py: writes trl_grpo.json beside this file.

Run in an environment with trl (1.16), transformers and datasets: `python trl_grpo.py` in this folder. Advantages, the
reference's log-probabilities and the loss come from GRPOTrainer's own methods; only sampling is replaced.
"""

import json
import math
import tempfile
from pathlib import Path
from typing import Any

PROMPTS = [[5, 9, 3], [7, 2, 11, 4, 6]]
COMPLETIONS = [
    [12, 4, 0], [8, 0], [20, 21, 22, 23], [3, 3, 1, 0],
    [14, 0], [9, 25, 0], [28, 27, 26, 25], [0],
]  # fmt: skip
REWARDS = [0.9, 0.1, 0.4, 0.4, 0.3, 0.8, 0.0, 0.2]
SHIFTS = [0.1, -0.35, 0.3, 0.05, -0.15, 0.25, -0.4]
"""Added in turn to the log-probabilities of the current model: those of the policy that answered."""
CASES = [
    ("grpo", "group", 0.0, "k3", 0.2, 1.0),
    ("grpo", "none", 0.1, "k3", 0.2, 1.0),
    ("dapo", "group", 0.1, "k3_corrected", 0.28, 0.7),
    ("dr_grpo", "none", 0.0, "k3", 0.2, 0.7),
    ("dr_grpo", "group", 0.2, "k3_corrected", 0.2, 1.0),
]
"""TRL's loss_type, scale_rewards, beta, form of the KL, epsilon_high and temperature."""
MAX_TOKENS = 4
SHOWN = "model.layers.0.mlp.down_proj.weight"
"""Weight whose gradient is recorded."""


def value(name: str, index: int, phase: float) -> float:
    """The weight number `index` of a tensor, by transformers' name: norms near 1, the rest between -0.4 and 0.4."""
    wave = math.sin(0.7 * index + sum(name.encode()) + phase)
    return 1 + 0.1 * wave if "norm" in name else 0.4 * wave


def main() -> None:
    import torch
    from datasets import Dataset
    from tokenizers import Tokenizer, models
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
    from trl import GRPOConfig, GRPOTrainer
    from trl.trainer.grpo_trainer import add_fused_lm_head

    def network(phase: float) -> Any:
        config = LlamaConfig(
            vocab_size=30, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
            num_key_value_heads=1, head_dim=8, max_position_embeddings=16, rms_norm_eps=1e-5, rope_theta=1e4,
            tie_word_embeddings=True, bos_token_id=None, eos_token_id=0, pad_token_id=0,
        )  # fmt: skip
        model = LlamaForCausalLM(config)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                numbers = [value(name, index, phase) for index in range(parameter.numel())]
                parameter.copy_(torch.tensor(numbers).view_as(parameter))
        return model

    words = {str(i): i for i in range(30)}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(words, unk_token="1")), eos_token="0", pad_token="0"
    )

    def rollouts(prompts: list[Any], _trainer: Any) -> dict[str, Any]:
        ids = [PROMPTS[0]] * 4 + [PROMPTS[1]] * 4
        return {"prompt_ids": ids, "completion_ids": COMPLETIONS, "logprobs": [[0.0] * len(c) for c in COMPLETIONS]}

    found = []
    for case in CASES:
        loss_type, scale, beta, form, high, temperature = case
        model, reference = network(0.0), network(0.3)
        more = {"disable_dropout": True, "gradient_checkpointing": False, "bf16": False}
        args = GRPOConfig(
            output_dir=tempfile.mkdtemp(), per_device_train_batch_size=8, num_generations=4, max_completion_length=4,
            steps_per_generation=1, gradient_accumulation_steps=1, use_cpu=True, report_to=[], epsilon=0.2,
            loss_type=loss_type, scale_rewards=scale, beta=0.0, epsilon_high=high, temperature=temperature,
            use_bias_correction_kl=form == "k3_corrected", **more,
        )  # fmt: skip
        trainer = GRPOTrainer(
            model=model, reward_funcs=lambda **_: REWARDS, args=args, processing_class=tokenizer,
            train_dataset=Dataset.from_list([{"prompt": "5"}, {"prompt": "7"}]), rollout_func=rollouts,
        )  # fmt: skip
        trainer.beta, trainer.ref_model = beta, reference
        add_fused_lm_head(reference, temperature=temperature)
        trainer.current_gradient_accumulation_steps = 1
        model.train()
        made = trainer._generate_and_score_completions([{"prompt": "5"}] * 4 + [{"prompt": "7"}] * 4)
        ids = torch.cat([made["prompt_ids"], made["completion_ids"]], 1)
        mask = torch.cat([made["prompt_mask"], made["completion_mask"]], 1)
        with torch.no_grad():
            logprobs, _, _ = trainer._get_per_token_logps_and_entropies(
                model, ids, mask, made["completion_ids"].size(1)
            )
        shifts, behaviour = iter(SHIFTS * 9), []
        for row, completion in enumerate(COMPLETIONS):
            for t in range(len(completion)):
                logprobs[row, t] += next(shifts)
            behaviour.append(logprobs[row, : len(completion)].tolist())
        made["old_per_token_logps"] = logprobs
        loss = trainer._compute_loss(model, made)
        loss.backward()
        gradient = dict(model.named_parameters())[SHOWN].grad
        found.append(
            {"case": case, "loss": float(loss), "advantages": made["advantages"].tolist(), "behaviour": behaviour,
             "gradient": gradient.flatten()[:8].tolist(), "gradient_norm": float(gradient.norm())}
        )  # fmt: skip
    Path(__file__).with_suffix(".json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
