"""Plans by formula: memory and time."""

import dataclasses
import itertools
from types import SimpleNamespace

import jax
import pytest

from lidit_jax.config.load import load_recipe
from lidit_jax.errors import LiditError
from lidit_jax.hardware.topologies import parse_topology
from lidit_jax.planning import compiled_plan
from lidit_jax.planning.collectives import Traffic
from lidit_jax.planning.compiled_plan import CompiledPlan
from lidit_jax.planning.memory import estimate_memory, parameter_count
from lidit_jax.planning.plan import describe_text, make_plan
from lidit_jax.planning.plan_mesh import parse_mesh, recipe_mesh
from lidit_jax.planning.plan_search import nearest_that_fits, search, with_heads_of_128
from lidit_jax.planning.roofline import Recomputed, Split, Work, predict

pytestmark = pytest.mark.output

TEN = load_recipe("lidit_10b")
POD = parse_topology("v5p:8x8x16")


@pytest.fixture(scope="module", autouse=True)
def traced_once():
    """10B parameters are counted once, by tracing."""
    parameter_count(TEN, describe_text(TEN).streams)


def planned(mesh="fsdp=256", topology=POD, config=TEN):
    return make_plan(config, topology, parse_mesh(mesh, config, topology))


def changed(config, group, **fields):
    return dataclasses.replace(
        config, **{group: dataclasses.replace(getattr(config, group), **fields)}
    )


@pytest.mark.parametrize(
    ("mesh", "message"),
    [
        ("fsdp=48", "48 does not divide the 1024 devices of v5p:8x8x16, the nearest that does is"),
        ("tensor=8", "tensor=8 does not divide config.model.heads=44: the nearest that do are 4"),
        ("fsdp=512", "fsdp=512 does not divide config.model.width=2816: the nearest that do"),
        ("width=2", "write AXIS=SIZE, AXIS being one of replica, data, fsdp, context, tensor"),
        ("data=2,fsdp=4", "2 x 4 x 1 x 1 are not the 1024 devices"),
    ],
)
def test_a_mesh_that_does_not_divide_names_the_nearest(mesh, message):
    with pytest.raises(LiditError) as refusal:
        planned(mesh)
    assert message in str(refusal.value)


def test_the_axes_that_talk_all_the_time_stay_within_a_node_of_gpus():
    nodes = parse_topology("h100:4x64")
    assert planned("fsdp=64,tensor=4", nodes).split.tensor == 4
    with pytest.raises(LiditError, match="tensor x context=8 must stay within a node: a divisor"):
        planned("fsdp=32,tensor=4,context=2", nodes)


def test_a_recipe_brings_its_own_mesh():
    config = load_recipe("lidit_10b:v5p:8x8x16,2slices")
    two = parse_topology("v5p:8x8x16", 2)
    assert recipe_mesh(config, two) == Split(
        replica=2, data=32, fsdp=32, parts=config.training.accumulation
    )
    assert recipe_mesh(TEN, POD) == Split(data=8, fsdp=128), "22 rows a device"
    with pytest.raises(LiditError, match="32 does not divide the 16 devices of v5p:2x2x4"):
        recipe_mesh(load_recipe("lidit_10b:v5p:8x8x16"), parse_topology("v5p:2x2x4"))


def test_parameters_averages_and_moments_are_four_bytes_each_and_split():
    found = planned()
    a_device = found.parameters / 256
    assert found.memory.parameters == found.memory.averages == 4 * a_device
    assert found.memory.optimizer == 8 * a_device
    halved = changed(TEN, "optimizer", momentum_dtype="bfloat16")
    assert planned(config=halved).memory.optimizer == 6 * a_device
    assert planned("fsdp=64,tensor=4").memory.parameters == 4 * a_device


def test_stronger_recomputation_keeps_less():
    def kept(remat):
        config = changed(TEN, "model", remat=remat)
        return estimate_memory(config, Split(data=4, fsdp=256), 1024, planned().text.streams).kept

    streams = list(planned().text.streams)
    listed = estimate_memory(TEN, Split(data=4, fsdp=256), 1024, streams)
    assert listed.kept == kept(TEN.model.remat)
    sizes = [kept(r) for r in ("none", "dots", "branches", "attention", "full", "offload")]
    assert sizes == sorted(sizes, reverse=True)
    assert kept("full") == 48 * 4 * 1024 * 2816 * 2, "a block's input: 4 images of 1024 tokens"


