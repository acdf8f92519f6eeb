"""multi_head_attention.py: against PyTorch, against its formula as a loop, and in every setting."""

from __future__ import annotations

import copy
import itertools
import math
import pickle
from contextlib import nullcontext
from functools import partial

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from compilers import inductor, onnx_answer
from einops import rearrange, reduce
from hypothesis import given
from hypothesis import strategies as st
from sequence_contract import DIM, MaskContract, SequenceCompilerContract, SequenceContract
from torch import nn
from torch.autograd import gradcheck, gradgradcheck
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

from attnbook import (
    KeyValueCache,
    MultiHeadAttention,
    RotaryEncoding,
    SelfAttention,
    alibi_bias,
    causal_mask,
    padding_mask,
)

HALF = [torch.float16, torch.bfloat16]
FLOATS = [torch.float64, torch.float32, *HALF]


def randomised(module):
    """Give every parameter a random value: biases of zero would hide where they go."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, dtype=torch.float64) / 2)
    return module


def make(device, embed_dim=8, num_heads=2, *, dtype=torch.float64, **kwargs):
    return randomised(
        MultiHeadAttention(embed_dim, num_heads, device=device, dtype=dtype, **kwargs)
    )


def random_input(device, *shape, dtype=torch.float64):
    return torch.randn(shape, dtype=torch.float64).to(device, dtype).requires_grad_()


def random_mask(device, *shape, density=0.6):
    return (torch.rand(shape) < density).to(device)


def output_and_gradients(path, inputs, *args, **kwargs):
    output = path(*args, **kwargs)
    return output, *torch.autograd.grad(output.square().sum(), inputs)


def by_forward(module, *args, **kwargs):
    return module(*args, **kwargs)


def by_attend(module, *args, **kwargs):
    return module.attend(*args, **kwargs)[0]


def by_loop(module, query, key, value, mask, bias):
    """The formula for each head of each query, one at a time; mask and bias have four axes."""
    d, group = module.head_dim, module.num_heads // module.num_kv_heads
    q, k, v = module.q_proj(query), module.k_proj(key), module.v_proj(value)
    context = torch.zeros_like(q)
    for b, h, i in itertools.product(range(len(q)), range(module.num_heads), range(q.shape[1])):
        own, shared = slice(h * d, (h + 1) * d), slice(h // group * d, (h // group + 1) * d)
        seen = mask[b, h, i]
        scores = k[b, seen, shared] @ q[b, i, own] / math.sqrt(d) + bias[b, h, i, seen]
        context[b, i, own] = scores.softmax(dim=0) @ v[b, seen, shared]
    return module.out_proj(context)


every_path = pytest.mark.parametrize("path", [by_forward, by_attend])
MATH = partial(sdpa_kernel, SDPBackend.MATH)


# Agreement with the formula, on examples that hypothesis looks for


@st.composite
def problems(draw):
    """Draw a module, its inputs, mask and bias, and these two written out to four axes."""
    kv_heads, group, d = (draw(st.integers(1, 3)) for _ in range(3))
    batch, queries, keys = (draw(st.integers(1, 3)) for _ in range(3))
    heads = kv_heads * group
    torch.manual_seed(draw(st.integers(0, 999)))
    module = make(
        "cpu",
        heads * d,
        heads,
        num_kv_heads=kv_heads,
        kdim=draw(st.sampled_from([None, 5])),
        vdim=draw(st.sampled_from([None, 7])),
        bias=draw(st.booleans()),
    )
    inputs = [
        random_input("cpu", batch, rows, layer.in_features)
        for rows, layer in zip(
            (queries, keys, keys), (module.q_proj, module.k_proj, module.v_proj), strict=True
        )
    ]

    def shape():
        full = (batch, heads, queries, keys)
        axes = draw(st.sampled_from([2, 3, 4]))
        kept = [full[0], *full[2:]] if axes == 3 else full[-axes:]
        return [1 if draw(st.booleans()) else size for size in kept]

    def written_out(term):
        term = rearrange(term, "b i j -> b 1 i j") if term.ndim == 3 else term
        return term.expand(batch, heads, queries, keys)

    mask, bias, full_mask = None, None, torch.ones(queries, keys, dtype=torch.bool)
    full_bias = torch.zeros(queries, keys, dtype=torch.float64)
    if draw(st.booleans()):
        full_mask = mask = random_mask("cpu", *shape(), density=draw(st.sampled_from([0.0, 0.6])))
    if draw(st.booleans()):
        full_bias = bias = random_input("cpu", *shape())
    is_causal = draw(st.booleans())
    full_mask = written_out(full_mask)
    if is_causal:
        full_mask = full_mask & torch.ones(queries, keys).tril(keys - queries).bool()
    kwargs = {"mask": mask, "bias": bias, "is_causal": is_causal}
    return module, inputs, kwargs, full_mask, written_out(full_bias)


@every_path
@given(problem=problems())
@pytest.mark.no_cover
def test_output_and_gradients_are_those_of_the_formula(device, path, problem):
    module, inputs, kwargs, mask, bias = problem
    leaves = [*inputs, *module.parameters()]
    if kwargs["bias"] is not None:
        leaves.append(kwargs["bias"])
    expected = output_and_gradients(by_loop, leaves, module, *inputs, mask, bias)
    on_device = copy.deepcopy(module).to(device)
    placed = {
        name: term.to(device) if isinstance(term, torch.Tensor) else term
        for name, term in kwargs.items()
    }
    moved = [x.detach().to(device).requires_grad_() for x in inputs]
    if placed["bias"] is not None:
        placed["bias"] = placed["bias"].detach().requires_grad_()
    leaves = [*moved, *on_device.parameters()]
    leaves += [] if placed["bias"] is None else [placed["bias"]]
    result = output_and_gradients(path, leaves, on_device, *moved, **placed)
    assert_close([x.cpu() for x in result], list(expected))


@given(problem=problems())
def test_weights_are_zero_where_masked_and_their_rows_sum_to_one_or_to_zero(device, problem):
    module, inputs, kwargs, mask, _ = problem
    _, weights = module.attend(*inputs, **kwargs)
    assert weights.shape == mask.shape
    assert (weights >= 0).all() and not weights[~mask].any()
    assert_close(weights.sum(dim=-1), mask.any(dim=-1).double())


@every_path
@given(problem=problems(), data=st.data())
def test_a_masked_key_has_no_influence_and_no_gradient(device, path, problem, data):
    module, (query, key, value), _, mask, bias = problem
    hidden = data.draw(st.integers(0, key.shape[1] - 1))
    mask = mask.clone()
    mask[..., hidden] = False
    run = partial(path, module, mask=mask, bias=bias)
    output, *grads = output_and_gradients(run, [key, value], query, key, value)
    assert not any(grad[:, hidden].any() for grad in grads)
    other_key, other_value = key.detach().clone(), value.detach().clone()
    other_key[:, hidden] += 1e3
    other_value[:, hidden] += 1e3
    assert_close(run(query, other_key, other_value), output)


@every_path
@given(problem=problems(), data=st.data())
def test_the_order_of_keys_means_nothing_and_that_of_queries_passes_through(
    device, path, problem, data
):
    module, (query, key, value), _, mask, bias = problem
    output = path(module, query, key, value, mask=mask, bias=bias)
    p = data.draw(st.permutations(range(key.shape[1])))
    kwargs = {"mask": mask[..., p], "bias": bias[..., p]}
    assert_close(path(module, query, key[:, p], value[:, p], **kwargs), output)
    p = data.draw(st.permutations(range(query.shape[1])))
    kwargs = {"mask": mask[:, :, p], "bias": bias[:, :, p]}
    assert_close(path(module, query[:, p], key, value, **kwargs), output[:, p])


@every_path
def test_a_constant_added_to_a_rows_scores_changes_nothing(device, path):
    module, x = make(device), random_input(device, 3, 5, 8)
    shift = 100 * random_input(device, 3, 2, 5, 1)
    assert_close(path(module, x, bias=shift), path(module, x))


@every_path
def test_a_key_that_a_bias_lifts_above_all_others_gets_all_the_weight(device, path):
    module, x = make(device), random_input(device, 3, 5, 8)
    chosen = torch.zeros(5, 5, dtype=torch.float64, device=device)
    chosen[:, 2] = 1e4
    expected = module.out_proj(module.v_proj(x[:, 2:3])).expand(3, 5, 8)
    assert_close(path(module, x, bias=chosen), expected)


@every_path
def test_minus_infinity_in_a_bias_acts_like_a_mask(device, path):
    module, x, mask = make(device), random_input(device, 3, 5, 8), random_mask(device, 3, 2, 5, 5)
    mask[0, 0, 0] = False
    bias = torch.zeros(3, 2, 5, 5, dtype=torch.float64, device=device).masked_fill(~mask, -math.inf)
    inputs = [x, *module.parameters()]
    assert_close(
        output_and_gradients(path, inputs, module, x, bias=bias),
        output_and_gradients(path, inputs, module, x, mask=mask),
    )


# The inputs


@every_path
def test_key_is_by_default_the_query_and_value_the_key(device, path):
    module = make(device)
    x, y, z = (random_input(device, 3, 5, 8) for _ in range(3))
    assert_close(path(module, x), path(module, x, x, x))
    assert_close(path(module, x, y), path(module, x, y, y))
    assert_close(path(module, x, value=z), path(module, x, x, z))


@pytest.mark.parametrize("axes", [None, (3, 5), (1, 3, 5), (1, 2, 3, 5)], ids=str)
@pytest.mark.parametrize("is_causal", [False, True])
def test_without_a_batch_axis_it_is_a_batch_of_one(device, axes, is_causal):
    module, x, y = make(device), random_input(device, 3, 8), random_input(device, 5, 8)
    mask = None if axes is None else random_mask(device, *axes)
    kwargs = {"mask": mask, "is_causal": is_causal}
    batched = module.attend(x[None], y[None], **kwargs)
    output, weights = module.attend(x, y, **kwargs)
    assert (output.shape, weights.shape) == ((3, 8), (2, 3, 5))
    assert_close([output[None], weights[None]], list(batched))
    assert_close(module(x, y, **kwargs), output)


@every_path
def test_batches_broadcast(device, path):
    module = make(device, num_kv_heads=1)
    one, many = random_input(device, 1, 3, 8), random_input(device, 4, 5, 8)
    mask = random_mask(device, 4, 3, 5)
    assert_close(
        path(module, one, many, mask=mask), path(module, one.expand(4, 3, 8), many, mask=mask)
    )
    mask = random_mask(device, 4, 5, 3)
    assert_close(
        path(module, many, one, mask=mask), path(module, many, one.expand(4, 3, 8), mask=mask)
    )


@pytest.mark.parametrize("queries, keys", [(2, 4), (4, 2)])
def test_as_many_heads_as_queries_or_keys_are_not_taken_for_them(device, queries, keys):
    module = make(device, num_heads=keys)
    x, y = random_input(device, 3, queries, 8), random_input(device, 3, keys, 8)
    assert_close(module(x, y, is_causal=True), by_attend(module, x, y, is_causal=True))
    module = make(device, num_heads=queries)
    assert_close(module(x, y, is_causal=True), by_attend(module, x, y, is_causal=True))


@every_path
@pytest.mark.parametrize("queries, keys", [(0, 5), (3, 0), (0, 0), (3, 5)])
@pytest.mark.parametrize("batch", [0, 2])
@pytest.mark.parametrize("is_causal", [False, True])
def test_sequences_and_batches_may_be_empty(device, path, queries, keys, batch, is_causal):
    module = make(device, num_kv_heads=1)
    x, y = random_input(device, batch, queries, 8), random_input(device, batch, keys, 8)
    inputs = [x, y, *module.parameters()]
    output, *grads = output_and_gradients(path, inputs, module, x, y, is_causal=is_causal)
    assert output.shape == (batch, queries, 8)
    assert keys > 0 or (output == module.out_proj.bias).all()
    assert all(tensor.isfinite().all() for tensor in (output, *grads))


# Masks, and the future


@every_path
@pytest.mark.parametrize("queries", [1, 3, 5, 7])
@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("with_mask", [False, True])
def test_causal_is_aligned_lower_right_and_combines(device, path, queries, with_bias, with_mask):
    module = make(device)
    query, key = random_input(device, 2, queries, 8), random_input(device, 2, 5, 8)
    kwargs = {"bias": random_input(device, 2, 2, queries, 5)} if with_bias else {}
    mask = random_mask(device, 2, 1, 5) if with_mask else torch.ones(1, 5).bool().to(device)
    expected = path(
        module, query, key, mask=mask & causal_mask(queries, 5, device=device), **kwargs
    )
    kwargs = {**kwargs, "mask": mask} if with_mask else kwargs
    assert_close(path(module, query, key, is_causal=True, **kwargs), expected)


@every_path
@pytest.mark.parametrize("rotary", [None, RotaryEncoding(4)], ids=["no positions", "rotary"])
@pytest.mark.parametrize("training", [False, True])
def test_the_newest_queries_get_what_the_whole_sequence_gave_them(device, path, rotary, training):
    module = make(device, rotary=rotary).train(training)
    x = random_input(device, 2, 6, 8)
    with nullcontext() if training else torch.no_grad():
        whole = path(module, x, is_causal=True)
        for newest in range(1, 7):
            last = path(module, x[:, -newest:], x, is_causal=True)
            assert_close(last, whole[:, -newest:])
            assert_close(path(module, x[:, :newest], is_causal=True), whole[:, :newest])


@every_path
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("kind", ["mask", "mask and bias", "learned bias", "causal"])
def test_a_query_that_may_see_nothing_gets_the_outputs_bias_and_finite_gradients(
    device, path, dtype, training, kind
):
    module = make(device, dtype=dtype).train(training)
    query, key = (
        random_input(device, 2, 7, 8, dtype=dtype),
        random_input(device, 2, 5, 8, dtype=dtype),
    )
    mask = torch.ones(2, 7, 5, dtype=torch.bool, device=device)
    mask[:, :2] = False
    bias = random_input(device, 7, 5, dtype=dtype)
    kwargs = {
        "mask": {"mask": mask},
        "mask and bias": {"mask": mask, "bias": bias.detach()},
        "learned bias": {"mask": mask, "bias": bias},
        "causal": {"is_causal": True},
    }[kind]
    inputs = [query, key, *module.parameters()] + [bias] * (kind == "learned bias")
    output, *grads = output_and_gradients(path, inputs, module, query, key, **kwargs)
    assert (output[:, :2] == module.out_proj.bias).all()
    assert (output[:, 2:] != module.out_proj.bias).any(dim=-1).all()
    assert all(tensor.isfinite().all() for tensor in (output, *grads))
    assert not grads[0][:, :2].any()
    with torch.no_grad():
        assert (path(module, query, key, **kwargs)[:, :2] == module.out_proj.bias).all()


def test_a_mask_of_three_axes_has_no_heads(device):
    module, x = make(device), random_input(device, 2, 5, 8)
    mask = random_mask(device, 2, 5, 5)
    for b in range(2):
        assert_close(module(x, mask=mask)[b], module(x[b], mask=mask[b]))


def test_padding_hides_what_it_pads(device):
    module, x = make(device), random_input(device, 2, 5, 8)
    mask = padding_mask(torch.tensor([3, 5], device=device), 5)
    assert_close(module(x, mask=mask)[0, :3], module(x[0, :3]))


def test_alibi_is_a_bias_shared_by_the_batch(device):
    module, x = make(device), random_input(device, 2, 5, 8)
    bias = rearrange(alibi_bias(2, 5).to(device), "heads i j -> 1 heads i j")
    assert_close(module(x, bias=bias), module.attend(x, bias=bias.double())[0])


# Heads


def test_heads_are_cut_by_their_width_so_that_a_part_of_the_layer_works(device):
    module, x = make(device, num_heads=4, num_kv_heads=2), random_input(device, 2, 5, 8)
    parts = 0
    for part in range(2):
        half = copy.deepcopy(module)
        for projection in (half.q_proj, half.k_proj, half.v_proj):
            for name, parameter in list(projection.named_parameters()):
                setattr(projection, name, nn.Parameter(parameter.chunk(2)[part].detach()))
        half.out_proj.weight = nn.Parameter(module.out_proj.weight.chunk(2, dim=1)[part].detach())
        half.out_proj.bias = None
        assert_close(half(x), half.attend(x)[0])
        assert_close(half.attend(x)[1], module.attend(x)[1].chunk(2, dim=1)[part])
        parts = parts + half(x)
    assert_close(parts + module.out_proj.bias, module(x))


def test_grouped_queries_are_the_full_layer_with_repeated_heads(device):
    grouped, full = make(device, num_heads=4, num_kv_heads=2), make(device, num_heads=4)
    state = grouped.state_dict()
    for name in ("k_proj.weight", "k_proj.bias", "v_proj.weight", "v_proj.bias"):
        heads = rearrange(state[name], "(kv d) ... -> kv d ...", d=2).repeat_interleave(2, dim=0)
        state[name] = rearrange(heads, "heads d ... -> (heads d) ...")
    full.load_state_dict(state)
    x, mask = random_input(device, 2, 5, 8), random_mask(device, 2, 4, 5, 5)
    for kwargs in ({}, {"mask": mask}, {"is_causal": True}):
        assert_close(grouped(x, **kwargs), full(x, **kwargs))
        assert_close(grouped.attend(x, **kwargs), full.attend(x, **kwargs))


def test_rotary_turns_queries_and_keys_of_each_head_but_not_values(device):
    rotary = RotaryEncoding(4)
    module = make(device, num_kv_heads=1, rotary=rotary)
    query, key = random_input(device, 2, 3, 8), random_input(device, 2, 5, 8)
    q = rearrange(module.q_proj(query), "b i (h d) -> b h i d", h=2)
    k, v = module.k_proj(key)[:, None], module.v_proj(key)[:, None]
    q, k = rotary(q, torch.arange(2, 5, device=device)), rotary(k)
    context = F.scaled_dot_product_attention(q, k.expand(2, 2, 5, 4), v.expand(2, 2, 5, 4))
    expected = module.out_proj(rearrange(context, "b h i d -> b i (h d)"))
    assert_close([module(query, key), module.attend(query, key)[0]], [expected, expected])


def test_with_rotary_only_distances_matter(device):
    class Shifted(nn.Module):
        def forward(self, x):
            positions = torch.arange(x.shape[-2], device=x.device)
            return RotaryEncoding(4)(x, positions + 7)

    module, x = make(device, rotary=RotaryEncoding(4)), random_input(device, 2, 5, 8)
    expected = module(x)
    module.rotary = Shifted()
    assert_close(module(x), expected, rtol=1e-5, atol=1e-5)
    module.rotary = None
    assert not torch.allclose(module(x), expected, atol=1e-2)


# Dropout


@every_path
def test_dropout_acts_on_the_weights_in_training_only(device, path):
    module = MultiHeadAttention(50, 1, dropout=0.25, device=device, dtype=torch.float64)
    eye = torch.eye(50, dtype=torch.float64, device=device)
    with torch.no_grad():
        module.v_proj.weight.copy_(eye)
        module.out_proj.weight.copy_(eye)
    query = torch.randn(200, 50, dtype=torch.float64).to(device)
    plain, weights = module.eval().attend(query, eye)
    assert_close(plain, weights[0])
    assert torch.equal(path(module, query, eye), path(module, query, eye))
    assert_close(path(module, query, eye), weights[0])
    used, kept = path(module.train(), query, eye), 0.75
    assert_close(used[used != 0], weights[0][used != 0] / kept)
    assert 0.73 < (used != 0).double().mean() < 0.77
    assert_close(module.attend(query, eye)[1], weights)


@every_path
def test_a_dropout_of_1_leaves_the_bias_of_the_output(device, path):
    module, x = make(device, dropout=1.0), random_input(device, 2, 5, 8)
    assert_close(path(module.train(), x), module.out_proj.bias.expand(2, 5, 8))


# Decoding with a cache


def by_steps(module, x, new, **terms):
    """Return the outputs for all of x, of which the next `new` tokens are given at each step.

    `terms` are a mask or a bias for all queries and keys; each step gets its rows.
    """
    cache, outputs = KeyValueCache(max_length=x.shape[-2] + 2), []
    for part in x.split(new, dim=-2):
        seen = slice(cache.length, cache.length + part.shape[-2])
        own = {
            name: (term[..., seen, :] if term.shape[-2] > 1 else term)[..., : seen.stop]
            for name, term in terms.items()
        }
        outputs.append(module.step(part, cache, **own))
    return torch.cat(outputs, dim=-2)


one_by_one_or_more = pytest.mark.parametrize(
    "new", [[7], [1] * 7, [4, 1, 1, 1], [2, 3, 2], [5, 0, 2]], ids=str
)


@one_by_one_or_more
@pytest.mark.parametrize("kv_heads", [4, 2, 1])
@pytest.mark.parametrize("rotary", [None, RotaryEncoding(2)], ids=["no positions", "rotary"])
def test_step_by_step_is_one_causal_pass(device, new, kv_heads, rotary):
    module = make(device, num_heads=4, num_kv_heads=kv_heads, rotary=rotary)
    x = random_input(device, 3, 7, 8)
    expected, by_the_formula = module(x, is_causal=True), module.attend(x, is_causal=True)[0]
    steps = by_steps(module, x, new)
    assert_close([steps, steps], [expected, by_the_formula])
    assert_close(by_steps(module, x[0], new), steps[0])


@one_by_one_or_more
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_steps_are_as_exact_in_every_type(device, dtype, new):
    module = make(device, num_heads=4, num_kv_heads=2, rotary=RotaryEncoding(2), dtype=dtype)
    x = random_input(device, 3, 7, 8, dtype=dtype)
    exact = copy.deepcopy(module).double()(x.double(), is_causal=True)
    steps, once = by_steps(module, x, new), module(x, is_causal=True)
    assert steps.dtype == dtype
    size = exact.abs().clamp(min=1)
    error, allowed = (((output - exact).abs() / size).max() for output in (steps, once))
    assert error <= 2 * allowed + 16 * torch.finfo(dtype).eps


@one_by_one_or_more
@pytest.mark.parametrize("axes", [(7, 7), (3, 1, 7), (3, 7, 7), (3, 4, 7, 7)], ids=str)
def test_a_mask_and_a_bias_are_for_the_new_queries_and_all_keys(device, new, axes):
    module, x = make(device, num_heads=4, num_kv_heads=2), random_input(device, 3, 7, 8)
    bias = rearrange(alibi_bias(4, 7, device=device), "heads i j -> 1 heads i j")
    mask = random_mask(device, *axes)
    for terms in ({"bias": bias}, {"mask": mask}, {"mask": mask, "bias": bias}):
        assert_close(by_steps(module, x, new, **terms), module(x, is_causal=True, **terms))


@one_by_one_or_more
def test_padding_before_a_prompt_may_hold_anything(device, new):
    module, x = make(device, num_kv_heads=1), random_input(device, 2, 7, 8)
    mask = torch.arange(7, device=device) >= torch.tensor([[[3]], [[0]]], device=device)
    spoilt = torch.where(mask.mT, x, math.nan)
    outputs = by_steps(module, spoilt, new, mask=mask)
    assert_close(outputs[0, 3:], by_steps(module, x[0, 3:], [4]))
    assert_close(outputs[1], by_steps(module, x[1], [7]))


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("batch, heads, kv_heads", [(1, 4, 4), (3, 4, 2), (2, 8, 1)])
def test_the_memory_of_a_cache_is_its_formula(device, dtype, batch, heads, kv_heads):
    module = make(device, 16, heads, num_kv_heads=kv_heads, dtype=dtype)
    cache, x = KeyValueCache(50), random_input(device, batch, 7, 16, dtype=dtype)
    for part in x.split([4, 1, 2], dim=1):
        module.step(part, cache)
        memory = cache.memory
        expected = 2 * batch * kv_heads * 50 * (16 // heads) * dtype.itemsize
        assert memory.untyped_storage().nbytes() == memory.nbytes == expected
        assert memory.data_ptr() == cache.memory.data_ptr()
    assert cache.length == 7
    k, v = (
        rearrange(layer(x), "b j (kv d) -> b kv j d", kv=kv_heads)
        for layer in (module.k_proj, module.v_proj)
    )
    eps = torch.finfo(dtype).eps
    assert_close(cache.memory[:, :, :, :7], torch.stack([k, v]), rtol=8 * eps, atol=8 * eps)


def test_only_new_tokens_are_projected(device):
    module, rows = make(device), []
    for layer in (module.q_proj, module.k_proj, module.v_proj, module.out_proj):
        layer.register_forward_hook(lambda layer, given, output: rows.append(given[0].shape[1]))
    by_steps(module, random_input(device, 2, 7, 8), [5, 1, 1])
    assert rows == [5] * 4 + [1] * 8


def test_two_copies_of_a_cache_go_on_by_themselves(device):
    module, x, y = make(device), random_input(device, 2, 5, 8), random_input(device, 2, 1, 8)
    cache = KeyValueCache(6)
    module.step(x, cache)
    branch = copy.deepcopy(cache)
    module.step(-y, branch)
    both = torch.cat([x, y], dim=1)
    assert_close(module.step(y, cache), module(both, is_causal=True)[:, -1:])


def test_steps_record_no_gradients_and_act_as_the_training_mode_says(device):
    module, x = make(device, dropout=1.0), random_input(device, 2, 3, 8)
    output = module.step(x, KeyValueCache(3))
    assert not output.requires_grad and output.is_leaf
    assert (output == module.out_proj.bias).all()
    assert_close(module.eval().step(x, KeyValueCache(3)), module(x, is_causal=True))


WRONG_STEPS = {
    "full": ((2, 3, 8), ValueError, "holds 5 of max_length=7 tokens: 3 more do not fit"),
    "batch": ((3, 1, 8), ValueError, "holds a batch of 2, but the new keys are one of 3"),
    "features": ((2, 1, 6), ValueError, "x has 6 features, but the layer expects 8"),
    "axes": ((1, 2, 1, 8), ValueError, r"x has 4 axes, but needs 3 .* or 2 \(length, features\)"),
}


@pytest.mark.parametrize("shape, error, message", WRONG_STEPS.values(), ids=WRONG_STEPS)
def test_a_step_that_is_refused_leaves_the_cache_as_it_was(device, shape, error, message):
    module, cache = make(device), KeyValueCache(7)
    x, y = random_input(device, 2, 5, 8), random_input(device, 2, 1, 8)
    module.step(x, cache)
    with pytest.raises(error, match=message):
        module.step(random_input(device, *shape), cache)
    with pytest.raises(ValueError, match=r"mask of shape \(1, 5\) does not broadcast .* 1, 6\)"):
        module.step(y, cache, mask=random_mask(device, 1, 5))
    with pytest.raises(
        TypeError, match=r"holds torch\.float64, but the new keys are torch\.float32"
    ):
        copy.deepcopy(module).float().step(y.float(), cache)
    with pytest.raises(ValueError, match=f"is on {device.type}.*, but the new keys on meta"):
        copy.deepcopy(module).to("meta").step(y.to("meta"), cache)
    with pytest.raises(ValueError, match="2 heads of 4 features, but the new keys have 4 of 2"):
        make(device, num_heads=4).step(y, cache)
    with pytest.raises(TypeError, match="cache has type list, but must be a KeyValueCache"):
        module.step(y, [cache])
    both = torch.cat([x, y], dim=1)
    assert_close(module.step(y, cache), module(both, is_causal=True)[:, -1:])


@pytest.mark.parametrize("sizes, features", [({"kdim": 6}, 6), ({"vdim": 10}, 10)], ids=str)
def test_a_step_is_self_attention(sizes, features):
    module = MultiHeadAttention(8, 2, **sizes)
    message = f"x has 8 features, but the layer expects {features}"
    with pytest.raises(ValueError, match=message):
        module.step(torch.ones(2, 3, 8), KeyValueCache(3))


@pytest.mark.parametrize("backend", ["eager", inductor])
def test_two_graphs_are_compiled_for_a_prompt_and_any_number_of_tokens(device, backend):
    module, x = make(device, num_kv_heads=1), random_input(device, 2, 12, 8).detach()
    torch.compiler.reset()
    step, outputs = torch.compile(module.step, fullgraph=True, backend=backend), []
    cache = KeyValueCache(13)  # with room to spare: for one that is full inductor makes a third
    for number, part in enumerate(x.split([4] + [1] * 8, dim=1)):
        with torch._dynamo.config.patch(error_on_recompile=number > 1):
            outputs.append(step(part, cache))
    assert_close(torch.cat(outputs, dim=1), module(x, is_causal=True))


class Decoder(nn.Module):
    def __init__(self, attention):
        super().__init__()
        self.attention = attention

    def forward(self, *inputs):
        return by_steps(self.attention, *inputs, [3, 1, 1])


def test_a_function_that_makes_its_cache_is_exported(device):
    module, x = Decoder(make(device, num_kv_heads=1)), random_input(device, 2, 5, 8)
    exported = torch.export.export(module, (x,), dynamic_shapes=(({0: DIM},),))
    x = random_input(device, 3, 5, 8)
    assert_close(exported.module()(x), module.attention(x, is_causal=True))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the exporter, about itself
def test_onnxruntime_decodes_with_a_cache_made_inside():
    module = Decoder(make("cpu", num_kv_heads=1, dtype=torch.float32))
    inputs, others = (torch.randn(2, 5, 8),), (torch.randn(3, 5, 8),)
    found = onnx_answer(module, inputs, others, ({0: DIM},))
    assert_close(found, module(*others), rtol=1e-4, atol=1e-4)


# PyTorch's layer: its state_dict, and its outputs by each of its own paths

PYTORCHS_PATHS = {
    "training, fused": {"training": True, "need_weights": False},
    "training, weights": {"training": True, "need_weights": True},
    "evaluation, fused": {"training": False, "need_weights": False},
    "evaluation, weights": {"training": False, "need_weights": True},
}


@pytest.mark.parametrize("pytorch", PYTORCHS_PATHS.values(), ids=PYTORCHS_PATHS)
@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("sizes", [{}, {"kdim": 6}, {"vdim": 10}, {"kdim": 6, "vdim": 10}], ids=str)
@pytest.mark.parametrize("heads", [1, 2, 4])
@pytest.mark.no_cover
def test_pytorchs_state_dict_loads_strictly_and_gives_equal_output(
    device, pytorch, batch_first, bias, sizes, heads
):
    kwargs = {"bias": bias, **sizes, "device": device, "dtype": torch.float64}
    theirs = randomised(nn.MultiheadAttention(8, heads, batch_first=batch_first, **kwargs))
    ours = MultiHeadAttention(8, heads, **kwargs)
    assert str(ours.load_state_dict(theirs.state_dict())) == "<All keys matched successfully>"
    x, y, z = (
        random_input(device, 3, rows, size)
        for rows, size in ((4, 8), (5, theirs.kdim), (5, theirs.vdim))
    )
    padding = padding_mask(torch.tensor([5, 3, 1], device=device), 5)
    seen, per_head = random_mask(device, 4, 5), random_mask(device, 3, heads, 4, 5)
    seen[:, 0] = per_head[..., 0] = True
    term = random_input(device, 4, 5).detach()
    flat = rearrange(per_head, "b h i j -> (b h) i j")
    padded = ~padding[:, 0]
    cases = [
        ({}, {}),
        ({"key_padding_mask": padded}, {"mask": padding}),
        ({"attn_mask": ~seen}, {"mask": seen}),
        ({"attn_mask": ~flat}, {"mask": per_head}),
        ({"attn_mask": term}, {"bias": term}),
        ({"attn_mask": ~seen, "key_padding_mask": padded}, {"mask": seen & padding}),
    ]
    theirs.train(pytorch["training"])
    order = "b n e -> b n e" if batch_first else "b n e -> n b e"
    back = "b n e -> b n e" if batch_first else "n b e -> b n e"
    for theirs_kwargs, ours_kwargs in cases:
        with nullcontext() if pytorch["training"] else torch.no_grad():
            expected, weights = theirs(
                *(rearrange(tensor, order) for tensor in (x, y, z)),
                need_weights=pytorch["need_weights"],
                **theirs_kwargs,
            )
            output, ours_weights = ours.attend(x, y, z, **ours_kwargs)
            fused = ours(x, y, z, **ours_kwargs)
        expected = rearrange(expected, back)
        assert_close([fused, output], [expected, expected])
        if weights is not None:
            assert_close(reduce(ours_weights, "b h i j -> b i j", "mean"), weights)


def test_pytorchs_fast_path_gives_equal_output(device):
    theirs = randomised(nn.MultiheadAttention(8, 2, batch_first=True, device=device)).eval()
    ours = MultiHeadAttention(8, 2, device=device).eval()
    ours.load_state_dict(theirs.state_dict())
    x = random_input(device, 3, 5, 8, dtype=torch.float32)
    with torch.no_grad(), Operators() as operators:
        expected, _ = theirs(x, x, x, need_weights=False)
    assert "aten._native_multi_head_attention.default" in operators.names
    assert_close([ours(x), ours.attend(x)[0]], [expected, expected])


def test_gradients_are_those_of_pytorchs_layer(device):
    theirs = randomised(nn.MultiheadAttention(8, 2, batch_first=True, device=device).double())
    ours = MultiHeadAttention(8, 2, device=device, dtype=torch.float64)
    ours.load_state_dict(theirs.state_dict())
    x, y, z = (random_input(device, 3, 5, 8) for _ in range(3))
    expected = output_and_gradients(
        lambda: theirs(x, y, z)[0],
        [x, y, z, theirs.in_proj_weight, theirs.in_proj_bias, *theirs.out_proj.parameters()],
    )
    for path in (by_forward, by_attend):
        output, *grads = output_and_gradients(path, [x, y, z, *ours.parameters()], ours, x, y, z)
        named = dict(zip((name for name, _ in ours.named_parameters()), grads[3:], strict=True))
        stacked = [
            torch.cat([named[f"{name}_proj.{kind}"] for name in "qkv"])
            for kind in ("weight", "bias")
        ]
        last = [named["out_proj.weight"], named["out_proj.bias"]]
        assert_close([output, *grads[:3], *stacked, *last], list(expected))


class Model(nn.Module):
    def __init__(self, layer, **kwargs):
        super().__init__()
        self.embed = nn.Linear(6, 8)
        self.blocks = nn.ModuleList(
            nn.ModuleDict({"attention": layer(8, 2, **kwargs), "norm": nn.LayerNorm(8)})
            for _ in range(2)
        )


@pytest.mark.parametrize("kwargs", [{}, {"kdim": 6}, {"bias": False}], ids=str)
@pytest.mark.parametrize("assign", [False, True])
def test_loads_nested_in_a_model_and_leaves_the_callers_dictionary_alone(device, kwargs, assign):
    theirs = randomised(Model(nn.MultiheadAttention, **kwargs)).to(device)
    ours = Model(MultiHeadAttention, **kwargs).to(device)
    state = theirs.state_dict()
    before = {name: tensor.clone() for name, tensor in state.items()}
    for _ in range(2):
        ours.load_state_dict(state, assign=assign)
        assert state.keys() == before.keys()
        assert all(torch.equal(state[name], before[name]) for name in before)
    x = random_input(device, 3, 5, 8, dtype=torch.float32)
    key = x[..., : kwargs.get("kdim", 8)]
    for a, b in zip(ours.blocks, theirs.blocks, strict=True):
        expected, _ = b["attention"](*(rearrange(y, "b n e -> n b e") for y in (x, key, x)))
        assert_close(a["attention"](x, key, x), rearrange(expected, "n b e -> b n e"))
    again = Model(MultiHeadAttention, **kwargs).to(device)
    again.load_state_dict(ours.state_dict())
    assert_close(again.state_dict(), ours.state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize("kwargs", [{}, {"kdim": 6}, {"bias": False}], ids=str)
def test_weights_that_were_one_tensor_are_saved_one_by_one(device, kwargs, tmp_path):
    safetensors = pytest.importorskip("safetensors.torch")
    theirs = nn.MultiheadAttention(64, 2, device=device, **kwargs)
    ours = MultiHeadAttention(64, 2, device=device, **kwargs)
    ours.load_state_dict(theirs.state_dict(), assign=True)
    storages = {p.untyped_storage().data_ptr() for p in ours.parameters()}
    assert len(storages) == len(list(ours.parameters()))
    safetensors.save_model(ours, str(tmp_path / "whole"))
    again = MultiHeadAttention(64, 2, device=device, **kwargs)
    safetensors.load_model(again, tmp_path / "whole")
    assert_close(again.state_dict(), ours.state_dict(), rtol=0, atol=0)
    torch.save(ours.q_proj.weight, tmp_path / "one")
    assert (tmp_path / "one").stat().st_size < 1.5 * ours.q_proj.weight.nbytes


class Chain(nn.Module):
    """Three modules of a sequence, each called in its own way."""

    def __init__(self, device):
        super().__init__()
        self.alone = SelfAttention(8, device=device)
        self.rotary = RotaryEncoding(8)
        self.heads = MultiHeadAttention(8, 2, device=device)

    def forward(self, x):
        return self.heads(self.rotary(self.alone(x)), is_causal=True).relu()


def test_symbolic_traces_go_around_the_modules(device, torchvision):
    from torchvision.models.feature_extraction import (  # noqa: PLC0415 (where it can be imported)
        create_feature_extractor,
    )

    leaves = (MultiHeadAttention, SelfAttention, RotaryEncoding)

    class Tracer(torch.fx.Tracer):
        def is_leaf_module(self, m, name):
            return isinstance(m, leaves) or super().is_leaf_module(m, name)

    module, x = Chain(device), torch.randn(2, 5, 8, device=device)
    for part in module.children():
        with pytest.raises(TypeError, match="Proxy"):
            torch.fx.symbolic_trace(part)
    traced = torch.fx.GraphModule(module, Tracer().trace(module))
    assert_close(traced(x), module(x))
    features = create_feature_extractor(
        module, ["alone", "heads"], tracer_kwargs={"leaf_modules": list(leaves)}
    )(x)
    assert_close(features["alone"], module.alone(x))
    assert_close(features["heads"].relu(), module(x))


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("dropped", ["bias_k", "bias_v", None])
def test_a_learned_extra_key_is_refused_when_loading(strict, dropped):
    state = nn.MultiheadAttention(8, 2, add_bias_kv=True).state_dict()
    if dropped is not None:
        del state[dropped]
    model = nn.ModuleDict({"attention": MultiHeadAttention(8, 2)})
    state = {f"attention.{name}": tensor for name, tensor in state.items()}
    message = r"attention\.bias_k and attention\.bias_v .*: MultiHeadAttention has no learned extra"
    with pytest.raises(RuntimeError, match=message):
        model.load_state_dict(state, strict=strict)


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda state: state.pop("in_proj_bias"), 'Missing key.*"q_proj.bias"'),
        (lambda state: state.update(other=torch.ones(1)), 'Unexpected key.*"other"'),
        (
            lambda state: state.update(in_proj_weight=torch.ones(30, 8)),
            r"q_proj.weight: .*\[10, 8\].*\[8, 8\]",
        ),
    ],
    ids=["missing", "unexpected", "size"],
)
def test_loading_stays_strict(change, message):
    state = nn.MultiheadAttention(8, 2).state_dict()
    change(state)
    with pytest.raises(RuntimeError, match=message):
        MultiHeadAttention(8, 2).load_state_dict(state)


@pytest.mark.parametrize("sizes", [{}, {"kdim": 6}, {"vdim": 6}, {"bias": False}], ids=str)
def test_initial_values_are_those_of_pytorchs_layer(sizes):
    theirs, ours = nn.MultiheadAttention(8, 2, **sizes), MultiHeadAttention(8, 2, **sizes)
    torch.manual_seed(1)
    theirs.out_proj.reset_parameters()
    theirs._reset_parameters()
    torch.manual_seed(1)
    ours.reset_parameters()
    expected = MultiHeadAttention(8, 2, **sizes)
    expected.load_state_dict(theirs.state_dict())
    assert_close(ours.state_dict(), expected.state_dict())


def test_initial_values_of_grouped_queries_fill_the_bound_of_the_stacked_matrix():
    module = MultiHeadAttention(64, 8, num_kv_heads=2)
    bound = math.sqrt(6 / (64 + 64 + 16 + 16))
    for projection in (module.q_proj, module.k_proj, module.v_proj):
        largest = projection.weight.abs().max()
        assert 0.99 * bound < largest <= bound
        assert not projection.bias.any()
    assert not module.out_proj.bias.any()


def test_pytorchs_own_sample_inputs_for_its_layer(device):
    pytest.importorskip("expecttest")
    modules = pytest.importorskip("torch.testing._internal.common_modules")
    (info,) = [info for info in modules.module_db if info.module_cls is nn.MultiheadAttention]
    samples = info.module_inputs_func(
        info, device=device, dtype=torch.float64, requires_grad=False, training=False
    )
    compared = 0
    for sample in samples:
        kwargs = dict(sample.constructor_input.kwargs)
        if kwargs["add_bias_kv"] or kwargs["add_zero_attn"]:
            continue
        compared += 1
        theirs = randomised(nn.MultiheadAttention(**kwargs, device=device, dtype=torch.float64))
        ours = MultiHeadAttention(3, 3, bias=kwargs["bias"], device=device, dtype=torch.float64)
        ours.load_state_dict(theirs.state_dict())
        inputs, masks = sample.forward_input.args, sample.forward_input.kwargs
        mask = torch.ones(1, 3, 3, 3, dtype=torch.bool, device=device)
        if masks["attn_mask"] is not None:
            mask = mask & ~masks["attn_mask"]
        if masks["key_padding_mask"] is not None:
            mask = mask & ~masks["key_padding_mask"]
        output, weights = ours.attend(*inputs, mask=mask)
        assert_close([ours(*inputs, mask=mask), output], [theirs(*inputs, **masks)[0]] * 2)
        reference = sample.reference_fn(theirs, *inputs, **masks)
        assert_close((output, weights.mean(dim=0)), reference)
    assert compared == 16


def test_pytorchs_own_sample_inputs_for_its_kernel(device):
    pytest.importorskip("expecttest")
    methods = pytest.importorskip("torch.testing._internal.common_methods_invocations")
    name = "nn.functional.scaled_dot_product_attention"
    (op,) = [op for op in methods.op_db if op.name == name]
    compared = 0
    for sample in op.sample_inputs(device, torch.float64, requires_grad=False):
        inputs, kwargs = (sample.input, *sample.args), sample.kwargs
        if kwargs["dropout_p"] > 0 or any(x.ndim != 4 for x in inputs):
            continue
        compared += 1
        _, heads, queries, d = inputs[0].shape
        module = make(device, heads * d, heads)
        eye = torch.eye(heads * d, dtype=torch.float64, device=device)
        for projection in (module.q_proj, module.k_proj, module.v_proj, module.out_proj):
            projection.weight.data, projection.bias.data = eye, torch.zeros_like(eye[0])
        # The kernel aligns the first query with the first key.
        upper_left = torch.ones(queries, inputs[1].shape[-2]).tril().bool().to(device)
        mask = upper_left if kwargs["is_causal"] else None
        expected = rearrange(op(*inputs, **kwargs), "b h i d -> b i (h d)")
        rows = [rearrange(x, "b h i d -> b i (h d)") for x in inputs]
        for path in (by_forward, by_attend):
            assert_close(path(module, *rows, mask=mask, bias=kwargs.get("attn_mask")), expected)
    assert compared >= 5


# Speed: what the fused path must not do


class Operators(TorchDispatchMode):
    """Note the name of every operator that runs."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(str(func))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("kwargs", [{}, {"is_causal": True}, {"mask": True}, {"kv": 1}], ids=str)
