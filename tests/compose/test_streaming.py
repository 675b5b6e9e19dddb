"""A run whose base is streamed is the run whose base is resident: the same artefact to the bit, judged, and the cost of passes said."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import tiny
import torch
from safetensors.torch import load_file
from small_project import make_base, recipe, stage

import etude
from etude import catalog
from etude.adaptation.bitfit import BitFit
from etude.compose.streaming import check_streamed
from etude.compose.voice import Advance, Voice
from etude.errors import ModelError, TrainingError
from etude.lineage.clean import freeable
from etude.lineage.store import open_store
from etude.model.shards import HostShelf
from etude.model.shelving import shelve


def run(here, base, stages, voice=None, evaluate="short"):
    """In a project of its own, so that nothing is found finished."""
    (here / ".etude").mkdir(exist_ok=True)
    return etude.run(str(recipe(here / "streamed.yaml", base, stages, evaluate)), project=here, voice=voice)


def weights(finished) -> dict[str, torch.Tensor]:
    return load_file(finished.folder / "adapter_model.safetensors")


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("adapt", ["lora", {"kind": "qlora", "rank": 4}], ids=["lora", "qlora"])
@pytest.mark.parametrize("where", ["disk", "host"])
def test_the_artefact_is_the_same_to_the_bit(where, adapt, project, base, voice, tmp_path_factory):
    found = []
    for placement in ({}, {"stream": where}):
        one = stage(project / "answers.jsonl", adapt=adapt, tokens_per_row=64, steps=3, placement=placement)
        found.append(run(tmp_path_factory.mktemp("project"), base, {"only": one}, voice).stages["only"])
    resident, streamed = found
    assert same(weights(streamed), weights(resident))
    assert not streamed.reused and streamed.record.identity == resident.record.identity, "where a model lies is not what it learns"
    for axis, other in zip(streamed.judgement.axes, resident.judgement.axes, strict=True):
        assert (axis.tuned, axis.parent) == (other.tuned, other.parent)
    said = " ".join(voice.lines)
    assert f"streamed from {where}: 2 blocks" in said
    assert "a pass over the weights brings" in said and "MB/s" in said and "each row of up to 64 tokens takes two" in said
    assert "passes over the weights brought" in said and "passes over the weights brought" in streamed.report.read_text()
    assert ("saves nothing here" in said) == (where == "host")


def test_a_parent_of_adapters_is_melted_first(project, base, tmp_path_factory):
    found = []
    for placement in ({}, {"stream": "disk"}):
        here = tmp_path_factory.mktemp("project")
        stages = {"sft": stage(project / "answers.jsonl", steps=2)}
        stages["dpo"] = stage(project / "pairs.jsonl", parent="sft", objective="dpo", steps=2, placement=placement)
        found.append(run(here, base, stages, evaluate=None).stages["dpo"])
    assert same(weights(found[0]), weights(found[1]))


def test_another_compute_type_is_written_once_and_cleaned_away(project, base, voice, tmp_path):
    """float32 files that compute in bfloat16; the shelf is the run's as long as anything stands on that base."""
    for steps in (1, 2):
        one = stage(project / "answers.jsonl", dtype="bfloat16", steps=steps, placement={"stream": "disk"})
        run(project, base, {"only": one}, voice, evaluate=None)
    (shelf,) = (project / ".etude/bases").iterdir()
    assert shelf.name.startswith("little-streamed-") and shelf.name.endswith("-bfloat16")
    assert not any(shelf.name in str(one.path) for one in freeable(open_store(project)))
    for reference in ("streamed@2", "streamed@1"):
        open_store(project).remove(reference)
    assert any(shelf.name in str(one.path) for one in freeable(open_store(project)))


class Stops(Voice):
    """Asks the run to end after two steps."""

    @contextmanager
    def bar(self, label: str, total: float, unit: str) -> Iterator[Advance]:
        done = 0.0

        def advance(amount: float, _note: str) -> None:
            nonlocal done
            done += amount
            if label.startswith("training") and done == 2:
                signal.raise_signal(signal.SIGTERM)

        yield advance


def test_stopped_while_streamed_it_goes_on_resident(project, base, tmp_path_factory):
    """The same run, whichever way either half of it had its weights."""
    one = stage(project / "answers.jsonl", placement={"stream": "disk"}, dtype="bfloat16")
    run(project, base, {"only": one}, Stops(), evaluate=None)
    assert [path.name for path in project.glob(".etude/runs/*/checkpoints/step-*")] == ["step-00000002"]
    one["train"]["placement"] = {}
    resumed = run(project, base, {"only": one}, evaluate=None).stages["only"]
    whole = run(tmp_path_factory.mktemp("whole"), base, {"only": one}, evaluate=None).stages["only"]
    assert same(weights(resumed), weights(whole))


@pytest.mark.parametrize("adapt", ["full", "last_layers", {"kind": "parameters", "patterns": ["*norm*"]}], ids=str)
def test_what_trains_the_base_is_refused(adapt, project, base):
    one = stage(project / "answers.jsonl", adapt=adapt, placement={"stream": "disk"})
    with pytest.raises(TrainingError, match=r"train.placement.stream is for a base that stays") as caught:
        run(project, base, {"only": one})
    assert "lora" in caught.value.remedy


