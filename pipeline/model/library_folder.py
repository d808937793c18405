"""Folders of models that transformers computes: recognised by their config, checked, read and written.

Only safetensors are read, and no code of a folder is run; what checkpoint.py checks of our families' folders (links,
sizes, headers, finite numbers) is checked here too. The library itself maps names and shapes: tensors that are missing
are refused.
"""

import contextlib
import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from pipeline import foreign
from pipeline.errors import UserError
from pipeline.foreign import AGAIN, shown
from pipeline.model import weights
from pipeline.model.hf_format import FAMILIES
from pipeline.model.library import CLASSIFIER, LibraryModel, require_equal_logits
from pipeline.model.library_sizes import Architecture

_COUNTS = (
    "num_hidden_layers", "n_layer", "n_layers", "num_layers", "encoder_layers", "decoder_layers", "num_decoder_layers",
    "num_local_experts", "num_experts",
)  # fmt: skip
"""Keys of config.json that count parts of the network."""
INSTALL = "run `make setup-open`"


def is_library(folder: Path) -> bool:
    """Whether a folder's config.json names an architecture that is none of our families. Raises UserError: damaged."""
    kind = foreign.read_object(folder / "config.json").get("model_type")
    return isinstance(kind, str) and kind not in FAMILIES


def inspect(folder: Path) -> None:
    """Checks a folder before a number is read.

    Raises:
        UserError: links out of the folder, pickled or quantised weights, code of its own, an architecture that
            transformers does not have, transformers not installed, more weights than memory.
    """
    path = folder / "config.json"
    raw = foreign.read_object(foreign.members(folder).get("config.json", path))
    if raw.get("auto_map") or raw.get("trust_remote_code"):
        raise UserError(
            f"{path}: auto_map or trust_remote_code names code of its own, {shown(raw.get('auto_map'))}, and no code "
            "of a model folder is run; start from a model that transformers computes without"
        )
    if raw.get("quantization_config"):
        raise UserError(f"{path}: the weights are quantized; start from the plain (bfloat16 or float32) weights")
    if (folder / "adapter_config.json").exists():
        raise UserError(
            f"{folder}: has adapter_config.json beside its weights, which transformers would add to them where peft is "
            "installed; merge the adapter into the weights first, or remove the file"
        )
    architecture(raw, path)
    headers = weights.folder_headers(folder)
    for key in _COUNTS:  # the library would build as many before it looks at the weights
        value = raw.get(key)
        if isinstance(value, int) and not 0 <= value <= 10 * len(headers):
            raise UserError(f"{path}: {key} is {shown(value)}, and the weights have {len(headers)} tensors; {AGAIN}")
    weights.require_floats({name: header for name, header in headers.items() if header.dtype != "I64"}, folder)


def architecture(raw: Mapping[str, Any], path: Path) -> Architecture:
    """What the model of a config.json reads and gives; `path` names the file in errors.

    Raises:
        UserError: transformers is not installed, or does not have this architecture.
    """
    names, kind = _mappings(path, raw), raw.get("model_type")
    if kind not in names["configs"]:
        raise UserError(
            f"{path}: model_type is {shown(kind)}: neither one of our families ({', '.join(sorted(FAMILIES))}) nor one "
            "of transformers; install a newer transformers, or start from another model"
        )
    classes = raw.get("architectures") or [""]
    first = str(classes[0]) if isinstance(classes, list) and classes else ""
    if raw.get("is_encoder_decoder") or (kind in names["seq2seq"] and kind not in names["causal"]):
        return "encoder_decoder"
    if kind in names["masked"] and not first.endswith(("ForCausalLM", "LMHeadModel")):
        return "encoder"
    if kind in names["causal"]:
        return "decoder"
    raise UserError(
        f"{path}: model_type {shown(kind)} is neither a decoder, an encoder nor an encoder-decoder of text in "
        "transformers; start from a language model or a text encoder"
    )


def load(folder: Path, device: str = "cpu") -> LibraryModel:
    """Reads a folder: float32, evaluation mode.

    Raises:
        UserError: as `inspect`; tensors that are missing or of another shape, NaN or infinity.
    """
    inspect(folder)
    raw = foreign.read_object(folder / "config.json")
    kind = architecture(raw, folder / "config.json")
    net = _read(folder, raw, kind)
    if kind == "encoder_decoder" and not isinstance(net.config.decoder_start_token_id, int):
        raise UserError(
            f"{folder / 'config.json'}: decoder_start_token_id is {shown(net.config.decoder_start_token_id)}, expected "
            f"the id that its decoder starts with; {AGAIN}"
        )
    model = LibraryModel(net, kind)
    for name, value in net.named_parameters():
        weights.require_finite(value.detach(), name, folder)
    model.eval()
    require_equal_logits(model)
    model.requires_grad_(True)
    model.to(device)
    return model


