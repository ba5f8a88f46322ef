"""Operations, bytes and loops of compiled programs that are small enough to count by hand."""

import jax
import jax.numpy as jnp
import pytest

from lidit_jax.errors import LiditError
from lidit_jax.planning.hlo import parse_program
from lidit_jax.planning.hlo_cost import program_cost

N, TURNS = 32, 7
PRODUCT = 2 * N**3
W = jax.ShapeDtypeStruct((TURNS, N, N), jnp.float32)
X = jax.ShapeDtypeStruct((N, N), jnp.float32)


def cost_of(function, *arguments):
    return program_cost(parse_program(jax.jit(function).lower(*arguments).compile().as_text()))


def test_a_scan_of_products_counts_every_turn():
    def scanned(x, ws):
        return jax.lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x, ws)[0]

    cost = cost_of(scanned, X, W)
    assert cost.products == TURNS * PRODUCT
    assert list(cost.loops.values()) == [TURNS]
    assert not cost.unknown


def test_a_loop_within_a_loop_counts_the_product_of_their_turns():
    def nested(x, ws):
        def outer(x, w):
            return jax.lax.fori_loop(0, 3, lambda _, x: jnp.sin(x @ w), x), None

        return jax.lax.scan(outer, x, ws)[0] @ ws[0]

    cost = cost_of(nested, X, W)
    assert cost.products == (3 * TURNS + 1) * PRODUCT
    assert sorted(cost.loops.values()) == [3, TURNS]


def test_a_loop_of_unknown_length_is_counted_once_and_named():
    def converging(x, w):
        return jax.lax.while_loop(lambda x: jnp.sum(x) > 1, lambda x: x @ w, x)

    cost = cost_of(converging, X, X)
    assert cost.products == PRODUCT
    assert len(cost.unknown) == 1


def test_an_instruction_that_lacks_what_is_counted_by_is_named():
    text = jax.jit(jnp.matmul).lower(X, X).compile().as_text()
    text = text.replace("lhs_contracting_dims", "contracted")
    with pytest.raises(LiditError, match="has no attribute lhs_contracting_dims"):
        program_cost(parse_program(text))


def test_gradients_of_a_recomputed_scan_count_four_products_a_turn():
    """Forward, forward again, and one product for each of two gradients."""

    def loss(x, ws):
        block = jax.checkpoint(lambda x, w: jnp.tanh(x @ w))
        return jnp.sum(jax.lax.scan(lambda x, w: (block(x, w), None), x, ws)[0])

    assert cost_of(jax.grad(loss, argnums=(0, 1)), X, W).products == 4 * TURNS * PRODUCT


