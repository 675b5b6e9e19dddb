"""Which personal data can be told by its form? E-mail addresses, public IP addresses, phone numbers, IBANs, card numbers; names cannot.

Every search takes time in proportion to the text, whatever it holds: repeats are bounded or possessive.
"""

import ipaddress
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

# At most 64 characters before the @ and 63 in each part behind it (RFC 5321, 4.5.3.1; RFC 1035, 2.3.4). The first is none of the signs, so
# that an opening quote stays.
_LOCAL = r"[\w!#$%&'*+/=?^`{|}~-]"
_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_EMAIL = re.compile(rf"(?<!\w)\w{_LOCAL}{{0,63}}+(?:\.{_LOCAL}{{1,63}}+){{0,16}}@(?:{_LABEL}\.){{1,16}}[a-z]{{2,63}}\b", re.I)
_IPV4 = re.compile(r"(?<![\d.])(?:\d{1,3}\.){3}\d{1,3}(?![\d]|\.\d)")
_IPV6 = re.compile(r"(?<![:.\w])(?:[0-9a-f]{0,4}:){2,7}[0-9a-f]{0,4}(?![:.\w])", re.I)
_IBAN = re.compile(r"(?<![A-Z0-9])[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?(?![A-Z0-9])")
# What issuers of payment cards begin with (ISO/IEC 7812-1).
_CARD = re.compile(r"(?<![\d.,+-])(?:3[04-9]|[2456]\d)(?:[ -]?\d){11,17}(?![\d]|[.,]\d)")
_PHONE = re.compile(
    r"(?<![\w.+-])(?:\+\d{1,3}[ ./-]?(?:\(\d{1,4}\)[ ./-]?)?\d(?:[ ./-]?\d){5,12}"  # +49 30 901820, +44 (20) 7946 0958
    r"|\(\d{3}\) ?\d{3}[ .-]\d{4}|\d{3}([.-])\d{3}\1\d{4}"  # (212) 555-0123, 212-555-0123
    r"|(?<!\d[ -])0\d{2,4}[ /-]\d{3,4}[ -]?\d{3,5}(?![ -]\d))(?![\w]|[.,-]\d)"  # 030 9018200, 020 7946 0958
)
_MANY_DIGITS = re.compile(r"(?:\d[^\w\n]{0,2}){7}")
_DIGITS_BEHIND_LETTERS = re.compile(r"[A-Z]{2}\d\d")


@dataclass(frozen=True, slots=True)
class Form:
    """One way in which personal data is written."""

    kind: str
    hint: Callable[[str], object]
    """What a text must hold before the slow search is worth it: most hold none."""
    pattern: re.Pattern[str]
    valid: Callable[[str], int]
    """How many characters of a match, from its beginning, are what they seem; 0 where it is none."""


def _public(text: str) -> int:
    """Of version 6, only what is handed out to be reached from everywhere (2000::/3): `::2` stands in code."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return 0
    return len(text) if address.is_global and (address.version == 4 or int(address) >> 125 == 1) else 0


def _beginning(text: str, holds: Callable[[str], bool], least: int) -> int:
    """Length of the longest beginning that `holds`, cut at blanks and hyphens: what follows a number may look like more of it.

    Args:
        least: characters of the shortest that can hold.
    """
    while len(text) >= least:
        if holds(text):
            return len(text)
        text = text[: max(text.rfind(" "), text.rfind("-"), 0)]
    return 0


def _luhn(text: str) -> bool:
    """ISO/IEC 7812-1: 13 to 19 digits, every second from the right doubled, their digits summed; the whole a multiple of ten."""
    digits = [int(c) for c in reversed(text) if c.isdigit()]
    if not 13 <= len(digits) <= 19 or len(set(digits)) == 1:
        return False
    return sum(sum(divmod(2 * d, 10)) if i % 2 else d for i, d in enumerate(digits)) % 10 == 0


def _iban(text: str) -> bool:
    """ISO 13616: the first four characters put last, letters as numbers from 10 on; the whole is 1 modulo 97."""
    plain = text.replace(" ", "")
    return 15 <= len(plain) <= 34 and int("".join(str(int(c, 36)) for c in plain[4:] + plain[:4])) % 97 == 1


FORMS = (
    Form("e-mail address", lambda text: "@" in text, _EMAIL, len),
    Form("IP address", lambda text: text.count(".") > 2, _IPV4, _public),
    Form("IP address", lambda text: text.count(":") > 1, _IPV6, _public),
    Form("IBAN", _DIGITS_BEHIND_LETTERS.search, _IBAN, lambda text: _beginning(text, _iban, 15)),
    Form("card number", _MANY_DIGITS.search, _CARD, lambda text: _beginning(text, _luhn, 13)),
    Form("phone number", _MANY_DIGITS.search, _PHONE, len),
)
"""In the order in which they are looked for: an IBAN may look like a card, and a card like a phone number."""


def spans(text: str, form: Form) -> Iterator[tuple[int, int]]:
    """Where such data stands in a text: start and stop of each, in order."""
    at = 0
    while (found := form.pattern.search(text, at)) is not None:
        length = form.valid(found[0])
        at = found.start() + (length or 1)  # what seemed to begin a number may stand before one
        if length:
            yield found.start(), at
