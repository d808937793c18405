"""The vocabularies of two released models: ids of the tokenizers library and of AutoTokenizer on real text."""

from pathlib import Path

import pytest
import tokenizers

from pipeline import tokenizer
from pipeline.tokenizer import Tokenizer, export
from pipeline.tokenizer.adopted import PROBES
from pipeline.tokenizer.encoders import UnencodableError
from tests.open_models import minilm_folder, open_models, smollm2_gguf

pytestmark = open_models
TEXTS = [
    *PROBES,
    "Genç kızlar çeşme başında gülüşüyordu; ışık, gün ve çiğ köfte.",
    "It's 2024, and they're here: x = [1, 2, 3] # 👍🏽 日本語",
]


@pytest.fixture(scope="module", params=["minilm", "smollm2"])
def theirs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a released model."""
    if request.param == "minilm":
        return minilm_folder()
    from pipeline.model import gguf_adoption

    folder = tmp_path_factory.mktemp("smollm2") / "model"
    gguf_adoption.adopt(smollm2_gguf(), folder)
    return folder


def test_adopt_gives_the_ids_of_a_released_vocabulary(theirs: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer.adopt(theirs).save(tmp_path)
    ours = Tokenizer.load(tmp_path)
    export.write(tmp_path, ours, export.describe(ours, {"name": "classify", "max_tokens": 99}, 99))
    library = tokenizers.Tokenizer.from_file(str(theirs / "tokenizer.json"))
    library.no_truncation()
    exported, compared = AutoTokenizer.from_pretrained(tmp_path), 0
    for text in TEXTS:
        try:
            ids = ours.encode(text)
        except UnencodableError:
            assert ours.refuses
            continue
        assert exported(text, add_special_tokens=False)["input_ids"] == ids
        if not any(special in text for special in ours.special):
            library.no_padding()
            assert library.encode(text, add_special_tokens=False).ids == ids
            compared += 1
        if ours.lossless:
            assert ours.decode(ids) == text
    assert compared > 30


def test_adopt_reads_the_facts_of_released_vocabularies() -> None:
    bert = tokenizer.adopt(minilm_folder())
    assert (bert.text_prefix, bert.text_suffix, bert.end_of_text, bert.pad, bert.unknown) == (
        (101,),
        (102,),
        102,
        0,
        100,
    )
    assert not bert.lossless
    assert not bert.refuses
