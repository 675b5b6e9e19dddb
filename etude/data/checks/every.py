"""What is wrong with this data? Every check of the catalog, the worst findings first, and the checks that could not be made."""

from collections.abc import Callable
from dataclasses import dataclass

from etude import catalog
from etude.data.checks.contract import Finding, Skipped
from etude.data.checks.material import Material

SEVERITIES = ("error", "warning", "note")


@dataclass(frozen=True, slots=True)
class Unmade:
    """A check that was not made."""

    check: str
    """Its name in the catalog."""
    why: str
    """What it lacks."""
    remedy: str
    """What brings it."""


@dataclass(frozen=True, slots=True)
class Findings:
    """What was found."""

    found: list[Finding]
    """Errors first, then warnings, then notes; of each the one with most rows first."""
    unmade: list[Unmade]
    """Checks that lacked something, such as a tokenizer or an extra."""


def findings(material: Material, progress: Callable[[str], None] = lambda _: None) -> Findings:
    """Make every check. `progress` is told the name of each before it is made."""
    found: list[Finding] = []
    unmade: list[Unmade] = []
    for name in catalog.CHECKS:
        progress(name)
        try:
            found += catalog.find("check", name)(material)
        except Skipped as skipped:
            unmade.append(Unmade(name, skipped.why, skipped.remedy))
    return Findings(in_order(found), unmade)


def in_order(found: list[Finding]) -> list[Finding]:
    """The worst first."""
    return sorted(found, key=lambda one: (SEVERITIES.index(one.severity), -len(one.rows)))
