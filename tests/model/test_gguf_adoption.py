"""gguf_adoption.py: a GGUF file becomes a folder with the file's own weights, ids and chat template.

Files are written by gguf_format.py or by the gguf library itself; transformers' reader of GGUF is the reference.
"""

import json
import struct
from contextlib import suppress
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch

from pipeline import tokenizer as vocabularies
from pipeline.data.conversations import Earlier, Turn
from pipeline.errors import UserError
from pipeline.inference.predictor import Predictor
from pipeline.model import checkpoint, gguf_format, gguf_header, open_weights
from pipeline.model.gguf_adoption import adopt
from pipeline.model.gpt import GPT
from pipeline.prompts import templates
from pipeline.prompts.request import Request
from pipeline.prompts.spec import TEXT, TaskSpec
from pipeline.tokenizer import Tokenizer, gguf_vocabulary
from tests.commands import tohum
from tests.models import shape
from tests.open_models import open_models, smollm2_gguf
from tests.prompts import chat_templates
from tests.specs import written

TEXTS = ["Ayşe'nin ışığı 12345  x\n\n!", "a\n b", "çiğ köfte 👍", "I'LL x=1\t y"]
CHAT = TaskSpec(name="instruct", template="chat", max_tokens=64, max_prompt_tokens=48)


@pytest.fixture(scope="module", params=["gpt2", "cl100k_base", "o200k_base"])
def every_words(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small vocabulary with one of the named patterns."""
    return trained(tmp_path_factory.mktemp("words") / "tokenizer", request.param)


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small vocabulary with GPT-2's pattern."""
    return trained(tmp_path_factory.mktemp("words") / "tokenizer", "gpt2")


def trained(folder: Path, pattern: str) -> Path:
    """A small vocabulary, saved."""
    texts = ["Ayşe İzmir'de yaşıyor. Merhaba dünya, 2024 free prize! " * 20]
    vocabularies.train(texts, 320, pattern).save(folder)
    return folder


def exported(folder: Path, words: Path, family: str, task: TaskSpec = TEXT, **changes: Any) -> Path:
    """The GGUF file of a random model in `folder` / model."""
    vocab = Tokenizer.load(words).vocab_size
    model = GPT(shape(family, vocab_size=vocab, context_length=64, **changes), torch.Generator().manual_seed(3))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(len(name)))
    checkpoint.save(model, folder / "model", tokenizer=words, metadata=written([task]))
    gguf_format.write(folder / "model", folder / "model.gguf")
    return folder / "model.gguf"


@pytest.mark.parametrize("family", ["gpt2", "llama", "qwen2", "qwen3", "arcee"])
@pytest.mark.parametrize("tied", [True, False])
def test_adopt_gives_back_the_weights_and_ids_that_were_written(
    family: str, tied: bool, tmp_path: Path, every_words: Path
) -> None:
    """Lost otherwise: rows of queries and keys in another order compute another model, without any error."""
    path = exported(tmp_path, every_words, family, tie_embeddings=tied)
    adoption = adopt(path, tmp_path / "adopted")
    before, after = checkpoint.load(tmp_path / "model"), checkpoint.load(tmp_path / "adopted")
    assert adoption.precision == "float32"
    assert before.config == after.config.model_copy(update={"dropout": before.config.dropout})
    for name, value in before.state_dict().items():
        assert torch.equal(value, after.state_dict()[name]), name
    ours, theirs = Tokenizer.load(tmp_path / "model"), Tokenizer.load(tmp_path / "adopted")
    for text in TEXTS:
        assert ours.encode(text) == theirs.encode(text)


@pytest.mark.parametrize("style", ["qwen", "llama3", "smollm2"])
def test_adopt_gives_back_a_released_vocabulary(style: str, tmp_path: Path) -> None:
    """Ids, special tokens and chat of a model that was adopted, tuned and exported as GGUF."""
    vocabularies.adopt(chat_templates.folder(chat_templates.STYLES[style], tmp_path / "theirs")).save(
        tmp_path / "words"
    )
    path = exported(tmp_path, tmp_path / "words", "llama", CHAT.model_copy(update={"template": "model"}))
    adopt(path, tmp_path / "adopted")
    ours, theirs = Tokenizer.load(tmp_path / "model"), Tokenizer.load(tmp_path / "adopted")
    assert ours.special == theirs.special
    request = Request("Where is Ayşe?\n\nışık 12345 👍", "", Earlier("", (Turn("a", "b"),)))
    for text in TEXTS:
        assert ours.encode(text) == theirs.encode(text)
    assert templates.prompt(ours, "model", request, 99).ids == templates.prompt(theirs, "model", request, 99).ids
    assert templates.end_of_answer(ours, "model") == templates.end_of_answer(theirs, "model")


