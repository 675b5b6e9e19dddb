"""`etude doctor`: what will and what won't run on this machine."""

import json
from dataclasses import asdict
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add this room's verbs."""
    app.command()(doctor)


def doctor(as_json: Annotated[bool, typer.Option("--json", help="Print the findings as a JSON list.")] = False) -> None:
    """Say what will and what won't run here.

    Looks at device, kernels, memory, versions, optional parts and the project.
    """
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    from etude.compose.checkup import doctor as look  # noqa: PLC0415

    findings = look()
    if as_json:
        typer.echo(json.dumps([asdict(finding) for finding in findings]))
        return
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for finding in findings:
        mark = Text("✓", style="green") if finding.good else Text("–", style="yellow")
        found = Text(finding.found) if finding.good else Text.assemble(finding.found, (f"  → {finding.remedy}", "dim"))
        table.add_row(mark, Text(finding.what), found)
    Console(highlight=False).print(table)
