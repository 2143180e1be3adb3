"""Finished runs in one file, to publish and to take in elsewhere: a zip of records, no policies.

A run's place in an output folder is a function of what the run is, so taking an archive in makes
those cells done: a suite that plans them skips them, and its report holds them beside its own.
"""

from __future__ import annotations

import io
import tempfile
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from baselines.config import UsageError
from results.record import (
    EPISODES_FILE,
    RECORD_FILE,
    Record,
    RecordError,
    read_record,
    study_file,
    write_atomically,
)
from suites.plan import cell_path, recorded_identity

_LARGEST = 64 * 2**20  # bytes of one file, unpacked; records have thousands
_TIME = (1980, 1, 1, 0, 0, 0)  # of every member, so that the same runs make the same file


@dataclass(frozen=True)
class Taken:
    """What :func:`unpack` did.

    Attributes:
        new: paths below the output folder of the cells that were taken in.
        present: of those that were there already.
        contents: sentences on what the archive holds, one per budget and source.
    """

    new: list[str]
    present: list[str]
    contents: list[str]


def pack(folders: Iterable[Path], file: Path) -> None:
    """Writes records with their episodes and the arrays of their studies into a zip.

    Args:
        folders: of finished cells.
        file: the archive; it is replaced as a whole.

    Raises:
        RecordError: if a record cannot be read.
        OSError: if the file cannot be written.
    """
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for folder in sorted(folders):
            record = read_record(folder)
            for name in _files(record):
                if (folder / name).is_file():
                    member = zipfile.ZipInfo(f"{_path(record)}/{name}", _TIME)
                    content = (folder / name).read_bytes()
                    archive.writestr(member, content, zipfile.ZIP_DEFLATED)
    write_atomically(file, stream.getvalue())


def unpack(file: Path, out: Path) -> Taken:
    """Takes the runs of an archive into an output folder; what is there already stays as it is.

    Everything is read and checked before anything is written. A file of the archive lands where its
    record says, never where its name in the archive points.

    Raises:
        UsageError: if the file is no archive of runs, or the folder cannot be written.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            found, records = _read(file, archive)
    except (FileNotFoundError, IsADirectoryError):
        raise UsageError(f"{file}: no such file of runs") from None
    except OSError as error:
        raise UsageError(f"{file} cannot be read ({error.strerror})") from None
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError):
        raise UsageError(
            f"{file}: not a readable zip file; give one that export wrote, or fetch it again"
        ) from None
    taken = Taken([], [], list(_contents(records)))
    for path, contents in sorted(found.items()):
        if (out / path / RECORD_FILE).exists():
            taken.present.append(path)
            continue
        for name, content in contents.items():  # the record last, so a cell that has one is whole
            try:
                write_atomically(out / path / name, content)
            except OSError as error:
                raise UsageError(f"{out / path} cannot be written ({error.strerror})") from None
        taken.new.append(path)
    return taken


def _contents(records: Iterable[Record]) -> Iterator[str]:
    """What to ask a suite for, so that it finds these runs done."""
    groups: dict[tuple[str, str], list[Record]] = {}
    for record in records:
        if not record.agent.get("reference"):
            key = str(record.budget.get("name", "")), str(record.task.get("source", ""))
            groups.setdefault(key, []).append(record)
    for (budget, source), members in groups.items():
        agents = dict.fromkeys(str(record.agent.get("label")) for record in members)
        tasks = dict.fromkeys(str(record.task.get("id")) for record in members)
        seeds = sorted({record.seed for record in members})
        yield (
            f"budget {budget}, data {source}, seeds {', '.join(map(str, seeds))}: "
            f"{', '.join(agents)} on {', '.join(tasks)}"
        )


def _path(record: Record) -> str:
    """Where a run lies below any output folder."""
    return cell_path(recorded_identity(record), record.seed)


def _files(record: Record) -> list[str]:
    """Names of a cell's files that an archive holds, the record last."""
    return [EPISODES_FILE, *map(study_file, sorted(record.studies)), RECORD_FILE]


def _read(file: Path, archive: zipfile.ZipFile) -> tuple[dict[str, dict[str, bytes]], list[Record]]:
    """Content of every file, by path of the cell and name, and the records, checked."""
    sizes = {member.filename: member.file_size for member in archive.infolist()}
    records = [name for name in sizes if PurePosixPath(name).name == RECORD_FILE]
    if not records:
        raise UsageError(f"{file}: no runs in it; give a file that export wrote")
    large = next((name for name, size in sizes.items() if size > _LARGEST), None)
    if large is not None:
        raise UsageError(f"{file}: {large} is larger than any record; this is no file of runs")
    found: dict[str, dict[str, bytes]] = {}
    read: list[Record] = []
    with tempfile.TemporaryDirectory() as folder:
        for name in records:
            content = archive.read(name)
            (Path(folder) / RECORD_FILE).write_bytes(content)
            try:
                record = read_record(Path(folder))
                path = _path(record)
            except RecordError as error:
                reason = str(error).partition(": ")[2]
                raise UsageError(f"{file}: {name}: {reason.partition(';')[0]}") from None
            except (KeyError, TypeError, AttributeError):
                raise UsageError(f"{file}: {name} does not say which run it is") from None
            if name != f"{path}/{RECORD_FILE}" or ".." in PurePosixPath(path).parts:
                raise UsageError(f"{file}: {name} is not the run its name says; fetch it again")
            read.append(record)
            found[path] = {
                other: archive.read(f"{path}/{other}")
                for other in _files(record)
                if f"{path}/{other}" in sizes
            }
    return found, read
