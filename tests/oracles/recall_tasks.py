"""Tasks of recall, retrieval and state tracking, each solved slowly as its definition says.

A solver takes one source and the task, checks that the source is well-formed, and returns the
target; where some positions are scored alone, IGNORE stands at the others.
"""

from collections import Counter
from fractions import Fraction
from math import isqrt

from lcg.tasks.base import IGNORE
from lcg.tasks.streams import stream_rng

LOOKUP = {"w": 2, "i": 3, "r": 4}


# ---- groups: elements by what they are printed as


def _apply(name, texts):
    """The product of elements, as text."""
    if name == "Z60":
        return str(sum(map(int, texts)) % 60)
    permutations, number = [], 0
    for text in texts:
        images, _, shift = text.partition("+")
        permutations.append(images)
        number += int(shift or 0)
    result = []
    for x in range(len(permutations[0])):
        for images in reversed(permutations):  # the last one acts first
            x = int(images[x])
        result.append(str(x))
    return "".join(result) + (f"+{number % 5}" if name == "A4xZ5" else "")


def word_problem(source, task):
    numbers = {task.symbol(s): s for s in range(task.symbol_count)}
    assert len(numbers) == (120 if task.group == "S5" else 60)
    texts = [task.symbol(s) for s in source]
    target, product = [], None
    for text in texts:
        product = text if product is None else _apply(task.group, [product, text])
        target.append(numbers[product])
    last = texts[-12:]
    if len(texts) == len(last):  # not step by step
        assert numbers[_apply(task.group, last)] == target[-1]
    return target


# ---- flip-flop


def ffl(source, task):
    commands, bits = source[::2], source[1::2]
    assert commands[0] == LOOKUP["w"] and commands[-1] == LOOKUP["r"]
    memory, target = None, []
    for command, bit in zip(commands, bits, strict=True):
        assert bit in (0, 1)
        if command == LOOKUP["w"]:
            memory = bit
        if command == LOOKUP["r"]:
            assert bit == memory
            target += [memory, IGNORE]
        else:
            assert command in (LOOKUP["w"], LOOKUP["i"])
            target += [IGNORE, IGNORE]
    return target


# ---- recall


def mqar(source, task):
    words = [task.symbol(s) for s in source]
    is_key = [w[0] == "k" and "v" not in w for w in words]
    memory, i = {}, 0
    for stated in range(task.pairs * task.passes + task.updates):
        if task.form == "stacked":
            key, _, value = words[i].partition("v")
            key, value, i = (key,), "v" + value, i + 1
        else:
            size = 2 if task.form == "compositional" else 1
            key, value, i = tuple(words[i : i + size]), words[i + size], i + size + 1
            assert all(w[0] == "k" for w in key)
        assert value[0] == "v"
        if key in memory:
            assert (memory[key] == value) == (stated < task.pairs * task.passes)
        else:
            assert stated < task.pairs
        memory[key] = value
    assert len(memory) == task.pairs
    assert len(set(memory.values())) == task.pairs
    live = {part for key in memory for part in key}
    if task.form == "compositional":
        assert len(live) == 2 * isqrt(task.pairs)
        for part in live:  # neither part alone tells the value
            assert sum(part in key for key in memory) == isqrt(task.pairs)
    target, asked = [IGNORE] * len(source), []
    while i < len(source):
        assert is_key[i]
        size = 2 if task.form == "compositional" else 1
        if words[i] in live:
            key = tuple(words[i : i + size])
            asked.append(key)
            target[i + size - 1] = task.keys + int(memory[key][1:])
            i += size
        else:
            i += 1
    assert sorted(asked) == sorted(memory)  # each once, and no filler is a live key
    return target


