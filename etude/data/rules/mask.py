"""Personal data replaced by placeholders: e-mail addresses, public IP addresses, phone numbers, IBANs, card numbers."""

from collections import Counter
from typing import ClassVar

from etude.data.personal import FORMS, spans
from etude.data.rules.contract import Judge, Rule


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
        masks = {
            "e-mail address": (self.email, "e-mail addresses masked"),
            "IP address": (self.ip, "IP addresses masked"),
            "IBAN": (self.iban, "IBANs masked"),
            "card number": (self.card, "card numbers masked"),
            "phone number": (self.phone, "phone numbers masked"),
        }
        steps = [(form, mask, name) for form in FORMS for mask, name in [masks[form.kind]] if mask is not None]

        def masked(text: str) -> str:
            for form, mask, name in steps:
                if not form.hint(text):
                    continue
                pieces, at = [], 0
                for start, stop in spans(text, form):
                    pieces += [text[at:start], mask]
                    changes[name] += 1
                    at = stop
                text = "".join([*pieces, text[at:]]) if pieces else text
            return text

        return masked
