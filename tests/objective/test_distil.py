"""Distillation against torch's own KL on each sample alone, the teacher in memory, switched off, or stored; chunks change nothing."""

from dataclasses import replace

import alone
import pytest
import tiny
import torch
import torch.nn.functional as F
from torch import Tensor

from etude.adaptation.lora import Lora
from etude.data.rows import Cut
from etude.engine.loop import fit
from etude.engine.reference import StoredReference
from etude.engine.teacher import StoredTeacher, in_memory, switched_off_teacher
from etude.model import taught
from etude.model.policy import Policy
from etude.objective.distil import Distil

CUTS = {"one row": Cut(999, 1), "small": Cut(30, 1), "nothing shared": Cut(999, 99), "padded": Cut(999, 16, "padded")}


def by_hand(examples, truth, teacher, aim: Distil, joined: int | None = None) -> Tensor:
    """Plain transformers, each sample alone, torch's kl_div; `joined` outcomes where all but so many are one."""
    total, weight = torch.zeros(()), 0.0
    for one in examples:
        for sample in one.samples:
            tokens, w = torch.from_numpy(sample.tokens).long(), torch.from_numpy(sample.weight)[1:]
            logits = truth(input_ids=tokens[None]).logits[0, :-1]
            with torch.no_grad():
                p = F.softmax(teacher(input_ids=tokens[None]).logits[0, :-1] / aim.temperature, -1)
            q = F.softmax(logits / aim.temperature, -1)
            if joined is not None:
                ids = p.topk(joined).indices
                p, q = (torch.cat((x.gather(-1, ids), 1 - x.gather(-1, ids).sum(-1, keepdim=True)), -1) for x in (p, q))
            m = aim.mix * p + (1 - aim.mix) * q
            kl = lambda a, b: F.kl_div(b.log(), a, reduction="none").sum(-1)  # KL(a ‖ b)
            apart = {"forward": kl(p, q), "reverse": kl(q, p), "jsd": aim.mix * kl(p, m) + (1 - aim.mix) * kl(q, m)}[aim.divergence]
            said = F.cross_entropy(logits, tokens[1:], reduction="none")
            total = total + (w * (aim.share * aim.temperature**2 * apart + (1 - aim.share) * said)).sum()
            weight += float(w.sum())
    return total / weight


AIMS = [
    Distil(),
    Distil(temperature=2.0, share=1.0),
    Distil(divergence="reverse", share=0.7),
    Distil(divergence="jsd", mix=0.3, temperature=0.5),
]


@pytest.fixture
def teacher():
    return tiny.llama(7)


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("aim", AIMS, ids=lambda a: f"{a.divergence}-{a.temperature}")
def test_it_is_torchs_own_on_each_sample_alone(llama, teacher, aim, cut):
    examples, layout = tiny.some_examples(aim, 6), CUTS[cut].layout
    truth = tiny.copy_of(llama, "eager")
    expected = by_hand(examples, truth, tiny.copy_of(teacher, "eager"), aim)
    model = tiny.copy_of(llama)
    asked = in_memory(Policy(teacher, layout=layout))
    result, found = tiny.gradients_of_step(
        Policy(model, layout=layout), dict(model.named_parameters()), aim, examples, CUTS[cut], teacher=asked
    )
    assert result.metrics["loss"] == pytest.approx(expected.item(), abs=1e-5)
    assert tiny.furthest(found, alone.gradients(expected, truth)) < 1e-4


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("aim", [a.model_copy(update={"top_k": 5}) for a in AIMS], ids=lambda a: f"{a.divergence}-{a.temperature}")
def test_stored_it_is_torchs_own_with_the_others_as_one(llama, teacher, aim, cut):
    examples, truth = tiny.some_examples(aim, 6), tiny.copy_of(llama, "eager")
    expected = by_hand(examples, truth, tiny.copy_of(teacher, "eager"), aim, joined=5)
    stored = StoredTeacher.compute(Policy(teacher), examples, Cut(50, 4), aim.teaching)
    assert stored["ids"].shape == (sum(int((s.weight > 0).sum()) for e in examples for s in e.samples), 5)
    model, layout = tiny.copy_of(llama), CUTS[cut].layout
    asked = StoredTeacher(examples, stored)
    result, found = tiny.gradients_of_step(
        Policy(model, layout=layout), dict(model.named_parameters()), aim, examples, CUTS[cut], teacher=asked
    )
    assert result.metrics["loss"] == pytest.approx(expected.item(), abs=1e-5)
    assert tiny.furthest(found, alone.gradients(expected, truth)) < 2e-4
    whole = by_hand(examples, truth, tiny.copy_of(teacher, "eager"), aim)
    assert expected <= whole + 1e-6, "joined outcomes tell less"


