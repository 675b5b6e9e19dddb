"""How artefacts and their trees look in a terminal."""

import json
from pathlib import Path

import typer
from rich.console import Console
from rich.table import Table
from rich.tree import Tree

from etude.evaluation.figures import memory
from etude.lineage.record import Record
from etude.lineage.store import Shown, Store
from etude.lineage.tree import Branch


def print_list(store: Store, as_json: bool) -> None:
    """A line for each artefact."""
    records = store.records()
    if as_json:
        typer.echo(json.dumps([json.loads(record.to_json()) | {"folder": str(store.folder(record))} for record in records]))
        return
    if not records:
        typer.echo("no artefacts yet; `etude run quickstart` makes one")
        return
    table = Table("artefact", "kind", "from", "verdict", "size", "finished", box=None, padding=(0, 2, 0, 0))
    for record in records:
        parent = record.parent.reference if record.parent else ""
        verdict, when = str(record.metrics.get("verdict", "")), record.finished.astimezone().strftime("%Y-%m-%d %H:%M")
        table.add_row(record.reference, record.kind, _short(parent), verdict, memory(record.size), when)
    Console(highlight=False).print(table)


def print_shown(shown: Shown, as_json: bool) -> None:
    """One artefact, whole."""
    record = shown.record
    if as_json:
        line = [ancestor.reference for ancestor in shown.ancestors]
        plain = json.loads(record.to_json()) | {"folder": str(shown.folder), "aliases": shown.aliases, "ancestors": line}
        typer.echo(json.dumps(plain | {"descendants": [_plain(branch) for branch in shown.descendants]}))
        return
    console = Console(highlight=False, soft_wrap=True)
    console.print(record.reference, style="bold", markup=False)
    facts = {
        "kind": record.kind,
        "from": record.parent.reference if record.parent else "nothing",
        "aliases": ", ".join(shown.aliases),
        "folder": str(shown.folder),
        "report": str(shown.folder / "report.html") if (shown.folder / "report.html").exists() else "",
        "size": memory(record.size),
        "took": f"{record.duration:.0f} seconds, finished {record.finished.astimezone():%Y-%m-%d %H:%M}",
        "machine": f"{record.machine.processor}, {record.machine.threads} threads",
        "versions": ", ".join(f"{name} {version}" for name, version in record.versions.items()),
    }
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for name, value in facts.items():
        if value:
            table.add_row(f"  {name}", value)
    for name, value in (record.metrics | record.counts).items():
        table.add_row(f"  {name}", f"{value:,.4g}" if isinstance(value, float) else str(value))
    console.print(table)
    console.print(_tree(shown))


def _tree(shown: Shown) -> Tree:
    """From the base down, through this artefact, to all that stands on it."""
    line = [*reversed(shown.ancestors), shown.record]
    root = line[0].parent
    tree = Tree(_short(root.reference) if root else "nothing")
    at = tree
    for record in line:
        at = at.add(f"[bold]{record.reference}[/bold]" if record is shown.record else record.reference)
    for branch in shown.descendants:
        _grow(at, branch)
    return tree


def _grow(tree: Tree, branch: Branch) -> None:
    at = tree.add(branch.record.reference)
    for child in branch.children:
        _grow(at, child)


def _plain(branch: Branch) -> dict[str, object]:
    record: Record = branch.record
    return {"artefact": record.reference, "children": [_plain(child) for child in branch.children]}


def _short(reference: str) -> str:
    """A path by its last part; names as they are."""
    return Path(reference).name if reference.startswith(("/", "package:")) else reference
