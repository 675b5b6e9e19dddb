"""What do several files and overrides say together? The later word wins, key by key."""

import difflib
from dataclasses import replace

from etude.recipe.document import Node, Place, Problems, dotted, read
from etude.recipe.shape import NOTHING, Shape, below, spelled_out, transform
from etude.recipe.strict import Tables


def merged(under: Node, over: Node, shape: Shape, tables: Tables) -> Node:
    """`over` laid on `under`: mappings key by key, everything else as a whole.

    Options belong to their kind: a mapping of another kind replaces the one below it altogether.
    """
    if not (isinstance(under.value, dict) and isinstance(over.value, dict)):
        return over
    if shape.one_of and _kind(over, _kind(under, shape.one_of.usual)) != _kind(under, shape.one_of.usual):
        return over
    value = dict(under.inside)
    for key, node in over.inside.items():
        value[key] = merged(value[key], node, below(shape, key, over, tables), tables) if key in value else node
    return replace(over, value=value)


def _kind(node: Node, otherwise: object) -> object:
    return node.inside["kind"].value if "kind" in node.inside else otherwise


def overridden(root: Node, override: str, folder: str, shape: Shape, tables: Tables, problems: Problems) -> Node:
    """The tree with `path.to.key=value` set; the value is YAML and replaces what stood there."""
    place = Place("", 1, 1, folder)
    dots, equals, text = override.partition("=")
    keys = dots.strip().split(".")
    if not equals or not all(keys) or not dots.isprintable():
        problems.add(place, (), f"{override!r} should be `path.to.key=value`, such as `evaluate.rows=100`")
        return root
    if keys[0] == "extends":
        problems.add(place, ("extends",), "is read from files alone; name the other file in the recipe")
        return root
    found = Problems()
    value = read(text, "", folder, found) if text.strip() else Node(None, place)
    for _, _, what in found.found:
        problems.add(place, tuple(keys), what)
    return root if value is None else _Override(keys, value, tables, problems).into(root, shape, 0)


class _Override:
    """One value on its way to its place; mappings and lists on the way are made where they are missing."""

    def __init__(self, keys: list[str], value: Node, tables: Tables, problems: Problems):
        self.keys, self.value, self.tables, self.problems = keys, value, tables, problems
        self.place = value.place

    def into(self, node: Node | None, shape: Shape, depth: int) -> Node:
        """`node`, which stands at the first `depth` keys, with the value set."""
        if depth == len(self.keys):
            return transform(replace(self.value, key=self.place), shape, self.tables, spelled_out)
        if node is None or (node.value is None and not node.broken):
            node = Node([] if shape.items else {}, self.place, self.place)
        if isinstance(node.value, list):
            return self.into_list(node, node.value, shape, depth)
        if isinstance(node.value, dict):
            return self.into_mapping(node, node.value, shape, depth)
        held = "a reference" if node.refers else "a single value"
        return self.refused(node, f"`{dotted(tuple(self.keys[:depth]))}` is {held} and has no keys to set; set it as a whole")

    def into_list(self, node: Node, items: list[Node], shape: Shape, depth: int) -> Node:
        key = self.keys[depth]
        index = int(key) if key.isascii() and key.isdigit() and len(key) < 6 else -1
        if not 0 <= index <= len(items):
            return self.refused(node, f"a list of {len(items)} has no place {key!r}: 0 is the first, {len(items)} appends")
        new = self.into(items[index] if index < len(items) else None, shape.items or NOTHING, depth + 1)
        return replace(node, value=[*items[:index], new, *items[index + 1 :]])

    def into_mapping(self, node: Node, entries: dict[str, Node], shape: Shape, depth: int) -> Node:
        key = self.keys[depth]
        if shape.values and key not in entries and depth + 1 < len(self.keys):  # a part of something that does not exist
            near = difflib.get_close_matches(key, entries, 1)
            hint = f"did you mean `{near[0]}`?" if near else f"there is {', '.join(entries) or 'nothing'}"
            return self.refused(node, f"there is no `{key}` here; {hint}")
        new = self.into(entries.get(key), below(shape, key, node, self.tables), depth + 1)
        if key == "kind" and shape.one_of and new.value != _kind(node, shape.one_of.usual):
            return replace(node, value={"kind": new})  # the other options belonged to the other kind
        return replace(node, value={**entries, key: new})

    def refused(self, node: Node, why: str) -> Node:
        self.problems.add(self.place, tuple(self.keys), why)
        return node
