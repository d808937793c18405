"""Damaged and hostile Hugging Face folders: a catalogue of changes to a small good one, each with seeded variants.

`make(folder, draw)` writes the good folder (drawn family, one file or shards, an adapter), `CATALOGUE` maps a name to
the change that must be refused, `refusal(folder)` brings the folder to the doors that a user meets: pin, fetch, load,
and adopting its tokenizer.
"""

import json
import os
import random
import re
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from pipeline import tokenizer
from pipeline.config.recipe import InitialWeights
from pipeline.errors import UserError
from pipeline.model import checkpoint, open_weights
from pipeline.model.weights import INDEX, WEIGHTS
from tests.models import network
from tests.specs import TEXT, written

CANARY = "canary"
"""The file beside the folder that code of the folder would write."""
SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
Change = Callable[[Path, random.Random], Any]
CATALOGUE: dict[str, Change] = {}
_TEXTS = ["ışık gün çiğ köfte", "İstanbul'da they're 1923", "böyle... x=1 \n\n 日本語 👍🏽"] * 20


def hostile(change: Change) -> Change:
    """Adds a change to the catalogue under its own name."""
    CATALOGUE[change.__name__] = change
    return change


def make(folder: Path, draw: random.Random) -> Path:
    """A good folder as transformers would have saved it: no manifest, a tokenizer, code that nobody may run."""
    words = tokenizer.train(_TEXTS, 280, "gpt2")
    words.save(folder.with_name("tokenizer"))
    family = draw.choice(["llama", "qwen3", "gpt2", "arcee", "mistral", "qwen2"])
    labels = draw.choice([0, 0, 3])
    model = network(family, labels=labels, vocab_size=words.vocab_size, tie_embeddings=draw.random() < 0.5)
    names = ["ham", "spam", "eggs"] if labels else None
    source = folder.with_name("tokenizer")
    (source / "tohum-tokenizer.json").unlink()
    (source / "ranks.tiktoken").unlink()
    checkpoint.save(model, folder, tokenizer=source, labels=names, metadata=written([TEXT]))
    (folder / "manifest.json").unlink()
    canary = folder.with_name(CANARY)
    (folder / "modeling_x.py").write_text(f"open({str(canary)!r}, 'w').close()\n")
    return folder


def shard(folder: Path) -> dict[str, str]:
    """Splits the weights over two files; returns the weight_map."""
    tensors = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    names = sorted(tensors)
    parts = names[::2], names[1::2]
    for file, part in zip(SHARDS, parts, strict=True):
        save_file({name: tensors[name] for name in part}, folder / file, metadata={"format": "pt"})
    found = {name: file for file, part in zip(SHARDS, parts, strict=True) for name in part}
    index(folder, found)
    return found


def index(folder: Path, weight_map: Any) -> None:
    """Writes the index of the shards."""
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def refusal(folder: Path) -> str | None:
    """The sentence with which the folder is refused; None if it was taken. Other errors pass through.

    As a user goes on: without a pin, with the pin that the error gives, loaded, and its tokenizer adopted.
    """
    start = InitialWeights(
        kind="folder", path=str(folder), revision=None, sha256=None, licence="MIT", zero_projections=False
    )
    downloads = folder.with_name("downloads")
    try:
        open_weights.fetch(start, downloads)
    except UserError as error:
        offered = re.search("if you trust these, write ([0-9a-f]{64})$", str(error))
        if offered is None:
            return str(error)
    try:
        checkpoint.load(open_weights.fetch(start.model_copy(update={"sha256": offered[1]}), downloads))
        tokenizer.adopt(folder)
    except UserError as error:
        return str(error)
    return None


def _json(folder: Path, name: str) -> Any:
    return json.loads((folder / name).read_text(encoding="utf-8"))


def _write(folder: Path, name: str, value: Any) -> None:
    (folder / name).write_text(json.dumps(value), encoding="utf-8")


def _config(folder: Path, **fields: Any) -> None:
    _write(folder, "config.json", _json(folder, "config.json") | fields)


def _key(folder: Path, rotary: str, gpt2: str) -> str:
    return gpt2 if _json(folder, "config.json")["model_type"] == "gpt2" else rotary


def _weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    tensors = load_file(folder / WEIGHTS)
    change(tensors)
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})


