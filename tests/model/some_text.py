"""Text to learn tokenizers from: prose, code, several scripts, numbers."""

PROSE = [
    "The quick brown fox jumps over the lazy dog, and the dog didn't mind: it had seen 1234 foxes in 2024 alone.\n",
    "Der schnelle braune Fuchs springt über den faulen Hund; naïve Übungen für größere Füße.\n",
    "Быстрая коричневая лиса прыгает через ленивую собаку. 你好，世界 🙂🙂\n",
    "There is no hurry; the foxes are in the garden and the garden is in the town.\r\n\r\n",
] * 6
CODE = [
    "def forward(self, tokens, *, mask=None):\n    hidden = self.embed(tokens)\n    return self.head(hidden, mask=mask)\n",
    "class Layer(nn.Module):\n    def __init__(self, width):\n        super().__init__()\n        self.width = width\n",
    "for index, value in enumerate(self.values):\n    if value is not None:\n        self.forward(value, mask=None)\n",
] * 8
MOLECULES = ["CC(=O)Oc1ccccc1C(=O)O", "C[C@@H](N)C(=O)O", "[nH]1cccc1Br", "ClCC%12CC%12", "[Na+].[Cl-]", "[13CH3]C"] * 3
