"""`etude corpus`: raw text to tokenised shards, and the pedigree of what came of it."""

import json
import os
from pathlib import Path
from typing import Annotated, Literal

import typer


def register(app: typer.Typer) -> None:
    """Add this room's verbs."""
    corpus = typer.Typer(help="Prepare text for pre-training, and see what became of it.", rich_markup_mode=None, no_args_is_help=True)
    corpus.command("prepare")(prepare)
    corpus.command("show")(show)
    corpus.command("schema")(schema)
    app.add_typer(corpus, name="corpus")


def prepare(
    recipe: Annotated[str, typer.Argument(help="A corpus recipe (.yaml).")],
    overrides: Annotated[list[str] | None, typer.Argument(help="path.to.key=value, such as held_out=0.01")] = None,
    to: Annotated[Path | None, typer.Option(help="The folder to write; by default a new version in the project.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes, by default one a core; the corpus is the same.")] = None,
    on: Annotated[
        Literal["processes", "local", "slurm", "ray"],
        typer.Option(help="Who works: processes of this machine, or datatrove's local, Slurm or Ray executor."),
    ] = "processes",
    cluster: Annotated[list[str] | None, typer.Option(help="For that executor: key=value, such as partition=cpu; several times.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the manifest as one JSON object.")] = False,
) -> None:
    """Clean, deduplicate and tokenise text.

    Ctrl-C saves; the same command goes on from there. What has not changed is not done again.
    """
    from etude.cli.show_corpus import print_corpus  # noqa: PLC0415
    from etude.cli.terminal import TerminalVoice  # noqa: PLC0415
    from etude.compose.corpora import corpus_prepare  # noqa: PLC0415

    made = corpus_prepare(
        recipe, overrides or (), to=to, workers=workers or os.cpu_count() or 1, on=on, cluster=cluster or (), voice=TerminalVoice()
    )
    if made.folder is None or made.manifest is None:
        raise typer.Exit(0 if on == "slurm" else 130)
    print_corpus(made.folder, made.manifest, as_json=as_json, samples=0)


def show(
    corpus: Annotated[str, typer.Argument(help="A corpus of this project (name or name@version), or a folder.")],
    samples: Annotated[int, typer.Option(min=0, max=3, help="How many samples to show of each kind.")] = 1,
    verify: Annotated[bool, typer.Option("--verify", help="Read every byte and compare it with the manifest.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the manifest as one JSON object.")] = False,
) -> None:
    """Print a corpus's pedigree: what was read, changed, rejected and why, and what is left."""
    from etude.cli.show_corpus import print_corpus  # noqa: PLC0415
    from etude.compose.corpora import corpus_show  # noqa: PLC0415

    folder, manifest = corpus_show(corpus, verify=verify)
    print_corpus(folder, manifest, as_json=as_json, samples=samples)


def schema(
    markdown: Annotated[bool, typer.Option("--markdown", help="The reference of all keys as a page, instead of JSON Schema.")] = False,
) -> None:
    """Print what a corpus recipe can say, as JSON Schema for editors."""
    from etude.catalog import TABLES  # noqa: PLC0415
    from etude.compose.corpora import corpus_schema  # noqa: PLC0415
    from etude.recipe.reference import corpus_reference  # noqa: PLC0415

    typer.echo(corpus_reference(TABLES) if markdown else json.dumps(corpus_schema(), indent=2, ensure_ascii=False))