def test_the_fused_path_calls_one_kernel_on_views(device, kwargs):
    kwargs = dict(kwargs)
    kv_heads = kwargs.pop("kv", None)
    if kv_heads is not None:
        q, k = (torch.randn(2, heads, 5, 2, device=device) for heads in (4, kv_heads))
        with Operators() as operators:
            F.scaled_dot_product_attention(q, k, k, enable_gqa=True)
        if any("softmax" in name for name in operators.names):
            pytest.skip("this torch has no fused kernel for grouped queries here: 2.8 on a CPU")
    module = make(device, num_kv_heads=kv_heads, dtype=torch.float32).eval()
    copies = {"aten.clone.default", "aten.copy_.default", "aten._to_copy.default"}
    if "mask" in kwargs:
        kwargs = {"mask": random_mask(device, 2, 1, 5)}
        copies.remove("aten._to_copy.default")  # of the mask, as bytes
    x = random_input(device, 2, 5, 8, dtype=torch.float32)
    with torch.no_grad(), Operators() as operators:
        module(x, **kwargs)
    if device.type == "cpu":
        assert not copies & set(operators.names)
        fused = "aten._scaled_dot_product_flash_attention_for_cpu.default"
        assert operators.names.count(fused) == 1
    assert not any("softmax" in name or "bmm" in name for name in operators.names)
    # No mask is made where the kernel can do without.
    assert not any("arange" in name for name in operators.names)


