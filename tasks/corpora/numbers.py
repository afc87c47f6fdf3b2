"""Numbers in German and English words: parallel text that needs no file.

Small as it is, it has what makes translation more than copying: German says the ones before the
tens (`einundzwanzig`, twenty-one) and writes a number below a million as one word.
"""

from __future__ import annotations

from functools import cache

import numpy as np

COUNT = 4000
LONGEST = 6  # numbers in one line

ENGLISH = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
]
ENGLISH_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
GERMAN = [
    "null",
    "eins",
    "zwei",
    "drei",
    "vier",
    "fünf",
    "sechs",
    "sieben",
    "acht",
    "neun",
    "zehn",
    "elf",
    "zwölf",
    "dreizehn",
    "vierzehn",
    "fünfzehn",
    "sechzehn",
    "siebzehn",
    "achtzehn",
    "neunzehn",
]
GERMAN_TENS = [
    "zwanzig",
    "dreißig",
    "vierzig",
    "fünfzig",
    "sechzig",
    "siebzig",
    "achtzig",
    "neunzig",
]


def english(number: int) -> str:
    """A number below a million in English words.

    >>> english(1021)
    'one thousand and twenty-one'
    >>> english(45_300)
    'forty-five thousand three hundred'
    """
    if number < 20:
        return ENGLISH[number]
    if number < 100:
        tens, ones = divmod(number, 10)
        return ENGLISH_TENS[tens - 2] + (f"-{ENGLISH[ones]}" if ones else "")
    size, name = (1000, "thousand") if number >= 1000 else (100, "hundred")
    first, rest = divmod(number, size)
    words = f"{english(first)} {name}"
    if not rest:
        return words
    return f"{words} and {english(rest)}" if rest < 100 else f"{words} {english(rest)}"


def german(number: int) -> str:
    """A number below a million as a German word.

    >>> german(1021)
    'eintausendeinundzwanzig'
    >>> german(45_301)
    'fünfundvierzigtausenddreihunderteins'
    """
    if number < 20:
        return GERMAN[number]
    if number < 100:
        tens, ones = divmod(number, 10)
        return (f"{_joined(ones)}und" if ones else "") + GERMAN_TENS[tens - 2]
    size, name = (1000, "tausend") if number >= 1000 else (100, "hundert")
    first, rest = divmod(number, size)
    return _joined(first) + name + (german(rest) if rest else "")


def _joined(number: int) -> str:
    """A number before another part of the word: eins loses its s."""
    word = german(number)
    return word.removesuffix("s") if number % 100 == 1 else word


@cache
def pairs() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """German and English lines of one to six numbers each, the same ones always."""
    rng = np.random.Generator(np.random.Philox(key=2109_12188))
    sources, targets = [], []
    for count in rng.integers(1, LONGEST + 1, COUNT):
        numbers = rng.integers(0, 10 ** rng.integers(1, 7, count)).tolist()
        sources.append(", ".join(map(german, numbers)))
        targets.append(", ".join(map(english, numbers)))
    return tuple(sources), tuple(targets)
