"""How a process finds out that it is one of several."""

import http.server
import threading
from types import SimpleNamespace

import pytest
from orbax.checkpoint import multihost

from lidit_jax.errors import LiditError
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


def test_a_process_that_does_not_come_in_time_is_named(monkeypatch):
    def barrier(key, timeout_ms):
        assert (key, timeout_ms) == ("lidit: the first step", 90_000)
        raise RuntimeError(
            "DEADLINE_EXCEEDED: Barrier timed out. Please look at the task logs.\n"
            "# of tasks that reached the barrier: 1/2.\nThe first task at the barrier: task:0. "
            "Some timed out task names:\n/job:jax_worker/replica:0/task:1"
        )

    distributed.barrier("the first step", 1.5)  # alone there is nobody to wait for
    monkeypatch.setattr(distributed.jax, "process_count", lambda: 2)
    monkeypatch.setattr(multihost, "get_barrier_sync_fn", lambda: barrier)
    distributed.barrier("the first step", 0)
    with pytest.raises(LiditError, match=r"'the first step' within 1.5 minutes .*task:1\): look"):
        distributed.barrier("the first step", 1.5)
