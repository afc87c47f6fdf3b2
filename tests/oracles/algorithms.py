"""Slow solvers of the algorithmic tasks, from their definitions, one sequence at a time.

Each takes the symbols of one source and the task, checks that the source is well-formed, and
returns the target. What symbols mean is read from how they are printed.
"""

import re
from collections import Counter
from itertools import groupby, pairwise, product


def copy(source, task):
    if task.distinct:
        assert len(set(source)) == len(source)
    return [symbol for _ in range(task.times) for symbol in source]


def sort(source, task):
    if task.distinct:
        assert len(set(source)) == len(source)
    return [symbol for symbol in range(task.symbols) for other in source if other == symbol]


def majority(source, task):
    target = []
    for first in range(task.period):
        counts = dict.fromkeys(range(task.symbols), 0)
        for place in range(first, len(source), task.period):
            counts[source[place]] += 1
        best = [symbol for symbol, count in counts.items() if count == max(counts.values())]
        assert len(best) == 1
        target += best
    return target


def mode(source, task):
    counts = Counter(source)  # in the order of first occurrence, which sorted() keeps
    assert len(counts) == task.distinct
    ranked = sorted(counts, key=lambda symbol: counts[symbol])
    assert counts[ranked[-1]] > counts[ranked[-2]]
    return ranked if task.scratchpad else ranked[-1:]


def parity(source, task):
    steps = cumulative_parity(source, task)
    return steps if task.scratchpad else steps[-1:]


def cumulative_parity(source, task):
    steps = [False]
    for bit in source:
        steps.append(steps[-1] != (bit == 1))
    return [int(step) for step in steps[1:]]


def addition(source, task):
    words, reverse = printed(source, task), task.order == "reversed"
    numbers, hints = [], []
    for part in " ".join(words).split("+"):
        number = part.split()
        assert all(word[0] == "h" for word in number[::2]) or not task.hints
        hints.append([int(word[1:]) for word in number if word[0] == "h"])
        number = [int(word) for word in number if word[0] != "h"]
        numbers.append(number if reverse else number[::-1])  # the least significant digit first
    a, b = numbers
    if task.padded:
        assert len(a) == len(b)
    else:
        assert all(number == [0] or number[-1] != 0 for number in numbers)
    value = sum(d * task.base**i for number in numbers for i, d in enumerate(number))
    total = [value % task.base]
    while value >= task.base or (task.padded and len(total) <= len(a)):
        value //= task.base
        total.append(value % task.base)
    if not reverse:
        total = total[::-1]
    if task.scratchpad:
        steps, carry = [], 0
        for i in range(max(len(a), len(b))):
            pair = [number[i] if i < len(number) else 0 for number in numbers]
            carry = 1 if sum(pair) + carry >= task.base else 0
            steps += [*pair, carry]
        return [*steps, task.base + 1, *total]
    if task.hints:
        least = min(hints[0])
        for number, own in zip(numbers, hints, strict=True):
            ascending = list(range(least, least + len(number)))
            assert own == (ascending if reverse else ascending[::-1])
        last = least + len(total) - 1
        shown = range(least, last + 1) if reverse else range(last, least - 1, -1)
        pairs = zip(shown, total, strict=True)
        return [symbol for hint, digit in pairs for symbol in (task.base + 2 + hint, digit)]
    return total


def even_pairs(source, task):
    pairs = list(pairwise(source))
    return [(pairs.count((0, 1)) + pairs.count((1, 0))) % 2]


def cycle_navigation(source, task):
    place = 0
    for step in printed(source, task):
        place += {"L": -1, "S": 0, "R": 1}[step]
    return [place % task.places]


def modular_arithmetic(source, task):
    words = printed(source, task)
    assert all(word.isdigit() for word in words[::2])
    assert all(word in "+-*" for word in words[1::2])
    return [eval("".join(words)) % task.modulus]


def modular_arithmetic_brackets(source, task):
    return [eval("".join(printed(source, task))) % task.modulus]


def solve_equation(source, task):
    expression, value = "".join(printed(source, task)).split("=")
    assert expression.count("x") == 1
    found = [
        x
        for x in range(task.modulus)
        if (eval(expression.replace("x", str(x))) - int(value)) % task.modulus == 0
    ]
    assert len(found) == 1
    return found


def stack_manipulation(source, task):
    words, stack = printed(source, task), []
    count = len(list(next(group for _, group in groupby(words, key=lambda w: w in "01"))))
    assert words[0] in "01" and not {"0", "1"} & set(words[count:]) and count < len(words)
    for word in words:
        if word == "pop":
            stack = stack[:-1]
        else:
            stack.append(int(word[-1]))
    assert stack
    return stack[::-1]


