"""A leaf of the catalog from options given one by one, as on a command line: with the same errors and suggestions as in a recipe."""

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from etude.errors import RecipeError
from etude.recipe.document import Node, Place, Problems, read
from etude.recipe.merge import overridden
from etude.recipe.problems import explain
from etude.recipe.shape import Shape
from etude.recipe.strict import Leaf, Tables, leaf_class
from etude.recipe.suggest import choice


def leaf(table: str, kind: str, given: Mapping[str, Any], overrides: Sequence[str] = (), *, tables: Tables) -> Leaf:
    """The leaf `kind` of `table`.

    Args:
        given: options by name.
        overrides: further ones as `key=value`, whose value is YAML.

    Raises:
        RecipeError: an unknown kind or option, or a value that does not fit, each with what was meant or is known.
    """
    problems = Problems()
    if kind not in tables[table]:
        problems.add(Place("", 1, 1, ""), (), f"unknown {table} {kind!r}; one of: {', '.join(tables[table])}{choice(kind, tables[table])}")
        raise RecipeError(problems.lines())
    found = leaf_class(tables, table, kind)
    shape = Shape(model=found)
    root = read(json.dumps(dict(given)), "", os.getcwd(), problems) or Node({}, Place("", 1, 1, os.getcwd()))
    for override in overrides:
        root = overridden(root, override, os.getcwd(), shape, tables, problems)
    if not problems.found:
        try:
            return found.model_validate_json(json.dumps(root.plain()), strict=True, context={"tables": tables})
        except ValidationError as error:
            explain(error, root, shape, tables, problems)
    raise RecipeError(problems.lines())
