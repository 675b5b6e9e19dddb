"""The loop: what it draws, tells, keeps and refuses."""

import json
import math
import signal

import pytest
import tiny
import torch

from etude.adaptation.full import Full
from etude.adaptation.lora import Lora
from etude.data.rows import Cut
from etude.engine.checkpoint import Checkpoints
from etude.engine.loop import fit
from etude.engine.schedules import Cosine
from etude.errors import TrainingError
from etude.objective.next_token import NextToken


def changed(made: tiny.Made, **fields) -> tiny.Made:
    """The same course with other fields."""
    for name, value in fields.items():
        object.__setattr__(made.course, name, value)
    return made


def journal(folder) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_a_run_is_told_step_by_step(tmp_path):
    made = tiny.course(tmp_path, Lora(rank=4), NextToken(), steps=6, schedule={"kind": "cosine", "warmup": 2, "floor": 0.1})
    outcome = fit(made.course)
    assert outcome.finished and outcome.steps == 6
    steps = [line for line in journal(tmp_path) if "loss" in line]
    assert [line["step"] for line in steps] == [1, 2, 3, 4, 5, 6]
    assert [line["loss"] for line in steps] == made.losses
    schedule = Cosine(warmup=2, floor=0.1)
    assert [line["learning_rate"] for line in steps] == pytest.approx([1e-2 * schedule.factor(i, 6) for i in range(6)])
    assert steps[0]["learning_rate"] == pytest.approx(0.5e-2), "half way up after one of two warm-up steps"
    totals = outcome.totals
    assert totals.logical_tokens == sum(line["logical_tokens"] for line in steps) > totals.computed_tokens
    assert totals.computed_tokens == sum(line["computed_tokens"] for line in steps) > totals.supervised_tokens > 0
    assert not made.course.policy.model.training, "left evaluating"


def test_hooks_are_called_when_due_and_at_both_edges(tmp_path):
    made = tiny.course(tmp_path, Lora(rank=4), NextToken(), steps=7)
    seen: dict[str, list[int]] = {"every 3": [], "edges": []}

    def hook(name):
        def called(moment):
            seen[name].append(moment.step)
            made.course.policy.model.eval()  # as an evaluation would leave it
            return {"held_out": float(moment.step)}

        return called

    modes = []
    watch = lambda moment: modes.append(made.course.policy.model.training)
    fit(changed(made, hooks=[(hook("every 3"), 3), (hook("edges"), 0), (watch, 1)]).course)
    assert seen == {"every 3": [0, 3, 6, 7], "edges": [0, 7]}
    assert all(modes), "training goes on in training mode"
    assert [line["step"] for line in journal(tmp_path) if "held_out" in line] == [0, 3, 6, 7]


def test_every_example_is_seen_once_an_epoch_and_the_last_step_takes_what_is_left(tmp_path):
    seen = []
    objective = NextToken()
    made = tiny.course(tmp_path, Lora(rank=4), objective, examples=tiny.some_examples(objective, 20), steps=3)

    class Watching(NextToken):
        def weight(self, examples):
            seen.append([example.row for example in examples])
            return super().weight(examples)

    fit(changed(made, examples=20, objective=Watching()).course)
    assert [len(step) for step in seen] == [8, 8, 4]
    assert sorted(row for step in seen for row in step) == list(range(1, 21))


def test_checkpoints_are_kept_by_the_rule(tmp_path):
    fit(tiny.course(tmp_path, Lora(rank=4), NextToken(), steps=7, checkpoint_every=2, keep_checkpoints=3).course)
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["step-00000004", "step-00000006", "step-00000007"]


def test_a_finished_run_is_not_trained_again(tmp_path):
    made = tiny.course(tmp_path, Lora(rank=4), NextToken(), steps=3)
    fit(made.course)
    weights = {name: p.detach().clone() for name, p in made.attached.trainable.items()}
    again = tiny.course(tmp_path, Lora(rank=4), NextToken(), steps=3)
    assert fit(again.course).finished and not again.losses
    assert all(torch.equal(p, weights[name]) for name, p in again.attached.trainable.items())


def test_a_step_without_a_finite_gradient_is_refused_counted_and_said(tmp_path):
    made = tiny.course(tmp_path, Full(), NextToken(), steps=4, learning_rate=1e-3)
    weight = made.attached.trainable["model.norm.weight"]
    kept = weight.detach().clone()

    def spoil(moment):
        with torch.no_grad():
            weight[0] = math.nan if moment.step == 1 else kept[0]

    outcome = fit(changed(made, hooks=[(spoil, 1)]).course)
    assert outcome.finished and outcome.totals.refused_steps == 1
    assert [line for line in made.said if line.startswith("step 2 was not taken: the gradient is not finite")]
    assert all(torch.isfinite(p).all() for p in made.attached.trainable.values())


def test_too_many_in_a_row_stop_the_run_with_a_remedy(tmp_path):
    made = tiny.course(tmp_path, Full(), NextToken(), steps=20)
    with torch.no_grad():
        made.attached.trainable["model.norm.weight"][0] = math.inf
    with pytest.raises(TrainingError, match="5 steps in a row had no finite gradient, the last at step 5") as caught:
        fit(made.course)
    assert "learning_rate" in caught.value.remedy


