"""gguf_format.py: a GGUF file gives the answers and the ids of its model in another reader.

transformers' own reader for the families that it knows; Arcee's weights are compared one by one (llama.cpp itself:
python -m tests.bench.llama_cpp).
"""

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch

from pipeline import files
from pipeline import tokenizer as vocabularies
from pipeline.errors import UserError
from pipeline.inference.predictor import Predictor
from pipeline.model import checkpoint, gguf_format
from pipeline.model.gpt import GPT
from pipeline.model.hf_format import exported_tensors
from pipeline.prompts.spec import TEXT, TaskSpec
from pipeline.tokenizer import Tokenizer
from tests.commands import tohum
from tests.models import network, shape
from tests.specs import written

TEXTS = ["Ayşe'nin ışığı 12345  x\n\n!", "", "a\n b", "çiğ köfte 👍"]
CHAT = TaskSpec(name="instruct", template="chat", max_tokens=64, max_prompt_tokens=48)


@pytest.fixture(scope="module", params=["gpt2", "cl100k_base", "o200k_base"])
def words(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small vocabulary with one of the named patterns."""
    folder = tmp_path_factory.mktemp("words") / "tokenizer"
    vocabularies.train(["Ayşe İzmir'de yaşıyor. Merhaba dünya, 2024 free prize! " * 20], 320, request.param).save(
        folder
    )
    return folder


def saved(folder: Path, words: Path, family: str, task: TaskSpec = TEXT, **changes: Any) -> Path:
    """A random model that generates no special token but end-of-text."""
    tokenizer = Tokenizer.load(words)
    size = {"vocab_size": tokenizer.vocab_size, "context_length": 96} | changes
    # transformers' GGUF reader knows no others
    size |= {"qwen3": {"head_dim": 128}, "gpt2": {"d_ff": 64, "context_length": 1024}}.get(family, {})
    size |= {"sliding_window": 64} if family == "mistral" else {}
    model = GPT(shape(family, **size), torch.Generator().manual_seed(3))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(len(name)))
        for number in tokenizer.special.values():
            model.head.weight[number] = 0
    checkpoint.save(model, folder, tokenizer=words, metadata=written([task]))
    return folder


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("family", ["gpt2", "llama", "mistral", "qwen2", "qwen3"])
def test_write_gives_a_file_with_equal_completions_of_texts(
    family: str, tied: bool, tmp_path: Path, words: Path
) -> None:
    """Lost otherwise: llama.cpp would compute another model, or another text's tokens."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = saved(tmp_path / "model", words, family, tie_embeddings=tied)
    gguf_format.write(folder, tmp_path / "model.gguf")
    model = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="model.gguf", dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path, gguf_file="model.gguf")
    ours = Predictor(folder).answer(TEXTS, {"max_tokens": 8})
    for text, answer in zip(TEXTS, ours, strict=True):
        ids = torch.tensor([[model.config.bos_token_id, *tokenizer(text, add_special_tokens=False)["input_ids"]]])
        mask = torch.ones_like(ids)
        made = model.generate(ids, attention_mask=mask, max_new_tokens=8, do_sample=False)[0, ids.shape[1] :]
        assert tokenizer.decode(made, skip_special_tokens=True) == answer["completion"]


def test_write_stores_the_weights_of_arcee_as_of_llama(tmp_path: Path, words: Path) -> None:
    """transformers reads no Arcee from GGUF; the order of query and key rows is Llama's."""
    folder = saved(tmp_path / "model", words, "arcee", tie_embeddings=False)
    gguf_format.write(folder, tmp_path / "model.gguf")
    tensors = {tensor.name: np.array(tensor.data) for tensor in gguf.GGUFReader(tmp_path / "model.gguf").tensors}
    expected = exported_tensors(checkpoint.load(folder))
    assert len(tensors) == len(expected)
    up = expected["model.layers.1.mlp.up_proj.weight"].numpy()
    assert np.array_equal(tensors["blk.1.ffn_up.weight"], up)
    pairs = tensors["blk.0.attn_q.weight"].reshape(2, 4, 2, 16)  # [heads, pairs, 2, D]
    halves = expected["model.layers.0.self_attn.q_proj.weight"].numpy().reshape(2, 2, 4, 16)
    assert np.array_equal(pairs, halves.swapaxes(1, 2))


def test_write_names_a_sliding_window_as_the_context_length(tmp_path: Path, words: Path) -> None:
    """Lost otherwise: llama.cpp, which has no such window, would attend to more positions than the model."""
    gguf_format.write(saved(tmp_path / "model", words, "mistral"), tmp_path / "model.gguf")
    written = fields(tmp_path / "model.gguf")
    assert written["general.architecture"] == "llama"
    assert written["llama.context_length"] == 64


def fields(path: Path) -> dict[str, Any]:
    reader = gguf.GGUFReader(path)
    return {name: reader.fields[name].contents() for name in reader.fields}


