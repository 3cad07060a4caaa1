"""A Git server with LFS for tests: ``git http-backend`` as CGI, and the LFS batch API with basic transfer.

It checks the SHA-256 of what it is sent, as real servers do, and can be told to misbehave. Wire format:
git-lfs, docs/api/batch.md and docs/api/basic-transfers.md.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock, Thread

_POINTER = re.compile(r"\Aversion https://git-lfs\.github\.com/spec/v1\noid sha256:([0-9a-f]{64})\nsize \d+\n\Z")
_TYPE = "application/vnd.git-lfs+json"


class Server:
    """Bare repositories below ``root``, each at ``<url>/<name>.git``; ``refused`` objects are answered with 422."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.refused: set[str] = set()
        self.uploads_left = 1 << 60  # after that many uploads the server answers 403
        self.uploaded: list[str] = []
        self.downloaded: list[str] = []
        self.batches: list[int] = []
        self.lock = Lock()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"site": self}))
        self.url = f"http://127.0.0.1:{self._http.server_port}"

    def create(self, name: str) -> str:
        """A new bare repository; returns its URL."""
        path = self.root / f"{name}.git"
        subprocess.run(["git", "init", "--quiet", "--bare", "--initial-branch=main", str(path)], check=True)
        subprocess.run(["git", "-C", str(path), "config", "http.receivepack", "true"], check=True)
        return f"{self.url}/{name}.git"

    def object(self, name: str, oid: str) -> Path:
        return self.root / f"{name}.git" / "lfs" / "objects" / oid[:2] / oid[2:4] / oid

    def objects(self, name: str) -> set[str]:
        """The LFS objects of a repository."""
        return {path.name for path in (self.root / f"{name}.git" / "lfs").rglob("*") if path.is_file()}

    def refs(self, name: str) -> list[str]:
        listing = ["git", "-C", str(self.root / f"{name}.git"), "for-each-ref", "--format=%(refname)"]
        return subprocess.run(listing, check=True, capture_output=True, text=True).stdout.split()

    def collect_garbage(self, name: str) -> set[str]:
        """Delete every LFS object that no pointer blob in any ref names, as GitLab's housekeeping does."""
        git = ["git", "-C", str(self.root / f"{name}.git")]
        rows = subprocess.run([*git, "rev-list", "--objects", "--all"], check=True, capture_output=True, text=True)
        kept = set()
        for row in rows.stdout.splitlines():
            blob = subprocess.run([*git, "cat-file", "blob", row.split()[0]], capture_output=True, check=False).stdout
            if match := _POINTER.match(blob.decode(errors="replace")):
                kept.add(match[1])
        dropped = self.objects(name) - kept
        for oid in dropped:
            self.object(name, oid).unlink()
        return dropped

    @contextmanager
    def running(self) -> Iterator[Server]:
        thread = Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self.stop()
            thread.join()

    def stop(self) -> None:
        """Be gone: later connections are refused."""
        self._http.shutdown()
        self._http.server_close()


class _Handler(BaseHTTPRequestHandler):
    site: Server
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *arguments: object) -> None:
        """Say nothing: the output is the test's."""

    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        if match := re.fullmatch(r"/([^/]+)\.git/lfs/([0-9a-f]{64})", path):
            self._download(*match.groups())
        else:
            self._git(path, query)

    def do_POST(self) -> None:
        path, _, query = self.path.partition("?")
        if match := re.fullmatch(r"/([^/]+)\.git/info/lfs/objects/batch", path):
            self._batch(match[1])
        elif "/info/lfs/" in path:
            self._body()
            self._answer(404, {"message": "no locks here"})
        else:
            self._git(path, query)

    def do_PUT(self) -> None:
        match = re.fullmatch(r"/([^/]+)\.git/lfs/([0-9a-f]{64})", self.path)
        assert match
        name, oid = match.groups()
        data = self._body()
        with self.site.lock:
            self.site.uploads_left -= 1
        if self.site.uploads_left < 0:
            self._answer(403, {"message": "no more uploads"})
        elif oid in self.site.refused or sha256(data).hexdigest() != oid:
            self._answer(422, {"message": "not the object that was promised"})
        else:
            self._keep(self.site.object(name, oid), data)
            self.site.uploaded.append(oid)
            self._answer(200, {})

    # -- LFS ---------------------------------------------------------------------------------------------------------

    def _batch(self, name: str) -> None:
        asked = json.loads(self._body())
        self.site.batches.append(len(asked["objects"]))
        rows = [self._row(name, asked["operation"], item) for item in asked["objects"]]
        self._answer(200, {"transfer": "basic", "objects": rows})

    def _row(self, name: str, operation: str, item: dict[str, object]) -> dict[str, object]:
        there = self.site.object(name, str(item["oid"])).exists()
        if operation == "download" and not there:
            return {**item, "error": {"code": 404, "message": "Object does not exist"}}
        if operation == "upload" and there:
            return item
        return {**item, "actions": {operation: {"href": f"{self.site.url}/{name}.git/lfs/{item['oid']}"}}}

    def _download(self, name: str, oid: str) -> None:
        self.site.downloaded.append(oid)
        file = self.site.object(name, oid)
        data = file.read_bytes() if file.exists() else b""
        self._send(200 if data else 404, "application/octet-stream", data)

    def _keep(self, file: Path, data: bytes) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary = file.with_name(f"{file.name}.{os.urandom(4).hex()}")
        temporary.write_bytes(data)
        temporary.replace(file)

    # -- Git ---------------------------------------------------------------------------------------------------------

    def _git(self, path: str, query: str) -> None:
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": os.environ["HOME"],
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_PROJECT_ROOT": str(self.site.root),
            "GIT_HTTP_EXPORT_ALL": "1",
            "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
            "REQUEST_METHOD": self.command,
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "REMOTE_USER": "tester",
            "REMOTE_ADDR": "127.0.0.1",
        }
        done = subprocess.run(
            ["git", "http-backend"], input=self._body(), capture_output=True, env=environment, check=False
        )
        head, _, body = done.stdout.partition(b"\r\n\r\n")
        fields = dict(line.split(": ", 1) for line in head.decode().split("\r\n") if ": " in line)
        code = int(fields.get("Status", "200 OK").split()[0])
        self._send(code, fields.get("Content-Type", "text/plain"), body)

    # -- HTTP --------------------------------------------------------------------------------------------------------

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            chunks = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                chunks.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(chunks)
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _answer(self, code: int, fields: dict[str, object]) -> None:
        self._send(code, _TYPE, json.dumps(fields).encode())

    def _send(self, code: int, kind: str, data: bytes) -> None:
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
