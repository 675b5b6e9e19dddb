"""What a person sees when a run is over, or would be begun."""

import json
from dataclasses import asdict
from pathlib import Path

import typer
from rich.console import Console
from rich.table import Table

from etude.compose.recipes import Forecast, RunResult
from etude.compose.stages import Finished
from etude.evaluation.judgement import Judgement
from etude.evaluation.table import terminal_table


def print_result(result: RunResult, as_json: bool) -> None:
    """Tables on standard output, or one JSON object."""
    if as_json:
        typer.echo(json.dumps({"finished": result.finished, "stages": {name: _plain(done) for name, done in result.stages.items()}}))
        return
    console = Console(highlight=False, soft_wrap=True)
    for done in result.stages.values():
        _print_stage(console, done)
    if not result.finished:
        console.print("\nnot finished; the same command goes on from the newest checkpoint")


def _print_stage(console: Console, done: Finished) -> None:
    name = done.record.name
    console.print()
    if done.judgement is not None:
        judgement = done.judgement
        print_judgement(console, judgement)
    else:
        console.print(f"{done.record.reference} is there already", style="bold", markup=False)
    console.print()
    lines = [("talk with it", f"etude chat {name}"), ("look closer", f"etude show {name}"), ("files", _shown(done.folder))]
    if (done.folder / "report.html").exists():
        lines.insert(0, ("report", _shown(done.folder / "report.html")))
    for what, where in lines:
        console.print(f"  {what:<14}{where}", markup=False)


def print_judgement(console: Console, judgement: Judgement) -> None:
    """The verdict, the figures, what they mean, what must not be overlooked."""
    console.print(terminal_table(judgement))
    for line in judgement.explanation:
        console.print(f"  {line}", markup=False)
    for line in judgement.warnings:
        console.print(f"  ! {line}", style="yellow", markup=False)


def print_forecasts(forecasts: list[Forecast], as_json: bool) -> None:
    """What would happen, stage by stage."""
    if as_json:
        typer.echo(json.dumps([asdict(forecast) for forecast in forecasts]))
        return
    table = Table("stage", "from", "goal", "changes", "rows", "held out", "steps", "rate", "would", box=None, padding=(0, 2, 0, 0))
    for f in forecasts:
        would = f"be taken as it is: {f.finished}" if f.finished else f"become {f.artefact}"
        rows = (f"{f.training_rows:,}", f"{f.held_out_rows:,}", f"{f.steps:,}", f"{f.learning_rate:g}")
        table.add_row(f.stage, f.parent, f.objective, f.adaptation, *rows, would)
    Console(highlight=False).print(table)
    typer.echo("\nnothing was trained, nothing was kept")


def _plain(done: Finished) -> dict[str, object]:
    judgement = json.loads(done.judgement.to_json()) if done.judgement is not None else None
    record = json.loads(done.record.to_json())
    return {"artefact": done.record.reference, "folder": str(done.folder), "reused": done.reused, "record": record, "judgement": judgement}


def _shown(path: Path) -> str:
    """Relative to where the user stands, if that is shorter."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)
