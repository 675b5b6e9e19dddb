"""`etude data show`: what a model would see of a file, and what would be learnt."""

import json
from typing import Annotated

import typer

from etude.catalog import DEFAULT_BASE


def register(app: typer.Typer) -> None:
    """Add this room's verbs."""
    data = typer.Typer(help="Look at rows of data, as a model would see them.", rich_markup_mode=None, no_args_is_help=True)
    data.command("show")(show)
    app.add_typer(data, name="data")


def show(
    path: Annotated[str, typer.Argument(help="A file of rows, or a recipe (.yaml) whose data is to be shown.")],
    base: Annotated[str, typer.Option(help="The model whose tokenizer and template render a file's rows.")] = DEFAULT_BASE,
    stage: Annotated[str | None, typer.Option(help="Of a recipe with several stages, which.")] = None,
    rows: Annotated[int, typer.Option(min=0, help="How many rows to show.")] = 3,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as one JSON object.")] = False,
) -> None:
    """Show rendered rows, with what is learnt in colour.

    And lengths, counts, and what was dropped and why.
    """
    from rich.console import Console  # noqa: PLC0415

    from etude.cli.terminal import TerminalVoice  # noqa: PLC0415
    from etude.compose.looking import data_show  # noqa: PLC0415

    preview = data_show(path, base=base, stage=stage, rows=rows, voice=TerminalVoice())
    if as_json:
        typer.echo(json.dumps(preview.to_dict(), ensure_ascii=False))
        return
    Console(highlight=False).print(preview)
