"""Tensors on disk: safetensors files, one or several behind an index, checked by their headers before they are read.

A header gives names, shapes and types without the numbers, so that a folder that does not fit, or that needs more
memory than there is, is refused before memory is taken. `read_tensors` then refuses NaN and infinity, from which no
training recovers.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from pipeline import files, foreign
from pipeline.errors import UserError
from pipeline.foreign import AGAIN, shown

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
_TYPES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
_NAME = re.compile(r"\w[\w.-]*\.safetensors", re.ASCII)


class Header(NamedTuple):
    """The entry of one tensor in a safetensors file's header."""

    shape: tuple[int, ...]
    dtype: str
    """As safetensors writes it: F32, BF16, I64, ..."""
    file: Path


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Writes one safetensors file, whole or not at all; equal tensors give equal bytes."""
    on_cpu = {name: tensors[name].detach().to("cpu").contiguous() for name in sorted(tensors)}
    with files.replacing(path) as temporary:
        save_file(on_cpu, temporary, metadata={"format": "pt"})


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Reads one safetensors file. Raises UserError: missing, damaged, too large for this machine, NaN or infinity."""
    foreign.require_memory(path, foreign.regular(path).stat().st_size)
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError, ValueError) as error:
        raise _damaged(path, error) from None
    for name, value in tensors.items():
        require_finite(value, name, path)
    return tensors


def require_finite(value: Tensor, name: str, path: Path) -> None:
    """Raises UserError if a tensor of floats holds NaN or infinity. One pass, no copy."""
    if value.is_floating_point() and value.numel():
        low, high = torch.aminmax(value)  # either is NaN if any number is
        if not (torch.isfinite(low) and torch.isfinite(high)):
            count = int((~torch.isfinite(value)).sum())
            raise UserError(
                f"{path}: {name} holds NaN or infinity ({count:,} of its {value.numel():,} numbers, in float32); "
                f"expected finite weights; {AGAIN}"
            )


def headers(path: Path) -> dict[str, Header]:
    """The header of one safetensors file, by tensor name. Raises UserError when it is missing or damaged."""
    foreign.regular(path)
    try:
        with safe_open(path, framework="pt") as opened:
            slices = {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118 - a file handle, no dict
            return {name: Header(tuple(x.get_shape()), x.get_dtype(), path) for name, x in slices.items()}
    except (OSError, SafetensorError, ValueError, OverflowError) as error:
        raise _damaged(path, error) from None


def weight_files(folder: Path) -> list[str]:
    """The names of a model folder's files of weights, sorted.

    Raises:
        UserError: no such file, only pickled ones, or an index that is none or names a file not in the folder.
    """
    if os.path.lexists(folder / WEIGHTS):
        return [WEIGHTS]
    if os.path.lexists(folder / INDEX):
        return sorted(set(_weight_map(folder).values()))
    pickled = sorted(
        p.name if p.name.isprintable() else shown(p.name)
        for p in folder.glob("*")
        if p.suffix in (".bin", ".pt", ".pth")
    )
    raise UserError(
        f"{folder}: no {WEIGHTS}"
        + (
            f", only {', '.join(pickled[:3])}: pickled weights can run code and are not read; convert them to "
            "safetensors"
            if pickled
            else "; expected a model folder in the Hugging Face layout"
        )
    )


def folder_headers(folder: Path) -> dict[str, Header]:
    """The headers of all files of weights of a folder, by tensor name.

    Raises:
        UserError: as `weight_files` and `headers`; a tensor in two files, or in another file than in the index.
    """
    header_of: dict[str, Header] = {}
    names = weight_files(folder)
    for name in names:
        for tensor, header in headers(folder / name).items():
            if tensor in header_of:
                raise UserError(
                    f"{folder / name}: holds {shown(tensor)}, which {header_of[tensor].file.name} holds as well; "
                    f"expected each tensor in one file; {AGAIN}"
                )
            header_of[tensor] = header
    if names != [WEIGHTS]:
        indexed = _weight_map(folder)
        for tensor in sorted(indexed.keys() | header_of.keys()):
            place = header_of[tensor].file.name if tensor in header_of else None
            if indexed.get(tensor) != place:
                raise UserError(
                    f"{folder / INDEX}: weight_map has {shown(tensor)} in {indexed.get(tensor)}, it is in {place}; "
                    f"expected the index of these files; {AGAIN}"
                )
    return header_of


def require_floats(tensors: Mapping[str, Header], folder: Path) -> None:
    """Raises UserError for types that no weights of ours have, and for more than this machine's memory in float32."""
    for name, header in tensors.items():
        if header.dtype not in _TYPES:
            raise UserError(
                f"{header.file}: {shown(name)} is of type {header.dtype}, expected one of: {', '.join(_TYPES)}; start "
                "from the plain (bfloat16 or float32) weights"
            )
    foreign.require_memory(folder, sum(4 * _count(header.shape) for header in tensors.values()))


def _weight_map(folder: Path) -> dict[str, str]:
    path = foreign.regular(folder / INDEX, folder)
    weight_map = foreign.read_object(path).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise UserError(f"{path}: weight_map is {shown(weight_map)}, expected an object {{tensor: file}}; {AGAIN}")
    for tensor, name in weight_map.items():
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise UserError(
                f"{path}: weight_map has {shown(tensor)} in {shown(name)}, expected the name of a .safetensors file in "
                f"this folder; {AGAIN}"
            )
        if not os.path.lexists(folder / name):
            raise UserError(f"{folder}: {name} is missing, {INDEX} lists it; {AGAIN}")
        foreign.regular(folder / name, folder)
    return weight_map


def _count(shape: tuple[int, ...]) -> int:
    count = 1
    for length in shape:
        count *= length
    return count


def _damaged(path: Path, error: Exception) -> UserError:
    return UserError(f"{path}: not readable as safetensors: {str(error)[:200]}; restore or download the file again")
