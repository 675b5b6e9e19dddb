"""One stage of life: read the data, put the adaptation on, train, judge, publish. The same few lines for every kind of stage."""

import math
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from etude.adaptation.contract import Adaptation, Attached
from etude.compose.artefacts import Opened, open_model
from etude.compose.general import general_text_of
from etude.compose.judging import Measured, Trial, divergences, measure, trial_of
from etude.compose.verdict import Story, headline_metrics, judged, write
from etude.compose.voice import Voice
from etude.data.order import Order
from etude.data.prepare import Prepared, prepare
from etude.data.rows import Cut
from etude.engine.loop import Course, Hook, Moment, Outcome, fit
from etude.engine.reference import Reference, StoredReference, switched_off
from etude.engine.score import likelihoods
from etude.engine.trackers.contract import Tracking
from etude.errors import ModelError
from etude.evaluation.general_text import GeneralText
from etude.evaluation.judge import check_expected
from etude.evaluation.judgement import Cost, Judgement
from etude.lineage.durable import folder_size
from etude.lineage.fingerprint import stage_identity
from etude.lineage.record import Draft, Fingerprints, Record
from etude.lineage.store import Store, now
from etude.lineage.surroundings import machine_here, versions_here
from etude.model.blocks import compile_blocks
from etude.model.device import choose_dtype, describe, peak_memory
from etude.model.policy import Policy
from etude.model.probe import Layout, choose_layout
from etude.objective.contract import Objective
from etude.recipe.schema import Recipe, Stage


@dataclass(frozen=True, slots=True, eq=False)
class Setting:
    """What the stages of one run share."""

    recipe: Recipe
    mapping: dict[str, Any]
    """The recipe as a record keeps it."""
    store: Store
    device: torch.device
    voice: Voice


@dataclass(frozen=True, slots=True, eq=False)
class Finished:
    """A stage's artefact; the judgement is None where it was found finished or is not to be judged."""

    record: Record
    folder: Path
    judgement: Judgement | None
    reused: bool


def run_stage(setting: Setting, name: str, parent: str) -> Finished | None:
    """Run a stage, go on with it, or find it finished; None where it was asked to stop before its end."""
    stage, voice, store = setting.recipe.stages[name], setting.voice, setting.store
    adaptation: Adaptation = stage.adapt
    dtype, why = choose_dtype(stage.train.dtype, setting.device)
    voice.say(f"computes in {why}")
    held = torch.float32 if adaptation.holds_masters else dtype
    opened = open_model(parent, store, dtype=held, device=setting.device, voice=voice, merge=True)
    layout = choose_layout(opened.model)
    if layout.note:
        voice.say(layout.note)
    _check_context(stage, opened, layout)
    prepared = _prepare(stage, opened, voice)
    section = setting.mapping["stages"][name]
    section = section | {"train": section["train"] | {"dtype": str(dtype)}}
    identity = stage_identity(opened.parent.fingerprint, prepared.fingerprint, section)
    artefact = artefact_name(setting.recipe, name)
    with store.runs.open(artefact, identity, name, opened.parent) as run:
        if (found := store.find(identity)) is not None:
            voice.say(f"nothing has changed since {found.reference} was made; it is used as it is")
            return Finished(found, store.folder(found), None, reused=True)
        work = _Work(setting, stage, artefact, opened, layout, prepared, dtype, run.folder)
        outcome = work.train()
        if not outcome.finished:
            return None
        judgement = work.judge(outcome)
        record = work.publish(identity, outcome, judgement)
    store.runs.remove(run.folder)
    return Finished(record, store.folder(record), judgement, reused=False)


def artefact_name(recipe: Recipe, stage: str) -> str:
    """What a stage's result is called."""
    return recipe.name if len(recipe.stages) == 1 else f"{recipe.name}-{stage}"


def _prepare(stage: Stage, opened: Opened, voice: Voice) -> Prepared:
    objective: Objective = stage.objective
    prepared = prepare(stage.data, opened.tokenizer, roles=objective.roles, stop_ids=opened.stop_ids, seed=stage.train.seed)
    for line in prepared.counts.lines():
        voice.say(line)
    return prepared