def short_of_memory(made: tiny.Made, most: int) -> None:
    """The model as it would be on a device that holds rows of so many tokens."""

    def forward(module, args, kwargs):
        if kwargs["input_ids"].numel() > most:
            raise torch.OutOfMemoryError("out of memory")

    made.course.policy.model.base_model.register_forward_pre_hook(forward, with_kwargs=True)


def test_out_of_memory_repeats_the_same_step_in_smaller_rows_and_stays_there(tmp_path):
    plain = tiny.course(tmp_path / "plain", Full(), NextToken(), cut=Cut(400, 4), steps=4, learning_rate=1e-3)
    fit(plain.course)
    made = tiny.course(tmp_path / "small", Full(), NextToken(), cut=Cut(400, 4), steps=4, learning_rate=1e-3)
    short_of_memory(made, 60)
    outcome = fit(made.course)
    assert made.losses == pytest.approx(plain.losses, abs=1e-5)
    assert outcome.totals.smaller_rows == 3
    cuts = [line for line in made.said if "out of memory; repeating it in rows of" in line]
    assert [line.split("rows of ")[1].split()[0] for line in cuts] == ["200", "100", "50"]
    again = tiny.course(tmp_path / "small", Full(), NextToken(), cut=Cut(400, 4), steps=5, learning_rate=1e-3)
    short_of_memory(again, 60)
    assert fit(again.course).totals.smaller_rows == 3, "a resumed run begins with what was found to fit"


def test_a_device_too_small_for_one_example_is_named(tmp_path):
    made = tiny.course(tmp_path, Lora(rank=4), NextToken(), cut=Cut(400, 4), steps=4)
    short_of_memory(made, 5)
    with pytest.raises(TrainingError, match="step 1: the device is out of memory") as caught:
        fit(made.course)
    assert "train.tokens_per_row" in caught.value.remedy and "data.context" in caught.value.remedy


def test_the_same_seed_is_the_same_run_whatever_happened_before(tmp_path):
    losses = []
    for attempt in range(2):
        torch.manual_seed(attempt)
        made = tiny.course(tmp_path / str(attempt), Lora(rank=4, dropout=0.3), NextToken(), steps=4)
        torch.rand(attempt + 1)
        fit(made.course)
        losses.append(made.losses)
    assert losses[0] == losses[1]
    other = tiny.course(tmp_path / "other", Lora(rank=4, dropout=0.3), NextToken(), steps=4, seed=1)
    fit(other.course)
    assert other.losses != losses[0]


def test_a_signal_in_the_last_step_is_not_forgotten(tmp_path):
    """The loop is over either way; whoever composes must know that nothing more is wanted."""
    made = tiny.course(tmp_path / "step", Lora(rank=4), NextToken(), steps=3)
    ask = lambda moment: signal.raise_signal(signal.SIGINT) if moment.step == 3 else None
    outcome = fit(changed(made, hooks=[(ask, 1)]).course)
    assert outcome.finished and outcome.stopped
    assert made.said[-1] == "stopped after step 3 of 3; the same command goes on from there"
    again = fit(tiny.course(tmp_path / "step", Lora(rank=4), NextToken(), steps=3).course)
    assert again.finished and not again.stopped


def test_a_signal_while_the_last_step_is_saved_is_not_forgotten(tmp_path, monkeypatch):
    def save(self, *content):
        signal.raise_signal(signal.SIGTERM)
        return whole(self, *content)

    whole = Checkpoints.save
    monkeypatch.setattr(Checkpoints, "save", save)
    outcome = fit(tiny.course(tmp_path, Lora(rank=4), NextToken(), steps=3).course)
    assert outcome.finished and outcome.stopped


def test_other_rows_are_taken_and_said_when_going_on(tmp_path):
    """What the message about a full device asks for is obeyed, by the run that it stopped."""
    stopping = tiny.course(tmp_path, Lora(rank=4), NextToken(), cut=Cut(400, 4), steps=4, tokens_per_row=400)
    ask = lambda moment: signal.raise_signal(signal.SIGINT) if moment.step == 2 else None
    short_of_memory(stopping, 60)
    fit(changed(stopping, hooks=[(ask, 1)]).course)
    rows = []

    def on(tokens, **train):
        made = tiny.course(tmp_path, Lora(rank=4), NextToken(), cut=Cut(tokens, 4), steps=4, tokens_per_row=tokens, **train)
        watch = lambda module, args, kwargs: rows.append(kwargs["input_ids"].numel())
        made.course.policy.model.base_model.register_forward_pre_hook(watch, with_kwargs=True)
        ask = lambda moment: signal.raise_signal(signal.SIGINT) if moment.step == 3 else None
        fit(changed(made, hooks=[(ask, 1)]).course)
        largest = max(rows)
        rows.clear()
        return made.said, largest

    said, largest = on(90)
    assert "going on from step 2 of 4" in said
    assert 50 < largest <= 90, "asked for anew, although smaller ones had to be taken before"
    (told,) = [line for line in said if "tokens_per_row: 400, here tokens_per_row: 90" in line]
    assert told.endswith("the run stays right, but not equal to the bit")
    said, largest = on(400, activation_checkpointing=True)
    assert "going on from step 3 of 4" in said and largest > 90
    assert any("activation_checkpointing: False, here activation_checkpointing: True" in line for line in said)
