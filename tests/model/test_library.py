"""Models of other architectures: transformers computes them, and tuners, folders and generation treat them as ours."""

import copy
import json
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline import files
from pipeline.errors import UserError
from pipeline.inference.generation import generate
from pipeline.model import adapter_folder, checkpoint
from pipeline.model.library import LibraryModel
from pipeline.paths import CODE
from pipeline.tuners import Adapter
from tests import variants
from tests.model.library_models import ALL, DECODERS, ENCODERS, SEQ2SEQ, VOCABULARY, network, written
from tests.models import network as ours

IDS_BT = torch.randint(3, VOCABULARY, (3, 9), generator=torch.Generator().manual_seed(0))
MASK_BT = torch.arange(9) < torch.tensor([[9], [6], [4]])
TUNERS = [v for v in variants.variants("tuners") if v.name not in ("prefix", "prompt")]
LABELS = ["ham", "spam", "other"]


def load(name: str, tmp_path: Path) -> LibraryModel:
    model = checkpoint.load(written(name, tmp_path / name))
    assert isinstance(model, LibraryModel)
    return model


def moved(model: LibraryModel, tuner: Any) -> None:
    """Applies a tuner and moves what it trains, as training would."""
    generator = torch.Generator().manual_seed(4)
    tuner.apply(model, generator, lambda text: [3 + ord(letter) % 30 for letter in text])
    with torch.no_grad():
        for group in tuner.groups(model):
            for parameter in group["params"]:
                parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    model.eval()


@pytest.mark.parametrize("name", DECODERS)
def test_decoder_gives_the_logits_of_transformers(name: str, tmp_path: Path) -> None:
    """Lost otherwise: a loss computed on other numbers than the model that is served."""
    with torch.no_grad():
        torch.testing.assert_close(load(name, tmp_path)(IDS_BT), network(name)(IDS_BT).logits, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ENCODERS)
def test_encoder_ignores_padding(name: str, tmp_path: Path) -> None:
    """Lost otherwise: a text's embedding or label depends on the other texts of its batch."""
    model = load(name, tmp_path)
    with torch.no_grad():
        together = model.hidden(IDS_BT, mask=MASK_BT)
        for row, length in enumerate(MASK_BT.sum(1).tolist()):
            alone = model.hidden(IDS_BT[row : row + 1, :length])[0]
            torch.testing.assert_close(together[row, :length], alone, atol=1e-5, rtol=1e-5)
    with pytest.raises(UserError, match="no language head"):
        model.logits(together)


def test_encoder_decoder_answers_after_its_prompt(tmp_path: Path) -> None:
    """Lost otherwise: answers shifted by one, or read by the encoder, train a model that nobody asks for."""
    model, theirs = load("t5", tmp_path), network("t5")
    wanted_BT = torch.zeros_like(IDS_BT, dtype=torch.bool)
    firsts, last = (3, 5, 1), 7
    for row, first in enumerate(firsts):
        wanted_BT[row, first : last + 1] = True
    with torch.no_grad():
        ours = model.logits(model.hidden(IDS_BT, wanted_BT=wanted_BT)).split([last + 1 - first for first in firsts])
        for row, first in enumerate(firsts):
            source = torch.cat((IDS_BT[row, : first + 1], torch.tensor([1])))[None]
            labels = IDS_BT[row : row + 1, first + 1 : last + 2]
            expected = theirs(input_ids=source, labels=labels).logits[0]
            torch.testing.assert_close(ours[row], expected, atol=1e-5, rtol=1e-5)
    with pytest.raises(UserError, match="without a prompt"):
        model.hidden(IDS_BT)


@pytest.mark.parametrize("name", [*DECODERS, *SEQ2SEQ])
def test_generation_equals_the_greedy_answers_of_transformers(name: str, tmp_path: Path) -> None:
    """Lost otherwise: what is evaluated is not what another server of the folder answers."""
    model, theirs = load(name, tmp_path), network(name)
    prompts = [[5, 6, 7, 8], [9, 10], [11, 12, 13, 14], [3]]
    ours = generate(model, prompts, max_tokens=6, temperature=0, top_k=0, top_p=1.0, stop={1})
    for prompt, answer in zip(prompts, ours, strict=True):
        ids = torch.tensor([prompt if name in DECODERS else [*prompt, 1]])
        expected = theirs.generate(ids, max_new_tokens=6, do_sample=False)[0].tolist()
        expected = expected[len(prompt) :] if name in DECODERS else expected[1:]
        assert answer == (expected[: expected.index(1)] if 1 in expected else expected)
        assert generate(model, [prompt], max_tokens=6, temperature=0, top_k=0, top_p=1.0, stop={1}) == [answer]


