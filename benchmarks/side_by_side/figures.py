"""What do the measurements say? Figures of each side, ratios between sides, and the table a person reads."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, median
from typing import Any

from side_by_side.plan import Plan, Unit

MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Measured:
    """What one side did with a plan."""

    seconds: list[float]
    """Of each step; the first one warms up and counts in no speed."""
    losses: list[float]
    """The step's own mean, before its update."""
    peak: int
    """Bytes at the highest point of the whole process."""
    imports: int
    """Bytes of it that were there before the model was read."""
    facts: dict[str, Any]
    """What the side says of its settings."""

    def figures(self, plan: Plan, unit: str) -> dict[str, Any]:
        timed = list(zip(self.seconds, plan.steps, strict=False))[1:]
        per_unit = median(seconds / len(step) for seconds, step in timed)
        return {
            "seconds_per_step": median(seconds for seconds, _ in timed),
            f"{unit}s_per_second": 1 / per_unit,
            "supervised_tokens_per_second": median(_supervised(step) / seconds for seconds, step in timed),
            "logical_tokens_per_second": median(_logical(step) / seconds for seconds, step in timed),
            f"minutes_per_epoch_of_1000_{unit}s": per_unit * 1000 / 60,
            "peak_mib": self.peak / MIB,
            "peak_without_imports_mib": (self.peak - self.imports) / MIB,
            "losses": self.losses,
            "step_seconds": self.seconds,
            **self.facts,
        }


Group = Mapping[str, Measured]
"""Sides that took turns, by name."""


def _supervised(step: Sequence[Unit]) -> int:
    return sum(unit.supervised for unit in step)


def _logical(step: Sequence[Unit]) -> int:
    return sum(sum(unit.paths) for unit in step)


def _padded(step: Sequence[Unit]) -> int:
    lengths = [length for unit in step for length in unit.paths]
    return len(lengths) * max(lengths)


def ratios(groups: Sequence[Group], best: str) -> dict[str, float | str]:
    """Above 1 etude is ahead. Speeds are medians over the timed steps of the same step's two times, taken one after the other.

    `default` are TRL's defaults, `best` what the field holds to be its best setting, `fastest` whichever of TRL's settings was fastest
    here; `unshared` is etude itself where it lays every sample out alone.

    Args:
        best: the name of that side of TRL's.
    """
    peers = {name: group for group in groups for name in group if name.startswith("trl")}
    faster = {name: _faster(group["etude"], group[name]) for name, group in peers.items() if "etude" in group}
    fastest = min(faster, key=lambda name: faster[name])
    own = groups[0]["etude"]
    found: dict[str, float | str] = {"speed_vs_default": faster["trl"]}
    if best in faster:
        found["speed_vs_best"] = faster[best]
    found |= {"speed_vs_fastest": faster[fastest], "fastest": fastest}
    others = {"default": peers["trl"]["trl"]} | ({"best": peers[best][best]} if best in peers else {})
    if unshared := next((group["etude unshared"] for group in groups if "etude unshared" in group), None):
        found["speed_vs_unshared"] = next(_faster(group["etude"], unshared) for group in groups if "etude unshared" in group)
        others["unshared"] = unshared
    found |= {f"memory_vs_{name}": other.peak / own.peak for name, other in others.items()}
    grown = own.peak - own.imports
    return found | {f"memory_without_imports_vs_{name}": (other.peak - other.imports) / grown for name, other in others.items()}


def _faster(own: Measured, other: Measured) -> float:
    return median(theirs / ours for ours, theirs in list(zip(own.seconds, other.seconds, strict=True))[1:])


