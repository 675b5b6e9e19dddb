"""PPO: advantages and losses by hand in float64, values kept apart from the policy, and a reward that rises."""

import json
import math

import numpy as np
import pytest
import tiny
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from etude.adaptation.full import Full
from etude.adaptation.lora import Lora
from etude.adaptation.sequence_classifier import add_outputs, save_with_outputs
from etude.core.sample import Example
from etude.data.rows import Cut
from etude.engine.loop import fit
from etude.model.outputs import outputs_weight, reload_outputs
from etude.model.policy import Policy
from etude.objective.contract import Written
from etude.objective.next_token import NextToken
from etude.objective.ppo import PPO, advantages
from etude.objective.rewards.by_function import ByFunction

CUTS = {"one row": Cut(999, 1), "small": Cut(14, 1), "nothing shared": Cut(999, 99), "padded": Cut(999, 16, "padded")}
PROMPT = [3, 9, 4, 11, 5, 8]
ANSWERS = [[7, 9], [7, 10, 12, 5], [30], [7, 9, 13]]


@pytest.mark.parametrize(("discount", "smoothing"), [(1.0, 0.95), (0.9, 0.5), (0.99, 0.0), (1.0, 1.0)])
def test_advantages_are_the_sum_of_the_paper(discount, smoothing):
    """Equation 16 written out: every later surprise, discounted by (γλ)^l."""
    draw = np.random.default_rng(0)
    earned, value = draw.normal(size=(2, 7))
    following = [*value[1:], 0.0]
    surprise = [earned[t] + discount * following[t] - value[t] for t in range(7)]
    expected = [sum((discount * smoothing) ** later * surprise[t + later] for later in range(7 - t)) for t in range(7)]
    assert advantages(earned, value, discount, smoothing) == pytest.approx(expected, abs=1e-12)
    if smoothing == 1:
        assert advantages(earned, value, 1.0, 1.0) == pytest.approx(np.cumsum(earned[::-1])[::-1] - value), "what came of it"


def test_what_tokens_earn():
    """The reward at the last token; every token pays for its distance from the parent. Whitened over all answers of the step."""
    old, parent, value = np.array([-1.0, -2.0]), np.array([-1.5, -1.0]), np.array([0.1, 0.2])
    written = [Written(3.0, old, value, parent), Written(1.0, old[:1], value[:1], parent[:1])]
    plain = PPO(beta=0.1, whiten=False).by_token(written)
    earned = [-0.1 * 0.5, 3 + 0.1 * 1.0]
    assert plain[0]["advantage"] == pytest.approx(advantages(np.array(earned), value, 1.0, 0.95))
    assert plain[0]["return"] == pytest.approx(plain[0]["advantage"] + value)
    white = np.concatenate([one["advantage"] for one in PPO(beta=0.1).by_token(written)])
    assert white.mean() == pytest.approx(0) and white.std() == pytest.approx(1)
    assert PPO(beta=0.1).by_token(written)[0]["return"] == pytest.approx(plain[0]["return"]), "returns are not whitened"
    assert PPO(beta=0.0, whiten=False).by_token([Written(3.0, old, value, None)])[0]["advantage"][-1] == pytest.approx(3 - 0.2)


def written_before() -> list[Example]:
    """Two prompts with four answers each, whose probabilities, values and advantages are near and far from today's."""
    draw, found = np.random.default_rng(0), []
    for row in (1, 2):
        samples = []
        for answer in ANSWERS:
            tokens = np.asarray([*PROMPT, 40 + row, *answer], np.int32)
            weight = (np.arange(len(tokens)) > len(PROMPT)).astype(np.float32)
            kept = lambda low, high: np.where(weight > 0, draw.uniform(low, high, len(weight)), 0).astype(np.float32)  # noqa: B023
            known = {"advantage": kept(-2, 2), "value": kept(-1, 1), "return": kept(-2, 2)}
            samples.append(tiny.Sample(tokens, weight, old=kept(-6, -2), known=known))
        found.append(Example(tuple(samples), "made", row))
    return found


