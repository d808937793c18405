"""The registry: which models may be used, by whose word, and byte for byte which.

    python -m stages.register                              candidates, from models whose gate passed
    python -m pipeline.registry list                       versions and aliases
    python -m pipeline.registry review MODEL               the candidate's card, beside the champion
    python -m pipeline.registry promote MODEL VERSION --sha256 HASH
    python -m pipeline.registry rollback MODEL             back to the champion before
    python -m pipeline.registry start MODEL                the champion as the start of the next graph

A version is one content: its SHA-256 is a tag, equal bytes give the version that is already there, and an
approval names the hash it approves. The alias `candidate` is what was registered last, `champion` what may
serve. Aliases are last-writer-wins in MLflow: promotions take a lock, and only the candidate can be promoted.
"""

import argparse
import contextlib
import fcntl
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "60")  # uploads are large, a person is waiting
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
os.environ.setdefault("DO_NOT_TRACK", "1")

import mlflow
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from pipeline import config, files, model_card
from pipeline.config import Params, UserError
from pipeline.model_card import Facts
from pipeline.packing import pack

CANDIDATE, CHAMPION = "candidate", "champion"
CONTENT = "content_sha256"
CACHE = Path(".tohum/registry")
_DESCRIPTION = 4900  # MLflow's column holds 5000 characters


