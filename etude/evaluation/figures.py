"""How is a number written for a person? One place, so that the terminal, the report and the sentences agree."""

from etude.evaluation.judgement import Axis, Restated, Unit
from etude.evaluation.statistics import Interval, Verdict

MARKS: dict[Verdict, str] = {"better": "▲", "worse": "▼", "unchanged": "=", "cannot tell": "?"}
MINUS, THIN = "\N{MINUS SIGN}", "\N{NO-BREAK SPACE}"


def value(unit: Unit, number: float) -> str:
    """A figure: `84.5 %`, `2.314`."""
    return f"{100 * number:.1f}{THIN}%" if unit != "nats/token" else f"{number:.3f}"


def difference(unit: Unit, number: float, with_unit: bool = True) -> str:
    """A signed difference: `+56.5 points`, `−0.420 nats`."""
    scaled, digits, name = (100 * number, 1, "points") if unit != "nats/token" else (number, 3, "nats")
    rounded = round(scaled, digits) + 0.0  # no negative zero
    sign = "+" if rounded > 0 else MINUS if rounded < 0 else "±"
    return f"{sign}{abs(rounded):.{digits}f}" + (f"{THIN}{name}" if with_unit else "")


def span(unit: Unit, interval: Interval) -> str:
    """The two ends of a figure's interval: `77.8 to 88.9 %`."""
    low, high = value(unit, interval.low), value(unit, interval.high)
    return f"{low.removesuffix(THIN + '%')} to {high}"


def difference_span(unit: Unit, interval: Interval) -> str:
    """The two ends of a difference's interval: `+49.0 to +63.5`."""
    return f"{difference(unit, interval.low, with_unit=False)} to {difference(unit, interval.high, with_unit=False)}"


def size(unit: Unit, number: float) -> str:
    """A difference without its sign: `0.050 nats`."""
    return difference(unit, abs(number)).removeprefix("+")


def within(unit: Unit, margin: float) -> str:
    """A margin: `±0.05 nats`."""
    number, _, name = size(unit, margin).partition(THIN)
    return f"±{number.rstrip('0').rstrip('.')}{THIN}{name}"


def p_value(number: float) -> str:
    """`p = 0.031`, `p < 0.001`."""
    return f"p{THIN}<{THIN}0.001" if number < 0.001 else f"p{THIN}={THIN}{number:.3f}"


def confidence(share: float) -> str:
    """`95 %`."""
    return f"{100 * share:g}{THIN}%"


def restated(other: Restated) -> str:
    """`perplexity 9.97 → 10.41, ×1.044`."""
    beside = f" (gzip -9 of the same text: {other.compressed:.3f})" if other.compressed is not None else ""
    return f"{other.unit} {other.parent:.4g} → {other.tuned:.4g}, ×{other.tuned / other.parent:.3f}{beside}"


def sentence_case(name: str) -> str:
    """A name at the beginning of a line; capitals inside it stay."""
    return name[:1].upper() + name[1:]


def direction(axis: Axis) -> str:
    """Which way is better, in a word."""
    return "higher is better" if axis.higher_is_better else "lower is better"


def count(number: int) -> str:
    """`12,345`."""
    return f"{number:,}"


def large(number: int) -> str:
    """Parameters: `4.88 M`."""
    for size, name in ((10**9, "B"), (10**6, "M"), (10**3, "k")):
        if number >= size:
            return f"{number / size:.3g}{THIN}{name}"
    return str(number)


def memory(number: int) -> str:
    """Bytes: `812 MiB`."""
    for size, name in ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if number >= size:
            return f"{number / size:.3g}{THIN}{name}" if number < 1000 * size else f"{number / size:,.0f}{THIN}{name}"
    return f"{number}{THIN}B"


def duration(seconds: float) -> str:
    """`3 min 12 s`."""
    if seconds < 60:
        return f"{seconds:.1f}{THIN}s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}{THIN}h {minutes}{THIN}min" if hours else f"{minutes}{THIN}min {rest}{THIN}s"
