"""`etude frontier`: before one way is chosen, several are measured."""

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add this room's verbs."""
    app.command()(frontier)


def frontier(
    recipe: Annotated[str, typer.Argument(help="A recipe file, or the name of one that comes with etude, such as quickstart.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="path.to.key=value, such as stages.sentiment.train.steps=20")] = None,
    kinds: Annotated[
        str | None, typer.Option(help="Adaptations, separated by commas, each with a rate of its own behind an @: lora,full@5e-5")
    ] = None,
    stage: Annotated[str | None, typer.Option(help="Which stage varies, where the recipe has several.")] = None,
    minutes: Annotated[float | None, typer.Option(help="Begin no arm after that many minutes.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")] = False,
) -> None:
    """Train one stage in several ways and show what each learns and forgets.

    The same rows, order and seed for each; a table, a plot, and JSON. Arms that were made before are used as they are.
    """
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    from etude.advice.arms import KINDS  # noqa: PLC0415
    from etude.advice.arms import frontier as compare  # noqa: PLC0415
    from etude.cli.show_run import print_place  # noqa: PLC0415
    from etude.cli.terminal import TerminalVoice  # noqa: PLC0415
    from etude.cli.words import where  # noqa: PLC0415
    from etude.evaluation import figures  # noqa: PLC0415

    chosen = [kind.strip() for kind in kinds.split(",") if kind.strip()] if kinds else KINDS
    found = compare(recipe, overrides or (), kinds=chosen, stage=stage, minutes=minutes, voice=TerminalVoice())
    if as_json:
        typer.echo(found.to_json())
        return
    console = Console(highlight=False)
    if found.arms:
        first = found.arms[0].task
        parent = figures.value(first.unit, first.parent.value)
        console.print(Text(f"\n{found.stage}: what each way learns and forgets", style="bold"))
        console.print(
            Text(f"learnt: {first.name} (the parent: {parent}); forgotten: loss on general text, nats a token more than the parent")
        )
        table = Table(box=None, padding=(0, 2, 0, 0))
        for name in ("", "kind", "learnt", "forgotten", "changes", "saved", "memory", "training"):
            table.add_column(name, no_wrap=True)
        for arm in found.arms:
            lost = "not measured"
            if arm.general is not None:
                moved = figures.difference(arm.general.unit, arm.general.difference.value, with_unit=False)
                lost = f"{moved} {figures.MARKS[arm.general.verdict]}"
            task = f"{figures.value(arm.task.unit, arm.task.tuned.value)} {figures.MARKS[arm.task.verdict]}"
            took = [figures.large(arm.trainable), figures.memory(arm.file_bytes), figures.memory(arm.peak_memory)]
            mark = Text("●" if arm.best else "", style="green")
            table.add_row(mark, arm.kind, task, lost, *took, figures.duration(arm.seconds))
        console.print(table)
        console.print(
            Text("● no other is at least as good at both · ▲ better ▼ worse = unchanged ? cannot tell; intervals are on the page")
        )
    for kind, why in found.missing.items():
        console.print(Text(f"! {kind}: {why}", style="yellow"))
    print_place(console, "page", where(Path(found.page)))
    if not found.arms:
        raise typer.Exit(1)
