"""Downloads against a server on this machine that breaks off, resumes and refuses."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from suites.datasets.download import LEDGER_FILE, check, download
from suites.datasets.store import DatasetError

CONTENT = bytes(range(256)) * 5000


@dataclass
class Site:
    """What the server does, and what it was asked."""

    url: str = ""
    content: bytes = CONTENT
    status: int = 200
    cut_after: list[int] = field(default_factory=list)  # bytes sent before each break
    resumes: bool = True
    tag: str = '"one"'
    ranges: list[str | None] = field(default_factory=list)


@pytest.fixture
def site() -> Iterator[Site]:
    found = Site()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked = self.headers.get("Range")
            found.ranges.append(asked)
            if found.status != 200:
                self.send_error(found.status)
                return
            start = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
            if not found.resumes or self.headers.get("If-Range", found.tag) != found.tag:
                start = 0
            if start >= len(found.content):
                self.send_error(416)
                return
            body = found.content[start:]
            self.send_response(206 if start else 200)
            if start:
                total = len(found.content)
                self.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
            self.send_header("Content-Length", str(len(body)))
            self.send_header("ETag", found.tag)
            self.end_headers()
            if found.cut_after:
                body = body[: found.cut_after.pop(0)]
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    found.url = f"http://127.0.0.1:{server.server_port}/data.hdf5"
    yield found
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_whole_file_with_progress_and_a_ledger(site: Site, tmp_path: Path) -> None:
    target, heard = tmp_path / "new" / "data.hdf5", []
    digest = download(site.url, target, progress=lambda done, total: heard.append((done, total)))
    assert target.read_bytes() == CONTENT
    assert digest == hashlib.sha256(CONTENT).hexdigest()
    assert heard[0] == (0, len(CONTENT)) and heard[-1] == (len(CONTENT), len(CONTENT))
    ledger = json.loads((target.parent / LEDGER_FILE).read_bytes())
    assert ledger == {"data.hdf5": {"sha256": digest, "url": site.url}}
    assert not list(target.parent.glob("*.part*"))
    site.status = 500  # what is here is not asked for again
    assert download(site.url, target) == digest


def test_it_goes_on_where_the_connection_broke(site: Site, tmp_path: Path) -> None:
    site.cut_after = [300_000, 500_000]
    target = tmp_path / "data.hdf5"
    download(site.url, target, pauses=())
    assert target.read_bytes() == CONTENT
    assert site.ranges == [None, "bytes=300000-", "bytes=800000-"]


def test_a_later_command_goes_on(site: Site, tmp_path: Path) -> None:
    site.cut_after = [400_000, 0]
    target = tmp_path / "data.hdf5"
    with pytest.raises(DatasetError, match="connection was cut; 400,000 bytes are kept"):
        download(site.url, target, pauses=())
    assert not target.exists()
    download(site.url, target, pauses=())
    assert target.read_bytes() == CONTENT
    assert site.ranges[-1] == "bytes=400000-"


def test_a_file_that_changed_meanwhile_is_begun_anew(site: Site, tmp_path: Path) -> None:
    site.cut_after = [400_000, 0]
    target = tmp_path / "data.hdf5"
    with pytest.raises(DatasetError):
        download(site.url, target, pauses=())
    site.content, site.tag = CONTENT[::-1], '"two"'
    download(site.url, target, pauses=())
    assert target.read_bytes() == CONTENT[::-1]


def test_a_server_that_cannot_resume_sends_all_again(site: Site, tmp_path: Path) -> None:
    site.resumes, site.cut_after = False, [400_000]
    target = tmp_path / "data.hdf5"
    download(site.url, target, pauses=())
    assert target.read_bytes() == CONTENT


@pytest.mark.parametrize("status", [403, 404])
def test_a_refusal_is_one_sentence_with_the_remedy(site: Site, tmp_path: Path, status: int) -> None:
    site.status = status
    with pytest.raises(DatasetError) as caught:
        download(site.url, tmp_path / "data.hdf5", remedy="name its place with --data-dir")
    assert f"{site.url}: the server answers {status} " in str(caught.value)
    assert str(caught.value).endswith("; name its place with --data-dir")
    assert len(site.ranges) == 1  # asking again would not help
    assert not (tmp_path / LEDGER_FILE).exists()


def test_a_server_in_trouble_or_gone(site: Site, tmp_path: Path) -> None:
    site.status = 503
    with pytest.raises(DatasetError, match="answers 503"):
        download(site.url, tmp_path / "data.hdf5", pauses=(0.0, 0.0))
    assert len(site.ranges) == 3
    with pytest.raises(DatasetError, match="refused"):
        download("http://127.0.0.1:9/data.hdf5", tmp_path / "data.hdf5", pauses=())


def test_other_bytes_than_the_first_time_are_refused(site: Site, tmp_path: Path) -> None:
    target = tmp_path / "data.hdf5"
    download(site.url, target)
    target.unlink()
    site.content = CONTENT[:-1] + b"!"
    with pytest.raises(DatasetError) as caught:
        download(site.url, target)
    assert "the first download had" in str(caught.value)
    assert f"delete its entry in {tmp_path / LEDGER_FILE}" in str(caught.value)
    assert not target.exists() and not list(tmp_path.glob("*.part*"))
    (tmp_path / LEDGER_FILE).unlink()
    download(site.url, target)
    assert target.read_bytes() == site.content


def test_a_file_that_was_damaged_later(site: Site, tmp_path: Path) -> None:
    target = tmp_path / "data.hdf5"
    download(site.url, target)
    target.write_bytes(CONTENT[:1000])
    with pytest.raises(DatasetError, match="damaged, since its sha256"):
        check(target)
    (tmp_path / LEDGER_FILE).write_text("[1]")
    with pytest.raises(DatasetError, match="not a ledger of checksums"):
        check(target)
