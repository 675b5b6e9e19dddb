"""Reward models and classifiers from recipe to score: trained, judged, published, loaded by name, and loaded by foreign code."""

import json
import shutil

import numpy as np
import pytest
import torch
from chat_tokenizers import chat_tokenizer
from peft import PeftModel
from safetensors import safe_open
from small_project import COLOURS, recipe, stage
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer, BloomConfig, BloomForCausalLM

import etude
from etude.cli.show_library import print_shown
from etude.compose.begun import Setting, begin
from etude.compose.judging import glance
from etude.compose.voice import Voice
from etude.data.rows import Cut
from etude.engine.rollouts import Rollouts
from etude.errors import DataError, ModelError, RecipeError, TrainingError
from etude.lineage.store import open_store
from etude.model import attention
from etude.model.policy import Policy

ADAPTATIONS = ["full", "lora", "bitfit", "prompt", "qlora"]


def labelled(path, count=40):
    notes = ((f"note {i} is {COLOURS[i % 5]} and {'fine' if i % 2 else 'broken'}", "good" if i % 2 else "bad") for i in range(count))
    path.write_text("".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in notes))
    return path


def sorting(path, **options):
    """A stage on columns `text` and `label`."""
    made = stage(path, **options)
    made["data"]["sources"] = {"path": str(path), "format": "labelled"}
    return made


def by_foreign_code(base, folder, labels, tokens):
    """[labels] logits of plain transformers or plain peft."""
    if (folder / "adapter_config.json").exists():
        under = AutoModelForSequenceClassification.from_pretrained(base, num_labels=labels, dtype=torch.float32)
        model = PeftModel.from_pretrained(under, folder)
    else:
        model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32)
        assert model.config.num_labels == labels and type(model).__name__ == "LlamaForSequenceClassification"
    with torch.no_grad():
        return model.eval()(input_ids=torch.tensor([tokens])).logits[0].numpy(), model


@pytest.mark.parametrize("adapt", ADAPTATIONS)
def test_a_reward_model_from_recipe_to_foreign_code(base, project, voice, adapt):
    file = recipe(project / "worth.yaml", base, {"r": stage(project / "pairs.jsonl", objective="reward", adapt=adapt, steps=8)})
    done = etude.run(str(file), voice=voice, project=project).stages["r"]
    axis = done.judgement.axes[0]
    assert axis.name == "chosen answer worth more, against chance" and axis.parent.value == 0.5 and axis.n == 6
    assert len(done.judgement.axes) == 1 and any("chance" in line for line in done.judgement.warnings)
    model = etude.load("worth", dtype="float32", project=project)
    worth = [model.score("Name colour 3", answer) for answer in ("It is black", "It is 3")]
    assert worth[0] != worth[1]
    with pytest.raises(ModelError, match="writes none"):
        model.generate("Name colour 3")
    with pytest.raises(ModelError, match="cannot `classify`"):
        model.classify("Name colour 3")
    compared = etude.compare(str(base), "worth", project=project).judgement.axes[0]
    assert compared.tuned.value == axis.tuned.value and compared.parent.value == 0.5
    if adapt in ("full", "lora", "prompt"):
        tokenizer = AutoTokenizer.from_pretrained(done.folder)
        said = [{"role": "user", "content": "Name colour 3"}, {"role": "assistant", "content": "It is black"}]
        tokens = tokenizer(tokenizer.apply_chat_template(said, tokenize=False), add_special_tokens=False)["input_ids"]
        tokens = tokens[: max(i for i, t in enumerate(tokens) if t in model.opened.stop_ids) + 1]
        found, _ = by_foreign_code(base, done.folder, 1, tokens)
        assert found[0] == pytest.approx(worth[0], abs=1e-4)


