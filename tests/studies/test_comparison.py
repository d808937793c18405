"""The comparison beside a small model made here: measurements, rows, and the whole command on records and on noise."""

import json
import random
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline import config, files
from pipeline import tokenizer as vocabularies
from pipeline.data.records import SCHEMAS
from pipeline.errors import UserError
from pipeline.files import write_table
from pipeline.model import checkpoint
from pipeline.paths import CODE as ROOT
from pipeline.studies import comparison_jobs, comparison_project, comparison_table, comparison_worker, released
from pipeline.studies.comparison_plan import Limits, Plan, Trials
from tests.commands import tohum
from tests.model import library_models
from tests.models import network
from tests.own_files import labelled, write_csv
from tests.tokenizer import foreign

ROWS = labelled(48)[1:]


def own_base(folder: Path) -> Path:
    """A folder of one of our families with a vocabulary of the texts."""
    vocabularies.train([f"{text} {label}" for text, label in ROWS] * 3, 320, "gpt2").save(folder / "words")
    size = vocabularies.Tokenizer.load(folder / "words").vocab_size
    model = network("llama", vocab_size=size, context_length=512, tie_embeddings=False)
    checkpoint.save(model, folder / "base", tokenizer=folder / "words")
    return folder / "base"


def library_base(name: str, words: str, folder: Path) -> Path:
    """A folder of an architecture that transformers computes."""
    vocabulary = vocabularies.adopt(foreign.write(words, folder / "base"))
    return library_models.written(name, folder / "base", vocabulary.vocab_size)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder of measurements: params.yaml and samples of 48 texts."""
    import pyarrow as pa
    import yaml

    monkeypatch.chdir(tmp_path)
    raw = yaml.safe_load((ROOT / "infra/profiles/embedded.yaml").read_text(encoding="utf-8"))
    raw["runtime"]["progress"], raw["search"], raw["compute"]["threads"] = False, {}, 1
    Path("params.yaml").write_text(yaml.safe_dump(raw), encoding="utf-8")
    for split, part in (("train", ROWS[:32]), ("validation", ROWS[32:40]), ("test", ROWS[40:])):
        rows = [
            dict.fromkeys(SCHEMAS["labelled"].names, "") | {"id": text, "text": text, "label": label, "language": "tr"}
            for text, label in part
        ]
        table = pa.Table.from_pylist([{name: row[name] or None for name in SCHEMAS["labelled"].names} for row in rows])
        write_table(Path(f"data/samples/labelled/{split}.parquet"), table)
    return tmp_path


def measure(do: str, names: list[str], **inputs: Any) -> dict[str, Any]:
    return comparison_worker.result({"do": do, "names": names, **inputs})


def recipe(method: str = "lora", **setting: Any) -> dict[str, Any]:
    sizes = {"batch_size": 8, "steps": 12, "validation_batches": 2}
    task = {"name": "classify", "max_tokens": 48}
    return comparison_project.recipe("labelled", method, 1, task, {"learning_rate": 0.01, "rank": 2} | setting, sizes)


def trained(base: Path, method: str = "lora") -> dict[str, Any]:
    inputs = {"project": ".", "base": str(base), "score": "accuracy", "answer_tokens": 0, "held_out": 8}
    return measure("train", [method], name=method, recipe=recipe(method), **inputs)[method]  # type: ignore[no-any-return]


def with_vocabulary(base: Path) -> None:
    vocabularies.adopt(base).save(Path("data/tokens/tokenizer"))


@pytest.mark.usefixtures("project")
def test_baselines_are_scored_on_every_held_out_record() -> None:
    rows = measure("baselines", ["majority", "TF-IDF"])
    assert {name: len(row["by_record"]) for name, row in rows.items()} == {"majority": 8, "TF-IDF": 8}
    assert rows["majority"]["values"] == [0.5]
    assert rows["TF-IDF"]["values"][0] > 0.5


def test_train_scores_a_recipe_of_our_family_and_leaves_no_model(project: Path) -> None:
    base = own_base(project)
    with_vocabulary(base)
    before = {path for path in project.rglob("*") if path.is_file()}
    lora, full = trained(base), trained(base, "full")
    assert len(lora["by_record"]) == 8
    assert lora["values"] == [sum(lora["by_record"]) / 8]
    assert 0 < lora["trained"] < full["trained"]
    assert lora["epochs"] == lora["best_step"] * 8 / 32
    assert lora["validation_loss"] > 0
    assert {path for path in project.rglob("*") if path.is_file()} == before


def test_train_and_neighbours_take_an_encoder(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = library_base("bert", "wordpiece", project)
    with_vocabulary(base)
    assert len(trained(base)["by_record"]) == 8
    row = measure(
        "neighbours", ["neighbours"], kind="labelled", base=str(base), limit=48, score="accuracy", held_out=8
    )["neighbours"]
    assert len(row["by_record"]) == 8
    assert row["note"].startswith("k ")


def test_prompts_ask_the_first_records_with_examples(project: Path) -> None:
    base = own_base(project)
    with_vocabulary(base)
    shared = {"kind": "labelled", "base": str(base), "limit": 30, "score": "accuracy", "answer_tokens": 0}
    zero = measure("prompts", ["zero-shot"], shots=0, held_out=8, **shared)["zero-shot"]
    four = measure("prompts", ["4-shot"], shots=4, held_out=5, **shared)["4-shot"]
    assert (len(zero["by_record"]), len(four["by_record"])) == (8, 5)
    assert (zero["seedless"], four["seedless"]) == (True, False)
    assert four["note"] == "by label words; 5 of 8 records, by the budget"
    assert measure("prompts", ["8-shot"], shots=8, held_out=0, **shared) == {
        "8-shot": {"missing": "over the budget; --minutes raises it"}
    }


@pytest.mark.parametrize("score", ["exact_match", "chrf"])
def test_instructions_are_scored_by_prompts_neighbours_and_training(project: Path, score: str) -> None:
    """Lost otherwise: a comparison on questions would end with an error after minutes."""
    import pyarrow as pa

    names = SCHEMAS["instructions"].names
    for split, part in (("train", ROWS[:24]), ("validation", ROWS[24:32]), ("test", ROWS[32:40])):
        rows = [
            dict.fromkeys(names, "") | {"id": text, "instruction": text, "output": label, "language": "tr"}
            for text, label in part
        ]
        table = pa.Table.from_pylist([{name: row[name] for name in names} for row in rows], SCHEMAS["instructions"])
        write_table(Path(f"data/samples/instructions/{split}.parquet"), table)
    base = own_base(project)
    with_vocabulary(base)
    shared = {"kind": "instructions", "base": str(base), "limit": 60, "score": score, "held_out": 6}
    row = measure("neighbours", ["neighbours"], **shared)["neighbours"]
    assert (len(row["by_record"]), row["note"]) == (6, "answer of the most similar training question")
    row = measure("prompts", ["4-shot"], shots=4, answer_tokens=8, **shared)["4-shot"]
    assert len(row["by_record"]) == 6
    assert all(0 <= value <= 1 for value in row["by_record"])
    task = {"name": "instruct", "template": "chat", "max_tokens": 96, "max_prompt_tokens": 80}
    sizes = {"batch_size": 8, "steps": 4, "validation_batches": 1}
    made = comparison_project.recipe("instructions", "lora", 1, task, {"learning_rate": 0.01, "rank": 2}, sizes)
    inputs = {"project": ".", "base": str(base), "score": score, "answer_tokens": 8, "held_out": 6}
    assert len(measure("train", ["lora"], name="lora", recipe=made, **inputs)["lora"]["by_record"]) == 6


def test_train_gives_the_reason_where_a_model_cannot_be_trained(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lost otherwise: one method that does not exist for an architecture would end the comparison of all others."""
    base = library_base("t5", "unigram", project)
    with_vocabulary(base)
    assert "a t5 model reads with an encoder and answers with a decoder" in trained(base)["missing"]


