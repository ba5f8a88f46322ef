"""Checkpoints on the hosts' own disks, saved often for a quick restart after a crash."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import uuid
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from lidit_jax.checkpoints.checksums import checksums, verify_checksums
from lidit_jax.checkpoints.migrations import FORMAT, migrate
from lidit_jax.checkpoints.orbax import CHECKSUMS
from lidit_jax.checkpoints.orbax_weights import reason
from lidit_jax.checkpoints.state import TrainState
from lidit_jax.config.schema import TrainingConfig
from lidit_jax.errors import LiditError
from lidit_jax.io.output import atomic_file
from lidit_jax.io.paths import local_path
from lidit_jax.parallel.distributed import all_gather, print_on_main

_TOKEN = "local_checkpoints.txt"
_KEPT = 2
"""Checkpoints kept per host; when a host has two newer ones, every host has the older of these."""


class LocalCheckpoints:
    """Checkpoints of each process's own shards, in a folder on its host.

    A step is usable when all processes of one replica (slice) have it: processes that lack it,
    because their machine was replaced, receive that replica's arrays. A save does not wait for
    other processes, and a failure only ends local saving: the workdir's checkpoints continue.

    The folder is specific to a workdir, its mesh and the process index; other entries there are not
    read, so that a new run never resumes from an old run's state.

    Orbax's own local managers (`experimental.emergency`) cannot be used together with a manager of
    all processes: they change its keys (`AwaitableSignalsContract`) on some processes only, save
    nothing in the first slice, and sum the replicas' arrays, which turns -0.0 into 0.0.
    """

    def __init__(self, workdir: Path, training: TrainingConfig, mesh: Mesh):
        """Find the existing checkpoints. All processes must call this and every method.

        Args:
          workdir: workdir of the run; a folder, or in a bucket.
          training: configuration that names the local folder.
          mesh: mesh of the run.

        Raises:
          LiditError: when the folder cannot be created.
        """
        self._root = local_path(training.local_checkpoints).absolute()
        self._mesh, self._number, self._trouble, self._off = mesh, jax.process_index(), "", False
        name = hashlib.sha256(os.fspath(workdir.absolute()).encode()).hexdigest()[:8]
        owners = [device.process_index for device in mesh.devices.flat]
        layout = json.dumps([list(mesh.devices.shape), owners]).encode()
        self._mine = f"{name}-"
        self._layout = f"{self._mine}{_token(workdir)}-{hashlib.sha256(layout).hexdigest()[:8]}-"
        self.folder = self._root / f"{self._layout}{self._number}"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            for rest in self.folder.glob("*-tmp*"):  # left by interrupted saves
                shutil.rmtree(rest)
            failure = ""
        except OSError as error:
            failure = f"{self.folder} ({error.strerror})"
        self._raise_on_all(
            failure, "cannot write to {}: set config.training.local_checkpoints to another folder"
        )
        self._manager = self._open()
        self._holders = self._find()

    def __enter__(self) -> LocalCheckpoints:
        return self

    def __exit__(self, *_: object) -> None:
        # A failure here must not fail the run.
        with contextlib.suppress(Exception):
            self._manager.close()

    def steps(self) -> list[int]:
        """Return the steps that at least one replica had completely at the start, newest last."""
        return sorted(step for step in self._holders if self._source(step) is not None)

    def metadata(self, step: int) -> dict[str, Any]:
        """Return the metadata saved with a step, migrated to the current format."""
        described = self._described(step)
        described.pop(CHECKSUMS)
        return described

    def save(self, step: int, state: TrainState, metadata: dict[str, Any]) -> None:
        """Start a save and return as soon as the state is copied.

        Args:
          step: step of the state.
          state: the whole train state.
          metadata: the run's configuration, encoders and so on.
        """
        if self._off:
            return
        self._attempt(self._manager.wait_until_finished)
        # From here on the previous step is on all hosts, or local saving has ended on all of them.
        troubles = [trouble for trouble in all_gather(self._trouble) if trouble]
        if troubles:
            self._off = True
            print_on_main(
                [f"local checkpoints end: {troubles[0]}; checkpoints in the workdir continue"]
            )
            return
        described = {"format": FORMAT, CHECKSUMS: checksums(state)} | metadata
        arguments = ocp.args.Composite(
            state=ocp.args.PyTreeSave(state), metadata=ocp.args.JsonSave(described)
        )
        self._attempt(lambda: self._start(step, arguments))

    def restore(self, step: int, shapes: TrainState) -> TrainState:
        """Restore a step of `steps()`, sharded as `shapes` specifies, on the run's mesh.

        Raises:
          LiditError: when a process cannot read its part, or the arrays are not what was saved.
        """
        everywhere = len(self._holders[step]) == jax.process_count()
        replica = self._source(step)
        assert replica is not None  # true for all of `steps`
        targets, state, failure = shapes, None, ""
        if not everywhere:
            part = Mesh(
                self._mesh.devices[replica : replica + 1],
                self._mesh.axis_names,
                axis_types=self._mesh.axis_types,
            )
            targets = jax.tree.map(
                lambda leaf: jax.ShapeDtypeStruct(
                    leaf.shape, leaf.dtype, sharding=NamedSharding(part, leaf.sharding.spec)
                ),
                shapes,
            )
        if everywhere or self._number in self._processes(replica):
            try:
                state = self._read(step, targets)
            except Exception as error:  # TensorStore raises many types
                failure = f"{self.folder / str(step)}: {reason(error)}"
        self._raise_on_all(failure, f"cannot restore checkpoint {{}}; {self._remedy}")
        if not everywhere:
            wanted = jax.tree.leaves(shapes)
            mine = jax.tree.leaves(state) if state is not None else [None] * len(wanted)
            sent = [_to_all(*pair) for pair in zip(mine, wanted, strict=True)]
            state = jax.tree.unflatten(jax.tree.structure(shapes), sent)
        assert state is not None  # else `failure` is set
        try:
            verify_checksums(checksums(state), self._described(step)[CHECKSUMS])
        except ValueError as error:
            raise LiditError(
                f"cannot restore checkpoint {self.folder / str(step)}: {reason(error)}; "
                f"{self._remedy}"
            ) from error
        return state

    @property
    def _remedy(self) -> str:
        return f"delete {self._root} on every host to continue from the workdir's last checkpoint"

    def _open(self) -> ocp.CheckpointManager:
        # Each process acts alone: it neither waits for others nor leaves writing to the first.
        alone = ocp.options.MultiprocessingOptions(
            primary_host=None,
            active_processes={self._number},
            barrier_sync_key_prefix=f"local{self._number}",
        )
        arrays = ocp.type_handlers.ArrayHandler(
            primary_host=None, replica_id=None, use_replica_parallel=False
        )
        registry = ocp.type_handlers.create_type_handler_registry((jax.Array, arrays))
        return ocp.CheckpointManager(
            self.folder,
            options=ocp.CheckpointManagerOptions(
                max_to_keep=_KEPT,
                create=False,
                multiprocessing_options=alone,
                # Asynchronous creation would signal the other processes, which create their own.
                async_options=ocp.AsyncOptions(create_directories_asynchronously=False),
            ),
            item_handlers={
                "state": ocp.PyTreeCheckpointHandler(
                    multiprocessing_options=alone, type_handler_registry=registry
                ),
                "metadata": ocp.JsonCheckpointHandler(multiprocessing_options=alone),
            },
        )

    def _start(self, step: int, arguments: ocp.args.Composite) -> None:
        for entry in self._root.glob(f"{self._mine}*"):  # of another mesh; frees the disk
            if not entry.name.startswith(self._layout):
                shutil.rmtree(entry, ignore_errors=True)
        for newer in self._manager.all_steps():
            if newer >= step:  # other hosts lacked it, so the run did not resume from it
                self._manager.delete(newer)
        self._manager.save(step, args=arguments, force=True)

    def _attempt(self, action: Any) -> None:
        """Record the first failure, until all processes synchronize again."""
        try:
            action()
        except Exception as error:  # a full disk, a lost disk or any other
            self._trouble = (
                f"process {self._number} cannot write to {self.folder} ({reason(error)})"
            )

    def _find(self) -> dict[int, list[int]]:
        """Return the indices of the processes that have each step."""
        found = all_gather(sorted(self._manager.all_steps()))
        steps = sorted({step for mine in found for step in mine})
        return {step: [n for n, mine in enumerate(found) if step in mine] for step in steps}

    def _processes(self, replica: int) -> set[int]:
        return {device.process_index for device in self._mesh.devices[replica].flat}

    def _source(self, step: int) -> int | None:
        """Return the first replica of which all processes have the step."""
        for replica in range(self._mesh.shape["replica"]):
            if self._processes(replica) <= set(self._holders[step]):
                return replica
        return None

    def _described(self, step: int) -> dict[str, Any]:
        mine, failure = None, ""
        if self._number in self._holders[step]:
            try:
                mine = self._manager.restore(
                    step, args=ocp.args.Composite(metadata=ocp.args.JsonRestore())
                )["metadata"]
            except Exception as error:
                failure = f"{self.folder / str(step)}: {reason(error)}"
        self._raise_on_all(failure, f"cannot restore checkpoint {{}}; {self._remedy}")
        described = next(theirs for theirs in all_gather(mine) if theirs is not None)
        return migrate(described, f"checkpoint {self.folder / str(step)}")

    def _read(self, step: int, targets: TrainState) -> TrainState:
        places = ocp.checkpoint_utils.construct_restore_args(targets)
        arguments = ocp.args.PyTreeRestore(item=targets, restore_args=places)
        return self._manager.restore(step, args=ocp.args.Composite(state=arguments))["state"]

    def _raise_on_all(self, failure: str, message: str) -> None:
        """Raise `LiditError` on all processes if any of them has a failure."""
        failures = [theirs for theirs in all_gather(failure) if theirs]
        if failures:
            raise LiditError(message.format(failures[0]))


def _token(workdir: Path) -> str:
    """Return the workdir's unique token, created on the first call; a recreated workdir differs."""
    mine = None
    if jax.process_index() == 0:
        file = workdir / _TOKEN
        if file.exists():
            mine = file.read_text().strip()
        else:
            mine = uuid.uuid4().hex[:8]
            workdir.mkdir(parents=True, exist_ok=True)
            with atomic_file(file) as new:
                new.write(mine.encode())
    return all_gather(mine)[0]


