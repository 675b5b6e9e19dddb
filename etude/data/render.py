"""What do the recipe's Jinja templates make of a row? Sandboxed, and strict: an unknown column is an error, never an empty string."""

from collections.abc import Callable
from typing import Any

from jinja2 import StrictUndefined, TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from etude.data.records import Completion, Pair, Record, RowError, Text
from etude.errors import DataError
from etude.recipe.data import Render

TEMPLATE = "rows that `render` or `where` cannot be applied to"
_environment = ImmutableSandboxedEnvironment(undefined=StrictUndefined)


def renderer(render: Render, path: str) -> Callable[[dict[str, Any]], Record]:
    """A function from a row's columns to a record. DataError at once where a template cannot be parsed."""
    templates = {}
    for field, source in render.model_dump(exclude_none=True).items():
        try:
            templates[field] = _environment.from_string(source)
        except TemplateError as error:
            raise DataError(f"{path}: render.{field}: {error}", "mend the template; columns are written {{ like_this }}") from error

    def record(row: dict[str, Any]) -> Record:
        text = {field: _applied(lambda t=template: t.render(row), f"render.{field}", row) for field, template in templates.items()}
        if "text" in text:
            if not text["text"].strip():
                raise RowError(TEMPLATE, "render.text: blank", "mend the template, or leave such rows out by `where`")
            return Text(text["text"])
        system = text.get("system") or None
        if "chosen" in text:
            if text["chosen"] == text["rejected"]:
                raise RowError(TEMPLATE, "render.rejected: the same as render.chosen", "mend the templates, or use `where`")
            return Pair(Completion(text["prompt"], text["chosen"], system), Completion(text["prompt"], text["rejected"], system))
        return Completion(text["prompt"], text["completion"], system)

    return record


def condition(expression: str, path: str) -> Callable[[dict[str, Any]], bool]:
    """Whether a row is wanted. DataError at once where the expression cannot be parsed."""
    try:
        compiled = _environment.compile_expression(expression, undefined_to_none=False)
    except TemplateError as error:
        raise DataError(f"{path}: where: {error}", "write a Jinja expression, for example `label == 1 and text|length < 200`") from error
    return lambda row: _applied(lambda: bool(compiled(row)), "where", row)


def _applied(call: Callable[[], Any], field: str, row: dict[str, Any]) -> Any:
    try:
        return call()
    except Exception as error:  # a template can raise whatever the row's values raise
        columns = ", ".join(f"{name} ({type(value).__name__})" for name, value in row.items())
        remedy = f"the row's columns are {columns}; filters such as `|int` and `|default('')` help"
        raise RowError(TEMPLATE, f"{field}: {error}", remedy) from error
