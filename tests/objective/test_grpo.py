"""GRPO and RLOO: the formula by hand on each answer alone, rollouts that are written once, and a reward that rises."""

import json
import math
from pathlib import Path

import alone
import numpy as np
import pytest
import tiny
import torch
import torch.nn.functional as F
from torch import Tensor

from etude import catalog
from etude.adaptation.full import Full
from etude.adaptation.lora import Lora
from etude.core.sample import Example
from etude.data.rows import Cut
from etude.engine.loop import fit
from etude.engine.reference import StoredReference
from etude.engine.rollouts import Rollouts
from etude.errors import TrainingError
from etude.model.policy import Policy
from etude.objective.grpo import GRPO
from etude.objective.next_token import NextToken
from etude.objective.rewards.by_function import ByFunction
from etude.objective.rewards.by_metric import ByMetric
from etude.objective.rloo import RLOO

PROMPT = [3, 9, 4, 11, 5, 8]
ANSWERS = [[7, 9], [7, 10, 12, 5], [30], [7, 9, 13]]
CUTS = {"one row": Cut(999, 1), "small": Cut(12, 1), "nothing shared": Cut(999, 99), "padded": Cut(999, 16, "padded")}


def groups() -> list[Example]:
    """Two prompts with four answers each, that begin alike; old probabilities near and far from today's."""
    draw = np.random.default_rng(0)
    found = []
    for row, rewards in enumerate(([1.0, 0.0, 0.0, 1.0], [0.2, 0.4, 0.9, 0.1]), 1):
        prompt, advantages = [*PROMPT, 40 + row], GRPO().advantages(np.asarray(rewards))
        samples = []
        for answer, advantage in zip(ANSWERS, advantages, strict=True):
            tokens = np.asarray(prompt + answer, np.int32)
            weight = (np.arange(len(tokens)) >= len(prompt)).astype(np.float32)
            old = np.where(weight > 0, draw.uniform(-6, -2, len(tokens)), 0).astype(np.float32)
            samples.append(tiny.Sample(tokens, weight, value=float(advantage), old=old))
        found.append(Example(tuple(samples), "made", row))
    return found


def token_log_probabilities(model, sample) -> Tensor:
    """[answer tokens] of a sample alone."""
    tokens = torch.from_numpy(sample.tokens).long()
    logits = model(input_ids=tokens[None], use_cache=False).logits[0, :-1]
    return -F.cross_entropy(logits, tokens[1:], reduction="none")[torch.from_numpy(sample.weight)[1:] > 0]


def by_hand(truth, parent, examples, *, low, high, beta, per_answer) -> Tensor:
    total, count = torch.zeros(()), 0.0
    for one in examples:
        for sample in one.samples:
            now, old = token_log_probabilities(truth, sample), torch.from_numpy(sample.old[sample.weight > 0])
            ratio = (now - old).exp()
            losses = -torch.minimum(ratio * sample.value, ratio.clamp(1 - low, 1 + high) * sample.value)
            if beta:
                with torch.no_grad():
                    apart = token_log_probabilities(parent, sample)
                losses = losses + beta * ((apart - now).exp() - (apart - now) - 1)
            total = total + (losses.mean() if per_answer else losses.sum())
            count += 1 if per_answer else len(now)
    return total / count


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize(
    ("options", "how"),
    [
        ({}, dict(low=0.2, high=0.2, beta=0, per_answer=False)),
        ({"beta": 0.3, "clip": 0.1, "clip_high": 0.4, "average": "answer"}, dict(low=0.1, high=0.4, beta=0.3, per_answer=True)),
    ],
)
def test_the_update_is_the_papers_on_each_answer_alone(llama, moved, options, how, cut):
    examples, truth, parent = groups(), tiny.copy_of(moved, "eager"), tiny.copy_of(llama, "eager")
    expected = by_hand(truth, parent, examples, **how)
    objective, layout = GRPO(**options), CUTS[cut].layout
    stored = None
    if objective.needs_reference:
        stored = StoredReference(examples, StoredReference.compute(Policy(llama, layout=layout), examples, CUTS[cut]))
    trainable = dict(moved.requires_grad_(True).named_parameters())
    result, found = tiny.gradients_of_step(Policy(moved, layout=layout), trainable, objective, examples, CUTS[cut], stored)
    assert result.metrics["loss"] == pytest.approx(expected.item(), abs=1e-5)
    assert tiny.furthest(found, alone.gradients(expected, truth)) < 1e-4
    assert 0 < result.metrics["clipped"] < 1
    if cut == "one row":
        assert result.computed_tokens < 0.6 * result.logical_tokens, "a prompt and its answers' beginnings are computed once"


