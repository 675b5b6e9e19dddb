"""What a source counts in the loss: its tokens' weights multiplied, in training alone, said, and plain PyTorch's weighted mean."""

import json

import numpy as np
import pytest
import tiny
import torch
import torch.nn.functional as F
from chat_tokenizers import chat_tokenizer
from small_project import recipe, stage

import etude
from etude.data.prepare import prepare
from etude.data.rows import Cut
from etude.errors import TrainingError
from etude.model.policy import Policy
from etude.objective.next_token import NextToken
from etude.recipe.data import Data


def written(folder, name, count):
    path = folder / name
    path.write_text("".join(json.dumps({"prompt": f"{name} {i}?", "completion": f"it is {i * 7}"}) + "\n" for i in range(count)))
    return str(path)


def ready(folder, factor, held_out=4):
    light = {"path": written(folder, "light.jsonl", 9)} | ({"loss_weight": factor} if factor else {})
    data = Data.model_validate({"sources": [light, written(folder, "plain.jsonl", 5)], "held_out": held_out})
    return prepare(data, chat_tokenizer(), roles=(), stop_ids=frozenset({3}), seed=0)


def test_training_counts_so_and_held_out_rows_do_not(tmp_path):
    plain, lighter = ready(tmp_path, None), ready(tmp_path, 0.25)
    for factor, before, now in zip((0.25, 1.0), plain.train, lighter.train, strict=True):
        for one, other in zip(before[1], now[1], strict=True):
            assert np.array_equal(one.samples[0].weight * np.float32(factor), other.samples[0].weight)
    assert all(set(one.samples[0].weight) == {0, 1} for one in lighter.held_out)
    assert plain.fingerprint != lighter.fingerprint and ready(tmp_path, 1.0).fingerprint == plain.fingerprint
    assert "learnt, each counting 0.25)" in " ".join(lighter.counts.lines())
    assert "counting" not in " ".join(plain.counts.lines())


def test_a_step_is_torchs_weighted_mean(tmp_path):
    examples = [one for _, source in ready(tmp_path, 0.25, held_out=0).train for one in source]
    model = tiny.llama(vocab_size=len(chat_tokenizer()))
    truth, total, weight = tiny.copy_of(model, "eager"), 0.0, 0.0
    for example in examples:
        (sample,) = example.samples
        tokens, factor = torch.from_numpy(sample.tokens).long(), 0.25 if "light" in example.source else 1.0
        logits = truth(input_ids=tokens[None]).logits[0, :-1]
        learnt = torch.from_numpy(sample.weight[1:] > 0)
        total = total + factor * F.cross_entropy(logits[learnt], tokens[1:][learnt], reduction="sum")
        weight += factor * int(learnt.sum())
    result, found = tiny.gradients_of_step(Policy(model), dict(model.named_parameters()), NextToken(), examples, Cut(90, 4))
    assert result.metrics["loss"] == pytest.approx((total / weight).item(), abs=1e-5)
    (total / weight).backward()
    assert tiny.furthest(found, {name: p.grad for name, p in truth.named_parameters()}) < 1e-4


def test_it_is_another_stage_and_nothing_for_pairs(project, base, voice):
    stages = {"s": stage(project / "answers.jsonl")}
    forecast = lambda *overrides: etude.forecast(etude.read_recipe(str(file), list(overrides)), project=project)
    file = recipe(project / "colours.yaml", base, stages)
    done = etude.run(str(file), voice=voice, project=project).stages["s"]
    assert forecast()[0].finished == done.record.reference
    weighed = f"stages.s.data.sources=[{{path: {project / 'answers.jsonl'}, loss_weight: 0.5}}]"
    assert forecast(weighed)[0].finished is None
    pairs = stage(project / "pairs.jsonl", objective="dpo")
    pairs["data"]["sources"] = [{"path": str(project / "pairs.jsonl"), "loss_weight": 0.5}]
    with pytest.raises(TrainingError, match=r"pairs.jsonl has a loss_weight, and dpo weighs whole answers, not tokens\n.*`weight`"):
        etude.run(str(recipe(project / "pairs.yaml", base, {"p": pairs})), project=project)
