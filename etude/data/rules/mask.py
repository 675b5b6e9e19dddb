"""Personal data replaced by placeholders: e-mail addresses, public IP addresses, phone numbers, IBANs, card numbers."""

import ipaddress
import re
from collections import Counter
from collections.abc import Callable
from typing import ClassVar

from etude.data.rules.contract import Judge, Rule

_LOCAL = r"[\w!#$%&'*+/=?^`{|}~-]+"
_EMAIL = re.compile(rf"(?<![\w.+-]){_LOCAL}(?:\.{_LOCAL})*@(?:[a-z0-9](?:[a-z0-9-]*[a-z0-9])?\.)+[a-z]{{2,}}\b", re.I)
_IPV4 = re.compile(r"(?<![\d.])(?:\d{1,3}\.){3}\d{1,3}(?![\d]|\.\d)")
_IPV6 = re.compile(r"(?<![:.\w])(?:[0-9a-f]{0,4}:){2,7}[0-9a-f]{0,4}(?![:.\w])", re.I)
_IBAN = re.compile(r"(?<![A-Z0-9])[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?(?![A-Z0-9])")
_CARD = re.compile(r"(?<![\d.,+-])\d(?:[ -]?\d){12,18}(?![\d]|[.,]\d)")
_PHONE = re.compile(
    r"(?<![\w.+-])(?:\+\d{1,3}[ ./-]?(?:\(\d{1,4}\)[ ./-]?)?\d(?:[ ./-]?\d){5,12}"  # +49 30 901820, +44 (20) 7946 0958
    r"|\(\d{3}\) ?\d{3}[ .-]\d{4}|\d{3}([.-])\d{3}\1\d{4}"  # (212) 555-0123, 212-555-0123
    r"|(?<!\d[ -])0\d{2,4}[ /-]\d{3,4}[ -]?\d{3,5}(?![ -]\d))(?![\w]|[.,-]\d)"  # 030 9018200, 020 7946 0958
)

_MANY_DIGITS = re.compile(r"(?:\d[^\w\n]{0,2}){7}")
_DIGITS_BEHIND_LETTERS = re.compile(r"[A-Z]{2}\d\d")


def _public(text: str) -> bool:
    try:
        return ipaddress.ip_address(text).is_global
    except ValueError:
        return False


def _luhn(text: str) -> bool:
    """ISO/IEC 7812-1: every second digit from the right doubled, its digits summed; the whole a multiple of ten."""
    digits = [int(c) for c in reversed(text) if c.isdigit()]
    return len(set(digits)) > 1 and sum(sum(divmod(2 * d, 10)) if i % 2 else d for i, d in enumerate(digits)) % 10 == 0


def _iban(text: str) -> bool:
    """ISO 13616: the first four characters put last, letters as numbers from 10 on; the whole is 1 modulo 97."""
    plain = text.replace(" ", "")
    return 15 <= len(plain) <= 34 and int("".join(str(int(c, 36)) for c in plain[4:] + plain[:4])) % 97 == 1


class Mask(Rule):
    """Replaces personal data that can be told by its form. Names and addresses cannot be, and stay.

    IBANs and card numbers are replaced only where their check digits are right, IP addresses where they are public. Private e-mail
    addresses cannot be told from others: all are replaced. Put this rule early, so that rejected documents are masked as well.
    Source: e-mail and public IP as FineWeb does (https://arxiv.org/abs/2406.17557, section 3.7); check digits by ISO 13616 and
    ISO/IEC 7812-1.
    """

    kind: ClassVar[str] = "mask"
    email: str | None = "[e-mail]"
    """What stands for an e-mail address; null leaves them."""
    ip: str | None = "[IP address]"
    """What stands for a public IP address, of version 4 or 6; null leaves them."""
    phone: str | None = "[phone number]"
    """What stands for a phone number: with `+` and country code, or grouped as in North America or after a 0; null leaves them."""
    iban: str | None = "[IBAN]"
    """What stands for a bank account's IBAN; null leaves them."""
    card: str | None = "[card number]"
    """What stands for a payment card's number; null leaves them."""

    def judge(self, changes: Counter[str]) -> Judge:
        # What a text must hold before the slow search is worth it: most hold none.
        mail, dots, colons = (lambda text: "@" in text), (lambda text: text.count(".") > 2), (lambda text: text.count(":") > 1)
        many, behind = _MANY_DIGITS.search, _DIGITS_BEHIND_LETTERS.search
        steps: list[tuple[Callable[[str], object], re.Pattern[str], Callable[[str], bool] | None, str, str]] = []
        for hint, pattern, valid, mask, name in (
            (mail, _EMAIL, None, self.email, "e-mail addresses masked"),
            (dots, _IPV4, _public, self.ip, "IP addresses masked"),
            (colons, _IPV6, _public, self.ip, "IP addresses masked"),
            (behind, _IBAN, _iban, self.iban, "IBANs masked"),
            (many, _CARD, _luhn, self.card, "card numbers masked"),
            (many, _PHONE, None, self.phone, "phone numbers masked"),
        ):
            if mask is not None:
                steps.append((hint, pattern, valid, mask, name))

        def masked(text: str) -> str:
            for hint, pattern, valid, mask, name in steps:
                if not hint(text):
                    continue

                def put(found: re.Match[str], valid=valid, mask=mask, name=name) -> str:
                    if valid is not None and not valid(found[0]):
                        return found[0]
                    changes[name] += 1
                    return mask

                text = pattern.sub(put, text)
            return text

        return masked
