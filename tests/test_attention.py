"""attention.py: against PyTorch, against its formulas, by its properties, and in every setting."""

from __future__ import annotations

import itertools
import math
import re
from contextlib import nullcontext
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from sequence_contract import DIM, LayersContract, MaskContract, SequenceCompilerContract
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import gradcheck, gradgradcheck
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.attention.bias import causal_lower_right
from torch.testing import assert_close

from attnbook import (
    AdditiveScore,
    CosineScore,
    CrossAttention,
    SelfAttention,
    attend,
    causal_mask,
    cosine_score,
    dot_product_score,
    masked_softmax,
    padding_mask,
)
from attnbook.costs import peak_bytes

HALF = [torch.float16, torch.bfloat16]
FLOATS = [torch.float64, torch.float32, *HALF]


def random_inputs(device, *batch, queries=3, keys=5, features=4, dtype=torch.float64):
    return [
        torch.randn(*batch, rows, features, dtype=dtype).to(device).requires_grad_()
        for rows in (queries, keys, keys)
    ]


def random_mask(device, *shape, density=0.6):
    return (torch.rand(shape) < density).to(device)


def output_and_gradients(path, inputs, **kwargs):
    output = path(*inputs, **kwargs)
    return output, *torch.autograd.grad(output.square().sum(), inputs)


# The three ways to a context. CrossAttention gets projections that read the query off its one
# input, and key and value off the two halves of its other, so that all three take the same tensors.
def cross_attention_of(query, key, value):
    dim = query.shape[-1]
    eye = torch.eye(2 * dim, device=query.device, dtype=query.dtype)
    cross = CrossAttention(dim, 2 * dim, bias=False, device=query.device, dtype=query.dtype)
    weights = {"q_proj": eye[:dim, :dim], "k_proj": eye[:dim], "v_proj": eye[dim:]}
    cross.load_state_dict({f"{name}.weight": weight for name, weight in weights.items()})
    return cross, query, torch.cat([key, value], dim=-1)


def by_attend(query, key, value, mask=None):
    return attend(query, key, value, mask=mask)[0]


def by_forward(query, key, value, mask=None):
    cross, x, context = cross_attention_of(query, key, value)
    return cross(x, context, mask)


def by_attend_method(query, key, value, mask=None):
    cross, x, context = cross_attention_of(query, key, value)
    return cross.attend(x, context, mask)[0]


every_path = pytest.mark.parametrize("path", [by_attend, by_forward, by_attend_method])


# Agreement with PyTorch

BACKENDS = {"default": nullcontext, "math": partial(sdpa_kernel, SDPBackend.MATH)}
MASKS = {
    "no mask": lambda device, batch: None,
    "whole": lambda device, batch: random_mask(device, *batch, 3, 5),
    "shared by the batch": lambda device, batch: random_mask(device, 3, 5),
    "shared by the queries": lambda device, batch: random_mask(device, *batch, 1, 5),
    "shared by the keys": lambda device, batch: random_mask(device, *batch, 3, 1),
    "causal": lambda device, batch: causal_mask(3, 5, device=device),
}


@every_path
@pytest.mark.parametrize("make_mask", MASKS.values(), ids=MASKS)
@pytest.mark.parametrize("batch", [(), (2,), (2, 3)], ids=str)
@pytest.mark.parametrize("backend", BACKENDS.values(), ids=BACKENDS)
def test_context_and_gradients_are_those_of_pytorch(device, path, make_mask, batch, backend):
    inputs, mask = random_inputs(device, *batch), make_mask(device, batch)
    with backend():
        expected = output_and_gradients(F.scaled_dot_product_attention, inputs, attn_mask=mask)
    assert_close(output_and_gradients(path, inputs, mask=mask), expected)


