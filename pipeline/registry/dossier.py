"""The dossier of a candidate: card, evidence beside the champion's, and the policy's result, for people and decisions.

Everything is read from files that the version's hash covers. The champion is evaluated anew on the candidate's records
where it can be (evidence.py); where it cannot, the policy's result says why and leaves the decision to a person.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlflow.entities.model_registry import ModelVersion

from pipeline import files
from pipeline.errors import UserError
from pipeline.registry import contents, evidence, policy, shadow
from pipeline.registry.policy import Evidence
from pipeline.registry.shadow import Shadow
from pipeline.registry.store import CANDIDATE, CHAMPION

if TYPE_CHECKING:
    from pipeline.registry.lifecycle import Registry


@dataclass(frozen=True)
class Dossier:
    """What a reviewer decides on."""

    model: str
    candidate: ModelVersion
    version_sha256: str
    """Hash over the candidate's files: the one that is approved."""
    card: str
    """Its model card, Markdown."""
    evidence: Evidence
    champion: ModelVersion | None
    champion_metrics: dict[str, float]
    """Of the evaluation on the candidate's records; where there is none, those stored with the champion's version."""
    obstacle: str
    """The reason why the champion was not evaluated; empty where it was, or where there is none."""
    policy: dict[str, Any]
    """The policy's result (policy.py)."""


def dossier(registry: "Registry", model: str) -> Dossier:
    """Reads the candidate of a model and judges it by the policy of params.yaml.

    Raises:
        UserError: there is no candidate, or its files differ from the registered ones.
    """
    candidate = registry.require(model, CANDIDATE, "register it first: tohum register")
    champion = registry.at(model, CHAMPION)
    with registry.opened(candidate) as (folder, sealed):
        ours = evidence.of_version(folder, f"version {candidate.version}")
        card = (folder / contents.CARD).read_text(encoding="utf-8")
        theirs, stored, obstacle = _champion(registry, champion, candidate, folder)
    result = policy.judge(registry.params.review.policy, ours, theirs, obstacle)
    metrics = dict(theirs.metrics) if theirs else stored
    return Dossier(model, candidate, sealed.version_sha256, card, ours, champion, metrics, obstacle, result)


def in_words(shown: Dossier, replayed: Shadow | None = None) -> str:
    """The dossier as text: card, figures, the policy's result, the replay of requests, and the commands that decide."""
    champion = "none yet" if shown.champion is None else f"version {shown.champion.version}"
    if shown.champion is not None and shown.champion.version == shown.candidate.version:
        champion += ", the candidate itself"
    if shown.obstacle:
        seen = "as it was registered" if shown.champion_metrics else "not shown"
        champion += f", {seen}: {shown.obstacle}"
    new, old = shown.evidence.metrics, shown.champion_metrics
    rows = [f"  {key:<32}{_number(new.get(key)):>14}{_number(old.get(key)):>14}" for key in sorted({*new, *old})]
    version = shown.candidate.version
    return "\n".join([
        shown.card,
        f"candidate version {version}, champion {champion}",
        f"  {'measure':<32}{'candidate':>14}{'champion':>14}", *rows, "",
        policy.in_words(shown.policy), "",
        *([shadow.in_words(replayed), ""] if replayed else []),
        "to approve exactly these files:",
        f"  {approval(shown)}",
        "to reject them:",
        f"  tohum reject {shown.model} {version} --reason TEXT",
    ])  # fmt: skip


def approval(shown: Dossier) -> str:
    """The command that approves exactly these files."""
    despite = " --despite TEXT" if shown.policy["outcome"] == "not met" else ""
    return (
        f"tohum promote {shown.model} {shown.candidate.version} --sha256 {shown.version_sha256} --reason TEXT{despite}"
    )


def _champion(
    registry: "Registry", champion: ModelVersion | None, candidate: ModelVersion, packed: Path
) -> tuple[Evidence | None, dict[str, float], str]:
    """The champion's evidence on the candidate's records, its stored metrics, and the reason where there is none."""
    stored: dict[str, float] = {}
    if champion is None:
        return None, stored, ""
    name = f"version {champion.version}"
    try:
        with registry.opened(champion, approved=True) as (folder, sealed):
            if not registry.is_ours(champion):
                raise UserError("it is no model of this project")
            if champion.version == candidate.version:
                return None, stored, ""
            stored = files.read_json(folder / contents.METRICS)
            return evidence.evaluated_anew(folder / "artifacts" / sealed.model, name, packed), stored, ""
    except UserError as error:
        return None, stored, str(error)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.6g}"
