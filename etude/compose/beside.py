"""What does the policy learn beside? Its parent, a teacher, a reward model: each as cheaply as can be, a second model declared."""

from pathlib import Path

from safetensors.torch import load_file

from etude.adaptation.contract import Attached
from etude.compose.artefacts import Opened
from etude.compose.begun import Begun, Setting, length
from etude.compose.processes import leads
from etude.compose.reward_models import scorers
from etude.compose.teaching import lessons
from etude.core import ranks
from etude.data.rows import Cut
from etude.engine.reference import Reference, StoredReference, beside, second_copy, switched_off
from etude.engine.rollouts import Rollouts
from etude.engine.teacher import Teacher
from etude.evaluation.figures import memory
from etude.model.policy import Policy
from etude.recipe.schema import Stage


class Beside:
    """Made while the policy is still its parent; asked once the adaptation is on.

    Args:
        folder: the run's own, in which scores that are computed once are kept.
    """

    def __init__(self, policy: Policy, cut: Cut, begun: Begun, stage: Stage, setting: Setting, folder: Path):
        self.policy, self.cut, self.begun, self.stage, self.setting, self.folder = policy, cut, begun, stage, setting, folder
        self.stored: StoredReference | None = None
        self.second: Policy | None = None  # in memory
        self.declared = ""
        if stage.objective.needs_reference:
            if stage.objective.sampling is None and (not stage.adapt.keeps_parent or self._seen_again()):
                self.stored = self._stored_reference()
            elif not stage.adapt.keeps_parent:
                self.second = second_copy(policy)
                why = f"{stage.objective.kind} scores new answers by it, and {stage.adapt.kind} changes it"
                self._declare("a frozen copy of the parent", why)
        where = dict(store=setting.store, device=setting.device, voice=setting.voice)
        self.lessons = lessons(stage, begun.teacher, begun.prepared.examples, policy, cut, folder, **where)
        if self.lessons.second is not None:
            self.second = self.lessons.second
            self._declare(self.lessons.who, "distil asks it at every step; `objective.top_k` would ask it once")

    def reference(self, attached: Attached) -> Reference | None:
        """The parent's scores: of a second model, stored, or by switching adapters off."""
        if not self.begun.objective.needs_reference:
            return None
        if self.second is not None:
            return beside(self.second)
        return self.stored or switched_off(self.policy, attached)

    def teacher(self, attached: Attached) -> Teacher | None:
        """Whose distributions are learnt from."""
        return self.lessons.teacher(self.policy, attached)

    def rollouts(self, attached: Attached, opened: Opened) -> Rollouts | None:
        """What writes and rewards answers, where the objective learns from such."""
        if self.begun.objective.sampling is None:
            return None
        setting, tokenizer = self.setting, opened.tokenizer
        how = dict(dtype=self.begun.dtype, device=setting.device, row=self.cut.tokens_per_row, voice=setting.voice)
        return Rollouts(
            self.policy,
            self.begun.objective,
            self.cut,
            self.folder / "rollouts",
            decode=lambda tokens, plain: str(tokenizer.decode(list(tokens), skip_special_tokens=plain)),
            stop_ids=opened.stop_ids,
            seed=self.stage.train.seed,
            say=setting.voice.say,
            scorers=scorers(self.begun.rewarding, setting.store, **how) if leads() else {},
            parent=attached.off if attached.can_switch_off else None,
        )

    def told(self) -> dict[str, str]:
        """What the report says of it, by name."""
        both = {"teacher": self.lessons.who, "second model in memory": self.declared}
        return {name: said for name, said in both.items() if said}

    def _seen_again(self) -> bool:
        """Whether rows come so often that scoring each once is cheaper than switching adapters off in every step."""
        return length(self.stage, self.begun.prepared)[0] >= 1.5 * len(self.begun.prepared.examples)

    def _declare(self, what: str, why: str) -> None:
        assert self.second is not None, "a second model is never held silently"
        self.declared = f"{what}, {memory(sum(p.nbytes for p in self.second.model.parameters()))}"
        self.setting.voice.say(f"a second model is held in memory: {self.declared} ({why})")

    def _stored_reference(self) -> StoredReference:
        """Scores of the parent as it is now, kept beside the run."""
        examples, file, voice = self.begun.prepared.examples, self.folder / "reference.safetensors", self.setting.voice
        if leads() and not StoredReference.whole(file, examples, voice.say):
            total = sum(len(sample) for example in examples for sample in example.samples)
            with voice.bar("scores of the parent", total, "tokens") as advance:
                tensors = StoredReference.compute(self.policy, examples, self.cut, lambda tokens: advance(tokens, ""))
            StoredReference.write(file, tensors)
        ranks.barrier()
        return StoredReference(examples, load_file(file))
