"""What a person sees when a run is over, or would be begun."""

import json
from dataclasses import asdict

import typer
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from etude.cli.words import counted, short, where
from etude.compose.artefacts import asking
from etude.compose.recipes import Forecast, RunResult
from etude.compose.stages import Finished
from etude.evaluation.judgement import Judgement
from etude.evaluation.table import terminal_table
from etude.model.outputs import described_outputs


def print_result(result: RunResult, as_json: bool) -> None:
    """Tables on standard output, or one JSON object."""
    if as_json:
        stages = {name: _plain(done) for name, done in result.stages.items()}
        typer.echo(json.dumps({"finished": result.finished, "stages": stages}, ensure_ascii=False))
        return
    console = Console(highlight=False)
    for done in result.stages.values():
        _print_stage(console, done)
    if not result.finished:
        console.print("\nnot finished; the same command goes on from the newest checkpoint")


def _print_stage(console: Console, done: Finished) -> None:
    # A bare name is its newest version, which one that was found finished need not be.
    name = done.record.reference if done.reused else done.record.name
    console.print()
    if done.reused or done.judgement is None:
        console.print(Text(f"{done.record.reference} {'is there already' if done.reused else 'is made; it was not judged'}", style="bold"))
    if done.judgement is not None:
        print_judgement(console, done.judgement)
    console.print()
    asked = asking(name, described_outputs(done.folder))
    verb = "talk with it" if asked.startswith("etude chat") else "score with it"
    lines = [(verb, asked), ("look closer", f"etude show {name}"), ("files", where(done.folder))]
    if done.report is not None:
        lines.insert(0, ("report", where(done.report)))
    for what, place in lines:
        print_place(console, what, place)


def print_place(console: Console, what: str, place: str) -> None:
    """A command or path, never broken: it is there to be copied."""
    console.print(Text(f"  {what:<14}{place}"), soft_wrap=True)


def print_judgement(console: Console, judgement: Judgement) -> None:
    """The verdict, the figures, what they mean, what must not be overlooked."""
    console.print(terminal_table(judgement))
    for line in judgement.explanation:
        console.print(Padding(Text(line), (0, 0, 0, 2)))
    for line in judgement.warnings:
        mark = Table.grid(padding=(0, 1))
        mark.add_row(" !", Text(line))
        console.print(mark, style="yellow")


def print_forecasts(forecasts: list[Forecast], as_json: bool) -> None:
    """What would happen, stage by stage."""
    if as_json:
        typer.echo(json.dumps([asdict(forecast) for forecast in forecasts], ensure_ascii=False))
        return
    console = Console(highlight=False)
    for f in forecasts:
        facts = {
            "from": short(f.parent) if f.parent_made else f"{f.parent}, once it is made",
            "does": f"{f.objective} with {f.adaptation}, learning rate {f.learning_rate:g}",
            "on": f"{counted(f.training_rows, 'row')} ({f.logical_tokens:,} tokens), {f.held_out_rows:,} held out",
            "for": f"{counted(f.steps, 'step')}, {counted(f.examples, 'example')} in all",
            "then": f"judged on {counted(f.judged_rows, 'row')}" if f.judged_rows else "not judged",
        }
        would = f"{f.finished} is there already, and would be used as it is" if f.finished else f"{f.artefact} would be made"
        console.print()
        console.print(Text(would, style="bold"))
        table = Table(box=None, show_header=False, padding=(0, 2, 0, 2))
        for name, value in facts.items():
            table.add_row(Text(name, style="dim"), Text(value))
        console.print(table)
    console.print("\nNothing was trained, and no artefact was made.")


def _plain(done: Finished) -> dict[str, object]:
    judgement = json.loads(done.judgement.to_json()) if done.judgement is not None else None
    record = json.loads(done.record.to_json())
    places = {"folder": str(done.folder), "report": str(done.report) if done.report else None}
    return {"artefact": done.record.reference, "reused": done.reused, **places, "record": record, "judgement": judgement}
