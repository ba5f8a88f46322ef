"""At a resume it is told what has come, gone and changed in the data since the checkpoint."""

import numpy as np
import pytest

from lidit_jax.checkpoints.provenance import Provenance
from lidit_jax.data.contents import Contents
from lidit_jax.training.data_changes import describe_data_changes, save_data_digests

BEGUN = Contents(3, "begun", np.array([[1, 1], [2, 2], [3, 3]], np.uint64))
LATER = Contents(2, "later", np.array([[2, 2], [3, 9]], np.uint64))
SAVED = Provenance(data=BEGUN.description)


@pytest.fixture
def workdir(tmp_path):
    """Of a run that has begun."""
    save_data_digests(BEGUN, tmp_path)
    return tmp_path


def test_the_same_data_is_passed_over_in_silence(workdir):
    assert describe_data_changes(BEGUN, SAVED, workdir) == []


def test_other_data_is_told_in_a_line(workdir):
    assert describe_data_changes(LATER, SAVED, workdir) == [
        "the training data has changed since the checkpoint: 1 removed, 1 changed (3 records then, "
        "2 now); the run goes on with today's"
    ]


def test_a_checkpoint_is_compared_with_the_data_that_it_had_itself(workdir):
    """Not with what the last start found, which may not have come to a checkpoint."""
    save_data_digests(LATER, workdir)
    assert "1 removed, 1 changed" in describe_data_changes(LATER, SAVED, workdir)[0]
    assert (
        "1 added, 1 changed"
        in describe_data_changes(BEGUN, Provenance(data=LATER.description), workdir)[0]
    )


def test_a_checkpoint_without_a_description_is_resumed_in_silence(workdir):
    assert describe_data_changes(LATER, Provenance(), workdir) == []


def test_data_without_names_or_memory_is_told_by_its_size(workdir):
    scenes = Contents(8, "scenes")
    save_data_digests(scenes, workdir)
    line = "other records than before (8 records then, 2 now)"
    assert line in describe_data_changes(LATER, Provenance(data=scenes.description), workdir)[0]


@pytest.mark.parametrize("content", [b"", b"no array", None])
def test_a_memory_that_is_damaged_or_gone_stops_nothing(content, workdir):
    (file,) = (workdir / "data").iterdir()
    file.unlink() if content is None else file.write_bytes(content)
    assert "(3 records then, 2 now)" in describe_data_changes(LATER, SAVED, workdir)[0]


def test_made_up_data_leaves_nothing_behind(tmp_path):
    save_data_digests(None, tmp_path)
    assert describe_data_changes(None, SAVED, tmp_path) == []
    assert list(tmp_path.iterdir()) == []
