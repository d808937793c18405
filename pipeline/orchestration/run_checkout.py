"""A checkout of its own for one run of a deployment, `.tohum/runs/<run>`, and the branch `run/<run>` it ends in.

A scheduled run never touches the working folder: it takes the newest commit, runs the graph in a git worktree below
`.tohum/runs`, and commits dvc.lock there, on a branch of its own. `save` pushes in this order: what dvc.lock names to
the DVC remote, then the commit, then the branch. A run that is killed in between leaves data without a commit, never a
commit without its data; the same run, started again, continues in the same folder.

The checkouts of a project share what makes a restart cheap: DVC's cache with its run cache, and those folders of
`.tohum` that are keyed by their content (training states, downloads, kept answers and measures, copies of registered
versions) or by the machine (secrets). The rest of `.tohum` is the checkout's own: locks are named after models, and
records for MLflow name files by relative paths.
"""

import configparser
import fcntl
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from pipeline.errors import UserError
from pipeline.files import remove
from pipeline.orchestration import dvc_lock
from pipeline.paths import (
    ANSWERS,
    DOWNLOADS,
    DVC_LOCK,
    MEASURES,
    PARAMS,
    QUEUE,
    REGISTRY,
    RUN_CHECKOUTS,
    SECRETS,
    STATE,
)

BRANCH = "run/"
KEPT_DAYS = 14
"""Age from which the checkout of a run that failed or was killed is removed; its training states last as long."""
_SHARED = (STATE, SECRETS, DOWNLOADS, ANSWERS, REGISTRY, MEASURES)
_IDENTITY = ("-c", "user.name=tohum", "-c", "user.email=tohum@localhost")
"""Author of a run's commit where git knows none."""


@dataclass(frozen=True)
class RunCheckout:
    """The checkout of one run."""

    project: Path
    """The folder that the worker runs in."""
    folder: Path
    branch: str
    start: str
    """The commit that the run began with."""
    git_remote: str | None
    """The remote that the branch is pushed to."""
    dvc_remote: bool
    """Whether DVC has a default remote."""
    notes: tuple[str, ...]
    """Sentences about what the run does not see, or does not push."""


@contextmanager
def opened(run: str, start: str | None = None) -> Iterator[RunCheckout]:
    """Makes the checkout of a run, or continues in it, and makes it the working folder for the block.

    Args:
        run: identifier of the run, part of folder and branch.
        start: a commit, branch or tag; None for the newer of the project's commit and its upstream branch, fetched.

    Raises:
        UserError: no git repository, no such commit, or a git or dvc command that failed. After any UserError, also of
            the block, a checkout in which no stage has run is removed.
    """
    project = Path.cwd().resolve()
    if _try(project, "git", "rev-parse", "--verify", "--quiet", "HEAD^{commit}") is None:
        raise UserError(f"{project}: no git repository with a commit, which a run on its own branch needs; commit once")
    runs = project / RUN_CHECKOUTS
    runs.mkdir(parents=True, exist_ok=True)
    with _locked(runs / f"{run}.lock", wait=False, busy=f"{runs / run}: another process works on this run"):
        with _locked(runs / "lock", wait=True):  # worktrees, fetches and branches of one repository, one at a time
            _tidy(project, runs)
            checkout = _made(project, runs / run, f"{BRANCH}{run}", start)
        os.chdir(checkout.folder)
        try:
            dvc_lock.repair()  # of a killed run that is started again
            _pull(checkout)
            yield checkout
        except UserError as error:
            if _has_run(checkout):  # results that are not saved, such as after a push to a remote that is away
                raise UserError(f"{error}; {checkout.folder} stays, and the same run, started again, goes on") from None
            close(checkout)
            raise
        finally:
            os.chdir(project)


def require_server(checkout: RunCheckout, registers: bool) -> None:
    """Refuses a store of MLflow that is a file of this checkout, which is removed after the run.

    Args:
        checkout: of the run.
        registers: whether the run registers versions; without that, and without records, no store is needed.

    Raises:
        UserError: params.yaml names a file.
    """
    try:
        params: Any = yaml.safe_load((checkout.folder / PARAMS).read_text(encoding="utf-8"))
        tracking = params["runtime"]["tracking"]
        enabled, uri = tracking["enabled"], str(tracking["uri"])
    except (OSError, yaml.YAMLError, KeyError, TypeError):
        return  # params.yaml is checked where the run's settings are written into it
    if (enabled or registers) and "://" in uri and not uri.startswith(("http://", "https://")):
        raise UserError(
            f"{PARAMS}: runtime.tracking.uri is {uri}, a file that other checkouts do not see; a deployment needs a "
            "server's address, such as http://127.0.0.1:5000 (tohum stack up, or tohum ui)"
        )


