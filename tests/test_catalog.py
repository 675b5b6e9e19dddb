"""Everything that a recipe can name or say: it exists, explains itself, is tested, is read, and learns."""

import ast
from functools import cache
from pathlib import Path

import pytest
import tiny
from pydantic import BaseModel

import etude
from etude import catalog
from etude.engine.loop import fit
from etude.recipe import corpus, data, schema
from etude.recipe.strict import Leaf, Strict

PACKAGE, TESTS = Path(etude.__file__).parent, Path(__file__).parent
ENTRIES = [(table, name) for table, names in catalog.TABLES.items() for name in names]
LEAVES = {f"{table}/{name}": catalog.find(table, name) for table, name in ENTRIES}


@cache
def texts_of_tests() -> dict[Path, str]:
    return {path: path.read_text(encoding="utf-8") for path in TESTS.rglob("*.py") if path != Path(__file__)}


@pytest.mark.parametrize("entry", LEAVES)
def test_entry(entry):
    leaf = LEAVES[entry]
    assert issubclass(leaf, Leaf)
    assert leaf.kind == entry.split("/")[1], "it is called what it calls itself"
    assert leaf.model_config["frozen"] and leaf.model_config["extra"] == "forbid"
    assert leaf.__doc__ and leaf.__doc__ != (leaf.__base__.__doc__ or ""), "a docstring of its own"
    undescribed = [name for name, field in leaf.model_fields.items() if not field.description]
    assert not undescribed
    leaf.model_validate({}, context={"tables": catalog.TABLES})  # every option has a default


@pytest.mark.parametrize("entry", LEAVES)
def test_entry_has_a_test(entry):
    leaf = LEAVES[entry]
    names = (leaf.__name__, f'"{leaf.kind}"')
    assert any(name in text for text in texts_of_tests().values() for name in names)


def test_an_unknown_name_is_answered_with_the_known_ones():
    with pytest.raises(KeyError, match="unknown adaptation 'lore'; known: full, last_layers"):
        catalog.find("adaptation", "lore")


ROWS = 8
STRONG = 0.5
"""After 40 steps on eight rows the loss is below this share of what it was."""
WEAK = {"parameters": 0.95, "prompt": 0.95, "p-tuning": 0.95, "ia3": 0.95, "vera": 0.95, "bitfit": 0.95, "embeddings": 0.98}
"""The same for adaptations that can change little."""
RATES = {"full": 3e-3, "last_layers": 1e-2, "parameters": 3e-2, "lora+": 4e-3, "vera": 5e-2, "ia3": 1e-1, "prefix": 1e-1, "prompt": 1e-1}
RATES |= {"p-tuning": 1e-2, "bitfit": 3e-2, "embeddings": 1e-1}
WALK = {(adaptation, objective) for adaptation in catalog.ADAPTATIONS for objective in ("next-token", "dpo")}
SAMPLING = {"grpo", "rloo", "ppo"}
"""They raise a reward: tests/objective/test_grpo.py and test_ppo.py."""
WALK |= {(adaptation, objective) for adaptation in ("full", "lora") for objective in catalog.OBJECTIVES.keys() - SAMPLING}


@pytest.mark.parametrize(("adaptation", "objective"), sorted(WALK))
def test_eight_rows_are_learnt(tmp_path, adaptation, objective):
    aim, examples = tiny.task(catalog.find("objective", objective)(), ROWS)
    made = tiny.course(
        tmp_path,
        catalog.find("adaptation", adaptation)(),
        aim,
        examples=examples,
        steps=40,
        examples_per_step=ROWS,
        learning_rate=RATES.get(adaptation, 2e-2),
    )
    outcome = fit(made.course)
    assert outcome.finished and not outcome.totals.refused_steps
    assert made.losses[-1] < WEAK.get(adaptation, STRONG) * made.losses[0]


NAMED = {**vars(schema), **vars(data), **vars(corpus)}.values()
CLASSES = [found for found in NAMED if isinstance(found, type) and issubclass(found, Strict)]
MODELS = [found for found in CLASSES if found not in (Strict, Leaf)]
KEYS = [(model, name) for model in [*MODELS, *LEAVES.values()] for name in model.model_fields]


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_every_key_explains_itself(model: type[BaseModel]):
    assert model.__doc__
    assert not [name for name, field in model.model_fields.items() if not field.description]


def receiver(node: ast.expr) -> str:
    """The last name of what an attribute is read from: `train` of `stage.train.seed`."""
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""


@cache
def read_in_the_code() -> set[tuple[str, str]]:
    """Every (receiver, attribute) that is read anywhere outside `recipe/`."""
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in PACKAGE.rglob("*.py") if path.parent.name != "recipe"]
    nodes = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load)]
    return {(receiver(node.value), node.attr) for node in nodes}


CALLED = {name: name.lower() for name in ("Recipe", "Stage", "Data", "Source", "Train", "Keep", "Newborn")}
CALLED |= dict.fromkeys(("Evaluate", "EarlyStopping", "Replay", "Stability"), "settings")
CALLED |= {"Corpus": "recipe", "Deduplicate": "deduplicate", "Near": "near", "Benchmark": "benchmark", "Overlap": "rule"}
"""What the code calls a part of the recipe wherever it reads one; a leaf reads itself."""
READ_AS = {("Newborn", "size"): "parameters", ("Newborn", "compute"): "parameters"}
"""What is read in another's name: `Newborn.parameters` is what either says."""
READ_TOGETHER = {"Render": "data/render.py compiles whichever templates were given, in one loop over its fields"}


@pytest.mark.parametrize(("model", "key"), KEYS, ids=lambda value: value if isinstance(value, str) else value.__name__)
def test_13_every_key_is_read(model, key):
    """A key that nothing reads would be accepted and do nothing."""
    if model.__name__ not in READ_TOGETHER:
        spelt = CALLED.get(model.__name__, "self"), READ_AS.get((model.__name__, key), key)
        assert spelt in read_in_the_code(), f"{model.__name__}.{key} is read by nothing"
