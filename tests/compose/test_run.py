"""A recipe from its file to its artefact: what lies there, what foreign code makes of it, and what is not done twice."""

import json
import math
import shutil
import time

import numpy as np
import pytest
import torch
from peft import PeftModel
from small_project import recipe, stage
from transformers import AutoModelForCausalLM, AutoTokenizer

import etude
from etude.compose.judging import measure
from etude.errors import DataError, LineageError
from etude.evaluation.judgement import Judgement
from etude.lineage.fingerprint import fingerprint_folder
from etude.lineage.store import open_store

TOKENS = torch.tensor([[5, 60, 61, 7, 300, 12, 13, 400, 44]])


def logits(model) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=TOKENS, use_cache=False).logits.float()


def plain(folder, **how):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=how.pop("dtype", torch.float32), **how).eval()


def journal(folder) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture
def colours(project, base):
    return recipe(project / "colours.yaml", base, {"sft": stage(project / "answers.jsonl")})


def test_an_artefact_with_everything_beside_it(project, base, colours, voice):
    result = etude.run(str(colours), voice=voice, project=project)
    done = result.stages["sft"]
    assert result.finished and not done.reused and voice.trained
    files = {path.name for path in done.folder.iterdir()}
    assert files >= {"adapter_model.safetensors", "adapter_config.json", "tokenizer.json", "chat_template.jinja"}
    assert files >= {"etude.json", "metrics.jsonl", "judgement.json", "report.html"}
    assert "README.md" not in files
    record = done.record
    assert record.reference == "colours@1" and record.kind == "adapter" and record.stage == "sft"
    curve = done.judgement.about.curve
    assert curve.unit == "nats a token" and [point.step for point in curve.held_out] == [0, 4], "drawn beside the training loss"
    assert (record.parent.kind, record.parent.reference) == ("base", str(base))
    assert record.parent.fingerprint == record.fingerprints.base == fingerprint_folder(base)
    assert record.versions["torch"] == torch.__version__.split("+")[0] and record.machine.processes == 1
    assert (record.counts["read"], record.counts["training"], record.counts["held_out"]) == (40, 32, 8)
    assert etude.read_recipe(str(colours)).mapping == record.recipe
    lines = journal(done.folder)
    assert [line["step"] for line in lines] == [0, 1, 2, 3, 4]
    assert record.metrics["loss"] == lines[-1]["loss"] < lines[1]["loss"]
    assert Judgement.from_json((done.folder / "judgement.json").read_text()) == done.judgement
    assert done.judgement.about.cost.artefact_bytes > (done.folder / "adapter_model.safetensors").stat().st_size
    assert [axis.name for axis in done.judgement.axes] == ["exact match", "loss on held-out answers", "loss on general text"]
    assert done.judgement.headline in (done.folder / "report.html").read_text()
    assert not any(path.is_dir() for path in (project / ".etude" / "runs").iterdir()), "the run's folder is gone"


def test_the_adapter_in_plain_peft(project, base, colours):
    folder = etude.run(str(colours), project=project).stages["sft"].folder
    foreign = PeftModel.from_pretrained(plain(base), str(folder)).eval()
    ours = etude.load("colours", dtype="float32", project=project).opened
    torch.testing.assert_close(logits(ours.model), logits(foreign), rtol=0, atol=1e-4)
    assert (logits(foreign) - logits(plain(base))).abs().max() > 1e-2, "something was learnt"
    with ours.attached.off():
        torch.testing.assert_close(logits(ours.model), logits(plain(base)), rtol=0, atol=1e-4)


def test_nothing_is_done_twice(project, base, colours, voice):
    first = etude.run(str(colours), project=project).stages["sft"]
    again = etude.run(str(colours), voice=voice, project=project).stages["sft"]
    assert again.reused and again.record == first.record and not voice.trained and not voice.bars
    assert again.judgement == first.judgement and again.report == first.folder / "report.html"
    assert "nothing has changed since colours@1 was made; it is used as it is" in voice.lines
    other = etude.run(str(colours), ["stages.sft.train.learning_rate=2e-2"], project=project).stages["sft"]
    assert other.record.reference == "colours@2" and not other.reused
    back = etude.run(str(colours), ["stages.sft.train.checkpoint_every=2"], project=project).stages["sft"]
    assert back.record.reference == "colours@1", "what cannot change the result makes no new version"
    (project / "answers.jsonl").write_text((project / "answers.jsonl").read_text().replace("red", "pink"))
    assert etude.run(str(colours), project=project).stages["sft"].record.reference == "colours@3"


