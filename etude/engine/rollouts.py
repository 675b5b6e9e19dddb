"""Answers that the policy writes to learn from: sampled, rewarded, and written down before they are learnt from.

A step that is taken again, after a kill or a resume, reads what was written and samples nothing.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch

from etude.core import ranks
from etude.core.sample import Example, Sample
from etude.data.rows import Cut
from etude.engine.reference import StoredReference
from etude.errors import TrainingError
from etude.lineage.durable import write_file
from etude.model.generate import generate
from etude.model.policy import Policy
from etude.objective.contract import Objective, Sampling, Written

Scorer = Callable[[Sequence[Sequence[int]]], list[float]]
"""Tokens of prompts with their answers, ends included → what each answer is worth."""


class Rollouts:
    """Turns the examples of a step into groups of answers.

    Args:
        folder: where each step's answers are written.
        decode: tokens → text, special tokens left out where `True` is handed over.
        scorers: the artefacts that rewards read with, by name.
        parent: within it the policy is its parent, where the objective wants answers scored by that too.
    """

    def __init__(
        self,
        policy: Policy,
        objective: Objective,
        cut: Cut,
        folder: Path,
        *,
        decode: Callable[[Sequence[int], bool], str],
        stop_ids: frozenset[int],
        seed: int,
        say: Callable[[str], None],
        scorers: Mapping[str, Scorer] = MappingProxyType({}),
        parent: Callable[[], AbstractContextManager] | None = None,
    ):
        sampling = rewarded(objective)
        assert sampling is not None, "made only for objectives that sample"
        self.policy, self.objective, self.sampling, self.cut, self.folder = policy, objective, sampling, cut, folder
        self.decode, self.stop_ids, self.seed, self.say = decode, stop_ids, seed, say
        self.scorers, self.parent = scorers, parent

    def __call__(self, step: int, examples: Sequence[Example]) -> tuple[list[Example], dict[str, float]]:
        """The step's samples, one example a prompt, and what is to be told of them."""
        file = self.folder / f"step-{step:08d}.json"
        if ranks.rank() > 0:
            if ranks.anywhere(False):
                raise TrainingError(f"step {step}: the first process could not write its answers", "see its message")
        else:
            self._keep(file, step, examples)
        groups = json.loads(file.read_text(encoding="utf-8"))["groups"]
        if len(groups) != len(examples):
            raise TrainingError(f"{file} holds {len(groups)} groups for {len(examples)} prompts", f"remove {file.parent} and run it again")
        known = iter(self.objective.by_token([_written(answer) for group in groups for answer in group["answers"]]))
        learnt = [self._example(group, one, known) for group, one in zip(groups, examples, strict=True)]
        rewards = np.asarray([[answer["reward"] for answer in group["answers"]] for group in groups])
        lengths = [len(answer["tokens"]) for group in groups for answer in group["answers"]]
        stopped = [answer["stopped"] for group in groups for answer in group["answers"]]
        told = {"reward": rewards.mean(), "answer_tokens": np.mean(lengths)}
        if self.sampling.group > 1:
            told["groups_alike"] = (rewards.std(1) == 0).mean()
        if self.sampling.beside_parent:  # in nats an answer, by the answers themselves
            told["divergence"] = np.mean([sum(one["old"]) - sum(one["parent"]) for group in groups for one in group["answers"]])
        return learnt, {name: float(value) for name, value in told.items()} | {"stopped": float(np.mean(stopped))}

    def _keep(self, file: Path, step: int, examples: Sequence[Example]) -> None:
        """Write the step's answers down, unless they are there; the other processes wait for the outcome."""
        try:
            if not file.exists():
                self.folder.mkdir(parents=True, exist_ok=True)
                write_file(file, json.dumps({"step": step, "groups": self._write(step, examples)}) + "\n")
        except torch.OutOfMemoryError as problem:
            ranks.anywhere(True)
            remedy = "set a smaller objective.group, objective.max_new_tokens or train.tokens_per_row"
            raise TrainingError(f"step {step}: the device is out of memory while writing answers", remedy) from problem
        except Exception:  # not KeyboardInterrupt: who stops at once waits for nobody
            ranks.anywhere(True)
            raise
        ranks.anywhere(False)

    def _write(self, step: int, examples: Sequence[Example]) -> list[dict[str, Any]]:
        """Sample, reward and score under the policy as it is now."""
        how: Sampling = self.sampling
        asked_of = [asked_and_answered(one) for one in examples]
        prompts = [prompt for prompt, _ in asked_of]
        answers = generate(
            self.policy.model,
            [prompt for prompt in prompts for _ in range(how.group)],
            stop_ids=self.stop_ids,
            max_new_tokens=how.max_new_tokens,
            temperature=how.temperature,
            top_p=how.top_p,
            seed=int(np.random.SeedSequence([self.seed % 2**64, step]).generate_state(1)[0]),
            say=self.say,
        )
        groups = []
        for i, ((prompt, own), one) in enumerate(zip(asked_of, examples, strict=True)):
            asked, expected = self.decode(prompt, False), self.decode(own, True)
            written = []
            for answer in answers[i * how.group : (i + 1) * how.group]:
                text = self.decode(answer.tokens, True)
                worth = [reward.score(asked, expected, text) if reward.reads_with is None else 0.0 for reward in how.rewards]
                tokens = [*answer.tokens, *([answer.stop] if answer.stop is not None else [])]
                written.append({"tokens": tokens, "text": text, "stopped": answer.stopped, "rewards": worth})
            groups.append({"source": one.source, "row": one.row, "prompt": prompt, "answers": written})
        self._reward(groups)
        self._score(groups, examples)
        return groups

    def _reward(self, groups: list[dict[str, Any]]) -> None:
        """Ask the artefacts for all answers together, then weigh and add up."""
        written = [(group["prompt"], answer) for group in groups for answer in group["answers"]]
        for number, reward in enumerate(self.sampling.rewards):
            if reward.reads_with is not None:
                values = self.scorers[reward.reads_with]([[*prompt, *answer["tokens"]] for prompt, answer in written])
                for (_, answer), value in zip(written, values, strict=True):
                    answer["rewards"][number] = value
        for _, answer in written:
            answer["rewards"] = [one.weight * value for one, value in zip(self.sampling.rewards, answer["rewards"], strict=True)]
            answer["reward"] = sum(answer["rewards"])

    def _score(self, groups: list[dict[str, Any]], examples: Sequence[Example]) -> None:
        """Add each token's log-probability when it was written, by the forward that learns from it."""
        unscored = [self._example(group, one) for group, one in zip(groups, examples, strict=True)]
        training = self.policy.model.training
        self.policy.model.eval()  # as it wrote them: without dropout
        try:
            found = StoredReference.compute(self.policy, unscored, self.cut, with_values=self.objective.outputs is not None)
            if self.sampling.beside_parent:
                assert self.parent is not None, "refused before anything is trained"
                with self.parent():
                    found["parent"] = StoredReference.compute(self.policy, unscored, self.cut)["log_probability"]
        finally:
            self.policy.model.train(training)
        starts = found.pop("starts").tolist()
        written = [(group, answer) for group in groups for answer in group["answers"]]
        for name, values in ((name, tensor.tolist()) for name, tensor in found.items()):
            for number, (group, answer) in enumerate(written):
                answer[_NAMES[name]] = values[starts[number] + len(group["prompt"]) : starts[number + 1]]

    def _example(self, group: dict[str, Any], one: Example, known: Iterator[dict[str, np.ndarray]] | None = None) -> Example:
        prompt, answers = group["prompt"], group["answers"]
        advantages = self.objective.advantages(np.asarray([answer["reward"] for answer in answers], dtype=np.float64))
        samples = []
        for answer, advantage in zip(answers, advantages.tolist(), strict=True):
            tokens = np.asarray([*prompt, *answer["tokens"]], np.int32)
            weight = (np.arange(len(tokens)) >= len(prompt)).astype(np.float32)
            old = np.zeros(len(tokens), np.float32)
            old[len(prompt) :] = answer.get("old", 0.0)
            told = next(known) if known is not None else {}
            before = np.zeros(len(prompt), np.float32)
            by_token = {name: np.concatenate([before, values.astype(np.float32)]) for name, values in told.items()}
            samples.append(Sample(tokens, weight, value=advantage, old=old, known=by_token))
        return Example(tuple(samples), one.source, one.row)


