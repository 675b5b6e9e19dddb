"""Objectives against TRL's own trainers: the same rows, the same start, plain AdamW, three steps with losses and gradient norms alike.

TRL's trainers run whole, on text of which both make the same tokens. Steps are all rows, so the order within one cannot matter; etude
shares beginnings and cuts small rows meanwhile, TRL pads. Where definitions differ, the test says how, and compares what can be.
"""

import json
import os
import shutil
from pathlib import Path

import pytest
import tiny
import torch
from beside_trl import (
    STEPS,
    answered,
    columns_of_answers,
    columns_of_pairs,
    fits,
    history,
    pairs,
    parts,
    rated,
    start_of,
    trains,
    words,
    written,
)
from peft import PeftModel
from transformers import AutoModelForSequenceClassification

from etude.adaptation.sequence_classifier import save_with_outputs
from etude.core.sample import Example
from etude.engine.loop import fit
from etude.model.outputs import outputs_weight
from etude.objective.cpo import CPO
from etude.objective.dpo import DPO
from etude.objective.grpo import GRPO
from etude.objective.kto import KTO
from etude.objective.next_token import NextToken
from etude.objective.orpo import ORPO
from etude.objective.reward import RewardModel
from etude.objective.rewards.by_function import ByFunction
from etude.objective.rloo import RLOO
from etude.objective.simpo import SimPO

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
trl = pytest.importorskip("trl", reason="TRL is there for benchmarks only: `uv sync --group benchmark`")
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")  # of transformers, about what TRL sets


def agree(made: tiny.Made, trainer) -> None:
    theirs = history(trainer)
    ours = [one["loss"] for one in made.metrics]
    assert len(ours) == len(theirs) == STEPS
    assert ours == pytest.approx([one["loss"] for one in theirs], abs=1e-5)
    assert [one["gradient_norm"] for one in made.metrics] == pytest.approx([one["grad_norm"] for one in theirs], rel=1e-4)
    assert abs(ours[-1] - ours[0]) > 1e-3, "the steps have moved something"