def test_full_tuning_in_plain_transformers(project, base):
    file = recipe(project / "full.yaml", base, {"sft": stage(project / "answers.jsonl", adapt="full")})
    done = etude.run(str(file), project=project).stages["sft"]
    assert done.record.kind == "model"
    ours = etude.load("full", dtype="float32", project=project)
    torch.testing.assert_close(logits(ours.opened.model), logits(plain(done.folder)), rtol=0, atol=1e-4)
    assert not ours.has_parent
    tokenizer = AutoTokenizer.from_pretrained(done.folder)
    text = tokenizer.apply_chat_template([{"role": "user", "content": "Hi"}], tokenize=False, add_generation_prompt=True)
    assert tokenizer(text, add_special_tokens=False)["input_ids"] == ours.prompt("Hi")


@pytest.mark.parametrize("adapt", ["lora", "full"])
def test_preferences(project, base, adapt, monkeypatch):
    """The parent's scores, switched off or stored, make the first loss ln 2; the judgement counts pairs as plain transformers does."""
    file = recipe(project / "prefer.yaml", base, {"dpo": stage(project / "pairs.jsonl", adapt=adapt, objective="dpo", evaluate_every=2)})
    spent = timed(monkeypatch)
    done = etude.run(str(file), project=project).stages["dpo"]
    first, last = journal(done.folder)[1], journal(done.folder)[-1]
    assert first["loss"] == pytest.approx(math.log(2), abs=1e-6) and last["loss"] < first["loss"]
    assert (done.judgement.about.curve.unit, done.judgement.about.curve.held_out) == ("dpo, a pair", ())
    pairs, answers = done.judgement.axes[0], done.judgement.axes[-2]
    assert (pairs.name, pairs.n) == ("chosen answer likelier", 6)
    looks = {line["step"]: line["held_out_preferred"] for line in journal(done.folder) if "held_out_preferred" in line}
    assert list(looks) == [0, 2, 4] and (looks[0], looks[4]) == (pairs.parent.value, pairs.tuned.value)
    assert done.judgement.about.cost.judging_seconds >= sum(spent) > 0 and len(spent) == 2, "both models, whenever they were measured"
    held_out = etude.data_show(str(file), project=project).prepared.held_out[:6]
    for model, found, loss in ((plain(base), pairs.parent, answers.parent), (None, pairs.tuned, answers.tuned)):
        model = model or etude.load("prefer", dtype="float32", project=project).opened.model
        sums = np.array([[_log_likelihood(model, sample) for sample in example.samples] for example in held_out])
        assert found.value == np.mean(sums[:, 0] > sums[:, 1])
        chosen = [example.samples[0] for example in held_out]
        assert loss.value == pytest.approx(-sums[:, 0].sum() / sum(sample.weight.sum() for sample in chosen), abs=1e-4)


def timed(monkeypatch) -> list[float]:
    """Seconds of each model's measurement, made slower than anything else."""
    spent = []

    def slowly(*arguments, **how):
        began = time.perf_counter()
        time.sleep(0.5)
        found = measure(*arguments, **how)
        spent.append(time.perf_counter() - began)
        return found

    monkeypatch.setattr("etude.compose.work.measure", slowly)
    return spent


def _log_likelihood(model, sample) -> float:
    tokens = torch.tensor(sample.tokens[None], dtype=torch.int64)
    with torch.no_grad():
        scores = torch.log_softmax(model(input_ids=tokens, use_cache=False).logits[0, :-1].float(), -1)
    return float((scores.gather(1, tokens[0, 1:, None])[:, 0] * torch.tensor(sample.weight[1:])).sum())


