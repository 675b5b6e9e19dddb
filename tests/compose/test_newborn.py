"""A model is born, learns from raw text and is judged against what it was: from a recipe to an artefact that plain transformers reads."""

import gzip
import json
import math
import sys
from pathlib import Path

import pytest
import small_project
import torch
from chat_tokenizers import ENDS_LAST_TURN, chat_tokenizer
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

import etude
from etude.compose.birth import base_of
from etude.compose.voice import Voice
from etude.data.prepare import prepare
from etude.errors import DataError, ModelError, RecipeError
from etude.lineage.store import open_store
from etude.model import birth

BIRTH = {"size": "60k", "tokenizer": {"kind": "bpe", "size": 300}, "context": 64}
OWN = """
from transformers import LlamaConfig, LlamaForCausalLM

class MineConfig(LlamaConfig):
    model_type = "mine"

class Mine(LlamaForCausalLM):
    config_class = MineConfig
"""


@pytest.fixture(autouse=True)
def _project(tmp_path):
    (tmp_path / ".etude").mkdir()


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    """Sixty small modules."""
    folder = tmp_path_factory.mktemp("library")
    for i in range(60):
        body = "\n".join(f"def area_{i}_{j}(width, height={j}):\n    return width * height + {i}\n" for j in range(4))
        (folder / f"module_{i}.py").write_text(f'"""Module {i}: of areas, größer."""\n\n{body}')
    return folder


def recipe(folder, library, base=None, data=None, evaluate=None, **train):
    usual = {"steps": 6, "tokens_per_step": 512, "optimizer": "muon", "learning_rate": 1e-2, "dtype": "float32", "evaluate_every": 3}
    stage = {"data": {"sources": f"{library}/*.py", "held_out": 10, "context": 64, **(data or {})}, "train": usual | train}
    judged = {"rows": 40, "keep": None} if evaluate is None else evaluate
    file = folder / "born.json"
    file.write_text(json.dumps({"name": "born", "base": BIRTH if base is None else base, "stages": {"py": stage}, "evaluate": judged}))
    return str(file)


def test_from_nothing_to_an_artefact_that_is_better(tmp_path, library, voice):
    file = recipe(tmp_path, library, samples=["def "])
    done = etude.run(file, project=tmp_path, voice=voice).stages["py"]
    record, judgement = done.record, done.judgement
    assert record.kind == "model" and record.parent.reference.startswith("newborn:born-newborn-")
    [axis] = judgement.axes
    assert axis.name == "loss on held-out text" and axis.verdict == "better"
    _check_bits_per_byte(tmp_path, file, done, axis)
    lines = [json.loads(line) for line in (done.folder / "metrics.jsonl").read_text().splitlines()]
    looks = {line["step"]: line["held_out_bits_per_byte"] for line in lines if "held_out_bits_per_byte" in line}
    assert sorted(looks) == [0, 3, 6] and looks[6] < looks[0]
    assert [one.step for one in judgement.about.samples] == [0, 3, 6] and judgement.about.samples[0].prompt == "def "
    assert "What it wrote along the way" in done.report.read_text()
    assert any("of the stage `py`, and saw no held-out text of that stage" in line for line in voice.lines)
    again = etude.run(file, project=tmp_path).stages["py"]
    assert again.reused and again.record.reference == record.reference
    assert isinstance(etude.chat("born", "def ", project=tmp_path, max_new_tokens=3), str)
    # On another day, in another project: the same to the bit.
    (tmp_path / "other" / ".etude").mkdir(parents=True)
    other = etude.run(recipe(tmp_path / "other", library), project=tmp_path / "other").stages["py"]
    one, two = (load_file(folder / "model.safetensors") for folder in (done.folder, other.folder))
    assert one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def _check_bits_per_byte(tmp_path, file, done, axis):
    """Nats of plain transformers, eager, document by document, over ln 2 and the bytes of what is predicted."""
    tokenizer = AutoTokenizer.from_pretrained(done.folder)
    model = AutoModelForCausalLM.from_pretrained(done.folder, attn_implementation="eager")
    data = etude.read_recipe(file).recipe.stages["py"].data
    held_out = prepare(data, tokenizer, roles=(), stop_ids=frozenset({tokenizer.eos_token_id}), seed=0).held_out
    assert axis.n == 10 and len(held_out) <= 40, "all of it is judged"
    nats, text = 0.0, b""
    for one in held_out:
        tokens = torch.from_numpy(one.samples[0].tokens).long()
        with torch.no_grad():
            logits = model(tokens[None]).logits[0].double()
        nats -= logits.log_softmax(-1)[torch.arange(len(tokens) - 1), tokens[1:]].sum().item()
        text += tokenizer.decode(tokens[1:], skip_special_tokens=True).encode()
    bits = next(one for one in axis.restated if one.unit == "bits/byte")
    assert bits.tuned == pytest.approx(nats / math.log(2) / len(text), rel=1e-3)
    assert bits.compressed == pytest.approx(8 * len(gzip.compress(text, 9)) / len(text), rel=0.15)  # in another order


