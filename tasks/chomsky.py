"""The Chomsky benchmark (arXiv 2207.02098).

The benchmark has fifteen: even pairs, parity check (`parity`), cycle navigation, modular
arithmetic; stack manipulation, reverse string (`reverse`), modular arithmetic with brackets, solve
equation; duplicate string (`copy`), missing duplicate, odds first, binary addition and
multiplication, compute sqrt, bucket sort (`sort`). Those in parentheses are options of other tasks;
configs/task has them under the benchmark's names. As there, a nominal length is the number of
source tokens.

All differ from the benchmark in how they are asked: there a model reads the source and then as many
empty tokens as the target has, and answers at these all at once; here it writes the target after
SEP, symbol by symbol, and then EOS.
"""

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from lcg.tasks.base import IGNORE, Task, uniform


@dataclass
class EvenPairs(Task):
    """The target is 0 if the pairs 01 and 10 are even in number together, else 1.

    Hard because: pairs grow in number, and one missed turns the answer around; a model finds it
    easy once it sees that the first and the last bit alone decide.
    Source: regular, arXiv 2207.02098.

    >>> print(EvenPairs().example(6, seed=3))
    inputs <bos> 1 1 0 0 1 0 <sep> 1
    labels .     . . . . . . 1     <eos>
    """

    name: ClassVar[str] = "even_pairs"
    symbol_count = 2
    min_length = 2

    def target_length(self, length):
        return 1

    def sample(self, rng, lengths):
        bits = uniform(rng, 0, 2, (len(lengths), lengths.max()))
        return bits, bits[:, :1] ^ np.take_along_axis(bits, lengths[:, None] - 1, axis=1)

    def evidence(self, inputs, labels):
        return self.trace(labels, lambda k, n: 0, ends=False)

    def chance(self, length):
        return 50.0


@dataclass
class CycleNavigation(Task):
    """Walk on a cycle of places from place 0: the target is where the walk ends.

    Steps are to the left (L), to the right (R), or none (S), each as likely.
    Hard because: every step moves the answer. Source: regular, arXiv 2207.02098.

    >>> print(CycleNavigation().example(6))
    inputs <bos> R S S L L L <sep> 3
    labels .     . . . . . . 3     <eos>
    """

    name: ClassVar[str] = "cycle_navigation"

    places: int = 5
    """Number of places on the cycle."""

    def __post_init__(self):
        super().__post_init__()
        self.require(self.places >= 2, f"places must be at least 2, got {self.places}")

    @property
    def symbol_count(self) -> int:
        return self.places + 3

    def symbol(self, symbol):
        return str(symbol) if symbol < self.places else "LSR"[symbol - self.places]

    def target_length(self, length):
        return 1

    def sample(self, rng, lengths):
        steps = rng.integers(-1, 2, (len(lengths), lengths.max()))
        end = np.take_along_axis(steps.cumsum(axis=1), lengths[:, None] - 1, axis=1)
        return steps + 1 + self.places, end % self.places

    def evidence(self, inputs, labels):
        return self.trace(labels, lambda k, n: 0, ends=False)

    def chance(self, length):
        turns = 2 * np.pi * np.arange(self.places) / self.places
        # The Fourier transform of one step is (1 + 2 cos) / 3, that of all of them its power.
        spectrum = ((1 + 2 * np.cos(turns)) / 3) ** length
        return 100 * float(np.fft.fft(spectrum).real.max()) / self.places