def missing_duplicate(source, task):
    half = len(source) // 2
    first, second = source[:half], source[half:]
    assert source.count(2) == 1 and len(first) == len(second)
    found = [a if b == 2 else b for a, b in zip(first, second, strict=True) if 2 in (a, b)]
    assert all(a == b or 2 in (a, b) for a, b in zip(first, second, strict=True))
    return found


def odds_first(source, task):
    places = range(1, len(source) + 1)
    return [
        s for remainder in (1, 0) for s, i in zip(source, places, strict=True) if i % 2 == remainder
    ]


def binary_arithmetic(source, task):
    text = "".join(printed(source, task))
    sign = {"add": "+", "multiply": "*"}[task.operation]
    one, other = (int(number[::-1], 2) for number in text.split(sign))
    assert one > 0 and other > 0
    value = one + other if task.operation == "add" else one * other
    return [int(bit) for bit in reversed(format(value, "b"))]


def compute_sqrt(source, task):
    value, root = int("".join(map(str, source)), 2), 0
    assert value > 0
    for bit in reversed(range((len(source) + 1) // 2)):
        if (root + 2**bit) ** 2 <= value:
            root += 2**bit
    return [root >> bit & 1 for bit in reversed(range((len(source) + 1) // 2))]


# ---- membership


def recognition(source, task):
    words = printed(source, task)
    member = belongs(words, task.language)
    return [len(alphabet(task.language)) + member]


def alphabet(name):
    family, *sizes = name.split("-")
    if family in ("dyck", "shuffle"):
        return range(2 * int(sizes[0]))
    if family == "counter":
        return range(int(sizes[0]))
    return "01#" if name == "marked-reversal" else "01"


PATTERNS = {
    "tomita-1": "1*",
    "tomita-2": "(10)*",
    "tomita-4": "((?!000).)*",
    "tomita-7": "0*1*0*1*",
    "repeat-01": "(01)*",
    "first": "1.*",
}


def belongs(words, name):
    text = "".join(words)
    family, *sizes = name.split("-")
    zeros, ones = text.count("0"), text.count("1")
    if name in PATTERNS:
        return bool(re.fullmatch(PATTERNS[name], text))
    if name == "tomita-3":
        runs = [(symbol, len(list(group))) for symbol, group in groupby(text)]
        wrong = [a == "1" and n % 2 == 1 and m % 2 == 1 for (a, n), (_, m) in pairwise(runs)]
        return not any(wrong)
    if name == "tomita-5":
        return zeros % 2 == 0 and ones % 2 == 0
    if name == "tomita-6":
        return (zeros - ones) % 3 == 0
    if name == "parity":
        return ones % 2 == 1
    if name == "even-pairs":
        return sum(a != b for a, b in pairwise(text)) % 2 == 0
    if name == "majority":
        return ones > zeros
    if name == "unmarked-reversal":
        return len(text) % 2 == 0 and text[: len(text) // 2] == text[len(text) // 2 :][::-1]
    if name == "marked-reversal":
        one, *others = text.split("#")
        return others == [one[::-1]]
    if family == "counter":
        letters = sorted(set(words))
        each = len(words) // int(sizes[0])
        return len(letters) == int(sizes[0]) and words == [a for a in letters for _ in range(each)]
    partner, stack, deepest = partners(int(sizes[0])), [], 0
    stacks = {kind: [] for kind in partner.values()}
    for word in words:
        here = stack if family == "dyck" else stacks[partner.get(word, word)]
        if word not in partner:
            here.append(word)
            deepest = max(deepest, len(here))
        elif not here or here.pop() != partner[word]:
            return False
    if len(sizes) > 1 and deepest > int(sizes[1]):
        return False
    return not stack and not any(stacks.values())


def partners(kinds):
    """The opening bracket of each closing one."""
    if kinds <= 4:
        return dict(zip(")]}>"[:kinds], "([{<", strict=False))
    return {f"{i})": f"({i}" for i in range(kinds)}


def words_of_length(name, length):
    """Every word of a language over two symbols, of a length."""
    return {"".join(w) for w in product("01", repeat=length) if belongs(list(w), name)}


def printed(source, task):
    return [task.symbol(symbol) for symbol in source]


SOLVERS = {
    solver.__name__: solver
    for solver in (
        copy,
        sort,
        majority,
        mode,
        parity,
        cumulative_parity,
        addition,
        even_pairs,
        cycle_navigation,
        modular_arithmetic,
        modular_arithmetic_brackets,
        solve_equation,
        stack_manipulation,
        missing_duplicate,
        odds_first,
        binary_arithmetic,
        compute_sqrt,
        recognition,
    )
}
