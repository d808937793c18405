"""torch.compile for the blocks of a model, and where compiled code is kept between runs."""

import hashlib
import os
import platform
import shutil
from functools import wraps
from pathlib import Path

import torch

from pipeline.config.recipe import Compute
from pipeline.errors import UserError
from pipeline.model.gpt import GPT


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
        model.static_shapes = True
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
    who = f"{machine()} {compiler.resolve()} {facts.st_size} {facts.st_mtime_ns}"
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


def machine() -> str:
    """Names what machine code is made for, so that a copied or shared project never runs another processor's."""
    facts = Path("/proc/cpuinfo")
    lines = facts.read_text().splitlines() if facts.exists() else []
    flags = next((line for line in lines if line.startswith(("flags", "Features"))), platform.processor())
    return hashlib.sha256(f"{platform.machine()} {torch.__version__} {flags}".encode()).hexdigest()[:12]