def test_speed_times_what_can_be_trained(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = library_base("t5", "unigram", project)
    with_vocabulary(base)
    inputs = {"base": str(base), "recipes": {method: recipe(method) for method in ("lora", "full")}}
    found = measure("speed", ["speed"], **inputs)["speed"]
    assert (found["lora"], found["full"]) == (None, None)
    assert found["forward_token"] > 0
    own = own_base(project)
    with_vocabulary(own)
    found = measure("speed", ["speed"], **inputs | {"base": str(own)})["speed"]
    assert found["lora"] > 0
    assert found["full"] > 0


# -- trials and rows --------------------------------------------------------------------------------------------------

PLAN = Plan(
    Limits(48, 48, 0, 8, 60, 2, 32, 8),
    {"lora": Trials(({"learning_rate": 0.1, "rank": 8}, {"learning_rate": 0.01, "rank": 8}), 60, 9.0)},
    {"full": "over the budget: the shortest would take 31 min"}, {0: 8, 4: 8, 8: 8}, 9.0,
)  # fmt: skip


BASE = released.Base(Path("bert"), "bert", "encoder", 9, 512, 32, "", "", None, "alpaca")


def figures(right: list[float], loss: float = 1.0, **more: Any) -> dict[str, Any]:
    return {
        "values": [sum(right) / len(right)], "by_record": right, "seconds": 2.0, "peak_memory_mib": 300.0,
        "trained": 10, "seedless": False, "note": "", "validation_loss": loss, "epochs": 3.0,
    } | more  # fmt: skip


def test_chosen_trials_follow_validation_not_the_held_out_records() -> None:
    """Lost otherwise: settings chosen on the test records would look better than they are."""
    results = {
        "lora, trial 1": {"lora": figures([1.0] * 8, loss=0.9)}, "lora, trial 2": {"lora": figures([0.0] * 8, loss=0.2)}
    }  # fmt: skip
    assert comparison_jobs.chosen_trials(PLAN, results) == {"lora": 2}
    results["lora, trial 2"] = {"lora": {"missing": "the loss is nan"}}
    assert comparison_jobs.chosen_trials(PLAN, results) == {"lora": 1}
    results["lora, trial 1"] = {"lora": {"missing": "the loss is nan"}}
    assert comparison_jobs.chosen_trials(PLAN, results) == {}


def test_rows_say_why_a_method_is_missing() -> None:
    subject = comparison_jobs.Subject("labelled", BASE, "accuracy", None, PLAN.limits, {}, None)  # type: ignore[arg-type]
    results: comparison_jobs.Results = {
        "TF-IDF": {"majority": figures([0.0, 1.0]), "TF-IDF": figures([1.0, 1.0])},
        "neighbours": {"neighbours": figures([1.0, 1.0])},
        "lora, trial 2": {"lora": figures([1.0, 0.0])}, "lora, seed 2": {"lora": figures([1.0, 1.0])},
        "small model": {"scratch": {"missing": "the train split has 9 tokens of text, expected 24; add texts"}},
    }  # fmt: skip
    rows = {row.name: row for row in comparison_table.rows(subject, PLAN, {"lora": 2}, results)}
    assert {name: row.missing for name, row in rows.items() if row.missing} == {
        "zero-shot": "no language head: bert is an encoder", "4-shot": "no language head: bert is an encoder",
        "8-shot": "no language head: bert is an encoder", "full": "over the budget: the shortest would take 31 min",
        "scratch": "the train split has 9 tokens of text, expected 24",
    }  # fmt: skip
    lora = rows["lora"]
    assert (lora.values, lora.by_record) == ((0.5, 1.0), (1.0, 0.5))
    assert lora.note == "rank 8, learning rate 0.01, 3 epochs; best of 2 settings on validation"


# -- the whole command ------------------------------------------------------------------------------------------------


def test_read_base_refuses_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder; --base takes a model folder"):
        released.read_base(tmp_path / "none")


def test_command_refuses_a_budget_without_a_model_and_a_model_without_records(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = write_csv(tmp_path / "own.csv", labelled(20))
    for verb in ("which", "try"):
        assert tohum(verb, str(own), "--minutes", "3") == 2
        assert "--minutes needs --base FOLDER" in capsys.readouterr().err
    assert tohum("which", "--base", str(tmp_path)) == 2
    assert "--base needs FILE, the records to compare methods on" in capsys.readouterr().err


def test_speed_leaves_out_full_fine_tuning_that_memory_cannot_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lost otherwise: two processes of a large model would end the machine, not only the comparison."""
    measured = {"loading": 1.0, "forward_token": 0.0, "lora": 0.1, "full": 0.2, "reasons": {}}
    monkeypatch.setattr(comparison_jobs, "run", lambda _jobs, _subject: {"speed": {"speed": measured.copy()}})
    monkeypatch.setattr(comparison_jobs, "cores", lambda: 2)
    task = comparison_jobs.Subject("labelled", BASE, "accuracy", None, PLAN.limits, {}, None)  # type: ignore[arg-type]
    assert comparison_jobs.measure_speed(task).full == 0.2
    large = replace(task, base=replace(BASE, parameters=10**12))
    speed = comparison_jobs.measure_speed(large)
    assert (speed.lora, speed.full) == (0.1, None)
    assert speed.reasons["full"] == "needs about 37,253 GiB of memory in 2 processes side by side"


@pytest.mark.slow
def test_which_on_shuffled_labels_says_not_to_fine_tune_and_continues_with_kept_results(tmp_path: Path) -> None:
    """A world without anything to learn; the second run of the command measures nothing again."""
    base = own_base(tmp_path)
    texts, labels = zip(*ROWS, strict=True)
    shuffled = random.Random(5).sample(labels, len(labels))
    write_csv(tmp_path / "noise.csv", [("text", "label"), *zip(texts, shuffled, strict=True)])
    (tmp_path / "params.yaml").write_bytes((ROOT / "infra/profiles/embedded.yaml").read_bytes())
    (tmp_path / "dvc.yaml").write_bytes((ROOT / "dvc.yaml").read_bytes())
    words = [sys.executable, "-m", "pipeline.cli", "--project", str(tmp_path), "which", str(tmp_path / "noise.csv")]
    words += ["--base", str(base), "--minutes", "5"]
    first = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert first.returncode == 0, first.stdout + first.stderr
    shown = " ".join(first.stdout.split())
    assert "…" not in first.stdout  # nothing is cut in 80 columns
    for name in ("majority", "TF-IDF", "neighbours", "zero-shot", "4-shot", "8-shot", "lora", "full", "scratch"):
        assert re.search(rf"^ *{name} +[-0-9]", first.stdout, re.M), first.stdout
    assert "Do not fine-tune" in shown.rpartition("prediction.")[2]
    folder = tmp_path / comparison_project.FOLDER
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / comparison_jobs.RESULTS).glob("*.json")}
    assert len(kept) >= 10
    params = config.load(folder / "params.yaml")
    assert {"lora-s1", "lora-s5", "full-s1"} <= set(params.finetune)
    assert params.pretrain.task.name == "unchanged"
    prediction = json.loads((folder / ".tohum/which.json").read_text(encoding="utf-8"))
    assert {"lora", "TF-IDF"} <= prediction["means"].keys()
    again = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert again.stdout.partition("accuracy, ")[2] == first.stdout.partition("accuracy, ")[2]
    assert set(kept) == set((tmp_path / comparison_jobs.RESULTS).glob("*.json"))
    assert {path: path.stat().st_mtime_ns for path in kept} == kept


def test_small_model_is_made_again_where_its_base_is_that_of_other_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lost otherwise: an interrupted comparison goes on from the small model of the data that was compared between."""
    monkeypatch.chdir(tmp_path)
    base = comparison_project.FOLDER / comparison_project.SCRATCH / "models/base"
    base.mkdir(parents=True)
    (base / "config.json").write_text("{}", encoding="utf-8")
    made = {"base": "models/base", "base_sha256": files.sha256_of(base)}
    files.write_json(Path("result.json"), {"scratch": made})
    assert comparison_jobs._is_kept(comparison_jobs.SMALL_MODEL, Path("result.json"))
    (base / "config.json").write_text("[]", encoding="utf-8")
    assert not comparison_jobs._is_kept(comparison_jobs.SMALL_MODEL, Path("result.json"))
    assert comparison_jobs._is_kept("lora, trial 1", Path("result.json"))