def test_adopt_rebuilds_a_sentencepiece_vocabulary_from_its_scores(tmp_path: Path) -> None:
    """Llama 2's kind: the file has scores and no merges; pieces, bytes and blanks must come out as before."""
    style = chat_templates.STYLES["mistral_every_blank"]
    theirs = vocabularies.adopt(chat_templates.folder(style, tmp_path / "theirs"))
    raw = json.loads((tmp_path / "theirs/tokenizer.json").read_text())
    merged = ["".join(pair) if isinstance(pair, list) else pair.replace(" ", "") for pair in raw["model"]["merges"]]
    names = {number: token for token, number in raw["model"]["vocab"].items()}
    names |= {token["id"]: token["content"] for token in raw["added_tokens"]}
    tokens = [names[number] for number in range(len(names))]
    special = {token["content"]: gguf.TokenType.CONTROL for token in raw["added_tokens"]} | {"<unk>": 2}
    metadata = {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.scores": [-float(merged.index(token)) if token in merged else -1e6 for token in tokens],
        "tokenizer.ggml.token_type": [int(special.get(token, 6 if token.startswith("<0x") else 1)) for token in tokens],
        "tokenizer.ggml.bos_token_id": tokens.index("<s>"),
        "tokenizer.ggml.eos_token_id": tokens.index("</s>"),
    }
    (tmp_path / "made").mkdir()
    for name, content in gguf_vocabulary.tokenizer_files(metadata, "x.gguf").items():
        (tmp_path / "made" / name).write_bytes(content)
    ours = vocabularies.adopt(tmp_path / "made")
    for text in [*TEXTS, "Where is Ayşe? yaşıyor", "é日 ", "  two  blanks"]:
        assert ours.encode(text) == theirs.encode(text)
        assert ours.decode(ours.encode(text)) == theirs.decode(theirs.encode(text))
    assert ours.text_prefix == (tokens.index("<s>"),)


