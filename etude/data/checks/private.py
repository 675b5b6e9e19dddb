"""Is there anything in it that a model must not say? Personal data and keys, told by their form and their check digits.

Findings name the row and the kind, and show a few characters only: a report is passed around.
"""

import re
from collections.abc import Callable, Iterator

from etude.data.checks.contract import Finding, Place, Severity, rows
from etude.data.checks.material import Material
from etude.data.telltale import secret


def _luhn(text: str) -> bool:
    """ISO/IEC 7812-1: every second digit from the right doubled, its digits summed; the whole a multiple of ten."""
    digits = [int(c) for c in reversed(text) if c.isdigit()]
    return len(set(digits)) > 1 and sum(sum(divmod(2 * d, 10)) if i % 2 else d for i, d in enumerate(digits)) % 10 == 0


def _iban(text: str) -> bool:
    """ISO 13616: the first four characters put last, letters as numbers from 10 on; the whole is 1 modulo 97."""
    plain = text.replace(" ", "")
    return 15 <= len(plain) <= 34 and int("".join(str(int(c, 36)) for c in plain[4:] + plain[:4])) % 97 == 1


PERSONAL: dict[str, tuple[re.Pattern[str], Callable[[str], bool] | None]] = {
    "e-mail address": (re.compile(r"(?<![\w.+-])[\w.+-]+@(?:[a-z0-9](?:[a-z0-9-]*[a-z0-9])?\.)+[a-z]{2,}\b", re.I), None),
    "IBAN": (re.compile(r"(?<![A-Z0-9])[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?(?![A-Z0-9])"), _iban),
    "card number": (re.compile(r"(?<![\d.,+-])(?:3[47]|[2456]\d)\d{2}(?:[ -]?\d){9,15}(?![\d]|[.,]\d)"), _luhn),
    "phone number": (
        re.compile(
            r"(?<![\w.+-])(?:\+\d{1,3}[ ./-]?(?:\(\d{1,4}\)[ ./-]?)?\d(?:[ ./-]?\d){6,11}"  # ITU-T E.123: +49 30 901820
            r"|\(\d{3}\) ?\d{3}[ .-]\d{4}|\d{3}([.-])\d{3}\1\d{4})(?![\w]|[.,-]\d)"  # North America: (212) 555-0123
        ),
        None,
    ),
}


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
            for kind, (pattern, valid) in PERSONAL.items():
                match = next((one for one in pattern.finditer(text) if valid is None or valid(one[0])), None)
                if match is not None:
                    found.setdefault(kind, []).append((entry.place, match[0]))
    for kind, places in found.items():
        remedy = "replace it by a placeholder, unless it is public and should be known"
        yield _finding(f"personal data: {kind}", "warning", f"hold something like {_a(kind)}", remedy, places)


def _a(kind: str) -> str:
    return f"{'an' if kind[0] in 'AeI' else 'a'} {kind}"


def _finding(kind: str, severity: Severity, what: str, remedy: str, found: list[tuple[Place, str]], drop: bool = False) -> Finding:
    places = tuple(dict.fromkeys(place for place, _ in found))
    shown = tuple(f"{text[:4]}… ({len(text)} characters)" for _, text in found[:3])
    return Finding(kind, severity, rows(len(places), what), remedy, places, shown, drop=places if drop else ())
