"""What a recipe does against forgetting, from its key to the report: decay to the parent, replay, stopping early."""

import pytest
from small_project import recipe, stage

import etude
from etude.errors import RecipeError


def test_decay_to_the_parent_is_told_with_its_distance(project, base, voice):
    pulled = stage(project / "answers.jsonl", adapt="full", weight_decay=0.1, decay_to="parent")
    done = etude.run(str(recipe(project / "pulled.yaml", base, {"s": pulled})), voice=voice, project=project).stages["s"]
    (said,) = done.judgement.about.against_forgetting
    assert said.startswith("Weight decay of 0.1 towards the parent: what was trained ended ") and "% of its parent's size" in said
    assert said.replace("'", "&#39;") in done.report.read_text()
    del pulled["train"]["weight_decay"]
    with pytest.raises(RecipeError, match="pulls by `weight_decay`, which is 0"):
        etude.run(str(recipe(project / "pulled.yaml", base, {"s": pulled})), project=project)
