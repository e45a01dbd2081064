"""A model hub on this machine for the tests: serves a folder as huggingface.co does, or
fails as it is told to."""

import contextlib
import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(ThreadingHTTPServer):
    """Serves `folder` as the repository `repo`; `mode` is "serve", "busy" (429), "cut"
    (half of a file) or "silent"."""

    daemon_threads = True

    def __init__(self, folder: Path, repo: str, mode: str):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder, self.repo, self.mode = folder, repo, mode
        self.requests: list[tuple[str, str]] = []
        self.closing = threading.Event()
        self.url = f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def answer(self) -> None:
        hub = self.server
        # asked by the hub's client on its own account, once a day
        if self.path == "/api/agent-harnesses":
            return self.reply(404)
        hub.requests.append((self.command, self.path))
        assert len(hub.requests) < 200, "the client asks without end"
        if hub.mode == "silent":
            hub.closing.wait(30)
            self.close_connection = True
            return
        if hub.mode == "busy":
            return self.reply(429)
        repo, _, file = self.path.strip("/").partition("/resolve/main/")
        # as the hub does with names that have no owner
        if "/" not in repo and f"{repo}/{repo}" == hub.repo:
            return self.reply(307, {"Location": f"/{hub.repo}/resolve/main/{file}"})
        if repo != hub.repo:
            return self.reply(404, {"X-Error-Code": "RepoNotFound"})
        path = hub.folder / file
        if not path.is_file():
            return self.reply(
                404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT}
            )
        content = path.read_bytes()
        headers = {
            "ETag": f'"{hashlib.sha256(content).hexdigest()}"',
            "X-Repo-Commit": COMMIT,
        }
        self.reply(200, headers, content)

    def reply(
        self, status: int, headers: dict[str, str] | None = None, content: bytes = b""
    ) -> None:
        self.send_response(status)
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "HEAD":
            return
        if self.server.mode == "cut" and self.path.endswith(".safetensors"):
            content = content[: len(content) // 2]
            self.close_connection = True
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextlib.contextmanager
def running(folder: Path, repo: str, mode: str) -> Iterator[Hub]:
    """A hub that runs inside the block."""
    with Hub(folder, repo, mode) as hub:
        thread = threading.Thread(
            target=hub.serve_forever, kwargs={"poll_interval": 0.05}
        )
        thread.start()
        try:
            yield hub
        finally:
            hub.closing.set()
            hub.shutdown()
            thread.join()
