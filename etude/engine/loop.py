"""The loop: draw, step, tell, keep. Every stage of life runs through here."""

import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict

import numpy as np
import torch

from etude.core import ranks
from etude.core.sample import Example
from etude.data.rows import Cut
from etude.engine.average import Average
from etude.engine.checkpoint import Checkpoints, Loaded
from etude.engine.course import Course, Moment, Outcome, Totals
from etude.engine.decay import Anchors
from etude.engine.interrupt import Interrupt
from etude.engine.journal import Journal
from etude.engine.optimizer import make_optimizer, optimizer_tensors, restore_optimizer, set_rate
from etude.engine.stability import Guard
from etude.engine.step import StepResult, take_step
from etude.engine.stopping import Stopping
from etude.errors import TrainingError
from etude.recipe.schema import Train

_REFUSED_IN_A_ROW = 5
"""Steps without a finite gradient after which a run stops instead of hoping."""


def fit(course: Course) -> Outcome:
    """Run a course from its newest whole checkpoint, or from the start, to its end or to an interruption.

    Raises:
        TrainingError: the gradient was not finite several steps in a row, or the device is too small for a single example.
    """
    return _Run(course).go()


class _Run:
    def __init__(self, course: Course):
        self.course = course
        self.anchors = Anchors(course.attached, course.train)  # of the newborn: before anything is restored
        self.optimizer = make_optimizer(course.attached, course.train, course.learning_rate, self.anchors)
        if course.train.decay_to == "parent":
            course.say(self.anchors.sentence())
        self.stopping = Stopping(course.train, course.attached.trainable)
        self.average = Average(course.train, course.attached.trainable)
        self.parameters = list(course.attached.trainable.values())
        self.checkpoints = Checkpoints(course.folder / "checkpoints", course.train.keep_checkpoints)
        self.drawn = course.order.start()
        self.step = 0
        self.totals = Totals()
        self.cut = course.cut
        self.going_back = False
        self.guard = Guard(course.train.stability)

    def go(self) -> Outcome:
        course = self.course
        self._resume()
        course.policy.model.train()
        metrics: dict[str, float] = {}
        with Interrupt(course.say) as interrupt, self._journal() as journal:
            if self.step == 0:
                self._tell(journal, {}, edge=True)
                if self.guard.settings is not None:  # what it may have to go back to
                    self._save()
            while not self._over:
                metrics = self._advance()
                if self.going_back:
                    self._go_back(journal)
                    continue
                self._tell(journal, metrics, edge=self.step == course.steps)
                stop = interrupt.requested()
                # Weights after which nothing was like before may not be what the run goes back to.
                due = self.step % course.train.checkpoint_every == 0 and not (self.guard.settings and self.guard.in_a_row)
                if stop or self._over or due:
                    if journal is not None:
                        journal.sync()  # a checkpoint counts on the lines before it
                    self._save()
                if stop:
                    break
        # Asked again now that a signal ends the process as usual: it may have come while the last step was being saved.
        if stopped := interrupt.requested():
            course.say(f"stopped after step {self.step} of {course.steps}; the same command goes on from there")
        course.policy.model.eval()
        if self._over:
            self.average.finish(course.say)
        kept = self.stopping.finish(self.step, course.steps, course.say) if self._over else None
        distance, events = self.anchors.distance(), tuple(self.guard.events)
        return Outcome(self.step, sum(self.drawn), self._over, stopped, self.totals, metrics, distance, kept, events)

    @property
    def _over(self) -> bool:
        return self.step == self.course.steps or self.stopping.ended

    def _journal(self) -> AbstractContextManager[Journal | None]:
        """Only the first process writes what happened; a cut line is said."""
        if ranks.rank() > 0:
            return nullcontext()
        journal = Journal(self.course.folder / "metrics.jsonl", resume=self.step)
        for note in journal.notes:
            self.course.say(note)
        return journal

    def _advance(self) -> dict[str, float]:
        """One step, repeated with smaller rows where the device runs out of memory."""
        course, started = self.course, time.perf_counter()
        places, drawn = self._draw()
        examples = [course.sources[source][index] for source, index in places]
        told: dict[str, float] = {}
        if course.rollouts is not None:
            examples, told = course.rollouts(self.step + 1, examples)
        rate = course.learning_rate * course.train.schedule.factor(self.step, course.steps)
        set_rate(self.optimizer, rate)
        turns = course.objective.sampling.updates if course.objective.sampling is not None else 1
        results = [self._take(examples, turn) for turn in range(turns)]
        self.drawn, self.step = drawn, self.step + 1
        self.average.take(self.step)
        seconds = time.perf_counter() - started
        totals = self.totals
        counts: dict[str, float] = {}
        for name in ("logical_tokens", "computed_tokens", "supervised_tokens", "predictions", "pairs"):
            counts[name] = sum(getattr(result, name) for result in results)
            setattr(totals, name, getattr(totals, name) + counts[name])
        del counts["predictions"], counts["pairs"]  # of no interest step by step
        totals.seconds += seconds
        counts |= {"seconds": seconds, "learning_rate": rate}
        means = {name: sum(result.metrics[name] for result in results) / turns for name in results[0].metrics}
        return means | told | {name: float(value) for name, value in counts.items()}

    def _draw(self) -> tuple[list[tuple[int, int]], tuple[int, ...]]:
        """Which examples the next step learns from, and what is drawn then."""
        course = self.course
        passed = self.guard.passed
        length = lambda source, index: sum(map(len, course.sources[source][index].samples))
        while True:
            if course.train.tokens_per_step is None:
                left = course.examples + sum(passed.values()) - sum(self.drawn)
                found = course.order.draw(self.drawn, min(course.train.examples_per_step, left))
            else:
                found = course.order.draw_tokens(self.drawn, course.train.tokens_per_step, length)
            if self.drawn not in passed:
                return found
            self.drawn = found[1]

    def _take(self, examples: list[Example], turn: int = 0) -> StepResult:
        """One move of the optimizer; `turn` counts those on the same examples."""
        course = self.course
        # Dropout draws by seed, step and process alone, so neither a resume nor what hooks draw can change it.
        drawn = [course.train.seed % 2**64, self.step, ranks.rank(), *([turn] if turn else [])]
        seed = int(np.random.SeedSequence(drawn).generate_state(1)[0])
        while True:
            torch.manual_seed(seed)
            try:
                result = take_step(
                    course.policy,
                    course.objective,
                    examples,
                    self.cut,
                    self.optimizer,
                    self.parameters,
                    reference=course.reference,
                    teacher=course.teacher,
                    accept=self.guard.accepts,
                    clip=course.train.clip,
                )
                if not result.taken:
                    self._refused(len(examples))
                return result
            except torch.OutOfMemoryError as problem:
                longest = max(len(sample) for example in examples for sample in example.samples)
                smaller = max(self.cut.tokens_per_row // 2, longest)
                if ranks.world() > 1 or smaller >= self.cut.tokens_per_row:
                    remedy = f"set train.tokens_per_row below {self.cut.tokens_per_row} or data.context below {longest}"
                    raise TrainingError(f"step {self.step + 1}: the device is out of memory", remedy) from problem
                # Gradients are sums, so the same step in smaller rows is the same step.
                self.cut = Cut(smaller, self.cut.minimum_shared, self.cut.layout)
                self.totals.smaller_rows += 1
                self.optimizer.zero_grad(set_to_none=True)
                torch.cuda.empty_cache()
                course.say(f"step {self.step + 1}: out of memory; repeating it in rows of {smaller} tokens, and staying there")

    def _refused(self, examples: int) -> None:
        """Count a step that was not taken, and say why."""
        guard, step = self.guard, self.step + 1
        self.totals.refused_steps += 1
        self.going_back = guard.refuse(step, self.drawn, examples, last=step == self.course.steps)
        self.course.say(guard.events[-1])
        if guard.settings is None and len(guard.in_a_row) >= _REFUSED_IN_A_ROW:
            raise TrainingError(
                f"{len(guard.in_a_row)} steps in a row had no finite gradient, the last at step {step}",
                "lower train.learning_rate, or look at the rows of these steps with `etude data show`; checkpoints are untouched",
            )

    def _go_back(self, journal: Journal | None) -> None:
        """To the newest checkpoint, to go on from there without what was drawn for the steps that were not taken."""
        self.going_back = False
        found = self.checkpoints.newest()
        assert found is not None, "a guarded run saves before its first step"
        self.guard.pass_over(self.step, found.step)
        self.course.say(self.guard.events[-1])
        self._restore(found)
        if journal is not None:
            journal.rewind(self.step)

    def _tell(self, journal: Journal | None, metrics: dict[str, float], *, edge: bool) -> None:
        """Call the hooks that are due, then write the step down."""
        found = dict(metrics)
        with self.average.shown(self.step, edge=edge):
            for hook, every in self.course.hooks:
                if edge or (every and self.step % every == 0):
                    found |= hook(Moment(self.step, self.course.steps, found, self.totals)) or {}
                    self.course.policy.model.train()
            self.stopping.look(self.step, found, edge=edge)
        if journal is not None:
            journal.log(self.step, found)

    def _save(self) -> None:
        """A checkpoint; TrainingError where weights are not finite, so that the last good one stays the newest."""
        trainable = self.course.attached.trainable
        if spoilt := [name for name, p in trainable.items() if not bool(torch.isfinite(p).all())]:
            what = f"step {self.step}: {len(spoilt)} tensors of weights are no longer finite, {spoilt[0]} first; they are not saved"
            raise TrainingError(what, "lower train.learning_rate; the checkpoints before are untouched")
        tensors = {f"weight/{name}": p.detach() for name, p in trainable.items()}
        tensors |= {f"origin/{name}": tensor for name, tensor in self.course.attached.origins.items()}
        tensors |= {f"optimizer/{path}": tensor for path, tensor in optimizer_tensors(self.optimizer, trainable).items()}
        tensors |= {f"best/{name}": tensor for name, tensor in self.stopping.weights.items()}
        tensors |= {f"average/{name}": tensor for name, tensor in self.average.weights.items()}
        state = {"step": self.step, "drawn": list(self.drawn), "totals": asdict(self.totals), "tokens_per_row": self.cut.tokens_per_row}
        state |= {"stopping": self.stopping.state} if self.stopping.state else {}
        state |= {"guard": self.guard.state} if self.guard.settings is not None else {}
        self.checkpoints.save(self.step, tensors, state | {"machine": _machine(self.course.train)})

    def _resume(self) -> None:
        found = self.checkpoints.newest()
        if found is None:
            return
        for note in found.notes:
            self.course.say(note)
        self._restore(found)
        self.totals = Totals(**found.state["totals"])
        self.guard.go_on(found.state.get("guard", {}))
        self.course.say(f"going on from step {self.step} of {self.course.steps}")
        before, now = found.state["machine"], _machine(self.course.train)
        if (
            before.get("tokens_per_row", now["tokens_per_row"]) == now["tokens_per_row"]
        ):  # not asked for anew: as small as they had to become
            self.cut = Cut(min(self.cut.tokens_per_row, found.state["tokens_per_row"]), self.cut.minimum_shared, self.cut.layout)
        for name, then in before.items():
            if now[name] != then:
                why = "the run stays right, but not equal to the bit"
                self.course.say(f"the checkpoint was written with {name}: {then}, here {name}: {now[name]}; {why}")

    def _restore(self, found: Loaded) -> None:
        """Weights, optimizer, place in the order, and what looks have found."""
        trainable = self.course.attached.trainable
        groups: dict[str, dict[str, torch.Tensor]] = {"weight": {}, "origin": {}, "optimizer": {}, "best": {}, "average": {}}
        for path, tensor in found.tensors.items():
            group, name = path.split("/", 1)
            groups[group][name] = tensor
        with torch.no_grad():
            for name, tensor in groups["weight"].items():
                trainable[name].copy_(tensor)
            for name, tensor in groups["origin"].items():
                self.course.attached.origins[name].copy_(tensor)
        restore_optimizer(self.optimizer, trainable, groups["optimizer"])
        self.step, self.drawn = found.state["step"], tuple(found.state["drawn"])
        self.stopping.go_on(found.state.get("stopping", {}), groups["best"])
        self.average.go_on(groups["average"])


def _machine(train: Train) -> dict[str, object]:
    """What the last bits of a sum depend on, and nothing else does."""
    here = {"threads": torch.get_num_threads(), "processes": ranks.world(), "torch": torch.__version__}
    return here | {name: getattr(train, name) for name in ("tokens_per_row", "activation_checkpointing", "compile")}