def save(checkout: RunCheckout, message: str) -> str:
    """Pushes the data, commits, pushes the branch; returns a sentence. Nothing is committed where nothing changed.

    Raises:
        UserError: a push failed; no commit without its data was made.
    """
    here = checkout.folder
    if checkout.dvc_remote:
        _run(here, "dvc", "push", "--quiet", "--run-cache")
    _run(here, "git", "add", "--update")
    records = [path.relative_to(here).as_posix() for path in (here / "inputs").rglob("*.dvc")]
    _run(here, "git", "add", "--", *[name for name in (DVC_LOCK.as_posix(), *records) if (here / name).is_file()])
    if _try(here, "git", "diff", "--cached", "--quiet") is None:
        known = _try(here, "git", "config", "user.email") is not None
        # no hooks: DVC's own would push once more, and a person's are about a person's commits
        _run(here, "git", *(() if known else _IDENTITY), "commit", "--quiet", "--no-verify", "--message", message)
    commit = _run(here, "git", "rev-parse", "HEAD")
    if commit == checkout.start:
        return "nothing changed: no commit"
    if checkout.git_remote is None or not checkout.dvc_remote:
        missing = "no git remote" if checkout.git_remote is None else "no default DVC remote (dvc remote add -d)"
        return f"commit {commit[:12]} on branch {checkout.branch}, here only: {missing}"
    _run(here, "git", "push", "--quiet", "--no-verify", checkout.git_remote, f"HEAD:refs/heads/{checkout.branch}")
    return f"commit {commit[:12]} on branch {checkout.branch}, pushed to {checkout.git_remote}"


def close(checkout: RunCheckout) -> None:
    """Removes a finished run's folder; its branch stays if it holds a commit of its own."""
    runs = checkout.project / RUN_CHECKOUTS
    with _locked(runs / "lock", wait=True):
        os.chdir(checkout.project)
        commit = _try(checkout.project, "git", "rev-parse", f"refs/heads/{checkout.branch}")
        _drop(checkout.project, checkout.folder)
        if commit == checkout.start:
            _try(checkout.project, "git", "branch", "--quiet", "-D", checkout.branch)
        remove(runs / f"{checkout.folder.name}.lock")


def _has_run(checkout: RunCheckout) -> bool:
    """Whether a stage has run in the checkout: a changed dvc.lock, a commit, or records for MLflow."""
    here = checkout.folder
    changed = _try(here, "git", "status", "--porcelain", "--", DVC_LOCK.as_posix())
    committed = _try(here, "git", "rev-parse", "HEAD") != checkout.start
    return bool(changed) or committed or any((here / QUEUE).glob("*.jsonl"))


def _made(project: Path, folder: Path, branch: str, start: str | None) -> RunCheckout:
    """Adds the worktree, unless an interrupted start of the same run has; links and settings are written anew."""
    remote, newest, notes = _newest(project)
    if _try(folder, "git", "rev-parse", "--show-toplevel") != str(folder):
        commit = _run(project, "git", "rev-parse", "--verify", f"{start or newest}^{{commit}}")
        _drop(project, folder)
        # the branch holds a commit where a kill came between commit and push: the run goes on from it
        exists = _try(project, "git", "rev-parse", "--verify", "--quiet", f"refs/heads/{branch}") is not None
        _run(
            project, "git", "worktree", "add", "--quiet", str(folder), *([branch] if exists else ["-b", branch, commit])
        )
    fork = _run(folder, "git", "merge-base", branch, start or newest)
    for shared in _SHARED:
        (project / shared).mkdir(parents=True, exist_ok=True, **({"mode": 0o700} if shared == SECRETS else {}))
        link = folder / shared
        link.parent.mkdir(parents=True, exist_ok=True)
        if not link.is_symlink():
            remove(link)
            link.symlink_to(project / shared, target_is_directory=True)
    has_remote = _write_dvc_settings(project, folder)
    return RunCheckout(project, folder, branch, fork, remote, has_remote, tuple(notes))


