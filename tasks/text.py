"""Text as tokens: bytes, or a byte-level BPE learned from training lines.

Also the base of text tasks: their options, the assignment of lines to splits, rows of unequal
length.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from lcg.tasks.base import Task

SPLITS = ("train", "validation", "test")
EXTRA = "pip install 'lcg[text]'"
SPACE = "␣"


@dataclass(kw_only=True)
class TextTask(Task):
    """A task on a corpus, which `_read` of its module returns, with `tokens`, `splits` and
    `digest`."""

    making: ClassVar[str]
    """Command that makes a corpus, for those who have none."""

    bpe: int = 0
    """Tokens of a byte-pair encoding learned from the training split; 0: bytes."""
    held_out: float = 0.05
    """Share of the text in each of the two evaluation splits."""
    digest: str = ""
    """Hash of the text and the BPE vocabulary; filled in automatically and checked on every use."""

    def __post_init__(self):
        super().__post_init__()
        self.require(
            self.bpe == 0 or 256 < self.bpe <= 2**15,
            f"bpe must be 0 for bytes, or more than their 256 and at most 32768, got {self.bpe}",
        )
        self.require(0 < self.held_out < 0.5, f"held_out must lie in (0, 0.5), got {self.held_out}")
        self._split = "train"

    def _load(self, read: Callable, *paths: str) -> None:
        """Take the corpus that `read` makes of paths; it has to be the one the task was made with.

        Raises ValueError, in one line, for text that cannot be used and for one that has changed.
        """
        try:
            corpus = read(paths, tuple(map(_stamp, paths)), self.bpe, self.held_out)
        except NoText as error:
            raise ValueError(f"{self.name}: {error}; {self._remedy()}") from None
        except ValueError as error:
            raise ValueError(f"{self.name}: {error}") from None
        self.require(
            self.digest in ("", corpus.digest),
            f"the text or its vocabulary has changed, its digest was {self.digest} and is "
            f"{corpus.digest}; restore the files, or start a run without task.digest",
        )
        self._corpus, self.digest = corpus, corpus.digest

    def _remedy(self) -> str:
        """Return the advice for missing text.

        A task with a digest was created with its text before, as in a run: a new corpus is not
        enough.
        """
        if self.digest:
            return (
                f"put the text back there; its digest, {self.digest}, says whether it is the same"
            )
        return f"name a text of your own, or make one: {self.making}"

    @property
    def symbol_count(self) -> int:
        return self.bpe or 256

    def symbol(self, symbol):
        return self._corpus.tokens.piece(symbol)

    def words(self, tokens) -> str:
        """Return the text of a row of tokens."""
        return self._corpus.tokens.decode([t for t in tokens if 0 <= t < self.symbol_count])

    def for_split(self, split):
        task = copy(self)
        task._split = split if split in SPLITS else "validation"
        return task


@dataclass(frozen=True)
class Rows:
    """Token rows one after the other: row i is tokens[starts[i] : starts[i + 1]]."""

    tokens: np.ndarray
    starts: np.ndarray

    @property
    def counts(self) -> np.ndarray:
        """[rows] tokens of each."""
        return np.diff(self.starts)

    def take(self, index: np.ndarray) -> Rows:
        """Some of the rows, in the order of `index`."""
        parts = [self.tokens[self.starts[i] : self.starts[i + 1]] for i in index]
        return joined(parts, self.tokens.dtype)

    def padded(self, index: np.ndarray) -> np.ndarray:
        """Return the rows stacked, [len(index), longest], with -1 beyond the end of each."""
        begin, count = self.starts[index], self.starts[index + 1] - self.starts[index]
        column = np.arange(count.max())
        inside = column < count[:, None]
        return np.where(inside, self.tokens[np.where(inside, begin[:, None] + column, 0)], -1)


def joined(parts: Sequence[np.ndarray], dtype: np.dtype | type = np.int32) -> Rows:
    """Rows from one array each."""
    starts = np.zeros(len(parts) + 1, np.int64)
    np.cumsum([len(part) for part in parts], out=starts[1:])
    return Rows(np.concatenate([np.empty(0, dtype), *parts]).astype(dtype), starts)


class Bytes:
    """The 256 bytes of UTF-8."""

    count = 256

    def encode(self, lines: Iterable[str]) -> Rows:
        """One row of tokens per line."""
        return joined([np.frombuffer(line.encode(), np.uint8) for line in lines])

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of tokens; what is no UTF-8 is replaced."""
        return bytes(map(int, tokens)).decode(errors="replace")

    def piece(self, token: int) -> str:
        """One token as it is printed, without white space."""
        character = chr(token)
        if character == " ":
            return SPACE
        return character if character.isascii() and character.isprintable() else f"\\x{token:02x}"