@pytest.mark.parametrize("shape", [(2, 3, 5), (3, 5), (2, 1, 5), (3, 1), (1, 1)], ids=str)
@pytest.mark.parametrize("masked", [False, True], ids=["bias", "bias and mask"])
def test_bias_is_added_to_the_scores_as_pytorch_does(device, shape, masked):
    *inputs, bias = *random_inputs(device, 2), torch.randn(shape, dtype=torch.float64).to(device)
    mask = random_mask(device, 3, 5) if masked else torch.ones(3, 5, dtype=torch.bool).to(device)
    pytorchs = bias.masked_fill(~mask, -math.inf)
    assert_close(
        output_and_gradients(lambda *qkv: attend(*qkv, mask=mask, bias=bias)[0], inputs),
        output_and_gradients(F.scaled_dot_product_attention, inputs, attn_mask=pytorchs),
    )


@every_path
def test_queries_may_be_shared_by_the_batch_of_keys_and_mask(device, path):
    query, key, value = random_inputs(device, 2)
    mask = random_mask(device, 2, 3, 5)
    shared = path(query[:1], key, value, mask)
    assert_close(shared, path(query[:1].expand(2, 3, -1), key, value, mask))


def test_one_feature_is_not_scaled(device):
    query, key = torch.tensor([[3.0]], device=device), torch.tensor([[2.0], [-5.0]], device=device)
    assert dot_product_score(query, key).tolist() == [[6.0, -15.0]]


@pytest.mark.parametrize("queries", [1, 3, 5])
def test_causal_mask_is_pytorchs_lower_right(device, queries):
    inputs = random_inputs(device, 2, 1, queries=queries)
    expected = F.scaled_dot_product_attention(*inputs, attn_mask=causal_lower_right(queries, 5))
    assert_close(by_attend(*inputs, mask=causal_mask(queries, 5, device=device)), expected)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("masked", [True, False])
def test_cross_attention_is_pytorchs_after_its_three_projections(device, bias, masked):
    cross = CrossAttention(4, 6, head_dim=8, bias=bias, device=device, dtype=torch.float64)
    x, context = random_inputs(device, 2)[0], random_inputs(device, 2, features=6)[1]
    mask = random_mask(device, 2, 3, 5) if masked else None
    inputs = [x, context, *cross.parameters()]

    def expected(x, context, *_):
        query, key, value = cross.q_proj(x), cross.k_proj(context), cross.v_proj(context)
        return F.scaled_dot_product_attention(query, key, value, attn_mask=mask)

    result = output_and_gradients(expected, inputs)
    assert cross(x, context, mask).shape == (2, 3, 8)
    assert_close(output_and_gradients(lambda *_: cross(x, context, mask), inputs), result)
    assert_close(output_and_gradients(lambda *_: cross.attend(x, context, mask)[0], inputs), result)


@every_path
@pytest.mark.parametrize("batches", [((2, 1), (1, 3)), ((), (3,)), ((2,), ())], ids=str)
def test_batch_axes_broadcast(device, path, batches):
    queries, keys = batches
    query, (_, key, value) = random_inputs(device, *queries)[0], random_inputs(device, *keys)
    batch = torch.broadcast_shapes(queries, keys)
    expanded = [x.expand(*batch, *x.shape[-2:]) for x in (query, key, value)]
    assert_close(path(query, key, value), F.scaled_dot_product_attention(*expanded))


def test_pytorchs_own_sample_inputs(device):
    pytest.importorskip("expecttest")
    methods = pytest.importorskip("torch.testing._internal.common_methods_invocations")
    name = "nn.functional.scaled_dot_product_attention"
    (op,) = [op for op in methods.op_db if op.name == name]
    samples = [
        sample
        for sample in op.sample_inputs(device, torch.float64, requires_grad=False)
        if sample.kwargs["dropout_p"] == 0
    ]
    assert samples
    for sample in samples:
        query, (key, value) = sample.input, sample.args
        upper_left = torch.ones(query.shape[-2], key.shape[-2], dtype=torch.bool).tril().to(device)
        mask = upper_left if sample.kwargs["is_causal"] else None
        context, _ = attend(query, key, value, mask=mask, bias=sample.kwargs.get("attn_mask"))
        assert_close(context, op(query, key, value, **sample.kwargs))


# The scores: how each is made, how many features its keys have, and its formula for q and k

