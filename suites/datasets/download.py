"""Downloads that survive broken connections, and a ledger of what came.

Nothing here runs unless a person asked for a download.
"""

from __future__ import annotations

import http.client
import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from results.record import to_json, write_atomically
from suites.datasets.store import DatasetError, file_sha256

LEDGER_FILE = "checksums.json"
PAUSES = (1.0, 2.0, 4.0, 8.0)  # seconds before each further attempt in a row that brought nothing
TIMEOUT = 60.0  # seconds without a byte
_BLOCK = 1 << 20  # bytes

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Origin:
    """What a partial file is a part of; kept beside it, so that only the same file is resumed."""

    url: str
    validator: str | None  # ETag or Last-Modified


def download(
    url: str,
    target: Path,
    *,
    progress: Progress | None = None,
    remedy: str = "try again later",
    pauses: Sequence[float] = PAUSES,
) -> str:
    """Fetches a file, resuming what an earlier attempt left, and enters its sha256 in the ledger.

    The file appears under its name when it is complete and its checksum agrees with the ledger
    (``checksums.json`` in the same folder), which keeps the one of the first download.

    Args:
        url: http or https.
        target: where it shall lie.
        progress: called with (bytes here, bytes in all; 0 if the server does not say).
        remedy: ends the sentence of an error.
        pauses: seconds to wait after each attempt in a row that brought nothing new.

    Returns:
        The file's sha256.

    Raises:
        DatasetError: one sentence, if it cannot be had or differs from the ledger.
    """
    from filelock import FileLock

    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(target.with_name(f"{target.name}.lock")):
        if not target.exists():
            part = target.with_name(f"{target.name}.part")
            _fetch(url, part, progress or (lambda done, total: None), remedy, pauses)
            digest = file_sha256(part)
            try:
                enter(target.parent / LEDGER_FILE, target.name, digest, url)
            except DatasetError:
                _forget(part)
                raise
            os.replace(part, target)
            _forget(part)
            return digest
        return check(target)


def check(path: Path) -> str:
    """The sha256 of a downloaded file, compared with the ledger beside it.

    Raises:
        DatasetError: if the file is not what was downloaded first.
    """
    digest = file_sha256(path)
    known = ledger(path.parent / LEDGER_FILE).get(path.name)
    if known is not None and known["sha256"] != digest:
        raise DatasetError(
            f"{path}: damaged, since its sha256 is no longer that of its download; delete it and "
            "download it again"
        )
    return digest


def ledger(path: Path) -> dict[str, Any]:
    """The entries {"sha256", "url"} of a ledger, by file name.

    Raises:
        DatasetError: if it is damaged.
    """
    try:
        content = json.loads(path.read_bytes())
        return {str(name): {**entry, "sha256": entry["sha256"]} for name, entry in content.items()}
    except FileNotFoundError:
        return {}
    except (ValueError, TypeError, KeyError, AttributeError):
        raise DatasetError(
            f"{path}: not a ledger of checksums; delete it, and the next download begins a new one"
        ) from None


def enter(path: Path, name: str, digest: str, url: str) -> None:
    """Keeps the checksum of a first download; later ones must agree with it.

    Raises:
        DatasetError: if they do not.
    """
    from filelock import FileLock

    with FileLock(path.with_name(f"{path.name}.lock")):
        entries = ledger(path)
        known = entries.setdefault(name, {"sha256": digest, "url": url})
        if known["sha256"] != digest:
            raise DatasetError(
                f"{name}: what {url} sends now has sha256 {digest[:12]}..., and the first download "
                f"had {known['sha256'][:12]}...; if it was replaced on purpose, delete its entry "
                f"in {path} and download it again"
            )
        write_atomically(path, to_json(entries))


def _fetch(url: str, part: Path, progress: Progress, remedy: str, pauses: Sequence[float]) -> None:
    """Completes ``part``, by as many connections as bring something new."""
    fruitless = 0
    while True:
        before = part.stat().st_size if part.exists() else 0
        try:
            if _attempt(url, part, progress):
                return
            trouble = "the connection was cut"
        except urllib.error.HTTPError as error:
            error.close()
            if error.code == 416 and before:  # nothing lies beyond what we have: not this file
                _forget(part)
                trouble = "the server cannot resume"
            elif error.code < 500:
                raise DatasetError(
                    f"{url}: the server answers {error.code} {error.reason}; {remedy}"
                ) from None
            else:
                trouble = f"the server answers {error.code} {error.reason}"
        except (OSError, http.client.HTTPException) as error:
            trouble = str(getattr(error, "reason", None) or error or type(error).__name__)
        gained = (part.stat().st_size if part.exists() else 0) > before
        fruitless = 0 if gained else fruitless + 1
        if fruitless > len(pauses):
            kept = part.stat().st_size if part.exists() else 0
            had = f"; {kept:,} bytes are kept, and the same command goes on" if kept else ""
            raise DatasetError(f"{url}: {trouble}{had}; {remedy}")
        if fruitless:
            time.sleep(pauses[fruitless - 1])


def _attempt(url: str, part: Path, progress: Progress) -> bool:
    """One connection; whether the file is complete after it."""
    start, origin = _resumable(url, part)
    headers = {"User-Agent": "fast-q-bench", "Accept-Encoding": "identity"}
    if start and origin is not None:
        headers["Range"] = f"bytes={start}-"
        if origin.validator:
            headers["If-Range"] = origin.validator
    request = urllib.request.Request(url, headers=headers)
    with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
        expected = int(answer.headers.get("Content-Length") or 0)
        if answer.status != 206 or not _goes_on(answer.headers.get("Content-Range"), start):
            start = 0  # the whole file comes
        if not start:
            validator = answer.headers.get("ETag") or answer.headers.get("Last-Modified")
            _forget(part)
            write_atomically(_origin_file(part), to_json({"url": url, "validator": validator}))
        total = start + expected if expected else 0
        done = start
        with part.open("ab" if start else "wb") as stream:
            progress(done, total)
            while block := answer.read(_BLOCK):
                stream.write(block)
                done += len(block)
                progress(done, total)
            stream.flush()
            os.fsync(stream.fileno())
    return done == total if total else True


def _goes_on(content_range: str | None, start: int) -> bool:
    return (content_range or "").startswith(f"bytes {start}-")


def _resumable(url: str, part: Path) -> tuple[int, Origin | None]:
    """How many bytes of the file at ``url`` lie in ``part``."""
    try:
        origin = Origin(**json.loads(_origin_file(part).read_bytes()))
        size = part.stat().st_size
    except (OSError, ValueError, TypeError):
        return 0, None
    return (size, origin) if origin.url == url else (0, None)


def _origin_file(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _forget(part: Path) -> None:
    part.unlink(missing_ok=True)
    _origin_file(part).unlink(missing_ok=True)
