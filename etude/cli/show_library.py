"""How artefacts and their trees look in a terminal."""

import json
from dataclasses import asdict

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from etude.cli.words import counted, short, where
from etude.compose.library import Cleaned, Entry
from etude.evaluation.figures import duration, memory
from etude.lineage.record import Record
from etude.lineage.store import Shown
from etude.lineage.tree import Branch


def print_list(entries: list[Entry], as_json: bool) -> None:
    """A line for each artefact."""
    if as_json:
        plain = [json.loads(entry.record.to_json()) | {"folder": str(entry.folder), "aliases": entry.aliases} for entry in entries]
        typer.echo(json.dumps(plain, ensure_ascii=False))
        return
    if not entries:
        typer.echo("no artefacts yet; `etude run quickstart` makes one")
        return
    table = Table(box=None, padding=(0, 2, 0, 0))
    for head in ("artefact", "kind", "from", "verdict", "size", "finished"):
        table.add_column(head, no_wrap=head != "from", overflow="fold", justify="right" if head == "size" else "left")
    for entry in entries:
        record = entry.record
        parent = short(record.parent.reference) if record.parent else ""
        verdict, when = str(record.metrics.get("verdict", "not judged")), record.finished.astimezone().strftime("%Y-%m-%d %H:%M")
        name = ", ".join([record.reference, *entry.aliases])
        table.add_row(Text(name), record.kind, Text(parent), verdict, memory(record.size), when)
    Console(highlight=False).print(table)


def print_shown(shown: Shown, problems: list[str] | None, as_json: bool) -> None:
    """One artefact, whole; `problems` of its files where they were read."""
    record = shown.record
    if as_json:
        line = [ancestor.reference for ancestor in shown.ancestors]
        plain = json.loads(record.to_json()) | {"folder": str(shown.folder), "aliases": shown.aliases, "ancestors": line}
        plain |= {"descendants": [_plain(branch) for branch in shown.descendants]}
        plain |= {"problems": problems} if problems is not None else {}
        typer.echo(json.dumps(plain, ensure_ascii=False))
        return
    console = Console(highlight=False)
    report, verdict, machine = shown.folder / "report.html", record.metrics.get("verdict"), record.machine
    facts = {
        "kind": f"{record.kind}, by stage {record.stage}",
        "from": record.parent.reference if record.parent else "nothing",
        "head": _head(shown),
        "aliases": ", ".join(shown.aliases),
        "folder": where(shown.folder),
        "report": where(report) if report.exists() else "",
        "size": memory(record.size),
        "took": f"{duration(record.duration)}, finished {record.finished.astimezone():%Y-%m-%d %H:%M}",
        "machine": f"{machine.processor}, {counted(machine.threads, 'thread')}, {counted(machine.processes, 'process')}",
        "versions": ", ".join(f"{name} {version}" for name, version in record.versions.items()),
        "rows": f"{record.counts.get('training', 0):,} trained on, {record.counts.get('held_out', 0):,} held out",
        "tokens": f"{record.counts.get('logical_tokens', 0):,} in the training rows, {record.counts.get('supervised_tokens', 0):,} learnt",
        "training": f"{record.metrics.get('steps')} steps, the last with loss {_figure(record.metrics.get('loss'))}",
        "verdict": str(verdict) if verdict is not None else "not judged",
        "files": "" if problems is None else "; ".join(problems) or f"all {len(record.files)} are as they were published",
    }
    console.print(Text(record.reference, style="bold"))
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 2))
    table.add_column(no_wrap=True, style="dim")
    table.add_column(overflow="fold")
    for name, value in facts.items():
        if value:
            table.add_row(name, Text(value))
    console.print(table)
    if verdict is not None:
        console.print(_figures(record))
    console.print(_tree(shown))


def _figures(record: Record) -> Table:
    """What was measured of the artefact and of its parent."""
    table = Table("", "parent", "this", box=None, padding=(0, 2, 0, 2))
    for name, value in record.metrics.items():
        if (before := record.metrics.get(f"{name} (parent)")) is not None:
            table.add_row(Text(name), _figure(before), _figure(value))
    return table


def _figure(value: object) -> str:
    return f"{value:,.4g}" if isinstance(value, float) else "unknown" if value is None else str(value)


def print_cleaned(cleaned: Cleaned, yes: bool, as_json: bool) -> None:
    """What went, or could go."""
    if as_json:
        plain = lambda items: [asdict(item) | {"path": str(item.path)} for item in items]
        found = {"items": plain(cleaned.items), "freed": cleaned.freed, "unfinished": plain(cleaned.unfinished)}
        typer.echo(json.dumps(found, ensure_ascii=False))
        return
    for item in cleaned.items:
        typer.echo(f"{memory(item.bytes):>10}  {item.reference or item.path.name}: {item.reason}")
    if not cleaned.items:
        typer.echo("nothing to throw away")
    elif yes:
        typer.echo(f"{memory(cleaned.freed)} set free")
    else:
        typer.echo(f"{memory(sum(item.bytes for item in cleaned.items))} could be set free; the same command with --yes does it")
    if cleaned.unfinished:
        kept = f"{counted(len(cleaned.unfinished), 'unfinished run')} ({memory(sum(run.bytes for run in cleaned.unfinished))})"
        typer.echo(f"{kept} can be gone on with and so stay; `etude clean --runs` shows them")


def _head(shown: Shown) -> str:
    """What a head beside or instead of the vocabulary's says; empty where there is none."""
    if not (file := shown.folder / "head.json").exists():
        return ""
    head = json.loads(file.read_text(encoding="utf-8"))
    labels = ", ".join(head["labels"][:5]) + (", …" if len(head["labels"]) > 5 else "")
    where_read = "at the end of a text; it scores and writes nothing" if head["at"] == "leaf" else "before every token"
    return f"{head['kind']} ({labels}), read {where_read}"


def _tree(shown: Shown) -> Tree:
    """From the base down, through this artefact, to all that stands on it."""
    line = [*reversed(shown.ancestors), shown.record]
    root = line[0].parent
    tree = Tree(Text(short(root.reference) if root else "nothing"))
    at = tree
    for record in line:
        at = at.add(Text(record.reference, style="bold" if record is shown.record else ""))
    for branch in shown.descendants:
        _grow(at, branch)
    return tree


def _grow(tree: Tree, branch: Branch) -> None:
    at = tree.add(Text(branch.record.reference))
    for child in branch.children:
        _grow(at, child)


def _plain(branch: Branch) -> dict[str, object]:
    record: Record = branch.record
    return {"artefact": record.reference, "children": [_plain(child) for child in branch.children]}