class Registry:
    """The models of one project in one MLflow store."""

    def __init__(self, params: Params) -> None:
        tracking = params.runtime.tracking
        self._params = params
        self._uri = tracking.uri
        mlflow.set_tracking_uri(tracking.uri)
        mlflow.set_registry_uri(tracking.uri)
        self._client = MlflowClient(tracking.uri, tracking.uri)

    def name(self, model: str) -> str:
        """The registered model's name: `<register.name>-<model>`."""
        prefix = f"{self._params.register_.name}-"
        return model if model.startswith(prefix) else prefix + model

    def register(self, facts: Facts, folder: Path) -> tuple[ModelVersion, bool]:
        """The version with these bytes, made if there is none yet (then True); it becomes the candidate."""
        name = self.name(facts.model)
        with _lock():
            known = next((v for v in self.versions(facts.model) if v.tags.get(CONTENT) == facts.sha256), None)
            made = known or self._create(name, facts, folder)
            self._client.set_registered_model_alias(name, CANDIDATE, made.version)
        return self._client.get_model_version(name, made.version), known is None

    def versions(self, model: str) -> list[ModelVersion]:
        """Every version of a model, newest first; none if it was never registered."""
        found = self._client.search_model_versions(f"name = '{self.name(model)}'")
        return sorted(found, key=lambda version: int(version.version), reverse=True)

    def at(self, model: str, alias: str) -> ModelVersion | None:
        """The version that an alias points to."""
        try:
            return self._client.get_model_version_by_alias(self.name(model), alias)
        except MlflowException as error:
            if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                return None
            raise

    def review(self, model: str) -> str:
        """The candidate's card, its numbers beside the champion's, and the command that approves it."""
        candidate = self._need(model, CANDIDATE, "register it first: python -m stages.register")
        champion = self.at(model, CHAMPION)
        with self.stored(candidate, "model_card.md") as path:
            card = path.read_text(encoding="utf-8")
        new = self._numbers(candidate)
        old = self._numbers(champion) if champion else {}
        rows = [f"  {key:<32}{new.get(key, float('nan')):>14.6g}{old.get(key, float('nan')):>14.6g}"
                for key in sorted({*new, *old})]  # fmt: skip
        standing = f"version {champion.version}" if champion else "none yet"
        return "\n".join([
            card,
            f"candidate version {candidate.version}, champion {standing}",
            f"  {'measure':<32}{'candidate':>14}{'champion':>14}", *rows, "",
            "to approve exactly these bytes:",
            f"  python -m pipeline.registry promote {model} {candidate.version} "
                f"--sha256 {candidate.tags[CONTENT]}",
        ])  # fmt: skip

    def promote(self, model: str, version: str, sha256: str) -> ModelVersion:
        """Makes the candidate the champion if its stored bytes have the approved hash.

        Raises:
            UserError: not the candidate, another hash, or stored bytes that are not what the tag says.
        """
        with _lock():
            candidate = self._need(model, CANDIDATE, "register it first: python -m stages.register")
            if str(candidate.version) != str(version):
                raise UserError(
                    f"{candidate.name}: version {version} is not the candidate, {candidate.version} is; "
                    f"review it: python -m pipeline.registry review {model}"
                )
            if candidate.tags.get(CONTENT) != sha256:
                raise UserError(
                    f"{candidate.name} version {version}: content sha256 is {candidate.tags.get(CONTENT)}, "
                    f"approved was {sha256}; review it again"
                )
            return self._crown(model, candidate, f"sha256 {sha256}")

    def rollback(self, model: str) -> ModelVersion:
        """Gives the alias back to the champion before. Raises UserError if there was none."""
        with _lock():
            champion = self._need(model, CHAMPION, "promote one first")
            before = champion.tags.get("tohum.champion_before")
            if not before:
                raise UserError(
                    f"{champion.name}: version {champion.version} is the first champion; nothing to go back to"
                )
            version = self._client.get_model_version(champion.name, before)
            return self._crown(model, version, f"rolled back from {champion.version}", rolled_back=True)

    def download(self, uri: str) -> Path:
        """The folder of `models:/<name>@<alias>` or `models:/<name>/<version>`, verified, cached locally."""
        version = self._version(uri)
        content = version.tags.get(CONTENT, "")
        target = CACHE / content / version.tags.get("tohum.model", version.name)
        if not (target.is_dir() and files.sha256_of(target) == content):
            with self._verified(version) as stored, files.replace_folder(target) as temporary:
                shutil.copytree(stored, temporary, dirs_exist_ok=True)
        return target

    def start(self, model: str) -> str:
        """Fetches the champion; the lines of params.yaml that start `base` from it, pinned by its hash.

        Raises:
            UserError: there is no champion of this model.
        """
        from pipeline.model.checkpoint import weights_sha256  # torch, which no other command needs

        if self.at(model, CHAMPION) is None:
            raise UserError(f"{self.name(model)}: has no champion yet; promote a candidate first (registry review)")
        folder = self.download(f"models:/{self.name(model)}@{CHAMPION}")
        return (
            "# in params.yaml; the same command on another machine fetches the same bytes\n"
            f"tokenize: {{method: folder, vocab_size: null, pattern: null, path: {folder}, sha256: null}}\n"
            f"pretrain.start: {{kind: folder, path: {folder}, revision: null, "
            f"sha256: {weights_sha256(folder)}, licence: <as its card says>, zero_projections: false}}\n"
            "# pretrain.schedule.steps: 0 takes it as it is; with steps, pretrain.ordering mixture replays old text"
        )

    def verify(self, version: ModelVersion) -> None:
        """Reads the stored bytes again and compares their hash with the tag.

        Raises:
            UserError: the store holds other bytes than were registered.
        """
        with self._verified(version):
            pass

    @contextlib.contextmanager
    def _verified(self, version: ModelVersion) -> Iterator[Path]:
        with self.stored(version, f"artifacts/{version.tags.get('tohum.model')}") as folder:
            found, expected = files.sha256_of(folder), version.tags.get(CONTENT)
            if found != expected:
                raise UserError(
                    f"{version.name} version {version.version}: the stored bytes have sha256 {found}, the "
                    f"version says {expected}; the store was changed or damaged: register the model again"
                )
            yield folder

    def _crown(self, model: str, version: ModelVersion, why: str, rolled_back: bool = False) -> ModelVersion:
        self.verify(version)
        before, name, client = self.at(model, CHAMPION), version.name, self._client
        if before is not None and before.version == version.version:
            return version
        now = datetime.now(UTC).isoformat(timespec="seconds")
        if before is not None:
            client.set_model_version_tag(name, before.version, "tohum.status", f"retired {now}")
            if not rolled_back:
                client.set_model_version_tag(name, version.version, "tohum.champion_before", str(before.version))
        client.set_model_version_tag(name, version.version, "tohum.status", f"champion {now}, {why}")
        client.set_registered_model_alias(name, CHAMPION, version.version)
        standing = self.at(model, CHAMPION)
        if standing is None or standing.version != version.version:
            raise UserError(
                f"{name}: the alias {CHAMPION} was moved by somebody else at the same moment; look at "
                "`python -m pipeline.registry list` and repeat"
            )
        return standing

    def _create(self, name: str, facts: Facts, folder: Path) -> ModelVersion:
        """Uploads the folder once and makes a version of it; an upload that a kill orphaned is used again."""
        client = self._client
        experiment = self._experiment()
        run_id = self._maker(facts, experiment)
        query = f"params.sha256 = '{facts.sha256}' and tags.`tohum.by` = 'upload'"
        found = client.search_logged_models([experiment], query)
        stored = next((one for one in found if str(one.status) == "READY"), None)
        stored = stored or self._upload(name, facts, folder, experiment, run_id)
        with contextlib.suppress(MlflowException):
            client.create_registered_model(name)  # there already, or the next call says why not
        tags = {CONTENT: facts.sha256, "tohum.model": facts.model, **facts.tags}
        tags |= {f"gate.{gate}": model_card.lineage.verdict_summary(v) for gate, v in facts.gates.items()}
        if uid := facts.runs.get(facts.stages[-1], {}).get("run_uid"):
            tags["tohum.run_uid"] = uid
        card = model_card.render(facts, name)
        if len(card) > _DESCRIPTION:
            card = card[:_DESCRIPTION] + "\n\n(cut; whole in model_card.md)"
        return client.create_model_version(
            name, f"models:/{stored.model_id}", run_id, tags, description=card, model_id=stored.model_id
        )

    def _upload(self, name: str, facts: Facts, folder: Path, experiment: str, run_id: str | None) -> Any:
        client = self._client
        made = client.create_logged_model(
            experiment, name, run_id, tags={"tohum.by": "upload"}, model_type=facts.task.get("objective"),
            params={"sha256": facts.sha256, "path": folder.as_posix()},
        )  # fmt: skip
        with tempfile.TemporaryDirectory(prefix="tohum-") as scratch:
            packed = Path(scratch) / "model"
            pack(folder, packed, facts.task)
            card = model_card.render(facts, name)
            files.write_text(packed / "model_card.md", card)
            files.write_json(packed / "metrics.json", facts.metrics)
            client.log_model_artifacts(made.model_id, str(packed))
        if run_id is not None:
            now = int(datetime.now(UTC).timestamp() * 1000)
            client.log_batch(
                run_id,
                [
                    mlflow.entities.Metric(key, value, now, 0, model_id=made.model_id)
                    for key, value in facts.metrics.items()
                ],
            )
        return client.finalize_logged_model(made.model_id, "READY")

    def _experiment(self) -> str:
        name = self._params.runtime.tracking.experiment
        found = self._client.get_experiment_by_name(name)
        if found is not None:
            return str(found.experiment_id)
        place = Path("mlartifacts").absolute().as_uri() if self._uri.startswith("sqlite") else None
        return str(self._client.create_experiment(name, artifact_location=place))

    def _maker(self, facts: Facts, experiment: str) -> str | None:
        """The MLflow run of the stage that made the bytes, named by its (perhaps restored) run record."""
        uid = facts.runs.get(facts.stages[-1], {}).get("run_uid")
        if not uid:
            return None
        runs = self._client.search_runs([experiment], f"tags.`tohum.run_uid` = '{uid}'", max_results=1)
        return str(runs[0].info.run_id) if runs else None

    def _need(self, model: str, alias: str, advice: str) -> ModelVersion:
        found = self.at(model, alias)
        if found is None:
            raise UserError(f"{self.name(model)}: no {alias} in the registry at {self._uri}; {advice}")
        return found

    def _version(self, uri: str) -> ModelVersion:
        rest = uri.removeprefix("models:/")
        name, at, alias = rest.partition("@")
        version = None
        with contextlib.suppress(MlflowException):
            if at:
                version = self._client.get_model_version_by_alias(name, alias)
            else:
                name, _, number = rest.partition("/")
                version = self._client.get_model_version(name, number)
        if version is None:
            raise UserError(
                f"{uri}: not in the registry at {self._uri}; `python -m pipeline.registry list` shows "
                "what is, as models:/<name>@candidate or models:/<name>/<version>"
            )
        return version

    @contextlib.contextmanager
    def stored(self, version: ModelVersion, path: str = "") -> Iterator[Path]:
        """A fresh local copy of what the store holds of a version, gone when the block ends."""
        uri = f"models:/{version.name}/{version.version}"
        CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
            try:
                copy = mlflow.artifacts.download_artifacts(
                    f"{uri}/{path}".rstrip("/"), dst_path=scratch, tracking_uri=self._uri
                )
            except (MlflowException, OSError) as error:
                raise UserError(f"{uri}: {path} cannot be read from the store: {error}") from None
            yield Path(copy)

    def _numbers(self, version: ModelVersion) -> dict[str, float]:
        with self.stored(version, "metrics.json") as path:
            return files.read_json(path)


