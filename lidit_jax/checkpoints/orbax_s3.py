"""Make Orbax read and write checkpoints in S3.

TensorStore supports S3, but Orbax uses it for local folders and gs:// only, and treats an `s3://`
path as a relative one. Three of its functions are therefore replaced. They are private, so a
version of Orbax without them is refused by name.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import Any

import orbax.checkpoint as ocp
from orbax.checkpoint._src.path import gcs_utils
from orbax.checkpoint._src.serialization import tensorstore_utils

from lidit_jax.errors import LiditError

_PREFIX = "s3://"


@functools.cache
def register_s3() -> None:
    """Enable `s3://` paths for Orbax in this process; repeated calls have no effect.

    Raises:
      LiditError: when this version of Orbax lacks the functions to replace.
    """
    try:
        kvstore = gcs_utils.get_kvstore_for_gcs
        remote = tensorstore_utils._use_gcs_driver
        normal = tensorstore_utils._normalize_path
    except AttributeError as error:
        raise LiditError(
            f"checkpoints in s3:// do not work with orbax-checkpoint {ocp.__version__}: use a "
            "mounted folder or gs://, or orbax-checkpoint 0.12"
        ) from error
    gcs_utils.get_kvstore_for_gcs = _for_s3(_kvstore, kvstore)
    tensorstore_utils._use_gcs_driver = _for_s3(lambda path: True, remote)
    tensorstore_utils._normalize_path = _for_s3(lambda path: path.rstrip("/"), normal)


def _for_s3(own: Callable[[str], Any], theirs: Callable[[str], Any]) -> Callable[[str], Any]:
    return lambda path: (own if path.startswith(_PREFIX) else theirs)(path)


def _kvstore(path: str) -> dict[str, str]:
    """Return TensorStore's specification of a path; AWS's variables may name another endpoint."""
    bucket, _, key = path.removeprefix(_PREFIX).partition("/")
    place = {"driver": "s3", "bucket": bucket, "path": key}
    if endpoint := os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL"):
        region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
        place |= {"endpoint": endpoint, "aws_region": region or "us-east-1"}
    return place