SCORES = {
    "dot product": (
        lambda **kwargs: dot_product_score,
        4,
        lambda score, q, k: q @ k / math.sqrt(4),
    ),
    "cosine": (
        lambda **kwargs: partial(cosine_score, scale=3.0),
        4,
        lambda score, q, k: 3.0 * (q @ k) / (q.norm() * k.norm()),
    ),
    "learned cosine": (
        partial(CosineScore, 3.0),
        4,
        lambda score, q, k: 3.0 * (q @ k) / (q.norm() * k.norm()),
    ),
    "additive": (
        partial(AdditiveScore, query_dim=4, key_dim=6, hidden_dim=8),
        6,
        lambda score, q, k: score.v.weight[0] @ torch.tanh(score.w.weight @ q + score.u.weight @ k),
    ),
}
every_score = pytest.mark.parametrize("make, key_dim, formula", SCORES.values(), ids=SCORES)


@every_score
def test_score_is_its_formula_for_each_query_and_key(device, make, key_dim, formula):
    score = make(device=device, dtype=torch.float64)
    query = random_inputs(device, 2, 1)[0]
    key = random_inputs(device, 1, 3, features=key_dim)[1]
    scores = score(query, key)
    assert scores.shape == (2, 3, 3, 5)
    for a, b, i, j in itertools.product(range(2), range(3), range(3), range(5)):
        assert_close(scores[a, b, i, j], formula(score, query[a, 0, i], key[0, b, j]))


@every_score
def test_attend_weights_the_values_by_any_score(device, make, key_dim, formula):
    score = make(device=device, dtype=torch.float64)
    query, _, value = random_inputs(device, 2)
    key, mask = random_inputs(device, 2, features=key_dim)[1], random_mask(device, 2, 3, 5)
    context, weights = attend(query, key, value, score=score, mask=mask)
    assert_close(weights, masked_softmax(score(query, key), mask))
    assert_close(context, weights @ value)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_cosine_of_a_zero_vector_is_zero(device, dtype):
    query, key, _ = random_inputs(device, dtype=dtype)
    assert not cosine_score(torch.zeros_like(query), key).any()
    assert not cosine_score(query, torch.zeros_like(key)).any()


def test_the_logarithm_of_the_cosines_scale_is_what_is_learned(device):
    score, (query, key, _) = CosineScore(device=device), random_inputs(device, dtype=torch.float32)
    scores = score(query, key)
    (gradient,) = torch.autograd.grad(scores.sum(), score.log_scale)
    assert_close(gradient, scores.sum())


# Properties, on examples that hypothesis looks for


@st.composite
def problems(draw):
    batch = draw(st.lists(st.integers(1, 2), max_size=2))
    queries, keys, features = (draw(st.integers(1, 4)) for _ in range(3))
    size, density = draw(st.sampled_from([0.0, 1.0, 1e6])), draw(st.sampled_from([0.0, 0.5, 1.0]))
    torch.manual_seed(draw(st.integers(0, 999)))
    query, key, value = random_inputs("cpu", *batch, queries=queries, keys=keys, features=features)
    mask = random_mask("cpu", *batch, queries, keys, density=density)
    return [x.detach() for x in (size * query, key, value, mask)]


@given(problem=problems())
def test_rows_sum_to_one_or_to_zero(device, problem):
    query, key, _, mask = (x.to(device) for x in problem)
    weights = masked_softmax(dot_product_score(query, key), mask)
    assert (weights >= 0).all()
    assert not weights[~mask].any()
    assert_close(weights.sum(dim=-1), mask.any(dim=-1).double())


@given(problem=problems(), constant=st.floats(-1e3, 1e3))
def test_a_constant_added_to_a_rows_scores_changes_nothing(device, problem, constant):
    query, key, _, mask = (x.to(device) for x in problem)
    scores = dot_product_score(query, key)
    shift = constant * torch.randn(scores.shape[:-1], dtype=scores.dtype).to(device)[..., None]
    assert_close(masked_softmax(scores + shift, mask), masked_softmax(scores, mask))


