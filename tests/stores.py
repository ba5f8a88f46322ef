"""Stand-ins for stores on this machine, and what makes their real clients talk to them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import botocore.session
import fsspec
import pytest
from etils.epath.backend import fsspec_backend
from fsspec.config import conf

from tests import fake_gcs


@contextmanager
def gcs_store() -> Iterator[fake_gcs.Store]:
    """An empty bucket named "bucket" of Google Cloud Storage."""
    store = fake_gcs.Store("bucket")
    with fake_gcs.serve(store) as address, pytest.MonkeyPatch.context() as patch:
        for name, value in fake_gcs.variables(address).items():
            patch.setenv(name, value)
        patch.setitem(conf, "gcs", {"token": "anon"})
        _forget_clients()
        yield store
    _forget_clients()


@contextmanager
def s3_store() -> Iterator[Any]:
    """A client of an empty bucket named "bucket" in moto's stand-in for S3."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "AWS_ENDPOINT_URL": f"http://{host}:{port}",
            "AWS_ACCESS_KEY_ID": "somebody",
            "AWS_SECRET_ACCESS_KEY": "anything",
            "AWS_DEFAULT_REGION": "us-east-1",
        }.items():
            patch.setenv(name, value)
        _forget_clients()
        client = botocore.session.get_session().create_client("s3")
        client.create_bucket(Bucket="bucket")
        yield client
        server.stop()
    _forget_clients()


def _forget_clients() -> None:
    """They know the address of the stand-in with which they were made.

    gcsfs is imported when its variables are set: it reads one of them when it is imported.
    """
    fsspec_backend._get_filesystem.cache_clear()
    for name in ("gs", "s3"):
        fsspec.get_filesystem_class(name).clear_instance_cache()