@pytest.mark.parametrize("adapt", ["full", "lora"])
def test_a_classifier_from_recipe_to_foreign_code(base, project, voice, adapt):
    file = recipe(project / "sort.yaml", base, {"c": sorting(labelled(project / "l.jsonl"), objective="classify", adapt=adapt, steps=12)})
    done = etude.run(str(file), voice=voice, project=project).stages["c"]
    names = [axis.name for axis in done.judgement.axes]
    assert names[0] == "accuracy" and any("against always" in name for name in names) and any("F1" in name for name in names)
    assert {example.tuned for example in done.judgement.examples} <= {"good", "bad"}
    assert any("2 labels: 'bad'" in line for line in voice.lines)
    model = etude.load("sort", dtype="float32", project=project)
    told = model.classify("note 3 is red and fine")
    assert sorted(told) == ["bad", "good"] and sum(told.values()) == pytest.approx(1)
    logits, plain = by_foreign_code(base, done.folder, 2, model.prompt("note 3 is red and fine"))
    shares = np.exp(logits) / np.exp(logits).sum()
    assert shares == pytest.approx([told["bad"], told["good"]], abs=1e-4)
    if adapt == "full":
        assert plain.config.id2label == {0: "bad", 1: "good"}
    compared = etude.compare(str(base), "sort", project=project).judgement
    assert [axis.tuned.value for axis in compared.axes] == pytest.approx([axis.tuned.value for axis in done.judgement.axes])


def test_labels_without_a_head_leave_a_model_that_writes(base, project, voice):
    aim = {"kind": "classify", "head": False}
    file = recipe(project / "words.yaml", base, {"c": sorting(labelled(project / "l.jsonl"), objective=aim, steps=12)})
    done = etude.run(str(file), voice=voice, project=project).stages["c"]
    assert {example.tuned for example in done.judgement.examples} <= {"good", "bad"}
    assert any(axis.name == "loss on held-out answers" for axis in done.judgement.axes)
    assert etude.load("words", project=project).generate("note 3 is red and fine", max_new_tokens=3) is not None


STOPS = {"held_out": 12, "steps": 40, "evaluate_every": 2, "early_stopping": {"patience": 2}, "learning_rate": 5e-2, "seed": 1}


@pytest.mark.parametrize(
    ("aim", "figure"),
    [("classify", "held_out_accuracy"), ({"kind": "classify", "head": False}, "held_out_loss_labels"), ("reward", "held_out_preferred")],
    ids=["head", "words", "reward"],
)
def test_stopping_early(base, project, voice, aim, figure):
    one = stage(project / "pairs.jsonl", objective=aim, **STOPS)
    one = one if aim == "reward" else sorting(labelled(project / "l.jsonl"), objective=aim, **STOPS)
    done = etude.run(str(recipe(project / "stops.yaml", base, {"s": one})), voice=voice, project=project).stages["s"]
    lines = [json.loads(line) for line in (done.folder / "metrics.jsonl").read_text().splitlines()]
    looked = {line["step"]: line[figure] for line in lines if figure in line}
    best = (min if "loss" in figure else max)(looked.values())
    metrics = done.record.metrics
    assert metrics[f"best {figure}"] == best == looked[metrics["best_step"]] and len(looked) > 2
    assert metrics["steps"] + metrics["steps_not_taken"] == 40
    drawn = {point.step: point.loss for point in done.judgement.about.curve.held_out}
    assert drawn == (looked if figure == "held_out_loss_labels" else {}), "what is counted as the loss is stands beside it"
    said = figure.removeprefix("held_out_").replace("_", " ")
    assert f"are kept ({said} on rows held out for this: " in done.judgement.about.against_forgetting[0]


def test_labels_by_their_words_are_looked_at_beside_each_other(base, project):
    """The cross-entropy between the labels' own words, by plain transformers; words that all grow likelier are no gain."""
    one = sorting(labelled(project / "l.jsonl"), objective={"kind": "classify", "head": False}, **STOPS)
    loaded = etude.read_recipe(str(recipe(project / "words.yaml", base, {"c": one})))
    begun = begin(Setting(loaded.recipe, loaded.mapping, open_store(project), torch.device("cpu"), Voice()), "c", str(base))
    plain = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).eval()
    words, losses = list(begun.objective.choices.values()), []
    for example in begun.looked_at:
        sample = example.samples[0]
        prompt, answer = sample.tokens[: sample.answer_at].tolist(), tuple(sample.tokens[sample.answer_at :].tolist())
        likely = []
        for word in words:
            with torch.no_grad():
                said = plain(input_ids=torch.tensor([[*prompt, *word]])).logits[0].double().log_softmax(-1)
            likely.append(sum(said[len(prompt) - 1 + i, token] for i, token in enumerate(word)))
        losses.append(torch.nn.functional.cross_entropy(torch.stack(likely)[None], torch.tensor([words.index(answer)])))
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, attn_implementation=attention.NAME).eval()
    found = glance(Policy(model), begun.looked_at, Cut(4096), begun.objective)
    assert found == {"held_out_loss_labels": pytest.approx(float(torch.stack(losses).mean()), abs=1e-5)}


