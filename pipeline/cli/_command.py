"""The group of all verbs, their common help and error format, and paths relative to the user's folder."""

import ast
import importlib
import os
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
def tohum() -> None:
    """From raw text to a reviewed language model in a registry, as one reproducible graph.

    Runs the project that the working folder lies in.
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
    try:
        with tohum.make_context("tohum", words, obj=called_in) as context:
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


def main() -> None:
    """The command line of this process; exits with its code."""
    words = sys.argv[1:]
    called_in = os.environ.pop(FROM, None)
    # dvc and the graph's commands (`python -m ...`) are those of this environment, activated or not
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    known = descriptions().get(words[0]) if words else None
    again = known.again if known else Description.again
    entry(lambda: run(words, Path(called_in) if called_in else None), again=again)
