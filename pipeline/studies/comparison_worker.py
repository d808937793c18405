"""One measurement of a comparison, in a process of its own: `python -m pipeline.studies.comparison_worker KEY JOB`.

JOB is JSON with `do`: speed, baselines, neighbours, prompts, scratch or train, and the inputs of the function of that
name below. It runs in the comparison's folder and writes `.tohum/comparison/KEY.json`: name of a row -> its figures, or
`{"missing": reason}` where a method cannot be measured on this model or data.
"""

import contextlib
import json
import resource
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch
import yaml

from pipeline import baseline, config, files, integrity
from pipeline.config import plugins
from pipeline.config.params import Params
from pipeline.config.recipe import Finetune, Kind
from pipeline.config.section import validated
from pipeline.entry import entry
from pipeline.errors import UserError
from pipeline.evaluation import Subject
from pipeline.inference.embeddings import Embedder
from pipeline.model import checkpoint
from pipeline.model.device import set_up
from pipeline.model.gpt import GPT
from pipeline.model.library import LibraryModel
from pipeline.paths import MODELS, SAMPLES, TOKENIZER, WORK
from pipeline.studies import in_context, neighbours
from pipeline.studies.comparison_project import SMALL
from pipeline.studies.released import template_of
from pipeline.studies.workspace import fit, repro
from pipeline.tokenizer import Tokenizer
from pipeline.training.build import Built, build
from pipeline.training.loop import fit as updates
from pipeline.training.run import Trainer

RESULTS = WORK / "comparison"
"""Below the comparison's folder."""
Figures = dict[str, Any]
"""Of a row: values, by_record, seconds, peak_memory_mib, trained, seedless, note; of a training validation_loss too."""
_TIMED, _PATIENCE_S = 4, 12.0


