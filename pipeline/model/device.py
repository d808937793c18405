"""Where and how numbers are computed: threads, deterministic algorithms, precision. All of it is a tracked param."""

import ctypes
import hashlib
import os
import platform
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import wraps
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pipeline.config.recipe import Compute
from pipeline.errors import UserError
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
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(Path(".tohum/compiled", _machine()).resolve()))
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


def _machine() -> str:
    """Names what machine code is made for, so that a copied or shared project never runs another processor's."""
    facts = Path("/proc/cpuinfo")
    lines = facts.read_text().splitlines() if facts.exists() else []
    flags = next((line for line in lines if line.startswith(("flags", "Features"))), platform.processor())
    return hashlib.sha256(f"{platform.machine()} {torch.__version__} {flags}".encode()).hexdigest()[:12]


def compiled(model: GPT, compute: Compute) -> GPT:
    """The model with its blocks compiled in place when the params say so; names of weights stay.

    Block by block, because objectives enter the model by several doors (logits, hidden states, a class) and all of them
    run the blocks; and blocks are alike, so one is compiled and all use it. It is kept where `set_up` says.

    Raises:
        UserError: no C++ compiler. Falling back to plain code would silently give other bits.
    """
    if compute.compile:
        compiler = os.environ.get("CXX", "g++")
        if shutil.which(compiler) is None:
            raise UserError(
                f"params.yaml: compute.compile is true and there is no C++ compiler ({compiler!r} is not on the PATH); "
                "install g++, or set it to false"
            )
        model.fixed = True
        # On a CPU what calls the kernels is compiled too: Python's part was 4 % of a step of a small model.
        options = {"cpp_wrapper": True} if compute.device == "cpu" else None
        _keep_gradients_of_our_own()
        if compute.device == "cpu":
            _remember_probes(Path(shutil.which(compiler) or compiler))
        for block in model.blocks:
            block.compile(options=options)
    return model


def _keep_gradients_of_our_own() -> None:
    """Lets torch keep compiled code that holds some, for the next start: they depend on nothing outside of it."""
    from torch._functorch import config

    if hasattr(config, "autograd_cache_allow_custom_autograd_functions"):
        config.autograd_cache_allow_custom_autograd_functions = True


def _remember_probes(compiler: Path) -> None:
    """What this compiler and CPU were once seen to be able to do together is not tried again at every start.

    torch tries in ten processes one after the other: more than a second of waiting. What failed is tried again.
    """
    from torch._inductor.cpu_vec_isa import VecISA
    from torch._inductor.runtime.cache_dir_utils import cache_dir

    facts = compiler.resolve().stat()
    who = f"{_machine()} {compiler.resolve()} {facts.st_size} {facts.st_mtime_ns}"
    ask = getattr(VecISA.check_build, "__wrapped__", VecISA.check_build)

    @wraps(ask)
    def remembered(instructions: VecISA, code: str) -> bool:
        asked = hashlib.sha256(f"{who} {instructions.build_arch_flags()} {code}".encode()).hexdigest()
        noted = Path(cache_dir(), f"probed-{asked[:16]}")
        if not noted.exists():
            if not ask(instructions, code):
                return False
            noted.touch()
        return True

    # mypy wants classes of others left alone; torch has no setting for this
    VecISA.check_build = remembered  # type: ignore[assignment, method-assign]
