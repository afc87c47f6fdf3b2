"""The sample of a product: each value occurs, always the same, and the others are slow."""

from itertools import product

from sampling import sampled

FACTORS = ([*"abcdefghij"], [1, 2, 3], [None, int])


def rows(*factors, **options):
    made = sampled(*factors, **options)
    quick = [parameter.values[0] for parameter in made if not parameter.marks]
    return quick, [parameter.values[0] for parameter in made if parameter.marks]


def test_each_value_occurs_and_what_is_left_of_the_whole_is_slow(monkeypatch):
    monkeypatch.setattr("sampling.WHOLE", True)
    quick, slow = rows(*FACTORS)
    assert [set(column) for column in zip(*quick, strict=True)] == [set(f) for f in FACTORS]
    assert len(quick) <= 12
    assert sorted(map(repr, quick + slow)) == sorted(map(repr, product(*FACTORS)))
    alone, rest = rows([1, 2, 3])
    assert sorted(alone) == [1, 2, 3] and not rest


def test_one_in_so_many_rows_is_kept(monkeypatch):
    monkeypatch.setattr("sampling.WHOLE", True)
    whole = set(range(300))
    quick, slow = rows(whole, one_in=3)
    assert 70 < len(quick) < 130 and set(quick) | set(slow) == whole
    assert len(rows([1, 2], one_in=10**9)[0]) == 1


def test_a_value_that_is_added_changes_few_rows():
    before = set(rows(*FACTORS)[0])
    after = set(rows([*FACTORS[0], "k"], *FACTORS[1:])[0])
    assert len(after - before) <= 2 and before <= after
    more = set(rows(FACTORS[0], [1, 2, 3, 4], FACTORS[2])[0])
    assert len(more & before) >= 5


def test_other_seeds_give_other_rows():
    assert rows(*FACTORS, seed="a") == rows(*FACTORS, seed="a") != rows(*FACTORS, seed="b")
