"""The command line: verbs put together, and the border where errors become sentences."""

import json
import os
import sys
from typing import Any

import typer
from typer.core import TyperGroup

from etude import __version__
from etude.cli import advising, corpus, data, library, machine, running, tokenizer
from etude.errors import EtudeError


class Stopped(Exception):
    """By Ctrl-C: typer would take the interrupt itself for a silent end."""


class Verbs(TyperGroup):
    """Hands on what typer would swallow."""

    def invoke(self, ctx: typer.Context) -> Any:  # type: ignore[override]
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise Stopped("; the same command goes on from the newest checkpoint" if ctx.invoked_subcommand == "run" else "") from None
        except BrokenPipeError:  # the reader, such as `head`, has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return None


app = typer.Typer(
    cls=Verbs,
    name="etude",
    help="One tool for the whole life of a language model, with numbers that can be believed.",
    rich_markup_mode=None,
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

_debug = False


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"etude {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    debug: bool = typer.Option(False, "--debug", help="Show the whole traceback of an error; before or after the verb."),
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Show the version and leave."),  # noqa: ARG001
) -> None:
    global _debug
    _debug = debug


for room in (running, library, data, corpus, tokenizer, advising, machine):
    room.register(app)


def _tell(text: str, style: str) -> None:
    """On standard error, after an empty line; on a terminal wrapped between words."""
    if not sys.stderr.isatty():
        typer.echo(f"\n{text}", err=True)
        return
    from rich.console import Console  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    Console(stderr=True, highlight=False).print(Text(f"\n{text}", style=style))


def main() -> None:
    """Entry point of the `etude` program.

    Exit codes: 0 done, 1 an error that was explained, 2 wrong usage, 70 a bug, 130 stopped.
    """
    # Every model is computed by the thread pool torch opens; tokenizers need no second one, and forks need no warning.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    arguments = sys.argv[1:]
    if "--debug" in arguments:  # wherever it stands, it is meant for all
        arguments = ["--debug", *(argument for argument in arguments if argument != "--debug")]
    try:
        app(arguments, prog_name="etude")
    except EtudeError as error:
        if _debug:
            raise
        if "--json" in arguments:
            typer.echo(json.dumps({"error": error.message, "remedy": error.remedy}, ensure_ascii=False))
        else:
            _tell(f"error: {error}", "red")
        sys.exit(1)
    except Stopped as stopped:
        _tell(f"stopped{stopped}", "")
        sys.exit(130)
    except Exception as error:  # a bug of ours, and shown as one
        if _debug:
            raise
        what = f"this is a bug in etude: {type(error).__name__}: {error}"
        _tell(f"{what}\n  → run it again with `etude --debug …` and report what it prints", "red")
        sys.exit(70)