def _a_file(draw: random.Random) -> str:
    return draw.choice(["config.json", WEIGHTS, "tokenizer.json", "tokenizer_config.json", "generation_config.json"])


def _free(folder: Path, draw: random.Random) -> Path:
    """Where a subfolder of a model may stand, empty."""
    place = folder / draw.choice(["adapter", "language"])
    shutil.rmtree(place, ignore_errors=True)
    return place


def _raw(folder: Path, header: Any, data: bytes = b"", length: int | None = None) -> None:
    """A safetensors file with any header; `length`: what it says of the header's length."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    (folder / WEIGHTS).write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)


# Files that are none, or are somewhere else


@hostile
def link_out(folder: Path, draw: random.Random) -> None:
    """A link to a file that is fine and stands elsewhere: somebody's own."""
    name = _a_file(draw)
    (folder / name).rename(folder.with_name("elsewhere"))
    (folder / name).symlink_to(draw.choice([folder.with_name("elsewhere"), Path("../elsewhere")]))


@hostile
def link_to_system(folder: Path, draw: random.Random) -> None:
    name = _a_file(draw)
    (folder / name).unlink()
    (folder / name).symlink_to(draw.choice(["/etc/passwd", "/dev/zero", "/dev/null", "/proc/self/environ", "/"]))


@hostile
def link_in_a_circle(folder: Path, draw: random.Random) -> None:
    name = _a_file(draw)
    (folder / name).unlink()
    (folder / name).symlink_to(name)


@hostile
def link_to_nothing(folder: Path, draw: random.Random) -> None:
    name = _a_file(draw)
    (folder / name).unlink()
    (folder / name).symlink_to("nowhere")


@hostile
def pipe(folder: Path, draw: random.Random) -> None:
    name = _a_file(draw)
    (folder / name).unlink()
    os.mkfifo(folder / name)


@hostile
def folder_for_a_file(folder: Path, draw: random.Random) -> None:
    name = _a_file(draw)
    (folder / name).unlink()
    (folder / name).mkdir()


@hostile
def a_name_of_two_lines(folder: Path, draw: random.Random) -> None:
    name = draw.choice(["a\nerror: all is well", "\x1b[2Ja", "a\rb"])
    if draw.random() < 0.5:
        (folder / WEIGHTS).rename(folder / f"{name}.bin")
    else:
        (folder / f"{name}.json").write_text("{}")


