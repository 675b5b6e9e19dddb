"""One optimizer step: weigh, cut, accumulate, check, clip, move. The only place where anything is divided."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from etude.core import ranks
from etude.core.sample import Example
from etude.data.rows import Cut, rows_of
from etude.engine.reference import Reference
from etude.engine.teacher import Teacher
from etude.errors import TrainingError
from etude.model.policy import Policy
from etude.objective.contract import Objective


@dataclass(frozen=True, slots=True)
class StepResult:
    """What one step did. Means are over the whole step: all rows, all ranks."""

    metrics: dict[str, float]
    """`loss`, each term, what the objective watches, `gradient_norm` before clipping."""
    taken: bool
    """False where it was not accepted, as a gradient that is not finite never is: nothing has moved."""
    logical_tokens: int
    """As if nothing were shared."""
    computed_tokens: int
    supervised_tokens: int
    """Memberships: a prediction shared by two samples counts twice."""
    predictions: int
    """Distinct ones."""
    pairs: int
    """Of a query and a key that it sees, over all rows; windows apart."""


def take_step(
    policy: Policy,
    objective: Objective,
    examples: Sequence[Example],
    cut: Cut,
    optimizer: torch.optim.Optimizer,
    parameters: list[nn.Parameter],
    *,
    accept: Callable[[float, float], bool] = lambda _loss, norm: math.isfinite(norm),
    reference: Reference | None = None,
    teacher: Teacher | None = None,
    clip: float | None = 1.0,
) -> StepResult:
    """Take one step on a set of examples, cut into rows, dealt to the ranks.

    Every rank is given the whole step and computes its share of the rows; weights are counted from the data, before any
    forward, so no rank needs to ask another. The result does not depend on how the step is cut.

    Raises:
        TrainingError: a term has no weight in this step.
    """
    weights = objective.weight(list(examples))
    if empty := [term for term, weight in weights.items() if weight <= 0]:
        raise TrainingError(f"nothing to learn in this step for {', '.join(empty)}", "look at the data with `etude data show`")
    constants: dict[str, float] = {}
    if objective.prepares:
        constants = _prepare(policy, objective, [_only(one, objective.prepares) for one in examples], cut, reference, weights)
        examples = [_only(one, objective.roles) for one in examples]
    rows = rows_of(examples, cut)
    optimizer.zero_grad(set_to_none=True)
    sums: dict[str, Tensor] = {}
    for row in rows[ranks.rank() :: ranks.world()]:
        forest = row.to(policy.device)
        anchor = reference(forest, examples) if reference is not None else None
        teaching = objective.teaching
        asked = (teacher(forest, examples), teaching) if teacher is not None and teaching is not None else None
        outputs = objective.outputs.at if objective.outputs is not None else None
        scores = policy(
            forest, objective.coefficients(forest), everything=objective.reads_everything, outputs=outputs, teacher=asked
        )
        terms = objective.loss(scores, forest, anchor, constants)
        torch.stack([value / weights[term] for term, value in terms.loss.items()]).sum().backward()
        found = {term: value.detach() / weights[term] for term, value in terms.loss.items()}
        found |= {name: value.detach() / weights[term] for name, (value, term) in terms.metrics.items()}
        for name, value in found.items():
            sums[name] = sums[name] + value.double() if name in sums else value.double()
    ranks.total_gradients(parameters)
    names = [*weights, *objective.watched]
    zero = torch.zeros((), dtype=torch.float64, device=policy.device)
    means = ranks.total(torch.stack([sums.get(name, zero) for name in names])).tolist()
    norm = float(_clip(parameters, clip))
    metrics = dict(zip(names, means, strict=True))
    loss = sum(metrics[term] for term in weights)
    taken = accept(loss, norm)
    if taken:
        optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return StepResult(
        {"loss": loss, **metrics, "gradient_norm": norm},
        taken,
        sum(row.logical_tokens for row in rows),
        sum(row.computed_tokens for row in rows),
        sum(len(row.member_sample) for row in rows),
        sum(len(row.target) for row in rows),
        sum(int(row.position.sum()) + row.computed_tokens for row in rows),
    )


def _only(example: Example, roles: tuple[str, ...]) -> Example:
    return Example(tuple(sample for sample in example.samples if sample.role in roles), example.source, example.row)


def _prepare(
    policy: Policy,
    objective: Objective,
    examples: Sequence[Example],
    cut: Cut,
    reference: Reference | None,
    weights: dict[str, float],
) -> dict[str, float]:
    """Means over the whole step of what the objective must know before its loss; computed without gradient."""
    sums: dict[str, Tensor] = {}
    with torch.no_grad():
        for row in rows_of(examples, cut)[ranks.rank() :: ranks.world()]:
            forest = row.to(policy.device)
            anchor = reference(forest, examples) if reference is not None else None
            for name, (value, term) in objective.prepare(policy(forest), forest, anchor).items():
                sums[name] = sums.get(name, torch.zeros((), dtype=torch.float64, device=policy.device)) + value.double() / weights[term]
    zero = torch.zeros((), dtype=torch.float64, device=policy.device)
    names = objective.prepared
    return dict(zip(names, ranks.total(torch.stack([sums.get(name, zero) for name in names])).tolist(), strict=True))


def _clip(parameters: list[nn.Parameter], largest: float | None) -> Tensor:
    """Scale gradients down to the largest norm allowed; returns the norm before."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    norm = nn.utils.get_total_norm(gradients)
    if largest is not None:
        nn.utils.clip_grads_with_norm_(parameters, largest, norm)
    return norm
