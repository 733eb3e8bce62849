"""The Hugging Face hub's HTTP API on the loopback, as far as models are fetched from it.

Written after what huggingface_hub 2.4 asks and reads: a repository's listing with `blobs=true`,
`resolve` addresses with the `X-Repo-Commit` and `X-Linked-*` headers, large files behind a redirect
to another host that knows ranges, errors told by `X-Error-Code`.

    python -m tests.fakes.hub owner/name FOLDER      then HF_ENDPOINT=http://127.0.0.1:PORT
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

CHUNK_BYTES = 64 * 1024
API = re.compile(r"/api/models/(?P<repo>[^/]+/[^/]+)(/revision/(?P<revision>[^/]+))?")
RESOLVE = re.compile(r"/(?P<repo>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<name>.+)")
CDN = re.compile(r"/stored/(?P<sha256>[0-9a-f]{64})")


@dataclass
class Blob:
    """One stored file, and what goes wrong with it."""

    data: bytes
    sent: bytes = b""  # what really comes, where it differs
    claimed_bytes: int | None = None
    cuts: list[int] = field(default_factory=list)  # each answer in turn ends after so many bytes
    busy: int = 0  # so many answers are 503
    knows_ranges: bool = True
    released: threading.Event | None = None  # half of it is held back until then
    served_bytes: int = 0
    ranges: list[str | None] = field(default_factory=list)
    authorizations: list[str | None] = field(default_factory=list)

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()

    @property
    def git_id(self) -> str:
        return hashlib.sha1(b"blob %d\0" % len(self.data) + self.data).hexdigest()

    @property
    def size_bytes(self) -> int:
        return len(self.data) if self.claimed_bytes is None else self.claimed_bytes


@dataclass
class Repository:
    """Files by commit, commits by branch or tag."""

    commits: dict[str, dict[str, Blob]]
    refs: dict[str, str]
    token: str | None = None  # of a private one
    gated: bool = False  # listed for everybody
    allowed: set[str] = field(default_factory=set)  # the tokens that get the files of a gated one

    def commit(self, revision: str) -> str | None:
        known = self.refs.get(revision, revision)
        return known if known in self.commits else None


class Hub:
    """The hub: its repositories, and every request that it got."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.requests: list[str] = []
        self.tokens: set[str] = set()
        self.server = _Server(("127.0.0.1", 0), self)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"

    def add(
        self, repo: str, files: Mapping[str, bytes], *, revision: str = "main", **about: Any
    ) -> dict[str, Blob]:
        """One commit, on top of what the repository has; its blobs by name."""
        blobs = {name: Blob(data) for name, data in files.items()}
        commit = hashlib.sha1(repr((repo, revision, sorted(files.items()))).encode()).hexdigest()
        repository = self.repositories.setdefault(repo, Repository({}, {}))
        repository.commits[commit] = blobs
        repository.refs[revision] = commit
        for name, value in about.items():
            setattr(repository, name, value)
        return blobs

    def commit(self, repo: str, revision: str = "main") -> str:
        return self.repositories[repo].refs[revision]

    def stored(self, sha256: str) -> Blob | None:
        """The large file of that sum."""
        for repository in self.repositories.values():
            for files in repository.commits.values():
                for blob in files.values():
                    if blob.sha256 == sha256:
                        return blob
        return None


