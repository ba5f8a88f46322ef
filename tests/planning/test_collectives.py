"""Collectives as a compiled program's text has them: axes, how often, and beside what."""

from types import SimpleNamespace

import numpy as np

from lidit_jax.planning.collectives import find_collectives, traffic
from lidit_jax.planning.hlo import parse_program
from lidit_jax.planning.hlo_cost import program_cost

MESH = SimpleNamespace(devices=np.zeros((2, 4)), axis_names=("data", "tensor"))
PROGRAM = """\
HloModule step, is_scheduled=true

%fused (p: f32[8]) -> f32[8] {
  %p = f32[8]{0} parameter(0)
  ROOT %e = f32[8]{0} exponential(%p)
}

%body (t: (s32[], f32[8])) -> (s32[], f32[8]) {
  %t = (s32[], f32[8]{0}) parameter(0)
  %i = s32[] get-tuple-element(%t), index=0
  %one = s32[] constant(1)
  %next = s32[] add(%i, %one)
  %x = f32[8]{0} get-tuple-element(%t), index=1
  %hidden = (f32[8]{0}, f32[32]{0}) all-gather-start(%x), replica_groups=[2,4]<=[8], dimensions={0}
  %work = f32[8]{0} fusion(%x), kind=kLoop, calls=%fused
  %gathered = f32[32]{0} all-gather-done(%hidden)
  %bare = (f32[8]{0}, f32[8]{0}) collective-permute-start(%work), \
source_target_pairs={{0,4},{1,1},{4,0}}
  %moved = f32[8]{0} collective-permute-done(%bare)
  ROOT %u = (s32[], f32[8]{0}) tuple(%next, %moved)
}

%condition (t: (s32[], f32[8])) -> pred[] {
  %t = (s32[], f32[8]{0}) parameter(0)
  %i = s32[] get-tuple-element(%t), index=0
  %n = s32[] constant(5)
  ROOT %less = pred[] compare(%i, %n), direction=LT
}

ENTRY %main (x: f32[8]) -> f32[8] {
  %x = f32[8]{0} parameter(0)
  %zero = s32[] constant(0)
  %start = (s32[], f32[8]{0}) tuple(%zero, %x)
  %loop = (s32[], f32[8]{0}) while(%start), condition=%condition, body=%body
  %y = f32[8]{0} get-tuple-element(%loop), index=1
  %nothing = f32[8]{0} all-reduce(%y), replica_groups={{0},{1},{2},{3},{4},{5},{6},{7}}, \
to_apply=%fused
  ROOT %all = f32[8]{0} all-reduce(%nothing), replica_groups=mesh['a'=2,'b'=4] {'a','b'}, \
to_apply=%fused, metadata={op_name="loss/sum"}
}
"""


def test_collectives_know_their_axes_turns_and_company():
    found = {one.kind: one for one in find_collectives(PROGRAM, MESH)}
    gather = found["all-gather"]
    assert gather.axes == {"tensor"}
    assert (gather.times, gather.size, gather.in_loop, gather.overlaps) == (5, 128, True, True)
    permute = found["collective-permute"]
    assert permute.axes == {"data"}
    assert not permute.overlaps, "nothing is scheduled between its start and its end"
    total = found["all-reduce"]
    assert total.axes == {"data", "tensor"}
    assert (total.times, total.in_loop, total.source) == (1, False, "loss/sum")
    assert len(found) == 3, "groups of one device send nothing"


def test_traffic_adds_what_is_alike_the_largest_first():
    rows = traffic(find_collectives(PROGRAM, MESH))
    assert [(row.kind, row.axes, row.bytes) for row in rows] == [
        ("all-gather", ("tensor",), 5 * 128),
        ("collective-permute", ("data",), 5 * 32),
        ("all-reduce", ("data", "tensor"), 32),
    ]
    assert [row.overlapping_bytes for row in rows] == [5 * 128, 0, 0]


def test_groups_of_a_mesh_in_another_order_are_found():
    """The names are the partitioner's own; the devices behind them stand in another order."""
    order = "replica_groups=mesh['a'=4,'b'=2], device_ids=([2,4]T(1,0)) {'b'}"
    text = PROGRAM.replace("replica_groups=mesh['a'=2,'b'=4] {'a','b'}", order)
    total = next(c for c in find_collectives(text, MESH) if c.kind == "all-reduce")
    assert total.axes == {"data"}


