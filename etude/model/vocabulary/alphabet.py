"""Letters of a fixed alphabet: DNA, proteins, molecules as SMILES, or a list of one's own."""

import re
from collections import Counter
from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal

from pydantic import Field, NonNegativeInt, field_validator
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

from etude.model.vocabulary.contract import UNKNOWN, Say, Vocabulary
from etude.model.vocabulary.foreign import ForeignLetter, told

DNA = "ACGTRYSWKMBDHVN"
"""Bases and what stands for several of them: https://iupac.qmul.ac.uk/misc/naseq.html"""
PROTEIN = "ACDEFGHIKLMNPQRSTVWYBJOUXZ*-"
"""Amino acids, what stands for several, the stop and the gap: https://iupac.qmul.ac.uk/AminoAcid/ and the FASTA format."""
SMILES = r"\[[^\]]+]|Br?|Cl?|N|O|S|P|F|I|b|c|n|o|s|p|\(|\)|\.|=|#|-|\+|\\|/|:|~|@|\?|>|\*|\$|%[0-9]{2}|[0-9]"
"""An atom, a bond, a ring: Schwaller et al. 2018, https://doi.org/10.1039/C8SC02339E"""
_ATOMS = ["B", "Br", "C", "Cl", *"NOSPFIbcnosp", *"().=#-+\\/:~@?>*$", *"0123456789", *(f"%{ring}" for ring in range(10, 100))]
_SPELLING = [*"[]%", *map(chr, range(ord("A"), ord("Z") + 1)), *map(chr, range(ord("a"), ord("z") + 1))]
"""What an atom in brackets that is no token of its own is spelt with."""
_SOME = 3
"""How often an atom in brackets must occur to become a token."""


class Alphabet(Vocabulary):
    """Each letter is a token, and so is the line break; anything else is `<unk>`, counted and said, or an error."""

    kind: ClassVar[str] = "alphabet"
    alphabet: Literal["dna", "protein", "smiles"] | Annotated[list[str], Field(min_length=1)] = "dna"
    """`dna`, `protein`, `smiles`, or a list of letters; one of these may be several characters long, and the longest that fits is taken."""
    bracket_atoms: NonNegativeInt = 512
    """Of SMILES: at most so many atoms in brackets, such as `[nH]`, are tokens, the most frequent ones; others are spelt out."""
    foreign: Literal["mark", "refuse"] = "mark"
    """What is no letter is marked `<unk>`, or stops the learning with its place. Texts read later are marked either way."""

    @field_validator("alphabet")
    @classmethod
    def _letters(cls, value: str | list[str]) -> str | list[str]:
        if isinstance(value, list) and (wrong := [letter for letter in value if not letter or value.count(letter) > 1]):
            raise ValueError(f"the letter {wrong[0]!r} is there twice" if wrong[0] else "a letter cannot be empty")
        return value

    @property
    def needs_text(self) -> bool:
        return self.alphabet == "smiles" and self.bracket_atoms > 0

    def pieces(self, texts: Iterator[str], say: Say) -> Tokenizer:
        letters = self._fixed()
        longest_first = sorted(letters, key=lambda letter: (-len(letter), letter))
        pattern = SMILES if self.alphabet == "smiles" else "|".join(map(re.escape, longest_first))
        names = [*letters, *self._seen(texts, re.compile(pattern), say), UNKNOWN]
        model = models.BPE(vocab={name: i for i, name in enumerate(names)}, merges=[], unk_token=UNKNOWN, ignore_merges=True)
        tokenizer = Tokenizer(model)  # without merges, a piece that is no token falls into its characters
        tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(pattern), "isolated")  # type: ignore[bad-assignment]
        tokenizer.decoder = decoders.Fuse()  # type: ignore[bad-assignment]
        return tokenizer

    def _seen(self, texts: Iterator[str], known: re.Pattern[str], say: Say) -> list[str]:
        """The atoms in brackets that become tokens; what else the texts hold beside the letters is said."""
        single = {letter for letter in self._fixed() if len(letter) == 1}
        atoms: Counter[str] = Counter()
        strange: Counter[str] = Counter()
        total = 0
        for text in texts:
            if self.alphabet == "smiles":
                atoms.update(piece for piece in known.findall(text) if piece[0] == "[")
                left = text
            else:
                left = known.sub("", text)
            odd = Counter(character for character in left if character not in single)
            if odd and self.foreign == "refuse":
                raise ForeignLetter(next(iter(odd)))
            strange += odd
            total += len(text)
        if strange:
            say(told(strange, total, f"become {UNKNOWN}"))
        ranked = sorted(atoms, key=lambda atom: (-atoms[atom], atom))
        kept = [atom for atom in ranked if atoms[atom] >= _SOME][: self.bracket_atoms]
        if spelt := len(atoms) - len(kept):
            occurrences = atoms.total() - sum(atoms[atom] for atom in kept)
            say(f"{spelt:,} kinds of atoms in brackets ({occurrences:,} of {atoms.total():,} occurrences) are rare and will be spelt out")
        return sorted(kept)

    def _fixed(self) -> list[str]:
        if isinstance(self.alphabet, list):
            return self.alphabet if "\n" in self.alphabet else [*self.alphabet, "\n"]
        named = {"dna": list(DNA), "protein": list(PROTEIN), "smiles": [*_ATOMS, *(one for one in _SPELLING if one not in _ATOMS)]}
        return [*named[self.alphabet], "\n"]
