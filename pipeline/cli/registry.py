"""The registry's command line: `python -m pipeline.registry`."""

import argparse
import sys
from pathlib import Path

from pipeline import config, registry
from pipeline.errors import UserError
from pipeline.registry import CANDIDATE, CHAMPION, VERSION, Registry

_ABOUT = {
    "list": "versions and aliases of every model of params.yaml",
    "review": "the candidate's card beside the champion",
    "promote": "make the candidate the champion",
    "rollback": "back to the champion before",
    "start": "the champion as a start: fetches it and prints the lines for params.yaml",
    "download": "a version's files, checked: what plain MLflow can then load and serve",
    "verify": "read the files of every version again",
}


def main(arguments: list[str] | None = None) -> int:
    """Runs one command; 0 done, 1 refused (the reason on stderr), 2 wrong usage."""
    options = _parser().parse_args(arguments)
    try:
        params = config.load()
        with registry.reachable(params.runtime.tracking.uri):
            return _run(Registry(params), options, list(params.evaluations))
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    about = (registry.__doc__ or "").split("\n")[0]
    parser = argparse.ArgumentParser(prog="python -m pipeline.registry", description=about)
    commands = parser.add_subparsers(dest="command", required=True)
    for command, text in _ABOUT.items():
        sub = commands.add_parser(command, help=text)
        if command in ("list", "verify"):
            continue
        sub.add_argument("model", help="a model of the graph, such as spam-lora")
        if command == "promote":
            sub.add_argument("version", help="the version you reviewed")
            sub.add_argument("--sha256", required=True, help=f"the {VERSION} you approve, from `review`")
        if command == "download":
            sub.add_argument("folder", type=Path, help="where to; not there yet")
    return parser


def _run(store: Registry, options: argparse.Namespace, models: list[str]) -> int:
    if options.command == "list":
        print(listing(store, models))
    elif options.command == "verify":
        return _verify(store)
    elif options.command == "start":
        print(store.start(options.model))
    elif options.command == "review":
        print(store.review(options.model))
    elif options.command == "download":
        sealed = store.export(options.model, options.folder)
        standing = "" if store.at(sealed.model, CHAMPION) else ", the candidate: nobody has approved it"
        print(f"{options.folder}: {sealed.model}, {VERSION} {sealed.version_sha256}{standing}")
    else:
        extra = (options.version, options.sha256) if options.command == "promote" else ()
        champion = getattr(store, options.command)(options.model, *extra)
        print(f"{champion.name}: version {champion.version} is the champion")
    return 0


def _verify(store: Registry) -> int:
    refused = 0
    for version in (version for model in store.models() for version in store.versions(model)):
        try:
            sealed = store.verify(version)
            print(f"{version.name} version {version.version}: {VERSION} {sealed.version_sha256}")
        except UserError as error:
            refused += 1
            print(f"error: {error}", file=sys.stderr)
    return 1 if refused else 0


def listing(store: Registry, models: list[str]) -> str:
    """A table of all versions with their aliases."""
    lines = [f"{'model':<28}{'version':>8}  {'alias':<20}{VERSION:<16}status"]
    for model in models:
        standing = {alias: found.version for alias in (CANDIDATE, CHAMPION) if (found := store.at(model, alias))}
        for version in store.versions(model):
            names = ", ".join(alias for alias, number in standing.items() if number == version.version)
            lines.append(
                f"{version.name:<28}{version.version:>8}  {names:<20}{version.tags.get(VERSION, '')[:12]:<16}"
                f"{version.tags.get('tohum.status', '')}"
            )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
