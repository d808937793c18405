"""Files of the graph as the report reads them: a base, a classifier and an instruction model, small for tests."""

from pathlib import Path
from typing import Any

import yaml

from pipeline import config, files, outcomes
from pipeline.config.params import Params
from pipeline.outcomes import Outcomes
from pipeline.paths import CODE as ROOT
from pipeline.paths import DVC_LOCK

HOSTILE = "<script>alert(1)</script> & ışık"
MODELS = ("base", "spam-full", "chat-full")
RISKS = {"invented_answers": {"warn": 0.1, "fail": 0.3}, "exposure_bits": {"warn": 2.0, "fail": 4.0}}
GRID = {"grams_per_kwh": 400.0, "source": "Ember 2024"}


def params(language: str = "en", **report: Any) -> Params:
    """The parameters of these models; `report`: further keys of that section."""
    raw = yaml.safe_load((ROOT / "infra/profiles/embedded.yaml").read_text(encoding="utf-8"))
    raw["finetune"] = {name: raw["finetune"][name] for name in MODELS[1:]}
    raw["evaluations"] = {name: raw["evaluations"][name] for name in MODELS}
    raw["register"]["models"], raw["search"] = ["base"], {}
    raw["report"] |= {"language": language, **report}
    raw["review"]["policy"]["risks"] = RISKS
    return config.check(raw)


def write(language: str = "en", **report: Any) -> Params:
    """Writes the files below the working folder and returns the parameters."""
    bits = {"bits_per_byte": 0.5, "bits_per_byte_known": 0.45, "bits_per_byte_over_known": 1.2}
    tokens = {"loss_nats": 1.4, "unigram_entropy_nats": 6.0, "bytes_per_token": 4.0}
    _model("base", bits | tokens, {"generation": {"samples": [HOSTILE, "Bir metin."]}}, [])
    confusion = {"ham": {"ham": 18, "spam": 2}, "spam": {"ham": 0, "spam": 20}}
    wrong = [{"text": HOSTILE, "label": "ham", "answer": "spam", "origin": "x:1"}] * 9
    beside = {
        "accuracy": 0.95, "baseline_accuracy": 0.9, "majority_accuracy": 0.5, "examples": 40.0, "exposure_bits": 2.5,
        "only_model_right": 3.0, "only_baseline_right": 1.0, "invented_answers": 0.02,
    }  # fmt: skip
    right = [float(i not in (3, 5)) for i in range(40)]
    _model("spam-full", beside, {"classification": {"confusion": confusion, "wrong": wrong}}, [("accuracy", right)])
    answers = [
        {"instruction": f"Soru {i}?", "input": "", "expected": "evet", "answer": "hayır", "right": i > 5}
        for i in range(12)
    ]
    right = [float(i % 3 > 0) for i in range(40)]
    _model("chat-full", {"exact_match": 0.65, "instructions": 40.0}, {"exact_match": {"answers": answers}},
           [("exact_match", right)])  # fmt: skip
    for gate in ("raw", "tokens", "samples"):
        files.write_json(Path(f"reports/gates/{gate}/verdict.json"), {"passed": True, "results": []})
    source = {"address": "embedded", "name": "world", "licence": "CC0-1.0", "consent": "synthetic", "sha256": "5f" * 32}
    more = {"rows": {"documents": 120, "labelled": 80}, "revision": "1", "bytes": 1000}
    files.write_json(Path("data/raw/provenance.json"), {"sources": {"world": source | more}})
    outs = [{"path": f"data/{name}", "md5": f"{name[0]}0" * 16} for name in ("raw", "tokens", "samples")]
    lock = {"schema": "2.0", "stages": {"all": {"cmd": "x", "outs": outs}}}
    DVC_LOCK.write_text(yaml.safe_dump(lock), encoding="utf-8")
    for stage in ("download", "pretrain", "finetune@spam-full"):
        record = {"stage": stage, "status": "FINISHED", "seconds_total": 9.0, "seconds_work": 7.0,
                  "peak_memory_mib": 300.0, "energy_wh_estimated": 0.5, "energy_wh_measured": None}  # fmt: skip
        files.write_json(Path(f"reports/runs/{stage}.json"), record)
    return params(language, **report)


def _model(name: str, metrics: dict, details: dict, values: list[tuple[str, list[float]]]) -> None:
    folder = Path(f"reports/evaluation/{name}")
    files.write_json(folder / "metrics.json", metrics)
    files.write_json(folder / "details.json", details | {"model_sha256": f"{len(name):02x}" * 32})
    training = {"parameters": 10, "trainable_parameters": 10, "trainable_share": 1.0, "steps": 2, "best_step": 2,
                "epochs": 1.5, "records": 1234, "tokens": 4321, "best_validation_loss_nats": 2.5}  # fmt: skip
    files.write_json(Path(f"reports/training/{name}.json"), training)
    curve = '"step","train_loss_nats","validation_loss_nats"\n1,3.0,3.1\n2,2.0,2.5\n'
    files.write_text(Path(f"reports/training/{name}.csv"), curve)
    verdict = {"passed": name != "base", "results": [{"success": name != "base"}]}
    files.write_json(Path(f"reports/gates/{name}/verdict.json"), verdict)
    if values:
        rows = [
            {"id": str(i), "language": ("tr", "en")[i % 2], "text": "x" * (10 + i)} for i in range(len(values[0][1]))
        ]
        measured = [outcomes.plain(Outcomes(metric, rows, numbers)) for metric, numbers in values]
        files.write_table(folder / "outcomes.parquet", outcomes.table({"measure": measured}))


def policy(params: Params, champion: bool = True) -> dict[str, Any]:
    """The policy's result for spam-full, beside a champion that is right on half of the records."""
    from pipeline.registry import policy as policies

    table = outcomes.read(Path("reports/evaluation/spam-full/outcomes.parquet"))
    metrics = files.read_json(Path("reports/evaluation/spam-full/metrics.json"))
    ours = policies.Evidence("version 2", metrics, table, {"raw": True}, [])
    half = table.set_column(
        table.schema.get_field_index("value"), table.schema.field("value"), [[float(i % 2) for i in range(len(table))]]
    )
    theirs = policies.Evidence("version 1", {"accuracy": 0.5}, half, {}, []) if champion else None
    return policies.judge(params.review.policy, ours, theirs)