def test_a_family_that_knows_no_last_position_scores(project, voice):
    tokenizer, folder = chat_tokenizer(), project / "bloom"
    ends = dict(bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id)
    BloomForCausalLM(BloomConfig(vocab_size=len(tokenizer), hidden_size=32, n_layer=2, n_head=4, **ends)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    file = recipe(project / "worth.yaml", folder, {"r": stage(project / "pairs.jsonl", objective="reward", adapt="full")}, evaluate=None)
    etude.run(str(file), voice=voice, project=project)
    assert np.isfinite(etude.load("worth", dtype="float32", project=project).score("Name colour 3", "It is black"))


def test_nothing_stands_on_what_only_scores(base, project, voice):
    stages = {"r": stage(project / "pairs.jsonl", objective="reward"), "s": stage(project / "answers.jsonl", parent="r")}
    with pytest.raises(RecipeError, match="writes nothing, so nothing can stand on it"):
        etude.run(str(recipe(project / "two.yaml", base, stages)), voice=voice, project=project)
    etude.run(str(recipe(project / "worth.yaml", base, {"r": stages["r"]}, evaluate=None)), voice=voice, project=project)
    file = recipe(project / "on.yaml", base, {"s": stage(project / "answers.jsonl", parent="worth")})
    with pytest.raises(ModelError, match="scores text"):
        etude.run(str(file), voice=voice, project=project)


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        ([{"text": f"note {i}", "label": "same"} for i in range(30)], "nothing to tell apart"),
        ([{"text": f"note {i}"} for i in range(30)], "label: missing"),
    ],
)
def test_rows_that_say_no_class_are_refused(base, project, voice, rows, problem):
    (project / "l.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    file = recipe(project / "c.yaml", base, {"c": sorting(project / "l.jsonl", objective="classify")})
    with pytest.raises(DataError, match=problem):
        etude.run(str(file), voice=voice, project=project)


def test_a_reward_model_rewards_answers(base, project, voice):
    """Its head on the very tokens that were written; another version of it makes another stage, another name of it does not."""
    rewarding = recipe(project / "worth.yaml", base, {"r": stage(project / "pairs.jsonl", objective="reward")}, evaluate=None)
    etude.run(str(rewarding), voice=voice, project=project)
    aim = {"kind": "grpo", "group": 3, "max_new_tokens": 4, "rewards": [{"kind": "artefact", "artefact": "worth", "weight": 2}]}
    file = recipe(project / "led.yaml", base, {"g": stage(project / "answers.jsonl", objective=aim, adapt="lora", steps=2)}, evaluate=None)
    written = []
    keep = Rollouts._reward
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Rollouts, "_reward", lambda self, groups: (keep(self, groups), written.extend(groups)))
        made = etude.run(str(file), voice=voice, project=project).stages["g"].record
    assert any("worth@1 rewards answers: a second model in memory" in line for line in voice.lines)
    model = etude.load("worth", dtype="float32", project=project)
    asked, answer = written[0]["prompt"], written[0]["answers"][1]
    assert answer["reward"] == pytest.approx(2 * model._at_the_end(np.asarray([*asked, *answer["tokens"]], np.int32))[0], abs=1e-5)
    etude.name("worth@1", "judge", project=project)
    again = ["stages.g.objective.rewards=[{kind: artefact, artefact: worth@judge, weight: 2}]"]
    assert etude.run(str(file), again, voice=voice, project=project).stages["g"].reused
    etude.run(str(rewarding), ["stages.r.train.steps=6"], voice=voice, project=project)
    assert etude.run(str(file), voice=voice, project=project).stages["g"].record.version == made.version + 1
    odd = ["stages.g.objective.rewards=[{kind: artefact, artefact: led@1}]"]
    with pytest.raises(ModelError, match="is no reward model"):
        etude.run(str(file), odd, voice=voice, project=project)