@pytest.mark.parametrize("cut", CUTS)
def test_the_update_is_the_papers_on_each_answer_alone(moved, cut):
    model, examples, objective = tiny.copy_of(moved), written_before(), PPO(clip=0.15, clip_value=0.3, value_weight=0.7)
    attached = Full().attach(model, seed=0)
    add_outputs(attached, objective.outputs)
    with torch.no_grad():
        outputs_weight(model).copy_(0.2 * torch.randn(1, 32, generator=torch.Generator().manual_seed(2)))
    truth = tiny.copy_of(moved, "eager").double()
    head = outputs_weight(model).detach().double().clone().requires_grad_()
    policy_sum, value_sum, count = torch.zeros(()).double(), torch.zeros(()).double(), 0
    for sample in (sample for example in examples for sample in example.samples):
        tokens, learnt = torch.from_numpy(sample.tokens).long(), torch.from_numpy(sample.weight)[1:] > 0
        output = truth(input_ids=tokens[None], output_hidden_states=True, use_cache=False)
        now = torch.log_softmax(output.logits[0, :-1], -1).gather(-1, tokens[1:, None])[:, 0][learnt]
        value = (output.hidden_states[-1][0, :-1] @ head[0])[learnt]
        known = (sample.old, sample.known["advantage"], sample.known["value"], sample.known["return"])
        old, advantage, before, returned = (torch.from_numpy(x[1:]).double()[learnt] for x in known)
        ratio = (now - old).exp()
        policy_sum = policy_sum + torch.maximum(-advantage * ratio, -advantage * ratio.clamp(0.85, 1.15)).sum()
        near = before + (value - before).clamp(-0.3, 0.3)
        value_sum = value_sum + torch.maximum((value - returned) ** 2, (near - returned) ** 2).sum() / 2
        count += len(now)
    expected = (policy_sum + 0.7 * value_sum) / count
    result, found = tiny.gradients_of_step(Policy(model, layout=CUTS[cut].layout), attached.trainable, objective, examples, CUTS[cut])
    assert result.metrics["loss"] == pytest.approx(expected.item(), rel=1e-5)
    assert 0 < result.metrics["clipped"] < 1 and 0 < result.metrics["value_clipped"] < 1
    named = dict(truth.named_parameters()) | {"score.weight": head}
    gradients = torch.autograd.grad(expected, list(named.values()))
    assert tiny.furthest({name: g.double() for name, g in found.items()}, dict(zip(named, gradients, strict=True))) < 1e-4


SEVENS = """
def reward(prompt, expected, answer):
    words = answer.split()
    return sum(word == "7" for word in words) / max(1, len(words))
"""


def sampled(folder, adaptation, steps, **options) -> tiny.Made:
    folder.mkdir(parents=True, exist_ok=True)
    (folder.parent / "sevens.py").write_text(SEVENS)
    aim = PPO(**dict(group=4, max_new_tokens=6, updates=2, rewards=[ByFunction(file=str(folder.parent / "sevens.py"))]) | options)
    rate = 2e-2 if adaptation.kind == "lora" else 2e-3
    examples = tiny.some_examples(NextToken(), 8)
    return tiny.course(folder, adaptation, aim, examples=examples, steps=steps, learning_rate=rate, examples_per_step=8)


@pytest.mark.parametrize("adaptation", [Lora(rank=4), Full()], ids=["lora", "full"])
def test_the_reward_rises(tmp_path, adaptation):
    made = sampled(tmp_path / "run", adaptation, 25, beta=0.01 if adaptation.kind == "lora" else 0.0)
    fit(made.course)
    rewards = [one["reward"] for one in made.metrics]
    assert sum(rewards[-5:]) / 5 > sum(rewards[:3]) / 3 + 0.3
    assert all(math.isfinite(loss) for loss in made.losses)
    assert ("divergence" in made.metrics[0]) == (adaptation.kind == "lora")


def test_what_is_written_down_is_what_the_policy_and_its_parent_said(tmp_path):
    """Values begin at zero; at birth the parent says the same; later it does not."""
    made = sampled(tmp_path / "run", Lora(rank=4), 3)
    fit(made.course)
    first, last = (json.loads((tmp_path / f"run/rollouts/step-0000000{step}.json").read_text()) for step in (1, 3))
    for answer in first["groups"][0]["answers"]:
        assert answer["old"] == pytest.approx(answer["parent"], abs=1e-6) and not any(answer["values"])
        assert len(answer["old"]) == len(answer["values"]) == len(answer["tokens"])
    group = last["groups"][0]
    answer = group["answers"][0]
    assert any(answer["values"]) and answer["old"] != pytest.approx(answer["parent"], abs=1e-3)
    tokens = torch.tensor([*group["prompt"], *answer["tokens"]])
    with torch.no_grad():
        logits = tiny.copy_of(tiny.llama(), "eager")(input_ids=tokens[None]).logits[0, :-1]
    said = torch.log_softmax(logits, -1).gather(-1, tokens[1:, None])[len(group["prompt"]) - 1 :, 0]
    assert answer["parent"] == pytest.approx(said.tolist(), abs=1e-4)
    assert made.metrics[0]["value_error"] > 0


@pytest.mark.parametrize("adaptation", [Lora(rank=4), Full()], ids=["lora", "full"])
def test_the_value_head_lies_beside_the_policy_and_in_nobodys_way(tmp_path, adaptation):
    made = sampled(tmp_path / "run", adaptation, 2, beta=0.0)
    fit(made.course)
    out = tmp_path / "out"
    out.mkdir()
    model, objective = made.attached.model, made.course.objective
    save_with_outputs(made.attached, out, "ppo", objective.outputs)
    tokens = torch.randint(3, tiny.VOCABULARY, (1, 9), generator=torch.Generator().manual_seed(1))
    if adaptation.kind == "lora":
        plain = PeftModel.from_pretrained(tiny.copy_of(tiny.llama(), "eager"), out)
    else:
        plain = AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32)
        assert not [name for name, _ in plain.named_parameters() if "score" in name]
    with torch.no_grad():
        expected = model(input_ids=tokens).logits
        assert torch.allclose(plain.eval()(input_ids=tokens).logits, expected, atol=1e-4)
    again = tiny.llama()
    reload_outputs(again, out, objective.outputs)
    assert torch.equal(outputs_weight(again), outputs_weight(model))