def test_a_sum_fused_with_its_slice_is_a_reduce_scatter():
    """Both count what goes in, so that kinds can be compared."""
    text = PROGRAM.replace("%fused (p: f32[8])", "%all-reduce-scatter.3 (p: f32[8])")
    text = text.replace(
        "ROOT %e = f32[8]{0} exponential(%p)",
        "ROOT %e = f32[8]{0} all-reduce(%p), replica_groups=[2,4]<=[8]",
    ).replace("=%fused", "=%all-reduce-scatter.3")
    scattered = [c for c in find_collectives(text, MESH) if c.kind == "reduce-scatter"]
    assert [(c.axes, c.size) for c in scattered] == [({"tensor"}, 32)]
    plain = PROGRAM.replace(
        "ROOT %all = f32[8]{0} all-reduce(%nothing)",
        "ROOT %all = f32[2]{0} reduce-scatter(%nothing)",
    )
    (scattered,) = (c for c in find_collectives(plain, MESH) if c.kind == "reduce-scatter")
    assert scattered.size == 32


CHAIN = """\
HloModule step, is_scheduled=true

%begin (shard: bf16[8,32]) -> (bf16[8,32], bf16[64,32], u32[]) {
  %shard = bf16[8,32]{1,0} parameter(0)
  %gather.1 = bf16[64,32]{1,0} all-gather(%shard), replica_groups=[1,8]<=[8], dimensions={0}, \
frontend_attributes={chain_id="7"}
  ROOT %started = (bf16[8,32]{1,0}, bf16[64,32]{1,0}, u32[]{:S(2)}) custom-call(%gather.1), \
custom_call_target="AsyncCollectiveStart"
}

%beside (shard: bf16[8,32], whole: bf16[64,32], flag: u32[], x: bf16[16,16], w: bf16[16,16]) -> \
(bf16[16,16], bf16[8,32], bf16[64,32], u32[]) {
  %shard = bf16[8,32]{1,0} parameter(0)
  %whole = bf16[64,32]{1,0} parameter(1)
  %flag = u32[]{:S(2)} parameter(2)
  %x = bf16[16,16]{1,0} parameter(3)
  %w = bf16[16,16]{1,0} parameter(4)
  %product = bf16[16,16]{1,0} dot(%x, %w), lhs_contracting_dims={1}, rhs_contracting_dims={0}
  %gather.2 = bf16[64,32]{1,0} all-gather(%shard), replica_groups=[1,8]<=[8], dimensions={0}, \
frontend_attributes={chain_id="7"}
  ROOT %both = (bf16[16,16]{1,0}, bf16[8,32]{1,0}, bf16[64,32]{1,0}, u32[]{:S(2)}) \
tuple(%product, %shard, %gather.2, %flag)
}

%end (shard: bf16[8,32], whole: bf16[64,32], flag: u32[]) -> bf16[64,32] {
  %shard = bf16[8,32]{1,0} parameter(0)
  %whole = bf16[64,32]{1,0} parameter(1)
  %flag = u32[]{:S(2)} parameter(2)
  %gather.3 = bf16[64,32]{1,0} all-gather(%shard), replica_groups=[1,8]<=[8], dimensions={0}, \
frontend_attributes={chain_id="7"}
  ROOT %done = bf16[64,32]{1,0} custom-call(%shard, %whole, %gather.3, %flag), \
custom_call_target="AsyncCollectiveDone"
}

ENTRY %main (shard: bf16[8,32], x: bf16[16,16], w: bf16[16,16]) -> bf16[64,32] {
  %shard = bf16[8,32]{1,0} parameter(0)
  %x = bf16[16,16]{1,0} parameter(1)
  %w = bf16[16,16]{1,0} parameter(2)
  %start = (bf16[8,32]{1,0}, bf16[64,32]{1,0}, u32[]{:S(2)}) fusion(%shard), kind=kCustom, \
calls=%begin
  %s = bf16[8,32]{1,0} get-tuple-element(%start), index=0
  %g = bf16[64,32]{1,0} get-tuple-element(%start), index=1
  %f = u32[]{:S(2)} get-tuple-element(%start), index=2
  %step = (bf16[16,16]{1,0}, bf16[8,32]{1,0}, bf16[64,32]{1,0}, u32[]{:S(2)}) \
fusion(%s, %g, %f, %x, %w), kind=kOutput, calls=%beside
  %s2 = bf16[8,32]{1,0} get-tuple-element(%step), index=1
  %g2 = bf16[64,32]{1,0} get-tuple-element(%step), index=2
  %f2 = u32[]{:S(2)} get-tuple-element(%step), index=3
  ROOT %out = bf16[64,32]{1,0} fusion(%s2, %g2, %f2), kind=kCustom, calls=%end
}
"""


