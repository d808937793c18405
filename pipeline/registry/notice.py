"""A decision as MLflow's page shows it: tags and the beginning of the version's description. The ledger decides."""

from typing import TYPE_CHECKING

from pipeline.registry.ledger import Action, Chain, Entry
from pipeline.registry.store import APPROVED

if TYPE_CHECKING:
    from mlflow import MlflowClient

DECISION, STATUS = "tohum.decision", "tohum.status"
"""Tags of a version: the last decision on it in a sentence, and its state."""
_DESCRIPTION, _SENTENCE = 5000, 1500  # characters; MLflow refuses longer descriptions
_MARK = "\n\n<!-- decision -->\n\n"
_PAST: dict[Action, str] = {
    "approve": "approved",
    "reject": "rejected",
    "roll back": "champion again",
    "adopt": "adopted",
}


def show(client: "MlflowClient", entry: Entry, chain: Chain) -> None:
    """Writes an entry onto its version, and `retired` onto the champion before.

    Args:
        client: MLflow's.
        entry: the decision.
        chain: the entries before it.
    """
    name, version = entry.model, entry.version
    said = f"{_PAST[entry.action]} by {entry.by}, {entry.when}: {entry.why}"
    said = (said + (f"; despite: {entry.despite}" if entry.despite else ""))[:_SENTENCE]
    state = "rejected" if entry.action == "reject" else "champion"
    before = chain.champions()
    if state == "champion":
        client.set_model_version_tag(name, version, APPROVED, entry.version_sha256)
        if before and before[-1].version != version:
            client.set_model_version_tag(name, before[-1].version, STATUS, f"retired {entry.when}")
    client.set_model_version_tag(name, version, STATUS, f"{state} {entry.when}, entry {entry.n}")
    client.set_model_version_tag(name, version, DECISION, f"{said} (entry {entry.n} of the ledger)")
    card = (client.get_model_version(name, version).description or "").rpartition(_MARK)[2]
    client.update_model_version(name, version, f"**Decision {entry.n}**: {said}{_MARK}{card}"[:_DESCRIPTION])
