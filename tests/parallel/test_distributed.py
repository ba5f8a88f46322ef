"""How a process finds out that it is one of several."""

import http.server
import threading
from types import SimpleNamespace

import pytest

from lidit_jax.parallel import distributed


@pytest.fixture(autouse=True)
def bare(monkeypatch):
    """No scheduler, whatever machine runs the tests."""
    for name in ("SLURM_NTASKS", "TPU_WORKER_HOSTNAMES", "MEGASCALE_NUM_SLICES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("TPU_SKIP_MDS_QUERY", raising=False)


@pytest.fixture
def metadata(monkeypatch):
    """The attributes that a TPU VM's metadata server gives."""
    attributes = {}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            value = attributes.get(self.path.rpartition("/")[2])
            known = value is not None and self.headers["Metadata-Flavor"] == "Google"
            self.send_response(200 if known else 404)
            self.end_headers()
            self.wfile.write((value or "").encode())

        def log_message(self, *_):
            pass

    server = http.server.HTTPServer(("localhost", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("GCE_METADATA_IP", f"localhost:{server.server_port}")
    monkeypatch.setattr(distributed, "glob", SimpleNamespace(glob=lambda _: ["/dev/accel0"]))
    yield attributes
    server.shutdown()


def test_alone_without_a_scheduler():
    assert not distributed._has_companions()


def test_slurm_and_gke_say_it_in_variables(monkeypatch):
    monkeypatch.setenv("SLURM_NTASKS", "2")
    assert distributed._has_companions()
    monkeypatch.setenv("SLURM_NTASKS", "1")
    monkeypatch.setenv("TPU_WORKER_HOSTNAMES", "one")
    assert not distributed._has_companions()
    monkeypatch.setenv("TPU_WORKER_HOSTNAMES", "one,two")
    assert distributed._has_companions()


def test_two_slices_of_one_host_each(monkeypatch):
    monkeypatch.setenv("TPU_WORKER_HOSTNAMES", "one")
    monkeypatch.setenv("MEGASCALE_NUM_SLICES", "2")
    assert distributed._has_companions()


def test_a_tpu_vm_is_asked_for_its_metadata(metadata):
    metadata["worker-network-endpoints"] = "unknown:unknown:10.0.0.1"
    metadata["tpu-env"] = "ACCELERATOR_TYPE: 'v6e-8'"
    assert not distributed._has_companions()
    metadata["worker-network-endpoints"] += ",unknown:unknown:10.0.0.2"
    assert distributed._has_companions()


def test_several_slices_of_tpu_vms(metadata):
    metadata["worker-network-endpoints"] = "unknown:unknown:10.0.0.1"
    metadata["tpu-env"] = "MEGASCALE_NUM_SLICES: '2'"
    assert distributed._has_companions()


def test_no_metadata_server_means_alone(metadata, monkeypatch):
    monkeypatch.setenv("GCE_METADATA_IP", "localhost:1")
    assert not distributed._has_companions()