def fuzzy_recall(source, task):
    words = [task.symbol(s)[0] for s in source]
    target, memory, i = [IGNORE] * len(source), {}, 0
    while i < len(source):
        key_end = i
        while key_end < len(source) and words[key_end] == "k":
            key_end += 1
        value_end = key_end
        while value_end < len(source) and words[value_end] == "v":
            value_end += 1
        key, value = tuple(source[i:key_end]), tuple(source[key_end:value_end])
        assert 1 <= len(key) <= task.longest and len(value) <= task.longest
        whole = value_end < len(source)
        if key in memory and key_end < len(source):
            stored = memory[key]
            assert stored[: len(value)] == value and (not whole or stored == value)
            for n, token in enumerate(value):
                target[key_end - 1 + n] = token
        elif whole:
            assert len(value) >= 1
            memory[key] = value
        i = value_end
        if i < len(source) and words[i] == "n":
            i += 1
            assert task.noise > 0
    assert len(memory) <= (task.keys or max(2, len(source) // (4 * (task.longest + 1))))
    return target


def selective_copy(source, task):
    shown = [s for s in source if task.symbol(s) != "_"]
    assert len(shown) == task.copied
    return shown


def ngram_lookup(source, task):
    mark = source.index(task.symbol_count - 1)
    if task.key == "prefix":
        gram, string = source[:mark], source[mark + 1 :]
    else:
        string, gram = source[:mark], source[mark + 1 :]
    assert len(gram) == task.gram
    assert max(string) < task.symbols
    found = [i for i in range(len(string)) if string[i : i + len(gram)] == gram]
    assert len(found) == 1
    answer = string[found[0] + len(gram) :][: task.answer]
    assert len(answer) == task.answer
    return answer


def needle(source, task):
    words = [task.symbol(s) for s in source]
    asks, tells = words.index("?"), [i for i, w in enumerate(words) if w == ":"]
    assert len(tells) == task.keys * task.values
    memory = {}
    for i in tells:
        value = source[i + 1 : i + 1 + task.value_length]
        assert i + task.value_length < asks
        memory.setdefault(source[i - 1], []).append(value)
    assert len(memory) == task.keys
    assert all(len(values) == task.values for values in memory.values())
    assert words[asks::2] == ["?"] * task.queries
    asked = source[asks + 1 :: 2]
    stands = source[:asks]
    for key in memory:
        assert stands.count(key) == task.values
    if not task.literal:
        assert not set(asked) & set(stands)
        order = stream_rng(0, "associates", task.words, task.table_seed).permutation(task.words)
        first = next(s for s in range(task.symbol_count) if task.symbol(s) == "0")
        at = [order.tolist().index(other - first) for other in asked]
        asked = [first + order[i + 1 if i % 2 == 0 else i - 1] for i in at]
    assert len(set(asked)) == task.queries
    return [word for key in asked for value in memory[key] for word in value]


# ---- tracking


def variable_tracking(source, task):
    words = [task.symbol(s) for s in source]
    asks = words.index("?")
    names, values, kept = [], {}, {}
    for i, word in enumerate(words):
        if word != "=":
            continue
        left = words[i - 2] + words[i - 1]
        assert left.isalpha() and len(left) == 2 and left not in values
        right = words[i + 1]
        values[left] = right if right.isdigit() else values[right + words[i + 2]]
        kept[left] = source[i - 2 : i]
        names.append(left)
    assert len(names) == task.chains * (task.hops + 1)
    assert len(set(values.values())) == task.chains
    asked = "".join(words[asks + 1 :])
    if task.ask == "value":
        (found,) = [s for s in range(task.symbol_count) if task.symbol(s) == values[asked]]
        last = [n for n in names if values[n] == values[asked]][-1]
        assert last == asked
        return [found]
    return [s for name in names if values[name] == asked for s in kept[name]]


def lego(source, task):
    clauses = [tuple(map(task.symbol, source[i : i + 3])) for i in range(0, len(source), 3)]
    signs = {"1": 1}
    assert len({name for name, _, _ in clauses}) == len(clauses)
    assert len({of for _, _, of in clauses}) == len(clauses)  # a chain
    of_parent = {of: (name, 1 if sign == "+" else -1) for name, sign, of in clauses}
    at = "1"
    while at in of_parent:
        name, sign = of_parent[at]
        signs[name], at = sign * signs[at], name
    return [task.names + (signs[name] < 0) for name, _, _ in clauses]


def path_star(source, task):
    *edges, mark, start, goal = source
    assert task.symbol(mark) == "?"
    before = {}
    for i in range(0, len(edges), 2):
        assert edges[i + 1] not in before
        before[edges[i + 1]] = edges[i]
    assert list(before.values()).count(start) == task.arms
    assert goal not in before.values() and start not in before
    path = [goal]
    while path[-1] != start:
        path.append(before[path[-1]])
    assert len(before) == task.arms * (len(path) - 1)
    return path if task.reverse else path[::-1]


# ---- brackets and counts


def dyck_bracket(source, task):
    stack, tops = [], []
    for symbol in source:
        if symbol < task.kinds:
            stack.append(symbol)
            assert len(stack) <= task.depth
        else:
            assert stack.pop() == symbol - task.kinds
        tops.append(stack[-1] + task.kinds if stack else IGNORE)
    if task.everywhere:
        return tops
    following = [*source[1:], task.kinds]  # one closes after the end, if it can
    return [t if s >= task.kinds else IGNORE for t, s in zip(tops, following, strict=True)]


def count(source, task):
    first, last = source
    return list(range(first, last + 1))


def histogram(source, task):
    seen, target = Counter(), []
    for symbol in source:
        seen[symbol] += 1
        target.append(seen[symbol] % task.modulus)
    return target


def chance_of_reads(write, ignore, instructions):
    """Half for each write that is read: over all sequences of commands, one by one."""

    def rest(steps, unread):
        if steps == 0:
            return Fraction(1, 2) if unread else Fraction(1)
        read = 1 - write - ignore
        return (
            write * rest(steps - 1, True)
            + ignore * rest(steps - 1, unread)
            + read * rest(steps - 1, False) * (Fraction(1, 2) if unread else 1)
        )

    return rest(instructions - 2, True)


DEFINITIONS = {
    f.__name__: f
    for f in (
        word_problem,
        ffl,
        mqar,
        fuzzy_recall,
        selective_copy,
        ngram_lookup,
        needle,
        variable_tracking,
        lego,
        path_star,
        dyck_bracket,
        count,
        histogram,
    )
}