@dataclass
class ModularArithmetic(Task):
    """The target is the value of a sum of products, modulo `modulus`.

    Digits and the operators + - * by turns, all independent; products come first.
    A nominal length of L tokens is the odd number L or L - 1.
    Hard because: every term moves the answer, and a zero anywhere in a product undoes all of it.
    Source: regular, arXiv 2207.02098.

    >>> print(ModularArithmetic().example(7, seed=1))
    inputs <bos> 2 + 2 * 3 * 4 <sep> 1
    labels .     . . . . . . . 1     <eos>
    """

    name: ClassVar[str] = "modular_arithmetic"

    modulus: int = 5
    """Digits are 0 .. modulus - 1."""

    def __post_init__(self):
        super().__post_init__()
        self.require(self.modulus >= 2, f"modulus must be at least 2, got {self.modulus}")

    @property
    def symbol_count(self) -> int:
        return self.modulus + 3

    def symbol(self, symbol):
        return str(symbol) if symbol < self.modulus else "+-*"[symbol - self.modulus]

    def source_length(self, length):
        return (length + 1) // 2 * 2 - 1

    def target_length(self, length):
        return 1

    def sample(self, rng, lengths):
        count = (lengths[:, None] + 1) // 2  # of digits
        column = np.arange(count.max())
        digits = rng.integers(0, self.modulus, (len(count), column.size))
        operators = rng.integers(0, 3, digits.shape)  # before each digit
        source = np.stack([operators + self.modulus, digits], axis=2).reshape(len(count), -1)
        operators[:, 0] = 0
        operators[column >= count], digits[column >= count] = 0, 0
        # Each product gathers in its first place, one factor of all products at a time.
        operators, digits = operators.ravel(), digits.ravel()
        starts = np.flatnonzero(operators < 2)
        factors = np.diff(starts, append=operators.size)
        product = digits[starts]
        for i in range(1, factors.max()):
            longer = factors > i
            product[longer] = product[longer] * digits[starts[longer] + i] % self.modulus
        value = np.where(operators[starts] == 1, -product, product)
        total = np.bincount(starts // column.size, value, len(count)).astype(np.int64)
        return source[:, 1:], total[:, None] % self.modulus

    def evidence(self, inputs, labels):
        return self.trace(labels, lambda k, n: 0, ends=False)

    def chance(self, length):
        m, (total, product) = self.modulus, np.indices((self.modulus, self.modulus))
        state = total * m + product  # the sum of finished products, and the one begun, with sign
        step = np.zeros((m * m, m * m))
        for digit in range(m):
            done = (total + product) % m * m
            for after in (done + digit, done + -digit % m, total * m + product * digit % m):
                np.add.at(step, (state, after), 1 / (3 * m))
        start = np.zeros(m * m)
        start[:m] = 1 / m
        law = start @ np.linalg.matrix_power(step, (length - 1) // 2)
        return 100 * float(np.bincount(((total + product) % m).ravel(), law).max())


@dataclass
class ModularArithmeticBrackets(Task):
    """The target is the value of a sum with brackets, modulo `modulus`.

    An expression of L tokens is d, -d, (d) or (-d) for L = 1 .. 4; a longer one is (a+b) or (a-b),
    where the length of a is uniform in 1 .. L - 4 and b has the rest.
    Hard because: the sign of each digit is that of all brackets around it, and they nest deeper
    with length. Source: deterministic context-free, arXiv 2207.02098.

    >>> print(ModularArithmeticBrackets().example(9))
    inputs <bos> ( ( 1 + 0 ) - 2 ) <sep> 4
    labels .     . . . . . . . . . 4     <eos>
    """

    name: ClassVar[str] = "modular_arithmetic_brackets"

    modulus: int = 5
    """Digits are 0 .. modulus - 1."""

    def __post_init__(self):
        super().__post_init__()
        self.require(self.modulus >= 2, f"modulus must be at least 2, got {self.modulus}")

    @property
    def symbol_count(self) -> int:
        return self.modulus + 6

    def symbol(self, symbol):
        return str(symbol) if symbol < self.modulus else "+-()x="[symbol - self.modulus]

    def target_length(self, length):
        return 1

    def sample(self, rng, lengths):
        source, value = self._expressions(rng, lengths)
        return source, value[:, None]

    def _expressions(self, rng, lengths):
        """Draw an expression of each length, and its value: all brackets of one depth at a time."""
        plus, minus, opening, closing = self.modulus + np.arange(4)
        width = lengths.max()
        tokens = np.full(len(lengths) * width, closing)  # what is not written below
        begin, length = np.arange(len(lengths)) * width, lengths
        sign = np.ones_like(length)
        value = np.zeros(len(lengths), np.int64)
        while begin.size:
            last = length <= 4
            at, short = begin[last], length[last]
            digit, negative = rng.integers(0, self.modulus, at.size), short % 2 == 0
            tokens[at[short >= 3]] = opening
            place = at + (short >= 3)
            tokens[place[negative]] = minus
            tokens[place + negative] = digit
            np.add.at(value, at // width, np.where(negative, -digit, digit) * sign[last])

            begin, length, sign = begin[~last], length[~last], sign[~last]
            left = rng.integers(1, length - 3)
            minuend = rng.integers(0, 2, begin.size)
            tokens[begin] = opening
            tokens[begin + 1 + left] = plus + minuend
            begin = np.concatenate([begin + 1, begin + 2 + left])
            length = np.concatenate([left, length - left - 3])
            sign = np.concatenate([sign, np.where(minuend, -sign, sign)])
        return tokens.reshape(-1, width), value % self.modulus

    def evidence(self, inputs, labels):
        return self.trace(labels, lambda k, n: 0, ends=False)

    def chance(self, length):
        return 100 / self.modulus  # every digit is uniform


@dataclass
class SolveEquation(ModularArithmeticBrackets):
    """The target is the digit x that solves an equation with brackets, modulo `modulus`.

    As modular arithmetic with brackets, with x in place of one of the digits and then `= value`.
    Hard because: as there, and the sign of x matters too.
    Source: deterministic context-free, arXiv 2207.02098. Differs from its code in which digit is
    x: all are equally likely here; there it is the next one after a uniform place.

    >>> print(SolveEquation().example(11))
    inputs <bos> ( ( 1 + x ) - 2 ) = 4 <sep> 0
    labels .     . . . . . . . . . . . 0     <eos>
    """

    name: ClassVar[str] = "solve_equation"
    min_length = 3

    def sample(self, rng, lengths):
        expression, value = self._expressions(rng, lengths - 2)
        row, own = np.arange(len(lengths)), lengths - 2
        keys = rng.random(expression.shape)
        keys[(expression >= self.modulus) | (np.arange(own.max()) >= own[:, None])] = 2
        place = keys.argmin(axis=1)
        solution = expression[row, place]
        expression[row, place] = self.modulus + 4
        source = np.pad(expression, ((0, 0), (0, 2)))
        source[row, own], source[row, own + 1] = self.modulus + 5, value
        return source, solution[:, None]


@dataclass
class StackManipulation(Task):
    """The target is the stack after all instructions, from top to bottom.

    The source is a stack of s bits from bottom to top, s uniform in 1 .. L - 1, and then
    instructions, each as likely: pop, which an empty stack ignores, push 0 (P0), push 1 (P1).
    Hard because: what stays must be told from what was popped, by counts that grow with length.
    Source: deterministic context-free, arXiv 2207.02098. Differs from it in that no stack ends
    empty (such sources are drawn again): a target has at least one symbol.

    >>> print(StackManipulation().example(7, seed=22))
    inputs <bos> 1 0 P1 P0 pop P0 pop <sep> 1 0 1
    labels .     . . .  .  .   .  .   1     0 1 <eos>
    """

    name: ClassVar[str] = "stack_manipulation"
    variable_length: ClassVar[bool] = True
    symbol_count = 5
    min_length = 2

    def symbol(self, symbol):
        return ("0", "1", "P0", "P1", "pop")[symbol]

    def sample(self, rng, lengths):
        source = np.full((len(lengths), lengths.max()), -1)
        rows = np.arange(len(lengths))
        while rows.size:
            drawn = self._instructions(rng, lengths[rows])
            source[rows, : drawn.shape[1]] = drawn
            rows = rows[~_remaining(drawn).any(axis=1)]
        # Masks select row by row, so what remains is written in order, from the right.
        left = _remaining(source)[:, ::-1]
        target = np.full_like(source, -1)
        count = left.sum(axis=1)[:, None]
        target[np.arange(source.shape[1]) < count] = source[:, ::-1][left] % 2
        return source, target

    @staticmethod
    def _instructions(rng, lengths):
        """Draw sources, whatever they leave of the stack."""
        column = np.arange(lengths.max())
        bits = rng.integers(0, 2, (len(lengths), column.size))
        instructions = rng.integers(2, 5, bits.shape)
        stack = rng.integers(1, lengths)[:, None]
        return np.where(
            column >= lengths[:, None], -1, np.where(column < stack, bits, instructions)
        )

    def evidence(self, inputs, labels):
        ends = (labels != IGNORE).argmax(axis=1)[:, None]
        source = np.where(np.arange(inputs.shape[1]) < ends, inputs, -1)[:, 1:]
        left = _remaining(source)[:, ::-1]
        order = np.argsort(~left, axis=1, kind="stable")  # of what remains, from the top
        order = np.pad(source.shape[1] - 1 - order, ((0, 0), (0, 1)))
        return self.trace(labels, lambda k, n: np.take_along_axis(order, np.clip(k, 0, n), axis=1))

    def chance(self, length):
        """0 for lengths above 512, where it is less than 1e-6."""
        if length > 512:
            return 0.0
        law = np.zeros(length + 1)  # of the height, while instructions are carried out
        for done in range(1, length + 1):
            pushed, popped = np.roll(law, 1), np.roll(law, -1)
            pushed[0], popped[-1], popped[0] = 0, 0, law[0] + law[1]
            law = (2 * pushed + popped) / 3
            if done < length:  # a stack of so many bits is complete
                law[done] += 1 / (length - 1)
        height = np.arange(1, length + 1)
        return 100 * float((law[1:] * 0.5**height).max() / law[1:].sum())


def _remaining(source: np.ndarray) -> np.ndarray:
    """[batch, tokens]: True for each symbol that stays on the stack to the end; -1 does nothing."""
    pop = source == 4
    change = np.where(source < 0, 0, np.where(pop, -1, 1)).cumsum(axis=1)
    height = change - np.minimum(np.minimum.accumulate(change, axis=1), 0)
    least_after = np.minimum.accumulate(height[:, ::-1], axis=1)[:, ::-1]
    return (source >= 0) & ~pop & (least_after >= height)


@dataclass
class MissingDuplicate(Task):
    """A string stands twice in the source, with one bit blanked: the target is that bit.

    A nominal length of L is twice L // 2 tokens.
    Hard because: the bit that is the answer lies half the length from the blank. It can be counted,
    too: the bit is 1 if the ones that are left are odd in number.
    Source: context-sensitive, arXiv 2207.02098. Differs from it in odd lengths, there filled up
    with a symbol of their own.

    >>> print(MissingDuplicate().example(8, seed=2))
    inputs <bos> _ 1 0 0 0 1 0 0 <sep> 0
    labels .     . . . . . . . . 0     <eos>
    """

    name: ClassVar[str] = "missing_duplicate"
    symbol_count = 3
    min_length = 2

    def symbol(self, symbol):
        return "01_"[symbol]

    def source_length(self, length):
        return length // 2 * 2

    def target_length(self, length):
        return 1

    def sample(self, rng, lengths):
        half, row = lengths // 2, np.arange(len(lengths))
        bits = uniform(rng, 0, 2, (len(lengths), half.max()))
        places = np.arange(2 * half.max()) % half[:, None]
        source = np.take_along_axis(bits, places, axis=1)
        blank = rng.integers(0, 2 * half)
        target = source[row, blank]
        source[row, blank] = 2
        return source, target[:, None]

    def evidence(self, inputs, labels):
        blank = (inputs == 2).argmax(axis=1)[:, None] - 1
        return self.trace(labels, lambda k, n: blank % (n // 2), ends=False)

    def chance(self, length):
        return 50.0


@dataclass
class OddsFirst(Task):
    """The target is the symbols at the odd places of the source, then those at the even ones.

    w_1 w_3 w_5 … w_2 w_4 w_6 …
    Hard because: what comes next lies one position further back with every symbol written, and the
    distance jumps once. Source: context-sensitive, arXiv 2207.02098. Differs from its code, which
    writes the even places first, against its own description.

    >>> print(OddsFirst(symbols=5).example(5))
    inputs <bos> 2 4 4 3 4 <sep> 2 4 4 4 3
    labels .     . . . . . 2     4 4 4 3 <eos>
    """

    name: ClassVar[str] = "odds_first"

    symbols: int = 2
    """Size of the alphabet; symbols are drawn uniformly and independently."""

    def __post_init__(self):
        super().__post_init__()
        self.require(self.symbols >= 2, f"symbols must be at least 2, got {self.symbols}")

    def sample(self, rng, lengths):
        source = uniform(rng, 0, self.symbols, (len(lengths), lengths.max()))
        order = self._order(np.arange(lengths.max()), lengths[:, None])
        return source, np.take_along_axis(source, order, axis=1)

    @staticmethod
    def _order(k, n):
        """Return the position in a source of n of the k-th target symbol, from 0."""
        odds = (n + 1) // 2
        return np.where(k < odds, 2 * k, 2 * (k - odds) + 1) % n

    def evidence(self, inputs, labels):
        return self.trace(labels, self._order)

    def chance(self, length):
        return 100 * float(self.symbols) ** -length


@dataclass
class BinaryArithmetic(Task):
    """Add or multiply two binary numbers, written from the least significant bit on.

    Of L tokens one is the operator; the first number has m of the others, m uniform in 1 .. L - 2.
    A number of m bits is uniform in 1 .. 2^m - 1, so that it may end in zeros; the target does not.
    Hard because: bits of one weight lie at a distance that differs from source to source, and a
    carry may come from any of the lower ones; in a product every pair of bits has a say.
    Source: context-sensitive, arXiv 2207.02098.

    >>> print(BinaryArithmetic().example(8, seed=1))
    inputs <bos> 1 1 1 + 0 0 1 1 <sep> 1 1 0 0 1
    labels .     . . . . . . . . 1     1 0 0 1 <eos>
    """

    name: ClassVar[str] = "binary_arithmetic"
    variable_length: ClassVar[bool] = True
    symbol_count = 4
    min_length = 3

    operation: Literal["add", "multiply"] = "add"
    """Operation on the two numbers."""

    def __post_init__(self):
        super().__post_init__()
        self.require(
            self.operation in ("add", "multiply"),
            f"operation must be add or multiply, got {self.operation!r}",
        )

    def symbol(self, symbol):
        return "01+*"[symbol]

    def target_length(self, length):
        return length - 1  # a sum is one bit longer than the longer number, at most

    def sample(self, rng, lengths):
        width = lengths.max()
        source, target = np.full((2, len(lengths), width), -1)
        for row, length in enumerate(lengths.tolist()):
            first = int(rng.integers(1, length - 1))
            operands = _positive(rng, first), _positive(rng, length - 1 - first)
            operator = 2 if self.operation == "add" else 3
            source[row, :length] = [*operands[0], operator, *operands[1]]
            one, other = map(_number, operands)
            bits = _bits(one + other if self.operation == "add" else one * other)
            target[row, : bits.size] = bits
        return source, target

    def evidence(self, inputs, labels):
        if self.operation == "multiply":
            return self.trace(labels, lambda k, n: 0)
        first = (inputs == 2).argmax(axis=1)[:, None] - 1

        def index(k, n):
            weight = np.minimum(k, np.maximum(first, n - 1 - first) - 1)  # beyond: a carry
            return np.where(weight < first, weight, first + 1 + weight)

        return self.trace(labels, index)

    def chance(self, length):
        """0 for lengths above 16, where it is less than 0.2 %."""
        if length > 16:
            return 0.0
        law = np.zeros(2 ** (length - 1))
        for bits in range(1, length - 1):
            one, other = np.arange(1, 2**bits)[:, None], np.arange(1, 2 ** (length - 1 - bits))
            result = one + other if self.operation == "add" else one * other
            law += np.bincount(result.ravel(), minlength=law.size) / result.size
        return 100 * float(law.max()) / (length - 2)


@dataclass
class ComputeSqrt(Task):
    """The target is the square root of a binary number, rounded down.

    Both are written from the most significant bit on; the number is uniform in 1 .. 2^L - 1, its
    root has (L + 1) // 2 bits, leading zeros included.
    Hard because: each bit of the root depends on all bits of the number above it.
    Source: context-sensitive, arXiv 2207.02098.

    >>> print(ComputeSqrt().example(8, seed=1))
    inputs <bos> 1 1 0 0 1 1 1 0 <sep> 1 1 1 0
    labels .     . . . . . . . . 1     1 1 0 <eos>
    """

    name: ClassVar[str] = "compute_sqrt"
    symbol_count = 2

    def target_length(self, length):
        return (length + 1) // 2

    def sample(self, rng, lengths):
        source = np.zeros((len(lengths), lengths.max()), np.int64)
        target = np.zeros((len(lengths), self.target_length(lengths.max())), np.int64)
        for row, length in enumerate(lengths.tolist()):
            bits = _positive(rng, length)
            root = _bits(math.isqrt(_number(bits)))
            source[row, :length] = bits[::-1]
            end = self.target_length(length)
            target[row, end - root.size : end] = root[::-1]
        return source, target

    def evidence(self, inputs, labels):
        return self.trace(labels, lambda k, n: 0)

    def chance(self, length):
        numbers = 2**length
        largest = math.isqrt(numbers - 1)  # r is the root of r² .. r² + 2r
        return 100 * max(numbers - largest**2, 2 * largest - 1) / (numbers - 1)


def _positive(rng: np.random.Generator, count: int) -> np.ndarray:
    """Bits of a number uniform in 1 .. 2^count - 1, from the least significant on."""
    bits = rng.integers(0, 2, count)
    while not bits.any():
        bits = rng.integers(0, 2, count)
    return bits


def _number(bits: np.ndarray) -> int:
    packed = np.packbits(bits.astype(np.uint8), bitorder="little")
    return int.from_bytes(packed.tobytes(), "little")


def _bits(number: int) -> np.ndarray:
    count = number.bit_length()
    packed = np.frombuffer(number.to_bytes((count + 7) // 8, "little"), np.uint8)
    return np.unpackbits(packed, count=count, bitorder="little")
