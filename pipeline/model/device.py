"""Where and how numbers are computed: threads, deterministic algorithms, precision. All of it is a tracked param."""

import ctypes
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pipeline.config.recipe import Compute
from pipeline.errors import UserError
from pipeline.model.compilation import machine
from pipeline.model.gpt import GPT


def set_up(compute: Compute) -> torch.device:
    """Fixes what changes bits (threads, deterministic algorithms) and where compiled code is kept for the next stage.

    That is .tohum/compiled, or TORCHINDUCTOR_CACHE_DIR where it is set. Raises UserError when the device is not there.
    """
    torch.set_num_threads(compute.threads)
    if compute.device == "cuda":
        if not torch.cuda.is_available():
            raise UserError("params.yaml: compute.device is cuda, torch sees no GPU; set it to cpu")
        torch.set_float32_matmul_precision("high")
    else:
        # The same switch as use_deterministic_algorithms(True), which also imports torch's compiler: 2 s a stage.
        torch.set_deterministic_debug_mode("error")
        # Nothing here reads memory that it has not written; filling it first costs 5 % of a step.
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # torch's stubs lack it
        _keep_memory()
    if compute.compile:
        # Before anything imports torch's compiler, which otherwise chooses a folder of the system's.
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(Path(".tohum/compiled", machine()).resolve()))
    else:
        _leave_the_compiler_out()
    return torch.device(compute.device)


def has_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16 itself (AVX512-BF16, AMX); elsewhere it is slower than float32."""
    asked = (getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    return any(ask is not None and ask() for ask in asked)


def _keep_memory() -> None:
    """Tells glibc to keep what is freed for the next step, which needs the same again.

    By default it hands the large pieces back to the system after every step and pays for fresh pages in the next. Other
    C libraries have no such setting.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return
    most = 2**31 - 1
    # M_MMAP_THRESHOLD: from which size on a piece is a mapping of its own, bytes; an older glibc takes at most 32 MiB
    if mallopt(-3, most) or mallopt(-3, 2**25):
        mallopt(-1, most)  # M_TRIM_THRESHOLD: how much may lie free at the end of the heap, bytes
    # M_MXFAST: up to which size pieces wait apart, to be joined whenever a large one is freed: 2 % of an
    # update of 0.8 M weights (tests/bench/shakespeare.py, in turns in one process)
    mallopt(1, 0)


def _leave_the_compiler_out() -> None:
    """Optimizers import torch's compiler (2 s) at their first call, only to be told that it shall not touch them.

    torch keeps that answer beside each method (`torch._compile`); given here, nobody asks. Where a later torch asks
    differently, this does nothing.
    """
    for method in vars(torch.optim.Optimizer).values():
        plain = getattr(method, "__wrapped__", None)
        if plain is not None:
            plain.__dynamo_disable = plain


def seed(device: torch.device, value: int) -> None:
    """Seeds what dropout draws from on this device.

    torch.manual_seed seeds every device that torch knows, and notes the stack for those that nobody has used yet: 3 %
    of a small model's step.
    """
    if device.type == "cpu":
        torch.default_generator.manual_seed(value)
    else:
        torch.manual_seed(value)


def autocast(compute: Compute) -> AbstractContextManager[Any]:
    """Where products run in bfloat16 when the params say so; nothing for float32."""
    if compute.precision == "float32":
        return nullcontext()
    return torch.autocast(compute.device, torch.bfloat16)


@contextmanager
def lowered(model: GPT, compute: Compute) -> Iterator[None]:
    """Inside, as in `autocast` and to the same bits, but the weights of projections are cast once, not at every call.

    For passes without gradients that read every weight for a few tokens: casting at every call takes longer than all
    the rest of generation. Costs half of the weights' memory while it lasts.
    """
    if compute.precision == "float32":
        yield
        return
    # Weights that an adapter turns (DoRA's magnitude) it reads exactly besides.
    kept = {
        child: child.weight
        for module in model.modules()
        if getattr(module, "magnitude", None) is None
        for child in module.children()
        if isinstance(child, nn.Linear)
    }
    try:
        for child, weight in kept.items():
            child.weight = nn.Parameter(weight.detach().to(torch.bfloat16), requires_grad=False)
        with autocast(compute):
            yield
    finally:
        for child, weight in kept.items():
            child.weight = weight