@pytest.mark.parametrize("name", [*ENCODERS, *DECODERS])
@pytest.mark.parametrize("variant", TUNERS, ids=str)
def test_tuned_classifier_answers_alike_in_transformers_and_peft(
    variant: variants.Variant, name: str, tmp_path: Path
) -> None:
    """Lost otherwise: the folder that is registered gives other labels in the tools that serve it."""
    import peft
    import transformers

    model = load(name, tmp_path)
    model.add_score(3, torch.Generator().manual_seed(2))
    checkpoint.save(model, tmp_path / "base", labels=LABELS)
    tuner = variant.build()
    if variant.name == "layers" and "pattern" in str(variant):
        pytest.skip("its pattern names weights of our families")
    moved(model, tuner)
    with torch.no_grad():
        ours = model.classify(IDS_BT, MASK_BT)
    checkpoint.save(tuner.merge(model), tmp_path / "tuned", labels=LABELS)
    again = checkpoint.load(tmp_path / "tuned")
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "tuned").eval()
    assert theirs.config.id2label == dict(enumerate(LABELS))
    ids_BT = IDS_BT.masked_fill(~MASK_BT, 0)
    with torch.no_grad():
        if variant.name != "bottleneck":  # beside its base, which alone is in the folder's weights
            torch.testing.assert_close(again.classify(IDS_BT, MASK_BT), ours, atol=1e-5, rtol=1e-4)
            logits = theirs(input_ids=ids_BT, attention_mask=MASK_BT.long()).logits
            torch.testing.assert_close(logits, ours, atol=1e-5, rtol=1e-4)
        if isinstance(tuner, Adapter):
            tuner.save_adapter(model, tmp_path / "adapter", None)
            kind = json.loads((tmp_path / "adapter/adapter_config.json").read_text())["peft_type"]
            if kind not in peft.PeftType.__members__:
                return
            base = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "base")
            with warnings.catch_warnings():
                warnings.filterwarnings("error", "Found missing adapter keys")  # an update where ours has none
                adapted = peft.PeftModel.from_pretrained(base, tmp_path / "adapter").eval()
            logits = adapted(input_ids=ids_BT, attention_mask=MASK_BT.long()).logits
            torch.testing.assert_close(logits, ours, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("variant", TUNERS, ids=str)
def test_tuned_encoder_decoder_answers_alike_in_transformers(variant: variants.Variant, tmp_path: Path) -> None:
    """Lost otherwise: as for classifiers."""
    import transformers

    if variant.name in ("layers", "bottleneck"):
        pytest.skip("covered by the classifiers")
    model = load("t5", tmp_path)
    tuner = variant.build()
    moved(model, tuner)
    prompt = [[5, 6, 7, 8]]
    ours = generate(model, prompt, max_tokens=5, temperature=0, top_k=0, top_p=1.0, stop={1})
    checkpoint.save(tuner.merge(model), tmp_path / "tuned")
    theirs = transformers.AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "tuned").eval()
    expected = theirs.generate(torch.tensor([[*prompt[0], 1]]), max_new_tokens=5, do_sample=False)[0, 1:].tolist()
    assert ours[0] == (expected[: expected.index(1)] if 1 in expected else expected)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("variant", [v for v in TUNERS if isinstance(v.build(), Adapter) and not v.varied], ids=str)
def test_an_adapter_without_its_base_gives_the_bits_of_the_whole_folder(
    variant: variants.Variant, name: str, tmp_path: Path
) -> None:
    """Lost otherwise: another model is served than was evaluated, and the whole folder cannot be made again."""
    labels = LABELS if name not in SEQ2SEQ else None
    checkpoint.save(load(name, tmp_path), tmp_path / "base")
    model, tuner = checkpoint.load(tmp_path / "base"), variant.build()
    if labels:
        model.add_score(3, torch.Generator().manual_seed(2))
    moved(model, tuner)
    adapter = {"labels": labels, "adapter": lambda folder: tuner.save_adapter(model, folder, "../../base")}
    checkpoint.save(tuner.merge(model), tmp_path / "whole", **adapter)
    checkpoint.save(model, tmp_path / "slim", base=adapter_folder.describe(tmp_path / "base"), **adapter)
    assert not list((tmp_path / "slim").glob("*.safetensors"))
    slim, whole = (checkpoint.load(tmp_path / place) for place in ("slim", "whole"))
    assert slim.state_dict().keys() == whole.state_dict().keys()
    assert all(torch.equal(slim.state_dict()[key], value) for key, value in whole.state_dict().items())
    if labels:
        with torch.no_grad():
            torch.testing.assert_close(
                slim.classify(IDS_BT, MASK_BT), model.classify(IDS_BT, MASK_BT), atol=1e-5, rtol=1e-4
            )
    checkpoint.write_whole(tmp_path / "slim", tmp_path / "again")
    assert files.sha256_of(tmp_path / "again") == files.sha256_of(tmp_path / "whole")