def test_adopt_gives_the_logits_of_transformers_own_reader(tmp_path: Path, words: Path) -> None:
    """Both read the same quantised file: Q8_0 matrices of a Llama with grouped queries."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    path = quantised(exported(tmp_path, words, "llama", d_model=64, d_ff=96, head_dim=16, n_heads=4, n_kv_heads=2))
    adopt(path, tmp_path / "adopted")
    reference = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file=path.name, dtype=torch.float32)
    read = AutoModelForCausalLM.from_pretrained(tmp_path / "adopted", dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "adopted")
    ids = torch.tensor([tokenizer(TEXTS[0], add_special_tokens=False)["input_ids"]])
    expected = reference(ids).logits
    torch.testing.assert_close(read(ids).logits, expected, atol=4e-5, rtol=1e-4)
    model = checkpoint.load(tmp_path / "adopted")
    torch.testing.assert_close(model.logits(model.hidden(ids)), expected, atol=4e-5, rtol=1e-4)


def quantised(path: Path, **more: Any) -> Path:
    """The file with its matrices quantised where their rows have whole blocks, and with other metadata."""
    reader, target = gguf.GGUFReader(path), path.with_name("quantised.gguf")
    writer, keys = gguf.GGUFWriter(target, "llama"), [name.replace("__", ".") for name in more]
    for name, field in reader.fields.items():
        if not name.startswith("GGUF.") and name not in ("general.architecture", *keys):
            inner = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
            writer.add_key_value(name, field.contents(), field.types[0], inner)
    for key, value in zip(keys, more.values(), strict=True):
        kind = gguf.GGUFValueType.get_type(value)
        writer.add_key_value(key, value, kind, gguf.GGUFValueType.INT32 if isinstance(value, list) else None)
    kinds = gguf.GGMLQuantizationType
    for number, entry in enumerate(reader.tensors):
        values = np.array(entry.data)
        kind = [kinds.Q8_0, kinds.Q4_1, kinds.Q5_0, kinds.BF16, kinds.F16][number % 5]
        if values.ndim < 2 or values.shape[-1] % 32:
            writer.add_tensor(entry.name, values)
        elif kind == kinds.F16:
            writer.add_tensor(entry.name, values.astype(np.float16))
        else:
            writer.add_tensor(entry.name, gguf.quants.quantize(values, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return target


def test_adopt_takes_a_llama_with_a_sliding_window_for_mistral(tmp_path: Path, words: Path) -> None:
    """Lost otherwise: attention would reach back further than the model was trained to."""
    path = quantised(exported(tmp_path, words, "llama"), llama__attention__sliding_window=32)
    adopt(path, tmp_path / "adopted")
    config = json.loads((tmp_path / "adopted/config.json").read_text())
    assert (config["model_type"], config["sliding_window"]) == ("mistral", 32)
    assert config["architectures"] == ["MistralForCausalLM"]
    assert checkpoint.load(tmp_path / "adopted").config.family == "mistral"


@pytest.mark.parametrize(
    ("key", "value", "sentence"),
    [
        ("llama__expert_count", 8, "it is a mixture of experts"),
        ("llama__rope__scaling__type", "yarn", r"its rotary positions are scaled \('yarn'\)"),
        ("llama__attention__causal", False, "its attention is not causal"),
        ("llama__attention__head_count", [2, 2], "its layers have different numbers of heads"),
        ("llama__rope__dimension_count", 4, "rope.dimension_count is 4 and a head has 8 dimensions"),
        ("llama__attention__scale", 0.5, "a setting that is not read here"),
        ("split__count", 3, "is one of 3 parts of a model"),
        ("tokenizer__ggml__model", "t5", "tokenizer.ggml.model is 't5'"),
        ("tokenizer__ggml__bos_token_id", 99999, "bos_token_id is 99999, expected a whole number from 0 to"),
        ("tokenizer__ggml__token_type", [1, 1], "expected one int for each of the"),
        ("general__alignment", 3, "general.alignment is 3"),
    ],
)
def test_adopt_refuses_settings_that_a_folder_cannot_express(
    key: str, value: Any, sentence: str, tmp_path: Path, words: Path
) -> None:
    path = quantised(exported(tmp_path, words, "llama"), **{key: value})
    with pytest.raises(UserError, match=sentence):
        adopt(path, tmp_path / "adopted")


def test_adopt_says_licence_origin_and_quantisation_in_the_readme(tmp_path: Path, words: Path) -> None:
    path = quantised(exported(tmp_path, words, "llama", d_model=64, d_ff=96))
    adoption = adopt(path, tmp_path / "adopted")
    text = (tmp_path / "adopted/README.md").read_text()
    assert "not stated in the file" in text
    assert "Q8_0" in text
    assert "they differ from the ones that the model was released with" in text
    assert set(adoption.kinds) == {"F32", "Q8_0", "Q4_1", "Q5_0", "BF16", "F16"}


def test_adopt_keeps_the_chat_template_and_the_ends_of_answers(tmp_path: Path, words: Path) -> None:
    path = exported(tmp_path, words, "llama", CHAT)
    adopt(path, tmp_path / "adopted")
    template = Tokenizer.load(tmp_path / "adopted").chat_template
    assert template is not None
    assert "<|assistant|>" in template.source
    generation = json.loads((tmp_path / "adopted/generation_config.json").read_text())
    assert generation["eos_token_id"] == Tokenizer.load(words).end_of_text


def test_adopt_rounds_to_bfloat16_only_when_asked_or_exact(tmp_path: Path, words: Path) -> None:
    path = exported(tmp_path, words, "llama")
    assert adopt(path, tmp_path / "half", precision="bfloat16").precision == "bfloat16"
    whole, half = (checkpoint.load(tmp_path / name).embed.weight for name in ("model", "half"))
    assert torch.equal(half, whole.bfloat16().float())
    model = checkpoint.load(tmp_path / "half")
    checkpoint.save(model, tmp_path / "model", tokenizer=words, metadata=written([TEXT]))
    gguf_format.write(tmp_path / "model", tmp_path / "exact.gguf")
    assert adopt(tmp_path / "exact.gguf", tmp_path / "exact").precision == "bfloat16"
    assert torch.equal(checkpoint.load(tmp_path / "exact").embed.weight, half)


def test_adopt_finds_the_factor_of_scaled_rotary_frequencies(tmp_path: Path, words: Path) -> None:
    """Lost otherwise: a Llama 3.1 model would be computed with the frequencies of Llama 2."""
    scaling = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    published = {"original_max_position_embeddings": 8192}
    path = exported(tmp_path, words, "llama", rope_scaling=scaling | published, rope_theta=5e5, head_dim=64)
    adopt(path, tmp_path / "adopted")
    assert checkpoint.load(tmp_path / "adopted").config == checkpoint.load(tmp_path / "model").config
    other = exported(
        tmp_path / "other", words, "llama", rope_scaling=scaling | {"original_max_position_embeddings": 64}
    )
    with pytest.raises(UserError, match=r"rope_freqs\.weight holds other divisors"):
        adopt(other, tmp_path / "refused")


def test_adopt_refuses_a_folder_that_exists(tmp_path: Path, words: Path) -> None:
    path = exported(tmp_path, words, "llama")
    with pytest.raises(UserError, match="exists already"):
        adopt(path, tmp_path / "model")


def _set(data: bytes, key: str, replacement: bytes) -> bytes:
    """The file with the value after a metadata key replaced, type and all, by as many bytes."""
    at = data.index(key.encode()) + len(key)
    return data[:at] + replacement + data[at + len(replacement) :]


DAMAGE: dict[str, tuple[Any, str]] = {
    "empty": (lambda data: b"", "has 0 bytes, expected a GGUF file"),
    "other_format": (lambda data: b"PK\3\4" + data[4:], "it is no GGUF file"),
    "future_version": (lambda data: data[:4] + struct.pack("<I", 99) + data[8:], "GGUF version is 99"),
    "big_endian": (lambda data: data[:4] + struct.pack(">I", 3) + data[8:], r"GGUF version is 50,331,648"),
    "cut_header": (lambda data: data[:300], "it is not whole"),
    "cut_weights": (lambda data: data[:-200], "the file is not whole"),
    "tensors": (lambda data: data[:8] + struct.pack("<Q", 1 << 62) + data[16:], "it has tensors: 4,611,686,0"),
    "entries": (lambda data: data[:16] + struct.pack("<Q", 1 << 62) + data[24:], "it has metadata entries: 4,6"),
    "list_length": (
        lambda data: _set(data, "tokenizer.ggml.tokens", struct.pack("<IIQ", 9, 8, 1 << 40)),
        "a list of a length of 1,099,511,627,776",
    ),
    "nested_list": (lambda data: _set(data, "tokenizer.ggml.tokens", struct.pack("<II", 9, 9)), "values of type 9"),
    "value_type": (lambda data: _set(data, "llama.block_count", struct.pack("<I", 77)), "a value has type 77"),
    "architecture": (
        lambda data: data.replace(b"\5\0\0\0\0\0\0\0llama", b"\5\0\0\0\0\0\0\0lambo"),
        "is 'lambo'; one of",
    ),
    "layers": (
        lambda data: _set(data, "llama.block_count", struct.pack("<II", 4, 1 << 30)),
        "expected a whole number from 1 to 1,024",
    ),
    "unknown_setting": (
        lambda data: data.replace(b"llama.vocab_size", b"llama.logit_size"),
        "a setting that is not read here",
    ),
    "unknown_tensor": (lambda data: data.replace(b"blk.1.attn_k.weight", b"blk.1.attn_x.weight"), "has no place in a"),
    "missing_layer": (lambda data: data.replace(b"blk.1.", b"blk.7."), "tensors do not fit config.json"),
    "not_a_number": (lambda data: data[:-4] + struct.pack("<f", float("nan")), "holds NaN or infinity"),
    "tensor_type": (
        lambda data: _set(data, "output_norm.weight", struct.pack("<IQI", 1, 16, 15)),
        "is of type Q8_K, which the gguf library cannot dequantise",
    ),
    "pre_tokenizer": (lambda data: data.replace(b"gpt-2", b"gpt-7"), "tokenizer.ggml.pre is 'gpt-7'"),
    "merges": (lambda data: data.replace(b"tokenizer.ggml.merges", b"tokenizer.ggml.mergez"), "merges is None"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_adopt_refuses_a_damaged_or_hostile_file_in_a_sentence(name: str, tmp_path: Path) -> None:
    vocabularies.train(["Ayşe İzmir'de yaşıyor. " * 20], 280, "gpt2").save(tmp_path / "words")
    path, (damage, sentence) = exported(tmp_path, tmp_path / "words", "llama"), DAMAGE[name]
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(UserError, match=sentence) as caught:
        adopt(path, tmp_path / "adopted")
    assert str(path) in str(caught.value) or "adopted" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "adopted").exists()


def test_read_ends_on_a_file_with_any_byte_changed(tmp_path: Path) -> None:
    """A header is read or refused in a sentence, whatever a byte of it becomes."""
    vocabularies.train(["Ayşe İzmir'de yaşıyor. " * 20], 265, "gpt2").save(tmp_path / "words")
    path = exported(tmp_path, tmp_path / "words", "llama")
    data = bytearray(path.read_bytes())
    draw = np.random.default_rng(1)
    for place in draw.integers(0, min(len(data), 6000), 300):
        old, data[place] = data[place], draw.integers(0, 256)
        path.write_bytes(data)
        with suppress(UserError):
            assert gguf_header.read(path).path == path
        data[place] = old


def test_adopt_command_prints_the_lines_of_params(
    tmp_path: Path, words: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import yaml

    monkeypatch.chdir(tmp_path)
    exported(tmp_path, words, "llama")
    assert tohum("adopt", "model.gguf") == 0
    text = capsys.readouterr().out
    lines = yaml.safe_load(text[text.index("tokenize:") :])
    start = lines["pretrain"]["start"]
    assert start["path"] == lines["tokenize"]["path"] == "inputs/model"
    assert start["sha256"] == open_weights.pin(Path("inputs/model"))
    vocabularies.adopt(Path("inputs/model"), lines["tokenize"]["sha256"])
    assert tohum("adopt", "inputs/model") == 0
    assert capsys.readouterr().out.endswith(text[text.index("tokenize:") :])
    with pytest.raises(UserError, match="no such file or folder"):
        tohum("adopt", "nowhere.gguf")
    with pytest.raises(UserError, match="leave out FOLDER"):
        tohum("adopt", "inputs/model", "other")


@open_models
def test_adopt_reads_smollm2_as_transformers_does(tmp_path: Path) -> None:
    """The released Q4_1 file: logits of transformers' own dequantised computation, and ours, on a chat."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    path = smollm2_gguf()
    adoption = adopt(path, tmp_path / "smollm2")
    assert (adoption.licence, adoption.kinds) == ("apache-2.0", {"Q4_1": 210, "F32": 61, "Q8_0": 1})
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "smollm2")
    chat = [{"role": "user", "content": "Where is Ankara?"}]
    ids = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    ids = ids["input_ids"]
    with torch.no_grad():
        expected = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32)(ids)
        read = AutoModelForCausalLM.from_pretrained(tmp_path / "smollm2", dtype=torch.float32)(ids)
        model = checkpoint.load(tmp_path / "smollm2")
        ours = model.logits(model.hidden(ids))
    torch.testing.assert_close(read.logits, expected.logits, atol=4e-5, rtol=1e-4)
    torch.testing.assert_close(ours, expected.logits, atol=1e-4, rtol=1e-4)


@open_models
def test_a_start_from_smollm2_answers_as_transformers_does_with_the_exported_folder(tmp_path: Path) -> None:
    """Template `model`: prompt, answer and end of the released chat model, from adoption to the exported folder."""
    from transformers import pipeline

    adopt(smollm2_gguf(), tmp_path / "smollm2")
    vocabularies.adopt(tmp_path / "smollm2").save(tmp_path / "words")
    task = TaskSpec(name="instruct", template="model", max_tokens=256, max_prompt_tokens=200)
    model = checkpoint.load(tmp_path / "smollm2")
    checkpoint.save(model, tmp_path / "model", tokenizer=tmp_path / "words", metadata=written([task]))
    theirs = pipeline("text-generation", model=str(tmp_path / "model"))
    chat = [{"role": "user", "content": "Name three colours."}]
    expected = theirs(chat, max_new_tokens=8, do_sample=False)[0]["generated_text"][-1]["content"]
    assert Predictor(tmp_path / "model").answer([chat[0]["content"]], {"max_tokens": 8}) == [{"completion": expected}]
