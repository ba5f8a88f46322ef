"""Checkpoints on the hosts' own disks: written often, for a start after a crash."""

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
"""A host deletes a step when it has two newer ones: the last but one is then on every host."""


class LocalCheckpoints:
    """What each process saves of its own shards in a folder of its host.

    A step counts when all processes of one replica (slice) have it: where others lack it, because
    their machine was replaced, that replica's arrays are sent to them. A save waits for no other
    process, and one that fails only ends the saving: the workdir's checkpoints go on.

    The folder belongs to one workdir, to its mesh and to the number of the process; what lies there
    for others is not read, so that a new run never goes on from an old one's state.

    Orbax's own managers of this kind (`experimental.emergency`) cannot be used beside a manager of
    all processes: they change its keys (`AwaitableSignalsContract`) on some processes only, save
    nothing in the first slice, and add the replicas' arrays up, which turns -0.0 into 0.0.
    """

    def __init__(self, workdir: Path, training: TrainingConfig, mesh: Mesh):
        """Finds what is there. All processes call this and every method.

        Args:
          workdir: of the run; a folder, or in a bucket.
          training: names the folder.
          mesh: of the run.

        Raises:
          LiditError: when the folder cannot be made.
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
            for rest in self.folder.glob("*-tmp*"):  # what a save that was cut off has left
                shutil.rmtree(rest)
            failure = ""
        except OSError as error:
            failure = f"{self.folder} ({error.strerror})"
        self._raise_on_all(
            failure, "cannot write to {}: name another config.training.local_checkpoints"
        )
        self._manager = self._open()
        self._holders = self._find()

    def __enter__(self) -> LocalCheckpoints:
        return self

    def __exit__(self, *_: object) -> None:
        # What failed here is no reason for the run to fail.
        with contextlib.suppress(Exception):
            self._manager.close()

    def steps(self) -> list[int]:
        """Steps that were complete on at least one replica at the start, the newest last."""
        return sorted(step for step in self._holders if self._source(step) is not None)

    def metadata(self, step: int) -> dict[str, Any]:
        """What `save` was given beside the state, in today's format."""
        described = self._described(step)
        described.pop(CHECKSUMS)
        return described

    def save(self, step: int, state: TrainState, metadata: dict[str, Any]) -> None:
        """Starts a save and returns as soon as the state is copied.

        Args:
          step: of the state.
          state: all of it.
          metadata: the run's configuration, encoders and the like.
        """
        if self._off:
            return
        self._attempt(self._manager.wait_until_finished)
        # From here on the step before this one is on all hosts, or the saving ends on all of them.
        troubles = [trouble for trouble in all_gather(self._trouble) if trouble]
        if troubles:
            self._off = True
            print_on_main([f"no more local checkpoints: {troubles[0]}; those in the workdir go on"])
            return
        described = {"format": FORMAT, CHECKSUMS: checksums(state)} | metadata
        arguments = ocp.args.Composite(
            state=ocp.args.PyTreeSave(state), metadata=ocp.args.JsonSave(described)
        )
        self._attempt(lambda: self._start(step, arguments))

    def restore(self, step: int, shapes: TrainState) -> TrainState:
        """The state of a step of `steps()`, placed as `shapes` asks; its mesh is the run's.

        Raises:
          LiditError: when a process cannot read its part, or the arrays are not what was saved.
        """
        everywhere = len(self._holders[step]) == jax.process_count()
        replica = self._source(step)
        assert replica is not None  # `steps` names no others
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
            except Exception as error:  # TensorStore's are of many kinds
                failure = f"{self.folder / str(step)}: {reason(error)}"
        self._raise_on_all(failure, f"cannot restore checkpoint {{}}; {self._remedy}")
        if not everywhere:
            wanted = jax.tree.leaves(shapes)
            mine = jax.tree.leaves(state) if state is not None else [None] * len(wanted)
            sent = [_to_all(*pair) for pair in zip(mine, wanted, strict=True)]
            state = jax.tree.unflatten(jax.tree.structure(shapes), sent)
        assert state is not None  # without it there was a failure
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
        return f"delete {self._root} on every host to go on from the workdir's last checkpoint"

    def _open(self) -> ocp.CheckpointManager:
        # Each process is alone: it neither waits for others nor leaves the writing to the first.
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
                # That a folder is there would be told to the other processes, for theirs.
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
        for entry in self._root.glob(f"{self._mine}*"):  # of another mesh; it takes room
            if not entry.name.startswith(self._layout):
                shutil.rmtree(entry, ignore_errors=True)
        for newer in self._manager.all_steps():
            if newer >= step:  # other hosts lacked it, so that the run did not go on from there
                self._manager.delete(newer)
        self._manager.save(step, args=arguments, force=True)

    def _attempt(self, action: Any) -> None:
        """Remembers what failed, until all processes meet again."""
        try:
            action()
        except Exception as error:  # a full disk, a lost one: whatever it was
            self._trouble = (
                f"process {self._number} cannot write to {self.folder} ({reason(error)})"
            )

    def _find(self) -> dict[int, list[int]]:
        """Processes that have a step, by step."""
        found = all_gather(sorted(self._manager.all_steps()))
        steps = sorted({step for mine in found for step in mine})
        return {step: [n for n, mine in enumerate(found) if step in mine] for step in steps}

    def _processes(self, replica: int) -> set[int]:
        return {device.process_index for device in self._mesh.devices[replica].flat}

    def _source(self, step: int) -> int | None:
        """The first replica of whose processes all have the step."""
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
        """Raises `LiditError` on all processes when there is a failure on one."""
        failures = [theirs for theirs in all_gather(failure) if theirs]
        if failures:
            raise LiditError(message.format(failures[0]))


def _token(workdir: Path) -> str:
    """A name that the workdir got when this was called first; a new workdir of its name differs."""
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
    """An array that one replica has, on all of them; the others give None."""
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
    # One at a time: many collectives in flight can block each other on several CPU devices.
    return jax.block_until_ready(jax.jit(_merged, out_shardings=shape.sharding)(stacked))


def _merged(copies: jax.Array) -> jax.Array:
    """The one of several copies that is not zero; bits are added, so that -0.0 stays what it is."""
    if copies.dtype == jnp.bool_:
        return jnp.any(copies, axis=0)
    kind = f"uint{copies.dtype.itemsize * 8}"
    bits = jnp.sum(jax.lax.bitcast_convert_type(copies, kind), axis=0, dtype=kind)
    return jax.lax.bitcast_convert_type(bits, copies.dtype)