def test_advantages():
    rewards = np.asarray([1.0, 0.0, 0.0, 3.0])
    assert GRPO().advantages(rewards) == pytest.approx((rewards - 1) / (rewards.std(ddof=1) + 1e-4))
    assert GRPO(scale=False).advantages(rewards) == pytest.approx(rewards - 1)
    assert RLOO().advantages(rewards) == pytest.approx([1 - 1, 0 - 4 / 3, 0 - 4 / 3, 3 - 1 / 3])
    assert not GRPO().advantages(np.ones(4)).any() and not RLOO().advantages(np.ones(4)).any(), "a group alike teaches nothing"


SEVENS = """
def reward(prompt, expected, answer):
    words = answer.split()
    return sum(word == "7" for word in words) / max(1, len(words))
"""


def sampling(kind: str, folder: Path, **options):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sevens.py").write_text(SEVENS)
    usual = dict(group=6, max_new_tokens=6, rewards=[ByFunction(file=str(folder / "sevens.py"))])
    return catalog.find("objective", kind)(**usual | options)


@pytest.mark.parametrize("adaptation", [Lora(rank=4), Full()], ids=["lora", "full"])
@pytest.mark.parametrize("kind", ["grpo", "rloo"])
def test_the_reward_rises(tmp_path, kind, adaptation):
    aim = sampling(kind, tmp_path, **({"beta": 0.01} if kind == "grpo" else {}))
    rate = 3e-2 if adaptation.kind == "lora" else 3e-3
    examples = tiny.some_examples(NextToken(), 8)
    made = tiny.course(tmp_path, adaptation, aim, examples=examples, steps=25, learning_rate=rate, examples_per_step=8)
    fit(made.course)
    rewards = [one["reward"] for one in made.metrics]
    assert sum(rewards[-5:]) / 5 > sum(rewards[:3]) / 3 + 0.3
    assert all(math.isfinite(loss) for loss in made.losses)


def test_rollouts_are_kept_and_a_run_that_goes_on_reads_them(tmp_path):
    """The same trajectory to the bit; the second run is not able to sample."""

    def course(folder: Path, steps: int, **options):
        examples = tiny.some_examples(NextToken(), 8)
        return tiny.course(
            folder,
            Lora(rank=4),
            sampling("grpo", tmp_path),
            examples=examples,
            steps=steps,
            examples_per_step=4,
            schedule="constant",
            **options,
        )

    whole = course(tmp_path / "whole", 4)
    fit(whole.course)
    half = course(tmp_path / "half", 2, checkpoint_every=1)
    fit(half.course)
    files = sorted((tmp_path / "whole" / "rollouts").iterdir())
    assert [file.name for file in files] == [f"step-{step:08d}.json" for step in range(1, 5)]
    for file in files[2:]:
        (tmp_path / "half" / "rollouts" / file.name).write_text(file.read_text())
    rest = course(tmp_path / "half", 4)
    rest.course.rollouts._write = None  # whoever samples fails
    fit(rest.course)
    for name, p in whole.attached.trainable.items():
        assert torch.equal(p, rest.attached.trainable[name])
    group = json.loads(files[0].read_text())["groups"][0]
    assert len(group["answers"]) == 6
    answer = group["answers"][0]
    assert answer["reward"] == pytest.approx(answer["text"].split().count("7") / max(1, len(answer["text"].split())))
    assert len(answer["old"]) == len(answer["tokens"]) and max(answer["old"]) <= 0


