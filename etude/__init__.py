"""etude: one tool for the whole life of a language model.

Every verb of the command line is a function here. They are imported when first used, so that `import etude` costs nothing.
"""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from etude.compose.checkup import doctor
    from etude.compose.comparison import compare
    from etude.compose.models import Model, load
    from etude.compose.recipes import forecast, read_recipe, run
    from etude.errors import EtudeError

_WHERE = {
    "run": "etude.compose.recipes",
    "forecast": "etude.compose.recipes",
    "read_recipe": "etude.compose.recipes",
    "load": "etude.compose.models",
    "Model": "etude.compose.models",
    "compare": "etude.compose.comparison",
    "doctor": "etude.compose.checkup",
    "EtudeError": "etude.errors",
}

__all__ = ["EtudeError", "Model", "__version__", "compare", "doctor", "forecast", "load", "read_recipe", "run"]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'etude' has no attribute {name!r}")
    from importlib import import_module  # noqa: PLC0415

    return getattr(import_module(_WHERE[name]), name)
