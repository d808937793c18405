"""The alias `champion` beside the ledger: compared with it, and moved to the champion that it says."""

from collections.abc import Sequence

from mlflow.entities.model_registry import ModelVersion, RegisteredModel

from pipeline.errors import UserError
from pipeline.registry import identity
from pipeline.registry.ledger import Chain
from pipeline.registry.store import CHAMPION, MODEL, STORED, VERSION, Store, deciding, unlike


class ChampionAlias(Store):
    """Check and repair of the alias of every model of one store."""

    def check(self, models: Sequence[str] = ()) -> dict[str, str]:
        """Registered models whose alias or ledger is not right -> the reason; all of the store, or only the named."""
        texts = self.ledger.texts()
        wanted = {self.name(model) for model in models}
        wrong = {}
        for name in sorted(wanted or {str(model.name) for model in self._registered()}):
            chain = self.ledger.chain(name, texts)
            reasons = [f"the ledger is damaged: {problem}" for problem in chain.problems]
            if not reasons:
                champion = self.at(f"models:/{name}", CHAMPION)
                reasons = [why for why in (unlike(champion, chain), self._mislabelled(champion, chain)) if why]
            doubts = ((entry.n, identity.doubt(self.params.review, entry)) for entry in deciding(chain))
            reasons += [f"entry {n} {why}" for n, why in doubts if why]
            if reasons:
                wrong[name] = "; ".join(reasons)
        return wrong

    def repair(self, model: str) -> ModelVersion | None:
        """Moves the alias to the ledger's champion. Raises UserError where the ledger is damaged or has none."""
        name = self.name(model)
        if not self.ledger.intact(name).champions():
            raise UserError(
                f"{name}: the ledger has no champion to put back; promote one (tohum review), adopt it "
                "(tohum registry adopt), or remove the alias in MLflow"
            )
        return self.follow(name)

    def follow(self, name: str) -> ModelVersion | None:
        """Moves the alias until it is the champion of the ledger, read after each move; returns the champion."""
        while approvals := self.ledger.intact(name).champions():
            there = self.at(f"models:/{name}", CHAMPION)
            if there is not None and str(there.version) == approvals[-1].version:
                return there
            self.client.set_registered_model_alias(name, CHAMPION, approvals[-1].version)
        return None

    def _mislabelled(self, champion: ModelVersion | None, chain: Chain) -> str:
        """The rest of a sentence that says which tag of the champion differs from its approval; empty: none does."""
        approvals = chain.champions()
        if champion is None or not approvals or str(champion.version) != approvals[-1].version:
            return ""
        entry, tags = approvals[-1], champion.tags
        if not self.is_ours(champion):
            return ""
        pairs: list[tuple[str, str | None, str | None]] = [(VERSION, tags.get(VERSION), entry.version_sha256)]
        pairs += [(STORED if STORED in tags else MODEL, tags.get(STORED, tags.get(MODEL)), entry.evaluated_sha256)]
        return next(
            (
                f"tag {tag} of version {entry.version} is {found or 'missing'}, approved was {approved} (entry "
                f"{entry.n}): the tag was changed; set it back in MLflow"
                for tag, found, approved in pairs
                if found != approved
            ),
            "",
        )

    def _registered(self) -> list[RegisteredModel]:
        """Every registered model of the store."""
        models: list[RegisteredModel] = []
        token = None
        while True:
            page = self.client.search_registered_models(max_results=500, page_token=token)
            models += page
            token = page.token
            if not token:
                return models
