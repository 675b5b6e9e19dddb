"""`etude list`, `show`, `name`, `chat`, `compare`, `clean`: what there is, and what it can do."""

from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


def register(app: typer.Typer) -> None:
    """Add this room's verbs."""
    app.command("list")(list_)
    app.command()(show)
    app.command()(name)
    app.command()(chat)
    app.command()(compare)
    app.command()(clean)


def list_(as_json: Json = False) -> None:
    """List the project's artefacts, newest first."""
    from etude.cli.show_library import print_list  # noqa: PLC0415
    from etude.cli.terminal import TerminalVoice  # noqa: PLC0415
    from etude.compose.library import list_ as listed  # noqa: PLC0415

    print_list(listed(voice=TerminalVoice()), as_json)


def show(
    name: Annotated[str, typer.Argument(help="name, name@version or name@alias")],
    verify: Annotated[bool, typer.Option("--verify", help="Read every byte of its files too, and say what is wrong with them.")] = False,
    as_json: Json = False,
) -> None:
    """Show an artefact: where it is from, its figures, what stands on it."""
    from etude.cli.show_library import print_shown  # noqa: PLC0415
    from etude.cli.terminal import TerminalVoice  # noqa: PLC0415
    from etude.compose import library  # noqa: PLC0415

    problems = library.verify(name) if verify else None
    print_shown(library.show(name, voice=TerminalVoice()), problems, as_json)
    if problems:
        raise typer.Exit(1)


def name(
    reference: Annotated[str, typer.Argument(help="name, name@version or name@alias")],
    alias: Annotated[str, typer.Argument(help="What it is to be called, such as production: name@production.")],
    remove: Annotated[bool, typer.Option("--remove", help="Take the alias away; the artefact stays.")] = False,
) -> None:
    """Give an artefact an alias, or take one away. What has an alias is never cleaned away."""
    from etude.compose import library  # noqa: PLC0415

    record = library.name(reference, alias, remove=remove)
    typer.echo(f"{record.name}@{alias} is no more; {record.reference} stays" if remove else f"{record.name}@{alias} is {record.reference}")


def chat(
    name: Annotated[str, typer.Argument(help="An artefact, a hub id, a folder or a .gguf file.")],
    question: Annotated[str | None, typer.Argument(help="Ask once and leave; without it, a conversation begins.")] = None,
    system: Annotated[str | None, typer.Option(help="A system message.")] = None,
    parent: Annotated[bool, typer.Option("--parent", help="Answer as what the artefact was tuned from.")] = False,
    temperature: Annotated[float, typer.Option(min=0, help="0 takes the most likely word every time.")] = 0.0,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest answer, in tokens.")] = 512,
) -> None:
    """Talk with a model. /parent switches between it and its parent, /new begins again, /bye (or Ctrl-D) leaves."""
    from etude.cli.conversation import converse  # noqa: PLC0415
    from etude.cli.terminal import TerminalVoice  # noqa: PLC0415
    from etude.compose.models import load  # noqa: PLC0415

    converse(load(name, voice=TerminalVoice()), question, system, parent=parent, temperature=temperature, max_new_tokens=max_new_tokens)


def compare(
    first: Annotated[str, typer.Argument(help="The one to compare against: an artefact or a base.")],
    second: Annotated[str, typer.Argument(help="The one that should be better.")],
    as_json: Json = False,
) -> None:
    """Judge one model against another on the rows that were held out."""
    from rich.console import Console  # noqa: PLC0415

    from etude.cli.show_run import print_judgement, print_place  # noqa: PLC0415
    from etude.cli.terminal import TerminalVoice  # noqa: PLC0415
    from etude.cli.words import where  # noqa: PLC0415
    from etude.compose.comparison import compare as measured  # noqa: PLC0415

    compared = measured(first, second, voice=TerminalVoice())
    if as_json:
        typer.echo(compared.judgement.to_json())
        return
    console = Console(highlight=False)
    print_judgement(console, compared.judgement)
    console.print()
    print_place(console, "report", where(compared.report))


def clean(
    yes: Annotated[bool, typer.Option("--yes", help="Remove them, instead of only saying what would go.")] = False,
    runs: Annotated[bool, typer.Option("--runs", help="Unfinished runs too, which the same command would go on with.")] = False,
    as_json: Json = False,
) -> None:
    """Say what could be thrown away without loss, and with --yes do it."""
    from etude.cli.show_library import print_cleaned  # noqa: PLC0415
    from etude.cli.terminal import TerminalVoice  # noqa: PLC0415
    from etude.compose.library import clean as cleaned  # noqa: PLC0415

    print_cleaned(cleaned(yes=yes, runs=runs, voice=TerminalVoice()), yes, as_json)
