"""The group of all verbs, their common help and error format, and paths relative to the user's folder."""

import ast
import importlib
import os
import shlex
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import click

from pipeline.cli import entry

FOLDER = Path(__file__).parent
PROJECT = "--project"
FROM = "TOHUM_FROM"
"""Environment variable set by `tohum.sh`: the folder that the user called it in. It runs us in the project's root."""
WIDTH = 100
_ELSEWHERE = "Other"


@dataclass(frozen=True)
class Description:
    """The list's entry for a verb, read from the source of its file without running it."""

    name: str
    module: str
    summary: str
    group: str = _ELSEWHERE
    order: int = 1000
    again: str = "run the command again"
    """Printed after an interruption."""

    @classmethod
    def of(cls, path: Path) -> "Description":
        """Reads the docstring and the constants GROUP, ORDER and AGAIN of a verb's file."""
        tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
        constants: dict[str, Any] = {}
        for node in tree.body:
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant):
                names = [target.id for target in node.targets if isinstance(target, ast.Name)]
                constants |= dict.fromkeys(map(str.lower, names), node.value.value)
        known = {key: value for key, value in constants.items() if key in ("group", "order", "again")}
        summary = (ast.get_docstring(tree) or "").partition("\n")[0]
        return cls(path.stem.rstrip("_"), path.stem, summary, **known)


def descriptions() -> dict[str, Description]:
    """Every verb by its name, in the order of the list."""
    verbs = [Description.of(path) for path in FOLDER.glob("*.py") if not path.stem.startswith("_")]
    return {verb.name: verb for verb in sorted(verbs, key=lambda verb: (verb.order, verb.name))}


class Verbs(click.Group):
    """A group whose commands are the files of this folder; a verb's module is imported on demand."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """The names in the order of the list."""
        return list(descriptions())

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's signature
        """Imports a verb; None where there is no such file."""
        verb = descriptions().get(cmd_name)
        if verb is None:
            return None
        command: click.Command = importlib.import_module(f"{__package__}.{verb.module}").command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does, with near names and all names in the error for a verb that does not exist."""
        names = self.list_commands(ctx)
        if args[0] not in names and not args[0].startswith("-"):
            near = get_close_matches(args[0], names, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            ctx.fail(f"no verb {args[0]!r}; {hint}one of: {', '.join(names)}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - click's
        """The verbs under their groups."""
        verbs = list(descriptions().values())
        width = max(len(verb.name) for verb in verbs)
        for group in dict.fromkeys(verb.group for verb in verbs):
            with formatter.section(group):
                formatter.write_dl([(verb.name.ljust(width), verb.summary) for verb in verbs if verb.group == group])


@click.command(
    cls=Verbs,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": WIDTH},
    epilog="`tohum VERB --help` shows a verb's options and examples. The whole graph: `make repro`.",
)
@click.option(
    PROJECT, metavar="FOLDER", expose_value=False, help="Run the verb in this project, such as a try's .tohum/try."
)
def tohum() -> None:
    """From raw text to a reviewed language model in a registry, as one reproducible graph.

    Runs the project that the working folder lies in, or the one of --project.
    """


class UserPath(click.Path):
    """A path on the command line, relative to the folder in which the user called `tohum`."""

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The path, relative to the project's root where it lies below it."""
        called_in = ctx.find_root().obj if ctx is not None else None
        path = Path(called_in or "") / value
        here = Path.cwd()
        path = path.relative_to(here) if path.is_absolute() and path.is_relative_to(here) else path
        return super().convert(path, param, ctx)


def verb(*examples: str, **settings: Any) -> Callable[[Callable[..., int | None]], click.Command]:
    """Decorates a verb's function: help from its module's docstring, then the examples.

    Args:
        examples: command lines.
        settings: further arguments of click.command.
    """

    def decorate(function: Callable[..., int | None]) -> click.Command:
        module = sys.modules[function.__module__]
        shown = "\n".join(["Examples:", *(f"  {line}" for line in examples)])
        name = function.__module__.rpartition(".")[2].rstrip("_")
        command: Callable[[Callable[..., int | None]], click.Command] = click.command(
            name, help=module.__doc__, epilog=f"\b\n{shown}", **settings
        )
        return command(function)

    return decorate


def run(words: list[str], called_in: Path | None = None) -> int:
    """Runs one command line; returns the exit code: 0 done, 1 refused, 2 wrong usage.

    Raises:
        UserError: the verb's own.
    """
    project, words = _project_of(words)
    try:
        if project is not None:
            called_in = called_in or Path.cwd()
            _enter(project, called_in)
        with tohum.make_context("tohum", words, obj=called_in) as context:
            context.meta[PROJECT] = project
            code: int | None = tohum.invoke(context)
    except click.exceptions.Exit as ended:
        return ended.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except BrokenPipeError:  # the reader of the output, such as head or less, has ended
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    return code or 0


def spoken(words: str) -> str:
    """A command as the user would type it now, with the --project of the present call."""
    context = click.get_current_context(silent=True)
    project = None if context is None else context.meta.get(PROJECT)
    return f"tohum {words}" if project is None else f"tohum {PROJECT} {shlex.quote(project)} {words}"


def shown(path: Path) -> str:
    """A path of the project as seen from the folder in which the user called `tohum`."""
    context = click.get_current_context(silent=True)
    called_in = None if context is None else context.find_root().obj
    return os.path.relpath(path, called_in or Path.cwd())


def _project_of(words: list[str]) -> tuple[str | None, list[str]]:
    """The folder of a leading `--project FOLDER` or `--project=FOLDER`, and the other words."""
    if words[:1] == [PROJECT] and len(words) > 1:
        return words[1], words[2:]
    if words and words[0].startswith(f"{PROJECT}="):
        return words[0].partition("=")[2], words[1:]
    return None, words


def _enter(project: str, called_in: Path) -> None:
    """Makes a project the working folder: a path from the user's folder, else from the root of the present project.

    Raises:
        UsageError: there is no project.
    """
    places = [called_in / project, Path(project)]
    folder = next((place for place in places if (place / "dvc.yaml").is_file()), None)
    if folder is None:
        raise click.UsageError(
            f"{PROJECT} {project}: no project there (no dvc.yaml); `tohum try FILE` makes .tohum/try"
        )
    os.chdir(folder)


def main() -> None:
    """The command line of this process; exits with its code."""
    project, words = _project_of(sys.argv[1:])
    if project is not None:
        sys.argv[1:] = words  # verbs that start themselves anew read them; the working folder is the project's by then
        words = [PROJECT, project, *words]
    called_in = os.environ.pop(FROM, None)
    # dvc and the graph's commands (`python -m ...`) are those of this environment, activated or not
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    known = descriptions().get(sys.argv[1]) if sys.argv[1:] else None
    again = known.again if known else Description.again
    entry(lambda: run(words, Path(called_in) if called_in else None), again=again)