@pytest.mark.parametrize(
    ("tokens", "lanes", "padding"),
    [(4096, 128, 2.0), (4096, 1, 1.0), (256, 128, 1.0)],
    ids=["splash keeps heads of 64 in 128 lanes", "tpu7x pads nothing", "nor plain attention"],
)
def test_narrow_heads_are_padded_by_the_kernel(tokens, lanes, padding):
    config, streams = changed(TEN, "model", remat="attention"), planned().text.streams
    options = {"lanes": lanes, "kernel_from": 2**17}
    kept = estimate_memory(config, Split(data=4, fsdp=256), tokens, streams, **options).kept
    activation = 4 * tokens * 2816 * 2
    # A block's input and the results of its two attentions.
    assert kept == 48 * (1 + 2 * padding) * activation


def test_scores_of_plain_attention_count_where_nothing_is_recomputed():
    def kept(kernel_from):
        config, split = changed(TEN, "model", remat="none"), Split(data=4, fsdp=256)
        streams = planned().text.streams
        return estimate_memory(config, split, 256, streams, kernel_from=kernel_from).kept

    scores = 44 * 256 * (256 + 200)  # of an image: those among its tokens, and to the text
    assert kept(2**17) - kept(0) == 48 * 4 * 6 * scores


def test_text_costs_what_the_design_says():
    """Two LLMs of 7 to 8 billion parameters and 100 tokens: 3 TFLOP or 1.6 MB a sample."""
    text = planned().text
    assert text.encoding_flops == pytest.approx(3.1e12, rel=0.05)
    assert text.bytes_a_caption == pytest.approx(1.6e6, rel=0.05)
    often, rarely = (
        planned(config=changed(TEN, "data", text_features="online", encode_steps=steps))
        for steps in (1, 64)
    )
    assert often.memory.encoders == 15e9 * 2 / 256
    assert planned().seconds < rarely.seconds < often.seconds
    assert often.encoding_seconds == often.gathering_seconds, "30 GB for 4 captions a device"


def test_a_step_is_bound_by_what_takes_longest():
    """Large products by the matrix unit; tiny batches by the weights; slices by the network."""
    work = Work(1e18, 0.0, 3e18, 1e10, 48, 1e6, 2816, Recomputed(0, 0))
    bound = predict(work, POD, Split(data=4, fsdp=256))
    assert bound.products > 0.9 * bound.step
    small = dataclasses.replace(work, dense=1e13, counted=3e13, tokens=1e3)
    few = predict(small, POD, Split(data=4, fsdp=256))
    assert few.step == few.ici_weights + few.ici_gradients
    two = parse_topology("v5p:8x8x16", 2)
    split = Split(replica=2, data=4, fsdp=256)
    assert predict(small, two, split).step > few.step


def test_narrow_heads_leave_the_matrix_unit_idle():
    wide = Work(0.0, 1e17, 3e17, 1e10, 48, 1e6, 2816, Recomputed(0, 0))
    narrow = dataclasses.replace(wide, head_width=64)
    split = Split(data=4, fsdp=256)
    assert predict(narrow, POD, split).attention == 2 * predict(wide, POD, split).attention