def download(uri: str, params: Params) -> Path:
    """See Registry.download: a verified local folder, named after the model."""
    return Registry(params).download(uri)


@contextlib.contextmanager
def _lock() -> Iterator[None]:
    """One writer of aliases at a time in this project."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("a") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def _listing(registry: Registry, models: list[str]) -> str:
    lines = [f"{'model':<28}{'version':>8}  {'alias':<20}{'sha256':<14}status"]
    for model in models:
        standing = {alias: found.version for alias in (CANDIDATE, CHAMPION) if (found := registry.at(model, alias))}
        for version in registry.versions(model):
            names = ", ".join(alias for alias, number in standing.items() if number == version.version)
            lines.append(
                f"{version.name:<28}{version.version:>8}  {names:<20}{version.tags.get(CONTENT, '')[:12]:<14}"
                f"{version.tags.get('tohum.status', '')}"
            )
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """The command line; 0 done, 1 refused (the reason on stderr), 2 wrong usage."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.registry", description=(__doc__ or "").split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="versions and aliases of every model of params.yaml")
    abouts = {
        "start": "the champion as a start: fetches it and prints the lines for params.yaml",
        "review": "the candidate's card beside the champion",
        "promote": "make the candidate the champion",
        "rollback": "back to the champion before",
    }
    for command, about in abouts.items():
        sub = commands.add_parser(command, help=about)
        sub.add_argument("model", help="a model of the graph, such as spam-lora")
        if command == "promote":
            sub.add_argument("version", help="the version you reviewed")
            sub.add_argument("--sha256", required=True, help="the content hash you approve, from `review`")
    options = parser.parse_args(arguments)
    try:
        params = config.load()
        registry = Registry(params)
        if options.command == "list":
            print(_listing(registry, list(params.evaluations)))
        elif options.command == "start":
            print(registry.start(options.model))
        elif options.command == "review":
            print(registry.review(options.model))
        else:
            extra = (options.version, options.sha256) if options.command == "promote" else ()
            champion = getattr(registry, options.command)(options.model, *extra)
            print(f"{champion.name}: version {champion.version} is the champion")
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
