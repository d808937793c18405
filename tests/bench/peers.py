"""What the benchmarks stand beside: nanoGPT's published network in plain eager float32, with our weights.

GPT-2's blocks (LayerNorm, fused queries, keys and values, GELU, scaled_dot_product_attention, tied head) and a generate
that reads the last `context_length` ids anew for every token, as its model.py and train.py describe them.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.model.config import ModelConfig
from pipeline.model.gpt import GPT


def nanogpt_shape(n_layers: int, n_heads: int, d_model: int, context_length: int) -> ModelConfig:
    """Its shapes: biases off, tied head, no dropout; 65 characters."""
    return ModelConfig(
        family="gpt2", n_layers=n_layers, n_heads=n_heads, n_kv_heads=n_heads, d_model=d_model,
        head_dim=d_model // n_heads, d_ff=4 * d_model, context_length=context_length, bias=False, tie_embeddings=True,
        dropout=0.0, norm_epsilon=1e-5, logit_softcap=None, rope_theta=10000.0, vocab_size=65,
    )  # fmt: skip


class _Block(nn.Module):
    def __init__(self, d_model: int, n_heads: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.norm1, self.norm2 = (nn.LayerNorm(d_model, bias=False) for _ in range(2))
        self.qkv = nn.Linear(d_model, 3 * d_model, bias=False)
        self.out = nn.Linear(d_model, d_model, bias=False)
        self.up = nn.Linear(d_model, 4 * d_model, bias=False)
        self.down = nn.Linear(4 * d_model, d_model, bias=False)
        self.act = nn.GELU()

    def forward(self, x: Tensor) -> Tensor:
        B, T, D = x.shape
        q, k, v = (
            part.view(B, T, self.n_heads, D // self.n_heads).transpose(1, 2)
            for part in self.qkv(self.norm1(x)).split(D, 2)
        )
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).contiguous().view(B, T, D)
        x = x + self.out(y)
        return x + self.down(self.act(self.up(self.norm2(x))))


class NanoGPT(nn.Module):
    """The network; `loss` with targets, `generate` one id at a time without a cache."""

    def __init__(self, ours: GPT) -> None:
        super().__init__()
        shape = ours.config
        self.context_length = shape.context_length
        self.embed = nn.Embedding(shape.vocab_size, shape.d_model)
        self.positions = nn.Embedding(shape.context_length, shape.d_model)
        self.blocks = nn.ModuleList(_Block(shape.d_model, shape.n_heads) for _ in range(shape.n_layers))
        self.norm = nn.LayerNorm(shape.d_model, bias=False)
        self._copy(ours)

    @torch.no_grad()
    def _copy(self, ours: GPT) -> None:
        assert ours.positions is not None
        pairs = [(self.embed, ours.embed), (self.positions, ours.positions), (self.norm, ours.final_norm)]
        for mine, block in zip(self.blocks, ours.blocks, strict=True):
            pairs += [(mine.norm1, block.norm1), (mine.norm2, block.norm2), (mine.qkv, block.attention.qkv)]
            pairs += [(mine.out, block.attention.out), (mine.up, block.mlp.up), (mine.down, block.mlp.down)]
        for mine, theirs in pairs:
            mine.weight.copy_(theirs.weight)

    def logits(self, ids: Tensor) -> Tensor:
        """[B, T] -> [B, T, V]."""
        x = self.embed(ids) + self.positions(torch.arange(ids.shape[1], device=ids.device))
        for block in self.blocks:
            x = block(x)
        return self.norm(x) @ self.embed.weight.T

    def loss(self, ids: Tensor, targets: Tensor) -> Tensor:
        """Mean cross entropy, nats."""
        return F.cross_entropy(self.logits(ids).flatten(0, 1), targets.flatten())

    @torch.no_grad()
    def generate(self, ids: Tensor, tokens: int, temperature: float, top_k: int) -> Tensor:
        """[B, T] -> [B, T + tokens], drawn from the top_k likeliest."""
        for _ in range(tokens):
            logits = self.logits(ids[:, -self.context_length :])[:, -1] / temperature
            least = torch.topk(logits, min(top_k, logits.shape[-1])).values[:, [-1]]
            chosen = torch.multinomial(logits.masked_fill(logits < least, -torch.inf).softmax(-1), 1)
            ids = torch.cat((ids, chosen), 1)
        return ids

    def optimizer(self, rate: float) -> torch.optim.Optimizer:
        """As its configure_optimizers on a CPU: AdamW that decays matrices alone, not fused."""
        groups = [
            {"params": [p for p in self.parameters() if (p.dim() >= 2) == decays], "weight_decay": 0.1 * decays}
            for decays in (True, False)
        ]
        return torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.99), fused=False)
