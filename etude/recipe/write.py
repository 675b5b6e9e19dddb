"""The first recipe for somebody's data: a commented text, from what was found in the file."""

import json
import re
from collections.abc import Sequence

import yaml

from etude.recipe.document import scalar

_FEW = 2_000
_FEWEST = 4
"""Rows of which two can be held out, the fewest that a judgement needs, and two be left."""
_MOST_LABELS = 20
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# What a template cannot call a variable.
_TAKEN = {"and", "or", "not", "in", "is", "if", "else", "true", "false", "none", "True", "False", "None", "self", "import", "recursive"}


def recipe_for(
    data_path: str,
    *,
    base: str,
    rows: int,
    columns: Sequence[str],
    format: str | None = None,
    label: str | None = None,
    labels: Sequence[str] = (),
) -> str:
    """A recipe that trains `base` on the rows of `data_path`, as text with comments that say why.

    Args:
        data_path: as it is to stand in the recipe; relative to the folder that the recipe will lie in.
        base: hub id, folder, `.gguf` or artefact.
        rows: how many rows there are.
        columns: their columns, in the file's order.
        format: what the columns were recognised as; None for a table of its own kind, which is then rendered by templates.
        label: of such a table, the column that looks like a label.
        labels: the values of that column, where they are few.
    """
    label = label if format is None else None
    raw = format == "text" or (format is None and len(columns) < 2)
    source, note = _known(data_path, format) if format is not None else _own(data_path, columns, label, labels)
    lines = [
        f"# {_comment(data_path)}: {rows:,} rows with {_comment(', '.join(columns)) or 'no columns'}.",
        f"# {note}",
        "# Every key there is: docs/recipe.md. What this would do: etude run THIS --dry-run",
        "",
        f"name: {_text(_slug(data_path))}",
        f"base: {_text(base)}  # a hub id, a folder, a .gguf file or one of your own results",
        "",
        "stages:",
        f"  {'continue' if raw else 'prefer' if format == 'preference' else 'classify' if label is not None else 'answer'}:",
        "    data:",
        *(f"      {line}" for line in source),
        f"      held_out: {_held_out(rows)}",
        "      context: 1024  # the longest row in tokens; longer ones are left out and counted",
        *_learning(format),
        f"      epochs: {3 if rows < _FEW and not raw else 1}",
        "      examples_per_step: 16  # over all processes; how they are cut and packed changes nothing",
        "",
        *_judging(rows, raw, label),
        "",
    ]
    return "\n".join(lines)


def _known(path: str, format: str) -> tuple[list[str], str]:
    """The lines of `sources` for a known format, and what to say of them at the top."""
    lines = ["sources:", f"  - path: {_text(path)}", f"    format: {_text(format)}  # recognised by its columns; `auto` would find it too"]
    return lines, f"Read as {format}."


def _own(path: str, columns: Sequence[str], label: str | None, labels: Sequence[str]) -> tuple[list[str], str]:
    """The same for a table of its own kind: templates that make a question and an answer of its columns."""
    names = _variables(columns)
    lines = ["sources:", f"  - path: {_text(path)}"]
    if renamed := {theirs: ours for theirs, ours in names.items() if theirs != ours}:
        lines.append("    columns:  # names that a template can spell")
        lines += [f"      {_text(theirs)}: {ours}" for theirs, ours in renamed.items()]
    answer = label if label is not None else columns[-1] if columns else None
    asked = [column for column in columns if column != answer]
    if answer is None or not asked:
        text = f"{{{{ {names.get(answer or '', 'text')} }}}}"
        return [*lines, "    render:", f"      text: {_text(text)}"], "Not a known format: taken as raw text. Is that so?"
    fields = [f"{{{{ {names[column]} }}}}" if len(asked) == 1 else f"{_spoken(column)}: {{{{ {names[column]} }}}}" for column in asked]
    lines += ["    render:  # the row's columns are the variables"]
    prompt = [f"      prompt: {_text(chr(10).join(fields))}"]
    if label is None:
        note = f"Not a known format: “{_comment(answer)}” was taken for the answer to the other columns. Is that so?"
        return [*lines, *prompt, f"      completion: {_text(f'{{{{ {names[answer]} }}}}')}"], note
    key = json.dumps(_spoken(label), ensure_ascii=False)
    choice = f" One of: {', '.join(map(_spoken, labels))}." if 0 < len(labels) <= _MOST_LABELS else ""
    system = f"      system: {_text(f'Answer with JSON alone: {{{key}: …}}.{choice}')}"
    completion = f"      completion: {_text(f'{{{key}: {{{{ {names[label]} | tojson }}}}}}')}"
    note = f"Not a known format: “{_comment(label)}” looks like a label, to be named as JSON. Is that so?"
    return [*lines, system, *prompt, completion], note


