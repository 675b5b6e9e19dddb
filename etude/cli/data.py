"""`etude data show` and `etude data check`: what a model would see of a file, what would be learnt, and what is wrong with it."""

import json
from pathlib import Path
from typing import Annotated

import typer

from etude.catalog import DEFAULT_BASE


def register(app: typer.Typer) -> None:
    """Add this room's verbs."""
    data = typer.Typer(help="Look at rows of data, as a model would see them.", rich_markup_mode=None, no_args_is_help=True)
    data.command("show")(show)
    data.command("check")(check)
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


def check(
    path: Annotated[str, typer.Argument(help="A file of rows, or a recipe (.yaml): then held-out rows and template are checked too.")],
    base: Annotated[str | None, typer.Option(help="The model whose tokenizer and template read a file's rows.")] = None,
    stage: Annotated[str | None, typer.Option(help="Of a recipe with several stages, which.")] = None,
    against: Annotated[list[str] | None, typer.Option(help="A file of questions that must not be trained on; may be repeated.")] = None,
    model: Annotated[bool, typer.Option("--model", help="Also score the rows with the base: minutes on a CPU.")] = False,
    fix: Annotated[Path | None, typer.Option(help="Write a cleaned copy of the file there, and what went and why beside it.")] = None,
    html: Annotated[Path | None, typer.Option(help="Write a page with plots there.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as one JSON object, with every row number.")] = False,
) -> None:
    """Look for what is wrong in data: all of it, with row numbers and what to do.

    Ends with code 1 where there are errors: rows that would stop a run or make its numbers untrue.
    """
    from rich.console import Console  # noqa: PLC0415

    from etude.cli.show_run import print_place  # noqa: PLC0415
    from etude.cli.terminal import TerminalVoice  # noqa: PLC0415
    from etude.cli.words import where  # noqa: PLC0415
    from etude.compose.checking import data_check  # noqa: PLC0415
    from etude.errors import DataError  # noqa: PLC0415

    if html is not None and html.exists():
        raise DataError(f"{html} exists already", "name another file: nothing is overwritten")
    checked = data_check(path, base=base, stage=stage, against=against or (), model=model, fix=fix, voice=TerminalVoice())
    if html is not None:
        html.parent.mkdir(parents=True, exist_ok=True)
        html.write_text(checked.to_html(), encoding="utf-8")
    console = Console(highlight=False)
    if as_json:
        typer.echo(json.dumps(checked.to_dict(), ensure_ascii=False))
    else:
        console.print(checked)
        if html is not None:
            print_place(console, "page", where(html))
    if checked.errors:
        raise typer.Exit(1)
