"""The parts of the Hugging Face hub's HTTP interface that a pull uses, over loopback."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Hub:
    """Repositories by id; `files` by path. `lies` are files that are served with other bytes."""

    files: dict[str, dict[str, bytes]]
    commit: str = COMMIT
    revisions: set[str] = field(default_factory=lambda: {"main"})
    lies: set[str] = field(default_factory=set)
    asked: list[str] = field(default_factory=list)
    url: str = ""

    def answer(self, path: str) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body of a GET."""
        self.asked.append(path)
        parts = path.strip("/").split("/")
        if parts[:2] == ["api", "models"]:
            return self._about("/".join(parts[2:4]), parts[4:])
        repo, file = "/".join(parts[:2]), "/".join(parts[4:])
        data = self.files.get(repo, {}).get(file)
        named = parts[2:4] in [["resolve", revision] for revision in (self.commit, *self.revisions)]
        if not named or data is None:
            return 404, {"X-Error-Code": "EntryNotFound"}, b""
        if file in self.lies:
            data = data[:-1] + b"!"
        etag = f'"{hashlib.sha256(data).hexdigest()}"'
        return 200, {"ETag": etag, "X-Repo-Commit": self.commit}, data

    def _about(self, repo: str, rest: list[str]) -> tuple[int, dict[str, str], bytes]:
        if repo not in self.files:
            return 404, {"X-Error-Code": "RepoNotFound"}, b"{}"
        if rest and rest[1] not in ("main", self.commit):
            return 404, {"X-Error-Code": "RevisionNotFound"}, b"{}"
        siblings = [
            {
                "rfilename": name,
                "size": len(data),
                "lfs": {
                    "sha256": hashlib.sha256(data).hexdigest(),
                    "size": len(data),
                    "pointerSize": 130,
                },
            }
            for name, data in self.files[repo].items()
        ]
        about = {"id": repo, "sha": self.commit, "siblings": siblings, "private": False}
        return 200, {"Content-Type": "application/json"}, json.dumps(about).encode()


@contextmanager
def serving(hub: Hub) -> Iterator[Hub]:
    """Serve on a free port while the context lasts."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            status, headers, body = hub.answer(unquote(urlsplit(self.path).path))
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_HEAD = do_GET

        def log_message(self, *_: object) -> None:
            """Nothing on stderr."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
