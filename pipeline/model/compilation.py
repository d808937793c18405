"""torch.compile for the blocks of a model, and the folder where compiled code is kept between runs."""

import hashlib
import os
import platform
import shutil
from pathlib import Path

import torch

from pipeline.config.recipe import Compute
from pipeline.errors import UserError
from pipeline.model.gpt import GPT
from pipeline.model.library import LibraryModel


def keep_compiled_code() -> None:
    """Sets the folder of torch's compile cache to .tohum/compiled, unless TORCHINDUCTOR_CACHE_DIR is set.

    Call it before anything imports torch's compiler, which otherwise chooses a folder in the system's temporary one.
    """
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(Path(".tohum/compiled", processor()).resolve()))


def compiled(model: GPT, compute: Compute) -> GPT:
    """The model, its blocks compiled in place if the params enable it; names of weights stay.

    Blocks, and not the whole model, because tasks enter it by several methods (`logits`, `hidden`, `classify`) and all
    of them run the blocks. Blocks are alike, so one is compiled and all use its code.

    Raises:
        UserError: no C++ compiler. Running uncompiled instead would silently change the bits.
    """
    if not compute.compile:
        return model
    if isinstance(model, LibraryModel):
        raise UserError(
            f"params.yaml: compute.compile is true, and a {model.config.family} model is computed by transformers, "
            "which is not compiled here; set it to false"
        )
    compiler = os.environ.get("CXX", "g++")
    if shutil.which(compiler) is None:
        raise UserError(
            f"params.yaml: compute.compile is true and there is no C++ compiler ({compiler!r} is not on the PATH); "
            "install g++, or set it to false"
        )
    model.static_shapes = True
    _cache_custom_gradients()
    # On a CPU the code that calls the kernels is compiled too: in Python it takes 4 % of a step of a small model.
    options = {"cpp_wrapper": True} if compute.device == "cpu" else None
    for block in model.blocks:
        block.compile(options=options)
    return model


def _cache_custom_gradients() -> None:
    """Lets torch's compile cache keep code with our autograd Functions, whose gradients depend only on their inputs.

    Without it every stage compiles anew: 14 to 17 s where a warm start takes 4.3 s (`tohum fastest`).
    """
    from torch._functorch import config

    if hasattr(config, "autograd_cache_allow_custom_autograd_functions"):
        config.autograd_cache_allow_custom_autograd_functions = True


def processor() -> str:
    """A name for the processor and torch build, so that a copied project never runs machine code for another one."""
    facts = Path("/proc/cpuinfo")
    lines = facts.read_text().splitlines() if facts.exists() else []
    flags = next((line for line in lines if line.startswith(("flags", "Features"))), platform.processor())
    return hashlib.sha256(f"{platform.machine()} {torch.__version__} {flags}".encode()).hexdigest()[:12]