@pytest.mark.parametrize(
    ("padding", "stride", "products"),
    [("VALID", 1, 36 * 9), ("SAME", 1, 22 * 22), ("VALID", 2, 81)],
)
def test_the_padding_of_a_convolution_costs_nothing(padding, stride, products):
    """8 x 8 pixels, a 3 x 3 kernel: with padding only 22 of 24 products a row meet a pixel."""
    images = jax.ShapeDtypeStruct((2, 8, 8, 4), jnp.float32)
    kernel = jax.ShapeDtypeStruct((3, 3, 4, 5), jnp.float32)

    def convolve(x, k):
        return jax.lax.conv_general_dilated(
            x, k, (stride, stride), padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    assert cost_of(convolve, images, kernel).products == 2 * 2 * 4 * 5 * products


def test_element_wise_work_counts_as_what_it_reads_and_writes():
    large = jax.ShapeDtypeStruct((1 << 16,), jnp.float32)
    cost = cost_of(lambda x, y: jnp.exp(x) * y + 1, large, large)
    assert cost.flops == 0
    assert cost.bytes == 3 * 4 * (1 << 16)


def test_a_slice_of_a_stack_is_read_and_not_the_stack():
    def scanned(x, ws):
        return jax.lax.scan(lambda x, w: (x + w, None), x, ws)[0]

    cost = cost_of(scanned, X, W)
    assert TURNS * 3 * 4 * N**2 <= cost.bytes <= TURNS * 5 * 4 * N**2


KERNELS = """\
HloModule step, is_scheduled=true

%region (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %sum = f32[] add(%a, %b)
}

ENTRY %main (q: bf16[2,4,256,128], k: bf16[2,4,512,128]) -> bf16[2,4,256,128] {
  %q = bf16[2,4,256,128]{3,2,1,0:T(8,128)(2,1)} parameter(0)
  %k = bf16[2,4,512,128]{3,2,1,0:T(8,128)(2,1)S(1)} parameter(1)
  %splash_mha_fwd_residuals.1 = (f32[8,512,128]{2,1,0:T(8,128)}, bf16[2,4,256,128]{3,2,1,0}) \
custom-call(%q, %k, %k), custom_call_target="tpu_custom_call", frontend_attributes={kernel={
"tiles":"{\\"block_q\\": 512}"
}}, metadata={op_name="splash"}
  %out = bf16[2,4,256,128]{3,2,1,0} get-tuple-element(%splash_mha_fwd_residuals.1), index=1
  %splash_mha_dkv_no_residuals.2 = bf16[2,4,256,128]{3,2,1,0} custom-call(%out, %k, %k), \
custom_call_target="tpu_custom_call"
  ROOT %other = bf16[2,4,256,128]{3,2,1,0} custom-call(%out), custom_call_target="tpu_custom_call"
}
"""


def test_splash_kernels_count_their_products_and_other_kernels_are_named():
    """Two products forward, five backward; memory of the core itself is not HBM."""
    cost = program_cost(parse_program(KERNELS))
    assert cost.kernels == (2 + 5) * 2 * (2 * 4) * 256 * 512 * 128
    assert cost.unknown == ("kernel other",)
    q, residual = 2 * 4 * 256 * 128 * 2, 8 * 512 * 128 * 4
    assert cost.bytes == (q + residual + q) + 2 * q + 2 * q


FETCHED = """HloModule fetched

ENTRY %main (x: bf16[8,64]) -> bf16[8,64] {
  %x = bf16[8,64]{1,0} parameter(0)
  %slice-start = ((bf16[8,64]{1,0}), bf16[2,64]{1,0:S(1)}, s32[]{:S(2)}) slice-start(%x), slice={[0:2], [0:64]}
  %slice-done = bf16[2,64]{1,0:S(1)} slice-done(%slice-start)
  %copy-start = (bf16[8,64]{1,0:S(1)}, bf16[8,64]{1,0}, u32[]{:S(2)}) copy-start(%x)
  %copy-done = bf16[8,64]{1,0:S(1)} copy-done(%copy-start)
  ROOT %back = bf16[8,64]{1,0} copy(%copy-done)
}
"""  # noqa: E501


def test_what_is_fetched_ahead_is_read_once():
    """A slice of two rows, all eight, and all eight written back, 128 bytes each."""
    assert program_cost(parse_program(FETCHED)).bytes == (2 + 8 + 8) * 128


NESTED = """HloModule nested, is_scheduled=true

%one_row (stack: f32[8,64], row: s32[]) -> f32[1,64] {
  %stack = f32[8,64]{1,0} parameter(0)
  %row = s32[] parameter(1)
  %zero = s32[] constant(0)
  ROOT %slice = f32[1,64]{1,0} dynamic-slice(%stack, %row, %zero), dynamic_slice_sizes={1,64}
}

%outer (stack: f32[8,64], kept: f32[8,64], row: s32[]) -> (f32[8,64], f32[1,64]) {
  %stack = f32[8,64]{1,0} parameter(0)
  %kept = f32[8,64]{1,0} parameter(1)
  %row = s32[] parameter(2)
  %zero = s32[] constant(0)
  %same = f32[8,64]{1,0} bitcast(%stack)
  %read = f32[1,64]{1,0} fusion(%same, %row), kind=kLoop, calls=%one_row
  %doubled = f32[1,64]{1,0} add(%read, %read)
  %updated = f32[8,64]{1,0} dynamic-update-slice(%kept, %read, %row, %zero)
  ROOT %both = (f32[8,64]{1,0}, f32[1,64]{1,0}) tuple(%updated, %doubled)
}

ENTRY %main (stack: f32[8,64], kept: f32[8,64], row: s32[]) -> (f32[8,64], f32[1,64]) {
  %stack = f32[8,64]{1,0} parameter(0)
  %kept = f32[8,64]{1,0} parameter(1)
  %row = s32[] parameter(2)
  ROOT %fusion = (f32[8,64]{1,0}, f32[1,64]{1,0}) fusion(%stack, %kept, %row), kind=kLoop, calls=%outer
}
"""  # noqa: E501


def test_a_slice_inside_of_nested_fusions_reads_the_slice_alone():
    """One row read, one row of the stack updated, and the other result, of 256 bytes each; and the
    four bytes of the row's number."""
    assert program_cost(parse_program(NESTED)).bytes == 3 * 256 + 4
