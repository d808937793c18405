"""The ledger in an MLflow store: one run of the experiment `tohum-ledger`, a param for each entry.

A champion moves by compare-and-set: the writer of entry n creates the param `<model>/n`, and of all that try, on any
machine, one does. Params were chosen because MLflow never changes one (a second value is refused by the primary key of
its table, on SQLite and PostgreSQL alike), has no call that removes one, takes a repeated request with the same value
as done (its client repeats after a lost connection), and shows all of them on one page. Permission EDIT on the
experiment is the permission to decide. Tried and left: an experiment per entry is unique too, but fills the list of
experiments, is removed by `mlflow gc` once it is deleted, and a repeated request finds its own entry in the way; a
model version per entry takes the next free number, and the number of a deleted one again.

The run itself is one by a name that only one experiment can have: each of several first writers makes an experiment
with a run and renames it; one rename succeeds.
"""

import contextlib
import getpass
import shlex
import time
import uuid
from collections.abc import Mapping
from typing import TYPE_CHECKING

from mlflow.exceptions import MlflowException

from pipeline.errors import UserError
from pipeline.registry import anchors, ledger
from pipeline.registry.ledger import Action, Chain, Entry

if TYPE_CHECKING:
    from mlflow import MlflowClient

EXPERIMENT = "tohum-ledger"
RUN = "tohum.ledger_run"
"""Tag of the experiment: id of the run that holds the entries."""
_ABOUT = "Decisions on registered models, an entry each: append-only, a hash chain. `tohum ledger MODEL` reads it."


_NOUNS: dict[Action, str] = {
    "approve": "the approval",
    "reject": "the rejection",
    "roll back": "the return",
    "adopt": "the adoption",
}


class LostError(UserError):
    """Another entry has the number: somebody else decided first."""


class Ledger:
    """The entries of every registered model of one store."""

    def __init__(self, client: "MlflowClient", place: str) -> None:
        """`place`: the store's address for messages, without credentials."""
        self.client, self.place = client, place
        self._run: str | None = None

    @property
    def id(self) -> str:
        """Id of the ledger, which is that of its run; empty if there is none yet."""
        if self._run is None:
            experiment = self.client.get_experiment_by_name(EXPERIMENT)
            if experiment is None:
                return ""
            if experiment.lifecycle_stage != "active" or RUN not in experiment.tags:
                raise UserError(
                    f"MLflow at {self.place}: experiment {EXPERIMENT}, which holds the ledger of decisions, was "
                    f"deleted or has lost its tag {RUN}; restore it (mlflow experiments restore)"
                )
            self._run = str(experiment.tags[RUN])
        return self._run

    def texts(self) -> dict[str, str]:
        """All stored texts by key."""
        if not self.id:
            return {}
        run = self.client.get_run(self.id)
        if run.info.lifecycle_stage != "active":
            raise UserError(
                f"MLflow at {self.place}: run {self.id} of {EXPERIMENT}, which holds the ledger of decisions, was "
                f"deleted; restore it (mlflow runs restore --run-id {self.id})"
            )
        return dict(run.data.params)

    def chain(self, model: str, texts: Mapping[str, str] | None = None) -> Chain:
        """The chain of one registered model, checked, also against the heads noted in this repository."""
        chain = ledger.read(model, self.texts() if texts is None else texts, anchors.read(self.id)[0])
        others = anchors.replaced(self.id, model, {entry.n: entry.hash for entry in chain.entries})
        return chain._replace(problems=chain.problems + tuple(
            f"this repository notes decisions on it in ledger {other}, and this store's ledger "
            f"({self.id or 'there is none'}) does not hold them: it was replaced, or it is that of another store; "
            f"where that is right: tohum ledger {_named(model)} --accept {other} --reason TEXT" for other in others
        ))  # fmt: skip

    def accept(self, model: str, other: str, who: str, why: str) -> None:
        """Takes this store's ledger for a model although the repository notes another one; makes it if there is none.

        Raises:
            UserError: no such ledger is in the way, or git could not note it.
        """
        entries = {entry.n: entry.hash for entry in self.chain(model).entries}
        if other not in (others := anchors.replaced(self.id, model, entries)):
            raise UserError(f"{model}: ledger {other} is not in the way; to accept: {', '.join(others) or 'none'}")
        if reason := anchors.accept(self.id or self._create(), other, model, who, why):
            raise UserError(f"{model}: the acceptance was not noted in git: {reason}")

    def intact(self, model: str) -> Chain:
        """The chain of one registered model. Raises UserError where it is damaged."""
        chain = self.chain(model)
        if chain.problems:
            raise UserError(
                f"{model}: the ledger at {self.place} is damaged: {'; '.join(chain.problems[:3])}; see "
                "`tohum ledger`, and restore it from a backup"
            )
        return chain

    def append(self, entry: Entry) -> None:
        """Writes an entry under its number.

        Raises:
            LostError: there is another entry of that number.
            UserError: the server refuses this user, or the entry is too long.
        """
        *parts, (key, own) = entry.texts().items()
        run = self.id or self._create()
        try:
            for name, text in parts:  # not as a batch: MLflow refuses one where somebody else writes an equal part
                self.client.log_param(run, name, text)
            self.client.log_param(run, key, own)
        except MlflowException as error:
            if error.error_code == "PERMISSION_DENIED":
                raise UserError(
                    f"MLflow at {self.place} does not let you write to experiment {EXPERIMENT}; nothing was "
                    "decided: ask its administrator for EDIT on it"
                ) from None
            if self.texts().get(key) is None:
                raise
        if self.texts().get(key) != own:  # whatever the answer was: the store says which entry is there
            first = next((other for other in self.chain(entry.model).entries if other.n == entry.n), None)
            by = (
                f"{_NOUNS[first.action]} of version {first.version} by {first.who}, {first.when}"
                if first
                else "another one"
            )
            raise LostError(
                f"{entry.model}: decided at the same time: entry {entry.n} of the ledger is {by}; nothing "
                "was changed by you: review again"
            )

    def _create(self) -> str:
        """Makes the ledger, or finds the one that somebody else has just made; returns its id."""
        client = self.client
        name = f"{EXPERIMENT}-{uuid.uuid4().hex}"
        experiment = client.create_experiment(name, tags={"mlflow.note.content": _ABOUT})
        tags = {"mlflow.note.content": _ABOUT, "mlflow.user": getpass.getuser()}
        run = client.create_run(experiment, tags=tags, run_name="ledger").info.run_id
        client.set_terminated(run)
        client.set_experiment_tag(experiment, RUN, run)
        with contextlib.suppress(MlflowException):
            client.rename_experiment(experiment, EXPERIMENT)
        for attempt in range(5):
            if self.id:
                break
            time.sleep(0.1 * 2**attempt)
        if self.id != run:
            client.delete_experiment(experiment)
        if not self.id:
            raise UserError(f"MLflow at {self.place}: experiment {EXPERIMENT} could not be made; nothing was decided")
        return self.id


def _named(model: str) -> str:
    """A registered model as the argument of a command."""
    return shlex.quote(f"models:/{model}")