def test_write_says_where_begins_and_ends_a_text_and_how_a_chat_looks(tmp_path: Path, words: Path) -> None:
    """Lost otherwise: llama.cpp would put a token before a chat that training did not, or use its own template."""
    tokenizer = Tokenizer.load(words)
    gguf_format.write(saved(tmp_path / "base", words, "llama"), tmp_path / "base.gguf")
    gguf_format.write(saved(tmp_path / "chat", words, "llama", CHAT), tmp_path / "chat.gguf")
    base, chat = fields(tmp_path / "base.gguf"), fields(tmp_path / "chat.gguf")
    assert base["tokenizer.ggml.add_bos_token"]
    assert not chat["tokenizer.ggml.add_bos_token"]
    assert base["tokenizer.ggml.bos_token_id"] == base["tokenizer.ggml.eos_token_id"] == tokenizer.end_of_text
    assert "tokenizer.chat_template" not in base
    assert "generation %}" not in chat["tokenizer.chat_template"]
    assert "<|assistant|>" in chat["tokenizer.chat_template"]
    assert chat["tokenizer.ggml.token_type"].count(3) == len(tokenizer.special)


def test_write_gives_equal_bytes_for_equal_models(tmp_path: Path, words: Path) -> None:
    folder = saved(tmp_path / "model", words, "llama")
    for name in ("a", "b"):
        gguf_format.write(folder, tmp_path / name / "model.gguf")
    assert files.sha256_of(tmp_path / "a/model.gguf") == files.sha256_of(tmp_path / "b/model.gguf")


def test_write_stores_the_divisors_of_scaled_rotary_frequencies(tmp_path: Path, words: Path) -> None:
    """Lost otherwise: a Llama 3.1 model would be computed with the frequencies of Llama 2."""
    scaling = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    scaling |= {"original_max_position_embeddings": 64}
    folder = saved(tmp_path / "model", words, "llama", rope_scaling=scaling)
    gguf_format.write(folder, tmp_path / "model.gguf")
    tensors = {tensor.name: np.array(tensor.data) for tensor in gguf.GGUFReader(tmp_path / "model.gguf").tensors}
    assert tensors["rope_freqs.weight"].tolist() == pytest.approx([1.0, 8.0, 8.0, 8.0], rel=0.5)


def classifier(folder: Path, words: Path) -> None:
    model = network("llama", labels=2, vocab_size=Tokenizer.load(words).vocab_size)
    task = TaskSpec(name="classify", labels=("a", "b"), max_tokens=16, max_prompt_tokens=16)
    checkpoint.save(model, folder, tokenizer=words, labels=["a", "b"], metadata=written([task]))


def cloze(folder: Path, words: Path) -> None:
    words_of = {"a": " iyi", "b": " kötü"}
    task = TaskSpec(
        name="cloze",
        labels=("a", "b"),
        verbalizers=words_of,
        pattern="{text}:{label}",
        max_tokens=16,
        max_prompt_tokens=15,
    )
    saved(folder, words, "llama", task.within(32))


def nanochat(folder: Path, words: Path) -> None:
    saved(folder, words, "nanochat", tie_embeddings=False)


def biased(folder: Path, words: Path) -> None:
    saved(folder, words, "arcee", bias=True)


def characters(folder: Path, words: Path) -> None:
    vocabularies.characters("abc ").save(folder.parent / "letters")
    saved(folder, folder.parent / "letters", "llama")


def composed(folder: Path, words: Path) -> None:
    raw = json.loads((words / "tokenizer.json").read_text())
    (folder.parent / "theirs").mkdir()
    (folder.parent / "theirs/tokenizer.json").write_text(json.dumps(raw | {"normalizer": {"type": "NFC"}}))
    vocabularies.adopt(folder.parent / "theirs").save(folder.parent / "kept")
    saved(folder, folder.parent / "kept", "llama")


def prefixed(folder: Path, words: Path) -> None:
    from pipeline.config import plugins

    tuner = plugins.load("tuners", "prompt").build(
        plugins.load("tuners", "prompt").Settings(virtual_tokens=2, text="a", with_base=True)
    )
    model = network("llama", vocab_size=Tokenizer.load(words).vocab_size)
    tuner.apply(model, torch.Generator().manual_seed(1), lambda text: [1])
    checkpoint.save(
        tuner.merge(model), folder, tokenizer=words, metadata=written([TEXT]),
        adapter=lambda place: tuner.save_adapter(model, place, None),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (classifier, "llama.cpp computes no classification head; use the folder in transformers"),
        (cloze, "a cloze classifier answers by comparing the words of its labels"),
        (nanochat, "llama.cpp has no family nanochat; it has gpt2, llama, mistral, qwen2, qwen3, arcee"),
        (biased, "llama.cpp's arcee has no biases; this model has"),
        (characters, "llama.cpp has none like it; those of tokenize.pattern gpt2"),
        (composed, r"it composes letters first \(NFC\), which llama.cpp does not"),
        (prefixed, "its prefix, prompt or bottleneck is no part of its weights"),
    ],
)
def test_write_refuses_a_model_that_llama_cpp_would_compute_otherwise(
    make: Any, reason: str, tmp_path: Path, words: Path
) -> None:
    make(tmp_path / "model", words)
    with pytest.raises(UserError, match=reason):
        gguf_format.write(tmp_path / "model", tmp_path / "model.gguf")
    assert not (tmp_path / "model.gguf").exists()


def test_export_writes_the_file_of_a_model_by_name(
    tmp_path: Path, words: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    saved(Path("models/base"), words, "llama")
    assert tohum("export", "base", "--gguf", "out/base.gguf") == 0
    assert "out/base.gguf: base, float32" in capsys.readouterr().out
    assert Path("out/base.Modelfile").read_text().startswith("FROM ./base.gguf")
    assert fields(Path("out/base.gguf"))["general.architecture"] == "llama"
    with pytest.raises(UserError, match="models/bose: no such model; one of: base"):
        tohum("export", "bose", "--gguf", "x.gguf")
