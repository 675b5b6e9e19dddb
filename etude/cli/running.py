"""`etude run`, `etude init`, `etude schema`: from a recipe to an artefact."""

import json
import os
from pathlib import Path
from typing import Annotated

import typer

from etude.catalog import DEFAULT_BASE

Json = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")]


def register(app: typer.Typer) -> None:
    """Add this room's verbs."""
    app.command()(run)
    app.command()(init)
    app.command()(schema)


def run(
    recipe: Annotated[str, typer.Argument(help="A recipe file, or the name of one that comes with etude, such as quickstart.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="path.to.key=value, such as stages.sentiment.train.steps=100")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say all that would happen, and train nothing. What is fetched or converted for it is kept.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Run a recipe: train its stages, judge each against its parent.

    The results are kept in `.etude`. The same command goes on where an interrupted run stopped, and does
    nothing again that is already done.
    """
    from etude.cli.show_run import print_forecasts, print_result  # noqa: PLC0415
    from etude.cli.terminal import TerminalVoice  # noqa: PLC0415
    from etude.compose import recipes  # noqa: PLC0415

    leads = os.environ.get("RANK", "0") == "0"  # of several processes, as torchrun starts them, the first alone speaks
    voice = TerminalVoice() if leads else None
    loaded = recipes.read_recipe(recipe, overrides or ())
    if dry_run:
        print_forecasts(recipes.forecast(loaded, voice=voice), as_json)
        return
    result = recipes.run(loaded, voice=voice)
    if leads:
        print_result(result, as_json)
    if not result.finished:
        raise typer.Exit(130)


def init(
    data: Annotated[str, typer.Argument(help="A file of rows: JSONL, JSON, CSV, Parquet or text.")],
    base: Annotated[str, typer.Option(help="The base to write into the recipe.")] = DEFAULT_BASE,
    to: Annotated[Path | None, typer.Option(help="Write to this file instead of standard output.")] = None,
) -> None:
    """Look at data and write a commented recipe for it."""
    from etude.compose import looking  # noqa: PLC0415

    text = looking.init(data, base=base, to=to)
    if to is None:
        typer.echo(text, nl=False)
    else:
        typer.echo(f"{to} written; look through it, then: etude run {to}", err=True)


def schema(
    markdown: Annotated[bool, typer.Option("--markdown", help="The reference of all keys as a page, instead of JSON Schema.")] = False,
) -> None:
    """Print what a recipe can say, as JSON Schema for editors."""
    from etude.catalog import TABLES  # noqa: PLC0415
    from etude.recipe.json_schema import json_schema  # noqa: PLC0415
    from etude.recipe.reference import reference  # noqa: PLC0415

    typer.echo(reference(TABLES) if markdown else json.dumps(json_schema(TABLES), indent=2, ensure_ascii=False))
