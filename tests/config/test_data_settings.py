"""Settings of streamed data: every default is in the range of its field."""

import dataclasses

import pytest

from lidit_jax.config import data_settings
from lidit_jax.config.values import field_types, literal_values, ranges

GROUPS = [group for name, group in vars(data_settings).items() if name.endswith("Settings")]


@pytest.mark.parametrize("group", GROUPS)
def test_defaults_are_allowed(group):
    settings = group()
    for name, hint in field_types(group).items():
        value = getattr(settings, name)
        assert not literal_values(hint) or value in literal_values(hint)
        assert all(allowed.holds(value) for allowed in ranges(hint)), name


@pytest.mark.parametrize("group", GROUPS)
def test_settings_cannot_be_changed(group):
    settings = group()
    name = dataclasses.fields(settings)[0].name
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(settings, name, getattr(settings, name))


def test_what_means_nothing_is_out_of_range():
    def allowed(group, name, value):
        return all(extra.holds(value) for extra in ranges(field_types(group)[name]))

    assert not allowed(data_settings.BucketSettings, "shapes", 0)
    assert not allowed(data_settings.BucketSettings, "shapes", 11)
    assert not allowed(data_settings.BucketSettings, "aspect", 1.0)
    assert not allowed(data_settings.FilterSettings, "duplicate_distance", 9)
    assert not allowed(data_settings.ReadingSettings, "most_megapixels", 200.0)
    assert not allowed(data_settings.ReadingSettings, "skipped_fraction", 1.5)
