"""A stand-in for Google Cloud Storage: the JSON API over HTTP, with objects in memory.

Enough of it for TensorStore's `gcs` driver, gcsfs and google-cloud-storage, with an object store's
semantics: no folders, no appending, no renaming; an object appears whole, with a new generation.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

_NOW = "2026-01-01T00:00:00.000Z"


class Store:
    """Buckets, and the objects in them by name."""

    def __init__(self, *buckets: str):
        self.buckets: dict[str, dict[str, tuple[int, bytes]]] = {name: {} for name in buckets}
        self.lock = threading.RLock()
        self.generations = itertools.count(1)
        self.uploads: dict[str, tuple[str, str, bytearray]] = {}
        self.refuses = ""
        """Objects whose names match this pattern cannot be written: "no space left"."""

    def names(self, bucket: str, prefix: str = "") -> list[str]:
        """Of the objects, sorted."""
        with self.lock:
            return sorted(n for n in self.buckets[bucket] if n.startswith(prefix))

    def read(self, bucket: str, name: str) -> bytes:
        """The content of an object."""
        return self.buckets[bucket][name][1]


@contextmanager
def serve(store: Store) -> Iterator[str]:
    """Serves a store on this machine; gives its address."""
    handler = type("Handler", (_Handler,), {"store": store})
    server = _Server(("localhost", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"http://localhost:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def variables(address: str) -> dict[str, str]:
    """What makes the three clients talk to the stand-in, anonymously."""
    return {
        "TENSORSTORE_GCS_HTTP_URL": address,
        "STORAGE_EMULATOR_HOST": address,
        "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",
        "GOOGLE_CLOUD_PROJECT": "test",
        "CLOUD_STORAGE_EMULATOR_ENDPOINT": address,
        "FSSPEC_GCS_TOKEN": "anon",
        "GCE_METADATA_ROOT": "localhost:1",
        "GCE_METADATA_HOST": "localhost:1",
    }


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, *_: Any) -> None:
        """A client may go away in the middle of an answer."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    store: Store

    def do_GET(self) -> None:
        path, query = self._request()
        if found := re.fullmatch(r"(?:/download)?/storage/v1/b/([^/]+)/o/(.+)", path):
            self._get(found[1], unquote(found[2]), query)
        elif found := re.fullmatch(r"/storage/v1/b/([^/]+)/o", path):
            self._list(found[1], query)
        elif found := re.fullmatch(r"/storage/v1/b/([^/]+)", path):
            known = found[1] in self.store.buckets
            self._answer(200 if known else 404, {"name": found[1], "kind": "storage#bucket"})
        else:
            self._answer(404, {"error": {"code": 404, "message": path}})

    def do_POST(self) -> None:
        path, query = self._request()
        if path == "/batch/storage/v1":
            self._batch()
        elif path.startswith("/resumable/"):
            self._chunk(path)
        elif found := re.fullmatch(r"/upload/storage/v1/b/([^/]+)/o", path):
            self._upload(found[1], query)
        else:
            self._answer(404, {"error": {"code": 404, "message": path}})

    def do_DELETE(self) -> None:
        path, _ = self._request()
        found = re.fullmatch(r"/storage/v1/b/([^/]+)/o/(.+)", path)
        self._answer(self._delete(found[1], unquote(found[2])), None)

    def _get(self, bucket: str, name: str, query: dict[str, str]) -> None:
        with self.store.lock:
            generation, content = self.store.buckets.get(bucket, {}).get(name, (0, None))
        if content is None:
            self._answer(404, {"error": {"code": 404, "message": f"no object {name}"}})
        elif query.get("ifGenerationNotMatch") == str(generation):
            self._answer(304, None)
        elif query.get("alt") != "media":
            self._answer(200, self._describe(bucket, name))
        else:
            headers = {"x-goog-generation": str(generation), "ETag": str(generation)}
            wanted = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", ""))
            if not wanted:
                self._answer(200, content, headers)
                return
            first, last = wanted[1], wanted[2]
            start = int(first) if first else max(len(content) - int(last), 0)
            stop = min(int(last) + 1, len(content)) if first and last else len(content)
            if start >= len(content):
                self._answer(416, {"error": {"code": 416, "message": "range"}})
                return
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(content)}"
            self._answer(206, content[start:stop], headers)

    def _list(self, bucket: str, query: dict[str, str]) -> None:
        if bucket not in self.store.buckets:
            self._answer(404, {"error": {"code": 404, "message": "no such bucket"}})
            return
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
        items, prefixes = [], set()
        for name in self.store.names(bucket, prefix):
            if name < query.get("startOffset", "") or name >= query.get("endOffset", chr(0x10FFFF)):
                continue
            rest = name[len(prefix) :]
            if delimiter and delimiter in rest:
                prefixes.add(prefix + rest.partition(delimiter)[0] + delimiter)
            else:
                items.append(self._describe(bucket, name))
        self._answer(200, {"items": items, "prefixes": sorted(prefixes)})

    def _upload(self, bucket: str, query: dict[str, str]) -> None:
        kind, body = query["uploadType"], self._body()
        if kind == "multipart":
            boundary = re.search(r'boundary="?([^";]+)', self.headers["Content-Type"])[1]
            described, content = re.split(rb"--" + re.escape(boundary.encode()), body)[1:3]
            name = json.loads(re.split(rb"\r?\n\r?\n", described, maxsplit=1)[1])["name"]
            body = re.sub(rb"\r?\n$", b"", re.split(rb"\r?\n\r?\n", content, maxsplit=1)[1])
        else:
            name = query["name"]
        if kind == "resumable":
            key = f"/resumable/{next(self.store.generations):020d}"
            self.store.uploads[key] = (bucket, name, bytearray())
            host = f"http://{self.headers['Host']}"
            self._answer(200, None, {"Location": host + key})
        else:
            self._write(bucket, name, body, query)

    def _chunk(self, path: str) -> None:
        bucket, name, content = self.store.uploads[path]
        content += self._body()
        if self.headers["Content-Range"].endswith("/*"):
            self._answer(308, None, {"Range": f"bytes=0-{len(content) - 1}"})
        else:
            self._write(bucket, name, bytes(content), {})

    def _write(self, bucket: str, name: str, content: bytes, query: dict[str, str]) -> None:
        with self.store.lock:
            objects = self.store.buckets.get(bucket)
            if objects is None:
                self._answer(404, {"error": {"code": 404, "message": "no such bucket"}})
                return
            if self.store.refuses and re.search(self.store.refuses, name):
                self._answer(403, {"error": {"code": 403, "message": "no space left"}})
                return
            now = objects.get(name, (0, b""))[0]
            if query.get("ifGenerationMatch", str(now)) != str(now):
                self._answer(412, {"error": {"code": 412, "message": "generation"}})
                return
            objects[name] = (next(self.store.generations), content)
            self._answer(200, self._describe(bucket, name))

    def _delete(self, bucket: str, name: str) -> int:
        with self.store.lock:
            return 204 if self.store.buckets.get(bucket, {}).pop(name, None) else 404

    def _batch(self) -> None:
        parts = []
        for call in re.findall(rb"DELETE /storage/v1/b/([^/]+)/o/(\S+) HTTP", self._body()):
            status = self._delete(*(unquote(part.decode()) for part in call))
            parts.append(
                f"--answer\r\nContent-Type: application/http\r\n\r\nHTTP/1.1 {status} X\r\n"
            )
        body = "".join(parts) + "\r\n--answer--"
        self._answer(200, body.encode(), {"Content-Type": "multipart/mixed; boundary=answer"})

    def _describe(self, bucket: str, name: str) -> dict[str, Any]:
        generation, content = self.store.buckets[bucket][name]
        md5 = base64.b64encode(hashlib.md5(content).digest()).decode()
        common = {"kind": "storage#object", "bucket": bucket, "name": name, "md5Hash": md5}
        times = {"timeCreated": _NOW, "updated": _NOW}
        return common | times | {"generation": str(generation), "size": str(len(content))}

    def _request(self) -> tuple[str, dict[str, str]]:
        parts = urlsplit(self.path)
        return parts.path, {k: v[0] for k, v in parse_qs(parts.query).items()}

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _answer(
        self, status: int, content: bytes | dict[str, Any] | None, headers: Any = None
    ) -> None:
        body = json.dumps(content).encode() if isinstance(content, dict) else content or b""
        self.send_response(status)
        for name, value in ({"Content-Type": "application/json"} | (headers or {})).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if status != 304:
            self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass
