"""Tiny real models, the samples that exercise them, and courses that train them."""

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedModel

from etude import catalog
from etude.adaptation.contract import Adaptation, Attached
from etude.adaptation.sequence_classifier import add_outputs
from etude.core.sample import Example, Sample
from etude.data.order import Order
from etude.data.rows import Cut
from etude.engine.course import Course
from etude.engine.reference import Reference, StoredReference, beside, second_copy, switched_off
from etude.engine.rollouts import Rollouts
from etude.engine.step import StepResult, take_step
from etude.engine.teacher import Teacher, in_memory
from etude.model.policy import Policy
from etude.objective.contract import Objective
from etude.recipe.schema import Train

VOCABULARY = 61


def llama(seed: int = 0, *, attention: str = "etude", **changes: object) -> PreTrainedModel:
    """Weights large enough that attention and logits are far from uniform."""
    shape = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, head_dim=8)
    ends = dict(bos_token_id=1, eos_token_id=2, pad_token_id=0)
    config = LlamaConfig(**{"vocab_size": VOCABULARY, "initializer_range": 0.2, "tie_word_embeddings": True, **shape, **ends, **changes})
    torch.manual_seed(seed)
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation=attention).eval()


def copy_of(model: PreTrainedModel, attention: str = "etude") -> PreTrainedModel:
    """The same weights under that attention; "eager" makes it plain transformers."""
    other = AutoModelForCausalLM.from_config(copy.deepcopy(model.config), dtype=model.dtype, attn_implementation=attention)
    other.load_state_dict(model.state_dict())
    return other.eval()


def sample(tokens: Iterable[int], weight: Iterable[float] | float = 1.0, role: str = "") -> Sample:
    """The first token's weight is always 0, whatever is given."""
    path = np.asarray(list(tokens), dtype=np.int32)
    given = [weight] * len(path) if isinstance(weight, (int, float)) else list(weight)
    weights = np.asarray(given, dtype=np.float32)
    weights[0] = 0
    return Sample(path, weights, role)


def examples_of(samples: Sequence[Sample]) -> list[Example]:
    """One example for each sample."""
    return [Example((one,), "made", row) for row, one in enumerate(samples, 1)]


def some_examples(objective: Objective, count: int, *, seed: int = 0, shared: int = 20, vocabulary: int = VOCABULARY) -> list[Example]:
    """Random rows as an objective wants them: a beginning that all share, a body, an answer; pairs begin their answers alike, rated
    answers are liked and disliked in turn, labels are three."""
    return task(objective, count, seed=seed, shared=shared, vocabulary=vocabulary)[1]


LABELS = [[5, 6, 2], [5, 7, 8, 2], [9, 2]]
"""Answers that are labels; two of them begin alike."""


def task(
    objective: Objective, count: int, *, seed: int = 0, shared: int = 20, vocabulary: int = VOCABULARY
) -> tuple[Objective, list[Example]]:
    """The same, and the objective as it is for these rows."""
    draw = np.random.default_rng(seed)
    beginning = draw.integers(3, vocabulary, shared)
    examples = []
    for row in range(1, count + 1):
        body = np.concatenate([beginning, draw.integers(3, vocabulary, 2 + row % 5)])
        answer = draw.integers(3, vocabulary, 2)
        roles = objective.roles or ("",)
        if roles == ("desirable", "undesirable"):
            roles = (roles[row % 2],)
        paths = [np.concatenate([body, answer, draw.integers(3, vocabulary, 3 + (row + i) % 4)]) for i in range(len(roles))]
        if objective.kind == "classify":
            paths = [np.concatenate([body, LABELS[row % 3]])]
        weights = [(np.arange(len(path)) >= len(body)).astype(np.float32) for path in paths]
        examples.append(Example(tuple(sample(p, w, r) for p, w, r in zip(paths, weights, roles, strict=True)), "made", row))
    objective = objective.settle(examples, [], lambda tokens: " ".join(map(str, tokens)), lambda line: None)
    return objective, objective.arrange(examples)


class Kept(torch.optim.Optimizer):
    """Moves nothing and keeps the gradients that the step would have been taken with."""

    def __init__(self, trainable: dict[str, nn.Parameter]):
        super().__init__(trainable.values(), {})
        self.trainable = trainable
        self.gradients: dict[str, Tensor] = {}

    def step(self) -> None:
        self.gradients = {name: p.grad.clone() if p.grad is not None else torch.zeros_like(p) for name, p in self.trainable.items()}


def gradients_of_step(
    policy: Policy,
    trainable: dict[str, nn.Parameter],
    objective: Objective,
    examples: Sequence[Example],
    cut: Cut,
    reference: Reference | None = None,
    teacher: Teacher | None = None,
) -> tuple[StepResult, dict[str, Tensor]]:
    """What the engine would move by: its own step, unclipped, with nothing moved."""
    kept = Kept(trainable)
    result = take_step(policy, objective, examples, cut, kept, list(trainable.values()), reference=reference, teacher=teacher, clip=None)
    return result, kept.gradients


def furthest(found: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    """Largest relative difference of any tensor. One that is all but zero is measured against a hundredth of the whole."""
    assert found.keys() == expected.keys()
    floor = 1e-2 * float(torch.stack([g.norm() for g in expected.values()]).norm())
    return max(float((found[name] - g).norm()) / max(float(g.norm()), floor) for name, g in expected.items())


@dataclass(frozen=True, slots=True)
class Made:
    """A course and what lies behind it."""

    course: Course
    attached: Attached
    losses: list[float]
    """Filled while it runs: one a step."""
    said: list[str]
    metrics: list[dict[str, float]]
    """The same of everything that a step tells."""


def course(
    folder: Path,
    adaptation: Adaptation,
    objective: Objective,
    *,
    model: PreTrainedModel | None = None,
    examples: Sequence[Example] | None = None,
    cut: Cut | None = None,
    steps: int = 5,
    learning_rate: float = 1e-2,
    compute: torch.dtype = torch.float32,
    **train: object,
) -> Made:
    """Everything that `fit` needs, for a tiny Llama of its own and 32 rows."""
    model = model if model is not None else llama()
    model.requires_grad_(False)
    cut = cut or Cut(4096)
    policy = Policy(model, layout=cut.layout, compute=compute)
    parent = second_copy(policy) if objective.needs_reference and objective.sampling is not None and not adaptation.keeps_parent else None
    attached = adaptation.attach(model, seed=1)
    if objective.outputs is not None:
        add_outputs(attached, objective.outputs)
    examples = list(examples) if examples is not None else some_examples(objective, 32)
    reference = None
    if parent is not None:
        reference = beside(parent)
    elif objective.needs_reference:
        stored = None if attached.can_switch_off else StoredReference.compute(policy, examples, cut)
        reference = switched_off(policy, attached) if stored is None else StoredReference(examples, stored)
    rollouts = None
    if objective.sampling is not None:
        write = lambda tokens, plain: " ".join(map(str, tokens))
        off = attached.off if attached.can_switch_off else None
        where = folder / "rollouts"
        rollouts = Rollouts(
            policy, objective, cut, where, decode=write, stop_ids=frozenset({2}), seed=0, say=lambda line: None, parent=off
        )
    step = {} if "tokens_per_step" in train else {"examples_per_step": 8}
    options = Train.model_validate({**step, **train}, context={"tables": catalog.TABLES})
    losses: list[float] = []
    said: list[str] = []
    metrics: list[dict[str, float]] = []

    def watch(moment) -> None:
        if moment.step:
            losses.append(moment.metrics["loss"])
            metrics.append(moment.metrics)

    whole = Course(
        policy,
        attached,
        objective,
        [examples],
        Order((len(examples),), (1.0,), 0),
        options,
        steps,
        steps * options.examples_per_step,
        learning_rate,
        cut,
        folder,
        reference,
        in_memory(Policy(llama(7), layout=cut.layout, compute=compute)) if objective.teaching is not None else None,
        rollouts,
        [(watch, 1)],
        said.append,
    )
    return Made(whole, attached, losses, said, metrics)