def random(folder: Path, n_layers: int | None) -> LibraryModel:
    """A random model of a folder's shape with so many blocks, to be timed (None: all, without storage)."""
    import transformers

    path = folder / "config.json"
    kind = architecture(foreign.read_object(path), path)
    settings = transformers.AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    auto: Any = {
        "decoder": transformers.AutoModelForCausalLM,
        "encoder": transformers.AutoModel,
        "encoder_decoder": transformers.AutoModelForSeq2SeqLM,
    }[kind]
    if n_layers is None:
        with torch.device("meta"):
            return LibraryModel(auto.from_config(settings), kind)
    for name in ("num_hidden_layers", "decoder_layers", "num_decoder_layers", "layer_types"):
        if (value := getattr(settings, name, None)) is not None:
            setattr(settings, name, value[:n_layers] if isinstance(value, list) else n_layers)
    return LibraryModel(auto.from_config(settings), kind)


def write(
    model: LibraryModel,
    folder: Path,
    labels: list[str] | None,
    special: Mapping[str, int],
    all_weights: bool = True,
) -> None:
    """Writes config.json, generation_config.json and the weights, as transformers does.

    Args:
        model: plain; an adapter may be inside where no weights are written.
        folder: is there.
        labels: class names of a classifier.
        special: ids of eos_token and pad_token in the folder's tokenizer files.
        all_weights: false: none, as for a folder that holds an adapter only.
    """
    config = model.net.config
    if labels is not None:
        config.id2label, config.label2id = dict(enumerate(labels)), {label: i for i, label in enumerate(labels)}
        config.problem_type = "single_label_classification"
    if "pad_token" in special:
        config.pad_token_id = special["pad_token"]
    if model.architecture != "encoder" and "eos_token" in special:
        config.eos_token_id = special["eos_token"]
        if getattr(model.net, "generation_config", None) is not None:
            model.net.generation_config.eos_token_id = special["eos_token"]
            model.net.generation_config.pad_token_id = config.pad_token_id
    config._name_or_path = ""  # a path of this machine otherwise
    tensors: dict[str, Any] | None = None if all_weights else {}
    with quiet():
        model.net.save_pretrained(folder, state_dict=tensors, safe_serialization=True, max_shard_size="1000GB")
    if not all_weights:
        (folder / weights.WEIGHTS).unlink(missing_ok=True)


def _read(folder: Path, raw: Mapping[str, Any], kind: Architecture) -> Any:
    """The network of a folder: of the class that its config names, as far as that is a language model or classifier."""
    import transformers

    first = str((raw.get("architectures") or [""])[0])
    if first.endswith(CLASSIFIER):
        auto: Any = transformers.AutoModelForSequenceClassification
    else:
        auto = {
            "decoder": transformers.AutoModelForCausalLM,
            "encoder": transformers.AutoModel,
            "encoder_decoder": transformers.AutoModelForSeq2SeqLM,
        }[kind]
    settings: dict[str, Any] = {
        "local_files_only": True, "use_safetensors": True, "trust_remote_code": False, "dtype": torch.float32,
        "output_loading_info": True,
    }  # fmt: skip
    try:
        with quiet():
            net, info = auto.from_pretrained(folder, **settings)
            if info["missing_keys"] and all("pooler" in name for name in info["missing_keys"]):
                # a masked language model's folder: a pooler would be random; a classifier adds and trains its own
                net, info = auto.from_pretrained(folder, add_pooling_layer=False, **settings)
    except Exception as error:  # whatever a damaged config makes the library raise
        raise UserError(f"{folder}: transformers cannot read it: {str(error)[:300]}; {AGAIN}") from None
    problems = [
        f"{problem}: {', '.join(sorted(map(str, info[key]))[:5])} ({len(info[key])})"
        for problem, key in (("missing", "missing_keys"), ("other shape", "mismatched_keys"))
        if info.get(key)
    ]
    if problems:
        raise UserError(
            f"{folder}: tensors do not fit config.json; {'; '.join(problems)}; take config.json and weights from the "
            "same model"
        )
    return net


def _mappings(path: Path, raw: Mapping[str, Any]) -> dict[str, Any]:
    """The names of transformers' architectures by what they are."""
    try:
        from transformers.models.auto import modeling_auto
        from transformers.models.auto.configuration_auto import CONFIG_MAPPING
    except ImportError:
        raise UserError(
            f"{path}: model_type {shown(raw.get('model_type'))} is none of our families "
            f"({', '.join(sorted(FAMILIES))}) and is computed by transformers, which is not installed; {INSTALL}"
        ) from None
    return {
        "configs": CONFIG_MAPPING,
        "causal": modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        "masked": modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES,
        "seq2seq": modeling_auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
    }


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Inside, transformers shows no progress bars and no advice: what matters is checked and said here."""
    from transformers.utils import logging

    library: Any = logging
    level, bars = library.get_verbosity(), library.is_progress_bar_enabled()
    library.set_verbosity(library.CRITICAL)
    library.disable_progress_bar()
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        library.set_verbosity(level)
        if bars:
            library.enable_progress_bar()
