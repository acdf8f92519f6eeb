"""Self-attention is cross-attention with itself, and torch.nn's attention with one head."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sequence_contract import DIM, MaskContract, SequenceCompilerContract
from torch import nn
from torch.autograd import gradcheck, gradgradcheck
from torch.nn.attention.flex_attention import flex_attention
from torch.testing import assert_close

from attnbook import CrossAttention, SelfAttention, causal_mask, padding_mask

F64 = torch.float64
PATHS = [lambda module, *args: module(*args), lambda module, *args: module.attend(*args)[0]]
both_paths = pytest.mark.parametrize("path", PATHS, ids=["forward", "attend"])
causal_or_not = pytest.mark.parametrize("is_causal", [False, True], ids=["all", "causal"])


def by_loop(module, x, mask=None):
    """Return context and weights of one sequence (n, dim), one query and one key at a time."""
    query, key, value = (
        x @ p.weight.T + p.bias for p in (module.q_proj, module.k_proj, module.v_proj)
    )
    length, head_dim = query.shape
    context, weights = torch.zeros_like(value), x.new_zeros(length, length)
    for i in range(length):
        allowed = [
            j
            for j in range(length)
            if (mask is None or mask[i, j]) and (j <= i or not module.is_causal)
        ]
        exps = [math.exp(float(query[i] @ key[j]) / math.sqrt(head_dim)) for j in allowed]
        for j, e in zip(allowed, exps, strict=True):
            weights[i, j] = e / sum(exps)
            context[i] += weights[i, j] * value[j]
    return context, weights


# What it computes


@causal_or_not
@pytest.mark.parametrize("masked", [False, True], ids=["no mask", "mask"])
def test_equals_a_loop(device, is_causal, masked):
    module = SelfAttention(6, head_dim=4, is_causal=is_causal, dtype=F64, device=device)
    x = torch.randn(5, 6, dtype=F64, device=device)
    mask = torch.rand(5, 5, device=device) > 0.4 if masked else None
    with torch.no_grad():
        expected, expected_weights = by_loop(module, x, mask)
    context, weights = module.attend(x, mask)
    assert_close(context, expected)
    assert_close(weights, expected_weights)
    assert_close(module(x, mask), expected)


@causal_or_not
def test_equals_torch_with_one_head(device, is_causal):
    ours = SelfAttention(8, is_causal=is_causal, dtype=F64, device=device)
    theirs = nn.MultiheadAttention(8, 1, batch_first=True, dtype=F64, device=device)
    projections = (ours.q_proj, ours.k_proj, ours.v_proj)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([p.weight for p in projections]))
        theirs.in_proj_bias.copy_(torch.cat([p.bias for p in projections]))
        theirs.out_proj.weight.copy_(torch.eye(8))
        theirs.out_proj.bias.zero_()
    x = torch.randn(2, 5, 8, dtype=F64, device=device)
    forbidden = ~torch.ones(5, 5, dtype=torch.bool, device=device).tril() if is_causal else None
    expected, expected_weights = theirs(x, x, x, attn_mask=forbidden)
    context, weights = ours.attend(x)
    assert_close(context, expected)
    assert_close(weights, expected_weights)
    assert_close(ours(x), expected)


@both_paths
@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@torch.no_grad()
def test_causal_is_flex_attention_with_the_future_at_minus_infinity(device, path):
    module = SelfAttention(8, is_causal=True, dtype=F64, device=device)
    x = torch.randn(2, 5, 8, dtype=F64, device=device)
    query, key, value = (projection(x).unsqueeze(1) for projection in module.children())

    def no_future(score, b, h, i, j):
        return torch.where(i >= j, score, -math.inf)

    expected = flex_attention(query, key, value, score_mod=no_future).squeeze(1)
    assert_close(path(module, x), expected)


@both_paths
def test_is_cross_attention_with_context_x(device, path):
    ours = SelfAttention(6, head_dim=4, dtype=F64, device=device)
    cross = CrossAttention(6, head_dim=4, dtype=F64, device=device)
    cross.load_state_dict(ours.state_dict())
    x = torch.randn(2, 5, 6, dtype=F64, device=device)
    mask = padding_mask(torch.tensor([3, 5], device=device), 5)
    assert_close(path(ours, x, mask), path(cross, x, x, mask), rtol=0, atol=0)


@pytest.mark.parametrize("name", ["q_proj", "k_proj", "v_proj"])
def test_the_three_projections_are_three(name):
    module, x = SelfAttention(4), torch.randn(3, 4)
    before = {n: p.clone() for n, p in module.state_dict().items()}
    result = module(x)
    with torch.no_grad():
        getattr(module, name).weight.mul_(2)
    assert not torch.allclose(module(x), result)
    changed = [n for n, p in module.state_dict().items() if not torch.equal(p, before[n])]
    assert changed == [f"{name}.weight"]


def test_initial_values_are_those_of_linear():
    torch.manual_seed(1)
    module = SelfAttention(6, head_dim=4)
    torch.manual_seed(1)
    for name, projection in module.named_children():
        linear = nn.Linear(6, 4)
        assert torch.equal(projection.weight, linear.weight), name
        assert torch.equal(projection.bias, linear.bias), name
    without = SelfAttention(6, bias=False)
    assert list(without.state_dict()) == ["q_proj.weight", "k_proj.weight", "v_proj.weight"]
    assert repr(module).startswith("SelfAttention(\n  is_causal=False")


# Its properties


@both_paths
@given(permutation=st.permutations(range(5)))
def test_is_equivariant_to_permutations(device, path, permutation):
    module = SelfAttention(4, dtype=F64, device=device)
    x = torch.randn(2, 5, 4, dtype=F64, device=device)
    assert_close(path(module, x[:, permutation]), path(module, x)[:, permutation])


@both_paths
def test_causal_is_not_equivariant_to_permutations(path):
    module, x = SelfAttention(4, is_causal=True, dtype=F64), torch.randn(2, 5, 4, dtype=F64)
    assert (path(module, x.flip(1)) - path(module, x).flip(1)).abs().max() > 0.01


@both_paths
def test_causal_sees_no_later_position(device, path):
    module = SelfAttention(4, is_causal=True, device=device)
    x = torch.randn(5, 4, device=device)
    jacobian = (
        torch.autograd.functional.jacobian(lambda x: path(module, x).sum(-1), x).abs().sum(-1)
    )
    assert torch.equal(jacobian > 0, causal_mask(5, device=device))


@both_paths
@pytest.mark.parametrize("shape", [(5, 5), (1, 5), (5, 1), (1, 1), (2, 5, 5), (2, 1, 5), (5,)])
def test_causal_combines_with_a_mask_of_any_broadcast_shape(device, path, shape):
    causal = SelfAttention(4, is_causal=True, dtype=F64, device=device)
    plain = SelfAttention(4, dtype=F64, device=device)
    plain.load_state_dict(causal.state_dict())
    x = torch.randn(2, 5, 4, dtype=F64, device=device)
    mask = torch.rand(shape, device=device) > 0.5
    both = mask & causal_mask(5, device=device)
    assert_close(path(causal, x, mask), path(plain, x, both))


@both_paths
@causal_or_not
@pytest.mark.parametrize("dtype", [F64, torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_a_row_without_a_permitted_key_is_zero_with_finite_gradients(
    device, path, is_causal, dtype
):
    module = SelfAttention(8, is_causal=is_causal, dtype=dtype, device=device)
    x = torch.randn(2, 4, 8, dtype=dtype, device=device, requires_grad=True)
    mask = torch.ones(4, 4, dtype=torch.bool, device=device)
    mask[0] = False
    out = path(module, x, mask)
    assert torch.equal(out[:, 0], torch.zeros_like(out[:, 0]))
    out.square().sum().backward()
    for tensor in (x, *module.parameters()):
        assert tensor.grad.isfinite().all()


@both_paths
@causal_or_not
@pytest.mark.parametrize("shape", [(5, 4), (1, 4), (0, 4), (0, 5, 4), (2, 3, 5, 4)], ids=str)
def test_any_batch_axes_and_empty_sequences(device, path, is_causal, shape):
    module = SelfAttention(4, head_dim=6, is_causal=is_causal, dtype=F64, device=device)
    x = torch.randn(shape, dtype=F64, device=device)
    out = path(module, x)
    assert out.shape == (*shape[:-1], 6)
    if x.ndim == 4:
        assert_close(out[1, 2], path(module, x[1, 2]))


# As torch.nn behaves


@both_paths
@causal_or_not
def test_gradcheck(path, is_causal):
    module = SelfAttention(3, head_dim=2, is_causal=is_causal, dtype=F64)
    x = torch.randn(2, 4, 3, dtype=F64, requires_grad=True)
    mask = padding_mask(torch.tensor([4, 2]), 4)
    assert gradcheck(lambda x, *_: path(module, x, mask), (x, *module.parameters()))
    assert gradgradcheck(lambda x: module.attend(x)[0], x)


# What it refuses


@both_paths
@pytest.mark.parametrize(
    ("x", "mask", "error", "message"),
    [
        (torch.ones(2, 5, 6), None, ValueError, "x has 6 features, but the layer expects 4"),
        (torch.ones(4), None, ValueError, "x has 1 axes, but needs at least 2"),
        (torch.ones(5, 4, dtype=torch.int64), None, TypeError, "x has dtype torch.int64"),
        (torch.ones(2, 5, 4), torch.zeros(5, 5), TypeError, "mask has dtype torch.float32"),
        (
            torch.ones(2, 5, 4),
            torch.ones(5, 3, dtype=torch.bool),
            ValueError,
            r"mask of shape \(5, 3\) does not broadcast to the scores' shape \(2, 5, 5\)",
        ),
        (
            torch.ones(2, 5, 4),
            torch.ones(1, 2, 5, 5, dtype=torch.bool),
            ValueError,
            r"mask of shape \(1, 2, 5, 5\) does not broadcast to the scores' shape \(2, 5, 5\)",
        ),
    ],
    ids=["features", "axes", "dtype", "float mask", "mask keys", "mask axes"],
)
@causal_or_not
def test_bad_input(path, is_causal, x, mask, error, message):
    with pytest.raises(error, match=message):
        path(SelfAttention(4, is_causal=is_causal), x, mask)


class TestSettings(MaskContract, SequenceCompilerContract):
    axes = ({0: DIM, 1: DIM}, {0: DIM, 2: DIM})
    looked_at = (0,)

    def make(self, **kwargs):
        return SelfAttention(4, head_dim=8, is_causal=True, **kwargs)

    def inputs(self, device, batch=2, length=5, dtype=torch.float32):
        x, mask = torch.randn(batch, length, 4), torch.rand(batch, 1, length) > 0.4
        return x.to(device, dtype), mask.to(device)

    def ask(self, module):
        return {
            "forward": module,
            "attend": lambda *inputs: module.attend(*inputs)[0],
            "causal by the kernel": lambda x, mask: module(x),
        }