class _NoLog:
    """A log that drops its metrics."""

    def __init__(self) -> None:
        self.record: dict[str, Any] = {}

    def log(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Drops them."""


def work() -> None:
    """Runs the job of this process's command line."""
    key, job = sys.argv[1], json.loads(sys.argv[2])
    files.write_json(RESULTS / f"{key}.json", result(job))


def result(job: Mapping[str, Any]) -> dict[str, Any]:
    """The rows of a job; where it cannot run on this model or data, the reason for each of its names."""
    run: Callable[..., dict[str, Any]] = JOBS[job["do"]]
    arguments = {key: value for key, value in job.items() if key not in ("do", "names")}
    torch.manual_seed(0)
    try:
        return run(**arguments)
    except UserError as error:
        return {name: {"missing": str(error)} for name in job["names"]}


def rows(kind: Kind, split: str) -> list[dict[str, Any]]:
    """The records of a split."""
    path = SAMPLES / kind / f"{split}.parquet"
    integrity.require_intact(path)
    table: list[dict[str, Any]] = pq.ParquetFile(path).read().to_pylist()
    return table


def _cpu_seconds() -> float:
    """CPU time of this process and its children: unlike a clock's it is the same beside other processes."""
    usages = [resource.getrusage(of) for of in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def _figures(by_record: list[float], began: float, **more: Any) -> Figures:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {
        "values": [sum(by_record) / len(by_record)], "by_record": by_record, "peak_memory_mib": peak, "trained": 0,
        "seconds": _cpu_seconds() - began, "seedless": False, "note": "",
    } | more  # fmt: skip


def _loaded(base: str) -> tuple[GPT, Tokenizer]:
    """The released model in evaluation mode, on this process's thread."""
    device = set_up(config.load().compute)
    return checkpoint.load(Path(base), str(device)).eval(), Tokenizer.load(TOKENIZER)


# -- methods that train no network ------------------------------------------------------------------------------------


def baselines() -> dict[str, Any]:
    """The most frequent label, and TF-IDF with logistic regression, on labelled texts."""
    splits = {name: rows("labelled", name) for name in ("train", "validation", "test")}
    texts = {
        name: baseline.LabelledTexts([row["text"] for row in found], [row["label"] for row in found])
        for name, found in splits.items()
    }
    began = _cpu_seconds()
    fitted = baseline.fit(texts["train"], texts["validation"], texts["test"].texts)
    truth = texts["test"].labels
    right = [float(a == b) for a, b in zip(fitted.labels, truth, strict=True)]
    majority = [float(fitted.majority == label) for label in truth]
    return {
        "majority": _figures(majority, _cpu_seconds(), seedless=True, note=f"always {fitted.majority}"),
        "TF-IDF": _figures(right, began, seedless=True, note=f"with logistic regression, C {fitted.strength:g}"),
    }


def nearest(kind: Kind, base: str, limit: int, score: str, held_out: int) -> dict[str, Any]:
    """Nearest neighbours on the model's embeddings, k chosen on the validation split."""
    splits = {name: rows(kind, name) for name in ("train", "validation", "test")}
    splits["test"] = splits["test"][:held_out]
    began = _cpu_seconds()
    set_up(config.load().compute)
    embedder = Embedder(Path(base))
    embedder.max_tokens = min(embedder.max_tokens, limit)
    vectors = {
        name: torch.from_numpy(embedder.embed([_asked(kind, row) for row in found])) for name, found in splits.items()
    }
    if kind == "instructions":
        _, index_N1 = neighbours.nearest(vectors["test"], vectors["train"], 1)
        scored = in_context.answer_score(score)
        answers = [splits["train"][i]["output"] for i in index_N1[:, 0].tolist()]
        each = [scored(text, row) for text, row in zip(answers, splits["test"], strict=True)]
        note = "answer of the most similar training question"
        return {"neighbours": _figures(each, began, seedless=True, note=note)}
    labels = [row["label"] for row in splits["train"]]

    def right(split: str, k: int) -> list[float]:
        answers = neighbours.voted(vectors[split], vectors["train"], labels, k)
        return [float(a == row["label"]) for a, row in zip(answers, splits[split], strict=True)]

    tried = [k for k in neighbours.NEIGHBOURS if k <= len(labels)]
    k = max(tried, key=lambda k: sum(right("validation", k)))
    return {
        "neighbours": _figures(right("test", k), began, seedless=True, note=f"k {k}, on {embedder.pooling} embeddings")
    }


def _asked(kind: Kind, row: Mapping[str, Any]) -> str:
    if kind == "labelled":
        return str(row["text"])
    return f"{row['instruction']}\n{row['input']}" if row["input"] else str(row["instruction"])


def prompts(  # noqa: PLR0913 - each decides the result
    kind: Kind, base: str, shots: int, limit: int, score: str, answer_tokens: int, held_out: int
) -> dict[str, Any]:
    """The model as it is, with `shots` examples in its prompt, on the first `held_out` records."""
    name = in_context.NAMES[shots]
    test = rows(kind, "test")
    asked = test[:held_out]
    if not asked:
        raise UserError("over the budget; --minutes raises it")
    shown = in_context.examples(rows(kind, "train"), shots)
    began = _cpu_seconds()
    model, tokenizer = _loaded(base)
    if kind == "labelled":
        labels = sorted({row["label"] for row in rows(kind, "train")})
        made = in_context.label_prompts(tokenizer, labels, shown, [row["text"] for row in asked], limit)
        words = [tokenizer.encode(f" {label}") for label in labels]
        chosen = in_context.label_scores(model, made, words).argmax(1).tolist()
        each = [float(labels[i] == row["label"]) for i, row in zip(chosen, asked, strict=True)]
        note = "by label words" + ("; the labels are numbers" if all(map(str.isdigit, labels)) else "")
    else:
        made = in_context.answer_prompts(tokenizer, shown, asked, limit)
        scored = in_context.answer_score(score)
        said = in_context.answers(model, tokenizer, made, answer_tokens)
        each = [scored(text, row) for text, row in zip(said, asked, strict=True)]
        note = {"model": "own chat template", "chat": "chat template"}.get(template_of(tokenizer), "Alpaca's template")
    if len(asked) < len(test) and kind == "labelled":
        note += f"; {len(asked)} of {len(test)} records, by the budget"
    return {name: _figures(each, began, seedless=not shots, note=note)}


# -- trained methods --------------------------------------------------------------------------------------------------


def _params(recipe: Mapping[str, Any]) -> tuple[Finetune, Params]:
    return validated(Finetune, dict(recipe), "finetune.probe"), config.load()


def _built(recipe: Finetune, params: Params, base: str) -> Built:
    def load(_: torch.Generator, device: torch.device) -> GPT:
        return checkpoint.load(Path(base), str(device))

    return build("finetune.probe", recipe, recipe.data, load, params, TOKENIZER)


def speed(base: str, recipes: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Seconds of an update of each recipe, of a token without gradients, and of loading the model."""
    began = time.perf_counter()
    model, _ = _loaded(base)
    figures: dict[str, Any] = {
        "loading": time.perf_counter() - began, "width": model.config.d_model, "room": model.room(), "reasons": {},
        "forward_token": 0.0,
    }  # fmt: skip
    if not isinstance(model, LibraryModel) or model.architecture != "encoder":
        ids_BT = torch.randint(1, model.config.vocab_size, (8, 48), generator=torch.Generator().manual_seed(1))
        last_BT = torch.arange(48).expand(8, 48) == 47
        with torch.no_grad():
            figures["forward_token"] = _median(partial(model.hidden, ids_BT, wanted_BT=last_BT)) / ids_BT.numel()
    del model
    for method, raw in recipes.items():
        recipe, params = _params(raw)
        try:
            built = _built(recipe, params, base)
        except UserError as error:
            figures[method], figures["reasons"][method] = None, str(error)
            continue
        steps = updates(built.model, built.parts, built.experience, 0)
        figures[method] = _median(partial(next, steps))
    return {"speed": figures}


def _median(call: Callable[[], Any]) -> float:
    """Median seconds of a few calls after the first, of a slow one the first."""
    times: list[float] = []
    while len(times) <= _TIMED and (len(times) < 2 or sum(times) < _PATIENCE_S):
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    later = sorted(times[1:]) or times
    return later[len(later) // 2]


def train(  # noqa: PLR0913 - each decides the result
    name: str, project: str, base: str, recipe: Mapping[str, Any], score: str, answer_tokens: int, held_out: int
) -> dict[str, Any]:
    """Trains one recipe and scores it on the held-out records; no model is left behind.

    Args:
        name: of the row.
        project: folder whose samples and vocabulary are used.
        base: the start model's folder.
        recipe: of `finetune`; empty: the one called `name` in the project's params.yaml.
        score: accuracy, exact_match or chrf.
        answer_tokens: longest answer.
        held_out: records that are scored.
    """
    with contextlib.chdir(project):
        parsed, params = _params(recipe) if recipe else (config.load().finetune[name], config.load())
        began = _cpu_seconds()
        built = _built(parsed, params, base)
        trainer: Trainer = built.trainer(parsed, params, _NoLog(), name)
        progress = trainer.run(None)
        tokenizer = Tokenizer.load(TOKENIZER)
        subject = Subject(name, built.model.eval(), tokenizer, (built.task,), SAMPLES, params.compute)
        by_record = _scored(subject, score, answer_tokens, held_out)
        batch = built.parts.ordering.batch_size
        figures = _figures(
            by_record, began, trained=built.model.num_parameters(trainable=True),
            validation_loss=progress.best_loss, best_step=progress.best_step, steps=progress.step,
            epochs=progress.best_step * batch / len(built.train),
        )  # fmt: skip
    return {name: figures}


def _scored(subject: Subject, score: str, answer_tokens: int, held_out: int) -> list[float]:
    """The score of each held-out record by the measure of the graph."""
    if score == "accuracy":
        name, fields = "classification", {"split": "test", "batch_size": 64, "baseline": None}
    else:
        name = {"exact_match": "exact_match", "chrf": "overlap"}[score]
        fields = {"split": "test", "batch_size": 16, "max_tokens": answer_tokens, "max_records": held_out}
        fields |= {"source": None} if name == "overlap" else {}
    settings = plugins.settings_class("evaluation", name).model_validate(fields)
    details = plugins.load("evaluation", name).measure(settings, subject)[1]
    return list(map(float, details["by_record"].split()))


def scratch(project: str, kind: Kind) -> dict[str, Any]:
    """Pretrains the small model of a try on the texts; `train` fine-tunes it afterwards by the sized recipe."""
    began = _cpu_seconds()
    raw = yaml.safe_load((Path(project) / "params.yaml").read_text(encoding="utf-8"))
    sized = fit(Path(project), raw, kind, SMALL)
    repro(Path(project), "pretrain")
    recipe = sized["finetune"]["scratch"]
    base = files.sha256_of(Path(project) / MODELS / "base")
    return {
        "scratch": {
            "base": str(MODELS / "base"), "base_sha256": base, "recipe": recipe, "seconds": _cpu_seconds() - began,
        }
    }  # fmt: skip


JOBS: dict[str, Callable[..., dict[str, Any]]] = {
    "speed": speed,
    "baselines": baselines,
    "neighbours": nearest,
    "prompts": prompts,
    "train": train,
    "scratch": scratch,
}

if __name__ == "__main__":
    entry(work, again="the same command continues with the methods that are left")