@pytest.mark.parametrize(
    ("fsdp", "crossings"), [(32, 1.0), (128, 24 / 22), (256, 2.0)], ids=["88 rows", "22", "11"]
)
def test_gradients_in_thin_shards_are_padded_or_summed_whole(fsdp, crossings):
    """2816 rows of a gradient over so many devices; two gathers of the weight come before."""
    work = Work(0.0, 0.0, 0.0, 1.2e10, 48, 1e6, 2816, Recomputed(0, 0), never_gathered=2e9)
    found = predict(work, POD, Split(data=1024 // fsdp, fsdp=fsdp))
    once = 2e10 * (1 - 1 / fsdp) / POD.wide_bandwidth(0)
    copied = 8 * 1.2e10 / fsdp * (1 - fsdp / 1024) / POD.wide_bandwidth(0)
    assert found.ici_gradients == pytest.approx(crossings * once + copied)
    assert found.ici_weights == pytest.approx(2 * once)


def test_between_slices_each_device_sends_its_part_whatever_the_layout():
    """Copies within a slice sum theirs first: libtpu scatters before it sends."""
    work = Work(1e18, 0.0, 3e18, 1e10, 48, 1e6, 2816, Recomputed(0, 0))
    two = parse_topology("v5p:8x8x16", 2)
    narrow, wide = (
        predict(work, two, Split(replica=2, data=1024 // fsdp, fsdp=fsdp)) for fsdp in (32, 256)
    )
    assert narrow.dcn == pytest.approx(wide.dcn)
    assert narrow.dcn == pytest.approx(4 * 1e10 / 1024 / two.generation.network)


@pytest.mark.parametrize(("name", "waits"), [("v5p:4x8x8", True), ("tpu7x:4x4x8", False)])
def test_sums_of_gradients_cost_time_where_nothing_hides_them(name, waits):
    work = Work(1e18, 0.0, 3e18, 1e10, 48, 1e6, 2816, Recomputed(0, 0))
    found = predict(work, parse_topology(name), Split(data=8, fsdp=32))
    beside = found.products + found.hbm
    assert found.step == pytest.approx(beside + waits * found.ici_gradients)


def test_heads_of_128_are_offered_where_the_models_are_narrower():
    narrow = changed(TEN, "data", image_size=1024)
    chosen = planned(config=narrow)
    wider = with_heads_of_128(narrow, chosen, searching=False)
    assert (wider.heads, wider.split, wider.remat) == (22, chosen.split, chosen.remat)
    assert wider.model_flops == chosen.model_flops
    assert wider.prediction.attention == chosen.prediction.attention / 2
    assert with_heads_of_128(changed(narrow, "model", heads=22), chosen, searching=False) is None
    odd = planned("fsdp=64,tensor=4", config=narrow)
    found = with_heads_of_128(narrow, odd, searching=False)
    assert found is None, "22 heads do not divide over 4"


def test_a_search_ends_in_the_best_with_heads_of_128():
    """At 1024 px on a pod, with a tenth of the HBM free, it takes them to reach 55%."""
    narrow = changed(TEN, "data", image_size=1024)
    best = search(narrow, POD)[0]
    wider = with_heads_of_128(narrow, best, searching=True)
    assert min(best.free_fraction, wider.free_fraction) >= 0.1
    assert best.mfu < 0.55 < wider.mfu


def test_waiting_is_what_nothing_hides_at_the_speed_of_the_links():
    def waiting(kind, axes, slices=1):
        row = Traffic(kind, axes, 1.0, 3e9, 1e9)
        compiled = CompiledPlan(0.0, 0.0, 1.0, 0.0, (row,), (), 0.0, 0)
        return compiled.waiting_seconds(parse_topology("v5p:8x8x16", slices))

    within = POD.wide_bandwidth(0)
    assert waiting("all-gather", ("fsdp",)) == pytest.approx(2e9 / within)
    assert waiting("all-reduce", ("fsdp",)) == pytest.approx(4e9 / within)
    network = POD.generation.network
    assert waiting("all-reduce", ("replica",), 2) == pytest.approx(4e9 / network)


@pytest.mark.parametrize("size", [512, 1024])
def test_a_search_ends_in_plans_that_fit_the_fastest_first(size):
    ranked = search(changed(TEN, "data", image_size=size), POD)
    assert all(p.free >= 0.1 * POD.generation.memory for p in ranked)
    pairs = itertools.pairwise(ranked)
    assert all(one.seconds < 1.006 * other.seconds for one, other in pairs)
    assert ranked[0].seconds < 1.006 * min(p.seconds for p in ranked)
    assert ranked[0].mfu > 0.5


def test_what_does_not_fit_names_the_nearest_that_does():
    """First with the same mesh, then with another, then on a larger slice."""
    large = changed(changed(TEN, "data", image_size=1024), "model", remat="none")
    refused = planned(config=large)
    assert refused.free < 0
    nearest = nearest_that_fits(large, refused)
    assert nearest.free >= 0
    assert nearest.topology == POD
    assert dataclasses.replace(nearest.split, parts=1) == refused.split
    small = parse_topology("v5e:2x4")
    larger = nearest_that_fits(large, planned("fsdp=8", small, large))
    assert larger.topology.chips > small.chips
    tiny = changed(large, "training", batch_size=8)
    assert nearest_that_fits(
        changed(tiny, "model", depth=4800), planned("fsdp=8", small, tiny)
    ) is (None)


def test_a_compiler_that_tells_nothing_is_named(monkeypatch):
    silent = SimpleNamespace(memory_analysis=lambda: None, as_text=lambda: None)
    lowered = SimpleNamespace(compile=lambda compiler_options: silent)
    found = planned("fsdp=4", parse_topology("v5e:2x2"))
    devices = jax.devices()[:1] * found.topology.devices
    monkeypatch.setattr(compiled_plan, "topology_devices", lambda *_: devices)
    monkeypatch.setattr(compiled_plan, "make_mesh", lambda *_: None)
    monkeypatch.setattr(compiled_plan, "lower_train_step", lambda *_: lowered)
    with pytest.raises(LiditError, match="does not report the memory of its program"):
        compiled_plan.compile_plan(TEN, found)


def test_sizes_of_known_encoders_are_theirs_and_of_others_assumed_aloud():
    known, unknown = (
        changed(TEN, "encoders", sources=sources)
        for sources in (("google/flan-t5-base", "smollm2"), ("my/own-llm",))
    )
    assert [s.width for s in planned(config=known).text.streams] == [768, 576]
    assert planned(config=known).text.assumed == ()
    assert planned(config=unknown).text.assumed == ("my/own-llm",)
