"""A stand-in for the Hugging Face hub: one dataset's files, as its real client asks for them."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
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
    handler = type("Handler", (_Handler,), {"name": name, "files": files})
    server = ThreadingHTTPServer(("localhost", 0), handler)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    with pytest.MonkeyPatch.context() as patch:
        address = f"http://localhost:{server.server_port}"
        patch.setattr(constants, "ENDPOINT", address)
        template = f"{address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        HfFileSystem.clear_instance_cache()
        yield
    HfFileSystem.clear_instance_cache()
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