@given(problem=problems())
def test_minus_infinity_in_a_bias_acts_like_a_mask_and_together_with_one(device, problem):
    *inputs, mask = (x.to(device) for x in problem)
    inputs, other = [x.requires_grad_() for x in inputs], random_mask(device, *mask.shape)
    bias = torch.zeros_like(mask, dtype=torch.float64).masked_fill(~mask, -math.inf)
    for kwargs, both in [({"bias": bias}, mask), ({"bias": bias, "mask": other}, mask & other)]:
        assert_close(
            output_and_gradients(lambda *qkv, kwargs=kwargs: attend(*qkv, **kwargs)[0], inputs),
            output_and_gradients(by_attend, inputs, mask=both),
        )


@every_path
@given(problem=problems(), data=st.data())
def test_a_masked_key_has_no_influence_and_no_gradient(device, path, problem, data):
    *inputs, mask = (x.to(device) for x in problem)
    query, key, value = (x.requires_grad_() for x in inputs)
    hidden = data.draw(st.integers(0, key.shape[-2] - 1))
    mask[..., hidden] = False
    context, _, key_grad, value_grad = output_and_gradients(path, [query, key, value], mask=mask)
    assert not key_grad[..., hidden, :].any()
    assert not value_grad[..., hidden, :].any()
    other = torch.zeros_like(key)
    other[..., hidden, :] = 1e3
    assert_close(path(query, key + other, value + other, mask), context)


@every_path
@given(problem=problems(), data=st.data())
def test_the_order_of_keys_means_nothing_and_that_of_queries_passes_through(
    device, path, problem, data
):
    query, key, value, mask = (x.to(device) for x in problem)
    context = path(query, key, value, mask)
    p = data.draw(st.permutations(range(key.shape[-2])))
    assert_close(path(query, key[..., p, :], value[..., p, :], mask[..., p]), context)
    p = data.draw(st.permutations(range(query.shape[-2])))
    assert_close(path(query[..., p, :], key, value, mask[..., p, :]), context[..., p, :])


# Limits and empty cases


@every_path
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_a_query_that_may_see_nothing_gets_zeros_and_finite_gradients(device, path, dtype):
    query, key, value = random_inputs(device, 2, dtype=dtype)
    mask = torch.ones(2, 3, 5, dtype=torch.bool, device=device)
    mask[0, 1] = mask[1] = False
    with torch.autograd.set_detect_anomaly(True):  # no nan on the way either
        context, *grads = output_and_gradients(path, [query, key, value], mask=mask)
    assert not context[0, 1].any() and not context[1].any()
    assert context[0, 0].all()
    assert all(grad.isfinite().all() for grad in grads)
    assert not grads[0][0, 1].any()


@every_path
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_a_key_that_fits_far_better_than_all_others_gets_all_the_weight(device, path, dtype):
    query = 100 * torch.eye(4, device=device, dtype=dtype)
    value = random_inputs(device, keys=4, dtype=dtype)[2]
    assert torch.equal(path(query, query, value), value)


@every_path
@pytest.mark.parametrize("queries, keys", [(0, 5), (3, 0), (0, 0), (3, 5)])
@pytest.mark.parametrize("batch", [(), (0,), (2, 0), (2,)], ids=str)
def test_sequences_and_batches_may_be_empty(device, path, queries, keys, batch):
    inputs = random_inputs(device, *batch, queries=queries, keys=keys)
    mask = torch.ones(queries, keys, dtype=torch.bool, device=device)
    context, *grads = output_and_gradients(path, inputs, mask=mask)
    assert context.shape == (*batch, queries, 4)
    assert keys > 0 or not context.any()
    assert all(tensor.isfinite().all() for tensor in (context, *grads))


# Masks

N, Y = False, True


@pytest.mark.parametrize(
    "queries, keys, expected",
    [
        (3, None, [[Y, N, N], [Y, Y, N], [Y, Y, Y]]),
        (2, 4, [[Y, Y, Y, N], [Y, Y, Y, Y]]),
        (4, 2, [[N, N], [N, N], [Y, N], [Y, Y]]),
        (1, 3, [[Y, Y, Y]]),
        (2, 0, [[], []]),
        (0, 2, torch.empty(0, 2).tolist()),
    ],
)
def test_causal_mask(device, queries, keys, expected):
    mask = causal_mask(queries, keys, device=device)
    assert mask.shape == (queries, queries if keys is None else keys)
    assert (mask.dtype, mask.device.type) == (torch.bool, device.type)
    assert mask.tolist() == expected