def _variables(columns: Sequence[str]) -> dict[str, str]:
    """A name for each column that a template can spell: its own wherever that will do."""
    names: dict[str, str] = {}
    for index, column in enumerate(columns):
        name = column if _NAME.fullmatch(column) and column not in _TAKEN else f"column_{index}"
        while name != column and (name in columns or name in names.values()):
            name += "_"
        names[column] = name
    return names


def _learning(format: str | None) -> list[str]:
    kind = {"preference": "dpo", "kto": "kto"}.get(format or "")
    if kind is None:
        return ["    adapt: {kind: lora, rank: 16}  # `full` changes every weight", "    train:"]
    return [
        "    adapt: {kind: lora, rank: 16}",
        f"    objective: {{kind: {kind}, beta: 0.1}}  # the smaller beta, the further from the base",
        "    train:",
        "      learning_rate: 2e-5  # preferences want a smaller one than answers do",
    ]


def _judging(rows: int, raw: bool, label: str | None) -> list[str]:
    if rows < _FEWEST:
        return ["evaluate: null  # with rows of its own under `held_out`, leave this line out to have the result judged"]
    lines = ["evaluate:", "  rows: 200  # held-out rows, at most, that base and result both answer"]
    if raw:
        return [*lines, "  generate: false  # raw text has no expected answer; likelihoods are compared"]
    return lines if label is None else [*lines, *_metrics(label)]


def _metrics(label: str) -> list[str]:
    field = _text(_spoken(label))
    both = [f"    - {{kind: {kind}, field: {field}}}" for kind in ("accuracy", "macro-f1")]
    return ["  metrics:", *both, f"    - {{kind: valid-json, keys: [{field}]}}"]


def _held_out(rows: int) -> str:
    if rows < _FEWEST:
        return "0  # so few rows cannot be divided; a file of its own would do: {path: …}"
    share = "0.05" if rows >= _FEW else "0.1" if rows >= 500 else "0.2" if rows >= 10 else "2"
    return f"{share}  # never trained on; base and result are judged on these"


def _slug(path: str) -> str:
    """A run's name from a file's."""
    stem = re.split(r"[/:]", path.rstrip("/"))[-1].split(".")[0]
    return re.sub(r"[^a-z0-9_-]+", "-", stem.lower()).strip("-_") or "run"


def _text(value: str) -> str:
    """A YAML scalar on one line that reads as exactly this text; bare where that is plain to see."""
    if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_./-]*", value) and isinstance(scalar(value), str):
        return value
    style = "'" if '"' in value and value.isprintable() else '"'
    return yaml.safe_dump(value.replace("${", "$${"), default_style=style, allow_unicode=True, width=float("inf")).removesuffix("\n")


def _spoken(name: str) -> str:
    """A column's or label's name as text inside a template: nothing that Jinja would read, on one line."""
    return " ".join(re.sub(r"[{}]", " ", name).split()) or "value"


def _comment(text: str) -> str:
    """Text that cannot end its comment."""
    return "".join(character if character.isprintable() else " " for character in text)