@pytest.fixture
def two(project, base):
    stages = {"sft": stage(project / "answers.jsonl"), "dpo": stage(project / "pairs.jsonl", parent="sft", objective="dpo")}
    return recipe(project / "two.yaml", base, {name: stages[name] for name in ("dpo", "sft")})  # children may be written first


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_child_of_an_adapter(project, base, two, dtype):
    """Its parent is melted in for training and for loading alike, so both compute the same, to the last bit."""
    types = [f"stages.{name}.train.dtype={dtype}" for name in ("sft", "dpo")]
    result = etude.run(str(two), types, project=project)
    assert list(result.stages) == ["sft", "dpo"]
    child = result.stages["dpo"]
    assert child.record.parent.reference == "two-sft@1" and child.record.parent.kind == "artefact"
    assert child.record.parent.fingerprint == result.stages["sft"].record.fingerprint
    assert child.record.fingerprints.base == fingerprint_folder(base)
    compared = etude.compare("two-sft", "two-dpo", project=project).judgement
    for trained, loaded in zip(child.judgement.axes, compared.axes, strict=True):
        assert loaded.tuned.value == pytest.approx(trained.tuned.value, abs=0 if dtype == "bfloat16" else 1e-6), loaded.name
    model = etude.load("two-dpo", dtype=dtype, project=project).opened.model
    assert model.model.rotary_emb.inv_freq.dtype == torch.float32, "positions are not rounded with the weights"
    assert model.dtype == getattr(torch, dtype)
    merged = PeftModel.from_pretrained(plain(base), str(result.stages["sft"].folder)).merge_and_unload()
    below = model.model.layers[0].mlp.down_proj.base_layer.weight
    assert torch.equal(below, merged.model.layers[0].mlp.down_proj.weight.to(below.dtype)), "melted in float32, then rounded once"
    if dtype == "float32":
        foreign = PeftModel.from_pretrained(merged, str(child.folder)).eval()
        torch.testing.assert_close(logits(model), logits(foreign), rtol=0, atol=1e-4)


def test_a_base_that_changed_is_noticed(project, tmp_path, colours):
    from small_project import make_base

    own = make_base(tmp_path / "own")
    etude.run(str(colours), [f"base={own}"], project=project)
    make_base(own, seed=1)
    with pytest.raises(etude.EtudeError, match="its weights have changed since"):
        etude.load("colours", project=project)


def test_without_judging(project, colours, voice):
    done = etude.run(str(colours), ["evaluate=null"], voice=voice, project=project).stages["sft"]
    assert done.judgement is None and done.report is None and "verdict" not in done.record.metrics
    assert not {"judgement.json", "report.html"} & {path.name for path in done.folder.iterdir()}
    assert voice.bars == ["training colours"]
    judged = etude.run(str(colours), voice=voice, project=project).stages["sft"]
    assert judged.reused and judged.record == done.record and judged.judgement is not None
    assert judged.report.parent.parent.name == "comparisons" and judged.report.exists()
    assert voice.bars.count("training colours") == 1, "other questions are asked of the same artefact"
    asked = len(voice.bars)
    again = etude.run(str(colours), voice=voice, project=project).stages["sft"]
    assert (again.judgement, again.report, len(voice.bars)) == (judged.judgement, judged.report, asked), "and asked once"
    otherwise = etude.run(str(colours), ["evaluate.rows=5"], voice=voice, project=project).stages["sft"]
    assert len(voice.bars) > asked and otherwise.report != judged.report and otherwise.judgement.axes[0].n == 5
    (judged.report.parent / "judgement.json").write_text("{")
    assert etude.run(str(colours), project=project).stages["sft"].judgement is not None, "what is torn is judged again"


def test_an_interruption_while_judging_costs_no_training(project, colours, voice, tmp_path_factory):
    class Impatient(type(voice)):
        def bar(self, label, total, unit):
            if label == "answers of the tuned model":
                raise KeyboardInterrupt
            return super().bar(label, total, unit)

    with pytest.raises(KeyboardInterrupt):
        etude.run(str(colours), voice=Impatient(), project=project)
    done = etude.run(str(colours), voice=voice, project=project).stages["sft"]
    assert "going on from step 4 of 4" in voice.lines
    whole = etude.run(str(colours), project=tmp_path_factory.mktemp("undisturbed")).stages["sft"]
    assert done.record.metrics == whole.record.metrics
    names = ("adapter_model.safetensors", "adapter_config.json")
    assert all((done.folder / name).read_bytes() == (whole.folder / name).read_bytes() for name in names)


def test_an_artefact_comes_before_a_folder_of_its_name(project, colours, monkeypatch):
    etude.run(str(colours), project=project)
    monkeypatch.chdir(project)
    (project / "colours").mkdir()
    assert etude.load("colours").has_parent
    assert open_store().resolve("colours").version == 1


def test_a_default_written_out_and_a_place_make_no_other_stage(project, base, colours, tmp_path_factory, voice):
    """Nor does a key that did not exist when the stage was run, or an `evaluate` that says the same."""
    first = etude.run(str(colours), project=project).stages["sft"]
    defaults = ["stages.sft.train.beta2=0.999", "stages.sft.data.too_long=drop", "stages.sft.adapt.targets=all-linear"]
    defaults += ["stages.sft.train.tokens_per_row=64", "evaluate.confidence=0.95"]
    assert etude.run(str(colours), defaults, project=project).stages["sft"].record == first.record
    record = project / ".etude/artefacts/colours/1/etude.json"
    written = json.loads(record.read_text())
    del written["recipe"]["stages"]["sft"]["train"]["beta2"], written["recipe"]["evaluate"]["confidence"]
    record.write_text(json.dumps(written))
    moved = tmp_path_factory.mktemp("elsewhere") / "project"
    project.rename(moved)
    file = moved / "colours.yaml"
    file.write_text(file.read_text().replace(str(project), str(moved)))
    again = etude.run(str(file), voice=voice, project=moved).stages["sft"]
    assert again.reused and again.record.reference == "colours@1" and not voice.bars
    assert again.judgement == first.judgement