@pytest.mark.parametrize(
    "lengths, keys, expected",
    [
        ([1, 3, 0], 3, [[[Y, N, N]], [[Y, Y, Y]], [[N, N, N]]]),
        ([0], 0, [[[]]]),
        ([], 2, []),
    ],
)
@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.uint8], ids=str)
def test_padding_mask(device, lengths, keys, expected, dtype):
    mask = padding_mask(torch.tensor(lengths, dtype=dtype, device=device), keys)
    assert mask.shape == (len(lengths), 1, keys)
    assert (mask.dtype, mask.device.type) == (torch.bool, device.type)
    assert mask.tolist() == expected


# Dropout


def test_dropout_acts_on_the_weights_that_are_used_not_on_those_returned(device):
    query, key, _ = random_inputs(device, queries=200, keys=50)
    value = torch.eye(50, dtype=torch.float64, device=device)
    used, weights = attend(query, key, value, dropout_p=0.25)
    kept = used != 0
    assert_close(weights, attend(query, key, value)[1])
    assert_close(used[kept], weights[kept] / 0.75)
    assert 0.73 < kept.double().mean() < 0.77


# Precision


@pytest.mark.parametrize("size", [1, 6])
@pytest.mark.parametrize("dtype", HALF, ids=str)
@pytest.mark.parametrize("path", [by_attend, by_attend_method])
def test_the_textbook_path_is_as_exact_as_pytorch_in_half_types(device, path, dtype, size):
    inputs = random_inputs(device, 4, queries=64, keys=64, features=64)
    inputs = [(size * x.detach()).to(dtype) for x in inputs]
    exact = F.scaled_dot_product_attention(*(x.double() for x in inputs))
    error = (path(*inputs) - exact).norm()
    assert error <= 1.01 * (F.scaled_dot_product_attention(*inputs) - exact).norm()


@every_path
def test_scores_do_not_overflow_where_their_features_do_not(device, path):
    query = torch.full((2, 64), 40.0, dtype=torch.float16, device=device)
    assert torch.equal(path(query, query, query), query)


@pytest.mark.parametrize("dtype", HALF, ids=str)
def test_weights_of_half_types_are_rounded_once(device, dtype):
    scores = (6 * torch.randn(3, 1000)).to(device, dtype)
    assert_close(masked_softmax(scores), scores.double().softmax(dim=-1).to(dtype))


@pytest.mark.parametrize("dtype", HALF, ids=str)
@pytest.mark.parametrize("score", [dot_product_score, cosine_score, CosineScore()])
def test_half_types_are_scored_in_float32(device, score, dtype):
    score = score.to(device) if isinstance(score, nn.Module) else score
    query, key, _ = random_inputs(device, features=64, dtype=dtype)
    assert score(query, key).dtype == torch.float32
    assert_close(score(query, key), score(query.float(), key.float()))


@pytest.mark.parametrize("scale", [0.5, 1.0, 20.0])
def test_cosine_score_starts_at_any_scale_above_0(device, scale):
    assert_close(CosineScore(scale, device=device).log_scale.exp().item(), scale)


def test_initial_values_are_those_of_linear():
    torch.manual_seed(1)
    cross, additive = CrossAttention(4, 6), AdditiveScore(4, 6, 8)
    torch.manual_seed(1)
    linears = [nn.Linear(4, 4), nn.Linear(6, 4), nn.Linear(6, 4)]
    linears += [nn.Linear(*sizes, bias=False) for sizes in [(4, 8), (6, 8), (8, 1)]]
    for linear, layer in zip(linears, [*cross.children(), *additive.children()], strict=True):
        assert_close(layer.state_dict(), linear.state_dict(), rtol=0, atol=0)


