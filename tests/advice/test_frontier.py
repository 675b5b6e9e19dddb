"""The learn/forget frontier on a small project: real arms in real processes, one of which cannot be had."""

import json
from pathlib import Path

import pytest
import small_project
from small_project import recipe, stage

import etude
from etude.advice.arm import Arm
from etude.advice.arms import _with_best
from etude.errors import RecipeError
from etude.evaluation.judgement import Axis
from etude.evaluation.statistics import Interval


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("frontier")
    base = small_project.make_base(folder / "little")
    rows = ({"prompt": f"What colour has\u2028thing {i}?\x85", "completion": small_project.COLOURS[i % 5]} for i in range(40))
    (folder / "answers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / ".etude").mkdir()
    file = recipe(folder / "colours.yaml", base, {"sft": stage(folder / "answers.jsonl", adapt={"kind": "lora", "rank": 2})})
    kinds = ["lora", "full@1e-3", "bottleneck", "prompt"]
    overrides = ["stages.sft.train.steps=4"]
    return file, etude.frontier(str(file), overrides, kinds=kinds, project=folder), folder


def test_arms_are_what_a_run_of_their_own_would_be(compared):
    _, found, folder = compared
    assert not found.missing
    arms = {arm.kind: arm for arm in found.arms}
    assert set(arms) == {"lora", "full", "bottleneck", "prompt"}
    assert arms["full"].learning_rate == 1e-3 and arms["full"].trainable == arms["full"].parameters
    assert arms["prompt"].trainable == 16 * 32 and arms["lora"].trainable < arms["full"].trainable / 4
    assert {arm.task.parent.value for arm in found.arms} == {arms["lora"].task.parent.value}, "one parent for all"
    assert all(arm.peak_memory > 0 and arm.file_bytes > 0 and arm.seconds > 0 for arm in found.arms)
    assert any(arm.best for arm in found.arms)
    again = etude.show("colours-full-1e-3", project=folder).record
    assert again.metrics["loss"] > 0 and again.recipe["stages"]["sft"]["adapt"] == {"kind": "full"}


def test_the_page_and_the_json_hold_every_arm(compared):
    _, found, _ = compared
    page, written = Path(found.page).read_text(), json.loads(Path(found.page).with_suffix(".json").read_text())
    assert [arm["kind"] for arm in written["arms"]] == [arm.kind for arm in found.arms]
    assert page.count('<g class="arm') == 4 and all(f">{arm.kind}</text>" in page for arm in found.arms)
    assert "http" not in page.replace("http-equiv", "")


def test_a_recipe_is_found_from_where_the_user_stands(compared, monkeypatch):
    """In a folder below the project's, by a path relative to it; the arm was made before, so nothing is trained."""
    file, _, folder = compared
    (folder / "below").mkdir()
    monkeypatch.chdir(folder / "below")
    found = etude.frontier(f"../{file.name}", ["stages.sft.train.steps=4"], kinds=["lora"], project=folder)
    assert not found.missing and [arm.kind for arm in found.arms] == ["lora"]


def test_what_cannot_be_is_named_and_the_rest_goes_on(compared):
    file, _, folder = compared
    found = etude.frontier(str(file), ["stages.sft.train.steps=4"], kinds=["last_layers", "lora"], project=folder)
    assert [arm.kind for arm in found.arms] == ["lora", "last_layers"] or not found.missing
    small = ["stages.sft.train.steps=4", "stages.sft.adapt={kind: last_layers, layers: 9}", "name=deep"]
    found = etude.frontier(str(file), small, kinds=["last_layers", "lora"], project=folder)
    assert [arm.kind for arm in found.arms] == ["lora"]
    assert "the model has 2 blocks" in found.missing["last_layers"]
    assert "the model has 2 blocks" in Path(found.page).read_text()
    found = etude.frontier(str(file), small, kinds=["vera"], minutes=0, project=folder)
    assert found.missing["vera"].startswith("not begun") and not found.arms


@pytest.mark.parametrize(
    ("options", "overrides", "wrong"),
    [
        ({"kinds": ["lore"]}, [], "there is no adaptation 'lore'"),
        ({"stage": "dpo"}, [], "no stage 'dpo'"),
        ({}, ["evaluate=null"], "judges nothing"),
    ],
)
def test_what_is_not_there_is_said_before_anything_runs(compared, options, overrides, wrong):
    file, _, folder = compared
    with pytest.raises(RecipeError, match=wrong):
        etude.frontier(str(file), overrides, project=folder, **options)


def axis(value: float, unit: str = "share") -> Axis:
    one = Interval(value=value, low=value - 0.1, high=value + 0.1)
    sides = dict(parent=one, tuned=one, difference=one, p_value=0.5, verdict="cannot tell", smallest_difference=0.1, method="")
    return Axis(name="a", group="task", unit=unit, higher_is_better=unit == "share", n=9, **sides)


def test_best_are_those_that_no_other_beats_at_both():
    places = {"a": (0.9, 0.5), "b": (0.8, 0.1), "c": (0.8, 0.2), "d": (0.1, 0.0), "e": (0.9, 0.5)}
    arms = [Arm(name, 1e-3, name, None, axis(task), axis(lost, "nats/token"), 1, 1, 1, 1, 1.0) for name, (task, lost) in places.items()]
    assert [arm.kind for arm in _with_best(arms) if arm.best] == ["a", "b", "d", "e"]
