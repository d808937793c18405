"""Less memory in training: frozen weights in bfloat16 or NF4, and activations that are computed again.

Only frozen weights are lowered. A trained weight stays in float32, which is the master copy: with `precision: bfloat16`
matrix products cast it, so a second copy would take memory and give none back (tests/bench/training_memory.py). Frozen
weights are cast back to the precision of the activations in each product, forward and backward, and only the lowered
ones are kept for the gradient.

Works on any module tree: `nn.Linear` and `nn.Embedding`, GPT's own subclass too, tied ones together.

NF4 (QLoRA: Dettmers et al. 2023, section 3): 4 bits a weight with one scale for every 64, by the library bitsandbytes.

Shapes: O outputs, I inputs, V rows of an embedding, D its width.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.config.recipe import Compute
from pipeline.errors import UserError
from pipeline.model.adapters import replace_module
from pipeline.model.cpu.linear import Linear
from pipeline.model.gpt import GPT

_BLOCK = 64  # weights that share a scale
_HEADS = ("head", "lm_head", "score", "classifier")
_PLAIN = (nn.Linear, Linear, nn.Embedding)


def prepare(model: nn.Module, compute: Compute) -> None:
    """Lowers frozen weights and sets activation checkpointing, as the params say; in place.

    Raises:
        UserError: NF4 without bitsandbytes, or without a frozen weight.
    """
    if compute.weights != "float32":
        lower(model, compute.weights)
    checkpoint_activations(model, compute.checkpoint_activations)


def checkpoint_activations(model: nn.Module, enabled: bool) -> None:
    """Sets whether blocks keep their input alone for the gradient and compute the rest again (Chen et al. 2016).

    A model of transformers has a method for it; GPT reads `checkpoints_activations`.
    """
    for module in model.modules():
        if enabled:
            switch: Any = getattr(module, "gradient_checkpointing_enable", None)
        else:  # the name of newer versions first: the older one warns there
            old = getattr(module, "gradient_checkpointing_disable", None)
            switch = getattr(module, "activation_checkpointing_disable", old)
        if switch is not None:
            switch(**({"gradient_checkpointing_kwargs": {"use_reentrant": False}} if enabled else {}))
            return
    if isinstance(model, GPT):
        model.checkpoints_activations = enabled


def lower(model: nn.Module, weights: str) -> None:
    """Replaces layers with frozen weights by layers that keep them in bfloat16, or in NF4; in place.

    Args:
        model: `requires_grad` says which weights are frozen. Vectors (biases, norms) stay as they are.
        weights: bfloat16 or nf4. Embeddings and heads are bfloat16 with NF4 too, as in QLoRA.

    Raises:
        UserError: NF4 without bitsandbytes, or without a frozen projection.
    """
    if weights == "nf4":
        _require_bitsandbytes()
    quantised = 0
    shared: dict[int, nn.Parameter] = {}
    for name, layer in list(_frozen_layers(model)):
        exact = layer.weight
        if isinstance(layer, nn.Linear) and weights == "nf4" and name.rpartition(".")[2] not in _HEADS:
            replace_module(model, name, NF4Linear(layer))
            quantised += 1
            continue
        if id(exact) not in shared:
            shared[id(exact)] = nn.Parameter(exact.detach().to(torch.bfloat16), requires_grad=False)
        lowered = shared[id(exact)]
        if isinstance(layer, nn.Linear):
            replace_module(model, name, FrozenLinear(layer, lowered))
        else:
            replace_module(model, name, FrozenEmbedding(layer, lowered))
    for parameter in model.parameters():
        if parameter.dtype == torch.float32 and parameter.data_ptr():  # one that stays keeps the whole mapped file
            parameter.data = parameter.data.clone()
    if weights == "nf4" and not quantised:
        raise UserError(
            "params.yaml: compute.weights is nf4, and this recipe freezes no projection: 4-bit weights cannot be "
            "trained; choose a tuner that adds weights (lora), or set it to float32 or bfloat16"
        )


def restore(model: nn.Module) -> None:
    """Replaces the layers of `lower` by plain ones in float32; in place, layer by layer.

    The weights are the rounded ones, with which the model was trained.
    """
    shared: dict[int, nn.Parameter] = {}
    for name, layer in list(model.named_modules()):
        if isinstance(layer, NF4Linear):
            replace_module(model, name, layer.plain())
        elif isinstance(layer, FrozenLinear | FrozenEmbedding):
            lowered = layer.weight
            if id(lowered) not in shared:
                shared[id(lowered)] = nn.Parameter(lowered.detach().float(), requires_grad=False)
            replace_module(model, name, layer.plain(shared[id(lowered)]))


class FrozenLinear(nn.Linear):
    """A projection whose frozen weight is kept in bfloat16."""

    def __init__(self, base: nn.Linear, weight_OI: nn.Parameter) -> None:
        nn.Module.__init__(self)  # nn.Linear's own would draw a weight
        self.in_features, self.out_features = base.in_features, base.out_features
        self.weight, self.bias = weight_OI, base.bias
        self.train(base.training)

    def forward(self, x: Tensor) -> Tensor:
        """[..., I] -> [..., O], in the precision of x or of autocast."""
        x = _autocast(x)
        y: Tensor = _Product.apply(x, self.weight)  # type: ignore[no-untyped-call]  # torch's
        return y if self.bias is None else y + self.bias.to(y.dtype)

    def plain(self, weight_OI: nn.Parameter) -> nn.Linear:
        """The projection with this weight."""
        return _linear(self, weight_OI)


class FrozenEmbedding(nn.Embedding):
    """An embedding whose frozen weight is kept in bfloat16; its rows are float32."""

    def __init__(self, base: nn.Embedding, weight_VD: nn.Parameter) -> None:
        nn.Module.__init__(self)  # nn.Embedding's own would draw a weight
        self.weight, self.padding_idx = weight_VD, base.padding_idx
        self.num_embeddings, self.embedding_dim = base.num_embeddings, base.embedding_dim
        self.train(base.training)

    def forward(self, ids: Tensor) -> Tensor:
        """[...] -> [..., D]."""
        return F.embedding(ids, self.weight).float()

    def plain(self, weight_VD: nn.Parameter) -> nn.Embedding:
        """The embedding with this weight."""
        table: nn.Embedding = nn.Embedding.from_pretrained(weight_VD, padding_idx=self.padding_idx)  # type: ignore[no-untyped-call]  # torch's
        table.weight = weight_VD  # one parameter for an embedding and its tied head
        return table.train(self.training)


class NF4Linear(nn.Linear):
    """A projection whose frozen weight is kept in 4 bits, quantised in blocks of 64."""

    packed: Tensor
    """Two weights a byte."""

    def __init__(self, base: nn.Linear) -> None:
        from bitsandbytes import functional as bnb

        nn.Module.__init__(self)  # nn.Linear's own would draw a weight
        self.in_features, self.out_features = base.in_features, base.out_features
        self.bias = base.bias
        packed, self.state = bnb.quantize_4bit(base.weight.detach().contiguous(), blocksize=_BLOCK, quant_type="nf4")
        self.register_buffer("packed", packed, persistent=False)
        self.train(base.training)

    @property
    def weight(self) -> Tensor:  # type: ignore[override]  # nn.Linear has a parameter of this name
        """The weight in float32: [O, I]."""
        return _dequantised(self.packed, self.state)

    def forward(self, x: Tensor) -> Tensor:
        """[..., I] -> [..., O], in the precision of x or of autocast."""
        y: Tensor = _NF4Product.apply(_autocast(x), self.packed, self.state)  # type: ignore[no-untyped-call]  # torch's
        return y if self.bias is None else y + self.bias.to(y.dtype)

    def plain(self) -> nn.Linear:
        """The projection with the rounded weight in float32."""
        return _linear(self, nn.Parameter(self.weight, requires_grad=False))


class _Product(torch.autograd.Function):
    """x W^T that keeps W as it is for the gradient, not the copy in the precision of x."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight_OI: Tensor) -> Tensor:
        ctx.save_for_backward(weight_OI)
        return x @ weight_OI.to(x.dtype).mT

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (weight_OI,) = ctx.saved_tensors
        return grad @ weight_OI.to(grad.dtype), None