def _check_context(stage: Stage, opened: Opened, layout: Layout) -> None:
    """Positions the model has never been told of, or whose rotation would depend on the neighbours, are refused before any work."""
    most = getattr(opened.model.config.get_text_config(), "max_position_embeddings", None)
    if most is not None and stage.data.context > most:
        raise ModelError(f"data.context is {stage.data.context}, but {opened.parent.reference} knows {most} positions", f"at most {most}")
    if layout.longest is not None and stage.data.context > layout.longest:
        raise ModelError(
            f"data.context is {stage.data.context}: beyond {layout.longest} tokens a path's rotation would depend on its neighbours",
            f"set data.context to at most {layout.longest}",
        )


class _Work:
    """A stage at work, between its inputs and its artefact."""

    def __init__(
        self,
        setting: Setting,
        stage: Stage,
        artefact: str,
        opened: Opened,
        layout: Layout,
        prepared: Prepared,
        dtype: torch.dtype,
        folder: Path,
    ):
        self.setting, self.stage, self.artefact, self.folder = setting, stage, artefact, folder
        self.opened, self.prepared = opened, prepared
        self.voice, self.settings = setting.voice, setting.recipe.evaluate
        self.started = now()
        self.cut = Cut(stage.train.tokens_per_row, stage.data.minimum_shared, layout.name)
        self.attached: Attached = stage.adapt.attach(opened.model, seed=stage.train.seed)
        self.policy = Policy(opened.model, layout=layout.name, compute=dtype)
        self.text: GeneralText | None = None
        self.trial: Trial | None = None
        self.parent: Measured | None = None
        for note in self.attached.notes:
            self.voice.say(note)
        if self.settings is not None:
            self.text = general_text_of(self.settings)
            self.trial = trial_of(prepared.held_out, prepared.questions, self.text, opened.tokenizer, self.settings, stage.data.context)
            asked = self.trial.questions
            check_expected(self.settings.metrics or (), [f"{q.source}:{q.row}" for q in asked], [q.expected for q in asked])

    def train(self) -> Outcome:
        """From the newest checkpoint, or from birth, to the end or an interruption."""
        train, model = self.stage.train, self.opened.model
        share = self.attached.trainable_count / sum(p.numel() for p in model.parameters())
        self.voice.say(f"{self.attached.trainable_count:,} parameters may change ({share:.2%})")
        if not self.attached.can_switch_off:
            self.parent = self._measure("the parent", will_change=True)  # before anything moves: afterwards it is gone
        reference = self._reference()
        if train.activation_checkpointing:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        if train.compile:
            self.voice.say(compile_blocks(model))
        sources = [examples for _, examples in self.prepared.train]
        weights = [source.weight or float(len(examples)) for source, examples in self.prepared.train]
        count = sum(len(examples) for examples in sources)
        examples = train.steps * train.examples_per_step if train.steps else max(1, round(train.epochs * count))
        steps = math.ceil(examples / train.examples_per_step)
        with self._hooks(steps) as hooks:
            return fit(
                Course(
                    policy=self.policy,
                    attached=self.attached,
                    objective=self.stage.objective,
                    sources=sources,
                    order=Order(tuple(map(len, sources)), tuple(weights), train.seed),
                    train=train,
                    steps=steps,
                    examples=examples,
                    learning_rate=train.learning_rate or self.stage.adapt.default_learning_rate,
                    cut=self.cut,
                    folder=self.folder,
                    reference=reference,
                    hooks=hooks,
                    say=self.voice.say,
                )
            )

    def _reference(self) -> Reference | None:
        """The parent's scores, by switching adapters off, or stored beside the run before the first step."""
        if not self.stage.objective.needs_reference:
            return None
        if self.attached.can_switch_off:
            return switched_off(self.policy, self.attached)
        examples = [example for _, source in self.prepared.train for example in source]
        file = self.folder / "reference.safetensors"
        if not file.exists():
            total = sum(len(sample) for example in examples for sample in example.samples)
            with self.voice.bar("scores of the parent", total, "tokens") as advance:
                tensors = StoredReference.compute(self.policy, examples, self.cut, lambda tokens: advance(tokens, ""))
            aside = file.with_suffix(".aside")
            save_file(tensors, aside)
            aside.rename(file)
        return StoredReference(examples, load_file(file))

    @contextmanager
    def _hooks(self, steps: int) -> Iterator[list[Hook]]:
        train = self.stage.train
        held_out = self.prepared.held_out[: self.settings.rows if self.settings else 200]
        hooks: list[Hook] = []
        if held_out and not self.stage.objective.roles:
            hooks.append((lambda _moment: {"held_out_loss": likelihoods(self.policy, held_out, self.cut).mean}, train.evaluate_every or 0))
        tracking = Tracking(list(train.trackers), self.voice.say)
        tracking.start(self.artefact, self.setting.mapping)
        hooks.append((lambda moment: tracking.log(moment.step, moment.metrics), 1))
        with self.voice.bar(f"training {self.artefact}", steps, "steps") as advance:
            done, began = 0, time.perf_counter()

            def show(moment: Moment) -> None:
                nonlocal done
                speed = moment.totals.logical_tokens / max(1e-9, moment.totals.seconds)
                loss = moment.metrics.get("loss")
                note = f"loss {loss:.4f} · {speed:,.0f} tokens/s" if loss is not None else ""
                advance(moment.step - done, note)
                done = moment.step

            yield [*hooks, (show, 1)]
        tracking.finish()
        self.voice.say(f"trained for {time.perf_counter() - began:.0f} seconds in this sitting")

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
        tuned = self._measure("the tuned model")
        assert parent is not None and tuned is not None
        apart = divergences(self.trial, parent, tuned, self.cut)
        story = self._story(outcome, time.perf_counter() - began)
        return judged(story, self.trial, parent, tuned, apart, self.text, self.opened.tokenizer, self.settings)

    def _story(self, outcome: Outcome, judging: float) -> Story:
        totals, model = outcome.totals, self.opened.model
        cost = Cost(
            seconds=totals.seconds,
            logical_tokens=totals.logical_tokens,
            computed_tokens=totals.computed_tokens,
            supervised_tokens=totals.supervised_tokens,
            peak_memory_bytes=peak_memory(self.setting.device),
            trainable_parameters=self.attached.trainable_count,
            parameters=sum(p.numel() for p in model.parameters()),
            judging_seconds=judging,
        )
        slower = [f"attention took the slower way in {n:,} forwards: {why}" for why, n in self.policy.counts.slower.items()]
        refused = [f"{totals.refused_steps} steps were not taken: their gradient was not finite"] if totals.refused_steps else []
        smaller = [f"rows were cut smaller {totals.smaller_rows} times: out of memory"] if totals.smaller_rows else []
        environment = versions_here() | {"device": describe(self.setting.device).name, "threads": str(torch.get_num_threads())}
        environment |= {"compute type": str(self.policy.compute).removeprefix("torch."), "seed": str(self.stage.train.seed)}
        return Story(
            parent=self.opened.parent.reference,
            tuned=self.artefact,
            made=now().isoformat(timespec="seconds"),
            cost=cost,
            counts=self.prepared.counts,
            journal=self.folder / "metrics.jsonl",
            recipe=self.setting.mapping,
            environment=environment,
            chat=f"etude chat {self.artefact}",
            files=f"etude show {self.artefact}",
            warnings=(*self.attached.notes, *slower, *refused, *smaller),
        )

    def publish(self, identity: str, outcome: Outcome, judgement: Judgement | None) -> Record:
        """Weights, tokenizer, journal, judgement and report become visible at once, with their record."""

        def fill(folder: Path) -> None:
            self.attached.save(folder)
            self.opened.tokenizer.save_pretrained(folder)
            shutil.copyfile(self.folder / "metrics.jsonl", folder / "metrics.jsonl")
            if judgement is not None:
                cost = judgement.about.cost.model_copy(update={"artefact_bytes": folder_size(folder)})
                write(judgement.model_copy(update={"about": judgement.about.model_copy(update={"cost": cost})}), folder)

        metrics: dict[str, float | int | str | None] = {"loss": outcome.metrics.get("loss"), "steps": outcome.steps}
        counts = self.prepared.counts
        draft = Draft(
            name=self.artefact,
            kind="adapter" if self.attached.can_switch_off else "model",
            identity=identity,
            parent=self.opened.parent,
            stage=self.artefact,
            recipe=self.setting.mapping,
            fingerprints=Fingerprints(data=self.prepared.fingerprint, base=self.opened.base, stage=identity),
            versions=versions_here(),
            seed=self.stage.train.seed,
            machine=machine_here(describe(self.setting.device).name, torch.get_num_threads()),
            metrics=metrics | (headline_metrics(judgement) if judgement is not None else {}),
            counts={name: counts.total(name) for name in ("read", "training", "held_out", "logical_tokens", "supervised_tokens")},
            started=self.started,
            finished=now(),
        )
        return self.setting.store.publish(draft, fill)
