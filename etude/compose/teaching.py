"""Whom does a stage learn from? Looked up before anything is trained, then held in memory, switched on, or asked once and stored."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file

from etude.adaptation.contract import Attached
from etude.compose.artefacts import Known, look_up, open_model
from etude.compose.prerequisites import StandIns
from etude.compose.processes import leads
from etude.compose.refusals import check_writes
from etude.compose.voice import Voice
from etude.core import ranks
from etude.core.sample import Example
from etude.data.rows import Cut
from etude.engine.reference import StoredReference, second_copy
from etude.engine.teacher import StoredTeacher, Teacher, in_memory, switched_off_teacher
from etude.errors import ModelError
from etude.lineage.store import Store
from etude.model.policy import Policy
from etude.model.probe import choose_layout
from etude.recipe.schema import Stage


def look_up_teacher(
    stage: Stage, base: Callable[[], str], known: Known, store: Store, voice: Voice, stand_ins: StandIns
) -> Known | None:
    """Another model that the stage learns from; None where there is none, or where it is the parent.

    Args:
        base: gives the recipe's.
        stand_ins: what a name stands for that the recipe itself makes.

    Raises:
        ModelError: it does not read the same tokens, or writes none.
    """
    teaching = stage.objective.teaching
    if teaching is None or teaching.teacher == "parent":
        return None
    stand_in = stand_ins.get(teaching.teacher)
    name = base() if teaching.teacher == "base" else teaching.teacher if stand_in is None else stand_in.reference
    teacher = look_up(name, store, voice)
    if stand_in is None or stand_in.made:
        check_writes(teacher, "there are no words to be learnt from it", "take a teacher that writes, such as its parent")
    ours, theirs = known.outline, teacher.outline
    sizes = [one.config.get_text_config().vocab_size for one in (ours, theirs)]
    if ours.tokenizer.get_vocab() != theirs.tokenizer.get_vocab() or sizes[0] != sizes[1]:
        what = f"{known.parent.reference} and its teacher {teacher.parent.reference} do not have the same vocabulary"
        raise ModelError(f"{what} ({sizes[0]:,} and {sizes[1]:,} tokens)", "take a teacher of the same family, whose tokens mean the same")
    return teacher


@dataclass(slots=True, eq=False)
class Lessons:
    """A teacher, ready to be asked."""

    who: str = ""
    """Empty where there is none."""
    second: Policy | None = None
    """Where it is a second model in memory."""
    stored: StoredTeacher | None = None

    def teacher(self, policy: Policy, attached: Attached) -> Teacher | None:
        """As the engine asks it."""
        if self.second is not None:
            return in_memory(self.second)
        return self.stored or (switched_off_teacher(policy, attached) if self.who else None)


def lessons(
    stage: Stage,
    other: Known | None,
    examples: list[Example],
    parent: Policy,
    cut: Cut,
    folder: Path,
    *,
    store: Store,
    device: torch.device,
    voice: Voice,
) -> Lessons:
    """Make the teacher ready, while the policy is still the parent.

    Args:
        other: the teacher, where it is another model than the parent.
        folder: the run's own, in which the answers of a teacher that is asked once are kept.

    Raises:
        ModelError: it cannot read the policy's rows.
    """
    teaching = stage.objective.teaching
    if teaching is None:
        return Lessons()
    who = other.parent.reference if other is not None else "the parent"
    file = folder / "teacher.safetensors"
    if teaching.top_k is not None and not (leads() and not StoredTeacher.whole(file, examples, teaching, voice.say)):
        ranks.barrier()
        return Lessons(who, stored=StoredTeacher(examples, load_file(file)))

    def opened() -> Policy:
        assert other is not None, "the parent is open already"
        model = open_model(other, store, dtype=parent.compute, device=device, voice=voice).model
        return Policy(model, layout=choose_layout(model).name, compute=parent.compute)

    if teaching.top_k is not None:
        teacher = opened() if other is not None else parent
        total = sum(len(sample) for example in examples for sample in example.samples)
        with voice.bar(f"what {who} teaches", total, "tokens") as advance:
            how = Cut(cut.tokens_per_row, cut.minimum_shared, teacher.layout)
            StoredReference.write(file, StoredTeacher.compute(teacher, examples, how, teaching, lambda tokens: advance(tokens, "")))
        ranks.barrier()
        return Lessons(who, stored=StoredTeacher(examples, load_file(file)))
    if other is None:
        return Lessons(who, None if stage.adapt.keeps_parent else second_copy(parent))
    teacher = opened()
    if teacher.layout == "padded" and cut.layout != "padded":
        what = f"the teacher {who} cannot read rows that share beginnings"
        raise ModelError(what, "set `objective.top_k`: it is asked once, in rows of its own")
    return Lessons(who, teacher)