class _NF4Product(torch.autograd.Function):
    """x W^T that keeps W in 4 bits for the gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, packed: Tensor, state: Any) -> Tensor:
        ctx.save_for_backward(packed)
        ctx.state = state
        return x @ _dequantised(packed, state).to(x.dtype).mT

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (packed,) = ctx.saved_tensors
        return grad @ _dequantised(packed, ctx.state).to(grad.dtype), None, None


def _dequantised(packed: Tensor, state: Any) -> Tensor:
    from bitsandbytes import functional as bnb

    weight: Tensor = bnb.dequantize_4bit(packed, state)
    return weight


def _require_bitsandbytes() -> None:
    try:
        import bitsandbytes  # noqa: F401 - whether it can be imported
    except (ImportError, OSError, RuntimeError) as error:
        raise UserError(
            f"params.yaml: compute.weights is nf4, which needs the library bitsandbytes, and it cannot be used here "
            f"({str(error)[:120]}); install the extra `nf4`, or set compute.weights to bfloat16"
        ) from None


def _frozen_layers(model: nn.Module) -> Iterator[tuple[str, nn.Linear | nn.Embedding]]:
    """Plain layers whose weight is frozen, and held by plain layers alone (a tied weight is in two)."""
    holders: dict[int, list[nn.Module]] = {}
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            holders.setdefault(id(parameter), []).append(module)
    for name, module in model.named_modules():
        if not name or type(module) not in _PLAIN:
            continue
        assert isinstance(module, nn.Linear | nn.Embedding)
        if not module.weight.requires_grad and all(type(m) in _PLAIN for m in holders[id(module.weight)]):
            yield name, module


def _linear(layer: nn.Linear, weight_OI: nn.Parameter) -> nn.Linear:
    with torch.device("meta"):
        plain = Linear(1, 1, bias=False)
    plain.in_features, plain.out_features = layer.in_features, layer.out_features
    plain.weight, plain.bias = weight_OI, layer.bias
    return plain.train(layer.training)


def _autocast(x: Tensor) -> Tensor:
    """The activations in the precision of autocast, where it is on."""
    device = x.device.type
    return x.to(torch.get_autocast_dtype(device)) if torch.is_autocast_enabled(device) else x
