"""Is there anything in it that a model must not say? Personal data and keys, told by their form and their check digits.

Findings name the row and the kind, and show a few characters only: a report is passed around.
"""

import re
from collections.abc import Callable, Iterator

from etude.data.checks.contract import Finding, Place, Severity, rows
from etude.data.checks.material import Material

SECRETS: dict[str, re.Pattern[str]] = {
    # https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_identifiers.html#identifiers-unique-ids
    "AWS access key": re.compile(r"\b(?:AKIA|ASIA)[A-Z2-7]{16}\b"),
    # https://github.blog/engineering/behind-githubs-new-authentication-token-formats/
    "GitHub token": re.compile(r"\b(?:gh[pousr]_[A-Za-z0-9]{36}|github_pat_[A-Za-z0-9]{22}_[A-Za-z0-9]{59})\b"),
    # RFC 7468, section 2 and its labels
    "private key": re.compile(r"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY(?: BLOCK)?-----"),
    # RFC 7519: two JSON objects in base64url, and a signature
    "JSON Web Token": re.compile(r"\beyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}"),
    # https://docs.slack.dev/authentication/tokens
    "Slack token": re.compile(r"\bxox[abeoprs]-[A-Za-z0-9-]{10,}"),
    # https://docs.cloud.google.com/docs/authentication/api-keys, and gitleaks' rule gcp-api-key
    "Google API key": re.compile(r"\bAIza[A-Za-z0-9_-]{35}(?![A-Za-z0-9_-])"),
    # https://docs.stripe.com/keys
    "Stripe key": re.compile(r"\b[sr]k_live_[A-Za-z0-9]{20,}"),
    # https://huggingface.co/docs/hub/security-tokens
    "Hugging Face token": re.compile(r"\bhf_[A-Za-z]{34}\b"),
    # gitleaks' rules openai-api-key and anthropic-api-key: https://github.com/gitleaks/gitleaks
    "model provider's key": re.compile(
        r"\bsk-(?:ant-[a-z0-9]+-|proj-|svcacct-|admin-)[A-Za-z0-9_-]{40,}|\bsk-[A-Za-z0-9]{20}T3BlbkFJ[A-Za-z0-9]{20}\b"
    ),
    # RFC 3986, section 3.2.1: user information with a password
    "password in an address": re.compile(r"\b[a-z][a-z0-9+.-]{1,20}://[^\s/:@]{1,64}:[^\s/@]{3,64}@[\w.-]+"),
}  # fmt: skip


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
            for kind, pattern in SECRETS.items():
                if match := pattern.search(text):
                    found.setdefault(kind, []).append((entry.place, match[0]))
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