def test_old_scores_are_those_of_the_policy_that_wrote(tmp_path):
    """At the first update every ratio is 1: nothing is clipped, and the loss is the negative mean advantage."""
    aim = sampling("grpo", tmp_path)
    made = tiny.course(tmp_path, Lora(rank=4), aim, examples=tiny.some_examples(NextToken(), 4), steps=1, examples_per_step=4)
    learnt, told = made.course.rollouts(1, made.course.sources[0])
    with torch.no_grad():
        for one in learnt:
            for sample in one.samples:
                now = token_log_probabilities(tiny.copy_of(tiny.llama(), "eager"), sample)
                assert torch.allclose(now, torch.from_numpy(sample.old[sample.weight > 0]), atol=1e-5)
    assert 0 <= told["groups_alike"] <= 1 and 0 < told["answer_tokens"] <= 7
    fit(made.course)
    assert made.metrics[0]["clipped"] == 0


def test_full_tuning_is_held_to_a_frozen_copy_of_its_parent(tmp_path):
    """No divergence while it is its parent, to the bit; afterwards that of plain transformers, and the parent has not moved."""
    aim, examples = sampling("grpo", tmp_path, beta=0.5), tiny.some_examples(NextToken(), 12)
    run = lambda name, steps: tiny.course(
        tmp_path / name, Full(), aim, examples=examples, steps=steps, examples_per_step=12, schedule="constant", learning_rate=3e-3
    )
    once, twice = run("once", 1), run("twice", 2)
    for made in (once, twice):
        fit(made.course)
    assert twice.metrics[0]["divergence"] == 0 < twice.metrics[1]["divergence"]
    parent, moved = tiny.copy_of(tiny.llama(), "eager"), tiny.copy_of(once.course.policy.model, "eager")
    groups = json.loads((tmp_path / "twice" / "rollouts" / "step-00000002.json").read_text())["groups"]
    apart = []
    for group in groups:
        for answer in group["answers"]:
            weight = [0.0] * len(group["prompt"]) + [1.0] * len(answer["tokens"])
            sample = tiny.sample([*group["prompt"], *answer["tokens"]], weight)
            apart.append(token_log_probabilities(parent, sample) - token_log_probabilities(moved, sample))
    apart = torch.cat(apart).detach()
    assert twice.metrics[1]["divergence"] == pytest.approx((apart.exp() - apart - 1).mean().item(), rel=1e-3)


def test_rewards(tmp_path):
    metric = ByMetric.model_validate({"metric": {"kind": "valid-json", "keys": ["a"]}, "weight": 2}, context={"tables": catalog.TABLES})
    assert [metric.score("", "", answer) for answer in ('{"a": 1}', '{"b": 1}', "a")] == [1.0, 0.0, 0.0]
    (tmp_path / "r.py").write_text("def reward(prompt, expected, answer):\n    return float(answer)\n")
    one = ByFunction(file=str(tmp_path / "r.py"))
    assert one.score("", "", "2.5") == 2.5
    with pytest.raises(TrainingError, match="returned nan"):
        one.score("", "", "nan")
    with pytest.raises(TrainingError, match="no function 'other'"):
        ByFunction(file=str(tmp_path / "r.py"), function="other").score("", "", "")
    with pytest.raises(TrainingError, match="there is no file"):
        ByFunction(file=str(tmp_path / "none.py")).score("", "", "")


def test_no_reward_is_refused(llama, tmp_path):
    with pytest.raises(TrainingError, match="names no rewards"):
        Rollouts(Policy(llama), GRPO(), Cut(99), tmp_path, decode=str, stop_ids=frozenset(), seed=0, say=print)
