"""The life cycle of a registered model: register, review, download, export, start of a training; see decisions.py."""

import contextlib
import fcntl
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mlflow.entities.model_registry import ModelVersion

from pipeline import files
from pipeline.config.params import Params
from pipeline.errors import UserError
from pipeline.registry import dossier, shadow, uploads
from pipeline.registry.card import Facts
from pipeline.registry.contents import Contents
from pipeline.registry.decisions import Decisions
from pipeline.registry.ledger import key_of
from pipeline.registry.store import CACHE, CANDIDATE, CHAMPION, MODEL, STORED, VERSION, reachable


class Registry(Decisions):
    """The registered models of one project in one MLflow store."""

    def register(self, facts: Facts, folder: Path) -> tuple[ModelVersion, bool]:
        """Makes the version with this model the candidate; it is uploaded (then True) if there is no undamaged one."""
        name = self.name(facts.model)
        with _lock():
            known = self._known(facts)
            candidate = known or uploads.create(self, name, facts, folder)
            self.client.set_registered_model_alias(name, CANDIDATE, candidate.version)
        return self.client.get_model_version(name, candidate.version), known is None

    def review(self, model: str) -> str:
        """The candidate's card, its figures beside the champion's, the policy's result, and the commands that decide.

        All of it is read from files that `version_sha256` covers; of a champion that fails its check the name is shown.

        Raises:
            UserError: there is no candidate, or its files differ from the registered ones.
        """
        return dossier.in_words(dossier.dossier(self, model), shadow.of_registry(self, model))

    def judge(self, model: str, version: str = "", sha256: str = "") -> dict[str, Any]:
        """The policy's result for the candidate of a model (policy.py); {} for a model that is not of this project.

        Args:
            model: its name.
            version: number of the version that is decided on; empty: any.
            sha256: hash over its files; empty: any.

        Raises:
            UserError: the candidate that was judged is another version or has other files.
        """
        name = self.name(model)
        if not name.startswith(f"{self.params.register_.name}-"):
            return {}
        judged = dossier.dossier(self, name)
        if version and (str(judged.candidate.version), judged.version_sha256) != (version, sha256):
            raise UserError(
                f"{name}: the candidate became version {judged.candidate.version}, {VERSION} {judged.version_sha256}, "
                f"while version {version} was decided on; nothing was changed: review it again, tohum review {model}"
            )
        return judged.policy

    def download(self, uri: str) -> Path:
        """The folder of `models:/<name>@<alias>` or `models:/<name>/<version>`, verified, cached locally.

        Raises:
            UserError: no such version, other files than were registered, or a champion that is not the approved one.
        """
        version, champion = self.find(uri), uri.endswith(f"@{CHAMPION}")
        if not self.is_ours(version):
            with self.opened(version, approved=champion) as (folder, sealed):
                target = CACHE / sealed.version_sha256 / key_of(version.name)
                with files.replace_folder(target) as temporary:
                    shutil.copytree(folder, temporary, dirs_exist_ok=True)
            return target
        sha256, model = version.tags.get(MODEL, ""), version.tags.get("tohum.model", "")
        approved = self._require_approved(version).version_sha256 if champion else version.tags.get(VERSION)
        target, receipt = CACHE / sha256 / model, CACHE / "checked" / f"{approved}.json"
        # A receipt names the model of a version whose files this computer has read; the copy is read again each time.
        # A champion's is that of the approved hash: tags can be edited, and other tags than its own are refused below.
        known = _read(receipt) == {"model": model, "model_sha256": sha256} and version.tags.get(VERSION) == approved
        if not (known and target.is_dir() and files.sha256_of(target) == sha256):
            with self.opened(version, approved=champion) as (folder, sealed):
                target = CACHE / sealed.model_sha256 / sealed.model
                with files.replace_folder(target) as temporary:
                    shutil.copytree(folder / "artifacts" / sealed.model, temporary, dirs_exist_ok=True)
                files.write_json(receipt, {"model": sealed.model, "model_sha256": sealed.model_sha256})
        return target

    def export(self, model: str, target: Path) -> Contents:
        """Copies all files of a version to a new folder, verified, from which MLflow itself can load and serve it.

        Args:
            model: a model (its champion, else its candidate) or `models:/<name>@<alias>`, `models:/<name>/<version>`.
            target: a folder that is not there yet.

        Raises:
            UserError: as `download`, or the folder is there.
        """
        if target.exists():
            raise UserError(f"{target}: is there already; name a new folder, or remove this one")
        if not re.fullmatch("models:/.*[@/].*", model):
            model = f"models:/{self.name(model)}@{CHAMPION if self.at(model, CHAMPION) else CANDIDATE}"
        opened = self.opened(self.find(model), approved=model.endswith(f"@{CHAMPION}"))
        with opened as (folder, sealed), files.replace_folder(target) as temporary:
            shutil.copytree(folder, temporary, dirs_exist_ok=True)
        return sealed

    def start(self, model: str) -> str:
        """Downloads the champion; returns the lines of params.yaml that start `base` from it, pinned by its hash.

        Raises:
            UserError: there is no champion of this model.
        """
        from pipeline.model import open_weights  # imports torch, which the other commands do not need
        from pipeline.tokenizer import adopted

        if self.at(model, CHAMPION) is None:
            raise UserError(f"{self.name(model)}: has no champion yet; promote a candidate first (tohum review)")
        folder = self.download(f"models:/{self.name(model)}@{CHAMPION}")
        return (
            "# in params.yaml; the same command on another machine fetches the same bytes\n"
            f"tokenize: {{method: folder, vocab_size: null, pattern: null, path: {folder}, "
            f"sha256: {adopted.pin(folder)}}}\n"
            f"pretrain.start: {{kind: folder, path: {folder}, revision: null, "
            f"sha256: {open_weights.pin(folder)}, licence: <as its card says>, zero_projections: false}}\n"
            "# pretrain.schedule.steps: 0 keeps its weights; with more, ordering mixture can replay the old text"
        )

    def _known(self, facts: Facts) -> ModelVersion | None:
        """The newest version of this model with all files as registered; None if there is none."""
        for version in self.versions(facts.model):
            if facts.sha256 in (version.tags.get(MODEL), version.tags.get(STORED)):
                try:
                    self.verify(version)
                    return version
                except UserError as error:
                    print(f"warning: {error}; it is registered again", file=sys.stderr)
        return None

    def require(self, model: str, alias: str, advice: str) -> ModelVersion:
        """The version that an alias points to. Raises UserError with advice where there is none."""
        version = self.at(model, alias)
        if version is None:
            raise UserError(f"{self.name(model)}: no {alias} in the registry at {self.place}; {advice}")
        return version


def download(uri: str, params: Params) -> Path:
    """A verified local folder, named after the model: see Registry.download."""
    with reachable(params.runtime.tracking.uri):
        return Registry(params).download(uri)


def _read(receipt: Path) -> Any:
    with contextlib.suppress(OSError, ValueError):
        return files.read_json(receipt)
    return None


@contextlib.contextmanager
def _lock() -> Iterator[None]:
    """One registration at a time in this project: two would upload the same version twice."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("a") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield
