"""A stage at work: put the adaptation on, train, judge, publish. The same few lines for every kind of stage."""

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import torch

from etude.adaptation.contract import Attached
from etude.adaptation.sequence_classifier import add_outputs, pad_apart, save_with_outputs, set_padding
from etude.compose import overlap
from etude.compose.artefacts import asking
from etude.compose.begun import Begun, Setting, learning_rate, length
from etude.compose.beside import Beside
from etude.compose.forgetting import against_forgetting
from etude.compose.general import lost_before
from etude.compose.judging import Measured, divergences, glance, measure
from etude.compose.processes import leads
from etude.compose.replay import answered
from etude.compose.samples import SAMPLES, continued, read_samples
from etude.compose.streaming import check_streamed, open_parent, passes_told, what_passes_cost
from etude.compose.trial import held_out_of
from etude.compose.verdict import Story, curve, headline_metrics, judged, write
from etude.core import ranks
from etude.data.order import Order
from etude.data.rows import Cut
from etude.engine.course import Course, Hook, Moment, Outcome, Totals
from etude.engine.loop import fit
from etude.engine.trackers.contract import Tracking
from etude.evaluation.judgement import Cost, Judgement
from etude.lineage.durable import folder_size
from etude.lineage.record import Draft, Fingerprints
from etude.lineage.store import now
from etude.lineage.surroundings import machine_here, versions_here
from etude.model.arithmetic import arithmetic, peak
from etude.model.blocks import compile_blocks
from etude.model.device import describe, peak_memory
from etude.model.policy import Policy
from etude.model.probe import choose_layout
from etude.model.quiet import quiet
from etude.model.streamed import stream_of

_EVENTS = 10
"""Steps that were not taken, and times the run went back, that the report tells one by one."""