@pytest.mark.parametrize("off_cpu", ["cpu", "meta"])
@pytest.mark.parametrize("masked", [None, "mask", "bias"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_heads_share_keys_in_the_kernel_only_where_one_can_do_it(
    monkeypatch, off_cpu, masked, dtype
):
    """PyTorch's documentation: on a GPU FlashAttention and the formula can, and no other."""
    heads_of_keys = []
    kernel = F.scaled_dot_product_attention

    def recorded(query, key, value, **kwargs):
        assert key.shape[1] == value.shape[1]
        assert kwargs["enable_gqa"] == (key.shape[1] != query.shape[1])
        heads_of_keys.append(key.shape[1])
        return kernel(query, key, value, **kwargs)

    monkeypatch.setattr(F, "scaled_dot_product_attention", recorded)
    module = MultiHeadAttention(8, 4, num_kv_heads=2, device=off_cpu, dtype=dtype)
    x = torch.zeros(2, 5, 8, device=off_cpu, dtype=dtype)
    terms = {
        "mask": {"mask": torch.ones(5, 5, device=off_cpu, dtype=torch.bool)},
        "bias": {"bias": torch.zeros(5, 5, device=off_cpu, dtype=dtype)},
    }
    module(x, **terms.get(masked, {}))
    module.step(x, KeyValueCache(5), **terms.get(masked, {}))
    by_flash = masked is None and dtype == torch.bfloat16
    assert heads_of_keys == [2 if off_cpu == "cpu" or by_flash else 4] * 2


# Precision


@every_path
@pytest.mark.parametrize("dtype", HALF, ids=str)
def test_half_types_are_as_exact_as_pytorchs_kernel(device, path, dtype):
    module = MultiHeadAttention(64, 4, device=device, dtype=dtype)
    x = 3 * random_input(device, 4, 32, 64, dtype=dtype).detach()
    exact = copy.deepcopy(module).double()(x.double())
    q, k, v = (
        rearrange(projection(x), "b i (h d) -> b h i d", h=4)
        for projection in (module.q_proj, module.k_proj, module.v_proj)
    )
    context = F.scaled_dot_product_attention(q, k, v)
    pytorchs = module.out_proj(rearrange(context, "b h i d -> b i (h d)"))
    output = path(module, x)
    assert output.dtype == dtype
    assert (output - exact).norm() <= 1.05 * (pytorchs - exact).norm()


@every_path
@pytest.mark.parametrize("dtype", HALF, ids=str)
def test_a_float32_bias_is_added_in_half_types_too(device, path, dtype):
    module, x = make(device, dtype=dtype), random_input(device, 2, 5, 8, dtype=dtype)
    bias = random_input(device, 5, 5, dtype=torch.float32)
    output = path(module, x, bias=bias, mask=random_mask(device, 2, 1, 5))
    assert output.dtype == dtype
    assert_close(path(module, x, bias=bias), path(module, x, bias=bias.to(dtype)))


# What the contract does not ask


@pytest.mark.no_cover
def test_compiled_gradients_are_the_same(device):
    torch.compiler.reset()
    module, x = make(device), random_input(device, 2, 5, 8)
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    inputs, mask = [x, *module.parameters()], random_mask(device, 2, 5, 5)
    assert_close(
        output_and_gradients(compiled, inputs, x, mask=mask),
        output_and_gradients(module, inputs, x, mask=mask),
    )


# PyTorch's kernel for the CPU has no rule for vmap, so that vmap falls back to a loop.
@pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning")
@every_path
def test_vmap_is_a_batch_axis(device, path):
    module, x, y = make(device), random_input(device, 3, 4, 8), random_input(device, 3, 5, 8)
    # Under vmap, PyTorch's kernel for the CPU does not differentiate a bias.
    mask, bias = random_mask(device, 3, 4, 5), random_input(device, 4, 5).detach()

    def run(x, y, mask):
        return path(module, x, y, mask=mask, bias=bias)

    assert_close(torch.vmap(run)(x, y, mask), run(x, y, mask))
    assert_close(torch.vmap(partial(path, module))(x), path(module, x))
    assert_close(
        torch.vmap(partial(path, module, is_causal=True))(x[None]),
        path(module, x, is_causal=True)[None],
    )


def test_leaves_the_meta_device_with_fresh_initial_values(device):
    module = MultiHeadAttention(8, 2, device="meta").to_empty(device=device)
    torch.manual_seed(1)
    module.reset_parameters()
    expected = MultiHeadAttention(8, 2)
    torch.manual_seed(1)
    expected.reset_parameters()
    if device.type == "cpu":
        assert_close(module.state_dict(), expected.state_dict())
    assert all(parameter.isfinite().all() for parameter in module.parameters())


@pytest.mark.parametrize(
    "duplicate",
    [copy.deepcopy, lambda module: pickle.loads(pickle.dumps(module))],
    ids=["deepcopy", "pickle"],
)
def test_a_copy_still_loads_pytorchs_weights(device, duplicate):
    double = duplicate(MultiHeadAttention(8, 2, device=device))
    theirs = nn.MultiheadAttention(8, 2, batch_first=True, device=device)
    double.load_state_dict(theirs.state_dict())
    x = random_input(device, 2, 5, 8, dtype=torch.float32)
    assert_close(double(x), theirs(x, x, x)[0])


def test_its_name_says_its_heads():
    assert "4 heads, 2 of keys and values" in repr(MultiHeadAttention(8, 4, num_kv_heads=2))


# Derivatives


# The fused kernels have no second derivative; PyTorch's own sum and softmax do.
@pytest.mark.parametrize("check, kernel", [(gradcheck, nullcontext), (gradgradcheck, MATH)])
@every_path
def test_derivatives(device, path, check, kernel):
    module = make(device, 4, 2, num_kv_heads=1)
    inputs = [random_input(device, *shape) for shape in ((2, 3, 4), (2, 4, 4), (3, 4))]
    mask = causal_mask(3, 4, device=device)
    mask[0] = False

    def run(x, y, bias, *_):
        return path(module, x, y, mask=mask, bias=bias)

    with kernel():
        assert check(run, (*inputs, *module.parameters()))


# Past one machine


def _one_of_two_processes(rank, store, results):
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    torch.manual_seed(0)
    module = make("cpu", num_heads=4, num_kv_heads=2)
    x, bias = random_input("cpu", 2, 5, 8), random_input("cpu", 5, 5).detach()
    mask = random_mask("cpu", 2, 5, 5)
    plan = {name: ColwiseParallel() for name in ("q_proj", "k_proj", "v_proj")}
    plan["out_proj"] = RowwiseParallel()
    mesh = dist.init_device_mesh("cpu", (2,))
    split = parallelize_module(copy.deepcopy(module), mesh, plan)
    for path in (by_forward, by_attend):
        for kwargs in ({}, {"mask": mask, "bias": bias}, {"is_causal": True}):
            expected = output_and_gradients(path, [x, *module.parameters()], module, x, **kwargs)
            result = output_and_gradients(path, [x, *split.parameters()], split, x, **kwargs)
            whole = [
                getattr(tensor, "full_tensor", lambda tensor=tensor: tensor)() for tensor in result
            ]
            assert_close(whole, list(expected))
    assert split.q_proj.weight.to_local().shape == (4, 8)
    assert split.attend(x)[1].shape == (2, 2, 5, 5)
    (results / str(rank)).touch()
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_processes_compute_what_one_does(tmp_path):
    torch.multiprocessing.spawn(_one_of_two_processes, (tmp_path / "store", tmp_path), nprocs=2)
    assert (tmp_path / "0").exists() and (tmp_path / "1").exists()


# Errors: t(2, 3) is a float32 tensor of ones of that shape, b(2, 3) a boolean one


def layer(*args, **kwargs):
    return lambda t, b: MultiHeadAttention(*args, **kwargs)


def call(*shape, **kwargs):
    """Call a layer of 8 features and 2 heads with query and key of (2, 3, 8), (2, 5, 8)."""

    def run(path, t, b):
        terms = {name: make(t, b) for name, make in kwargs.items()}
        shapes = shape or ((2, 3, 8), (2, 5, 8))
        return path(MultiHeadAttention(8, 2), *(t(*sizes) for sizes in shapes), **terms)

    return run


SIZES = {
    "heads": (layer(10, 3), "embed_dim=10 is not divisible by num_heads=3"),
    "kv heads": (layer(12, 6, num_kv_heads=4), "num_heads=6 is not divisible by num_kv_heads=4"),
    "more kv heads": (
        layer(8, 2, num_kv_heads=4),
        "num_heads=2 is not divisible by num_kv_heads=4",
    ),
    "no features": (layer(0, 1), "embed_dim=0 must be at least 1"),
    "no heads": (layer(8, 0), "num_heads=0 must be at least 1"),
    "negative heads": (layer(8, -2), "num_heads=-2 must be at least 1"),
    "no kv heads": (layer(8, 2, num_kv_heads=0), "num_kv_heads=0 must be at least 1"),
    "no key": (layer(8, 2, kdim=0), "kdim=0 must be at least 1"),
    "no value": (layer(8, 2, vdim=0), "vdim=0 must be at least 1"),
    "dropout above 1": (layer(8, 2, dropout=1.5), "dropout=1.5 .* between 0 and 1"),
    "dropout below 0": (layer(8, 2, dropout=-0.1), "dropout=-0.1 .* between 0 and 1"),
    "dropout of nan": (layer(8, 2, dropout=math.nan), "dropout=nan .* between 0 and 1"),
}


@pytest.mark.parametrize("build, message", SIZES.values(), ids=SIZES)
def test_bad_sizes(build, message):
    with pytest.raises(ValueError, match=message):
        build(None, None)


CALLS = {
    "features of query": (call((2, 3, 7)), ValueError, "query has 7 features, .* expects 8"),
    "features of key": (call((2, 3, 8), (2, 5, 6)), ValueError, "key has 6 features, .* expects 8"),
    "features of value": (
        call((2, 3, 8), (2, 5, 8), (2, 5, 9)),
        ValueError,
        "value has 9 features, .* expects 8",
    ),
    "lengths": (call((2, 3, 8), (2, 5, 8), (2, 4, 8)), ValueError, "5 keys but 4 values"),
    "batches": (call((2, 3, 8), (4, 5, 8)), ValueError, r"'query': \(2,\), 'key': \(4,\)"),
    "four axes": (
        call((1, 2, 3, 8)),
        ValueError,
        r"have \(4, 4, 4\) axes, but need 3 each .* or 2 each \(length, features\)",
    ),
    "one axis": (call((8,)), ValueError, "query has 1 axes, but needs at least 2"),
    "mixed axes": (call((3, 8), (2, 5, 8)), ValueError, r"have \(2, 3, 3\) axes, but need 3"),
    "float mask": (
        call(mask=lambda t, b: t(3, 5)),
        TypeError,
        "mask has dtype torch.float32, not torch.bool",
    ),
    "integer mask": (
        call(mask=lambda t, b: t(2, 3, 5).long()),
        TypeError,
        "mask has dtype torch.int64, not torch.bool",
    ),
    "boolean bias": (call(bias=lambda t, b: b(3, 5)), TypeError, "bias has dtype torch.bool"),
    "mask of one axis": (
        call(mask=lambda t, b: b(5)),
        ValueError,
        r"mask has 1 axes, but needs 2 .*, 3 .* or 4 \(batch, heads, queries, keys\)",
    ),
    "mask of five axes": (
        call(mask=lambda t, b: b(1, 2, 2, 3, 5)),
        ValueError,
        "mask has 5 axes, but needs 2",
    ),
    "bias of five axes": (
        call(bias=lambda t, b: t(1, 2, 2, 3, 5)),
        ValueError,
        "bias has 5 axes, but needs 2",
    ),
    "mask for heads": (
        call(mask=lambda t, b: b(4, 3, 5)),
        ValueError,
        r"mask of shape \(4, 3, 5\) has 3 axes, .* batch of 2; .*\(batch, heads, queries, keys\)",
    ),
    "mask of two axes": (
        call(mask=lambda t, b: b(3, 4)),
        ValueError,
        r"mask of shape \(3, 4\) does not broadcast to the scores' shape \(2, 2, 3, 5\)",
    ),
    "mask of three axes": (
        call(mask=lambda t, b: b(2, 5, 3)),
        ValueError,
        r"mask of shape \(2, 5, 3\) does not broadcast to the scores' shape \(2, 3, 5\)",
    ),
    "mask of four axes": (
        call(mask=lambda t, b: b(2, 3, 3, 5)),
        ValueError,
        r"mask of shape \(2, 3, 3, 5\) does not broadcast to the scores' shape \(2, 2, 3, 5\)",
    ),
    "bias of four axes": (
        call(bias=lambda t, b: t(3, 1, 3, 5)),
        ValueError,
        r"bias of shape \(3, 1, 3, 5\) does not broadcast to the scores' shape \(2, 2, 3, 5\)",
    ),
}


@every_path
@pytest.mark.parametrize("run, error, message", CALLS.values(), ids=CALLS)
def test_bad_inputs(path, run, error, message):
    with pytest.raises(error, match=message):
        run(path, torch.ones, partial(torch.ones, dtype=torch.bool))


@every_path
def test_bad_dtypes(path):
    module = MultiHeadAttention(8, 2)
    with pytest.raises(TypeError, match=r"query has dtype torch\.int64"):
        path(module, torch.ones(2, 3, 8, dtype=torch.int64))
    with pytest.raises(
        TypeError, match=r"key has dtype torch\.float64 but query has torch.float32"
    ):
        path(module, torch.ones(2, 3, 8), torch.ones(2, 3, 8, dtype=torch.float64))
    with pytest.raises(
        TypeError, match=r"value has dtype torch\.float16 but query has torch.float32"
    ):
        path(module, *2 * [torch.ones(2, 3, 8)], torch.ones(2, 3, 8, dtype=torch.float16))


class TestSettings(MaskContract, SequenceCompilerContract):
    axes = ({0: DIM, 1: DIM}, {0: DIM, 1: DIM}, {0: DIM, 1: DIM}, {0: DIM, 2: DIM})
    looked_at = (1, 2)

    def make(self, **kwargs):
        return MultiHeadAttention(8, 4, num_kv_heads=2, rotary=RotaryEncoding(2), **kwargs)

    def inputs(self, device, batch=2, length=5, dtype=torch.float32):
        query, key = torch.randn(batch, length - 2, 8), torch.randn(batch, length, 8)
        value, mask = torch.randn(batch, length, 8), torch.rand(batch, 1, length) > 0.4
        mask[:1] = False  # a sequence that may see nothing
        return *(x.to(device, dtype) for x in (query, key, value)), mask.to(device)

    def ask(self, module):
        def with_all(run, query, key, value, mask):
            keys = mask.shape[-1]
            bias = alibi_bias(4, keys - 2, keys, device=key.device, dtype=key.dtype)
            return run(query, key, value, mask=mask, bias=bias[None], is_causal=True)

        return {
            "forward": partial(with_all, module),
            "attend": lambda *inputs: with_all(module.attend, *inputs)[0],
            "causal by the kernel": lambda query, *others: module(query, is_causal=True),
        }


class TestStepSettings(SequenceContract):
    def make(self, **kwargs):
        return MultiHeadAttention(8, 4, num_kv_heads=2, rotary=RotaryEncoding(2), **kwargs)

    def inputs(self, device, batch=2, length=5, dtype=torch.float32):
        return (torch.randn(batch, length, 8).to(device, dtype),)

    def ask(self, module):
        def twice(x):
            cache = KeyValueCache(14)
            return torch.cat([module.step(x, cache), module.step(x, cache)], dim=1)

        return {"step": twice}


def slow(*values):
    return pytest.param(*values, marks=pytest.mark.slow)


class OnnxCall(nn.Module):
    """A call of a layer, with its keywords, as a function of x and of a mask."""

    def __init__(self, device, with_mask, is_causal, **kwargs):
        super().__init__()
        self.with_mask, self.is_causal = with_mask, is_causal
        self.attention = make(device, dtype=torch.float32, **kwargs)

    def forward(self, *x_and_mask):
        x, mask = x_and_mask
        if not self.with_mask:
            return self.attention(x, is_causal=self.is_causal) + 0 * mask.sum()
        return self.attention(x, mask=mask, is_causal=self.is_causal)


@pytest.mark.filterwarnings("ignore")  # of the exporter, about itself
@pytest.mark.parametrize(
    "with_mask, is_causal, kwargs",
    [
        (True, False, {}),
        slow(False, False, {}),
        slow(False, True, {}),
        slow(True, True, {}),
        slow(True, False, {"num_kv_heads": 1}),
        slow(False, True, {"num_kv_heads": 1}),
        slow(True, True, {"rotary": RotaryEncoding(4)}),
    ],
)
@pytest.mark.no_cover
def test_onnxruntime_gives_the_same_answers(with_mask, is_causal, kwargs):
    module = OnnxCall("cpu", with_mask, is_causal, **kwargs)
    inputs, others = (
        (torch.randn(batch, n, 8), random_mask("cpu", batch, n, n)) for batch, n in [(2, 5), (3, 7)]
    )
    others[1][0], others[1][1, 2] = False, False  # a sequence and a query that may see nothing
    found = onnx_answer(module, inputs, others, ({0: DIM, 1: DIM}, {0: DIM, 1: DIM, 2: DIM}))
    assert_close(found, module(*others).detach(), rtol=1e-4, atol=1e-4)