def figures_of(
    plan: Plan, groups: Sequence[Group], judged: Mapping[str, float], *, names: Sequence[str], unit: str, best: str, on: str
) -> dict[str, Any]:
    """Everything about one shape, as it is written down. A side that is in several groups is shown as it was in the first.

    Args:
        judged: the loss of the base and of each side's adapter, in float32.
        names: all sides there could be, in order.
        on: what they were judged on, `held_out` or `trained`.
    """
    steps = plan.steps
    average = lambda count: round(mean(map(count, steps)), 1)
    measured = {name: side for group in reversed(groups) for name, side in group.items()}
    sides = {name: measured[name].figures(plan, unit) for name in names if name in measured}
    computed = sides["etude"]["computed_tokens_per_step"]
    for name in sides.keys() & judged.keys():
        sides[name][f"{on}_loss"] = judged[name]
    found = {
        f"{unit}s_per_step": len(steps[0]),
        "steps": len(steps),
        "passes": plan.passes,
        "logical_tokens_per_step": average(_logical),
        "padded_tokens_per_step": average(_padded),
        "supervised_tokens_per_step": average(_supervised),
        "computed_tokens_per_step_by_etude": computed,
        f"{on}_{unit}s": len(plan.held_out) if on == "held_out" else sum(map(len, plan.batches)),
        f"{on}_loss_of_base": judged["base"],
        "learnt": _shares({name: judged["base"] - loss for name, loss in judged.items() if name != "base"}),
    }
    if plan.passes > 1:  # what a side logs of the last pass is of the same units as the base's loss
        last = {name: measured[name].losses[-len(plan.batches) :] for name in sides if len(measured[name].losses) == len(steps)}
        found["logged_fall"] = _shares({name: judged["base"] - mean(losses) for name, losses in last.items()})
    return found | {"sides": sides, "ratio": ratios(groups, best)}


def _shares(falls: Mapping[str, float]) -> dict[str, float]:
    """Each side's fall of the loss, as a share of float32's."""
    return {name: fall / falls["etude float32"] for name, fall in falls.items()}


def table(shape: str, found: Mapping[str, Any], unit: str, on: str) -> str:
    """One shape as text."""
    on_words = on.replace("_", "-")
    lines = [
        f"{shape}: {found[f'{unit}s_per_step']} {unit}s a step, {found['logical_tokens_per_step']:,.0f} tokens "
        f"({found['padded_tokens_per_step']:,.0f} padded, {found['computed_tokens_per_step_by_etude']:,.0f} computed by etude), "
        f"{found['supervised_tokens_per_step']:,.0f} supervised; {found['steps']} steps, the first not timed",
        f"{'':20}{'s/step':>8}{f'{unit}s/s':>10}{'sup tok/s':>11}{'tok/s':>9}{'min/1000':>10}{'peak MiB':>10}{'no imports':>12}"
        f"{on_words:>10}   loss of each step",
    ]
    for name, side in found["sides"].items():
        losses = " ".join(f"{loss:.4f}" for loss in side["losses"])
        judged = side.get(f"{on}_loss")
        lines.append(
            f"{name:20}{side['seconds_per_step']:8.2f}{side[f'{unit}s_per_second']:10.3f}{side['supervised_tokens_per_second']:11.1f}"
            f"{side['logical_tokens_per_second']:9.1f}{side[f'minutes_per_epoch_of_1000_{unit}s']:10.1f}{side['peak_mib']:10.0f}"
            f"{side['peak_without_imports_mib']:12.0f}{'–' if judged is None else f'{judged:.4f}':>10}   {losses}"
        )
    ratio = found["ratio"]
    said = ", ".join(f"{name.replace('_', ' ')} {value:.2f}" for name, value in ratio.items() if isinstance(value, float))
    shares = lambda key: ", ".join(f"{name} {share:.0%}" for name, share in found[key].items())
    base = f"{on_words} loss of the base {found[f'{on}_loss_of_base']:.4f}"
    lines.append(f"{base}; its fall as a share of etude float32's: {shares('learnt')}")
    if "logged_fall" in found:
        lines.append(f"the same of the losses logged in the last pass: {shares('logged_fall')}")
    lines.append(f"etude is ahead by a factor of: {said} (TRL's fastest here: {ratio['fastest']})")
    return "\n".join(lines)
