import jax

from lidit_jax.hardware.jax_device import JaxDevice


def test_the_devices_of_jax_have_what_is_read_of_them():
    assert all(isinstance(device, JaxDevice) for device in jax.devices())
    assert not isinstance("cpu", JaxDevice)