class BPE:
    """Byte-level byte-pair encoding (1508.07909), by the `tokenizers` library: no token is unknown.

    stored: the vocabulary as `learned_bpe` returns it. Raises ValueError for other text.
    """

    def __init__(self, stored: str):
        tokenizers = _tokenizers()
        try:
            self._tokenizer = tokenizers.Tokenizer.from_str(stored)
        except Exception:
            raise ValueError("this is not a BPE vocabulary") from None
        self.count = self._tokenizer.get_vocab_size()

    def encode(self, lines: Iterable[str]) -> Rows:
        """One row of tokens per line."""
        encodings = self._tokenizer.encode_batch_fast(list(lines))
        return joined([np.array(encoding.ids, np.int32) for encoding in encodings])

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of tokens; what is no UTF-8 is replaced."""
        return self._tokenizer.decode([int(token) for token in tokens])

    def piece(self, token: int) -> str:
        """One token as it is printed, without white space."""
        return self._tokenizer.id_to_token(int(token)).replace("Ġ", SPACE)


def learned_bpe(lines: Iterable[str], size: int) -> str:
    """Learn a vocabulary of `size` tokens, 256 bytes and merges, and return it as text.

    The same lines give the same text. Raises ValueError if the lines give fewer merges.
    """
    tokenizers = _tokenizers()
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=size, initial_alphabet=sorted(alphabet), special_tokens=[], show_progress=False
    )
    tokenizer.train_from_iterator(lines, trainer)
    found = tokenizer.get_vocab_size()
    if found != size:
        raise ValueError(f"bpe={size} is more than the training text gives, use at most {found}")
    return tokenizer.to_str()


def stored_bpe(beside: Path | None, lines: Sequence[str], size: int) -> str:
    """Return `learned_bpe`, stored in a file next to the corpus that is named after its lines.

    If the folder is not writable, it is learned each time.
    """
    if beside is None:
        return learned_bpe(lines, size)
    of_lines = digest([*(line.encode() for line in lines)])
    path = beside.with_name(f"{beside.name}.bpe{size}-{of_lines}.json")
    with suppress(OSError, UnicodeDecodeError):
        kept = path.read_text(encoding="utf-8")
        try:
            BPE(kept)
        except ValueError as error:
            raise ValueError(
                f"{path}: {error}; delete it, and the next run makes it again"
            ) from None
        return kept
    text = learned_bpe(lines, size)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    with suppress(OSError):
        unfinished.write_text(text, encoding="utf-8")
        unfinished.replace(path)
    return text


def _tokenizers():
    if importlib.util.find_spec("tokenizers") is None:
        raise ValueError(f"bpe needs the package tokenizers: {EXTRA}, or use bpe=0 for bytes")
    import tokenizers

    return tokenizers


def split_of(line: str, held_out: float) -> str:
    """Return the split of a line, a function of its text: a share `held_out` in each evaluation
    split."""
    digest = hashlib.blake2b(line.encode(), digest_size=8).digest()
    place = int.from_bytes(digest, "little") / 2**64
    if place < held_out:
        return "test"
    return "validation" if place < 2 * held_out else "train"


def digest(parts: Iterable[bytes]) -> str:
    """Return sixteen hex digits of a hash of the parts."""
    whole = hashlib.blake2b(digest_size=8)
    for part in parts:
        whole.update(len(part).to_bytes(8, "little"))
        whole.update(part)
    return whole.hexdigest()


class NoText(ValueError):
    """A path has no text; `remedy` is the advice."""


def read_text(path: Path) -> str:
    """Read a text file; its lines end at a line feed and nowhere else.

    CRLF becomes LF, and the mark (BOM) that some editors begin a file with is left out. A lone CR,
    a form feed or U+2028 is a character like any other: line i of one file stays line i of another.

    Raises NoText when it is not there or cannot be read, ValueError when it is no text.
    """
    try:
        if path.exists() and not (path.is_file() or path.is_dir()):  # a pipe would be waited for
            raise NoText(f"{path} cannot be read (it is not a regular file)")
        return path.read_bytes().decode("utf-8-sig").replace("\r\n", "\n")
    except FileNotFoundError:
        raise NoText(f"there is no file {path}") from None
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not UTF-8 text") from None
    except OSError as error:
        raise NoText(f"{path} cannot be read ({error.strerror})") from None


def absolute(path: str) -> str:
    """Return the absolute path."""
    return str(Path(path).expanduser().resolve())


def _stamp(path: str) -> tuple[int, int] | None:
    """Return a value that changes when a file is written; None if there is none."""
    try:
        facts = os.stat(path)
    except OSError:
        return None
    return facts.st_mtime_ns, facts.st_size
