"""Is there anything in it that a model must not say? Personal data and keys, told by their form and their check digits.

Findings name the row and the kind, and show a few characters only: a report is passed around.
"""

from collections.abc import Iterator

from etude.data.checks.contract import Finding, Place, Severity, rows
from etude.data.checks.material import Material
from etude.data.personal import FORMS, spans
from etude.data.telltale import secret

_OWN = [form for form in FORMS if form.kind != "IP address"]
"""What belongs to one person; a machine's address seldom does, and is easily mistaken for a version."""


def secrets(material: Material) -> Iterator[Finding]:
    """Strings in the form of well-known keys and tokens."""
    found: dict[str, list[tuple[Place, str]]] = {}
    for entry in material.entries:
        for text in entry.strings:
            if told := secret(text):
                found.setdefault(told[0], []).append((entry.place, told[1]))
    for kind, places in found.items():
        remedy = "make it invalid where it was issued, and leave the rows out: what is trained on can be asked for"
        yield _finding(f"secrets: {kind}", "error", f"hold something like {_a(kind)}", remedy, places, drop=True)


def personal(material: Material) -> Iterator[Finding]:
    """E-mail addresses, phone numbers, IBANs and card numbers with right check digits. Names and addresses have no form to be told by."""
    found: dict[str, list[tuple[Place, str]]] = {}
    for entry in material.entries:
        for text in entry.strings:
            for form in _OWN:
                if form.hint(text) and (span := next(spans(text, form), None)) is not None:
                    start, stop = span
                    found.setdefault(form.kind, []).append((entry.place, text[start:stop]))
    for kind, places in found.items():
        remedy = "replace it by a placeholder, unless it is public and should be known"
        yield _finding(f"personal data: {kind}", "warning", f"hold something like {_a(kind)}", remedy, places)


def _a(kind: str) -> str:
    return f"{'an' if kind[0] in 'AeI' else 'a'} {kind}"


def _finding(kind: str, severity: Severity, what: str, remedy: str, found: list[tuple[Place, str]], drop: bool = False) -> Finding:
    places = tuple(dict.fromkeys(place for place, _ in found))
    shown = tuple(f"{text[:4]}… ({len(text)} characters)" for _, text in found[:3])
    return Finding(kind, severity, rows(len(places), what), remedy, places, shown, drop=places if drop else ())
