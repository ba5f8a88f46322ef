"""Stand-ins for the Hugging Face hub, for its real client: one dataset, and model repositories."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
from huggingface_hub import HfFileSystem, constants


@contextmanager
def serve(name: str, files: dict[str, bytes]) -> Iterator[None]:
    """Serves a dataset to this process.

    Args:
      name: `USER/NAME`.
      files: contents, by path.
    """
    with _serving(type("Handler", (_Handler,), {"name": name, "files": files})):
        HfFileSystem.clear_instance_cache()
        yield
    HfFileSystem.clear_instance_cache()


@contextmanager
def receive(token: str) -> Iterator[dict[str, Repository]]:
    """Accepts model repositories of this process, and yields them by name.

    Args:
      token: the one that may write.
    """
    received: dict[str, Repository] = {}
    with _serving(type("Receiver", (_Receiver,), {"token": token, "received": received})):
        yield received


@contextmanager
def _serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[None]:
    server = ThreadingHTTPServer(("localhost", 0), handler)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    with pytest.MonkeyPatch.context() as patch:
        address = f"http://localhost:{server.server_port}"
        patch.setattr(constants, "ENDPOINT", address)
        template = f"{address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        yield
    server.shutdown()
    server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    name = ""
    files: dict[str, bytes]

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        about = f"/api/datasets/{self.name}"
        if found := re.fullmatch(f"{about}/tree/[^/]+(?:/(.*))?", path):
            self._json(self._tree(f"{unquote(found[1])}/" if found[1] else ""))
        elif path == about or path.startswith(f"{about}/revision/"):
            self._json({"id": self.name, "sha": "1" * 40})
        elif found := re.fullmatch(f"/datasets/{self.name}/resolve/[^/]+/(.*)", path):
            self._send(self.files.get(unquote(found[1])))
        else:
            self._send(None)

    do_HEAD = do_GET  # noqa: N815

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        asked = json.loads(body)["paths"] if body.startswith("{") else parse_qs(body)["paths"]
        if self.path.startswith(f"/api/datasets/{self.name}/paths-info/"):
            names = [unquote(name) for name in asked]
            self._json([self._info(name) for name in names if name in self.files])
        else:
            self._send(None)

    def _tree(self, below: str) -> list[dict[str, object]]:
        names = [name for name in self.files if name.startswith(below)]
        if "recursive=true" in self.path.lower():
            inside = names
        else:
            inside = [name for name in names if "/" not in name[len(below) :]]
        folders = {f"{below}{n[len(below) :].partition('/')[0]}" for n in names} - set(names)
        described = [{"type": "directory", "path": name, "oid": "0"} for name in sorted(folders)]
        return described + [self._info(name) for name in inside]

    def _info(self, name: str) -> dict[str, object]:
        content = self.files[name]
        digest = hashlib.sha1(content).hexdigest()
        return {"type": "file", "path": name, "size": len(content), "oid": digest}

    def _json(self, answer: object) -> None:
        self._send(json.dumps(answer).encode(), "application/json")

    def _send(self, content: bytes | None, kind: str = "application/octet-stream") -> None:
        if content is None:
            self.send_response(404)
            self.send_header("X-Error-Code", "RepoNotFound")
            content = b""
        elif span := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
            first, last = int(span[1]), min(int(span[2] or len(content)), len(content) - 1)
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {first}-{last}/{len(content)}")
            content = content[first : last + 1]
        else:
            self.send_response(200)
        self.send_header("ETag", f'"{hashlib.sha1(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", "1" * 40)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Nothing is said of requests."""


@dataclass
class Repository:
    """A model repository that was created."""

    private: bool
    files: dict[str, bytes] = field(default_factory=dict)


class _Receiver(BaseHTTPRequestHandler):
    """Takes small files in one request, as the hub takes text."""

    protocol_version = "HTTP/1.1"
    token = ""
    received: dict[str, Repository]

    def do_GET(self) -> None:
        name = self.path.partition("?")[0].removeprefix("/api/models/").partition("/revision/")[0]
        tree = re.fullmatch(r"(.+)/tree/main", name)
        if tree and (listed := self.received.get(tree[1])):
            self._json([{"type": "file", "path": f, "size": 1, "oid": "0"} for f in listed.files])
        elif found := self.received.get(name):
            self._json({"id": name, "private": found.private, "sha": "1" * 40})
        else:
            self._json({"error": f"no {name}"}, 404)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        lines = [json.loads(line) for line in body.splitlines()]
        if self.headers["Authorization"] != f"Bearer {self.token}":
            self._json({"error": "Invalid username or password."}, 401)
        elif self.path == "/api/repos/create":
            self._create(lines[0])
        elif self.path == "/api/validate-yaml":
            self._json({"errors": [], "warnings": []})
        elif found := re.fullmatch(r"/api/models/(.+)/(preupload|commit)/main", self.path):
            if found[2] == "commit":
                self._commit(found[1], lines)
            else:
                small = {"uploadMode": "regular", "shouldIgnore": False, "oid": None}
                self._json({"files": [{"path": f["path"]} | small for f in lines[0]["files"]]})
        else:
            self._json({"error": self.path}, 404)

    def _create(self, asked: dict[str, str]) -> None:
        name = f"{asked['organization']}/{asked['name']}"
        if asked["organization"] == "others":
            self._json({"error": "you have no rights there"}, 403)
            return
        status = 409 if name in self.received else 200
        private = asked.get("visibility") == "private" or asked.get("private") is True
        self.received.setdefault(name, Repository(private))
        self._json({"url": f"http://{self.headers['Host']}/{name}", "name": name}, status)

    def _commit(self, name: str, lines: list[dict]) -> None:
        for line in lines:
            if line["key"] == "file":
                content = base64.b64decode(line["value"]["content"])
                self.received[name].files[line["value"]["path"]] = content
            elif line["key"] == "deletedFile":
                del self.received[name].files[line["value"]["path"]]
        address = f"http://{self.headers['Host']}/{name}/commit/{'1' * 40}"
        self._json({"commitUrl": address, "commitOid": "1" * 40, "success": True})

    def _json(self, answer: object, status: int = 200) -> None:
        content = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Nothing is said of requests."""