def test_a_gather_spread_over_fusions_is_one_that_overlaps():
    """libtpu's async collective fusion: the same gather stands in the start, beside each product
    that it runs with, and in the end."""
    (gather,) = find_collectives(CHAIN, MESH)
    assert (gather.times, gather.size, gather.overlaps) == (1, 64 * 32 * 2, True)
    alone = CHAIN.replace('chain_id="7"', 'chain_id="8"', 1)
    assert [one.overlaps for one in find_collectives(alone, MESH)] == [False]


def test_its_bytes_are_counted_once():
    shard, whole, square = 8 * 32 * 2, 64 * 32 * 2, 16 * 16 * 2
    assert program_cost(parse_program(CHAIN)).bytes == shard + whole + 3 * square


SPARSE_CORE = """\
HloModule step, is_scheduled=true

%gathering (p: bf16[8,32], ready: token[]) -> bf16[64,32] {
  %ready = token[] parameter(1)
  %p = bf16[8,32]{1,0} parameter(0)
  ROOT %gather = bf16[64,32]{1,0} all-gather(%p), replica_groups=[1,8]<=[8], dimensions={0}
}, execution_thread="sparsecore"

ENTRY %main (p: bf16[8,32], x: bf16[16,16]) -> bf16[64,32] {
  %p = bf16[8,32]{1,0} parameter(0)
  %x = bf16[16,16]{1,0} parameter(1)
  %ready = token[] after-all()
  %start = ((bf16[8,32]{1,0}, token[]), bf16[64,32]{1,0}) call-start(%p, %ready), \
async_execution_thread="sparsecore", to_apply=%gathering
  %product = bf16[16,16]{1,0} dot(%x, %x), lhs_contracting_dims={1}, rhs_contracting_dims={0}
  ROOT %done = bf16[64,32]{1,0} call-done(%start)
}
"""


def test_what_a_sparse_core_sends_overlaps_with_what_the_tensor_core_does():
    (gather,) = find_collectives(SPARSE_CORE, MESH)
    assert (gather.times, gather.size, gather.overlaps) == (1, 64 * 32 * 2, True)
    bare = SPARSE_CORE.replace("dot(%x, %x)", "copy(%x)")
    assert [one.overlaps for one in find_collectives(bare, MESH)] == [False]
    sent = 8 * 32 * 2 + 64 * 32 * 2
    assert program_cost(parse_program(SPARSE_CORE)).bytes == sent + 3 * 16 * 16 * 2


BETWEEN_SLICES = """\
HloModule step, is_scheduled=true

ENTRY %main (x: bf16[256,128], y: bf16[16,16]) -> bf16[256,128] {
  %x = bf16[256,128]{1,0} parameter(0)
  %y = bf16[16,16]{1,0} parameter(1)
  %after = token[] after-all()
  %send = (bf16[256,128]{1,0}, u32[], token[]) send(%x, %after), channel_id=4, \
is_host_transfer=true, frontend_attributes={\
_xla_host_transfer_handler_name="xla_megascale_runtime",_xla_megascale_reduce_operation="SUM"}
  %recv = (bf16[256,128]{1,0}, u32[], token[]) recv(%after), channel_id=3, is_host_transfer=true
  %product = bf16[16,16]{1,0} dot(%y, %y), lhs_contracting_dims={1}, rhs_contracting_dims={0}
  %send-done = token[] send-done(%send), channel_id=4, is_host_transfer=true
  %recv-done = (bf16[256,128]{1,0}, token[]) recv-done(%recv), channel_id=3, is_host_transfer=true
  ROOT %sum = bf16[256,128]{1,0} get-tuple-element(%recv-done), index=0
}
"""


def test_what_goes_to_another_slice_is_sent_over_replica():
    (sent,) = find_collectives(BETWEEN_SLICES, MESH)
    assert (sent.kind, sent.axes, sent.size) == ("send", {"replica"}, 256 * 128 * 2)
    assert sent.overlaps
