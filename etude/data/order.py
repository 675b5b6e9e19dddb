"""Which examples a step learns from: a pure function of the seed and of how many were drawn from each source so far.

No shuffle buffer, no worker state: a resumed run, a run on other ranks and an undisturbed one draw the same examples,
because nobody remembers anything but a few integers.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

_MASK = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class Order:
    """Draws from several sources in exact proportion, each source in a new random order every time it is exhausted."""

    sizes: tuple[int, ...]
    """Examples in each source."""
    weights: tuple[float, ...]
    """Share of each source, relative to the others'."""
    seed: int

    def __post_init__(self) -> None:
        assert len(self.sizes) == len(self.weights) > 0, "one weight a source"
        assert min(self.sizes) > 0, "an empty source has no order"
        assert min(self.weights) > 0, "weights are positive"

    def start(self) -> tuple[int, ...]:
        """The state before the first draw."""
        return (0,) * len(self.sizes)

    def draw(self, drawn: Sequence[int], count: int) -> tuple[list[tuple[int, int]], tuple[int, ...]]:
        """The next `count` examples as (source, index in it), and the state after them.

        Each draw goes to the source furthest behind its share, so after any number of draws no source is a whole
        example ahead of its share.
        """
        state, examples = list(drawn), []
        for _ in range(count):
            examples.append(self._next(state))
            state[examples[-1][0]] += 1
        return examples, tuple(state)

    def draw_tokens(
        self, drawn: Sequence[int], tokens: int, length: Callable[[int, int], int]
    ) -> tuple[list[tuple[int, int]], tuple[int, ...]]:
        """As many of the next examples as come nearest to `tokens` tokens, at least one; `length(source, index)` is an example's."""
        state, examples, total = list(drawn), [], 0
        while True:
            chosen = self._next(state)
            size = length(*chosen)
            if examples and total + size / 2 > tokens:
                return examples, tuple(state)
            examples.append(chosen)
            total += size
            state[chosen[0]] += 1

    def _next(self, state: Sequence[int]) -> tuple[int, int]:
        position, whole = sum(state) + 1, sum(self.weights)
        source = max(range(len(state)), key=lambda j: (self.weights[j] / whole * position - state[j], -j))
        lap, place = divmod(state[source], self.sizes[source])
        return source, shuffled(place, self.sizes[source], (self.seed, source, lap))


def shuffled(place: int, size: int, key: tuple[int, ...]) -> int:
    """Where `place` of a sequence of `size` goes in the shuffle named by `key`: a bijection of range(size) in constant memory.

    A Feistel network over the next even power of two, walked until it lands inside (Black and Rogaway, "Ciphers with
    arbitrary finite domains", 2002).
    """
    half = max(1, ((size - 1).bit_length() + 1) // 2)
    mask = (1 << half) - 1
    salt = 0
    for part in key:
        salt = _mix(salt ^ _mix(part & _MASK))
    at = place
    while True:
        left, right = at >> half, at & mask
        for turn in range(6):
            left, right = right, left ^ (_mix(right + salt + turn * 0x9E3779B97F4A7C15) & mask)
        at = left << half | right
        if at < size:
            return at


def _mix(x: int) -> int:
    """The finaliser of splitmix64."""
    x = (x + 0x9E3779B97F4A7C15) & _MASK
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 & _MASK
    x = (x ^ x >> 27) * 0x94D049BB133111EB & _MASK
    return x ^ x >> 31