def test_the_tokenizer_sees_no_held_out_text(tmp_path, library):
    secret = tmp_path / "held_out.txt"
    secret.write_text("xylophonequartz " * 400)
    file = recipe(tmp_path, library, data={"held_out": str(secret)})
    loaded, store = etude.read_recipe(file).recipe, open_store(tmp_path)
    folder = store.bases / base_of(loaded, store, Voice()).removeprefix("newborn:")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.pad_token_id not in (None, tokenizer.eos_token_id), "padding is left out of losses, the end is not"
    words = tokenizer.get_vocab()
    assert not any("xylo" in word for word in words) and any("width" in word for word in words)


def test_a_lone_text_is_enough(tmp_path, library):
    novel = tmp_path / "novel.txt"
    novel.write_text("\n".join(path.read_text() for path in sorted(library.glob("*.py"))))
    done = etude.run(recipe(tmp_path, library, data={"sources": str(novel), "held_out": 0.2}), project=tmp_path).stages["py"]
    assert any("of one text" in warning for warning in done.judgement.warnings)
    assert done.record.counts["held_out"] >= 2


def test_a_class_of_ones_own(tmp_path, library, monkeypatch):
    (tmp_path / "my_module.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    done = etude.run(recipe(tmp_path, library, base=BIRTH | {"architecture": "my_module:Mine"}), project=tmp_path).stages["py"]
    assert json.loads((done.folder / "config.json").read_text())["model_type"] == "mine"
    assert type(etude.load("born", project=tmp_path).opened.model).__name__ == "Mine"


def test_another_models_tokenizer_and_a_stage_on_top(tmp_path, library):
    base = small_project.make_base(tmp_path / "base")
    rows = small_project.answers(tmp_path / "answers.jsonl")
    file = tmp_path / "two.json"
    train = {"steps": 2, "tokens_per_step": 256, "dtype": "float32"}
    first = {"data": {"sources": f"{library}/*.py", "held_out": 6, "context": 64}, "train": train}
    stages = {"born": first, "tuned": small_project.stage(rows, parent="born")}
    stages["tuned"]["data"]["context"] = 64
    birth = {"architecture": "qwen3", "size": "60k", "tokenizer": str(base), "context": 64}
    file.write_text(json.dumps({"name": "two", "base": birth, "stages": stages, "evaluate": None}))
    done = etude.run(str(file), project=tmp_path).stages
    assert done["tuned"].record.kind == "adapter" and done["tuned"].record.parent.reference == "two-born@1"


def test_what_cannot_learn_from_nothing(tmp_path, library):
    rows = small_project.answers(tmp_path / "answers.jsonl")
    with pytest.raises(DataError, match=r"answers\.jsonl:1: a newborn's tokenizer is trained on raw text"):
        etude.run(recipe(tmp_path, library, data={"sources": str(rows)}), project=tmp_path)
    with pytest.raises(ModelError, match="there is no model"):
        etude.run(recipe(tmp_path, library, base=BIRTH | {"tokenizer": "nowhere"}), project=tmp_path)
    with pytest.raises(RecipeError, match="lora would leave most weights of a newborn model random: take `full`"):
        etude.read_recipe(recipe(tmp_path, library), ["stages.py.adapt=lora"])
    with pytest.raises(DataError, match="only `python:library` is known"):
        etude.run(recipe(tmp_path, library, data={"sources": "python:tests"}), project=tmp_path)


def newborn_of(folder, file, voice=None):
    """Its reference and its folder."""
    store = open_store(folder)
    reference = base_of(etude.read_recipe(file).recipe, store, voice or Voice())
    return reference, store.bases / reference.removeprefix("newborn:")


def test_a_borrowed_tokenizer_is_part_of_what_a_newborn_is(tmp_path, library):
    """Another one at the same place, or another template in it: another model is born."""
    tokenizer, file = chat_tokenizer(), recipe(tmp_path, library, base=BIRTH | {"tokenizer": str(tmp_path / "taken")})
    tokenizer.save_pretrained(tmp_path / "taken")
    first, _ = newborn_of(tmp_path, file)
    assert newborn_of(tmp_path, file)[0] == first
    tokenizer.chat_template = ENDS_LAST_TURN
    tokenizer.save_pretrained(tmp_path / "taken")
    second, _ = newborn_of(tmp_path, file)
    tokenizer.add_tokens(["<|more|>"])
    tokenizer.save_pretrained(tmp_path / "taken")
    third, folder = newborn_of(tmp_path, file)
    assert len({first, second, third}) == 3 and "<|more|>" in AutoTokenizer.from_pretrained(folder).get_vocab()


def test_rows_are_looked_at_before_any_weight_is_drawn(tmp_path, library):
    file = str(Path(recipe(tmp_path, library, steps=1)).rename(tmp_path / "born.yaml"))
    shown = etude.data_show(file, project=tmp_path)
    checked = etude.data_check(file, project=tmp_path)
    assert not list((tmp_path / ".etude/bases").iterdir()) and checked.base.startswith("newborn:born-newborn-")
    record = etude.run(file, project=tmp_path).stages["py"].record
    assert record.fingerprints.data == shown.prepared.fingerprint and record.parent.reference == checked.base
    assert etude.data_show(file, project=tmp_path).prepared.fingerprint == shown.prepared.fingerprint


def test_a_class_of_ones_own_that_has_changed_is_another(tmp_path, library, monkeypatch):
    code = tmp_path / "changing_module.py"
    code.write_text(OWN.replace('"mine"', '"changing"'))
    monkeypatch.chdir(tmp_path)
    file = recipe(tmp_path, library, base=BIRTH | {"architecture": "changing_module:Mine"}, steps=1)
    first = etude.run(file, project=tmp_path).stages["py"].record
    code.write_text(code.read_text() + "\n\nMORE = 1\n")
    with pytest.raises(ModelError, match="the file of changing_module has changed since this process imported it"):
        etude.load("born", project=tmp_path)
    monkeypatch.delitem(sys.modules, "changing_module")  # as another process begins
    monkeypatch.delitem(birth._read_as, "changing_module")
    with pytest.raises(ModelError, match="born of changing_module:Mine, whose code has changed since"):
        etude.load("born", project=tmp_path)
    second = etude.run(file, project=tmp_path).stages["py"].record
    assert second.parent.reference != first.parent.reference and etude.load("born", project=tmp_path)


def test_compute_alone_says_how_long_and_in_which_steps(tmp_path, library, voice):
    file = recipe(tmp_path, library, base={"compute": 4.5e11, "tokenizer": BIRTH["tokenizer"], "context": 64})
    written = json.loads(Path(file).read_text())
    del written["stages"]["py"]["train"]["steps"], written["stages"]["py"]["train"]["tokens_per_step"]
    Path(file).write_text(json.dumps(written))
    train = etude.read_recipe(file).recipe.stages["py"].train
    assert train.tokens == 20 * round(math.sqrt(4.5e11 / 120)) and train.tokens_per_step == 1024
    newborn_of(tmp_path, file, voice)
    said = "4.5e+11 operations: the stage `py` learns from 1,224,740 tokens, in 1,197 steps of 1,024 (`tokens_per_step`)"
    assert said in voice.lines
    longer = etude.read_recipe(file, ["base.compute=1e16"]).recipe.stages["py"].train
    assert 1000 < longer.tokens / longer.tokens_per_step < 2200
    assert etude.read_recipe(file, ["stages.py.train.tokens_per_step=300"]).recipe.stages["py"].train.tokens_per_step == 300


@pytest.mark.parametrize(
    ("keys", "ignored"),
    [({"examples_per_step": 4}, "examples_per_step"), ({"steps": None, "tokens": 4096, "epochs": 2}, "epochs")],
)
def test_what_would_be_ignored_is_refused(tmp_path, library, keys, ignored):
    with pytest.raises(RecipeError, match=f"`{ignored}` would be ignored: leave one out"):
        etude.read_recipe(recipe(tmp_path, library, **keys))
