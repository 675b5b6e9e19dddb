"""What must be there before a stage can begin? Its parent, its teacher, what rewards it; and so in which order the stages run."""

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches

from etude.errors import LineageError
from etude.lineage.store import Store
from etude.recipe.document import Path as KeyPath
from etude.recipe.load import Loaded
from etude.recipe.schema import Recipe, Stage


@dataclass(frozen=True, slots=True)
class StandIn:
    """What a model's name stands for, where the recipe itself makes that model."""

    reference: str
    made: bool
    """False where it is yet to be made: `reference` is then what it will come from, which reads the same tokens."""


StandIns = Mapping[str, StandIn]
"""By the name that the recipe has for the model."""


def artefact_name(recipe: Recipe, stage: str) -> str:
    """What a stage's result is called."""
    return recipe.name if len(recipe.stages) == 1 else f"{recipe.name}-{stage}"


def made_here(recipe: Recipe, stage: str) -> dict[str, str]:
    """The models that a stage learns beside and that the recipe itself makes: their names, each with the stage that makes it."""
    makes = {artefact_name(recipe, other): other for other in recipe.stages}
    named = [name for name, _ in (*_rewarding(recipe.stages[stage]), *_teaching(recipe.stages[stage]))]
    return {name: makes[name] for name in named if name in makes}


def in_order(recipe: Recipe) -> list[str]:
    """Stages, each behind all that it needs, otherwise as written."""
    order: list[str] = []
    entered: set[str] = set()

    def add(name: str) -> None:
        if name in recipe.stages and name not in entered:
            entered.add(name)
            for other in _needs(recipe, name):
                add(other)
            order.append(name)

    for name in recipe.stages:
        add(name)
    return order


def wrong_models(loaded: Loaded[Recipe], store: Store) -> dict[KeyPath, str]:
    """What is wrong with the models that stages name, by the keys that name them: found out before any of them is trained."""
    return _unknown_parents(loaded.recipe, store) | _barren_parents(loaded.recipe) | _unfit_beside(loaded.recipe)


def _rewarding(stage: Stage) -> list[tuple[str, KeyPath]]:
    """The artefacts that reward answers, each with its key."""
    rewards = stage.objective.sampling.rewards if stage.objective.sampling is not None else ()
    places = [(reward.reads_with, ("objective", "rewards", number, "artefact")) for number, reward in enumerate(rewards)]
    return [(name, place) for name, place in places if name is not None]


def _teaching(stage: Stage) -> list[tuple[str, KeyPath]]:
    """The model that is learnt from, with its key, where it is neither parent nor base."""
    teaching = stage.objective.teaching
    return [] if teaching is None or teaching.teacher in ("parent", "base") else [(teaching.teacher, ("objective", "teacher"))]


def _needs(recipe: Recipe, name: str) -> list[str]:
    """The stages that a stage waits for."""
    return [other for other in (recipe.stages[name].parent, *made_here(recipe, name).values()) if other in recipe.stages]


def _before(recipe: Recipe, name: str) -> set[str]:
    """The same, with all that those wait for."""
    found: set[str] = set()
    waiting = [name]
    while waiting:
        new = set(_needs(recipe, waiting.pop())) - found
        found |= new
        waiting += sorted(new)
    return found


def _unfit_beside(recipe: Recipe) -> dict[KeyPath, str]:
    """Rewards and teachers that the recipe makes, but too late, or by an objective that makes something else."""
    wrong: dict[KeyPath, str] = {}
    for name, stage in recipe.stages.items():
        made = made_here(recipe, name)
        rewarding = [one for one in _rewarding(stage) if one[0] in made]
        teaching = [one for one in _teaching(stage) if one[0] in made]
        for model, place in (*rewarding, *teaching):
            at, other = ("stages", name, *place), made[model]
            if other == name:
                wrong[at] = f"{model} is what this very stage makes; name a version of it that is there, such as `{model}@1`"
            elif name in _before(recipe, other):
                wrong[at] = f"{model} is made by {other}, which itself waits for {name}; make it in a recipe of its own"
        for model, place in rewarding:
            if (kind := recipe.stages[made[model]].objective.kind) != "reward":
                what = f"{model} is made by {made[model]}, which learns by {kind} and is no reward model"
                wrong.setdefault(("stages", name, *place), f"{what}; name a stage with `objective: reward`")
        for model, place in teaching:
            if not recipe.stages[made[model]].objective.writes:
                what = f"{model} is made by {made[model]}, which learns to score and writes nothing"
                wrong.setdefault(("stages", name, *place), f"{what}; take a teacher that writes")
    return wrong


def _unknown_parents(recipe: Recipe, store: Store) -> dict[KeyPath, str]:
    wrong: dict[KeyPath, str] = {}
    for name, stage in recipe.stages.items():
        if stage.parent == "base" or stage.parent in recipe.stages:
            continue
        try:
            store.resolve(stage.parent)
        except LineageError:
            artefacts = sorted({record.name for record in store.records()})
            others = ["base", *(other for other in recipe.stages if other != name)]
            near = get_close_matches(stage.parent, [*others, *artefacts], n=1)
            meant = f"did you mean `{near[0]}`? " if near else ""
            what = f"{stage.parent!r} is neither a stage of this recipe nor an artefact"
            there = f"stages: {', '.join(others)}; artefacts: {', '.join(artefacts) or 'none yet'}"
            wrong["stages", name, "parent"] = f"{what}; {meant}({there})"
    return wrong


def _barren_parents(recipe: Recipe) -> dict[KeyPath, str]:
    """Stages that stand on what cannot be melted into weights."""
    stages = recipe.stages
    scoring: dict[KeyPath, str] = {
        ("stages", name, "parent"): f"{stage.parent} learns to score by {stages[stage.parent].objective.kind} and writes nothing, "
        "so nothing can stand on it; begin at its own parent"
        for name, stage in stages.items()
        if stage.parent in stages and not stages[stage.parent].objective.writes
    }
    barren: dict[KeyPath, str] = {
        ("stages", name, "parent"): f"{stage.parent} is adapted by {stages[stage.parent].adapt.kind}, on which nothing can stand; "
        "adapt it by `lora` or `full`, or begin at its own parent"
        for name, stage in stages.items()
        if stage.parent in stages and not stages[stage.parent].adapt.can_be_parent
    }
    return scoring | barren