def test_a_record_of_another_etude(project, base, colours, voice):
    """Its recipe is not understood, its weights are; only what needs the recipe says so."""
    first = etude.run(str(colours), project=project).stages["sft"]
    written = json.loads((first.folder / "etude.json").read_text())
    written["recipe"]["stages"]["sft"]["train"]["momentum"] = 0.9
    (first.folder / "etude.json").write_text(json.dumps(written))
    message = r"colours@1: the recipe in its record cannot be read .*train\.momentum: .*\n.*run its stage again"
    with pytest.raises(LineageError, match=message):
        etude.compare(str(base), "colours", project=project)
    again = etude.run(str(colours), voice=voice, project=project).stages["sft"]
    assert again.reused and not voice.trained and again.judgement.axes == first.judgement.axes[: len(again.judgement.axes)]


def test_harmless_changes_of_a_base_are_none(project, tmp_path, colours, voice):
    from small_project import make_base

    own = make_base(tmp_path / "own")
    made = etude.run(str(colours), [f"base={own}"], project=project).stages["sft"]
    (own / "generation_config.json").write_text(json.dumps({"temperature": 0.3, "do_sample": True}))
    for name in ("README.md", "modeling.py", "pytorch_model.bin", "training_log.json"):
        (own / name).write_text("{}")
    assert etude.load("colours", project=project).has_parent
    assert etude.run(str(colours), [f"base={own}"], project=project).stages["sft"].record == made.record


def test_equal_weights_have_equal_fingerprints(project, colours, tmp_path_factory):
    """Whenever they were judged, and however long that took."""
    one = etude.run(str(colours), project=project).stages["sft"]
    other = etude.run(str(colours), project=tmp_path_factory.mktemp("other")).stages["sft"]
    assert (one.folder / "judgement.json").read_bytes() != (other.folder / "judgement.json").read_bytes()
    assert one.record.fingerprint == other.record.fingerprint


def test_a_base_of_the_hub_is_remembered_with_its_commit(project, base, colours, monkeypatch):
    """An adapter is put back on the commit it was trained on, whatever the hub's main is by then."""
    from etude.model import origin

    commits = {name: project / "hub" / (name * 40) for name in "ab"}
    shutil.copytree(base, commits["a"])
    shutil.copytree(base, commits["b"])
    (commits["b"] / "tokenizer_config.json").write_text("{}")
    head = ["a"]
    monkeypatch.setattr(origin, "snapshot_download", lambda repository, revision, **how: str(commits[(revision or head[0])[0]]))
    made = etude.run(str(colours), ["base=owner/name"], project=project).stages["sft"]
    assert made.record.parent.reference == f"owner/name@{'a' * 40}" and made.judgement.about.parent == "owner/name@aaaaaaaa"
    head[0] = "b"
    assert etude.load("colours", project=project).opened.parent.fingerprint == made.record.fingerprint


def test_a_reward_is_what_its_file_says(project, base):
    """Not where the file lies: changed it is another stage, moved it is none."""
    rows = project / "answers.jsonl"
    for name, worth in (("one.py", 1), ("same.py", 1), ("other.py", 2)):
        (project / name).write_text(f"def reward(prompt, expected, answer):\n    return {worth} * len(answer)\n")
    objective = {"kind": "grpo", "group": 2, "max_new_tokens": 4, "rewards": [{"kind": "python", "file": str(project / "one.py")}]}
    file = recipe(project / "reward.yaml", base, {"s": stage(rows, objective=objective, steps=1)}, evaluate=None)
    place = "stages.s.objective.rewards.0.file"
    etude.run(str(file), project=project)
    found = [
        etude.forecast(etude.read_recipe(str(file), [f"{place}={project / name}"]), project=project)[0].finished
        for name in ("same.py", "other.py")
    ]
    assert found == ["reward@1", None]
    with pytest.raises(DataError, match=r"gone\.py: No such file"):
        etude.run(str(file), [f"{place}={project / 'gone.py'}"], project=project)
