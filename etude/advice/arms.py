"""Which way of adapting learns most for what it forgets? Arms on the same rows and seeds, each in a process of its own.

A process of its own, because peak memory is the process's, and because an arm that fails must not take the others with it.
"""

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from etude import catalog
from etude.advice.arm import Arm, Frontier
from etude.advice.frontier_page import render
from etude.compose.recipes import read_recipe
from etude.compose.voice import Voice
from etude.errors import RecipeError
from etude.evaluation.judgement import Axis, Judgement
from etude.lineage.store import open_store
from etude.recipe.schema import Recipe

KINDS = ("full", "lora", "qlora", "prefix", "prompt", "bottleneck", "bitfit")
"""Compared where none are named."""


def frontier(
    recipe: str,
    overrides: Sequence[str] = (),
    *,
    kinds: Sequence[str] = KINDS,
    stage: str | None = None,
    minutes: float | None = None,
    voice: Voice | None = None,
    project: Path | None = None,
) -> Frontier:
    """Train a recipe's stage once for each kind of adaptation and compare what each learns and forgets.

    The recipe's options of its own kind hold for that kind; the others have their defaults, the learning rate too.

    Args:
        kinds: names of adaptations, each with its learning rate behind an `@` if it is not to be its usual one: `lora`, `full@5e-5`.
        stage: which stage varies; needed where a recipe has several.
        minutes: no arm is begun after that many.

    Raises:
        RecipeError: the recipe, the stage or a kind is not there, or nothing would be judged.
    """
    voice, began = voice or Voice(), time.monotonic()
    loaded = read_recipe(recipe, overrides)
    name = _stage(loaded.recipe, stage)
    wishes = {wish: _settings(loaded.recipe, name, *_parts(wish)) for wish in kinds}
    root = open_store(project).root
    file = str(Path(recipe).resolve()) if Path(recipe).is_file() else recipe  # arms run in the project's folder, wherever we stand
    found: list[Arm] = []
    missing: dict[str, str] = {}
    for wish, settings in wishes.items():
        if minutes is not None and time.monotonic() - began > 60 * minutes:
            missing[wish] = f"not begun: {minutes:g} minutes had passed"
            continue
        voice.heading(f"{wish}, {len(found) + len(missing) + 1} of {len(wishes)}")
        answer = _run([file, *overrides, *settings], root.parent)
        if "error" in answer:
            missing[wish] = str(answer["error"])
            voice.say(f"{wish} has no result: {answer['error']}")
        else:
            found.append(_arm(_parts(wish)[0], answer["stages"][name]))
    arms = sorted(_with_best(found), key=lambda arm: _worth(arm.task), reverse=True)
    made = datetime.now().astimezone().isoformat(timespec="seconds")
    folder = root / "frontiers" / f"{loaded.recipe.name}-{name}"
    folder.mkdir(parents=True, exist_ok=True)
    result = Frontier(recipe, name, _named(loaded.recipe), made, tuple(arms), missing, str(folder / "frontier.html"))
    (folder / "frontier.json").write_text(result.to_json() + "\n", encoding="utf-8")
    (folder / "frontier.html").write_text(render(result), encoding="utf-8")
    return result


def _named(recipe: Recipe) -> str:
    return recipe.base if isinstance(recipe.base, str) else recipe.base.name


def _stage(recipe: Recipe, stage: str | None) -> str:
    """The stage that varies. Its parents are run as they are, once."""
    if stage is None and len(recipe.stages) > 1:
        raise RecipeError([f"{recipe.name} has the stages {', '.join(recipe.stages)}: say which one varies with `--stage`"])
    name = stage or next(iter(recipe.stages))
    if name not in recipe.stages:
        raise RecipeError([f"{recipe.name} has no stage {name!r}; its stages are {', '.join(recipe.stages)}"])
    if recipe.evaluate is None:
        raise RecipeError([f"{recipe.name} judges nothing (`evaluate: null`), so there would be nothing to compare"])
    return name


def _parts(wish: str) -> tuple[str, str]:
    """`full@5e-5` → the kind and its rate; the rate is empty where none is named."""
    kind, _, rate = wish.partition("@")
    return kind, rate


def _settings(recipe: Recipe, stage: str, kind: str, rate: str) -> list[str]:
    """Overrides that make the arm: a name of its own, the kind, its rate."""
    if kind not in catalog.ADAPTATIONS:
        raise RecipeError([f"there is no adaptation {kind!r}; there are {', '.join(catalog.ADAPTATIONS)}"])
    own = recipe.stages[stage]
    slug = f"{kind}-{rate}" if rate else kind
    settings = [f"name={recipe.name}-{slug.replace('+', '-plus')}"]
    if kind != own.adapt.kind:
        settings.append(f"stages.{stage}.adapt={kind}")
    if rate or kind != own.adapt.kind:
        settings.append(f"stages.{stage}.train.learning_rate={rate or 'null'}")
    return settings


def _run(arguments: list[str], folder: Path) -> dict[str, Any]:
    """`etude run … --json` in a process of its own; its progress goes where ours goes."""
    done = subprocess.run([sys.executable, "-m", "etude", "run", *arguments, "--json"], cwd=folder, stdout=subprocess.PIPE, text=True)
    lines = done.stdout.strip().split("\n")  # texts in the answer may hold line separators of other kinds
    if done.returncode == 130:
        raise KeyboardInterrupt
    try:
        return json.loads(lines[-1])
    except (IndexError, ValueError):
        return {"error": f"its process ended with status {done.returncode} and no result"}


def _arm(kind: str, answer: dict[str, Any]) -> Arm:
    record = answer["record"]
    judgement = Judgement.from_json((Path(answer["folder"]) / "judgement.json").read_text(encoding="utf-8"))
    cost = judgement.about.cost
    section = record["recipe"]["stages"][record["stage"]]
    rate = section["train"]["learning_rate"] or catalog.find("adaptation", kind)().default_learning_rate
    return Arm(
        kind=kind,
        learning_rate=rate,
        artefact=answer["artefact"],
        report=answer["report"],
        task=next(judgement.of("task")),
        general=next(iter(judgement.of("keep")), None),
        trainable=cost.trainable_parameters or 0,
        parameters=cost.parameters or 0,
        file_bytes=cost.artefact_bytes or 0,
        peak_memory=cost.peak_memory_bytes or 0,
        seconds=cost.seconds or 0.0,
    )


def _worth(axis: Axis) -> float:
    return axis.tuned.value if axis.higher_is_better else -axis.tuned.value


def _with_best(arms: list[Arm]) -> list[Arm]:
    """Mark those that no other arm beats at learning and at keeping; without general text, the best at the task alone."""
    place = [(_worth(arm.task), -arm.general.difference.value if arm.general is not None else 0.0) for arm in arms]
    beaten = [any(b[0] >= a[0] and b[1] >= a[1] and b != a for b in place) for a in place]
    return [replace(arm, best=not lost) for arm, lost in zip(arms, beaten, strict=True)]