class Work:
    """A stage at work, between its inputs and its artefact."""

    def __init__(self, setting: Setting, name: str, begun: Begun, folder: Path, started: datetime):
        """`folder` is the run's own; `started` is when it began first."""
        stage, voice = setting.recipe.stages[name], setting.voice
        self.setting, self.name, self.stage, self.begun, self.folder = setting, name, stage, begun, folder
        self.voice, self.settings, self.prepared, self.trial = voice, setting.recipe.evaluate, begun.prepared, begun.trial
        self.started = started
        self.seen = [] if begun.trial is None else overlap.overlaps(begun.trial, begun.prepared, begun.known.parent, setting.store)
        for line in self.seen:
            voice.say(line)
        self.opened = open_parent(begun.known, stage, setting, begun.dtype)
        for one in self.opened.melted:
            voice.say(f"{self.opened.parent.reference}: an adapter is {one.sentence}")
        self.stream = stream_of(self.opened.model)
        layout = choose_layout(self.opened.model)
        if layout.note:
            voice.say(layout.note)
        self.cut = Cut(stage.train.tokens_per_row, stage.data.minimum_shared, layout.name)
        self.policy = Policy(self.opened.model, layout=layout.name, compute=begun.dtype)
        self.prepared = answered(begun.prepared, stage, self.opened, stage.data.context, folder, voice)
        self.begun = begun = replace(begun, prepared=self.prepared)
        self.parent: Measured | None = None
        self.peak = 0.0
        """Measured operations a second; 0 where it was not."""
        self.judging = 0.0
        """Seconds that measuring has taken so far."""
        if not stage.adapt.keeps_parent:
            began = time.perf_counter()
            self.parent = self._measure("the parent", will_change=True) if leads() else None
            self.judging = time.perf_counter() - began
        self.beside = Beside(self.policy, self.cut, begun, stage, setting, folder)
        self.parameters = sum(p.numel() for p in self.opened.model.parameters())
        self.attached: Attached = stage.adapt.attach(self.opened.model, seed=stage.train.seed)
        self.outputs = begun.objective.outputs
        if self.outputs is not None:
            add_outputs(self.attached, self.outputs)
        self.policy.check()
        if self.outputs is not None and not begun.objective.writes:
            self.attached.notes += [note] if (note := pad_apart(self.opened.tokenizer, self.opened.stop_ids)) else []
            set_padding(self.opened.model.config, self.opened.tokenizer)
        check_streamed(self.opened.model, self.attached)
        self.arithmetic = arithmetic(self.opened.model)
        for note in self.attached.notes:
            voice.say(note)

    def train(self) -> Outcome:
        """From the newest checkpoint, or from birth, to the end or an interruption."""
        train, model = self.stage.train, self.opened.model
        share = self.attached.trainable_count / self.parameters
        self.voice.say(f"{self.attached.trainable_count:,} parameters may change ({share:.2%})")
        if train.activation_checkpointing:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        if train.compile:
            self.voice.say(compile_blocks(model))
        if train.tokens_per_step is not None:  # a long run that wants to know how well it uses what it has
            self.peak = peak(model, self.cut.tokens_per_row, self.policy.compute)
            self.voice.say(f"matrix products of the model's own shapes reach {self.peak / 1e9:,.0f} GFLOP/s here")
        sources = [examples for _, examples in self.prepared.train]
        weights = [source.weight or float(len(examples)) for source, examples in self.prepared.train]
        examples, steps = length(self.stage, self.prepared)
        self.order = Order(tuple(map(len, sources)), tuple(weights), train.seed)
        with self._hooks(steps) as hooks, passes_told(self.stream, train, self.voice):
            return fit(
                Course(
                    policy=self.policy,
                    attached=self.attached,
                    objective=self.begun.objective,
                    sources=sources,
                    order=self.order,
                    train=train,
                    steps=steps,
                    examples=examples,
                    learning_rate=learning_rate(self.setting.recipe, self.stage),
                    cut=self.cut,
                    folder=self.folder,
                    reference=self.beside.reference(self.attached),
                    teacher=self.beside.teacher(self.attached),
                    rollouts=self.beside.rollouts(self.attached, self.opened),
                    hooks=hooks,
                    say=self.voice.say,
                )
            )

    @contextmanager
    def _hooks(self, steps: int) -> Iterator[list[Hook]]:
        """What happens beside the steps; only the first process looks and tells."""
        if not leads():
            yield []
            return
        train = self.stage.train
        held_out = self.begun.looked_at or held_out_of(self.prepared, self.settings.rows if self.settings else 200)
        hooks: list[Hook] = []
        if held_out:
            size = None if self.trial is None or self.trial.held_out_bytes is None else int(self.trial.held_out_bytes.sum())
            size = None if self.begun.looked_at else size  # these are other rows
            look = lambda _moment: glance(self.policy, held_out, self.cut, self.begun.objective, size)
            hooks.append((look, train.evaluate_every or 0))
        if train.samples:
            hooks.append((self._written, train.evaluate_every or 0))
        tracking = Tracking(list(train.trackers), self.voice.say)
        # A name of its own for each identity: a changed stage is another run there too, and a resumed one is the same.
        tracking.start(f"{self.begun.artefact}-{self.begun.identity[:8]}", self.setting.mapping)
        hooks.append((lambda moment: tracking.log(moment.step, moment.metrics), 1))
        with self.voice.bar(f"training {self.begun.artefact}", steps, "steps") as advance:
            done, began = 0, time.perf_counter()

            def show(moment: Moment) -> None:
                nonlocal done
                speed = moment.totals.logical_tokens / max(1e-9, moment.totals.seconds)
                loss = moment.metrics.get("loss")
                reward = f"reward {moment.metrics['reward']:.3f} · " if "reward" in moment.metrics else ""
                used = f" · {self._of_peak(moment.totals)}" if self.peak else ""
                note = f"{reward}loss {loss:.4f} · {speed:,.0f} tokens/s{used}" if loss is not None else ""
                advance(moment.step - done, note)
                done = moment.step

            yield [*hooks, (show, 1)]
        tracking.finish()
        self.voice.say(f"trained for {time.perf_counter() - began:.0f} seconds in this sitting")

    def _of_peak(self, totals: Totals) -> str:
        """What training reaches of what matrix products reach alone."""
        done = self.arithmetic.of(totals.computed_tokens, totals.predictions, totals.pairs) / max(1e-9, totals.seconds) / ranks.world()
        return f"{done / 1e9:,.0f} GFLOP/s, {done / self.peak:.0%} of the peak"

    def _written(self, moment: Moment) -> None:
        """What the model makes of the recipe's beginnings by now: said, and kept beside the run."""
        self.policy.model.eval()
        opened, say = self.opened, self.voice.say
        for line in continued(self.policy.model, opened.tokenizer, self.stage.train, opened.stop_ids, moment.step, self.folder, say):
            say(line)

    def _measure(self, who: str, **how: Any) -> Measured | None:
        if self.trial is None or self.settings is None:
            return None
        stop_ids = self.opened.stop_ids
        return measure(self.policy, self.trial, cut=self.cut, stop_ids=stop_ids, settings=self.settings, voice=self.voice, who=who, **how)

    def judge(self, outcome: Outcome) -> Judgement | None:
        """Both models on the same rows."""
        if self.trial is None or self.settings is None:
            return None
        began = time.perf_counter()
        parent = self.parent or self._measure("the parent", within=self.attached.off)
        tuned = self._measure("the tuned model", by_head=not self.begun.objective.writes)
        assert parent is not None and tuned is not None
        apart = divergences(self.trial, parent, tuned, self.cut)
        story = self._story(outcome, self.judging + time.perf_counter() - began)
        return judged(story, self.trial, parent, tuned, apart, self.begun.text, self.opened.tokenizer, self.settings)

    def _story(self, outcome: Outcome, judging: float) -> Story:
        totals = outcome.totals
        cost = Cost(
            seconds=totals.seconds,
            logical_tokens=totals.logical_tokens,
            computed_tokens=totals.computed_tokens,
            supervised_tokens=totals.supervised_tokens,
            peak_memory_bytes=peak_memory(self.setting.device),
            trainable_parameters=self.attached.trainable_count,
            parameters=self.parameters,
            judging_seconds=judging,
        )
        slower = [f"attention took the slower way in {n:,} forwards: {why}" for why, n in self.policy.counts.slower.items()]
        refused = [*outcome.events[:_EVENTS]]
        refused += [f"and {more} more events of that kind"] if (more := len(outcome.events) - _EVENTS) > 0 else []
        smaller = [f"rows were cut smaller {totals.smaller_rows} times: out of memory"] if totals.smaller_rows else []
        environment = versions_here() | {"device": describe(self.setting.device).name, "threads": str(torch.get_num_threads())}
        environment |= {"compute type": str(self.policy.compute).removeprefix("torch."), "seed": str(self.stage.train.seed)}
        environment |= {"arithmetic": f"{self._of_peak(totals)} measured with matrix products of the model's shapes"} if self.peak else {}
        environment |= self.beside.told()
        environment |= {"parent": "; ".join(one.sentence for one in self.opened.melted)} if self.opened.melted else {}
        environment |= {"weights": what_passes_cost(self.stream)} if self.stream is not None else {}
        return Story(
            parent=self.opened.parent.reference,
            tuned=self.begun.artefact,
            made=now().isoformat(timespec="seconds"),
            cost=cost,
            counts=self.prepared.counts,
            journal=self.folder / "metrics.jsonl",
            samples=read_samples(self.folder, self.voice.say),
            unit=self.begun.objective.unit,
            recipe=self.setting.mapping,
            environment=environment,
            chat=asking(self.begun.artefact, None if self.outputs is None else (self.begun.objective.kind, self.outputs)),
            files=f"etude show {self.begun.artefact}",
            warnings=(*self.attached.notes, *slower, *refused, *smaller),
            grave=tuple(self.seen),
            against_forgetting=tuple(against_forgetting(self.stage, self.prepared, self.order, outcome)),
            before=lost_before(self.opened.parent, self.setting.store),
        )

    def publish(self, outcome: Outcome, judgement: Judgement | None) -> Judgement | None:
        """Weights, tokenizer, journal, judgement and report become visible at once, with their record; the judgement as it is kept."""
        kept = judgement

        def fill(folder: Path) -> None:
            nonlocal kept
            notes: list[str] = []
            with quiet(notes):
                if self.outputs is not None:
                    save_with_outputs(self.attached, folder, self.begun.objective.kind, self.outputs)
                else:
                    self.attached.save(folder)
                self.opened.tokenizer.save_pretrained(folder)
            for note in notes:
                self.voice.say(note)
            for name in ("metrics.jsonl", SAMPLES):
                if (self.folder / name).exists():
                    shutil.copyfile(self.folder / name, folder / name)
            overlap.keep(self.prepared, folder)
            if judgement is not None:
                cost = judgement.about.cost.model_copy(update={"artefact_bytes": folder_size(folder)})
                kept = judgement.model_copy(update={"about": judgement.about.model_copy(update={"cost": cost})})
                write(kept, folder)

        losses = curve(self.folder / "metrics.jsonl").train  # an interruption after the last step leaves the outcome without metrics
        best = outcome.kept
        losses = [point for point in losses if best is None or point.step <= best.best_step]
        metrics: dict[str, float | int | str | None] = {"loss": losses[-1].loss if losses else None, "steps": outcome.steps}
        if best is not None:
            metrics |= {"best_step": best.best_step, "steps_not_taken": best.steps_not_taken, f"best {best.figure}": best.best}
        if self.opened.melted:
            metrics["melted_parent_difference"] = max(one.difference for one in self.opened.melted)
        counts = self.prepared.counts
        draft = Draft(
            name=self.begun.artefact,
            kind="adapter" if self.attached.is_adapter else "model",
            identity=self.begun.identity,
            parent=self.opened.parent,
            stage=self.name,
            recipe=self.setting.mapping,
            fingerprints=Fingerprints(data=self.prepared.fingerprint, base=self.begun.known.base, stage=self.begun.identity),
            versions=versions_here(),
            seed=self.stage.train.seed,
            machine=machine_here(describe(self.setting.device).name, torch.get_num_threads(), ranks.world()),
            metrics=metrics | (headline_metrics(judgement) if judgement is not None else {}),
            counts={name: counts.total(name) for name in ("read", "training", "held_out", "logical_tokens", "supervised_tokens")},
            started=self.started,
            finished=now(),
        )
        self.setting.store.publish(draft, fill, room=self._size())
        return kept

    def _size(self) -> int:
        """Bytes of the tensors that will be saved; what lies beside them is small."""
        saved = self.attached.trainable.values() if self.attached.is_adapter else self.opened.model.parameters()
        return sum(tensor.nbytes for tensor in saved)
