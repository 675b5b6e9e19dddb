"""What may stand at a given place of a recipe: which keys, which leaf, which short form?

Read off the schema's own annotations, so that loading, suggestions and the reference never disagree with validation.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic.fields import FieldInfo

from etude.recipe.document import Node
from etude.recipe.strict import Leaf, Located, OneOf, OneOrMany, Strict, Tables, leaf_class


@dataclass(frozen=True, slots=True)
class Shape:
    """The possibilities at one place; a union has several of them."""

    model: type[Strict] | None = None
    """A mapping with this class's fields."""
    one_of: OneOf | None = None
    """A leaf of the catalog, whose class the mapping's `kind` decides."""
    values: "Shape | None" = None
    """A mapping with names of one's own."""
    items: "Shape | None" = None
    """A list."""
    one_or_many: bool = False
    """Whether a single item may stand for the list."""
    located: Located | None = None
    """A text that names a file."""
    choices: tuple[str, ...] = ()
    """The words that may stand here, where they are few."""

    @property
    def short(self) -> str | None:
        """The key that a bare text stands for."""
        return "kind" if self.one_of else self.model.short if self.model else None


NOTHING = Shape()
_SINGLE = ("model", "one_of", "values", "items", "located")


def shape_of(annotation: Any, marks: tuple[Any, ...] = ()) -> Shape:
    """The shape of a field with this annotation, and of what stands in its union's members."""
    if get_origin(annotation) is Annotated:
        inner, *more = get_args(annotation)
        return shape_of(inner, (*marks, *more))
    if chosen := next((mark for mark in marks if isinstance(mark, OneOf)), None):
        return Shape(one_of=chosen)
    if isinstance(annotation, type) and issubclass(annotation, Strict):
        return Shape(model=annotation)
    origin, inside = get_origin(annotation), get_args(annotation)
    if origin is list:
        return Shape(items=shape_of(inside[0]), one_or_many=any(isinstance(mark, OneOrMany) for mark in marks))
    if origin is dict:
        return Shape(values=shape_of(inside[1]))
    if origin is Literal:
        return Shape(choices=tuple(choice for choice in inside if isinstance(choice, str)))
    if inside:  # a union
        members = [shape_of(member) for member in inside]
        first: dict[str, Any] = {name: next(filter(None, (getattr(member, name) for member in members)), None) for name in _SINGLE}
        return Shape(**first, choices=tuple(choice for member in members for choice in member.choices))
    return Shape(located=next((mark for mark in marks if isinstance(mark, Located)), None))


def of_field(field: FieldInfo) -> Shape:
    """The shape of a model's field."""
    return shape_of(field.annotation, tuple(field.metadata))


def class_at(shape: Shape, node: Node | None, tables: Tables) -> type[Strict] | None:
    """The class that reads the mapping here; None where there is none, or where its kind is unknown."""
    if shape.one_of is None:
        return shape.model
    written = node.inside.get("kind") if node else None
    kind = written.value if written else shape.one_of.usual
    try:
        return leaf_class(tables, shape.one_of.table, kind) if isinstance(kind, str) else None
    except (KeyError, ImportError):  # validation reports both
        return None


def below(shape: Shape, key: str | int, node: Node | None, tables: Tables) -> Shape:
    """What may stand under `key` of the value `node`, whose shape is given."""
    if isinstance(key, int):
        return shape.items or NOTHING
    if (found := class_at(shape, node, tables)) and key in found.model_fields:
        return of_field(found.model_fields[key])
    return shape.values or NOTHING


def transform(node: Node, shape: Shape, tables: Tables, change: Callable[[Node, Shape], Node]) -> Node:
    """The tree with `change` applied to every node, from the top down."""
    node = change(node, shape)
    if isinstance(node.value, dict):
        inside = {key: transform(child, below(shape, key, node, tables), tables, change) for key, child in node.value.items()}
        return replace(node, value=inside)
    if isinstance(node.value, list):
        return replace(node, value=[transform(child, shape.items or NOTHING, tables, change) for child in node.value])
    return node


def spelled_out(node: Node, shape: Shape) -> Node:
    """Short forms written in full, so that merging and overriding see one form: `lora` → `{kind: lora}`, a path → `[{path: …}]`.

    A text with a `${…}` in it waits until that is known.
    """
    value = node.value
    if node.refers or node.broken:
        return node
    if shape.one_or_many and isinstance(value, (str, dict)):
        return Node([replace(node, key=None)], node.place, node.key)
    if shape.short and isinstance(value, str):
        return Node({shape.short: replace(node, key=node.place)}, node.place, node.key)
    return node


def keys_everywhere(root: Shape, tables: Tables) -> Iterator[tuple[tuple[str, ...], FieldInfo | None]]:
    """Every key of a recipe with its path, `*` for names and numbers of one's own; of a leaf's options, those that can be imported."""
    queue: list[tuple[tuple[str, ...], Shape]] = [((), root)]
    while queue:  # breadth first: nearer keys are better suggestions
        path, shape = queue.pop(0)
        classes = [shape.model] if shape.model else _leaves(shape.one_of, tables) if shape.one_of else []
        for found in classes:
            for name, field in found.model_fields.items():
                yield (*path, name), field
                queue.append(((*path, name), of_field(field)))
        if inside := shape.values or shape.items:
            queue.insert(0, ((*path, "*"), inside))  # no step away for the reader


def _leaves(mark: OneOf, tables: Tables) -> list[type[Leaf]]:
    found = []
    for kind in tables.get(mark.table, {}):
        try:
            found.append(leaf_class(tables, mark.table, kind))
        except ImportError:
            continue
    return found
