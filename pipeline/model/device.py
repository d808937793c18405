"""Device, threads, determinism and precision of all computation; each is a tracked param, because it changes bits."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import nn

from pipeline.config.recipe import Compute, saves_memory
from pipeline.errors import UserError
from pipeline.model.compilation import keep_compiled_code
from pipeline.model.cpu.memory import keep_freed_memory, return_freed_memory
from pipeline.model.cpu.startup import leave_out_compiler
from pipeline.model.gpt import GPT


def set_up(compute: Compute) -> torch.device:
    """Sets threads and deterministic algorithms, and returns the device.

    Raises:
        UserError: the device is not there.
    """
    torch.set_num_threads(compute.threads)
    if compute.device == "cuda":
        if not torch.cuda.is_available():
            raise UserError("params.yaml: compute.device is cuda, torch finds no GPU; set it to cpu")
        torch.set_float32_matmul_precision("high")
    else:
        # The same switch as use_deterministic_algorithms(True), which also imports torch's compiler: 1.25 s a stage.
        torch.set_deterministic_debug_mode("error")
        # No code here reads memory before it writes it; filling it first costs 5 % of an update.
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # torch's stubs lack it
        if saves_memory(compute):
            return_freed_memory()
        else:
            keep_freed_memory()
    if compute.compile:
        keep_compiled_code()
    else:
        leave_out_compiler()
    return torch.device(compute.device)


def has_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16 itself (AVX512-BF16, AMX); elsewhere it is slower than float32."""
    checks = (getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    return any(check is not None and check() for check in checks)


def seed(device: torch.device, value: int) -> None:
    """Seeds torch's global generator of this device, from which dropout draws.

    torch.manual_seed seeds the generators of all devices, 3 % of a small model's step.
    """
    if device.type == "cpu":
        torch.default_generator.manual_seed(value)
    else:
        torch.manual_seed(value)


def autocast(compute: Compute) -> AbstractContextManager[Any]:
    """Autocast of matrix products to bfloat16 if the params set it; no effect for float32."""
    if compute.precision == "float32":
        return nullcontext()
    return torch.autocast(compute.device, torch.bfloat16)


@contextmanager
def lowered(model: GPT, compute: Compute) -> Iterator[None]:
    """As `autocast`, with the same bits, but the weights of projections are cast once, not at every call.

    For generation, whose passes read every weight for a few tokens: casting at every call takes longer than all the
    rest. Takes half of the weights' memory while it lasts. No gradients.
    """
    if compute.precision == "float32":
        yield
        return
    # An adapter that scales its weight (DoRA's magnitude) reads it in float32 as well.
    exact = {
        child: child.weight
        for module in model.modules()
        if getattr(module, "magnitude", None) is None
        for child in module.children()
        if isinstance(child, nn.Linear) and "weight" in dict(child.named_parameters(recurse=False))
    }
    try:
        for child, weight in exact.items():
            child.weight = nn.Parameter(weight.detach().to(torch.bfloat16), requires_grad=False)
        with autocast(compute):
            yield
    finally:
        for child, weight in exact.items():
            child.weight = weight
