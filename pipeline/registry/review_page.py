"""The review page of a candidate: its model page with the champion, the policy's result, the decision and the costs.

It lies outside the graph (reports/review), because the champion does. The figures beside the champion are those of the
dossier; samples, curve and lineage come from the files of the graph, which must be those that the candidate was
registered from.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from pipeline import files
from pipeline.errors import UserError
from pipeline.paths import MODELS, REVIEWS
from pipeline.registry import dossier, shadow
from pipeline.registry.store import MODEL, STORED
from pipeline.reporting import model_page

if TYPE_CHECKING:
    from pipeline.registry.lifecycle import Registry


def write(registry: "Registry", model: str) -> Path:
    """Writes the page of a model's candidate and returns its path.

    Raises:
        UserError: there is no candidate, its files differ from the registered ones, or this checkout holds another
            model of that name.
    """
    shown = dossier.dossier(registry, model)
    candidate, folder = shown.candidate, MODELS / model
    registered = candidate.tags.get(STORED) or candidate.tags.get(MODEL, "")
    here = files.sha256_of(folder) if folder.is_dir() else "nothing"
    if here != registered:
        raise UserError(
            f"{folder}: has sha256 {here}, version {candidate.version} was registered from {registered}; its samples "
            "and lineage lie in the checkout that registered it: `git checkout` the version's commit, `dvc checkout`"
        )
    review = model_page.Review(
        policy=shown.policy,
        champion=None if shown.champion is None else f"{shown.champion.version}",
        version=str(candidate.version),
        sha256=shown.version_sha256,
        command=dossier.approval(shown),
        shadow=shadow.of_registry(registry, model),
    )
    page = REVIEWS / f"{model}.html"
    files.write_text(page, model_page.render(model, registry.params, review=review))
    return page
