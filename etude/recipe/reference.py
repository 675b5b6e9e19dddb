"""The reference of recipe keys as Markdown, generated from the schema: each key with its type, default and meaning."""

import json
from typing import Any

from etude.recipe.corpus import Corpus
from etude.recipe.json_schema import Json, described
from etude.recipe.strict import Tables

_HEAD = """\
# What a recipe can say

Generated from the schema; edits belong into the docstrings there. `etude schema` prints the same as JSON Schema for editors.

- A recipe is one YAML file, read by YAML 1.2's rules: `1e-4` is a number; `on`, `off`, `yes` and `no` are text.
  Tags and merge keys are not read.
- An unknown key is an error, and so is a value of the wrong type: text is not a number, a number is no truth value.
  All mistakes are reported at once, each with its file, line and column.
- `extends: other.yaml` (or a list of files) starts from other recipes: mappings are merged key by key, everything else
  is replaced as a whole. Options belong to their `kind`: another kind starts afresh.
- `${path.to.key}` is the value of another key, with its type where it stands alone; `$${` is a literal `${`.
  Environment variables are not read.
- `etude run recipe.yaml path.to.key=value` overrides one key; items of a list go by number, as in
  `stages.s.data.sources.0.path=x.jsonl`.
- Relative paths begin at the folder of the file they are written in; in overrides, at the current folder.
- `null` is a value like any other and allowed where the type says so; for a default, leave the key out.
"""
_KEYS = "| key | type | default | meaning |\n|---|---|---|---|\n"


def reference(tables: Tables) -> str:
    """The whole page, the same for the same schema and catalog."""
    schema = described(tables)
    pages = _Pages(schema["$defs"], tables)
    pages.model("Recipe", "", schema)
    for table in pages.tables:
        pages.table(table)
    return _HEAD + "".join(pages.parts)


_CORPUS_HEAD = """\
# What a corpus recipe can say

Generated from the schema; edits belong into the docstrings there. `etude corpus schema` prints the same as JSON Schema for editors.
Files are read as [other recipes](recipe.md) are: unknown keys are errors, `extends` starts from another file, `key=value` overrides.
"""


def corpus_reference(tables: Tables) -> str:
    """The page of a corpus recipe's keys."""
    schema = described(tables, Corpus)
    pages = _Pages(schema["$defs"], tables)
    pages.model("Corpus", "", schema)
    for table in pages.tables:
        pages.table(table)
    return _CORPUS_HEAD + "".join(pages.parts)


class _Pages:
    """Sections in the order in which a reader meets them."""

    def __init__(self, definitions: Json, catalog: Tables):
        self.definitions, self.catalog = definitions, catalog
        self.parts: list[str] = []
        self.written: set[str] = set()
        self.tables: list[str] = []

    def model(self, name: str, path: str, schema: Json) -> None:
        """A section for a mapping, then one for each mapping in it; `path` is where it is first met."""
        self.written.add(name)
        form = next(part for part in (schema, *schema.get("anyOf", ())) if "properties" in part)
        where = f"\n`{path}`\n" if path else ""
        self.parts.append(f"\n## {name}\n{where}\n{_line(form.get('description', ''))}\n\n{self.keys(form)}")
        for key, field in form["properties"].items():
            for inner, below in self.inside(field, f"{path}.{key}".lstrip(".")):
                if inner in self.catalog and inner not in self.tables:
                    self.tables.append(inner)
                elif inner not in self.written and inner not in self.catalog:
                    self.model(inner, below, self.definitions[inner])

    def inside(self, schema: Any, path: str) -> list[tuple[str, str]]:
        """The definitions that a field leads to, and their paths."""
        if "$ref" in schema:
            return [(_name(schema), path)]
        found = [one for member in (*schema.get("anyOf", ()), *schema.get("oneOf", ())) for one in self.inside(member, path)]
        if "items" in schema:
            found += self.inside(schema["items"], f"{path}.0")
        if isinstance(schema.get("additionalProperties"), dict):
            one = path.removesuffix("s").rpartition(".")[2]
            found += self.inside(schema["additionalProperties"], f"{path}.<{one}>")
        return found

    def table(self, table: str) -> None:
        """A section for a table of the catalog, with each leaf's options."""
        self.parts.append(f"\n## {table}\n\nA name, or a mapping with `kind` and the options of that kind.\n")
        for name in self.catalog[table]:
            leaf = self.definitions[f"{table}.{name}"]
            options = {**leaf, "properties": {key: field for key, field in leaf["properties"].items() if key != "kind"}}
            self.parts.append(f"\n### {table}: {name}\n\n{leaf['description']}\n")
            self.parts.append(f"\n{self.keys(options)}" if options["properties"] else "\nNo options.\n")

    def keys(self, schema: Json) -> str:
        rows = []
        for key, field in schema["properties"].items():
            default = "**required**" if key in schema.get("required", ()) else _default(field)
            cells = (f"`{key}`", self.type(field), default, _line(field.get("description", "")))
            rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n")
        return _KEYS + "".join(rows)

    def type(self, schema: Json) -> str:
        """A field's type in words."""
        if "$ref" in schema:
            name = _name(schema)
            short = [one for one in self.definitions[name].get("anyOf", ()) if one.get("type") in ("string", "number")]
            short = "".join(f"{self.type(one)} or " for one in short)
            return f"{short}[{name}](#{name.lower()})"
        if members := schema.get("anyOf") or schema.get("oneOf"):
            return " or ".join(dict.fromkeys(map(self.type, members)))
        if words := schema.get("enum") or ([schema["const"]] if "const" in schema else None):
            return ", ".join(f"`{word}`" for word in words)
        kind = schema.get("type")
        if kind == "array":
            items = self.type(schema["items"])
            return f"list of ({items})" if " or " in items else f"list of {items}"
        if kind == "object":
            values = schema.get("additionalProperties")
            return f"mapping of names to {self.type(values)}" if isinstance(values, dict) else "mapping"
        words = {"string": "text", "integer": "whole number", "number": "number", "boolean": "true or false", "null": "null"}
        return words.get(str(kind), "anything") + _bounds(schema)


def _bounds(schema: Json) -> str:
    signs = {"exclusiveMinimum": ">", "minimum": "≥", "exclusiveMaximum": "<", "maximum": "≤"}
    return "".join(f" {sign} {schema[key]:g}" for key, sign in signs.items() if key in schema)


def _name(schema: Json) -> str:
    return schema["$ref"].removeprefix("#/$defs/")


def _default(field: Json) -> str:
    default = field.get("default")
    if default == {} and field.get("type") != "object":
        return "its defaults"
    return f"`{default}`" if isinstance(default, str) and default else f"`{json.dumps(default)}`"


def _line(text: str) -> str:
    return " ".join(text.split())
