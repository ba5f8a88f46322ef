"""Distances of a reconstruction, on pictures whose distances are known."""

import jax.numpy as jnp
import numpy as np
import pytest

from lidit_jax.training.reconstruction import distance, gradient_distance


def step(size=16, at=8):
    """A black half beside a white one, [1, H, W, 3] in [-1, 1]."""
    image = np.full((1, size, size, 3), -1.0, np.float32)
    image[:, :, at:] = 1.0
    return jnp.asarray(image)


def test_means_over_values_one_an_image():
    image = jnp.concatenate([step(), step()])
    reconstruction = image.at[1].add(0.5)
    np.testing.assert_allclose(distance(reconstruction, image, "l1"), [0, 0.5])
    np.testing.assert_allclose(distance(reconstruction, image, "l2"), [0, 0.25])
    np.testing.assert_allclose(gradient_distance(reconstruction, image), 0, atol=1e-6)


def test_a_wrong_pixel_costs_its_differences_at_every_scale():
    image = jnp.zeros((1, 16, 16, 3))
    wrong = image.at[0, 5, 5].set(1.0)
    # Two differences of 1 along each axis; at half and quarter size of 1/4 and 1/16, among fewer.
    costs = [2 * 4.0**-s / (15 - 8 * (s > 0) - 4 * (s > 1)) / 2 ** (4 - s) for s in range(3)]
    np.testing.assert_allclose(gradient_distance(wrong, image), [np.mean(costs)], rtol=1e-5)


@pytest.mark.parametrize("at", [8, 9])
def test_a_blurred_edge_costs_more_than_a_shade_of_the_same_l1(at):
    image = step(at=at)
    blurred = (jnp.roll(image, 1, axis=2) + image + jnp.roll(image, -1, axis=2)) / 3
    blurred = blurred.at[:, :, [0, -1]].set(image[:, :, [0, -1]])
    shaded = image + distance(blurred, image, "l1")
    l1 = [distance(changed, image, "l1") for changed in (blurred, shaded)]
    np.testing.assert_allclose(*l1, rtol=1e-4)
    assert gradient_distance(blurred, image) > 10 * gradient_distance(shaded, image) + 1e-3