@pytest.mark.parametrize(("adaptation", "rows_at_once"), [("full", 6), ("full", 2), ("lora", 6)])
def test_next_token(tmp_path, adaptation, rows_at_once):
    """TRL too divides by the tokens of the whole step, however it is cut."""
    examples = answered()
    made = fits(tmp_path, NextToken(), examples, adaptation)
    model, _ = start_of(made, tmp_path)
    cut = dict(per_device_train_batch_size=rows_at_once, gradient_accumulation_steps=len(examples) // rows_at_once)
    trainer = trains(trl.SFTTrainer, trl.SFTConfig, model, columns_of_answers(examples), tmp_path, **cut)
    for row, example in zip(trainer.train_dataset, examples, strict=True):
        prompt, said = parts(example.samples[0])
        assert row["input_ids"] == prompt + said and row["labels"] == [-100] * len(prompt) + said
    fit(made.course)
    agree(made, trainer)


def same_pairs(trainer, examples: list[Example]) -> None:
    """DPO keeps prompts and answers apart; CPO and ORPO keep whole rows with labels."""
    for row, example in zip(trainer.train_dataset, examples, strict=True):
        for sample in example.samples:
            prompt, said = parts(sample)
            if f"{sample.role}_ids" in row:
                assert (row["prompt_ids"], row[f"{sample.role}_ids"]) == (prompt, said)
            else:
                assert row[f"{sample.role}_input_ids"] == prompt + said and row[f"{sample.role}_labels"] == [-100] * len(prompt) + said


@pytest.mark.parametrize(
    ("adaptation", "variant", "beta", "smoothing"),
    [
        ("full", "sigmoid", 0.4, 0.0),
        ("lora", "sigmoid", 0.4, 0.0),
        ("full", "hinge", 0.05, 0.0),
        ("full", "ipo", 0.4, 0.0),
        ("lora", "ipo", 0.4, 0.0),
        ("full", "robust", 0.4, 0.1),
    ],
)
def test_dpo(tmp_path, adaptation, variant, beta, smoothing):
    """All four are defined alike; IPO averages over an answer's tokens in both, which its paper leaves open.

    TRL reads `label_smoothing` for `robust` only (of these), etude for `sigmoid` too (conservative DPO).
    """
    examples = pairs()
    made = fits(tmp_path, DPO(beta=beta, variant=variant, label_smoothing=smoothing), examples, adaptation)
    model, others = start_of(made, tmp_path)
    options = dict(beta=beta, loss_type=[variant], label_smoothing=smoothing)
    trainer = trains(trl.DPOTrainer, trl.DPOConfig, model, columns_of_pairs(examples), tmp_path, others=others, **options)
    same_pairs(trainer, examples)
    fit(made.course)
    agree(made, trainer)
    ours, theirs = made.metrics[-1], history(trainer)[-1]
    assert ours["accuracy"] == pytest.approx(theirs["rewards/accuracies"])
    if variant != "ipo":  # what etude watches is by token there, as the loss is; TRL tells whole answers
        for name, their_name in (("margin", "margins"), ("reward_chosen", "chosen"), ("reward_rejected", "rejected")):
            assert ours[name] == pytest.approx(theirs[f"rewards/{their_name}"], abs=1e-5)


@pytest.mark.parametrize("adaptation", ["full", "lora"])
def test_kto(tmp_path, adaptation):
    """The baseline is in both the mean over a step of mismatched prompts and answers, clamped at 0 once it is a mean.

    TRL pairs each prompt with the answer of the row before, within a batch of the data set as it stands; etude with that of the next row
    that asks something else. So TRL gets the rows backwards, in one batch, with no prompt twice. Where a prompt comes twice in a row, TRL
    measures the baseline on one of its own answers.
    """
    options = dict(beta=0.4, desirable_weight=0.8, undesirable_weight=1.5)
    examples = KTO(**options).arrange(rated())
    made = fits(tmp_path, KTO(**options), examples, adaptation)
    model, others = start_of(made, tmp_path)
    backwards = examples[::-1]
    columns = columns_of_answers(backwards) | {"label": [example.samples[0].role == "desirable" for example in backwards]}
    trainer = trains(trl.KTOTrainer, trl.KTOConfig, model, columns, tmp_path, others=others, **options)
    for row, example in zip(trainer.train_dataset, backwards, strict=True):
        (prompt, said), (_, mismatched) = map(parts, example.samples)
        assert (row["prompt_ids"], row["completion_ids"], row["KL_completion_ids"]) == (prompt, said, mismatched)
    fit(made.course)
    agree(made, trainer)
    baselines = [one["baseline"] for one in made.metrics]
    assert baselines == pytest.approx([options["beta"] * one["kl"] for one in history(trainer)], abs=1e-5)
    assert max(baselines) > 0, "the baseline has left its clamp"


@pytest.mark.parametrize(
    ("objective", "options"),
    [
        (CPO(beta=0.2), dict(loss_type="sigmoid", beta=0.2, cpo_alpha=1.0)),
        (SimPO(beta=2.5, target_margin=0.7), dict(loss_type="simpo", beta=2.5, simpo_gamma=0.7, cpo_alpha=0.0)),
        (SimPO(beta=2.5, target_margin=0.7, supervised=0.5), dict(loss_type="simpo", beta=2.5, simpo_gamma=0.7, cpo_alpha=0.5)),
    ],
    ids=["cpo", "simpo", "simpo with next-token"],
)
def test_cpo_and_simpo(tmp_path, objective, options):
    """TRL's SimPO is a loss of its CPO trainer, which adds next-token loss unless `cpo_alpha` is 0; the paper and etude add none."""
    from trl.experimental.cpo import CPOConfig, CPOTrainer

    examples = pairs()
    made = fits(tmp_path, objective, examples)
    model, _ = start_of(made, tmp_path)
    trainer = trains(CPOTrainer, CPOConfig, model, columns_of_pairs(examples), tmp_path, **options)
    same_pairs(trainer, examples)
    fit(made.course)
    agree(made, trainer)


def orpo_of_both(folder: Path, examples: list[Example]):
    from trl.experimental.orpo import ORPOConfig, ORPOTrainer

    made = fits(folder, ORPO(weight_of_odds=0.25), examples)
    model, _ = start_of(made, folder)
    trainer = trains(ORPOTrainer, ORPOConfig, model, columns_of_pairs(examples), folder, beta=0.25)
    same_pairs(trainer, examples)
    fit(made.course)
    return made, trainer


def test_orpo_where_there_is_nothing_to_learn_of_the_prompt(tmp_path):
    """TRL's next-token loss is over prompt and answer, etude's over the answer; with prompts of one token they are the same."""
    agree(*orpo_of_both(tmp_path, pairs([[1]] * len(pairs()))))


def test_orpo_on_whole_prompts_differs_only_in_what_is_fine_tuned(tmp_path):
    """At the start the odds are those of TRL, and TRL's next-token loss is etude's where prompts are supervised too."""
    examples = pairs()
    made, trainer = orpo_of_both(tmp_path, examples)
    first = history(trainer)[0]
    assert made.metrics[0]["orpo"] == pytest.approx(-0.25 * first["log_odds_ratio"], abs=1e-5)
    everything = tiny.examples_of([tiny.sample(example.samples[0].tokens) for example in examples])
    whole = fits(tmp_path / "everything", NextToken(), everything, steps=1)
    fit(whole.course)
    assert whole.losses[0] == pytest.approx(first["nll_loss"], abs=1e-5)
    assert abs(made.metrics[0]["supervised"] - first["nll_loss"]) > 0.05, "the two do differ"


REWARD = "def reward(prompt, expected, answer):\n    return float(sum(word.isdigit() and int(word) > 30 for word in answer.split()))\n"


def sampled(folder: Path, objective: type[GRPO], adaptation: str, **options) -> tuple[tiny.Made, dict[str, list[dict]]]:
    """A course of three steps on the answers of its first, and those answers by what was asked."""
    (folder / "reward.py").write_text(REWARD)
    aim = objective(group=4, max_new_tokens=6, rewards=[ByFunction(file=str(folder / "reward.py"))], **options)
    made = fits(folder, aim, answered(), adaptation)
    made.course.rollouts(1, made.course.sources[0])
    first = folder / "run" / "rollouts" / "step-00000001.json"
    for step in range(2, STEPS + 1):
        shutil.copy(first, first.with_name(f"step-{step:08d}.json"))
    return made, {written(group["prompt"]): group["answers"] for group in json.loads(first.read_text())["groups"]}


def rewarded(completions: list[str], **_) -> list[float]:
    """The same reward, of what TRL decodes."""
    return [float(sum(word.isdigit() and int(word) > 30 for word in said.split())) for said in completions]


def in_turn(answers: dict[str, list[dict]], prompts: list[str]) -> list[list[int]]:
    """TRL asks for one answer a line; those to one prompt stand behind each other."""
    left = {prompt: [one["tokens"] for one in kept] for prompt, kept in answers.items()}
    return [left[prompt].pop(0) for prompt in prompts]


def batch_of(answers: dict[str, list[dict]]) -> dict[str, int]:
    return dict(per_device_train_batch_size=4 * len(answers), num_generations=4, max_completion_length=6)


@pytest.mark.parametrize(
    ("adaptation", "options", "theirs"),
    [
        ("full", dict(clip=0.1, clip_high=0.15), dict(epsilon=0.1, epsilon_high=0.15, loss_type="dapo")),
        ("full", dict(clip=0.1, scale=False), dict(epsilon=0.1, loss_type="bnpo", scale_rewards="none")),
        ("lora", dict(clip=0.1, average="answer"), dict(epsilon=0.1, loss_type="grpo")),
        ("lora", dict(clip=0.1, beta=0.3), dict(epsilon=0.1, beta=0.3, loss_type="dapo", use_bias_correction_kl=False)),
        ("lora", dict(beta=0.3, average="answer"), dict(beta=0.3, loss_type="grpo", use_bias_correction_kl=False)),
    ],
    ids=["by token", "by token, unscaled", "by answer", "with divergence", "by answer, with divergence"],
)
def test_grpo(tmp_path, adaptation, options, theirs):
    """Three steps on answers that etude sampled once, so that ratios leave 1 and are clipped (TRL's `num_iterations`).

    etude's average over tokens is TRL's `dapo` and, where a step is one batch, `bnpo`; over answers it is `grpo`. TRL's `dr_grpo` (by the
    longest possible answer) and its other losses etude has not. By default TRL also multiplies the divergence by the ratio
    (`use_bias_correction_kl`, https://arxiv.org/abs/2512.02556), which GRPO's own paper and etude do not. TRL tells by token what is
    clipped and how far it diverges, etude as the loss is averaged.
    """
    made, answers = sampled(tmp_path, GRPO, adaptation, **options)
    model, _ = start_of(made, tmp_path)

    def rollout(prompts, trainer):
        asked = [words()(prompt)["input_ids"] for prompt in prompts]
        assert [written(tokens) for tokens in asked] == prompts
        return {"prompt_ids": asked, "completion_ids": in_turn(answers, prompts), "logprobs": None}

    others = dict(reward_funcs=rewarded, rollout_func=rollout)
    options = batch_of(answers) | theirs
    columns = {"prompt": list(answers)}
    trainer = trains(trl.GRPOTrainer, trl.GRPOConfig, model, columns, tmp_path, others=others, num_iterations=STEPS, **options)
    fit(made.course)
    agree(made, trainer)
    assert made.metrics[0]["reward"] == pytest.approx(history(trainer)[0]["reward"])
    if made.course.objective.average == "token":
        clipped = [one["clipped"] for one in made.metrics]
        assert clipped == pytest.approx([one["clip_ratio/region_mean"] for one in history(trainer)]) and max(clipped) > 0.1
        if made.course.objective.beta:
            divergence = [one["divergence"] for one in made.metrics]
            assert divergence == pytest.approx([one["kl"] for one in history(trainer)], abs=1e-5) and max(divergence) > 0.01


def test_rloo(tmp_path):
    """On answers just written the gradient is TRL's but for a factor: etude averages over tokens, TRL over answers that it sums.

    Beyond that they differ: TRL clips the ratio of a whole answer, etude that of each token as in GRPO; and TRL takes the divergence from
    the parent out of the reward, where etude adds it to the loss.
    """
    made, answers = sampled(tmp_path, RLOO, "full")
    model, _ = start_of(made, tmp_path)

    class Recorded(trl.RLOOTrainer):
        def _generate_single_turn(self, prompt_ids, images, multimodal_fields):
            return in_turn(answers, [written(prompt) for prompt in prompt_ids])

    others, columns = dict(reward_funcs=rewarded), {"prompt": list(answers)}
    trainer = trains(Recorded, trl.RLOOConfig, model, columns, tmp_path, others=others, beta=0.0, **batch_of(answers))
    fit(made.course)
    lengths = [len(one["tokens"]) for kept in answers.values() for one in kept]
    factor = sum(lengths) / len(lengths)
    assert made.metrics[0]["gradient_norm"] * factor == pytest.approx(history(trainer)[0]["grad_norm"], rel=1e-4)
    assert made.metrics[0]["reward"] == pytest.approx(history(trainer)[0]["reward"])


@pytest.mark.parametrize(("adaptation", "centring"), [("full", None), ("lora", None), ("lora", 0.2)])
def test_reward(tmp_path, adaptation, centring):
    """TRL too reads the token that ends an answer. Its head begins at random and ours at zero, so it is given ours."""
    examples = pairs()
    made = fits(tmp_path, RewardModel(centring=centring or 0.0), examples, adaptation)
    weight = outputs_weight(made.attached.model)
    with torch.no_grad():
        weight.copy_(0.2 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(1)))
    (tmp_path / "start").mkdir()
    save_with_outputs(made.attached, tmp_path / "start", "reward", made.course.objective.outputs)
    base = tiny.copy_of(tiny.llama(), "eager")
    if adaptation == "full":
        model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "start", num_labels=1, dtype=torch.float32)
    else:
        base.save_pretrained(tmp_path / "base")
        under = AutoModelForSequenceClassification.from_pretrained(tmp_path / "base", num_labels=1, dtype=torch.float32)
        model = PeftModel.from_pretrained(under, tmp_path / "start", is_trainable=True)
    columns = columns_of_pairs(examples)
    trainer = trains(trl.RewardTrainer, trl.RewardConfig, model, columns, tmp_path, center_rewards_coefficient=centring)
    for row, example in zip(trainer.train_dataset, examples, strict=True):
        for sample in example.samples:
            assert row[f"{sample.role}_ids"] == sample.tokens.tolist()
    fit(made.course)
    agree(made, trainer)
    theirs = history(trainer)
    assert [one["accuracy"] for one in made.metrics] == pytest.approx([one["accuracy"] for one in theirs])
    assert [one["margin"] for one in made.metrics] == pytest.approx([one["margin"] for one in theirs], abs=1e-5)
