"""What do the measurements say? Figures of each side, ratios between sides, and the table a person reads."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from sft_sides.rows import Plan, Row
from sft_sides.worker import SIDES

MIB = 1 << 20
TRL_BEST = "trl padding-free"
"""What the field holds to be its best setting: bfloat16, padding-free, no checkpointing."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What one side did with a plan."""

    seconds: list[float]
    """Of each step; the first one warms up and counts in no speed."""
    losses: list[float]
    """Mean over supervised tokens, of each step, before its update."""
    peak: int
    """Bytes at the highest point of the whole process."""
    imports: int
    """Bytes of it that were there before the model was read."""
    facts: dict[str, Any]
    """What the side says of its settings."""

    def figures(self, plan: Plan) -> dict[str, Any]:
        timed = list(zip(self.seconds, plan.steps, strict=True))[1:]
        return {
            "seconds_per_step": median(seconds for seconds, _ in timed),
            "supervised_tokens_per_second": median(_supervised(rows) / seconds for seconds, rows in timed),
            "logical_tokens_per_second": median(_logical(rows) / seconds for seconds, rows in timed),
            "minutes_per_epoch_of_1000_rows": median(seconds / len(rows) for seconds, rows in timed) * 1000 / 60,
            "peak_mib": self.peak / MIB,
            "peak_without_imports_mib": (self.peak - self.imports) / MIB,
            "losses": self.losses,
            "step_seconds": self.seconds,
            **self.facts,
        }


Group = Mapping[str, Measured]
"""Sides that took turns, by name."""


def _supervised(rows: Sequence[Row]) -> int:
    return sum(row.supervised for row in rows)


def _logical(rows: Sequence[Row]) -> int:
    return sum(len(row.tokens) for row in rows)


def _padded(rows: Sequence[Row]) -> int:
    return len(rows) * max(len(row.tokens) for row in rows)


def ratios(groups: Sequence[Group]) -> dict[str, float | str]:
    """Above 1 etude is ahead. Speeds are medians over the timed steps of the same step's two times, taken one after the other.

    `best` is TRL's padding-free setting, `fastest` whichever of TRL's settings was fastest on these rows.
    """
    peers = {name: group for group in groups for name in group if name.startswith("trl")}
    faster = {name: _faster(group["etude"], group[name]) for name, group in peers.items() if "etude" in group}
    fastest = min(faster, key=lambda name: faster[name])
    default, best, own = peers["trl"]["trl"], peers[TRL_BEST][TRL_BEST], groups[0]["etude"]
    return {
        "speed_vs_default": faster["trl"],
        "speed_vs_best": faster[TRL_BEST],
        "speed_vs_fastest": faster[fastest],
        "fastest": fastest,
        "memory_vs_default": default.peak / own.peak,
        "memory_vs_best": best.peak / own.peak,
        "memory_without_imports_vs_default": (default.peak - default.imports) / (own.peak - own.imports),
        "memory_without_imports_vs_best": (best.peak - best.imports) / (own.peak - own.imports),
    }


def _faster(own: Measured, other: Measured) -> float:
    return median(theirs / ours for ours, theirs in list(zip(own.seconds, other.seconds, strict=True))[1:])


def shape_figures(plan: Plan, groups: Sequence[Group], held_out: Mapping[str, float]) -> dict[str, Any]:
    """Everything about one shape, as it is written down. A side that is in several groups is shown as it was in the first.

    Args:
        held_out: mean loss over the held-out rows, of the base and of each side's adapter.
    """
    steps = plan.steps
    mean = lambda count: round(sum(map(count, steps)) / len(steps), 1)
    measured = {name: side for group in reversed(groups) for name, side in group.items()}
    sides = {name: measured[name].figures(plan) | {"held_out_loss": held_out[name]} for name in SIDES if name in measured}
    fall = held_out["base"] - held_out["etude float32"]
    return {
        "rows_per_step": len(steps[0]),
        "steps": len(steps),
        "logical_tokens_per_step": mean(_logical),
        "padded_tokens_per_step": mean(_padded),
        "supervised_tokens_per_step": mean(_supervised),
        "computed_tokens_per_step_by_etude": round(measured["etude"].facts["computed_tokens"] / len(steps), 1),
        "held_out_rows": len(plan.held_out),
        "held_out_loss_of_base": held_out["base"],
        "learnt": {name: (held_out["base"] - held_out[name]) / fall for name in sides},
        "sides": sides,
        "ratio": ratios(groups),
    }


def table(shape: str, found: Mapping[str, Any]) -> str:
    """One shape as text."""
    lines = [
        f"{shape}: {found['rows_per_step']} rows a step, {found['logical_tokens_per_step']:,.0f} tokens "
        f"({found['padded_tokens_per_step']:,.0f} padded, {found['computed_tokens_per_step_by_etude']:,.0f} computed by etude), "
        f"{found['supervised_tokens_per_step']:,.0f} supervised; {found['steps']} steps, the first not timed",
        f"{'':18}{'s/step':>8}{'sup tok/s':>11}{'tok/s':>9}{'min/1000':>10}{'peak MiB':>10}{'no imports':>12}{'held-out':>10}"
        "   loss of steps 1–3",
    ]
    for name, side in found["sides"].items():
        losses = " ".join(f"{loss:.4f}" for loss in side["losses"][:3])
        lines.append(
            f"{name:18}{side['seconds_per_step']:8.2f}{side['supervised_tokens_per_second']:11.1f}{side['logical_tokens_per_second']:9.1f}"
            f"{side['minutes_per_epoch_of_1000_rows']:10.1f}{side['peak_mib']:10.0f}{side['peak_without_imports_mib']:12.0f}"
            f"{side['held_out_loss']:10.4f}   {losses}"
        )
    ratio = found["ratio"]
    said = ", ".join(f"{name.replace('_', ' ')} {value:.2f}" for name, value in ratio.items() if isinstance(value, float))
    learnt = ", ".join(f"{name} {share:.0%}" for name, share in found["learnt"].items())
    lines.append(f"held-out loss of the base {found['held_out_loss_of_base']:.4f}; its fall as a share of etude float32's: {learnt}")
    lines.append(f"etude is ahead by a factor of: {said} (TRL's fastest here: {ratio['fastest']})")
    return "\n".join(lines)