def test_ppo_writes_and_keeps_its_values_beside(base, project, voice):
    (project / "reward.py").write_text("def reward(prompt, expected, answer):\n    return float('a' in answer)\n")
    aim = {"kind": "ppo", "group": 2, "updates": 2, "max_new_tokens": 4, "rewards": [{"kind": "python", "file": "reward.py"}]}
    file = recipe(project / "led.yaml", base, {"p": stage(project / "answers.jsonl", objective=aim, steps=2)})
    done = etude.run(str(file), voice=voice, project=project).stages["p"]
    assert done.judgement is not None and (done.folder / "head.safetensors").exists()
    model = etude.load("led", dtype="float32", project=project)
    assert model.generate("What colour has thing 3?", max_new_tokens=4) is not None
    with pytest.raises(ModelError, match="writes text: it cannot `score`"):
        model.score("What colour has thing 3?", "red")
    tokens = torch.tensor([model.prompt("What colour has thing 3?")])
    plain = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), done.folder).eval()
    with torch.no_grad():
        assert plain(input_ids=tokens).logits.shape[-1] > 2
    on = recipe(project / "on.yaml", base, {"s": stage(project / "answers.jsonl", parent="led")}, evaluate=None)
    assert etude.run(str(on), voice=voice, project=project).finished, "a policy can be trained further"
    with pytest.raises(TrainingError, match="how far answers yet to be written are from the parent"):
        whole = {"p": stage(project / "answers.jsonl", objective=aim, adapt="full")}
        etude.run(str(recipe(project / "whole.yaml", base, whole)), voice=voice, project=project)


def test_show_says_what_the_head_is_for(base, project, voice, capsys):
    file = recipe(project / "worth.yaml", base, {"r": stage(project / "pairs.jsonl", objective="reward")}, evaluate=None)
    etude.run(str(file), voice=voice, project=project)
    print_shown(etude.show("worth", project=project), None, False)
    shown = " ".join(capsys.readouterr().out.split())
    assert "reward (reward), read at the end of a text" in shown


def test_padding_is_a_token_that_no_text_ends_in(base, tmp_path, project, voice):
    """A base whose end of turn pads too, as SmolLM2's does: transformers would read the token before the end."""
    folder = tmp_path / "ended"
    shutil.copytree(base, folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.pad_token = tokenizer.eos_token
    tokenizer.save_pretrained(folder)
    file = recipe(project / "worth.yaml", folder, {"r": stage(project / "pairs.jsonl", objective="reward", adapt="full", steps=8)})
    done = etude.run(str(file), voice=voice, project=project).stages["r"]
    assert any("pads in the saved tokenizer" in line for line in voice.lines)
    saved = AutoTokenizer.from_pretrained(done.folder)
    model = etude.load("worth", dtype="float32", project=project)
    plain = AutoModelForSequenceClassification.from_pretrained(done.folder, dtype=torch.float32).eval()
    assert plain.config.pad_token_id == saved.pad_token_id not in model.opened.stop_ids
    turns = [[{"role": "user", "content": "Name colour 3"}, {"role": "assistant", "content": said}] for said in ("It is black", "3")]
    texts = [saved.apply_chat_template(one, tokenize=False).rstrip("\n") for one in turns]
    batch = saved(texts, add_special_tokens=False, padding=True, return_tensors="pt")
    assert len({int(n) for n in batch["attention_mask"].sum(1)}) == 2, "one of them is padded"
    with torch.no_grad():
        found = plain(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits[:, 0].tolist()
    assert found == pytest.approx([model.score("Name colour 3", said) for said in ("It is black", "3")], abs=1e-4)


def test_two_reward_models_are_compared_pair_by_pair(base, project, voice):
    """On a base whose embedding is not its head: what only scores has none, and is loaded all the same."""
    AutoModelForCausalLM.from_pretrained(base, tie_word_embeddings=False).save_pretrained(project / "untied")
    AutoTokenizer.from_pretrained(base).save_pretrained(project / "untied")
    file = recipe(project / "worth.yaml", project / "untied", {"r": stage(project / "pairs.jsonl", objective="reward", adapt="full")})
    for steps in (4, 8):
        done = etude.run(str(file), [f"stages.r.train.steps={steps}"], voice=voice, project=project).stages["r"]
    with safe_open(done.folder / "model.safetensors", framework="pt") as tensors:
        assert "lm_head.weight" not in tensors.keys() and "score.weight" in tensors.keys()  # noqa: SIM118 (no mapping)
    assert np.isfinite(etude.load("worth", project=project).score("Name colour 3", "It is black"))
    judgement = etude.compare("worth@1", "worth@2", project=project).judgement
    assert [axis.name for axis in judgement.axes] == ["chosen answer worth more"]
    assert not any("chance" in line for line in judgement.warnings)
    with pytest.raises(ModelError, match="has no head that scores"):
        etude.compare("worth@1", str(project / "untied"), project=project)