# Derivatives


@every_score
@pytest.mark.parametrize("check", [gradcheck, gradgradcheck])
def test_derivatives_of_attend(device, make, key_dim, formula, check):
    score = make(device=device, dtype=torch.float64)
    query, _, value = random_inputs(device)
    key, bias = random_inputs(device, features=key_dim)[1], random_inputs(device, features=5)[0]
    mask = causal_mask(3, 5, device=device)
    mask[0] = False
    assert check(
        lambda query, key, value, bias: attend(
            query, key, value, score=score, mask=mask, bias=bias
        ),
        [query, key, value, bias],
    )


# The fused kernels have no second derivative; PyTorch's own sum and softmax do.
@pytest.mark.parametrize(
    "check, kernel", [(gradcheck, nullcontext), (gradgradcheck, BACKENDS["math"])]
)
def test_derivatives_of_forward(device, check, kernel):
    mask = causal_mask(3, 5, device=device)
    with kernel():
        assert check(lambda *inputs: by_forward(*inputs, mask), random_inputs(device))


# Errors: what is said, and the call that has it said; t(2, 3) is a tensor of ones of that shape


def look_up(t, *, query=(2, 4), key=(3, 4), value=(3, 4), **kwargs):
    return attend(t(*query), t(*key), t(*value), **kwargs)


def cross(t, *, x=(2, 4), context=(3, 6), **kwargs):
    return CrossAttention(4, 6, device=t(0).device)(t(*x), t(*context), **kwargs)


VALUE_ERRORS = {
    "query has 4 features but key has 5: a dot product needs equally many; project one of them": (
        lambda t: dot_product_score(t(1, 2, 4), t(1, 3, 5))
    ),
    "query has 4 features but key has 6": lambda t: cosine_score(t(2, 4), t(3, 6)),
    "init_scale=0 must be above 0": lambda t: CosineScore(0),
    "init_scale=-1.5 must be above 0": lambda t: CosineScore(-1.5),
    "init_scale=nan must be above 0": lambda t: CosineScore(math.nan),
    "query has 6 features, but the layer expects 4": lambda t: AdditiveScore(4, 6, 8)(
        t(2, 6), t(2, 6)
    ),
    "key has 4 features, but the layer expects 6": lambda t: AdditiveScore(4, 6, 8)(
        t(2, 4), t(2, 4)
    ),
    "mask of shape (3, 2) does not": lambda t: masked_softmax(t(2, 3), t(3, 2) > 0),
    "to the scores' shape (2, 3)": lambda t: look_up(t, mask=t(1, 2, 3) > 0),
    "bias of shape (2, 4) does not": lambda t: look_up(t, bias=t(2, 4)),
    "query has 1 axes, but needs at least 2": lambda t: look_up(t, query=(4,)),
    "value has 1 axes, but needs at least 2": lambda t: look_up(t, value=(3,)),
    "there are 3 keys but 5 values": lambda t: look_up(t, value=(5, 4)),
    "{'query': (2,), 'key': (3,), 'value': ()}": lambda t: look_up(
        t, query=(2, 2, 4), key=(3, 3, 4)
    ),
    "x has 6 features, but the layer expects 4": lambda t: cross(t, x=(2, 6)),
    "context has 4 features, but the layer expects 6": lambda t: cross(t, context=(3, 4)),
    "context has 1 axes, but needs at least 2": lambda t: cross(t, context=(6,)),
    "{'x': (2,), 'context': (3,)}": lambda t: cross(t, x=(2, 2, 4), context=(3, 3, 6)),
    "to the scores' shape (5, 2, 3)": lambda t: cross(t, x=(5, 2, 4), mask=t(2, 4) > 0),
    "lengths run from -1 to -1, but must lie": lambda t: padding_mask(torch.tensor([-1, -1]), 3),
    "between 0 and keys=3": lambda t: padding_mask(torch.tensor([4, 4]), 3),
    "lengths has shape (2, 1), but needs one axis": lambda t: padding_mask(t(2, 1).int(), 3),
    "lengths run from 4 to 4": lambda t: padding_mask(torch.tensor([4]), 3),
}
TYPE_ERRORS = {
    "mask has dtype torch.float32, not torch.bool (True: may attend); terms to be added to the "
    "scores are called bias": lambda t: masked_softmax(t(2, 3), t(2, 3)),
    "mask has dtype torch.int64, not": lambda t: look_up(t, mask=t(2, 3).long()),
    "mask has dtype torch.uint8, not": lambda t: cross(t, mask=t(2, 3).byte()),
    "bias has dtype torch.bool, but is added to the scores; what forbids or permits is called "
    "mask": lambda t: look_up(t, bias=t(2, 3) > 0),
    "query has dtype torch.int64, but a floating": lambda t: look_up(
        lambda *shape: t(*shape).long()
    ),
    "value has dtype torch.float64 but query has torch.float32": lambda t: attend(
        t(2, 4), t(3, 4), t(3, 4).double()
    ),
    "x has dtype torch.complex64, but a floating": lambda t: CrossAttention(4)(
        t(2, 4) * 1j, t(3, 4)
    ),
    "context has dtype torch.float16 but x has torch.float32": lambda t: CrossAttention(4).attend(
        t(2, 4), t(3, 4).half()
    ),
    "lengths has type list, but must be a torch.Tensor": lambda t: padding_mask([1, 2], 3),
    "lengths has dtype torch.float32, not": lambda t: padding_mask(t(2), 3),
    "lengths has dtype torch.bool, not": lambda t: padding_mask(t(2) > 0, 3),
    "lengths has dtype torch.complex64, not": lambda t: padding_mask(t(2) * 1j, 3),
}


