"""Job to launch: the arguments of `lidit train`, a name, and the workdir."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from launcher.commands import Commands, LaunchError, cause

STOPPED_STATUS = 143
"""Exit status of `lidit train` after a SIGTERM (128 + 15); 0 would mean that training is complete.

XPK restarts on it (https://github.com/AI-Hypercomputer/xpk: 42 and 127 to 255)."""

_NAME = re.compile(r"[a-z]([-a-z0-9]{0,37}[a-z0-9])?")
_MOUNTED = re.compile(r"/gcs/([a-z0-9][-_.a-z0-9]+)")
_BUCKET = re.compile(r"[a-z0-9][-_.a-z0-9]+")
_BUCKET_RUN = re.compile(r"gs://([^/]+)/(.+)")


@dataclass(frozen=True)
class Job:
    """One run of `lidit train`."""

    name: str
    """Name of the job, in the cloud or scheduler: letters, digits and hyphens."""
    arguments: tuple[str, ...]
    """Arguments of `lidit`, beginning with "train", passed on unchanged."""

    @property
    def config(self) -> str:
        """Recipe."""
        return _value(self.arguments, "--config")

    @property
    def workdir(self) -> str:
        """Workdir of the run."""
        return _value(self.arguments, "--workdir")

    def with_workdir(self, workdir: str) -> Job:
        """Return the same run with the workdir's path on the machine where it runs."""
        replaced = [
            f"--workdir={workdir}" if argument.startswith("--workdir=") else argument
            for argument in self.arguments
        ]
        if "--workdir" in replaced:
            replaced[replaced.index("--workdir") + 1] = workdir
        return Job(self.name, tuple(replaced))

    @property
    def store(self) -> str | None:
        """Extra of lidit-jax for access to the workdir: "gcs", "s3", or None for a folder."""
        return {"gs": "gcs", "s3": "s3"}.get(self.workdir.partition("://")[0])


def make_job(arguments: list[str], name: str | None) -> Job:
    """Build the job of a command line; its default name comes from the workdir.

    Raises:
      LaunchError: when `--config` or `--workdir` is absent, or the name cannot be used.
    """
    job = Job("unnamed", tuple(arguments))
    _ = job.config
    if name is None:
        last = job.workdir.rstrip("/").rpartition("/")[2].lower()
        name = "lidit-" + re.sub("[^a-z0-9]+", "-", last).strip("-")
    if not _NAME.fullmatch(name):
        raise LaunchError(
            f"--name={name}: use up to 39 lower-case letters, digits and hyphens, a letter first"
        )
    return Job(name, job.arguments)


def mounted_buckets(texts: Iterable[str]) -> list[str]:
    """Return buckets that texts contain as folders, `/gcs/BUCKET/…`, such as one with images."""
    return sorted({name for text in texts for name in _MOUNTED.findall(text)})


def check_bucket(job: Job, commands: Commands) -> str:
    """Return the bucket of a workdir that must outlive the machines, after checking access to it.

    Raises:
      LaunchError: when the workdir is not in a bucket, or the bucket has no valid name or cannot
        be accessed.
    """
    found = _BUCKET_RUN.fullmatch(job.workdir)
    if not found:
        raise LaunchError(
            f"--workdir={job.workdir} would be lost with the machines: name a folder in a bucket, "
            "gs://BUCKET/runs/NAME"
        )
    bucket = found[1]
    if not _BUCKET.fullmatch(bucket):
        raise LaunchError(
            f"--workdir={job.workdir}: {bucket} is not a valid bucket name (lower-case letters, "
            "digits, dots, dashes): put the name of your own there"
        )
    result = commands.run("gcloud", "storage", "buckets", "describe", f"gs://{bucket}")
    if result.returncode and "gcloud auth login" in result.stderr:
        raise LaunchError(f"no account is active ({cause(result.stderr)}): run `gcloud auth login`")
    if result.returncode:
        raise LaunchError(
            f"bucket gs://{bucket} cannot be read ({cause(result.stderr)}): make it with "
            f"`gcloud storage buckets create gs://{bucket} --location=REGION "
            "--uniform-bucket-level-access`, in the region of the machines"
        )
    return bucket


def _value(arguments: tuple[str, ...], option: str) -> str:
    for index, argument in enumerate(arguments):
        if argument.startswith(f"{option}="):
            return argument.partition("=")[2]
        if argument == option and index + 1 < len(arguments):
            return arguments[index + 1]
    raise LaunchError(f"lidit train needs {option}=…: see `lidit train --help`")
