"""The evidence stored with a version: figures by record and the gates' verdicts, for its review by the policy.

A version holds `outcomes.parquet` (a metric's value on every held-out record) and `evidence.json` (measures, compute
settings and hash of the samples that they were measured with; verdicts; waivers), all covered by its hash. The champion
is evaluated anew with the candidate's measures on the candidate's records, because another version's stored figures
may come from other records or older code; the results are kept by the hashes of model and samples.
"""

import shutil
from pathlib import Path
from typing import Any

from pipeline import files, integrity, outcomes
from pipeline.config.params import Evaluation
from pipeline.config.recipe import Compute
from pipeline.errors import UserError
from pipeline.paths import EVALUATION, MEASURES, SAMPLES
from pipeline.registry import contents
from pipeline.registry.card import Facts, waived
from pipeline.registry.policy import Evidence

OUTCOMES = "outcomes.parquet"
EVIDENCE = "evidence.json"


def write(target: Path, facts: Facts) -> None:
    """Writes the evidence of an admitted model into the folder of a version that is being packed.

    Raises:
        UserError: a damaged file.
    """
    evaluated = EVALUATION / facts.model
    if (evaluated / OUTCOMES).is_file():
        integrity.read_json(evaluated / "details.json")  # compares the files beside it
        shutil.copyfile(evaluated / OUTCOMES, target / OUTCOMES)
    waivers = [
        f"{entry['expectation']} on {entry['column']} of gate {gate}, until {entry['waiver']['until']}: "
        f"{entry['waiver']['reason']}"
        for gate, entry in waived(facts)
    ]
    gates = {gate: verdict.get("passed") is True for gate, verdict in facts.gates.items()}
    files.write_json(target / EVIDENCE, {"gates": gates, "waivers": waivers, **facts.evaluated})


def of_version(folder: Path, name: str) -> Evidence:
    """The evidence of a version, from its checked files; little of a version that was packed without it."""
    stored = files.read_json(folder / EVIDENCE) if (folder / EVIDENCE).is_file() else {}
    metrics = files.read_json(folder / contents.METRICS) if (folder / contents.METRICS).is_file() else {}
    return Evidence(name, metrics, outcomes.read(folder / OUTCOMES), stored.get("gates", {}), stored.get("waivers", []))


def evaluated_anew(model: Path, name: str, candidate: Path, kept: Path = MEASURES) -> Evidence:
    """Another model's evidence, measured as the candidate was: same measures, settings and records.

    Args:
        model: the other model's folder, named as the model.
        name: its version in words.
        candidate: the folder of the candidate's version.
        kept: folder of kept results.

    Raises:
        UserError: the candidate's version has no evidence, the project's samples are not the ones it was measured on,
            or a measure cannot be made of this model.
    """
    from pipeline.evaluation import open_subject  # imports torch
    from pipeline.evaluation._measure_all import measure_all

    path = candidate / EVIDENCE
    stored: dict[str, Any] = files.read_json(path) if path.is_file() else {}
    if not stored.get("samples_sha256"):
        raise UserError("the candidate was registered without evidence; register it again (tohum register)")
    if (here := integrity.identity(SAMPLES)) != stored["samples_sha256"]:
        raise UserError(
            f"{SAMPLES} has identity {here}, the candidate was measured on {stored['samples_sha256']}; get "
            "its samples: `git checkout` the version's commit, then `dvc checkout data/samples`"
        )
    by_record = set(outcomes.read(candidate / OUTCOMES)["measure"].to_pylist())
    measures = {key: fields for key, fields in stored["measures"].items() if key in by_record}
    subject = open_subject(model.name, Compute.model_validate(stored["compute"]), model.parent)
    result = measure_all(subject, Evaluation(measures=measures, thresholds={}), kept, model.parent)
    return Evidence(name, result.metrics, outcomes.table(result.outcomes))