def _newest(project: Path) -> tuple[str | None, str, list[str]]:
    """The git remote, the commit to begin with, and sentences: the newer of HEAD and its upstream branch."""
    notes = []
    if changed := _run(project, "git", "diff", "--name-only", "HEAD").split("\n")[:4]:
        names = ", ".join(changed[:3]) + (", ..." if len(changed) > 3 else "")
        notes += [f"changes that are not committed are not part of the run: {names}"] if names else []
    head = _run(project, "git", "rev-parse", "HEAD")
    upstream = _try(project, "git", "rev-parse", "--abbrev-ref", "--symbolic-full-name", "@{upstream}")
    remotes = (_try(project, "git", "remote") or "").split()
    remote = upstream.partition("/")[0] if upstream else ("origin" if "origin" in remotes else None)
    if upstream is None or remote not in remotes:
        return remote, head, notes
    _run(project, "git", "fetch", "--quiet", str(remote))
    theirs = _run(project, "git", "rev-parse", upstream)
    if _try(project, "git", "merge-base", "--is-ancestor", theirs, head) is not None:
        return remote, head, notes
    if _try(project, "git", "merge-base", "--is-ancestor", head, theirs) is None:
        notes.append(f"{head[:12]} and {upstream} have both gone on; the run takes {upstream}")
    return remote, theirs, notes


def _write_dvc_settings(project: Path, folder: Path) -> bool:
    """Writes .dvc/config.local: the project's, with its cache and with the folders of remotes as absolute paths.

    Returns whether DVC has a default remote.
    """
    shared, own = _dvc_settings(project / ".dvc/config"), _dvc_settings(project / ".dvc/config.local")
    for section in [*shared.sections(), *own.sections()]:
        url = (own if own.has_option(section, "url") else shared).get(section, "url", fallback="")
        if section.strip("'").startswith("remote ") and url and "://" not in url and not Path(url).is_absolute():
            if not own.has_section(section):
                own.add_section(section)
            own.set(section, "url", os.path.normpath(project / ".dvc" / Path(url).expanduser()))
    cache = (own if own.has_option("cache", "dir") else shared).get("cache", "dir", fallback="cache")
    if not own.has_section("cache"):
        own.add_section("cache")
    own.set("cache", "dir", os.path.normpath(project / ".dvc" / cache))
    target = folder / ".dvc/config.local"
    target.parent.mkdir(exist_ok=True)
    with open(target, "w", encoding="utf-8", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
        own.write(file)
    return own.has_option("core", "remote") or shared.has_option("core", "remote")


def _dvc_settings(path: Path) -> configparser.RawConfigParser:
    parser = configparser.RawConfigParser()
    try:
        parser.read(path, encoding="utf-8")
    except (configparser.Error, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not readable: {error}; fix or delete it") from None
    return parser


def _pull(checkout: RunCheckout) -> None:
    """Brings the data that dvc.lock and pointers name, from the remote or the shared cache, as far as it is there."""
    pointers = _run(checkout.folder, "git", "ls-files", "*.dvc")
    if pointers or (checkout.folder / DVC_LOCK).is_file():
        verb = "pull" if checkout.dvc_remote else "checkout"
        _run(checkout.folder, "dvc", verb, "--quiet", "--allow-missing", "--force")


def _tidy(project: Path, runs: Path) -> None:
    """Removes the checkouts of runs that no process works on and nobody has started again for two weeks."""
    for folder in runs.iterdir():
        if not folder.is_dir() or time.time() - folder.stat().st_mtime < KEPT_DAYS * 86400:
            continue
        with suppress(UserError), _locked(runs / f"{folder.name}.lock", wait=False, busy="in use"):
            _drop(project, folder)


def _drop(project: Path, folder: Path) -> None:
    """Removes a worktree, whole or half made; files behind its links stay."""
    if folder.exists():
        shutil.rmtree(folder)
    _run(project, "git", "worktree", "prune")


@contextmanager
def _locked(path: Path, wait: bool, busy: str = "") -> Iterator[None]:
    """Holds a lock file. Raises UserError (`busy`) where another process holds it and `wait` is False."""
    with path.open("a") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            raise UserError(f"{busy}; wait for its end") from None
        yield


def _run(folder: Path, *command: str) -> str:
    """Output of a command. Raises UserError with its last line where it fails."""
    done = subprocess.run(_program(command), cwd=folder, capture_output=True, encoding="utf-8", errors="replace")
    if done.returncode:
        lines = (done.stderr.strip() or done.stdout.strip() or f"exit code {done.returncode}").splitlines()
        said = next((line for line in reversed(lines) if line.startswith(("ERROR", "fatal", "error"))), lines[-1])
        raise UserError(f"{' '.join(command[:2])} in {folder}: {said}")
    return done.stdout.strip()


def _try(folder: Path, *command: str) -> str | None:
    """Output of a command; None where it fails."""
    if not folder.is_dir():
        return None
    done = subprocess.run(_program(command), cwd=folder, capture_output=True, encoding="utf-8", errors="replace")
    return done.stdout.strip() if done.returncode == 0 else None


def _program(command: tuple[str, ...]) -> list[str]:
    return [sys.executable, "-m", *command] if command[0] == "dvc" else list(command)