@pytest.mark.parametrize("name", ALL)
def test_folder_is_the_same_bytes_each_time_and_gives_the_same_weights(name: str, tmp_path: Path) -> None:
    """Lost otherwise: two equal runs with different hashes in dvc.lock."""
    model = load(name, tmp_path)
    checkpoint.save(model, tmp_path / "one")
    checkpoint.save(copy.deepcopy(model), tmp_path / "two")
    assert files.sha256_of(tmp_path / "one") == files.sha256_of(tmp_path / "two")
    assert str(tmp_path) not in (tmp_path / "one/config.json").read_text()
    again = dict(checkpoint.load(tmp_path / "one").named_parameters())
    for key, value in model.named_parameters():
        assert torch.equal(again[key], value), key


def test_fresh_head_depends_on_the_generator_alone(tmp_path: Path) -> None:
    """Lost otherwise: a rerun starts its head elsewhere and ends with other bits."""
    heads = []
    for seed in (1, 1, 2):
        torch.manual_seed(len(heads))
        model = load("bert", tmp_path / str(len(heads)))
        model.add_score(2, torch.Generator().manual_seed(seed))
        heads.append(model.head_weights()[0][1])
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])


def test_pooler_of_a_masked_language_model_is_trained_with_the_head(tmp_path: Path) -> None:
    """Lost otherwise: a random, frozen pooler between a pretrained encoder and its classifier."""
    import transformers

    network("bert")  # seeds
    config = network("bert").config
    transformers.BertForMaskedLM(config).save_pretrained(tmp_path / "mlm")
    model = checkpoint.load(tmp_path / "mlm")
    assert isinstance(model, LibraryModel)
    model.add_score(2, torch.Generator().manual_seed(1))
    assert model.head_modules() == ["pooler", "classifier"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "no-such"}, "model_type is 'no-such'.*install a newer transformers"),
        ({"model_type": "vit", "architectures": ["ViTModel"]}, "neither a decoder, an encoder nor"),
        ({"auto_map": {"AutoModel": "code.Model"}}, "no code of a model folder is run"),
        ({"quantization_config": {"bits": 4}}, "the weights are quantized"),
        ({"num_hidden_layers": 10**9}, "num_hidden_layers is 1000000000, and the weights have"),
        ({"num_attention_heads": 0}, "transformers cannot read it"),
        ({"hidden_size": "32"}, "transformers cannot read it"),
        ({"num_hidden_layers": 3}, "tensors do not fit config.json; missing"),
        ({"intermediate_size": 48}, "tensors do not fit config.json; other shape|transformers cannot read it"),
    ],
)
def test_load_refuses_a_folder_that_is_wrong(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    """Lost otherwise: a traceback of the library, or a model with random layers."""
    folder = written("bert", tmp_path / "bert")
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(UserError, match=message):
        checkpoint.load(folder)


def test_load_refuses_weights_that_are_not_finite(tmp_path: Path) -> None:
    """Lost otherwise: every update is NaN, hours later."""
    net = network("bert")
    with torch.no_grad():
        net.encoder.layer[0].output.dense.weight[0, 0] = float("nan")
    net.save_pretrained(tmp_path / "bert")
    with pytest.raises(UserError, match="NaN or infinity"):
        checkpoint.load(tmp_path / "bert")


def test_load_refuses_a_head_that_it_does_not_know(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lost otherwise: losses of other logits than the library's, for an architecture that scales or caps them."""
    folder = written("gemma2", tmp_path / "gemma2")
    original = LibraryModel.logits
    monkeypatch.setattr(LibraryModel, "logits", lambda self, x: original(self, x) * 1.1)
    with pytest.raises(UserError, match="language head computes more than this project knows"):
        checkpoint.load(folder)


@pytest.mark.parametrize("tuner", ["prefix", "prompt"])
def test_virtual_tokens_are_refused(tuner: str, tmp_path: Path) -> None:
    """Lost otherwise: a tuner whose virtual tokens the network never sees."""
    built = next(v for v in variants.variants("tuners") if v.name == tuner).build()
    with pytest.raises(UserError, match="needs one of our own families"):
        built.apply(load("bert", tmp_path), torch.Generator().manual_seed(1), lambda text: [3])


def test_lora_names_the_projections_when_a_target_is_unknown(tmp_path: Path) -> None:
    """Lost otherwise: a typo trains the head alone."""
    from pipeline.tuners import chosen_projections

    model = load("bert", tmp_path)
    chosen = chosen_projections(model, ["query", "value"])
    assert [name.rpartition(".")[2] for name in chosen] == ["query", "value"] * 2
    with pytest.raises(UserError, match=r"names 'q_proj'.*some of: dense, key, query, value"):
        chosen_projections(model, ["q_proj"])


def test_our_own_families_are_read_without_transformers(tmp_path: Path) -> None:
    """Lost otherwise: two seconds of start-up in every stage, and a GPU box that needs the extra."""
    checkpoint.save(ours("llama"), tmp_path / "llama")
    code = (
        "import sys; from pathlib import Path; from pipeline.model import checkpoint; "
        f"checkpoint.load(Path({str(tmp_path / 'llama')!r})); sys.exit('transformers' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=CODE, check=False).returncode == 0


def test_missing_library_is_said_with_the_command_that_installs_it(tmp_path: Path) -> None:
    """Lost otherwise: a traceback on a box without the extra."""
    folder = written("bert", tmp_path / "bert")
    code = (
        "import sys; sys.modules['transformers'] = None; from pathlib import Path; "
        "from pipeline.errors import UserError; from pipeline.model import checkpoint\n"
        f"try: checkpoint.load(Path({str(folder)!r}))\n"
        "except UserError as error: sys.exit(0 if 'make setup-open' in str(error) else 1)\n"
        "sys.exit(2)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=CODE, check=False).returncode == 0


def test_params_and_loader_agree_on_what_every_architecture_reads(tmp_path: Path) -> None:
    """Lost otherwise: a recipe is refused, or accepted, for another kind of model than the one that is loaded."""
    from transformers.models.auto import modeling_auto as auto

    from pipeline.config import start_rules
    from pipeline.config.recipe import InitialWeights
    from pipeline.model import library_folder

    start = InitialWeights(
        kind="folder", path=str(tmp_path), revision=None, sha256=None, licence=None, zero_projections=False
    )
    kinds = {*auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES, *auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES} - set(start_rules.OWN)
    for kind in kinds - set(auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES):
        for classes in ([], ["SomeModel"], ["SomeForSequenceClassification"], ["SomeForCausalLM"]):
            if classes == ["SomeForCausalLM"] and kind not in auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
                continue
            raw = {"model_type": kind, "architectures": classes}
            (tmp_path / "config.json").write_text(json.dumps(raw), encoding="utf-8")
            expected = library_folder.architecture(raw, tmp_path / "config.json")
            assert start_rules.architecture(start) == (kind, expected), raw


def test_positions_of_padding_are_none_of_a_text(tmp_path: Path) -> None:
    """Lost otherwise: a text of 513 tokens in RoBERTa is an index error."""
    import transformers

    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    config = transformers.RobertaConfig(vocab_size=VOCABULARY, max_position_embeddings=18, **sizes)
    transformers.RobertaModel(config).save_pretrained(tmp_path / "roberta")
    model = checkpoint.load(tmp_path / "roberta")
    assert model.room() == 16
    model.hidden(torch.full((1, model.room()), 5))


def test_load_refuses_an_adapter_beside_the_weights(tmp_path: Path) -> None:
    """Lost otherwise: the same pinned folder is another model where peft is installed."""
    folder = written("bert", tmp_path / "bert")
    (folder / "adapter_config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(UserError, match=r"has adapter_config\.json beside its weights"):
        checkpoint.load(folder)


def test_classifier_tuned_from_a_multi_label_one_is_no_multi_label_one(tmp_path: Path) -> None:
    """Lost otherwise: transformers answers with sigmoids where the model was trained with a softmax."""
    model = load("bert", tmp_path)
    model.net.config.problem_type = "multi_label_classification"
    model.add_score(3, torch.Generator().manual_seed(2))
    checkpoint.save(model, tmp_path / "tuned", labels=LABELS)
    assert json.loads((tmp_path / "tuned/config.json").read_text())["problem_type"] == "single_label_classification"
