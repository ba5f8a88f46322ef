from flax.core import FrozenDict

from lidit_jax.weights.parameter_paths import by_path, merged, split


def test_leaves_have_paths_in_the_order_of_the_tree():
    tree = {"output": FrozenDict({"linear": {"kernel": 1, "bias": 2}}), "embedding": 3}
    assert list(by_path(tree).items()) == [
        ("output/linear/kernel", 1),
        ("output/linear/bias", 2),
        ("embedding", 3),
    ]


def test_two_parts_of_a_tree_are_the_tree():
    tree = {"output": {"linear": {"kernel": 1, "bias": 2}}, "embedding": 3}
    others, taken = split(tree, ("output/.*/bias", "embedding"))
    assert others == {"output": {"linear": {"kernel": 1}}}
    assert taken == {"output": {"linear": {"bias": 2}}, "embedding": 3}
    assert merged(others, taken) == tree
    assert split(tree, ()) == (tree, {})
    assert merged(*split(tree, ())) == tree