def test_what_is_born_of_all_weights_needs_them_there(project, base, tmp_path_factory):
    one = stage(project / "answers.jsonl", adapt={"kind": "pissa", "rank": 4}, steps=2, placement={"stream": "host"})
    with pytest.raises(TrainingError, match="pissa"):
        run(project, base, {"only": one})
    found = []
    for placement in ({"stream": "disk"}, {}):  # mapped, they are there
        one["train"]["placement"] = placement
        found.append(run(tmp_path_factory.mktemp("project"), base, {"only": one}, evaluate=None).stages["only"])
    assert same(*map(weights, found))


NEEDS_ALL = {"full", "last_layers", "parameters", "pissa", "dora", "bitfit"}
"""These train the weights of the base, or are born of them: of weights that are copied block by block they cannot be."""


@pytest.fixture(scope="module")
def biased(tmp_path_factory):
    """A base with biases, which are among what comes and goes."""
    return make_base(tmp_path_factory.mktemp("bases") / "biased", attention_bias=True, mlp_bias=True)


@pytest.mark.parametrize("kind", sorted(catalog.ADAPTATIONS))
def test_every_adaptation_is_the_resident_one_or_refused_by_name(kind, project, biased, tmp_path_factory):
    one = stage(project / "answers.jsonl", adapt={"kind": kind}, steps=2, placement={"stream": "host"})
    if kind in NEEDS_ALL:
        with pytest.raises(TrainingError, match=kind):
            run(project, biased, {"only": one}, evaluate=None)
        return
    found = []
    for placement in ({"stream": "host"}, {}):
        one["train"]["placement"] = placement
        folder = run(tmp_path_factory.mktemp("project"), biased, {"only": one}, evaluate=None).stages["only"].folder
        found.append({name: tensor for file in sorted(folder.glob("*.safetensors")) for name, tensor in load_file(file).items()})
    assert found[0] and not any(bool(tensor.isnan().any()) for tensor in found[0].values()) and same(*found)


def test_what_was_made_of_weights_that_were_not_there_is_seen():
    """Whatever an adaptation says of itself: a copy of a blank is no number."""
    model = tiny.llama(attention_bias=True).requires_grad_(False)
    shelve(model, lambda _what, _needed: HostShelf(pinned=False), dtype=torch.float32, device=torch.device("cpu"))
    with pytest.raises(ModelError, match=r"self_attn\.\w_proj\.\w+ was made of a weight of the base"):
        check_streamed(model, BitFit().attach(model, seed=0))


GRPO = {"kind": "grpo", "beta": 0.1, "rewards": [{"kind": "metric", "metric": "valid-json"}]}


@pytest.mark.parametrize(("aim", "remedy"), [(GRPO, "objective.beta to 0"), ("distil", "`objective.top_k`")], ids=["grpo", "distil"])
def test_a_parent_that_is_rounded_away_is_not_copied_beside_it(aim, remedy, project, base, voice):
    one = stage(project / "answers.jsonl", adapt="qlora", objective=aim, placement={"stream": "disk"})
    with pytest.raises(TrainingError, match="asks the parent at every step, which `adapt: qlora` changes; a streamed one") as caught:
        run(project, base, {"only": one}, voice)
    assert remedy in caught.value.remedy and not voice.bars
    if aim == "distil":
        one["objective"] = {"kind": "distil", "top_k": 4}
        assert run(project, base, {"only": one}, voice, evaluate=None).finished, "asked once, while it is itself"


@pytest.mark.parametrize("adapt", ["lora", {"kind": "qlora", "rank": 4}], ids=["lora", "qlora"])
def test_what_was_trained_streamed_is_compared_streamed(adapt, project, base, voice, tmp_path_factory):
    """By `compare`, and where it is judged again: base and child, on a parent that is an adapter; with the figures of resident ones."""
    found = []
    for placement in ({}, {"stream": "disk"}):
        here = tmp_path_factory.mktemp("project")
        stages = {"first": stage(project / "answers.jsonl", steps=2)}
        stages["second"] = stage(project / "answers.jsonl", parent="first", adapt=adapt, tokens_per_row=64, placement=placement)
        run(here, base, stages, evaluate=None)
        heard = len(voice.lines)
        again = run(here, base, stages, voice).stages["second"]
        streams = sum(line.startswith("streamed from disk") for line in voice.lines[heard:])
        assert again.reused and streams == (2 if placement else 0), "both sides, and where nothing is streamed neither"
        compared = etude.compare(str(base), "streamed-second", voice=voice, project=here).judgement
        found.append([again.judgement.axes, compared.axes])
    for resident, streamed in zip(*found, strict=True):
        assert [(axis.name, axis.parent, axis.tuned) for axis in resident] == [(axis.name, axis.parent, axis.tuned) for axis in streamed]


def test_compiled_blocks_do_not_come_and_go(project, base):
    one = stage(project / "answers.jsonl", compile=True, placement={"stream": "disk"})
    with pytest.raises(TrainingError, match="exclude each other"):
        run(project, base, {"only": one})
