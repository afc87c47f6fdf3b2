"""Tasks of recall, retrieval and state tracking: their forms, what they state of themselves, the
laws they are drawn by, what shortcuts reach, and the time they take.

Seeds are fixed, so nothing here is a matter of luck.
"""

import time
import tracemalloc
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from oracles.recall_tasks import DEFINITIONS, chance_of_reads
from oracles.shortcuts import bag_so_far, majority, reaches, window
from scipy.stats import chisquare
from task_samples import fitting

from lcg.tasks.base import IGNORE, others, places
from lcg.tasks.brackets import DyckBracket
from lcg.tasks.flip_flop import FlipFlop, FlipFlopLanguage
from lcg.tasks.groups import WordProblem
from lcg.tasks.histogram import Count, Histogram
from lcg.tasks.local_count import LocalCount
from lcg.tasks.max_retrieval import MaxRetrieval
from lcg.tasks.mqmtar import MQMTAR
from lcg.tasks.n_back import NBack
from lcg.tasks.needle import Needle
from lcg.tasks.recall import MQAR, FuzzyRecall, NGramLookup, SelectiveCopy
from lcg.tasks.streams import EvalStream, train_batch
from lcg.tasks.tracking import LEGO, PathStar, VariableTracking

FORMS = [
    WordProblem("A5"),
    WordProblem("Z60"),
    WordProblem("A4xZ5"),
    FlipFlopLanguage(write=0.3, ignore=0.3),
    MQAR(form="compositional", pairs=4, keys=6, values=8, updates=1),
    MQAR(form="compositional", pairs=9, keys=40, values=20, passes=2),
    MQAR(form="stacked", pairs=3, keys=4, values=6, updates=2, passes=2),
    MQAR(pairs=1, keys=2, values=1),
    FuzzyRecall(keys=8, longest=1, noise=0.2),
    FuzzyRecall(symbols=3, longest=2),
    FuzzyRecall(keys=14, symbols=2, longest=3, noise=0.5),
    SelectiveCopy(copied=3, symbols=2),
    NGramLookup(symbols=2, gram=1, answer=1),
    NGramLookup(symbols=2, gram=4, answer=3),
    NGramLookup(symbols=3, gram=2, answer=5, key="prefix"),
    Needle(words=8, value_length=3),
    Needle(words=8, keys=4),
    Needle(words=8, values=4),
    Needle(words=8, keys=4, queries=4, value_length=2),
    Needle(words=4, literal=False, table_seed=3),
    VariableTracking(chains=1, hops=4),
    VariableTracking(chains=3, hops=1, values=3, noise=1),
    VariableTracking(chains=2, hops=3, ask="value"),
    PathStar(arms=5, nodes=500),
    PathStar(arms=1, nodes=90),
    PathStar(arms=3, nodes=300, reverse=True),
    DyckBracket(kinds=1, depth=1),
    DyckBracket(kinds=2, depth=3, everywhere=True),
    DyckBracket(kinds=9, depth=40),
]


def name(subject):
    return (
        str(subject).partition("(")[0] + "-" + str(FORMS.index(subject) if subject in FORMS else "")
    )


@pytest.mark.parametrize("subject", FORMS, ids=name)
def test_labels_of_every_form(subject):
    least = fitting(subject, 0)
    for batch in (
        train_batch(subject, 3, 0, 24, least, fitting(subject, least + 40)),
        train_batch(subject, 3, 1, 24, least, least),
    ):
        widths = subject.source_length(batch.lengths), subject.target_length(batch.lengths)
        widths = [np.broadcast_to(width, len(batch.lengths)) for width in widths]
        for inputs, labels, read, answered in zip(*batch[:2], *widths, strict=True):
            source = inputs[1 : 1 + read].tolist()
            target = labels[1 : 1 + read].tolist()
            if subject.kind == "seq2seq":
                target = labels[labels != IGNORE][:-1].tolist()
                assert len(target) == answered
            assert target == DEFINITIONS[subject.name](source, subject)


