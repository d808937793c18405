"""Decisions on registered versions: approve, reject, roll back, adopt. Each is an entry of the ledger, then shown.

The entry decides (ledger_store.py: one writer of entry n on all machines); the alias `champion` and the tags follow it.
A process that ends in between leaves an alias that no loader takes until `tohum registry check --repair`.
"""

import contextlib
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, NamedTuple

from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from pipeline import files
from pipeline.errors import UserError
from pipeline.registry import anchors, contents, identity, notice
from pipeline.registry.champion_alias import ChampionAlias
from pipeline.registry.identity import Person
from pipeline.registry.ledger import Action, Chain, Entry
from pipeline.registry.store import (
    APPROVED,
    CANDIDATE,
    CHAMPION,
    MODEL,
    STORED,
    VERSION,
    unlike,
    without_credentials,
)


class _Seen(NamedTuple):
    """The version that a decision is about, as its files say."""

    version: ModelVersion
    sha256: str
    evaluated: str | None
    figures: Mapping[str, Any]


class Decisions(ChampionAlias):
    """The decisions on the models of one store."""

    def promote(  # noqa: PLR0913 - each is a field of the entry
        self,
        model: str,
        version: str,
        sha256: str,
        why: str,
        *,
        despite: str = "",
        policy: Mapping[str, Any] | Callable[[], Mapping[str, Any]] | None = None,
        by: Person | None = None,
    ) -> ModelVersion:
        """Makes a version the champion if its files have the approved hash.

        Args:
            model: a model of this project, whose candidate it must be, or `models:/<name>`, any registered model.
            version: its number.
            sha256: the hash over its files that the person approves.
            why: the reason.
            despite: why it is approved although the policy is not met, or it was rejected.
            policy: result of the policy (policy.py), or a function that computes it once the ledger was read, so that
                no decision in between goes unseen; None: none is computed.
            by: the person; None: the one who runs this process.

        Raises:
            UserError: not the candidate, another hash, files that differ from the registered ones, the champion
                already, a policy that is not met, or somebody else decided first.
        """
        name = self.name(model)
        chain = self.ledger.intact(name)
        found = self._version(name, version)
        candidate = self.at(f"models:/{name}", CANDIDATE)
        if self.is_ours(found) and (candidate is None or str(candidate.version) != str(version)):
            other = "there is none: tohum register" if candidate is None else f"{candidate.version} is"
            raise UserError(f"{name}: version {version} is not the candidate, {other}; review it: tohum review {model}")
        seen = self._seen(found)
        if seen.sha256 != sha256:
            raise UserError(
                f"{name} version {version}: {VERSION} is {seen.sha256}, approved was {sha256}; "
                f"review it again: tohum review {model}"
            )
        result = policy() if callable(policy) else policy or {}
        approvals = chain.champions()
        if approvals and approvals[-1].version == str(version):
            raise UserError(
                f"{name}: version {version} is the champion already ({approvals[-1].who}, "
                f"{approvals[-1].when}); nothing was changed"
            )
        doubts = [f"the policy is not met: {_broken(result)}"] if result.get("outcome") == "not met" else []
        if rejection := chain.rejection(str(version)):
            doubts.append(f"it was rejected by {rejection.who}, {rejection.when}: {rejection.why}")
        if doubts and not despite.strip():
            raise UserError(
                f"{name} version {version}: {'; '.join(doubts)}; nothing was changed: to approve it all "
                "the same, say why: --despite TEXT"
            )
        return self._decide(chain, "approve", seen, why, despite=despite, policy=result, by=by)

    def reject(self, model: str, version: str, why: str, *, by: Person | None = None) -> ModelVersion:
        """Records that a version may not be the champion; it can be approved later only with a reason of its own."""
        name = self.name(model)
        chain = self.ledger.intact(name)
        found = self._version(name, version)
        approvals = chain.champions()
        if approvals and approvals[-1].version == str(version):
            raise UserError(f"{name}: version {version} is the champion; roll back first: tohum rollback {model}")
        try:
            seen = self._seen(found)
        except UserError:  # a damaged version may be rejected, too
            seen = _Seen(found, found.tags.get(VERSION, ""), found.tags.get(STORED, found.tags.get(MODEL)), {})
        return self._decide(chain, "reject", seen, why, by=by)

    def rollback(self, model: str, why: str, *, despite: str = "", by: Person | None = None) -> ModelVersion:
        """Makes the champion before the champion again.

        Raises:
            UserError: there is none, its files changed, or it was rejected since and `despite` says no reason.
        """
        name = self.name(model)
        chain = self.ledger.intact(name)
        approvals = chain.champions()
        if len(approvals) < 2:
            about = f"version {approvals[0].version} is the first champion" if approvals else "has no champion"
            raise UserError(f"{name}: {about}; there is none to roll back to")
        before = approvals[-2]
        if (rejection := chain.rejection(before.version)) and not despite.strip():
            raise UserError(
                f"{name} version {before.version}: it was rejected by {rejection.who}, {rejection.when}: "
                f"{rejection.why}; nothing was changed: promote another version, or, to roll back to it all the same, "
                "say why: --despite TEXT"
            )
        seen = self._seen(self._version(name, before.version))
        if seen.sha256 != before.version_sha256:
            raise UserError(
                f"{name} version {before.version}: {VERSION} is {seen.sha256}, approved was "
                f"{before.version_sha256}; promote another version"
            )
        return self._decide(chain, "roll back", seen, why, despite=despite, by=by)

    def adopt(self, model: str, why: str, *, by: Person | None = None) -> ModelVersion:
        """Takes a champion from before there was a ledger into it, with the files that it has now.

        Raises:
            UserError: no champion, one that the ledger knows, or (of this project) without a recorded approval.
        """
        name = self.name(model)
        chain = self.ledger.intact(name)
        found = self.at(f"models:/{name}", CHAMPION)
        if found is None:
            raise UserError(f"{name}: no champion to adopt; promote a version: tohum review {model}")
        if chain.champions():
            raise UserError(f"{name}: the ledger has a champion; {unlike(found, chain) or 'the alias is right'}")
        seen = self._seen(found)
        if self.is_ours(found) and found.tags.get(APPROVED) != seen.sha256:
            raise UserError(
                f"{name} version {found.version}: {VERSION} is {seen.sha256}, approved was "
                f"{found.tags.get(APPROVED, 'none')}; promote it: tohum review {model}"
            )
        return self._decide(chain, "adopt", seen, why, by=by)

    def person(self, via: str = "") -> Person:
        """The person who runs this process, or an unknown one.

        Args:
            via: the program that passes the decision on and knows no person, such as Prefect's page; empty: none does.

        Raises:
            UserError: `review.identity` needs a proof of who decides, and there is none.
        """
        review = self.params.review
        signing = review.signing
        if via:
            person = Person(f"unverified: {via}", "unverified")
        else:
            person = identity.present(self.uri, None if signing is None else signing.key, review.signers)
        if review.identity == "verified" and person.identity == "unverified":
            raise UserError(
                "review.identity in params.yaml needs a proof of who decides: log in to MLflow's server "
                "(MLFLOW_TRACKING_USERNAME) or set review.signing to {key: path}, then decide by a command: "
                "tohum promote, tohum reject"
            )
        return person

    def _decide(  # noqa: PLR0913 - each is a field of the entry
        self,
        chain: Chain,
        action: Action,
        seen: _Seen,
        why: str,
        *,
        despite: str = "",
        policy: Mapping[str, Any] | None = None,
        by: Person | None = None,
    ) -> ModelVersion:
        """Writes the entry, moves the alias, shows the decision on the version, then notes it outside the store."""
        if not why.strip():
            raise UserError("--reason is empty; say in a sentence why, it is kept with the decision")
        person = by or self.person()
        entry = Entry(
            n=len(chain.entries) + 1,
            model=chain.model,
            action=action,
            version=str(seen.version.version),
            version_sha256=seen.sha256,
            who=person.who,
            identity=person.identity,
            when=datetime.now(UTC).isoformat(timespec="seconds"),
            why=why.strip(),
            despite=despite.strip(),
            evaluated_sha256=seen.evaluated,
            figures=seen.figures,
            policy=policy or {},
            key=person.signer.public if person.signer else "",
            before=chain.head,
        ).sealed()
        if person.signer is not None:
            entry = replace(entry, signature=person.signer.sign(entry.hash))
        self.ledger.append(entry)
        try:  # the alias first: git may take a minute, and until the alias has moved no loader takes a champion
            if action != "reject":
                self.follow(chain.model)
            notice.show(self.client, entry, chain)
        except MlflowException as error:
            raise UserError(
                f"{chain.model}: entry {entry.n} is in the ledger, but MLflow does not let this user move "
                f"the alias or tag the version ({without_credentials(str(error))}); somebody with EDIT on the model "
                "finishes it: tohum registry check --repair"
            ) from None
        finally:  # also where the alias could not be moved: the entry is there
            self._anchor(entry)
        return self.client.get_model_version(chain.model, seen.version.version)

    def _anchor(self, entry: Entry) -> None:
        noted = "review.anchor is `print`"
        if self.params.review.anchor == "git-note":
            noted = anchors.add(self.ledger.id, entry)
        head = f"{entry.model}: entry {entry.n} of the ledger, head {entry.hash}"
        if noted:
            print(f"{head}; keep this line outside MLflow, it was not noted in git: {noted}", file=sys.stderr)
        else:
            print(f"{head}; noted in {anchors.REF}: share it, git push origin {anchors.REF}", file=sys.stderr)

    def _seen(self, version: ModelVersion) -> _Seen:
        with self.opened(version) as (folder, sealed):
            path = folder / contents.METRICS
            ours = self.is_ours(version)
            figures = files.read_json(path) if ours and path.is_file() else self._logged(version)
        evaluated = version.tags.get(STORED, sealed.model_sha256) if ours else None
        return _Seen(version, sealed.version_sha256, evaluated, figures)

    def _logged(self, version: ModelVersion) -> dict[str, float]:
        """Metrics of the run that a version came from."""
        with contextlib.suppress(MlflowException):
            if version.run_id:
                return dict(self.client.get_run(version.run_id).data.metrics)
        return {}

    def _version(self, name: str, number: str) -> ModelVersion:
        return self.find(f"models:/{name}/{number}")


def _broken(result: Mapping[str, Any]) -> str:
    """The rules that failed, in the policy's own sentences."""
    failed = [
        str(rule.get("sentence") or rule.get("rule")) for rule in result.get("rules", []) if rule.get("state") == "fail"
    ]
    return "; ".join(failed[:5]) or "no rule is named"