@pytest.mark.parametrize("top_k", [60, 61, 1000])
def test_all_tokens_stored_is_the_whole(llama, teacher, top_k):
    aim = Distil(top_k=top_k)
    examples, truth = tiny.some_examples(aim, 4), tiny.copy_of(llama, "eager")
    stored = StoredTeacher.compute(Policy(teacher), examples, Cut(999), aim.teaching)
    assert stored["ids"].shape[1] == 60
    asked, model = StoredTeacher(examples, stored), tiny.copy_of(llama)
    result, _ = tiny.gradients_of_step(Policy(model), dict(model.named_parameters()), aim, examples, Cut(999), teacher=asked)
    assert result.metrics["loss"] == pytest.approx(by_hand(examples, truth, tiny.copy_of(teacher, "eager"), aim).item(), abs=1e-5)


def test_chunks_change_nothing(llama, teacher, monkeypatch):
    aim = Distil(divergence="jsd")
    examples, found = tiny.some_examples(aim, 8), []
    for size in (256, 7):
        monkeypatch.setattr(taught, "CHUNK", size)
        model = tiny.copy_of(llama)
        asked = in_memory(Policy(teacher))
        found.append(tiny.gradients_of_step(Policy(model), dict(model.named_parameters()), aim, examples, Cut(999, 4), teacher=asked))
    assert found[0][0].metrics["loss"] == pytest.approx(found[1][0].metrics["loss"], abs=1e-6)
    assert tiny.furthest(found[0][1], found[1][1]) < 1e-5


def test_from_its_own_parent_it_begins_at_no_divergence_and_holds_on(llama, tmp_path):
    """Adapters off is the teacher: exactly nothing apart at birth, and less apart at the end than without it."""
    apart = {}
    for share in (1e-6, 0.9):
        aim = Distil(share=share)
        made = tiny.course(tmp_path / str(share), Lora(rank=4), aim, examples=tiny.some_examples(aim, 8), steps=20, learning_rate=2e-2)
        asked = switched_off_teacher(made.course.policy, made.attached)
        fit(replace(made.course, teacher=asked))
        assert abs(made.metrics[0]["divergence"]) < 1e-6
        apart[share] = made.metrics[-1]["divergence"]
    assert 0 < apart[0.9] < 0.5 * apart[1e-6]


@pytest.mark.parametrize("damage", ["cut", "other rows", "other k"])
def test_a_torn_file_is_said_and_not_believed(llama, tmp_path, damage):
    aim = Distil(top_k=4)
    examples, file, said = tiny.some_examples(aim, 4), tmp_path / "teacher.safetensors", []
    StoredReference.write(file, StoredTeacher.compute(Policy(llama), examples, Cut(999), aim.teaching))
    assert StoredTeacher.whole(file, examples, aim.teaching, said.append) and not said
    if damage == "cut":
        file.write_bytes(file.read_bytes()[:-9])
    elif damage == "other rows":
        examples = examples[1:]
    else:
        aim = Distil(top_k=3)
    assert not StoredTeacher.whole(file, examples, aim.teaching, said.append)
    assert len(said) == 1 and said[0].endswith("the teacher is asked again")
