"""Read run records back from Weights & Biases: a project's, or those of folders on disk.

Each run of `lcg train` keeps its whole record as a text in its W&B summary, so a table needs no run
directory. `wandb` is imported by the first call.
"""

import json
import struct
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from lcg.runs.record import RunRecord, report_problems

RECORD = "lcg/record"  # the key in a W&B run's summary

Named = Iterator[tuple[str, str]]  # where a record is, and its text


def with_wandb(
    known: Iterable[RunRecord], places: Iterable[str], report: Callable[[str], None] | None = None
) -> list[RunRecord]:
    """`known` records, which stay as they are, and those of W&B that are not among them.

    These are one for each run of ours, that is each hash, ordered by name. A place is
    ENTITY/PROJECT, or a path: a .wandb file, an `offline-run-…` folder, or any folder that holds
    some, such as a run directory. Of a run that has been several W&B runs, because it was preempted
    or went on offline, the record that got furthest counts. W&B runs without a record, of which
    there may be any number in a project, are left out.

    A place that cannot be reached or holds no record, and a record that cannot be read, are
    problems: `report` is called with a line for each, and the rest goes on. Raises RecordError
    without `report`, and if no record of W&B could be read.
    """
    known, places = list(known), list(places)
    if not places:
        return known
    problems: list[str] = []
    by_key: dict[tuple[str, str], RunRecord] = {}
    for place in places:
        for record in _read(place, problems):
            key = (record.group, record.hash)
            if _progress(record) > _progress(by_key.setdefault(key, record)):
                by_key[key] = record
    report_problems(problems, report, bool(by_key))
    for record in known:
        by_key.pop((record.group, record.hash), None)
    return known + sorted(by_key.values(), key=lambda record: (record.run, record.hash))


def _progress(record: RunRecord) -> tuple[int, int]:
    return record.training.step, len(record.ladder)


def _read(place: str, problems: list[str]) -> Iterator[RunRecord]:
    """The records of one place; what is wrong with it is added to `problems`."""
    nothing, before = True, len(problems)
    path = Path(place)
    for name, text in _of_folder(path, problems) if path.exists() else _of_project(place, problems):
        nothing = False
        try:
            yield RunRecord.from_dict(json.loads(text))
        except (TypeError, ValueError) as error:
            problems.append(f"{name}: its record cannot be read ({error})")
    if nothing and len(problems) == before:
        problems.append(f"{place}: no W&B run with a record; a run gets one when its training ends")


def _of_project(place: str, problems: list[str]) -> Named:
    """Ask W&B for a project's runs with their summaries, 50 a request."""
    if place.count("/") != 1 or not all(place.split("/")):
        problems.append(f"{place}: neither a W&B ENTITY/PROJECT nor an existing path")
        return
    import wandb

    try:
        for run in wandb.Api(timeout=20).runs(place, lazy=False):
            text = run.summary_metrics.get(RECORD)
            if text is not None:
                yield f"{place}/{run.id}", text
    except Exception as error:  # whatever wandb raises: no login, no network, no such project
        problems.append(f"{place}: cannot list all its W&B runs ({one_line(error)})")


def one_line(error: Exception) -> str:
    """The message of an error of wandb's in one line that is not too long."""
    return " ".join(str(error).split())[:200] or type(error).__name__


def _of_folder(path: Path, problems: list[str]) -> Named:
    """The text last written under RECORD in each W&B file at or below a path.

    `rglob` leaves out `latest-run`, which is a link.
    """
    from google.protobuf.message import DecodeError
    from wandb.proto.wandb_internal_pb2 import Record

    for file in [path] if path.is_file() else sorted(path.rglob("*.wandb")):
        text = None
        try:
            for data in records(file.read_bytes()):
                for item in Record.FromString(data).summary.update:
                    if (item.key or "/".join(item.nested_key)) == RECORD:
                        text = json.loads(item.value_json)
        except (OSError, ValueError, DecodeError) as error:
            problems.append(f"{file}: cannot be read ({error})")
            continue
        if text is not None:
            yield str(file), text


# The file that wandb writes of a run: protocol buffers in the log format of LevelDB. Seven bytes of
# header, then blocks of 32 KiB holding chunks: CRC (4 bytes), length (2, little endian), kind (1),
# data. A record is one chunk of kind WHOLE, or FIRST, any number of MIDDLE, LAST. Fewer than 7
# bytes at the end of a block are padding.
HEADER = b":W&B"
HEADER_SIZE = 7
BLOCK = 32768
CHUNK_HEADER = struct.Struct("<IHB")
WHOLE, FIRST, MIDDLE, LAST = 1, 2, 3, 4


def records(data: bytes) -> Iterator[bytes]:
    """Every record that is whole; a file still written to, or cut off, ends where it ends.

    Raises ValueError for a file of another kind.
    """
    if not data.startswith(HEADER):
        raise ValueError("it does not begin as a W&B file")
    place, parts = HEADER_SIZE, []
    while place + CHUNK_HEADER.size <= len(data):
        left = BLOCK - place % BLOCK
        if left < CHUNK_HEADER.size:
            place += left
            continue
        _, length, kind = CHUNK_HEADER.unpack_from(data, place)
        start, place = place + CHUNK_HEADER.size, place + CHUNK_HEADER.size + length
        if kind not in (WHOLE, FIRST, MIDDLE, LAST) or place > len(data):
            return
        if kind in (WHOLE, FIRST):
            parts = []
        parts.append(data[start:place])
        if kind in (WHOLE, LAST):
            yield b"".join(parts)
