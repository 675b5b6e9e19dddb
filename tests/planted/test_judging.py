"""The silent failures of judging, each planted: a number that looks splendid, and what etude says beside it. See docs/trust.md."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import tiny
import torch
from judged_rows import ROWS, likelihoods, sentiment
from small_project import answers, make_base, recipe, stage
from transformers import PreTrainedModel

import etude
from etude.adaptation.full import Full
from etude.core.sample import Example
from etude.data.trees import forest_of
from etude.engine.loop import fit
from etude.evaluation.judge import judge
from etude.evaluation.judgement import About
from etude.evaluation.measured import Answers, Likelihoods
from etude.evaluation.metrics.accuracy import Accuracy
from etude.model.policy import Policy
from etude.objective.next_token import NextToken

ABOUT = About(parent="base", tuned="tuned@1")


def counting(step: int, rows: int, seed: int) -> list[Example]:
    """Texts in which each token is `step` more than the one before it: a language that a tiny model learns."""
    starts = np.random.default_rng(seed).integers(3, tiny.VOCABULARY, rows)
    return tiny.examples_of([tiny.sample(3 + (start + step * np.arange(12)) % (tiny.VOCABULARY - 3)) for start in starts])


def taught(model: PreTrainedModel, folder: Path, examples: Sequence[Example]) -> PreTrainedModel:
    learner = tiny.copy_of(model)
    made = tiny.course(folder, Full(), NextToken(), model=learner, examples=examples, steps=40, learning_rate=1e-2)
    fit(made.course)
    return learner.eval()


def cost(model: PreTrainedModel, examples: Sequence[Example]) -> np.ndarray:
    """[n] nats of each text."""
    forest = forest_of([example.samples[0] for example in examples], range(len(examples)))
    with torch.no_grad():
        return -forest.per_sample(Policy(model)(forest).log_probability).double().numpy()


def both(parent: PreTrainedModel, tuned: PreTrainedModel, examples: Sequence[Example]) -> Likelihoods:
    return Likelihoods(cost(parent, examples), cost(tuned, examples), np.full(len(examples), 11))


def test_23_forgetting_that_nobody_looked_for(tmp_path):
    """A model that knows one language is taught another: its task's loss falls splendidly, and the first language is gone."""
    parent = taught(tiny.llama(), tmp_path / "born", counting(1, 64, 0))
    tuned = taught(parent, tmp_path / "tuned", counting(5, 64, 1))
    task, general = both(parent, tuned, counting(5, 60, 2)), both(parent, tuned, counting(1, 60, 3))
    assert task.tuned.sum() < 0.5 * task.parent.sum(), "all that the usual loss curve shows"
    alone = judge(ABOUT, task)
    assert "general ability not measured" in alone.headline, "even unmeasured it is not passed over"
    judgement = judge(ABOUT, task, general=general)
    assert judgement.verdict == "mixed" and "general ability was lost" in judgement.headline
    assert "General ability was lost" in judgement.warnings[0]


def test_24_a_difference_within_noise_is_sold_as_better():
    """Two models that guess: in one draw of three one of them is ahead by three points or more of its twin, and is not called better."""
    draw, sold, called = np.random.default_rng(0), 0, 0
    expected = ["positive", "negative"] * (ROWS // 2)
    for _ in range(60):
        parent, tuned = (draw.choice(["positive", "negative"], ROWS) for _ in range(2))
        answers = Answers(
            places=[f"rows.jsonl:{i + 1}" for i in range(ROWS)],
            prompts=[str(i) for i in range(ROWS)],
            expected=[sentiment(label) for label in expected],
            parent=[sentiment(label) for label in parent],
            tuned=[sentiment(label) for label in tuned],
            parent_stopped=[True] * ROWS,
            tuned_stopped=[True] * ROWS,
        )
        sold += (tuned == expected).mean() - (parent == expected).mean() >= 0.03
        axis = judge(ABOUT, likelihoods(0), answers, (Accuracy(field="sentiment"),)).axes[0]
        called += axis.verdict == "better"
    assert sold > 15, "the naive comparison would announce a gain"
    assert called <= 4, "at the stated rate: one in forty"
    same = replace(answers, tuned=answers.parent)
    assert judge(ABOUT, likelihoods(0), same, (Accuracy(field="sentiment"),)).verdict == "cannot tell"


def test_22_a_parent_that_was_trained_on_the_rows_it_is_judged_on(tmp_path):
    """The same file, split by another seed: what the child holds out, its parent has learnt. The figures look fine."""
    base, rows = make_base(tmp_path / "base"), answers(tmp_path / "answers.jsonl")
    parent = etude.run(recipe(tmp_path / "first.yaml", base, {"s": stage(rows)}), project=tmp_path).stages["s"].judgement
    assert not any("unseen" in line for line in parent.warnings)
    honest = etude.run(recipe(tmp_path / "same.yaml", "first", {"s": stage(rows)}), project=tmp_path).stages["s"].judgement
    assert not any("unseen" in line for line in honest.warnings), "the same seed holds the same rows out"
    file = recipe(tmp_path / "other.yaml", "first", {"s": stage(rows, seed=1)})
    prepared = etude.data_show(str(file), project=tmp_path).prepared
    learnt = set(etude.data_show(str(tmp_path / "first.yaml"), project=tmp_path).prepared.trained_on.tolist())
    number = sum(prepared.asked[one.source, one.row] in learnt for one in prepared.held_out[:6])
    assert number > 0, "else nothing is planted"
    judged = etude.run(file, project=tmp_path).stages["s"].judgement
    assert judged.warnings[0].startswith(f"Not unseen: {number} of the 6 rows judged here were trained on when first@1 was made")
    compared = etude.compare("same", "other", project=tmp_path)
    told = [line for line in compared.judgement.warnings if line.startswith("Not unseen")]
    assert told == compared.notes and len(told) == 2, "once for each artefact that has seen them: same@1 and first@1"
    assert "first@1" in etude.compare(str(base), "other", project=tmp_path).notes[0]
    stages = {"one": stage(rows, steps=3), "two": stage(rows, parent="one", seed=1)}
    both = etude.run(recipe(tmp_path / "both.yaml", base, stages), project=tmp_path).stages["two"].judgement
    assert both.warnings[0].startswith(f"Not unseen: {number} of the 6 rows") and "both-one@1" in both.warnings[0]