@pytest.mark.parametrize(
    "error, message, call",
    [(ValueError, *case) for case in VALUE_ERRORS.items()]
    + [(TypeError, *case) for case in TYPE_ERRORS.items()],
    ids=[*VALUE_ERRORS, *TYPE_ERRORS],
)
def test_errors_say_what_is_wrong(device, error, message, call):
    with pytest.raises(error, match=re.escape(message)):
        call(partial(torch.ones, device=device))


# Under autocast, in memory, and for tracers


def cosines(query, key):
    return cosine_score(query, key, scale=10.0)


EXACT = {
    "attend": (lambda q, k, v: attend(q, k, v)[0], F.scaled_dot_product_attention),
    "any score": (lambda q, k, v: attend(q, k, v, score=cosines)[0], None),
    "dot product": (lambda q, k, v: dot_product_score(q, k), None),
    "cosine": (lambda q, k, v: cosines(q, k), None),
}


@pytest.mark.parametrize("dtype", HALF, ids=str)
@pytest.mark.parametrize("name", EXACT)
def test_autocast_costs_float32_no_digit(device, name, dtype):
    run, pytorchs = EXACT[name]
    inputs = [3 * torch.randn(2, 9, 64, device=device) for _ in range(3)]
    expected = run(*(x.double() for x in inputs))
    with torch.autocast(device.type, dtype=dtype):
        error = (run(*inputs) - expected).abs().max()
    without = (pytorchs or run)(*inputs) - expected
    assert error <= max(2 * without.abs().max(), 1e-5)


def test_autocast_to_float16_does_not_overflow(device):
    query, key, value = (torch.full((2, 9, 64), 100.0, device=device) for _ in range(3))
    with torch.autocast(device.type, dtype=torch.float16):
        context, weights = attend(query, key, value)
        assert_close(dot_product_score(query, key), torch.full((2, 9, 9), 8e4, device=device))
        large = attend(*(x.half() for x in (query, key, value)))
    assert_close([context, weights], [value, torch.full_like(weights, 1 / 9)])
    assert all(result.isfinite().all() for result in large)


