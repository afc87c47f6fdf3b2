"""Read run records back from Weights & Biases: a project's, or those of folders on disk.

Each run of `lcg train` keeps its whole record as a text in its W&B summary, so a table needs no run
directory. `wandb` is imported by the first call.
"""

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from lcg.results.record import RecordError, RunRecord
from lcg.results.wandb_file import records

RECORD = "lcg/record"  # the key in a W&B run's summary


def load_wandb(places: Iterable[str]) -> list[RunRecord]:
    """The records of W&B runs, one for each run of ours, in the order of their names.

    A place is ENTITY/PROJECT, or a path: a .wandb file, an `offline-run-…` folder, or any folder
    that holds some, such as a run directory. Of a run that has been several W&B runs, because it
    was preempted or went on offline, the record that got furthest counts.
    Raises RecordError (one line) for a place without a record, one that cannot be reached, or
    records that cannot be read, all of which are named.
    """
    found: dict[tuple[str, str], RunRecord] = {}
    problems = []
    for place in places:
        texts = list(_of_folder(Path(place)) if Path(place).exists() else _of_project(place))
        if not texts:
            problems.append(
                f"{place}: no W&B run in it holds a record; a run has one when its training ends"
            )
        for name, text in texts:
            try:
                record = RunRecord.from_dict(json.loads(text))
            except ValueError as error:
                problems.append(f"{name}: its record cannot be read ({error})")
                continue
            known = found.get((record.run, record.hash))
            if known is None or _progress(record) > _progress(known):
                found[record.run, record.hash] = record
    if problems:
        raise RecordError(" | ".join(problems))
    return [found[key] for key in sorted(found)]


def _progress(record: RunRecord) -> tuple[int, int]:
    return record.training.step, len(record.ladder)


def _of_project(place: str) -> list[tuple[str, str]]:
    """Names and record texts of a project's runs."""
    if place.count("/") != 1 or not all(place.split("/")):
        raise RecordError(f"{place}: neither ENTITY/PROJECT of W&B nor a path that exists")
    try:
        return list(_fetch(place))
    except Exception as error:  # whatever wandb raises: no login, no network, no such project
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise RecordError(
            f"{place}: W&B does not give its runs ({reason}); wandb login, or name run directories"
        ) from None


def _fetch(place: str) -> Iterator[tuple[str, str]]:
    """Ask W&B for a project's runs that have a record, with their summaries, 50 a request."""
    import wandb

    api = wandb.Api(timeout=20)
    for run in api.runs(place, lazy=False):
        text = run.summary_metrics.get(RECORD)
        if text is not None:
            yield f"{place}/{run.id}", text


def _of_folder(path: Path) -> Iterator[tuple[str, str]]:
    """Names and record texts of the W&B runs below a path."""
    for file in _files(path):
        text = _last_record(file)
        if text is not None:
            yield str(file), text


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    found = []
    for folder, inner, names in os.walk(path):
        inner[:] = sorted(inner)  # and not `latest-run`, which is a link
        found += [Path(folder) / name for name in sorted(names) if name.endswith(".wandb")]
    return found


def _last_record(file: Path) -> str | None:
    """The text last written under RECORD, None if there is none. Raises RecordError."""
    from google.protobuf.message import DecodeError
    from wandb.proto.wandb_internal_pb2 import Record

    text = None
    try:
        for data in records(file.read_bytes()):
            for item in Record.FromString(data).summary.update:
                if (item.key or "/".join(item.nested_key)) == RECORD:
                    text = json.loads(item.value_json)
    except (OSError, ValueError, DecodeError) as error:
        raise RecordError(f"{file}: cannot be read ({error})") from None
    return text
