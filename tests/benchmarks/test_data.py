"""Candidates of the data benchmark read the same photos, in whatever format."""

import numpy as np
import pytest

from lidit_jax.benchmarks.data import CANDIDATES, decode_square
from lidit_jax.benchmarks.photo_formats import prepare_photos
from lidit_jax.benchmarks.workload import Settings

_SIDE, _COUNT = 64, 3


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    prepare_photos(folder, _COUNT)
    return folder


@pytest.mark.parametrize("name", CANDIDATES)
def test_candidates_decode_the_photos(name, photos):
    settings = Settings(
        "data", "lidit_1b", batch=_COUNT, photos=str(photos), image_size=_SIDE, workers=1
    )
    workload = CANDIDATES[name](settings)
    expected = [decode_square(file, _SIDE) for file in sorted((photos / "folder").glob("*.jpg"))]
    # Candidates that draw with replacement may repeat photos.
    for image in np.asarray(workload.run()):
        errors = [np.abs(image.astype(float) - other).mean() for other in expected]
        # Half a percent of the range: scaled from a crop of other rounding, never another photo.
        assert min(errors) < 0.005 * 255
