"""What in a text should make anybody stop, by its form alone? Keys that open something, and the marks of chat templates."""

import re
from collections.abc import Iterator

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
_BEGIN = re.compile(r"AKIA|ASIA|gh[pousr]_|github_pat_|PRIVATE KEY|eyJ|xox[abeoprs]-|AIza|k_live_|hf_|sk-|://[^\s/]*@")
"""One of these stands in each of them: a text without any is passed over quickly."""

MARKS = re.compile(
    r"<\|im_(?:start|end)\|>|<\|(?:endoftext|end_of_text|begin_of_text|eot_id|start_header_id|end_header_id|end|assistant|user|system)\|>"
    r"|\[/?INST\]|<</?SYS>>|<(?:start|end)_of_turn>|<｜(?:User|Assistant|end▁of▁sentence)｜>|</?s>|### (?:Instruction|Response):"
)
"""The marks of ChatML, Llama 2 and 3, Gemma, DeepSeek, Phi, GLM and Alpaca, as their model cards write them."""


def secret(text: str) -> tuple[str, str] | None:
    """The kind and the text of the first thing that looks like a key; None where nothing does."""
    if _BEGIN.search(text):
        for kind, pattern in SECRETS.items():
            if found := pattern.search(text):
                return kind, found[0]
    return None


def texts_in(value: object) -> Iterator[str]:
    """Every text in a row's columns, however deep."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from texts_in(inner)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from texts_in(inner)