@pytest.mark.parametrize("masked", [False, True], ids=["no mask", "padding"])
@pytest.mark.parametrize("batch", [(), (2,), (2, 3)], ids=str)
@pytest.mark.parametrize("kind", ["cross", "self", "causal"])
def test_memory_grows_as_the_length_does(batch, kind, masked):
    dim = 4
    cross = (
        CrossAttention(dim) if kind == "cross" else SelfAttention(dim, is_causal=kind == "causal")
    )
    causal_and_masked = kind == "causal" and masked  # the two together are a mask of i times j

    def peak(length):
        x = torch.randn(*batch, length, dim, requires_grad=True)
        mask = torch.arange(length) < length - 3 if masked else None
        inputs = (x, x, mask) if kind == "cross" else (x, mask)
        return peak_bytes(lambda: cross(*inputs).sum().backward())

    assert (peak(1024) / peak(256) > 6) == causal_and_masked
    assert (peak(1024) / peak(256) < 5) != causal_and_masked


def test_padding_masks_are_made_under_every_tracer(device):
    lengths = torch.tensor([[1, 3], [0, 2]], device=device)
    expected = torch.stack([padding_mask(row, 3) for row in lengths])
    assert torch.equal(torch.vmap(lambda row: padding_mask(row, 3))(lengths), expected)
    made = make_fx(lambda row: padding_mask(row, 3))(lengths[0])
    assert torch.equal(made(lengths[1]), expected[1])
    assert padding_mask(lengths[0].to("meta"), 3).is_meta
    row = lengths[0]
    with FakeTensorMode() as mode:
        assert padding_mask(mode.from_tensor(row), 3).shape == (2, 1, 3)
    with torch.device("meta"):
        assert torch.equal(padding_mask(lengths[0], 3), expected[0])


def by_both_methods(module):
    return {"forward": module, "attend": lambda *inputs: module.attend(*inputs)[0]}


class TestCrossAttentionSettings(MaskContract, SequenceCompilerContract):
    axes = ({0: DIM, 1: DIM}, {0: DIM, 1: DIM}, {0: DIM, 2: DIM})
    ask = staticmethod(by_both_methods)
    looked_at = (1,)

    def make(self, **kwargs):
        return CrossAttention(4, 6, head_dim=8, **kwargs)

    def inputs(self, device, batch=2, length=5, dtype=torch.float32):
        x, context = torch.randn(batch, length - 2, 4), torch.randn(batch, length, 6)
        mask = torch.rand(batch, 1, length) > 0.4
        mask[:1] = False  # a sequence that may see nothing
        mask[1:, :, :2] = True  # and one with a choice: to a single key every query leads
        return x.to(device, dtype), context.to(device, dtype), mask.to(device)


class Attend(nn.Module):
    """attend as a module, with the one score that has a parameter."""

    def __init__(self, **kwargs):
        super().__init__()
        self.score = CosineScore(**kwargs)

    def forward(self, query, key, value, mask):
        return attend(query, key, value, score=self.score, mask=mask)[0]


class TestAttendSettings(MaskContract, SequenceCompilerContract):
    test_the_layers_inside_are_called = None  # there are none
    axes = ({0: DIM, 1: DIM}, {0: DIM, 1: DIM}, {0: DIM, 1: DIM}, {0: DIM, 2: DIM})
    looked_at = (1, 2)
    autocast_is_half = False

    def make(self, **kwargs):
        return Attend(**kwargs)

    def ask(self, module):
        return {"forward": module, "attend": module}

    def inputs(self, device, batch=2, length=5, dtype=torch.float32):
        query = torch.randn(batch, length - 2, 4)
        key, value = torch.randn(batch, length, 4), torch.randn(batch, length, 4)
        mask = torch.rand(batch, 1, length) > 0.4
        mask[:1] = False  # a sequence that may see nothing
        return *(x.to(device, dtype) for x in (query, key, value)), mask.to(device)


class TestAdditiveScoreSettings(LayersContract, SequenceCompilerContract):
    axes = ({0: DIM, 1: DIM}, {0: DIM, 1: DIM})
    half_tolerance = 8.0

    def make(self, **kwargs):
        return AdditiveScore(4, 6, 8, **kwargs)

    def inputs(self, device, batch=2, length=5, dtype=torch.float32):
        query, key = torch.randn(batch, length - 2, 4), torch.randn(batch, length, 6)
        return query.to(device, dtype), key.to(device, dtype)
