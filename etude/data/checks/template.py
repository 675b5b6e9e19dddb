"""Does the model read the same marks when it answers as when it learns? What the tokenizer's chat template does unasked."""

import re
from collections.abc import Iterator

from etude.data.checks.contract import Finding, Skipped, excerpt, first, rows
from etude.data.checks.material import Material
from etude.data.records import Completion, Conversation, Message, Text
from etude.data.supervise import FORGED
from etude.data.telltale import MARKS
from etude.data.template import PROBE, Template
from etude.errors import EtudeError


def remains(material: Material) -> Iterator[Finding]:
    """Texts that were rendered before: they spell turn marks, of this template or of another one, which would be learnt as words."""
    unseen = (entry for entry in material.entries if entry.trouble is None or entry.trouble.kind != FORGED)
    found = [(entry.place, excerpt(entry.whole, mark.start())) for entry in unseen if (mark := MARKS.search(entry.whole))]
    if found:
        yield Finding(
            "remains of a chat template",
            "error" if len(found) * 2 > len(material.entries) else "warning",
            rows(len(found), "spell the marks of a chat template: what was rendered before would be rendered again"),
            "give the turns as messages, without marks; the template of the base writes its own",
            tuple(place for place, _ in found),
            first(text for _, text in found),
        )


def additions(material: Material) -> Iterator[Finding]:
    """Words that the template itself adds to a conversation, such as a default system turn or today's date."""
    template = _template(material)
    if not any(isinstance(entry.record, (Completion, Conversation)) for entry in material.usable):
        return
    try:
        rendered = template.render(Conversation((Message("user", PROBE),)), 1)
    except EtudeError:
        return  # the rows meet the refusal one by one
    marks = sorted(map(str, material.tokenizer.all_special_tokens), key=len, reverse=True)
    added = re.sub("|".join(map(re.escape, [PROBE, *marks])), " ", rendered)
    if len(re.findall(r"[^\W_]+", added)) > 4:
        said = excerpt(" ".join(added.split()))
        yield Finding(
            "the template adds words",
            "note",
            f"where a row has no system turn, the chat template writes its own: {said!r}",
            "it is learnt behind, so ask with the same template; give the rows a system turn of their own to replace it",
        )
    if "strftime_now" in str(material.tokenizer.chat_template):
        yield Finding(
            "the template writes today's date",
            "warning",
            "the chat template writes the date of the day into every row: another day, other tokens and another stage",
            "set a fixed date in the template, or give rows a system turn that replaces it",
        )


def ends(material: Material) -> Iterator[Finding]:
    """An end-of-text token at which generation does not stop: raw text would teach an end that nobody hears."""
    _template(material)
    end = material.tokenizer.eos_token_id
    if end not in material.stop_ids and any(isinstance(entry.record, Text) for entry in material.usable):
        yield Finding(
            "end of text is no stop token",
            "warning",
            f"raw texts end in token {end}, at which generation does not stop (it stops at {sorted(material.stop_ids)})",
            "add it to `eos_token_id` in the base's generation_config.json",
        )


def _template(material: Material) -> Template:
    if material.tokenizer is None:
        raise Skipped("needs a tokenizer and its chat template", "name the model with `--base`, or check the recipe")
    if not material.tokenizer.chat_template:
        raise Skipped("this tokenizer has no chat template", "nothing, if it is asked with plain text")
    return Template(material.tokenizer)
