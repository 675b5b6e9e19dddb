"""etude: one tool for the whole life of a language model.

Every verb of the command line is a function here. They are imported when first used, so that `import etude` costs nothing.
"""

import logging
from typing import TYPE_CHECKING, Any

# Wherever it is installed peft imports it, and it warns of a faster kernel that it could not fetch, though nothing is in four bits.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)

__version__ = "0.1.0"

if TYPE_CHECKING:
    from etude.advice.arms import frontier
    from etude.compose.checking import data_check
    from etude.compose.checkup import doctor
    from etude.compose.comparison import compare
    from etude.compose.corpora import corpus_prepare, corpus_schema, corpus_show
    from etude.compose.extending import tokenizer_extend
    from etude.compose.library import clean, name, show, verify
    from etude.compose.library import list_ as list
    from etude.compose.looking import data_show, init, schema
    from etude.compose.models import Model, chat, load
    from etude.compose.recipes import forecast, read_recipe, run
    from etude.compose.tokenizers import tokenizer_show, tokenizer_train
    from etude.errors import EtudeError

_WHERE = {
    "run": "etude.compose.recipes:run",
    "forecast": "etude.compose.recipes:forecast",
    "read_recipe": "etude.compose.recipes:read_recipe",
    "init": "etude.compose.looking:init",
    "schema": "etude.compose.looking:schema",
    "data_check": "etude.compose.checking:data_check",
    "data_show": "etude.compose.looking:data_show",
    "list": "etude.compose.library:list_",
    "show": "etude.compose.library:show",
    "name": "etude.compose.library:name",
    "verify": "etude.compose.library:verify",
    "clean": "etude.compose.library:clean",
    "chat": "etude.compose.models:chat",
    "load": "etude.compose.models:load",
    "Model": "etude.compose.models:Model",
    "compare": "etude.compose.comparison:compare",
    "corpus_prepare": "etude.compose.corpora:corpus_prepare",
    "corpus_schema": "etude.compose.corpora:corpus_schema",
    "corpus_show": "etude.compose.corpora:corpus_show",
    "frontier": "etude.advice.arms:frontier",
    "tokenizer_train": "etude.compose.tokenizers:tokenizer_train",
    "tokenizer_extend": "etude.compose.extending:tokenizer_extend",
    "tokenizer_show": "etude.compose.tokenizers:tokenizer_show",
    "doctor": "etude.compose.checkup:doctor",
    "EtudeError": "etude.errors:EtudeError",
}

__all__ = [
    "EtudeError", "Model", "__version__", "chat", "clean", "compare", "corpus_prepare", "corpus_schema", "corpus_show", "data_check",
    "data_show", "doctor", "forecast", "frontier", "init", "list", "load", "name", "read_recipe", "run", "schema", "show",
    "tokenizer_extend", "tokenizer_show", "tokenizer_train", "verify",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'etude' has no attribute {name!r}")
    from importlib import import_module  # noqa: PLC0415

    module, attribute = _WHERE[name].split(":")
    return getattr(import_module(module), attribute)