def is_large(name: str) -> bool:
    """Whether the repository keeps such files by their sum (LFS)."""
    return name.endswith((".gguf", ".safetensors"))


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, address: tuple[str, int], hub: Hub) -> None:
        super().__init__(address, _Answer)
        self.hub = hub

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that go away are what is tested here."""


class _Answer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: `Hub.requests` has it."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.server.hub.requests.append(f"{self.command} {path}")
        if found := CDN.fullmatch(path):
            self._stored(found["sha256"])
        elif found := API.fullmatch(path):
            self._listed(found["repo"], found["revision"] or "main")
        elif found := RESOLVE.fullmatch(path):
            self._resolved(found["repo"], found["revision"], found["name"])
        else:
            self._refuse(404, "", "no such route")

    def _listed(self, repo: str, revision: str) -> None:
        seen = self._seen(repo, revision)
        if seen is None:
            return
        repository, commit = seen
        siblings = []
        for name, blob in repository.commits[commit].items():
            about: dict[str, Any] = {"rfilename": name, "size": blob.size_bytes, "blobId": blob.git_id}
            if is_large(name):
                about["lfs"] = {"sha256": blob.sha256, "size": blob.size_bytes, "pointerSize": 134}
            siblings.append(about)
        body = json.dumps({"id": repo, "sha": commit, "gated": repository.gated, "siblings": siblings})
        self._send(200, body.encode(), {"Content-Type": "application/json"})

    def _resolved(self, repo: str, revision: str, name: str) -> None:
        seen = self._seen(repo, revision)
        if seen is None:
            return
        repository, commit = seen
        blob = repository.commits[commit].get(name)
        headers = {"X-Repo-Commit": commit}
        if repository.gated and self._token() not in repository.allowed:
            status = 401 if self._token() is None else 403
            self._refuse(status, "GatedRepo", f"Access to model {repo} is restricted.", headers)
        elif blob is None:
            self._refuse(404, "EntryNotFound", "Entry not found", headers)
        elif not is_large(name):
            self._send(200, blob.data, {**headers, "ETag": f'"{blob.git_id}"'})
        else:
            headers |= {"X-Linked-Size": str(blob.size_bytes), "X-Linked-Etag": f'"{blob.sha256}"'}
            # Another name of the same machine, so that it is another host to the client.
            there = f"http://localhost:{self.server.server_port}/stored/{blob.sha256}"
            self._send(302, b"", {**headers, "Location": there})

    def _seen(self, repo: str, revision: str) -> tuple[Repository, str] | None:
        hub, token = self.server.hub, self._token()
        if token is not None and token not in hub.tokens:
            self._refuse(401, "", "Invalid credentials in Authorization header")
            return None
        repository = hub.repositories.get(repo)
        if repository is None or (repository.token and token != repository.token):
            self._refuse(404 if token else 401, "RepoNotFound", "Repository not found")
            return None
        commit = repository.commit(revision)
        if commit is None:
            self._refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
            return None
        return repository, commit

    def _stored(self, sha256: str) -> None:
        blob = self.server.hub.stored(sha256)
        if blob is None:
            self._refuse(404, "", "nothing stored")
            return
        blob.ranges.append(self.headers.get("Range"))
        blob.authorizations.append(self.headers.get("Authorization"))
        if blob.busy:
            blob.busy -= 1
            self._refuse(503, "", "busy")
            return
        data, begin, status, headers = blob.sent or blob.data, 0, 200, {"ETag": f'"{sha256}"'}
        end = len(data)
        if blob.knows_ranges and (
            asked := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        ):
            begin, status = int(asked[1]), 206
            end = min(end, int(asked[2]) + 1) if asked[2] else end
            headers["Content-Range"] = f"bytes {begin}-{end - 1}/{len(data)}"
        self._stream(blob, data[begin:end], status, headers)

    def _stream(self, blob: Blob, data: bytes, status: int, headers: Mapping[str, str]) -> None:
        end = blob.cuts.pop(0) if blob.cuts else len(data)
        self._head(status, len(data), headers)
        for at in range(0, min(end, len(data)), CHUNK_BYTES):
            if blob.released is not None and at >= len(data) // 2:
                blob.released.wait(30)
            piece = data[at : min(at + CHUNK_BYTES, end)]
            self.wfile.write(piece)
            blob.served_bytes += len(piece)
        if end < len(data):
            self.close_connection = True

    def _token(self) -> str | None:
        said = self.headers.get("Authorization")
        return said.removeprefix("Bearer ") if said else None

    def _refuse(self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> None:
        told = {"X-Error-Message": message, **({"X-Error-Code": code} if code else {}), **(headers or {})}
        self._send(status, json.dumps({"error": message}).encode(), told)

    def _send(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        self._head(status, len(body), headers)
        if self.command != "HEAD":
            self.wfile.write(body)

    def _head(self, status: int, length: int, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(length)}.items():
            self.send_header(name, value)
        self.end_headers()


@contextmanager
def running() -> Iterator[Hub]:
    """A hub that answers inside the block."""
    hub = Hub()
    threading.Thread(target=hub.server.serve_forever, daemon=True).start()
    try:
        yield hub
    finally:
        hub.server.shutdown()
        hub.server.server_close()


def main() -> None:
    """Serve the files of one folder until Ctrl-C."""
    repo, folder = sys.argv[1], Path(sys.argv[2])
    files = {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if f.is_file()}
    with running() as hub:
        hub.add(repo, files)
        print(f"HF_ENDPOINT={hub.url}", flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main()