def _to_all(mine: jax.Array | None, shape: jax.ShapeDtypeStruct) -> jax.Array:
    """Send one replica's array to all replicas; the others pass None."""
    mesh, spec = shape.sharding.mesh, shape.sharding.spec
    copies = NamedSharding(mesh, PartitionSpec("replica", *spec))
    whole = (mesh.shape["replica"], *shape.shape)
    held = (
        {shard.device: shard.data for shard in mine.addressable_shards} if mine is not None else {}
    )
    nothing = np.zeros(copies.shard_shape(whole), shape.dtype)
    parts = [
        jax.device_put(np.asarray(held[device])[None] if device in held else nothing, device)
        for device in copies.addressable_devices
    ]
    stacked = jax.make_array_from_single_device_arrays(whole, copies, parts)
    # One at a time: many collectives in flight can deadlock on several CPU devices.
    return jax.block_until_ready(jax.jit(_merged, out_shardings=shape.sharding)(stacked))


def _merged(copies: jax.Array) -> jax.Array:
    """Return the nonzero copy of several; bits are added, so that -0.0 is preserved."""
    if copies.dtype == jnp.bool_:
        return jnp.any(copies, axis=0)
    kind = f"uint{copies.dtype.itemsize * 8}"
    bits = jnp.sum(jax.lax.bitcast_convert_type(copies, kind), axis=0, dtype=kind)
    return jax.lax.bitcast_convert_type(bits, copies.dtype)
