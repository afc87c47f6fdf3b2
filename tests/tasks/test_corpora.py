"""The scripts that make corpora, on catalogues and packages that the tests write themselves."""

import gettext
import subprocess
import sys
from pathlib import Path

import pytest

from lcg.tasks.corpora.gettext_pairs import cleaned, usable
from lcg.tasks.corpora.numbers import english, german, pairs
from lcg.tasks.corpora.python_sources import divided

CATALOGUE = """
msgid ""
msgstr "Content-Type: text/plain; charset=UTF-8\\n"

msgid "Delete <b>%(name)s</b>?"
msgstr "<b>%(name)s</b> löschen?"

#, fuzzy
msgid "Guess"
msgstr "Vermutung"

msgid "%d file"
msgid_plural "%d files"
msgstr[0] "%d Datei"
msgstr[1] "%d Dateien"

msgid "Untranslated"
msgstr ""

msgid "Server"
msgstr "Server"

msgid "Lost {count} of them"
msgstr "Einige verloren"

#~ msgid "Obsolete"
#~ msgstr "Veraltet"
"""


def script(name: str, *words: str) -> subprocess.CompletedProcess:
    root = Path(__file__).parents[2]
    command = [sys.executable, "-m", f"lcg.tasks.corpora.{name}", *words]
    return subprocess.run(command, capture_output=True, text=True, cwd=root)


@pytest.fixture
def packages(tmp_path) -> Path:
    """An installed package with a catalogue in German."""
    place = tmp_path / "packages"
    folder = place / "talk" / "locale" / "de" / "LC_MESSAGES"
    folder.mkdir(parents=True)
    (folder / "talk.po").write_text(CATALOGUE, encoding="utf-8")
    about = place / "talk-1.5.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Name: talk\nVersion: 1.5\nLicense-Expression: MIT\n")
    (about / "RECORD").write_text("talk/locale/de/LC_MESSAGES/talk.po,,\n")
    return place


def test_catalogues_become_pairs(packages, tmp_path):
    pytest.importorskip("babel")
    done = script("gettext_pairs", str(tmp_path / "out"), "--path", str(packages))
    assert done.returncode == 0, done.stderr
    assert "3 pairs of 1 packages" in done.stdout
    sides = [(tmp_path / "out" / f"gettext.{s}").read_text().splitlines() for s in ("de", "en")]
    assert sides == [
        ["{name} löschen?", "{} Datei", "{} Dateien"],
        ["Delete {name}?", "{} file", "{} files"],
    ]
    assert "| talk | 1.5 | MIT | 1 | 5 | 3 |" in (tmp_path / "out" / "SOURCES.md").read_text()


def test_a_compiled_catalogue_beside_its_source_counts_once(packages, tmp_path):
    pytest.importorskip("babel")
    from babel.messages.mofile import write_mo
    from babel.messages.pofile import read_po

    (source,) = packages.rglob("*.po")
    compiled = source.with_suffix(".mo")
    with source.open("rb") as text, compiled.open("wb") as file:
        write_mo(file, read_po(text))
    assert gettext.GNUTranslations(compiled.open("rb")).ngettext("%d file", "%d files", 2)
    record = packages / "talk-1.5.dist-info" / "RECORD"
    record.write_text(f"{record.read_text()}talk/locale/de/LC_MESSAGES/talk.mo,,\n")
    for out in ("both", "alone"):
        done = script("gettext_pairs", str(tmp_path / out), "--path", str(packages))
        assert "3 pairs" in done.stdout, done.stderr
        source.unlink(missing_ok=True)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nothing"], "nothing: not installed, or without texts in de"),
        (["--language", "xx"], "no package here has texts in xx"),
    ],
)
def test_missing_packages_are_one_line(packages, tmp_path, words, message):
    pytest.importorskip("babel")
    done = script("gettext_pairs", str(tmp_path / "out"), *words, "--path", str(packages))
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("%s of %(total)d", "{} of {total}"),
        ("{0} has {count:d} {{ user.name }}", "{} has {count} {user.name}"),
        ("100% sure &amp; &Open\tit", "100% sure Open it"),
        ("<a href='%(url)s'>here</a>", "here"),
    ],
)
def test_cleaning(text, expected):
    assert cleaned(text) == expected


@pytest.mark.parametrize(
    ("one", "other", "fits"),
    [
        ("Ja", "Yes", True),
        ("{count} Seiten", "{count} pages", True),
        ("{count} Seiten", "{} pages", False),
        ("Server", "Server", False),
        ("123", "one", False),
        ("x" * 30, "y" * 100, False),
        ("x y" * 150, "y x" * 150, False),
    ],
)
def test_usable_translations(one, other, fits):
    assert usable(one, other) is fits


def test_a_form_feed_ends_no_line_of_a_module():
    code = "x = 1\n\x0c\ndef f():\n    'How.'\n    return x\n"
    assert divided(code) == ("x = 1\n\x0c\ndef f():\n    return x\n", ["How."])


def test_python_sources(tmp_path):
    done = script("python_sources", str(tmp_path))
    assert done.returncode == 0, done.stderr
    code, docstrings = ((tmp_path / f"{n}.txt").read_text() for n in ("code", "docstrings"))
    line = "Shuffle list x in place, and return None."
    assert line in docstrings
    assert line not in code
    assert "def shuffle(self, x):" in code
    assert "PSF-2.0" in (tmp_path / "SOURCES.md").read_text()


@pytest.mark.parametrize(
    ("number", "words", "wort"),
    [
        (0, "zero", "null"),
        (1, "one", "eins"),
        (101, "one hundred and one", "einhunderteins"),
        (21_001, "twenty-one thousand and one", "einundzwanzigtausendeins"),
        (
            101_116,
            "one hundred and one thousand one hundred and sixteen",
            "einhunderteintausendeinhundertsechzehn",
        ),
    ],
)
def test_numbers_in_words(number, words, wort):
    assert (english(number), german(number)) == (words, wort)


def test_no_two_numbers_share_their_words():
    for say in (english, german):
        assert len({say(n) for n in range(20_000)}) == 20_000
    sources, targets = pairs()
    assert len(sources) == len(targets) == 4000
