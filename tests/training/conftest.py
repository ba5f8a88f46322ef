"""What tests of stopped runs share."""

import itertools
import os
import signal
from contextlib import contextmanager

import pytest

from lidit_jax.training.monitoring.run_log import RunLog


@pytest.fixture
def terminated(monkeypatch):
    """`with terminated(3): train(...)`: this process gets SIGTERM in the third step.

    `readers` gives the process ids that get it first, as when a whole group is ended.
    """

    @contextmanager
    def terminated(step, readers=list):
        accumulate, count = RunLog.accumulate, itertools.count(1)

        def terminate(log, values):
            if next(count) == step:
                for pid in (*readers(), os.getpid()):
                    os.kill(pid, signal.SIGTERM)
            return accumulate(log, values)

        with monkeypatch.context() as patched:
            patched.setattr(RunLog, "accumulate", terminate)
            yield

    return terminated