_NAMES = {"log_probability": "old", "value": "values", "parent": "parent"}
"""What was computed of an answer's tokens → what it is called where it is written down."""


def _written(answer: dict[str, Any]) -> Written:
    old, parent = np.asarray(answer["old"], np.float64), answer.get("parent")
    value = np.asarray(answer.get("values", np.zeros(len(old))), np.float64)
    return Written(answer["reward"], old, value, None if parent is None else np.asarray(parent, np.float64))


def rewarded(objective: Objective) -> Sampling | None:
    """How an objective samples, if it does.

    Raises:
        TrainingError: it says of no answer what it is worth.
    """
    sampling = objective.sampling
    if sampling is not None and not sampling.rewards:
        raise TrainingError(f"objective {objective.kind} names no rewards", "such as `rewards: [{kind: metric, metric: valid-json}]`")
    return sampling


def asked_and_answered(one: Example) -> tuple[list[int], list[int]]:
    """What a row asks, and its own answer: the last run of supervised tokens, and all before it.

    Raises:
        TrainingError: a row of raw text, or of which everything is supervised, asks nothing.
    """
    sample = one.samples[-1]
    start = sample.answer_at
    if start < 2:
        what = f"{one.source}:{one.row}: everything in this row is an answer, so nothing can be asked"
        raise TrainingError(what, "give rows of prompt and completion, or messages with `data.train_on: answers`")
    return sample.tokens[:start].tolist(), sample.tokens[start:].tolist()
