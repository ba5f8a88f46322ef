"""Division of entries into shards: every entry in one, wherever a group ends."""

from lidit_jax.data.cache.layout import Layout


def test_shards_cover_every_entry_once_and_are_found_again():
    layout = Layout("text", (5, 0, 4, 1), 2)
    found = {}
    for shard in layout.shards():
        for number, entry in enumerate(range(shard.start, shard.stop)):
            assert layout.find(shard.group, entry) == (shard.name, number)
            found[shard.group, entry] = shard.name
    assert sorted(found) == [
        (0, 0),
        (0, 1),
        (0, 2),
        (0, 3),
        (0, 4),
        (2, 0),
        (2, 1),
        (2, 2),
        (2, 3),
        (3, 0),
    ]
    assert found[0, 4] == "text-00-00002-of-00003.array_record"
    assert found[2, 1] == "text-02-00000-of-00002.array_record"


def test_shards_are_of_about_256_mib_and_a_power_of_two():
    assert Layout.of_size("latents", (9,), 2**19).per_shard == 512
    assert Layout.of_size("latents", (9,), 600_000).per_shard == 256
    assert Layout.of_size("latents", (9,), 10).per_shard == 2**14
    assert Layout.of_size("latents", (9,), 2**30).per_shard == 1


def test_it_is_stored_as_json():
    layout = Layout("text", (5, 1), 2)
    assert Layout.from_dict(layout._asdict() | {"counts": [5, 1]}) == layout