# ---- evidence: changed, it changes the label; all before it may change


def evidence(subject, length, rows=1, seed=0):
    batch = subject.encode(np.random.default_rng(seed), np.full(rows, length))
    found = subject.evidence(batch.inputs, batch.labels)
    assert found.shape == batch.labels.shape
    assert (found[batch.labels == IGNORE] < 0).all()
    return batch, found


def slow_evidence(subject, tokens, labels):
    """By position of each scored label, the positions that may be meant, each found by search."""
    scored = [t for t, label in enumerate(labels) if label not in (IGNORE, subject.eos)]
    read = [t for t, token in enumerate(tokens) if token == subject.sep]
    words = [subject.symbol(s) if s < subject.symbol_count else "" for s in tokens]
    if isinstance(subject, WordProblem):
        return dict.fromkeys(scored, 1)
    if isinstance(subject, FlipFlop | FlipFlopLanguage):
        return {t: max(u for u in range(t) if words[u] == "w") for t in scored}
    if isinstance(subject, Histogram):
        return {t: tokens.index(tokens[t]) for t in scored}
    if isinstance(subject, SelectiveCopy):
        shown = [t for t in range(1, read[0]) if words[t] != "_"]
        return dict(zip(scored, shown, strict=True))
    if isinstance(subject, NBack):
        return {t: t - subject.n if t > subject.n else -1 for t in scored}
    if isinstance(subject, LocalCount):
        return {t: t - labels[t] for t in scored}
    if isinstance(subject, MaxRetrieval):
        largest = max(token for token in tokens[1 : read[0] : 2])
        return {t: tokens.index(largest) for t in scored}
    if isinstance(subject, DyckBracket):
        stack, tops = [], [-1]
        for t in range(1, len(tokens)):
            if tokens[t] < subject.kinds:
                stack.append(t)
            else:
                stack.pop()
            tops.append(stack[-1] if stack else -1)
        return {t: tops[t] for t in scored}
    if isinstance(subject, MQMTAR):
        body, found = words[: words.index("?")], {}
        asks = [t for t in range(read[0]) if words[t] == "?"]
        for i, t in enumerate(scored):
            query, letter = divmod(i, 1 + subject.value_length)
            key = tokens[asks[query] + 1 : asks[query] + 1 + subject.key_length]
            at = [u for u in range(len(body)) if tokens[u : u + subject.key_length] == key]
            found[t] = at[0] if letter else -1
        return found
    if isinstance(subject, MQAR):
        size, found = (2 if subject.form == "compositional" else 1), {}
        for t in scored:
            key = words[t - size + 1 : t + 1]
            for u in range(1, 1 + subject._context, subject._pair):
                stated = words[u : u + size]
                if key == ([stated[0].partition("v")[0]] if subject.form == "stacked" else stated):
                    found[t] = u
        return found
    if isinstance(subject, FuzzyRecall):
        found = {}
        begins = [t for t, w in enumerate(words) if w[:1] == "k" and words[t - 1][:1] != "k"]
        ends = [
            next(u for u in range(t, len(words) + 1) if "".join(words[u : u + 1])[:1] != "k")
            for t in begins
        ]
        for t in scored:
            mine = max(i for i, begin in enumerate(begins) if begin <= t)
            key = tokens[begins[mine] : ends[mine]]
            found[t] = max(begins[i] for i in range(mine) if tokens[begins[i] : ends[i]] == key)
        return found
    if isinstance(subject, NGramLookup):
        source = tokens[1 : read[0]]
        mark = words.index("|")
        first, last = (1, mark), (mark + 1, read[0])
        gram, string = (first, last) if subject.key == "prefix" else (last, first)
        gram = tokens[slice(*gram)]
        (at,) = [
            u
            for u in range(string[0], string[1] - subject.gram + 1)
            if tokens[u : u + subject.gram] == gram
        ]
        assert len(source) == read[0] - 1
        return {t: at if i == 0 else at + subject.gram + i for i, t in enumerate(scored)}
    if isinstance(subject, Needle):
        found = {}
        for i, t in enumerate(scored):
            value = labels[scored[0] + i // subject.value_length * subject.value_length :]
            value = value[: subject.value_length]
            found[t] = [
                u
                for u in range(1, read[0])
                if words[u + 1 : u + 2] == [":"]
                and tokens[u + 2 : u + 2 + subject.value_length] == value
            ]
        return found
    if isinstance(subject, VariableTracking):
        at = {"".join(words[t - 2 : t]): t - 2 for t, w in enumerate(words) if w == "="}
        if subject.ask == "names":
            told = [
                "".join(map(subject.symbol, labels[scored[i] : scored[i] + 2]))
                for i in range(0, len(scored), 2)
            ]
            return {t: at[told[i // 2]] for i, t in enumerate(scored)}
        name = "".join(words[read[0] - 2 : read[0]])
        while not words[at[name] + 3].isdigit():
            name = "".join(words[at[name] + 3 : at[name] + 5])
        return {scored[0]: at[name]}
    if isinstance(subject, LEGO):
        at = {words[t]: t for t in range(1, read[0], 3)}
        found = {}
        for i, t in enumerate(scored):
            here, way = words[1 + 3 * i], []
            while here != "1":
                way.append(at[here])
                here = words[at[here] + 2]
            found[t] = min(way)
        return found
    if isinstance(subject, PathStar):
        ask = words.index("?")
        edge = {(words[t], words[t + 1]): t for t in range(1, ask, 2)}
        path = [subject.symbol(labels[t]) for t in scored]
        steps = [edge[b, a] if subject.reverse else edge[a, b] for a, b in pairwise(path)]
        if subject.reverse:
            return dict(zip(scored, [ask + 2, *steps], strict=True))
        return dict(zip(scored, [ask + 1, min(steps), *steps[1:]], strict=True))
    assert isinstance(subject, Count)
    return {t: 1 if i == 0 else 2 for i, t in enumerate(scored)}


STATED = [
    *FORMS,
    WordProblem(),
    FlipFlop(),
    FlipFlopLanguage(),
    Histogram(),
    NBack(),
    LocalCount(max_reps=4),
    MaxRetrieval(),
    MQMTAR(),
    LEGO(),
    Count(),
]


@pytest.mark.parametrize("subject", STATED, ids=name)
def test_evidence_is_where_a_search_finds_it(subject):
    least = fitting(subject, 6)
    for t, longest in enumerate((least, fitting(subject, least + 30))):
        batch = train_batch(subject, 5, t, 16, min(least, longest), max(least, longest))
        found = subject.evidence(batch.inputs, batch.labels)
        for tokens, labels, row in zip(*(a.tolist() for a in batch[:2]), found, strict=True):
            tokens = [token for token in tokens if token != subject.pad]
            expected = slow_evidence(subject, tokens, labels)
            for at, place in enumerate(row.tolist()):
                if at in expected:
                    meant = expected[at]
                    assert place in meant if isinstance(meant, list) else place == meant
                elif at >= len(labels) or labels[at] != subject.eos:
                    assert place < 0


# ---- chance


CHANCES = [
    (FlipFlop(), 12),
    (FlipFlopLanguage(), 20),
    (FlipFlopLanguage(write=0.4, ignore=0.1), 10),
    (NBack(symbols=3), 6),
    (LocalCount(max_reps=3, symbols=4), 5),
    (LocalCount(max_reps=4, symbols=4), 11),
    (MaxRetrieval(classes=4), 12),
    (MQMTAR(alphabet=4, words=4, key_length=1, value_length=1, queries=2, pairs=3), 15),
    (DyckBracket(kinds=2, depth=2), 5),
    (DyckBracket(kinds=2, depth=3, everywhere=True), 4),
    (MQAR(pairs=1, keys=3, values=4), 4),
    (MQAR(pairs=2, updates=1, keys=4, values=4), 10),
    (FuzzyRecall(keys=1, symbols=2, longest=2), 20),
    (SelectiveCopy(copied=2, symbols=3), 4),
    (NGramLookup(symbols=4, gram=2, answer=2), 9),
    (Needle(words=4), 9),
    (Needle(words=6, values=2), 9),
    (VariableTracking(chains=1, hops=0, values=4, ask="value"), 12),
    (LEGO(names=4), 4),
    (PathStar(arms=1, nodes=3), 1),
    (Count(symbols=8), 4),
    (Histogram(symbols=2, modulus=3), 5),
    (Histogram(symbols=4), 4),
]


@pytest.mark.parametrize(("subject", "length"), CHANCES, ids=str)
def test_chance_is_what_the_best_blind_answer_reaches(subject, length):
    """Answers tried: each row's own where rows are scored alike, one symbol everywhere, and at each
    position the most frequent label of the rows that are right up to there."""
    count = 20_000
    labels = train_batch(subject, 0, 0, count, length, length).labels
    ignored = (labels == IGNORE) | (labels == subject.eos)
    reached = [((labels == s) | ignored).all(axis=1).sum() for s in range(subject.symbol_count)]
    if subject.kind != "labelled":
        reached.append(Counter(row.tobytes() for row in labels).most_common(1)[0][1])
    right = np.arange(count)
    for at in range(labels.shape[1]):
        scored = Counter(labels[right, at].tolist())
        del scored[IGNORE]
        if scored:
            most = scored.most_common(1)[0][0]
            right = right[np.isin(labels[right, at], [IGNORE, most])]
    share = max(*reached, len(right)) / count
    chance = subject.chance(length) / 100
    assert abs(share - chance) < 4.5 * (chance * (1 - chance) / count) ** 0.5 + 2e-3


def test_chance_of_reads_by_all_sequences_of_commands():
    for write, ignore, length in ((0.1, 0.8, 12), (0.4, 0.1, 15), (0.0, 1.0, 8)):
        exact = 100 * float(chance_of_reads(write, ignore, length // 2))
        assert FlipFlopLanguage(write, ignore).chance(length) == pytest.approx(exact)


def test_chance_at_any_length(drawn_class):
    subject = drawn_class()
    for length in (0, 64, 100_000):
        assert 0 <= subject.chance(fitting(subject, length)) <= 100


# ---- laws


def test_places_are_a_weighted_draw_without_replacement():
    rng = np.random.default_rng(0)
    rooms = np.where(np.arange(40_000) % 2, 9, 5)
    found = places(rng, rooms, 2, power=0.01)
    assert (found[:, 0] != found[:, 1]).all()
    assert (found < rooms[:, None]).all()
    for room in (5, 9):
        weight = np.arange(1, room + 1) ** -0.99
        weight /= weight.sum()
        both = weight[:, None] * weight / (1 - weight[:, None])  # the second among the others
        np.fill_diagonal(both, 0)
        both = (both + both.T) / 2  # in random order
        seen = np.zeros_like(both)
        np.add.at(seen, tuple(found[rooms == room].T), 1)
        off = ~np.eye(room, dtype=bool)
        assert chisquare(seen[off], both[off] * seen.sum()).pvalue > 1e-4


def test_others_are_uniform_among_those_not_taken():
    rng = np.random.default_rng(0)
    taken = np.array([[7, 0, 3]] * 300 + [[1, 2, 8]] * 300)
    found = others(rng, taken, 9, (600, 50))
    for rows, free in ((found[:300], [1, 2, 4, 5, 6, 8]), (found[300:], [0, 3, 4, 5, 6, 7])):
        assert sorted(set(rows.ravel().tolist())) == free
        assert chisquare(np.bincount(rows.ravel(), minlength=9)[free]).pvalue > 1e-4


def test_mqar_gaps_follow_the_power_law():
    """P(g) ∝ g^-0.99 for the slot of a query, whichever key it is for."""
    subject, length = MQAR(pairs=1, keys=8, values=8), 2 + 2 * 50
    batch, found = evidence(subject, length, 20_000)
    gap = (np.nonzero(batch.labels != IGNORE)[1] - 3) // 2
    weight = np.arange(1, 51) ** -0.99
    assert chisquare(np.bincount(gap, minlength=50), weight / weight.sum() * 20_000).pvalue > 1e-4
    assert (found.max(axis=1) == 1).all()


def test_mqar_order_of_statement_tells_nothing_of_the_query():
    subject = MQAR(pairs=4, keys=16, values=16)
    batch, found = evidence(subject, 64, 4000)
    stated = (found[batch.labels != IGNORE] - 1) // 2
    assert chisquare(np.bincount(stated[::4], minlength=4)).pvalue > 1e-4  # of the first query


def test_fuzzy_recall_recedes_with_length():
    medians = []
    for length in (128, 512, 2048):
        batch, found = evidence(FuzzyRecall(), length, 64)
        far = np.arange(length + 1) - found
        medians.append(np.median(far[batch.labels != IGNORE]))
    assert medians[1] > 3 * medians[0] and medians[2] > 3 * medians[1]


def test_ffl_commands_have_their_probabilities_in_each_split():
    def shares(subject, split):
        rows = EvalStream(subject, 0, split, 400).batch(0, 64).inputs[:, 1::2][:, 1:-1]
        return [(rows == command).mean() for command in (2, 3, 4)]

    sparse = FlipFlopLanguage(test="sparse")
    assert shares(sparse, "validation") == pytest.approx([0.1, 0.8, 0.1], abs=0.01)
    assert shares(sparse, "test") == pytest.approx([0.01, 0.98, 0.01], abs=0.003)
    dense = FlipFlopLanguage(test="dense")
    assert shares(dense, "test") == pytest.approx([0.45, 0.1, 0.45], abs=0.02)
    assert sparse.for_split("train") is sparse


def test_ffl_last_write_is_geometrically_far():
    subject = FlipFlopLanguage(write=0.1, ignore=0.8)
    _, found = evidence(subject, 4000, 64)
    far = (np.arange(4001) - found)[(found >= 0) & (np.arange(4001) > 2000)] // 2
    weight = 0.1 * 0.9 ** np.arange(60)  # how many instructions were no write
    seen = np.bincount(far, minlength=100)[1:61]
    assert np.abs(seen / len(far) - weight).max() < 0.01


@pytest.mark.parametrize("subject", [Needle(words=20), Needle(words=20, keys=3, values=2)], ids=str)
def test_needle_depth_is_uniform(subject):
    length, count = 60, 20_000
    batch, found = evidence(subject, length, count)
    needles = subject.keys * subject.values
    scored = (batch.labels != IGNORE) & (batch.labels != subject.eos)
    depth = found[scored].reshape(count, -1) - 1
    hay = length - 2 - 2 * needles  # depths of one needle; others shift those behind them
    if needles == 1:
        assert chisquare(np.bincount(depth.ravel(), minlength=hay)).pvalue > 1e-4
    assert abs(depth.mean() / (length - 2 - 3) - 0.5) < 0.01
    (batch, _), (long, _) = evidence(subject, length), evidence(subject, 6000)
    assert (batch.inputs == 0).sum() == (long.inputs == 0).sum() == needles


def test_associates_are_pairs_of_all_words_that_stay():
    subject = Needle(words=12, literal=False)
    pairs = set()
    for seed in range(300):
        batch = subject.encode(np.random.default_rng(seed), np.array([12]))
        words = batch.inputs[0].tolist()
        pairs.add((words[words.index(0) - 1], words[words.index(1) + 1]))
    assert len(pairs) == 12
    assert pairs == {(b, a) for a, b in pairs}
    assert all(a != b for a, b in pairs)


BALANCED = [
    (WordProblem("A5"), 12),
    (MQAR(pairs=2, keys=4, values=4), 20),
    (MQAR(form="compositional", pairs=4, keys=8, values=6, updates=2), 40),
    (FuzzyRecall(keys=3, symbols=4), 60),
    (SelectiveCopy(copied=4, symbols=4), 20),
    (Needle(words=10, keys=3), 30),
    (NGramLookup(symbols=4), 30),
    (VariableTracking(ask="value", values=4), 40),
    (LEGO(), 10),
    (FlipFlopLanguage(), 40),
    (DyckBracket(), 40),
]


@pytest.mark.parametrize(("subject", "length"), BALANCED, ids=str)
def test_labels_are_balanced(subject, length):
    labels = train_batch(subject, 1, 0, 8000, length, length).labels
    counts = Counter(labels[(labels != IGNORE) & (labels != subject.eos)].tolist())
    share = np.array(list(counts.values())) / sum(counts.values())
    assert np.abs(share * len(share) - 1).max() < 0.12


# ---- shortcuts

SHORT = [
    # task, length, and how many % of sequences majority, window and bag may get right
    (FlipFlopLanguage(), 40, 42, 42, 42),
    (MQAR(pairs=2, keys=4, values=2), 24, 60, 75, 70),
    (MQAR(form="compositional", pairs=4, keys=6, values=4), 40, 10, 10, 10),
    (FuzzyRecall(keys=4, symbols=4, longest=1), 24, 10, 10, 10),
    (SelectiveCopy(copied=4, symbols=2), 10, 10, 10, 50),
    (NGramLookup(symbols=2, gram=3, answer=1), 14, 60, 70, 70),
    (Needle(words=8, keys=3), 20, 20, 30, 30),
    (VariableTracking(chains=2, hops=2, values=2, noise=1, ask="value"), 40, 60, 60, 60),
    (LEGO(names=8), 6, 10, 10, 10),
    (PathStar(nodes=9), 4, 10, 10, 10),
    (DyckBracket(kinds=4, depth=12), 24, 10, 20, 20),
    (Histogram(symbols=2, modulus=4), 30, 10, 10, 100),  # which a bag is
]


@pytest.mark.parametrize(
    ("subject", "length", "none", "last", "unordered"),
    [
        pytest.param(*row, marks=() if i % 3 == 0 else pytest.mark.slow)
        for i, row in enumerate(SHORT)
    ],
    ids=str,
)
def test_shortcuts_do_not_solve_it(subject, length, none, last, unordered):
    features = (majority, window, bag_so_far)
    found = [reaches(feature, subject, length, rows=2000) for feature in features]
    assert found[0] <= none
    assert found[1] <= last
    assert found[2] <= unordered


@pytest.mark.parametrize("group", ["S5", "A5", "A4xZ5", "Z60"])
def test_a_product_depends_on_every_element_and_but_for_sums_on_their_order(group):
    subject = WordProblem(group)
    lengths = np.array([40])
    source, product = subject.sample(np.random.default_rng(0), lengths)

    def of(row):
        return np.array(DEFINITIONS["word_problem"](row.tolist(), subject))

    for at in (0, 17, 39):
        changed = source[0].copy()
        changed[at] = (changed[at] + 1) % subject.symbol_count
        assert ((of(changed) != product[0]) == (np.arange(40) >= at)).all()
    orders = [np.random.default_rng(seed).permutation(source[0]) for seed in range(8)]
    same = [of(row)[-1] == product[0, -1] for row in orders]
    assert all(same) if group == "Z60" else not all(same)


# ---- options


@pytest.mark.parametrize(
    ("cls", "options", "length", "said"),
    [
        (WordProblem, {"group": "S4"}, None, "group must be one of S5, A5, Z60, A4xZ5, got 'S4'"),
        (FlipFlopLanguage, {"write": 0.6, "ignore": 0.6}, None, "write and ignore must be at le"),
        (FlipFlopLanguage, {"test": "rare"}, None, "test must be one of same, sparse, dense"),
        (MQAR, {"form": "grid"}, None, "form must be one of plain, compositional, stacked"),
        (MQAR, {"pairs": 5, "form": "compositional"}, None, "pairs must be a square for a grid"),
        (MQAR, {"updates": 5}, None, "updates must lie in 0 to pairs=4, got 5"),
        (MQAR, {"keys": 4}, None, "keys must be more than the 4 of a sequence, got 4"),
        (MQAR, {"values": 3}, None, "values must be at least pairs + updates = 4, got 3"),
        (MQAR, {"form": "stacked"}, None, "stacked pairs need keys · values = 16777216 symbols"),
        (MQAR, {"power": 0.0}, None, "power must be above 0, got 0.0"),
        (MQAR, {}, 15, "length 15 is too short, the least possible is 16"),
        (FuzzyRecall, {"keys": 3, "symbols": 2, "longest": 1}, None, "keys=3, but only 2 words"),
        (FuzzyRecall, {"longest": 1}, 200, "keys=25, but only 16 words exist"),
        (FuzzyRecall, {"noise": 1.0}, None, "noise must lie in [0, 1), got 1.0"),
        (SelectiveCopy, {"copied": 0}, None, "copied must be at least 1, got 0"),
        (NGramLookup, {"key": "middle"}, None, "key must be suffix or prefix, got 'middle'"),
        (Needle, {"queries": 2}, None, "queries must be at most keys=1, got 2"),
        (Needle, {"words": 21}, None, "words must be even and at least 3, got 21"),
        (VariableTracking, {"ask": "all"}, None, "ask must be names or value, got 'all'"),
        (VariableTracking, {"hops": 338}, None, "chains · (hops + 1) must be at most 676, the"),
        (LEGO, {"names": 9}, 10, "length 10 needs as many names, but names=9"),
        (PathStar, {"nodes": 9}, 5, "length 5 needs 11 nodes, but nodes=9"),
        (PathStar, {"arms": 9, "nodes": 9}, None, "nodes must be more than arms=9, got 9"),
        (DyckBracket, {"depth": 0}, None, "depth must be at least 1, got 0"),
        (Count, {"symbols": 9}, 10, "length 10 needs as many numbers, but symbols=9"),
        (Histogram, {"modulus": 1}, None, "modulus must be at least 2, got 1"),
    ],
)
def test_what_cannot_be_is_one_line(cls, options, length, said):
    with pytest.raises(ValueError) as error:
        cls(**options).check_length(length)
    assert str(error.value).startswith(f"{cls.name}: {said}") and "\n" not in str(error.value)


# ---- cost

FAMILIES = [
    (WordProblem(), 100_000),
    (FlipFlopLanguage(), 100_000),
    (MQAR(), 100_000),
    (FuzzyRecall(symbols=64), 100_000),
    (SelectiveCopy(), 100_000),
    (NGramLookup(), 100_000),
    (Needle(keys=4, queries=4), 100_000),
    (VariableTracking(), 100_000),
    (LEGO(names=33_334), 33_333),
    (PathStar(nodes=50_001), 25_000),
    (DyckBracket(), 100_000),
    (Count(symbols=100_000), 100_000),
    (Histogram(), 100_000),
]
QUICK = (WordProblem, MQAR, Needle, VariableTracking, DyckBracket, Histogram)


@pytest.mark.parametrize(
    ("subject", "length"),
    [
        pytest.param(subject, n, marks=() if isinstance(subject, QUICK) else pytest.mark.slow)
        for subject, n in FAMILIES
    ],
    ids=str,
)
def test_a_hundred_thousand_tokens_take_a_second_and_linear_memory(subject, length):
    def draw(length):
        tracemalloc.start()
        subject.encode(np.random.default_rng(0), np.array([length]))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    short, long = draw(length // 4), draw(length)
    assert long < 5 * short + 2**20
    times = []
    for _ in range(3):
        start = time.perf_counter()
        batch = subject.encode(np.random.default_rng(0), np.array([length]))
        times.append(time.perf_counter() - start)
    assert batch.inputs.size >= 0.99 * 100_000
    assert min(times) < 1


@pytest.mark.parametrize(("subject", "length"), FAMILIES, ids=str)
@pytest.mark.slow
def test_evidence_of_a_hundred_thousand_tokens(subject, length):
    start = time.perf_counter()
    evidence(subject, length)
    assert time.perf_counter() - start < 4