@hostile
def adapter_link_out(folder: Path, draw: random.Random) -> None:
    elsewhere = folder.with_name("elsewhere")
    elsewhere.mkdir()
    (elsewhere / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    _free(folder, draw).symlink_to(draw.choice([elsewhere, Path("../elsewhere")]))


@hostile
def adapter_is_a_file(folder: Path, draw: random.Random) -> None:
    _free(folder, draw).write_text("{}")


@hostile
def no_config(folder: Path, draw: random.Random) -> None:
    (folder / "config.json").unlink()


# config.json


@hostile
def json_of_another_kind(folder: Path, draw: random.Random) -> None:
    name = draw.choice(
        ["config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json", "tohum.json"]
    )
    _write(folder, name, draw.choice([[], [{}], "x", 5, None, True, [["model_type", "llama"]]]))


@hostile
def json_that_is_none(folder: Path, draw: random.Random) -> None:
    name = draw.choice(["config.json", "tokenizer.json", "tokenizer_config.json", "tohum.json"])
    whole = (folder / name).read_bytes()
    data = draw.choice([b"", b"{", whole[: len(whole) // 2], b"\xff\xfe" + whole, b"\x00" * 40, whole + b"}"])
    (folder / name).write_bytes(data)


@hostile
def json_of_a_long_number(folder: Path, draw: random.Random) -> None:
    digits = "9" * draw.choice([30, 400, 5000, 100_000])
    text = (folder / "config.json").read_text(encoding="utf-8")
    (folder / "config.json").write_text(text.replace('"vocab_size": 280', f'"vocab_size": {digits}'))


@hostile
def deep_nesting(folder: Path, draw: random.Random) -> None:
    name = draw.choice(["config.json", "tokenizer.json", "tokenizer_config.json", "tohum.json"])
    depth = draw.choice([70, 500, 5000, 200_000])
    opening, closing = draw.choice([("[", "]"), ('{"a":', "}")])
    (folder / name).write_text('{"model_type": ' + opening * depth + "1" + closing * depth + "}")


@hostile
def a_million_layers(folder: Path, draw: random.Random) -> None:
    most = draw.choice([3, 900, 10**6, 10**9, 10**18])
    _config(folder, **{_key(folder, "num_hidden_layers", "n_layer"): most})


@hostile
def a_dimension_that_is_none(folder: Path, draw: random.Random) -> None:
    keys = {
        "llama": ["num_hidden_layers", "num_attention_heads", "num_key_value_heads", "hidden_size", "vocab_size",
                  "intermediate_size", "max_position_embeddings", "head_dim"],
        "gpt2": ["n_layer", "n_head", "n_embd", "n_positions", "vocab_size", "n_inner"],
    }  # fmt: skip
    family = "gpt2" if _json(folder, "config.json")["model_type"] == "gpt2" else "llama"
    bad = [0, -1, -(10**9), 2.5, 2.0, "2", "", [2], {"a": 2}, True, False, 10**9, 10**12, 2**63, 1e308, "0x10"]
    _config(folder, **{draw.choice(keys[family]): draw.choice(bad)})


@hostile
def a_key_less(folder: Path, draw: random.Random) -> None:
    raw = _json(folder, "config.json")
    gone = draw.choice(["vocab_size", "model_type", _key(folder, "hidden_size", "n_embd")])
    _write(folder, "config.json", {key: value for key, value in raw.items() if key != gone})


@hostile
def heads_that_do_not_divide(folder: Path, draw: random.Random) -> None:
    key = _key(folder, draw.choice(["num_key_value_heads", "num_attention_heads"]), "n_head")
    _config(folder, **{key: draw.choice([3, 5, 7])})


@hostile
def a_float_that_gives_no_numbers(folder: Path, draw: random.Random) -> None:
    value = draw.choice([0, 0.0, -1.0, float("nan"), float("inf"), -float("inf"), "1e4", [1e4], None, 1e300, 1e-300])
    if _key(folder, "", "n"):
        _config(folder, layer_norm_epsilon=draw.choice([0, -1.0, float("nan"), float("inf"), "x", None, 1e300]))
        return
    key = draw.choice(["rope_theta", "rms_norm_eps"])
    if key == "rope_theta":
        _config(folder, rope_theta=value, rope_parameters={"rope_theta": value, "rope_type": "default"})
    else:
        _config(folder, rms_norm_eps=draw.choice([0, -1.0, float("nan"), float("inf"), "x", None, 1e300]))


@hostile
def rope_of_another_kind(folder: Path, draw: random.Random) -> None:
    llama3 = {"rope_type": "llama3", "rope_theta": 1e4, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
              "original_max_position_embeddings": 16}  # fmt: skip
    bad: list[Any] = [
        [1], "linear", {"rope_type": "yarn"}, {"rope_type": ["llama3"]}, {"rope_type": "llama3"},
        llama3 | {"factor": 0}, llama3 | {"factor": float("nan")}, llama3 | {"low_freq_factor": -1.0},
        llama3 | {"low_freq_factor": 4.0}, llama3 | {"original_max_position_embeddings": 0}, llama3 | {"more": 1},
        {"rope_type": "default", "partial_rotary_factor": 0.5},
    ]  # fmt: skip
    _config(folder, rope_parameters=draw.choice(bad), model_type="llama", hidden_act="silu")
    raw = _json(folder, "config.json")
    if "hidden_size" not in raw:  # a GPT-2: it has no rotary positions, and lacks the keys of one that has
        assert "n_embd" in raw


@hostile
def another_family(folder: Path, draw: random.Random) -> None:
    bad = ["mamba", "", None, 5, ["llama"], {"a": 1}, "llama" * 10_000, "LLAMA", "llama\nerror: all is well"]
    _config(folder, model_type=draw.choice(bad))


@hostile
def code_of_its_own(folder: Path, draw: random.Random) -> None:
    bad: list[dict[str, Any]] = [
        {"auto_map": {"AutoModelForCausalLM": "modeling_x.Model"}},
        {"trust_remote_code": True},
        {"auto_map": "modeling_x.Model"},
    ]
    _config(folder, **draw.choice(bad))


@hostile
def settings_we_do_not_compute(folder: Path, draw: random.Random) -> None:
    key = _key(folder, "hidden_act", "activation_function")
    bad: list[dict[str, Any]] = [{key: "tanh"}, {key: ["silu"]}, {key: 5}, {"quantization_config": {"bits": 4}}]
    _config(folder, **draw.choice(bad))


@hostile
def labels_that_are_none(folder: Path, draw: random.Random) -> None:
    bad: list[Any] = [
        ["a", "b"], {"x": "a"}, {"0": 1}, {"0": "a", "1": "a"}, {"0": "a", "2": "b"}, None, {}, 5, {"-1": "a"},
        {str(number): f"label {number}" for number in range(70)},
    ]  # fmt: skip
    kind = draw.choice([["LlamaForSequenceClassification"], ["LlamaForSequenceClassification"], [5], "x", {"a": 1}])
    _weights(folder, lambda tensors: tensors.update({"score.weight": torch.ones(3, 16)}))
    _config(folder, architectures=kind, id2label=draw.choice(bad))


@hostile
def another_vocabulary(folder: Path, draw: random.Random) -> None:
    _config(folder, vocab_size=draw.choice([1, 279, 281, 1000, 2**24]))


# The index and the shards


@hostile
def index_that_is_none(folder: Path, draw: random.Random) -> None:
    shard(folder)
    bad = [b"", b"[]", b"{", b"null", b"{}", b'{"weight_map": []}', b'{"weight_map": null}', b'{"weight_map": {}}',
           b'{"weight_map": "model.safetensors"}', b'{"weight_map": {"a": 5}}', b'{"weight_map": {"a": ["b"]}}',
           b'{"weight_map": {"a": ""}}', b"\xff\xff"]  # fmt: skip
    (folder / INDEX).write_bytes(draw.choice(bad))


@hostile
def index_that_leads_out(folder: Path, draw: random.Random) -> None:
    found = shard(folder)
    (folder / SHARDS[0]).rename(folder.with_name("stolen.safetensors"))
    out = draw.choice(["../stolen.safetensors", str(folder.with_name("stolen.safetensors")), "./../stolen.safetensors",
                       "adapter/../../stolen.safetensors", "/dev/zero", "..", "config.json", "a\x00.safetensors",
                       "https://evil.example/a.safetensors", "..\\stolen.safetensors"])  # fmt: skip
    index(folder, {name: out if file == SHARDS[0] else file for name, file in found.items()})


@hostile
def index_without_its_files(folder: Path, draw: random.Random) -> None:
    found = shard(folder)
    match draw.choice(["gone", "renamed", "swapped", "more", "less", "link", "pipe"]):
        case "gone":
            (folder / SHARDS[1]).unlink()
        case "renamed":
            (folder / SHARDS[1]).rename(folder / "other.safetensors")
        case "swapped":
            index(folder, {name: SHARDS[file == SHARDS[0]] for name, file in found.items()})
        case "more":
            index(folder, found | {"model.layers.9.x": SHARDS[0]})
        case "less":
            index(folder, dict(list(found.items())[:-1]))
        case "link":
            (folder / SHARDS[1]).rename(folder.with_name("elsewhere.safetensors"))
            (folder / SHARDS[1]).symlink_to("../elsewhere.safetensors")
        case "pipe":
            (folder / SHARDS[1]).unlink()
            os.mkfifo(folder / SHARDS[1])


@hostile
def a_tensor_twice(folder: Path, draw: random.Random) -> None:
    found = shard(folder)
    twice = draw.choice(sorted(name for name, file in found.items() if file == SHARDS[0]))
    tensors = load_file(folder / SHARDS[1]) | {twice: load_file(folder / SHARDS[0])[twice] + 1}
    save_file(tensors, folder / SHARDS[1], metadata={"format": "pt"})


@hostile
def a_tensor_under_two_names(folder: Path, draw: random.Random) -> None:
    root = _key(folder, "model.", "transformer.")

    def double(tensors: dict[str, torch.Tensor]) -> None:
        name = draw.choice(sorted(name for name in tensors if name.startswith(root)))
        tensors[name.removeprefix(root)] = tensors[name] + 1

    _weights(folder, double)


# Weights


@hostile
def weights_that_are_no_numbers(folder: Path, draw: random.Random) -> None:
    def spoil(tensors: dict[str, torch.Tensor]) -> None:
        one = tensors[draw.choice(sorted(tensors))]
        one.view(-1)[draw.randrange(one.numel())] = draw.choice([float("nan"), float("inf"), -float("inf")])

    _weights(folder, spoil)


@hostile
def weights_beyond_float32(folder: Path, draw: random.Random) -> None:
    def grow(tensors: dict[str, torch.Tensor]) -> None:
        name = draw.choice(sorted(tensors))
        tensors[name] = tensors[name].to(torch.float64) + 1e300

    _weights(folder, grow)


@hostile
def weights_of_another_type(folder: Path, draw: random.Random) -> None:
    dtype = draw.choice([torch.int8, torch.int64, torch.bool, torch.uint8, torch.float8_e4m3fn, torch.complex64])

    def turn(tensors: dict[str, torch.Tensor]) -> None:
        name = draw.choice(sorted(tensors))
        tensors[name] = tensors[name].to(dtype)

    _weights(folder, turn)


@hostile
def weights_of_another_shape(folder: Path, draw: random.Random) -> None:
    def turn(tensors: dict[str, torch.Tensor]) -> None:
        name = draw.choice(sorted(tensors))
        one = tensors[name]
        shapes = [one[..., :-1], one.reshape(-1, 1, 1), one.new_zeros(0), torch.tensor(1.0), torch.cat((one, one))]
        tensors[name] = draw.choice(shapes).contiguous()

    _weights(folder, turn)


@hostile
def a_tensor_less(folder: Path, draw: random.Random) -> None:
    _weights(folder, lambda tensors: [tensors.pop(draw.choice(sorted(tensors)))])


@hostile
def a_tensor_more(folder: Path, draw: random.Random) -> None:
    name = draw.choice(
        ["model.layers.7.mlp.up_proj.weight", "x", "", "model.layers.x.weight", "../x", "a" * 5000, "a\nb"]
    )
    _weights(folder, lambda tensors: tensors.update({name: torch.ones(2)}))


@hostile
def weights_cut_off(folder: Path, draw: random.Random) -> None:
    data = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(data[: draw.choice([0, 4, 8, 20, len(data) // 2, len(data) - 1])])


@hostile
def weights_that_are_noise(folder: Path, draw: random.Random) -> None:
    data = draw.randbytes(draw.choice([1, 7, 9, 100, 5000]))
    (folder / WEIGHTS).write_bytes(data)


@hostile
def a_header_that_lies(folder: Path, draw: random.Random) -> None:
    entry = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
    huge = {"dtype": "F32", "shape": [2**40, 2**20], "data_offsets": [0, 2**62]}
    bad: list[tuple[Any, bytes, int | None]] = [
        ({"a": entry}, b"12345678", 2**63), ({"a": entry}, b"12345678", 99_999_999), ({"a": entry}, b"12345678", 3),
        ({"a": huge}, b"12345678", None), ({"a": entry | {"data_offsets": [0, -8]}}, b"12345678", None),
        ({"a": entry | {"data_offsets": [8, 0]}}, b"12345678", None), ([{"a": entry}], b"12345678", None),
        ({"a": entry | {"shape": [-2]}}, b"12345678", None), (b"[" * 100_000, b"", None), (b"\xff" * 50, b"", None),
        ({"a": entry | {"shape": [2**63, 4]}}, b"12345678", None), ({"a": entry | {"dtype": "F99"}}, b"12345678", None),
        ({"a": entry, "b": entry}, b"12345678", None), ([], b"", None), (5, b"", None), ({"a": 5}, b"", None),
        ({}, b"", None), ({"__metadata__": {"a": 1}}, b"", None),
    ]  # fmt: skip
    header, data, length = draw.choice(bad)
    _raw(folder, header, data, length)


@hostile
def a_hole_of_terabytes(folder: Path, draw: random.Random) -> None:
    """Config and header agree on a network of two terabytes; the file is a hole that takes no disk."""
    rows = 2**24
    fields = {"vocab_size": rows, _key(folder, "hidden_size", "n_embd"): 2**15}
    _config(folder, **fields)
    size = rows * 2**15 * 4
    name = _key(folder, "model.embed_tokens.weight", "transformer.wte.weight")
    _raw(folder, {name: {"dtype": "F32", "shape": [rows, 2**15], "data_offsets": [0, size]}})
    os.truncate(folder / WEIGHTS, (folder / WEIGHTS).stat().st_size + size)


@hostile
def pickles_only(folder: Path, draw: random.Random) -> None:
    (folder / WEIGHTS).unlink()
    canary = folder.with_name(CANARY)
    program = f"cposix\nsystem\n(S'touch {canary}'\ntR.".encode()
    (folder / draw.choice(["pytorch_model.bin", "model.pt", "consolidated.00.pth"])).write_bytes(program)


@hostile
def a_pickle_under_a_good_name(folder: Path, draw: random.Random) -> None:
    canary = folder.with_name(CANARY)
    (folder / WEIGHTS).write_bytes(f"cposix\nsystem\n(S'touch {canary}'\ntR.".encode())


@hostile
def a_head_that_is_more(folder: Path, draw: random.Random) -> None:
    """language/head.safetensors holds one tensor; any other would replace what was pinned elsewhere."""
    (folder / "language").mkdir(exist_ok=True)
    name = draw.choice(["model.embed_tokens.weight", "embed.weight", "x", "score.weight"])
    save_file({name: torch.ones(280, 16)}, folder / "language/head.safetensors")


# adapter/


def _adapter(folder: Path, config: Any, tensors: dict[str, torch.Tensor] | None) -> None:
    (folder / "adapter").mkdir()
    (folder / "adapter/adapter_config.json").write_text(config if isinstance(config, str) else json.dumps(config))
    if tensors is not None:
        save_file(tensors, folder / "adapter/adapter_model.safetensors")


@hostile
def an_adapter_config_that_is_none(folder: Path, draw: random.Random) -> None:
    bad: list[Any] = ["", "{", "[]", "5", "[" * 100_000, {"peft_type": 5}, {"peft_type": ["LORA"]}]
    _adapter(folder, draw.choice(bad), {"prompt_embeddings": torch.ones(2, 16)})


@hostile
def an_adapter_of_other_dimensions(folder: Path, draw: random.Random) -> None:
    count = draw.choice([0, -1, 3, 10**9, "2", None, [2], 2.0, True])
    _adapter(
        folder,
        {"peft_type": draw.choice(["PREFIX_TUNING", "PROMPT_TUNING"]), "num_virtual_tokens": count},
        {"prompt_embeddings": draw.choice([torch.ones(2, 16), torch.ones(2, 5), torch.ones(2)])},
    )


@hostile
def an_adapter_without_its_tensors(folder: Path, draw: random.Random) -> None:
    kind = draw.choice(["PREFIX_TUNING", "PROMPT_TUNING", "BOTTLENECK"])
    config = {"peft_type": kind, "num_virtual_tokens": 2, "width": 2}
    _adapter(folder, config, draw.choice([None, {"x": torch.ones(2, 16)}, {"prompt": torch.ones(2, 16)}]))


@hostile
def bottlenecks_of_any_width(folder: Path, draw: random.Random) -> None:
    width = draw.choice([0, -1, 10**9, 10**18, "4", None, 4.5, 3])
    sites = [f"blocks.{i}.{part}" for i in range(2) for part in ("attention.out", "mlp.down")]
    tensors = {f"{site}.narrow": torch.ones(4, 16) for site in sites}
    tensors |= {f"{site}.wide": torch.ones(16, 4) for site in sites}
    _adapter(folder, {"peft_type": "BOTTLENECK", "width": width}, tensors)


@hostile
def an_adapter_that_is_no_numbers(folder: Path, draw: random.Random) -> None:
    value = torch.full((2, 16), draw.choice([float("nan"), float("inf")]))
    _adapter(folder, {"peft_type": "PROMPT_TUNING", "num_virtual_tokens": 2}, {"prompt_embeddings": value})


# manifest.json and tohum.json


@hostile
def a_manifest_that_leads_out(folder: Path, draw: random.Random) -> None:
    name = draw.choice(["../elsewhere", "/etc/passwd", "/dev/zero", "a/../../elsewhere", "gone.json", ".."])
    folder.with_name("elsewhere").write_text("mine")
    _write(folder, "manifest.json", {name: "0" * 64})


@hostile
def a_manifest_that_is_none(folder: Path, draw: random.Random) -> None:
    bad: list[Any] = [[], "x", 5, None, {"config.json": 5}, {"config.json": None}, {"config.json": "0" * 64}, {}]
    _write(folder, "manifest.json", draw.choice(bad))


# The tokenizer


def _tokenizer(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    raw = _json(folder, "tokenizer.json")
    change(raw)
    _write(folder, "tokenizer.json", raw)


@hostile
def a_tokenizer_with_a_piece_less(folder: Path, draw: random.Random) -> None:
    place = draw.choice(["model", "vocab", "merges", "added_tokens"])
    _tokenizer(folder, lambda raw: raw["model"].pop(place, None) if place in ("vocab", "merges") else raw.pop(place))


@hostile
def a_tokenizer_of_other_kinds(folder: Path, draw: random.Random) -> None:
    place = draw.choice(["model", "vocab", "merges", "pre_tokenizer", "added_tokens", "type"])
    bad = draw.choice([5, "x", [5], {"type": "x"}, [[1, 2]], True, ["a b c"], {"a": "b"}, [None]])
    inside = place in ("vocab", "merges", "type")
    _tokenizer(folder, lambda raw: (raw["model"] if inside else raw).update({place: bad}))


@hostile
def ids_that_are_none(folder: Path, draw: random.Random) -> None:
    bad = draw.choice([-1, 10**12, 2**64, 1.5, "5", None, [1], True, 0])

    def spoil(raw: dict[str, Any]) -> None:
        if draw.random() < 0.5:
            raw["model"]["vocab"][draw.choice(sorted(raw["model"]["vocab"]))] = bad if bad != 0 else -7
        else:
            draw.choice(raw["added_tokens"])["id"] = bad

    _tokenizer(folder, spoil)


@hostile
def added_tokens_that_are_none(folder: Path, draw: random.Random) -> None:
    bad = draw.choice(
        [5, {}, {"id": 5}, {"content": "x"}, {"id": 999, "content": 5}, {"id": 999, "content": ""}, None, []]
    )
    _tokenizer(folder, lambda raw: raw["added_tokens"].append(bad))


@hostile
def text_steps_that_are_none(folder: Path, draw: random.Random) -> None:
    bad: list[dict[str, Any]] = [
        {"normalizer": {"type": "Lower"}}, {"normalizer": "NFC"}, {"normalizer": [1]},
        {"normalizer": {"type": "Replace"}},
        {"normalizer": {"type": "Sequence", "normalizers": [{"type": "NFC"}, {"type": "Strip", "strip_left": 7}]}},
        {"normalizer": {"type": "Prepend", "prepend": 5}}, {"pre_tokenizer": {"type": "Blanks"}},
        {"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": "yes", "use_regex": True}},
        {"post_processor": {"type": "TemplateProcessing", "single": []}}, {"decoder": {"type": "Unsaid"}},
    ]  # fmt: skip
    _tokenizer(folder, lambda raw: raw.update(draw.choice(bad)))


@hostile
def ids_by_chance(folder: Path, draw: random.Random) -> None:
    _tokenizer(folder, lambda raw: raw["model"].update(dropout=draw.choice([0.1, 1.0, "a lot"])))


@hostile
def merges_of_nothing(folder: Path, draw: random.Random) -> None:
    bad = draw.choice(["zzzz qqqq", "a", "", 5, ["a"], ["a", "b", "c"], "a b c", None, ["zzzz", "a"]])
    _tokenizer(folder, lambda raw: raw["model"]["merges"].append(bad))


@hostile
def no_end_of_text(folder: Path, draw: random.Random) -> None:
    bad = draw.choice([None, 5, ["x"], {"content": 5}, {"content": ["x"]}, "<|nowhere|>", {}])
    _tokenizer(folder, lambda raw: raw.update(added_tokens=[one for one in raw["added_tokens"] if one["id"] > 10**6]))
    _write(folder, "tokenizer_config.json", {"eos_token": bad})


@hostile
def a_tokenizer_too_large(folder: Path, draw: random.Random) -> None:
    name = draw.choice(["tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "config.json"])
    with (folder / name).open("ab") as stream:
        stream.truncate(draw.choice([2**27, 2**33, 2**40]))


def variant(name: str, folder: Path, seed: int) -> Path:
    """A new folder with the change of that name, drawn by the seed."""
    draw = random.Random(f"{name} {seed}")
    made = make(folder, draw)
    CATALOGUE[name](made, draw)
    return made


def good(folder: Path, seed: int) -> Path:
    """The folder without a change: it must be taken, or every refusal means nothing."""
    return make(folder, random.Random(seed))
