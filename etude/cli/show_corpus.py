"""How a corpus's pedigree looks: a tree from what was read to what is left, with counts, reasons and samples."""

import json
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.text import Text
from rich.tree import Tree

from etude.lineage.durable import size


def print_corpus(folder: Path, manifest: dict[str, Any], *, as_json: bool, samples: int) -> None:
    """The tree, or the manifest as it is."""
    if as_json:
        typer.echo(json.dumps({"folder": str(folder), **manifest}, ensure_ascii=False))
        return
    console = Console(highlight=False)
    console.print(pedigree(folder, manifest, samples))
    console.print(Text(f"rejected documents with their reasons: {folder / 'rejected.jsonl.gz'}", style="dim"))


def pedigree(folder: Path, manifest: dict[str, Any], samples: int) -> Tree:
    """The way of every document, source by source."""
    total, tokenizer = manifest["totals"], manifest["tokenizer"]
    kept = total["train"]
    tree = Tree(Text(f"{manifest['name']}  {_n(kept['documents'], 'document')}, {_n(kept['tokens'], 'token')}", style="bold"))
    tree.add(Text(f"in {folder}", style="dim"))
    tree.add(Text(f"tokens of {tokenizer['reference']} ({tokenizer['sha256'][:12]}), {manifest['dtype']}", style="dim"))
    shown = manifest["samples"]
    for number, source in enumerate(manifest["sources"]):
        _source(tree, source, number, shown, samples)
    for benchmark, count in manifest["questions"].items():
        looked_for = tree.add(Text(f"free of {_n(count, 'question')} of {benchmark}"))
        if short := manifest.get("questions_too_short", {}).get(benchmark):
            looked_for.add(Text(f"{_n(short, 'question')} more too short to be looked for: any text may hold them", style="yellow"))
    for note in manifest["notes"]:
        tree.add(Text(note, style="dim"))
    apart = total["held_out"]
    tree.add(Text(f"held out: {_n(apart['documents'], 'document')}, {_n(apart['tokens'], 'token')}"))
    return tree


def _source(tree: Tree, source: dict[str, Any], number: int, shown: list[dict[str, Any]], samples: int) -> None:
    at = tree.add(Text(f"{source['path']}  {_n(source['read'], 'row')} read", style="bold"))
    for note in source.get("notes", ()):
        at.add(Text(note, style="dim"))
    rows = {"left out by `where`": source["left_out_by_where"], "left out by `limit`": source["left_out_by_limit"], **source["bad"]}
    for what, count in rows.items():
        if count:
            at.add(Text(f"− {count:,} {what}", style="yellow"))
    at.add(Text(f"{_n(source.get('documents', 0), 'document')}, {size(source.get('bytes', 0))}"))
    left = source.get("documents", 0)
    for rule in source.get("rules", ()):
        gone = sum(rule["rejected"].values())
        left -= gone
        said = f"{rule['kind']}: {rule['changed']:,} changed, {gone:,} rejected, {left:,} left"
        branch = at.add(Text(said, style="" if gone or rule["changed"] else "dim"))
        for what, count in sorted(rule["changes"].items()):
            branch.add(Text(f"{count:,} {what}", style="dim"))
        for reason, count in sorted(rule["rejected"].items(), key=lambda one: -one[1]):
            why = branch.add(Text(f"− {count:,} {reason}", style="yellow"))
            _samples(why, shown, number, f"{rule['kind']}: {reason}", samples)
    for benchmark, count in sorted(source.get("questions", {}).items()):
        at.add(Text(f"− {count:,} hold a question of {benchmark}", style="yellow"))
    for kind in ("exact", "near"):
        if count := source.get(f"{kind}_duplicates", 0):
            at.add(Text(f"− {count:,} {kind} duplicates of documents that are kept", style="yellow"))
    if count := source.get("spelling_marks", 0):
        at.add(Text(f"{count:,} spell a special token, which is written as plain text", style="dim"))
    for split, name in (("train", "train"), ("held_out", "held out")):
        if said := source.get(split):
            what = f"{name}: {_n(said['documents'], 'document')}, {size(said['bytes'])}, {_n(said['tokens'], 'token')}"
            kept = at.add(Text(what, style="green"))
            if split == "train":
                _samples(kept, shown, number, "", samples)


def _samples(branch: Tree, shown: list[dict[str, Any]], source: int, kind: str, count: int) -> None:
    some = [one for one in shown if one["kind"] == kind and one["source"] == source][:count]
    for one in some:
        text = " ".join(one["text"].split())[:100]
        branch.add(Text(f"{one['file']}:{one['row']}  {text}", style="dim italic"))


def _n(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"
