"""positional_encoding.py: against formulas and other libraries, by what defines each encoding."""

from __future__ import annotations

import copy
import itertools
import math
import re
import warnings
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from compilers import inductor, onnx_answer
from einops import rearrange
from hypothesis import given
from hypothesis import strategies as st
from sequence_contract import LayersContract, SequenceCompilerContract, SequenceContract
from torch import nn
from torch.autograd import gradcheck, gradgradcheck
from torch.nn.attention.flex_attention import flex_attention
from torch.testing import assert_close

from attnbook import (
    FloaterEncoding,
    KeyValueCache,
    LearnedEncoding,
    MultiHeadAttention,
    RelativeBias,
    RotaryEncoding,
    SinusoidalEncoding,
    alibi_bias,
    alibi_slopes,
    attend,
    causal_mask,
    relative_buckets,
    rotary_angles,
    rotate,
    sinusoidal_encoding,
)

F64 = torch.float64
HALF = [torch.float16, torch.bfloat16]
FLOATS = [F64, torch.float32, *HALF]


def randn(device, *shape, dtype=F64):
    return torch.randn(*shape, dtype=F64).to(device, dtype)


def positions(device, n, start=0):
    return torch.arange(start, start + n, dtype=F64, device=device)


def turn(angle):
    """Return the matrix that turns (x, y) by `angle`, counter-clockwise."""
    return torch.tensor(
        [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]], dtype=F64
    )


# Sinusoidal


@pytest.mark.parametrize("base", [10_000.0, 100.0, 0.5])
@pytest.mark.parametrize("length, dim", [(0, 4), (1, 2), (7, 6), (40, 10)])
def test_sinusoidal_is_its_formula(device, length, dim, base):
    encoding = sinusoidal_encoding(length, dim, base=base, device=device, dtype=F64)
    expected = torch.zeros(length, dim, dtype=F64)
    for p, i in itertools.product(range(length), range(dim // 2)):
        expected[p, 2 * i] = math.sin(p / base ** (2 * i / dim))
        expected[p, 2 * i + 1] = math.cos(p / base ** (2 * i / dim))
    assert_close(encoding, expected.to(device))


@given(p=st.integers(0, 200), k=st.integers(0, 200))
def test_a_step_turns_each_pair_of_the_sinusoid_by_the_same_angle_everywhere(device, p, k):
    encoding = sinusoidal_encoding(401, 8, device=device, dtype=F64).reshape(401, 4, 2).cpu()
    for i in range(4):
        # (sin, cos) goes round the other way than (cos, sin).
        step = turn(-k / 10_000 ** (2 * i / 8))
        assert_close(encoding[p + k, i], step @ encoding[p, i], rtol=0, atol=1e-12)


def test_the_longest_wavelength_falls_short_of_the_base():
    # 2 pi 9646.6, not the 2 pi 10000 of the paper's text: the exponent ends at 510 / 512.
    frequency = rotary_angles(torch.ones(1, dtype=F64), 512)[0, -1]
    assert_close(1 / frequency, torch.tensor(9646.6, dtype=F64), rtol=1e-5, atol=0)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_sinusoidal_is_added_in_the_type_of_x(device, dtype):
    x = randn(device, 2, 300, 6, dtype=dtype)
    exact = sinusoidal_encoding(300, 6, device=device, dtype=F64)
    out = SinusoidalEncoding(6)(x)
    assert out.dtype == dtype
    assert_close(sinusoidal_encoding(300, 6, dtype=dtype, device=device), exact.to(dtype))
    assert_close(out, x + exact.to(dtype))
    assert sinusoidal_encoding(3, 4).dtype == torch.float32


# Learned


def test_learned_adds_the_first_rows_of_its_table(device):
    module = LearnedEncoding(5, 4, device=device, dtype=F64)
    x = randn(device, 2, 3, 4)
    out = module(x)
    for b, n in itertools.product(range(2), range(3)):
        assert_close(out[b, n], x[b, n] + module.table(torch.tensor(n, device=device)))
    out.sum().backward()
    assert_close(module.table.weight.grad.sum(-1).tolist(), [8.0, 8.0, 8.0, 0.0, 0.0])


def test_learned_starts_as_an_embedding():
    torch.manual_seed(1)
    module = LearnedEncoding(300, 64)
    torch.manual_seed(1)
    assert torch.equal(module.table.weight, nn.Embedding(300, 64).weight)
    assert_close(module.table.weight.std().item(), 1.0, rtol=0.02, atol=0)


def test_learned_reads_up_to_its_last_row(device):
    assert LearnedEncoding(5, 4, device=device)(torch.ones(5, 4, device=device)).shape == (5, 4)


# Rotary


@pytest.mark.parametrize("base", [10_000.0, 100.0])
def test_rotary_turns_neighbouring_features_by_position_times_frequency(device, base):
    x = randn(device, 2, 3, 5, 6)
    out = rotate(x, rotary_angles(positions(device, 5), 6, base))
    for b, h, n, i in itertools.product(range(2), range(3), range(5), range(3)):
        pair = slice(2 * i, 2 * i + 2)
        expected = turn(n * base ** (-2 * i / 6)) @ x[b, h, n, pair].cpu()
        assert_close(out[b, h, n, pair].cpu(), expected)


def test_rotary_is_that_of_rotary_embedding_torch(device):
    rotary_embedding_torch = pytest.importorskip("rotary_embedding_torch")
    theirs = rotary_embedding_torch.RotaryEmbedding(8, cache_if_possible=False).to(device)
    x = randn(device, 2, 3, 50, 8)
    assert_close(RotaryEncoding(8)(x), theirs.rotate_queries_or_keys(x), rtol=0, atol=1e-5)


LONGER = [{"interpolation": 4.0}, {"ntk": 4.0}, {"interpolation": 1.5, "ntk": 2.5}]


@pytest.mark.parametrize("longer", LONGER, ids=str)
def test_rotary_for_longer_sequences_is_that_of_rotary_embedding_torch(device, longer):
    rotary_embedding_torch = pytest.importorskip("rotary_embedding_torch")
    theirs = rotary_embedding_torch.RotaryEmbedding(
        8,
        interpolate_factor=longer.get("interpolation", 1.0),
        theta_rescale_factor=longer.get("ntk", 1.0),
        cache_if_possible=False,
    ).to(device)
    x = randn(device, 2, 3, 50, 8)
    expected = theirs.rotate_queries_or_keys(x)
    assert_close(RotaryEncoding(8, **longer)(x), expected, rtol=0, atol=1e-5)
    assert not torch.allclose(RotaryEncoding(8)(x), expected, atol=0.1)


@pytest.mark.parametrize("factor", [8.0, 0.5])
@pytest.mark.parametrize("base", [10_000.0, 100.0])
def test_angles_for_longer_sequences_are_their_formulas(device, factor, base):
    place = positions(device, 40, start=3)
    interpolated = rotary_angles(place, 10, base, interpolation=factor)
    aware = rotary_angles(place, 10, base, ntk=factor)
    for n, pair in itertools.product(range(40), range(5)):
        slowed = (n + 3) / factor / base ** (2 * pair / 10)
        assert_close(interpolated[n, pair].item(), slowed, rtol=1e-12, atol=0)
        slowed = (n + 3) / (base * factor ** (10 / 8)) ** (2 * pair / 10)
        assert_close(aware[n, pair].item(), slowed, rtol=1e-12, atol=0)


def test_the_base_slows_the_last_pair_as_interpolation_does_and_the_first_not(device):
    place = positions(device, 40)
    plain = rotary_angles(place, 10)
    interpolated = rotary_angles(place, 10, interpolation=8)
    aware = rotary_angles(place, 10, ntk=8)
    assert_close(aware[:, -1], interpolated[:, -1])
    assert torch.equal(aware[:, 0], plain[:, 0])
    slower = (plain / aware)[1:].mean(dim=0)
    assert_close(slower, 8.0 ** (torch.arange(5, device=device).double() / 4))


@given(factor=st.integers(1, 9))
def test_every_s_th_place_of_an_interpolated_sequence_is_one_that_was_trained(device, factor):
    trained = rotary_angles(positions(device, 10), 8)
    longer = rotary_angles(positions(device, 10 * factor), 8, interpolation=factor)
    assert_close(longer[::factor], trained)
    assert (longer.max(dim=0).values <= trained.max(dim=0).values + trained[1]).all()


def test_a_factor_of_1_changes_no_digit_of_the_angles(device):
    place = torch.arange(4096, device=device)
    for dim in (2, 8):
        assert torch.equal(
            rotary_angles(place, dim, interpolation=1, ntk=1.0), rotary_angles(place, dim)
        )


def test_factors_may_be_set_on_a_trained_model(device):
    module, x = RotaryEncoding(8), randn(device, 5, 8)
    module.interpolation, module.ntk = 4, 2
    assert torch.equal(module(x), RotaryEncoding(8, interpolation=4, ntk=2)(x))


def test_rotary_is_that_of_x_transformers(device):
    x_transformers = pytest.importorskip("x_transformers.x_transformers")
    theirs = x_transformers.RotaryEmbedding(8, base=500).to(device)
    x = randn(device, 2, 3, 50, 8)
    expected = x_transformers.apply_rotary_pos_emb(x, theirs.forward_from_seq_len(50)[0])
    assert_close(RotaryEncoding(8, base=500.0)(x), expected, rtol=0, atol=1e-5)


def test_rotary_is_that_of_timm(device, torchvision):
    layers = pytest.importorskip("timm.layers")
    angles, x = rotary_angles(positions(device, 50), 8), randn(device, 2, 3, 50, 8)
    sin, cos = (f(angles).repeat_interleave(2, dim=-1) for f in (torch.sin, torch.cos))
    assert_close(rotate(x, angles), layers.apply_rot_embed(x, sin, cos))


def test_features_may_lie_anywhere_in_memory(device):
    x, angles = randn(device, 4, 5, 6), rotary_angles(positions(device, 5), 6)
    layouts = {
        "at an odd place": torch.cat([x.new_zeros(1), x.flatten()])[1:].view(4, 5, 6),
        "with others between": torch.stack([x, -x], dim=-1)[..., 0],
        "transposed": x.mT.contiguous().mT,
    }
    for name, same in layouts.items():
        assert torch.equal(rotate(same, angles), rotate(x, angles)), name
        assert torch.equal(same, x), name  # and were not turned themselves


def test_sorted_into_even_and_odd_features_it_is_the_half_layout(device):
    x, angles = randn(device, 4, 5, 8), rotary_angles(positions(device, 5), 8)
    order = [0, 2, 4, 6, 1, 3, 5, 7]
    assert_close(rotate_half(x[..., order], angles), rotate(x, angles)[..., order])
    assert not torch.allclose(rotate_half(x, angles), rotate(x, angles))


def rotate_half(x, angles):
    """Rotate in the half layout, feature i with feature i + d / 2, as GPT-NeoX and Llama do."""
    cos, sin = (torch.cat([f(angles)] * 2, dim=-1) for f in (torch.cos, torch.sin))
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-second, first], dim=-1) * sin


class HalfLayout(nn.Module):
    def forward(self, x, positions=None):
        positions = torch.arange(x.shape[-2], device=x.device) if positions is None else positions
        return rotate_half(x, rotary_angles(positions.double(), x.shape[-1]))


@pytest.mark.parametrize("kv_heads", [4, 2, 1])
@pytest.mark.parametrize("bias", [True, False])
def test_the_recipe_moves_a_layer_to_the_half_layout_and_back(device, kv_heads, bias):
    """The recipe in the docstring of `rotate`, with biases that are not zero."""
    options = {"num_kv_heads": kv_heads, "bias": bias, "device": device, "dtype": F64}
    ours = MultiHeadAttention(32, 4, rotary=RotaryEncoding(8), **options)
    theirs = MultiHeadAttention(32, 4, rotary=HalfLayout(), **options)
    theirs.load_state_dict(shaken(ours).state_dict())
    x = randn(device, 2, 5, 32)
    assert not torch.allclose(theirs(x), ours(x))

    def reorder(pattern):
        for projection, heads in ((theirs.q_proj, 4), (theirs.k_proj, kv_heads)):
            for parameter in projection.parameters():
                parameter.data = rearrange(parameter.data, pattern, heads=heads, two=2)

    reorder("(heads pair two) ... -> (heads two pair) ...")
    assert_close(theirs(x), ours(x))
    reorder("(heads two pair) ... -> (heads pair two) ...")
    assert_close(theirs.state_dict(), ours.state_dict())


@given(shift=st.integers(-100, 100), seed=st.integers(0, 99))
def test_rotary_scores_depend_on_the_distance_alone(device, shift, seed):
    torch.manual_seed(seed)
    query, key = randn(device, 1, 8).expand(10, 8), randn(device, 1, 8).expand(10, 8)
    here = rotary_angles(positions(device, 10), 8)
    there = rotary_angles(positions(device, 10, start=shift), 8)
    scores = rotate(query, here) @ rotate(key, here).mT
    assert_close(rotate(query, there) @ rotate(key, there).mT, scores, rtol=0, atol=1e-11)
    # One query and one key everywhere: the scores are constant along each diagonal (Toeplitz).
    assert_close(scores[1:, 1:], scores[:-1, :-1], rtol=0, atol=1e-12)


@given(seed=st.integers(0, 99))
def test_rotary_keeps_norms_and_leaves_position_0_alone(device, seed):
    torch.manual_seed(seed)
    x = randn(device, 2, 40, 6)
    out = RotaryEncoding(6)(x)
    assert_close(out.norm(dim=-1), x.norm(dim=-1))
    assert torch.equal(out[:, 0], x[:, 0])


def test_rotations_add_up_and_can_be_undone(device):
    x, a, b = randn(device, 5, 6), randn(device, 5, 3), randn(device, 5, 3)
    assert_close(rotate(rotate(x, a), b), rotate(x, a + b))
    assert_close(rotate(rotate(x, a), -a), x)


def test_positions_may_start_anywhere_and_differ_by_sequence(device):
    rotary, x = RotaryEncoding(6), randn(device, 2, 3, 5, 6)
    assert_close(rotary(x)[..., 2:, :], rotary(x[..., 2:, :], torch.arange(2, 5, device=device)))
    starts = torch.tensor([0, 7], device=device)[:, None, None]
    own = starts + torch.arange(5, device=device)
    out = rotary(x, own)
    for b, start in enumerate([0, 7]):
        assert_close(out[b], rotary(x[b], torch.arange(start, start + 5, device=device)))
    assert_close(rotary(x, own.expand(2, 3, 5)), out)
    assert_close(rotary(x, own.double()), out, rtol=0, atol=1e-5)
    shared = rotary(x, torch.tensor([3], device=device))
    assert_close(shared, rotary(x, torch.full((5,), 3, device=device)))


@pytest.mark.parametrize("dtype", HALF, ids=str)
def test_half_types_are_rotated_by_angles_in_float32(device, dtype):
    x = randn(device, 1, 4096, 8, dtype=dtype)
    module = RotaryEncoding(8).to(dtype)
    out = module(x)
    assert out.dtype == dtype
    exact = rotate(x.double(), rotary_angles(positions(device, 4096), 8))
    # Once rounded, as the exact answer would be, and nothing else lost.
    assert (out - exact).abs().max() <= (exact.to(dtype) - exact).abs().max() + 2e-3
    rounded = rotary_angles(torch.arange(4096, device=device), 8).to(dtype).float()
    assert (rotate(x, rounded) - exact).abs().max() > 1


def test_features_are_turned_in_the_finer_of_the_two_types(device):
    x, angles = randn(device, 5, 8), rotary_angles(torch.arange(5, device=device), 8)
    assert angles.dtype == torch.float32
    assert torch.equal(rotate(x, angles), rotate(x, angles.double()))
    assert torch.equal(
        rotate(x.float(), angles.double()), rotate(x.float().double(), angles.double()).float()
    )


def test_two_bases_do_not_share_anything(device):
    x = randn(device, 5, 4)
    outs = [RotaryEncoding(4, base=base)(x) for base in (10_000.0, 100.0, 10_000.0)]
    assert torch.equal(outs[0], outs[2])
    assert not torch.allclose(outs[0], outs[1])
    assert not RotaryEncoding(4).state_dict()
    assert not list(RotaryEncoding(4).buffers())


# ALiBi


@pytest.mark.parametrize(
    "heads, expected",
    [
        (1, [2**-8]),
        (2, [2**-4, 2**-8]),
        (4, [2**-2, 2**-4, 2**-6, 2**-8]),
        (6, [2**-2, 2**-4, 2**-6, 2**-8, 2**-1, 2**-3]),
        (8, [2**-k for k in range(1, 9)]),
        (12, [2**-k for k in range(1, 9)] + [2**-0.5, 2**-1.5, 2**-2.5, 2**-3.5]),
        (16, [2 ** (-k / 2) for k in range(1, 17)]),
    ],
)
def test_alibi_slopes(device, heads, expected):
    slopes = alibi_slopes(heads, device=device, dtype=F64)
    assert (slopes.device.type, slopes.dtype) == (device.type, F64)
    assert_close(slopes.tolist(), expected)
    assert_close(alibi_slopes(heads), torch.tensor(expected))


@pytest.mark.parametrize("queries, keys", [(4, None), (4, 4), (2, 5), (5, 2), (0, 3), (3, 0)])
def test_alibi_bias_is_minus_slope_times_distance(device, queries, keys):
    bias = alibi_bias(12, queries, keys, device=device, dtype=F64)
    keys = queries if keys is None else keys
    assert bias.shape == (12, queries, keys)
    slopes = alibi_slopes(12, dtype=F64).tolist()
    for h, i, j in itertools.product(range(12), range(queries), range(keys)):
        expected = -slopes[h] * abs(i + keys - queries - j)
        assert_close(bias[h, i, j].item(), expected, rtol=1e-12, atol=0)


def test_alibi_bias_depends_on_the_distance_alone_and_is_symmetric(device):
    bias = alibi_bias(6, 9, device=device)
    assert torch.equal(bias[:, 1:, 1:], bias[:, :-1, :-1])
    assert torch.equal(bias, bias.mT)
    assert not bias.diagonal(dim1=1, dim2=2).signbit().any()
    assert torch.equal(alibi_bias(6, 4, 9, device=device), bias[:, 5:])


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_alibi_is_rounded_once(dtype):
    exact = alibi_bias(12, 1000, dtype=F64)
    bias = alibi_bias(12, 1000, dtype=dtype)
    assert bias.dtype == dtype
    assert_close(bias, exact.to(dtype))


@pytest.mark.parametrize("queries, keys", [(5, 5), (2, 5)])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_alibi_is_that_of_flex_attention(device, queries, keys, causal):
    query, key, value = (randn(device, 2, 6, n, 8) for n in (queries, keys, keys))
    slopes = torch.tensor([1 / 4, 1 / 16, 1 / 64, 1 / 256, 1 / 2, 1 / 8], dtype=F64).to(device)

    def score_mod(score, b, h, i, j):
        distance = i + keys - queries - j
        score = score - slopes[h] * distance.abs()
        return torch.where(distance >= 0, score, -math.inf) if causal else score

    bias = alibi_bias(6, queries, keys, device=device, dtype=F64)
    mask = causal_mask(queries, keys, device=device) if causal else None
    context, _ = attend(query, key, value, bias=bias, mask=mask)
    assert_close(context, flex_attention(query, key, value, score_mod=score_mod))


# T5's relative bias


SIZES = [(32, 128), (32, 20), (8, 128), (6, 4), (64, 1000), (4, 3)]


@pytest.mark.parametrize("num_buckets, max_distance", SIZES)
@pytest.mark.parametrize("is_causal", [False, True])
def test_buckets_are_those_of_the_formula(device, num_buckets, max_distance, is_causal):
    buckets = relative_buckets(
        150, num_buckets=num_buckets, max_distance=max_distance, is_causal=is_causal, device=device
    ).tolist()
    count = num_buckets if is_causal else num_buckets // 2
    near = count // 2
    for i, j in itertools.product(range(0, 150, 7), range(150)):
        distance = max(i - j, 0) if is_causal else abs(i - j)
        expected = distance
        if distance >= near:
            steps = (count - near) * math.log(distance / near) / math.log(max_distance / near)
            expected = min(near + math.floor(steps + 1e-9), count - 1)
        assert buckets[i][j] == expected + count * (j > i and not is_causal)


@pytest.mark.parametrize("is_causal", [False, True])
def test_buckets_are_those_of_t5(device, torchvision, is_causal):
    t5 = pytest.importorskip("transformers.models.t5.modeling_t5")
    place = torch.arange(400)
    theirs = t5.T5Attention._relative_position_bucket(
        place - place[:, None], bidirectional=not is_causal, num_buckets=32, max_distance=128
    )
    assert_close(relative_buckets(400, is_causal=is_causal, device=device).cpu(), theirs)


def test_fewer_queries_than_keys_are_the_last_positions_in_the_bias(device):
    module = RelativeBias(3, is_causal=True, device=device)
    assert torch.equal(module(4, 9), module(9)[:, 5:])
    assert torch.equal(module(9)[:, 1:, 1:], module(9)[:, :-1, :-1])
    assert torch.equal(module(9)[:, 8, 8 - 3], module.table[3])


def test_the_table_of_a_bias_starts_as_an_embedding():
    torch.manual_seed(1)
    module = RelativeBias(300)
    torch.manual_seed(1)
    assert torch.equal(module.table, nn.Embedding(32, 300).weight)


def test_a_relative_bias_decodes_with_a_cache(device):
    relative = RelativeBias(2, is_causal=True, dtype=F64, device=device)
    layer = MultiHeadAttention(8, 2, dtype=F64, device=device)
    x, cache = randn(device, 2, 7, 8), KeyValueCache(7)
    steps = [
        layer.step(part, cache, bias=relative(part.shape[1], cache.length + part.shape[1])[None])
        for part in x.split([4, 1, 2], dim=1)
    ]
    assert_close(torch.cat(steps, dim=1), layer(x, bias=relative(7)[None], is_causal=True))


# FLOATER


def velocity_of(module):
    """Return f(t, p) written anew, with the time as a column of its own."""
    layers = module.hidden, module.output
    w1, b1, w2, b2 = (p.detach() for layer in layers for p in layer.parameters())

    def f(t, p):
        hidden = F.relu(p @ w1[:, :-1].T + t * w1[:, -1] + b1)
        return hidden @ w2[:, :-1].T + t * w2[:, -1] + b2

    return f


def shaken(module):
    """Return the module with biases that are not zero, so that a forgotten one shows."""
    for name, parameter in module.named_parameters():
        if name.endswith("bias"):
            nn.init.normal_(parameter)
    return module


@pytest.mark.parametrize("step, substeps", [(0.1, 5), (0.5, 1), (1.0, 2)])
def test_floater_is_torchdiffeqs_rk4(device, step, substeps):
    torchdiffeq = pytest.importorskip("torchdiffeq")
    module = shaken(
        FloaterEncoding(6, hidden_dim=9, step=step, substeps=substeps, dtype=F64, device=device)
    )
    expected = torchdiffeq.odeint(
        velocity_of(module),
        module.start.detach(),
        step * positions(device, 7),
        method="rk4",
        options={"step_size": step / substeps},
    )
    for n, p in enumerate(module(7)):
        assert_close(p, expected[:, n], rtol=1e-9, atol=1e-9)


def test_floater_takes_the_three_eighths_rule_and_not_the_classical_one(device):
    module = shaken(FloaterEncoding(6, step=1.0, substeps=1, dtype=F64, device=device))
    f, p = velocity_of(module), module.start.detach()
    k1 = f(0, p)
    k2 = f(1 / 2, p + k1 / 2)
    k3 = f(1 / 2, p + k2 / 2)
    k4 = f(1, p + k3)
    classical = p + (k1 + 2 * k2 + 2 * k3 + k4) / 6
    k2 = f(1 / 3, p + k1 / 3)
    k3 = f(2 / 3, p - k1 / 3 + k2)
    k4 = f(1, p + k1 - k2 + k3)
    three_eighths = p + (k1 + 3 * k2 + 3 * k3 + k4) / 8
    end = torch.stack(module(2))[:, 1]
    assert_close(end, three_eighths)
    assert (end - classical).abs().max() > 1e-3


def test_floater_is_of_fourth_order_where_the_solution_is_known(device):
    module = FloaterEncoding(2, hidden_dim=4, step=1.0, substeps=8, dtype=F64, device=device)
    # relu(x) - relu(-x) = x, so that the network can be linear: f(t, p) = A p turns the plane.
    pass_on = torch.cat([torch.eye(2), -torch.eye(2)]).to(module.start)
    generator = torch.tensor([[0.0, -1.0], [1.0, 0.0]]).to(module.start)
    with torch.no_grad():
        module.hidden.weight.zero_()[:, :2] = pass_on
        module.output.weight.zero_()[:, :4] = generator @ pass_on.T
    errors = []
    for module.substeps in (8, 16):
        end = torch.stack(module(2))[:, 1]
        errors.append((end - module.start @ turn(1.0).to(device).T).norm().item())
    assert errors[0] < 1e-4
    assert 14 < errors[0] / errors[1] < 18


def test_floater_velocity_sees_the_time_at_both_layers(device):
    module = shaken(FloaterEncoding(6, dtype=F64, device=device))
    p = randn(device, 4, 6)
    assert_close(module.velocity(0.7, p), velocity_of(module)(0.7, p))
    later, earlier = module.velocity(2.0, p), module.velocity(1.0, p)
    assert not torch.allclose(later, earlier)


def test_floater_starts_at_its_parameters_and_a_longer_path_begins_as_a_shorter(device):
    module = FloaterEncoding(6, device=device)
    longer = module(9)
    for start, path, shorter in zip(module.start, longer, module(4), strict=True):
        assert torch.equal(path[0], start)
        assert torch.equal(path[:4], shorter)
    assert [p.shape for p in module(0)] == [(0, 6)] * 3
    assert [p.shape for p in module(1)] == [(1, 6)] * 3


def test_floater_evaluates_its_velocity_four_times_a_substep(device, monkeypatch):
    module, times = FloaterEncoding(6, step=1.0, substeps=2, device=device), []
    velocity = module.velocity
    monkeypatch.setattr(module, "velocity", lambda t, p: times.append(t) or velocity(t, p))
    module(4)
    assert len(times) == 3 * 2 * 4
    assert max(times) == 3


def test_floaters_sizes_and_step_are_those_of_its_authors():
    module = FloaterEncoding(6)
    assert (module.step, module.substeps) == (0.01, 5)
    assert module.hidden.weight.shape == module.output.weight.shape == (6, 7)


def test_floater_before_the_projections_adds_what_they_make_of_it(device):
    """The two places of its docstring: W (x + p) + b = (W x + b) + W p."""
    layer = shaken(MultiHeadAttention(6, 1, device=device, dtype=F64))
    x, paths = randn(device, 2, 5, 6), FloaterEncoding(6, dtype=F64, device=device)(5)
    projections = (layer.q_proj, layer.k_proj, layer.v_proj)
    after = [
        project(x) + F.linear(p, project.weight)
        for project, p in zip(projections, paths, strict=True)
    ]
    assert_close(layer(*(x + p for p in paths)), layer.out_proj(attend(*after)[0]))


def test_floaters_initial_values(device):
    module = FloaterEncoding(100, hidden_dim=200, device=device)
    assert module.hidden.weight.shape == (200, 101)
    assert module.output.weight.shape == (100, 201)
    assert not module.hidden.bias.any() and not module.output.bias.any()
    bound = math.sqrt(6 / 103)
    assert 0.95 * bound < module.start.abs().max() <= bound
    for layer in (module.hidden, module.output):
        expected = math.sqrt(2 / sum(layer.weight.shape))
        assert_close(layer.weight.std().item(), expected, rtol=0.03, atol=0)


@pytest.mark.parametrize("dtype", HALF, ids=str)
def test_floater_sums_its_small_steps_in_float32(device, dtype):
    module = shaken(FloaterEncoding(6, dtype=dtype, device=device))
    exact = torch.stack(copy.deepcopy(module).double()(30))
    path = torch.stack(module(30))
    assert path.dtype == dtype
    assert_close(path, exact.to(dtype), rtol=2**-7, atol=1e-6)


def test_gradients_reach_every_parameter_of_floater(device):
    module = FloaterEncoding(3, hidden_dim=4, step=0.5, substeps=2, dtype=F64, device=device)
    parameters = dict(module.named_parameters())

    def path(*values):
        return torch.func.functional_call(module, dict(zip(parameters, values, strict=True)), 3)

    assert gradcheck(path, tuple(parameters.values()))


# Settings. Each encoding as a module from x to a result of the same shape


class Alibi(nn.Module):
    def forward(self, x):
        bias = alibi_bias(1, x.shape[-2], device=x.device, dtype=x.dtype)
        return attend(x, x, x, bias=bias[0])[0]


class Relative(nn.Module):
    def __init__(self, **kwargs):
        super().__init__()
        self.encoding = RelativeBias(1, num_buckets=4, max_distance=3, **kwargs)

    def forward(self, x):
        return attend(x, x, x, bias=self.encoding(x.shape[-2])[0])[0]


class Floater(nn.Module):
    def __init__(self, **kwargs):
        super().__init__()
        self.encoding = FloaterEncoding(4, hidden_dim=3, substeps=1, **kwargs)

    def forward(self, x):
        p_q, p_k, p_v = self.encoding(x.shape[-2])
        return attend(x + p_q, x + p_k, x + p_v)[0]


MODULES = {
    "sinusoidal": partial(SinusoidalEncoding, 4),
    "learned": partial(LearnedEncoding, 64, 4),
    "rotary": partial(RotaryEncoding, 4),
    "ALiBi": lambda **kwargs: Alibi(),
    "T5": Relative,
    "FLOATER": Floater,
}
every_module = pytest.mark.parametrize("make", MODULES.values(), ids=MODULES)
without_floater = pytest.mark.parametrize(
    "make", [make for name, make in MODULES.items() if name != "FLOATER"], ids=list(MODULES)[:-1]
)


class EncodingContract(SequenceContract):
    autocast_is_half = False  # what is added stays in its type
    name = ""

    def make(self, **kwargs):
        return MODULES[self.name](**kwargs)

    def inputs(self, device, batch=2, length=5, dtype=torch.float32):
        return (randn(device, batch, length, 4, dtype=dtype),)


class TestSinusoidalSettings(EncodingContract, SequenceCompilerContract):
    name = "sinusoidal"


class TestLearnedSettings(EncodingContract, LayersContract, SequenceCompilerContract):
    name = "learned"


class TestRotarySettings(EncodingContract, SequenceCompilerContract):
    name = "rotary"


class TestAlibiSettings(EncodingContract, SequenceCompilerContract):
    name = "ALiBi"
    test_what_is_no_sequence_of_numbers_is_refused = None  # a function takes any features


class TestRelativeSettings(EncodingContract, SequenceCompilerContract):
    name = "T5"
    test_what_is_no_sequence_of_numbers_is_refused = None  # it has no input


class TestFloaterSettings(EncodingContract, LayersContract):
    name = "FLOATER"
    test_what_is_no_sequence_of_numbers_is_refused = None  # it has no input


# FLOATER's loop over the positions is unrolled: it compiles anew for each length.
@pytest.mark.parametrize("backend", ["eager", inductor])
@pytest.mark.no_cover
def test_floater_compiles_to_one_graph(device, backend):
    torch.compiler.reset()
    module, x = Floater(device=device), randn(device, 2, 3, 4, dtype=torch.float32)
    compiled = torch.compile(module, fullgraph=True, dynamic=False, backend=backend)
    assert_close(compiled(x), module(x))


def test_rotary_compiles_where_there_are_as_many_positions_as_features(device):
    compiled = torch.compile(RotaryEncoding(4), fullgraph=True, dynamic=True, backend="eager")
    x = randn(device, 2, 4, 4, dtype=torch.bfloat16)
    assert_close(compiled(x), RotaryEncoding(4)(x))


def test_floater_exports_at_one_length(device):
    module, x = Floater(device=device), randn(device, 2, 5, 4, dtype=torch.float32)
    assert_close(torch.export.export(module, (x,)).module()(x), module(x))


def test_vmap_over_positions(device):
    rotary, x = RotaryEncoding(4), randn(device, 3, 5, 4)
    own = torch.arange(15, device=device).reshape(3, 5)
    assert_close(torch.vmap(rotary)(x, own), rotary(x, own))


@every_module
def test_autocast_leaves_positions_exact(device, make):
    module, x = make(device=device), randn(device, 2, 20, 4, dtype=torch.float32)
    expected = module(x)
    with torch.autocast(device.type, dtype=torch.bfloat16):
        out = module(x)
        angles = rotary_angles(torch.arange(300, device=device), 4)
        bias = alibi_bias(6, 300, device=device)
    assert_close(out.float(), expected, rtol=0.03, atol=0.03)
    assert torch.equal(angles, rotary_angles(torch.arange(300, device=device), 4))
    assert torch.equal(bias, alibi_bias(6, 300, device=device))


@pytest.mark.parametrize("half", HALF, ids=str)
@pytest.mark.parametrize(
    "make", [make for name, make in MODULES.items() if name in ("sinusoidal", "learned", "rotary")]
)
def test_autocast_changes_no_digit(device, make, half):
    module, x = make(device=device), randn(device, 2, 20, 4, dtype=torch.float32)
    expected = module(x)
    with torch.autocast(device.type, dtype=half):
        assert torch.equal(module(x), expected)


@pytest.mark.parametrize("half", HALF, ids=str)
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_autocast_changes_no_digit_of_floater(device, dtype, half):
    module = shaken(FloaterEncoding(4, device=device, dtype=dtype))
    p = randn(device, 3, 4, dtype=dtype)
    expected, velocity = torch.stack(module(20)), module.velocity(0.3, p)
    with torch.autocast(device.type, dtype=half):
        path, again = module(20), module.velocity(0.3, p)
    assert torch.equal(torch.stack(path), expected)
    assert torch.equal(again, velocity)
    assert velocity.dtype == dtype


# FLOATER's vectors have the type of its parameters: it has no input.
@without_floater
def test_a_float32_module_keeps_the_type_of_its_input(device, make):
    x = randn(device, 2, 5, 4, dtype=torch.bfloat16)
    assert make(device=device)(x).dtype == torch.bfloat16


@every_module
@pytest.mark.parametrize("shape", [(0, 4), (1, 4), (5, 4), (0, 5, 4), (2, 3, 5, 4)], ids=str)
def test_any_batch_axes_and_empty_sequences(device, make, shape):
    module, x = make(device=device, dtype=F64), randn(device, *shape)
    assert module(x).shape == shape
    if x.ndim == 4:
        assert_close(module(x)[1, 2], module(x[1, 2]))


@every_module
@pytest.mark.parametrize("check", [gradcheck, gradgradcheck])
def test_derivatives(device, make, check):
    module = make(device=device, dtype=F64)
    assert check(module, randn(device, 2, 3, 4).requires_grad_())


def test_derivatives_by_the_angles(device):
    inputs = randn(device, 2, 3, 4).requires_grad_(), randn(device, 3, 2).requires_grad_()
    assert gradcheck(rotate, inputs)


# Forward derivatives load code of PyTorch's that uses TorchScript, which warns of itself.
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_forward_mode_and_mixed_second_derivatives(device):
    x, angles = randn(device, 2, 3, 4), randn(device, 3, 2)
    along_x, along_angles = torch.randn_like(x), torch.randn_like(angles)
    # Linear in x; in the angles it turns a quarter further.
    _, tangent = torch.func.jvp(rotate, (x, angles), (along_x, along_angles))
    expected = rotate(x, angles + math.pi / 2) * along_angles.repeat_interleave(2, dim=-1)
    assert_close(tangent, rotate(along_x, angles) + expected)

    def cubed(angles):
        return (rotate(x, angles) ** 3).sum()

    hessian = torch.func.jacrev(torch.func.grad(cubed))(angles)
    assert_close(torch.func.jacfwd(torch.func.grad(cubed))(angles), hessian)


class AtPositions(nn.Module):
    def forward(self, *x_and_positions):
        return RotaryEncoding(4)(*x_and_positions)


@pytest.mark.filterwarnings("ignore")  # of the exporter, about itself
@pytest.mark.no_cover
def test_onnxruntime_rotates_at_positions():
    dynamic = torch.export.Dim.DYNAMIC
    given, others = (
        (torch.randn(batch, n, 4), torch.arange(3, 3 + n)) for batch, n in [(2, 5), (3, 9)]
    )
    found = onnx_answer(AtPositions(), given, others, ({0: dynamic, 1: dynamic}, {0: dynamic}))
    assert_close(found, RotaryEncoding(4)(*others))


class AnyFloater(Floater):
    def forward(self, *inputs):
        return super().forward(*inputs)


# Its path has one length in a graph: the steps are written out.
@pytest.mark.filterwarnings("ignore")
@pytest.mark.no_cover
def test_onnxruntime_follows_floaters_path():
    module, given = AnyFloater(), (torch.randn(2, 5, 4),)
    assert_close(onnx_answer(module, given, given, ({},)), module(*given).detach())


def test_what_print_says():
    with warnings.catch_warnings():
        assert repr(SinusoidalEncoding(4)) == "SinusoidalEncoding(4)"
        assert repr(RotaryEncoding(4, base=100.0)) == "RotaryEncoding(4, base=100.0)"
        longer = RotaryEncoding(4, interpolation=2.0, ntk=4)
        assert repr(longer) == "RotaryEncoding(4, base=10000.0, interpolation=2.0, ntk=4)"
        relative = RelativeBias(2, max_distance=9, num_buckets=8)
        assert repr(relative) == "RelativeBias(2, 8 buckets up to 9, is_causal=False)"
        assert "step=0.5, substeps=2" in repr(FloaterEncoding(4, step=0.5, substeps=2))


# Errors. In the calls below t(2, 3) is a tensor of ones of that shape

VALUE_ERRORS = {
    "dim=5 must be an even number from 2 on": lambda t: sinusoidal_encoding(3, 5),
    "dim=7 must be an even number from 2 on": lambda t: SinusoidalEncoding(7),
    "dim=9 must be an even number from 2 on": lambda t: rotary_angles(t(3), 9),
    "dim=3 must be an even number from 2 on": lambda t: RotaryEncoding(3),
    "dim=0 must be an even number from 2 on": lambda t: RotaryEncoding(0),
    "dim=-2 must be an even number from 2 on": lambda t: sinusoidal_encoding(3, -2),
    "base=0.0 must be above 0": lambda t: RotaryEncoding(4, base=0.0),
    "base=-1.0 must be above 0": lambda t: sinusoidal_encoding(3, 4, base=-1.0),
    "base=nan must be above 0": lambda t: rotary_angles(t(3), 4, math.nan),
    "interpolation=0.0 must be above 0: positions are": lambda t: RotaryEncoding(
        4, interpolation=0.0
    ),
    "ntk=-1.0 must be above 0": lambda t: rotary_angles(t(3), 4, ntk=-1.0),
    "ntk=4.0 changes nothing for dim=2": lambda t: rotary_angles(t(3), 2, ntk=4.0),
    "ntk=2 changes nothing for dim=2": lambda t: RotaryEncoding(2, ntk=2),
    "num_buckets=3 must be at least 4": lambda t: relative_buckets(3, num_buckets=3),
    "num_buckets=1 must be at least 2": lambda t: RelativeBias(2, num_buckets=1, is_causal=True),
    "num_buckets=33 must be even": lambda t: RelativeBias(2, num_buckets=33),
    "max_distance=8 must be above 8: of num_buckets=32": lambda t: relative_buckets(
        3, max_distance=8
    ),
    "length=-1 must be at least 0": lambda t: sinusoidal_encoding(-1, 4),
    "max_length=0 must be at least 1": lambda t: LearnedEncoding(0, 4),
    "max_length=-1 must be at least 1": lambda t: LearnedEncoding(-1, 4),
    "dim=0 must be at least 1": lambda t: LearnedEncoding(4, 0),
    "dim=-4 must be at least 1": lambda t: LearnedEncoding(4, -4),
    "x has 1 axes, but needs at least 2: (rows, features)": lambda t: rotate(t(4), t(2)),
    "x has 4 features, but the angles turn 0 (0 pairs)": lambda t: rotate(t(3, 4), t(1)[0]),
    "angles of shape (2,) do not fit x of shape (3, 4)": lambda t: rotate(t(3, 4), t(2)),
    "x has 6 features, but the layer expects 4": lambda t: SinusoidalEncoding(4)(t(3, 6)),
    "x has 5 features, but the layer expects 4": lambda t: LearnedEncoding(9, 4)(t(3, 5)),
    "x has 8 features, but the layer expects 4": lambda t: RotaryEncoding(4)(t(3, 8)),
    "x has 1 axes, but needs at least 2": lambda t: RotaryEncoding(4)(t(4)),
    "x has 1 axes, but needs at least 2: (rows": lambda t: SinusoidalEncoding(4)(t(4)),
    "x has 1 axes, but needs at least 2: (rows, ": lambda t: LearnedEncoding(9, 4)(t(4)),
    "x has 7 positions, but the table was made for max_length=5: a learned encoding cannot be read "
    "past its last row": lambda t: LearnedEncoding(5, 4)(t(2, 7, 4)),
    "x has 6 features, but the angles turn 4 (2 pairs)": lambda t: rotate(t(1, 3, 6), t(1, 3, 2)),
    "angles of shape (5, 2) do not fit x of shape (3, 4): they need 3 positions": lambda t: rotate(
        t(3, 4), t(5, 2)
    ),
    "angles of shape (4, 2) do not fit x of shape (2, 3, 4)": lambda t: RotaryEncoding(4)(
        t(2, 3, 4), t(4)
    ),
    # (batch, n) for (batch, heads, n, d) would be read as (heads, n) where there are as many heads.
    "angles of shape (2, 5, 2) do not fit x of shape (2, 2, 5, 4): they need 5 positions, and 2 or "
    "4 axes": lambda t: RotaryEncoding(4)(t(2, 2, 5, 4), t(2, 5)),
    "angles of shape (3, 1, 5, 2) do not fit x of shape (2, 2, 5, 4)": lambda t: RotaryEncoding(4)(
        t(2, 2, 5, 4), t(3, 1, 5)
    ),
    "num_heads=0 must be at least 1": lambda t: alibi_slopes(0),
    "num_heads=-3 must be at least 1": lambda t: alibi_bias(-3, 2),
    "queries=-1 must be at least 0": lambda t: alibi_bias(2, -1),
    "keys=-2 must be at least 0": lambda t: alibi_bias(2, 2, -2),
    "dim=0 must be at least": lambda t: FloaterEncoding(0),
    "dim=-3 must be at least 1": lambda t: FloaterEncoding(-3),
    "hidden_dim=0 must be at least 1": lambda t: FloaterEncoding(4, hidden_dim=0),
    "step=0 must be above 0": lambda t: FloaterEncoding(4, step=0),
    "step=nan must be above 0": lambda t: FloaterEncoding(4, step=math.nan),
    "substeps=0 must be at least 1": lambda t: FloaterEncoding(4, substeps=0),
    "length=-1 must be at least": lambda t: FloaterEncoding(4)(-1),
}
TYPE_ERRORS = {
    "positions has dtype torch.bfloat16, too coarse for long sequences; use torch.float32 (what is "
    "rotated may be in any floating-point type)": lambda t: rotary_angles(t(3).bfloat16(), 4),
    "positions has dtype torch.float16": lambda t: RotaryEncoding(4)(t(3, 4), t(3).half()),
    "angles has dtype torch.bfloat16": lambda t: rotate(t(3, 4), t(3, 2).bfloat16()),
    "x has dtype torch.int64": lambda t: RotaryEncoding(4)(t(3, 4).long()),
    "x has dtype torch.int32": lambda t: SinusoidalEncoding(4)(t(3, 4).int()),
    "x has dtype torch.bool": lambda t: LearnedEncoding(9, 4)(t(3, 4) > 0),
    "x has dtype torch.complex64": lambda t: RotaryEncoding(4)(t(3, 4) + 0j),
    "x has dtype torch.int64, but a floating-point type": lambda t: rotate(t(3, 4).long(), t(3, 2)),
    "x has dtype torch.uint8": lambda t: rotate(t(3, 4).byte(), t(3, 2)),
    "x has dtype torch.complex64, but": lambda t: rotate(t(3, 4) + 0j, t(3, 2)),
    "angles has dtype torch.int64": lambda t: rotate(t(3, 4), t(3, 2).long()),
    "angles has dtype torch.complex64": lambda t: rotate(t(3, 4), t(3, 2) + 0j),
    "x has type list": lambda t: rotate([[1.0, 0.0]], t(1, 1)),
    "angles has type float": lambda t: rotate(t(1, 2), 0.5),
    "positions has type range": lambda t: rotary_angles(range(3), 4),
    "positions has type list": lambda t: RotaryEncoding(4)(t(3, 4), [0, 1, 2]),
    "positions has dtype torch.complex64": lambda t: rotary_angles(t(3) + 0j, 4),
    "positions has dtype torch.bool": lambda t: rotary_angles(t(3) > 0, 4),
    "x has type ndarray": lambda t: SinusoidalEncoding(4)(t(3, 4).numpy()),
    "x has type NoneType": lambda t: LearnedEncoding(9, 4)(None),
    "dim=4.0 has type float": lambda t: sinusoidal_encoding(3, 4.0),
    "dim=4.0 has type float, but": lambda t: RotaryEncoding(4.0),
    "dim='4' has type str": lambda t: SinusoidalEncoding("4"),
    "dim=True has type bool": lambda t: FloaterEncoding(True),
    "dim=4.0 has type float, but must": lambda t: LearnedEncoding(9, 4.0),
    "max_length=9.0 has type float": lambda t: LearnedEncoding(9.0, 4),
    "length=3.0 has type float": lambda t: sinusoidal_encoding(3.0, 4),
    "length=2.5 has type float": lambda t: FloaterEncoding(4)(2.5),
    "base='x' has type str": lambda t: RotaryEncoding(4, base="x"),
    "base=None has type NoneType": lambda t: sinusoidal_encoding(3, 4, base=None),
    "step='a' has type str": lambda t: FloaterEncoding(4, step="a"),
    "substeps=0.5 has type float": lambda t: FloaterEncoding(4, substeps=0.5),
    "hidden_dim=6.0 has type float": lambda t: FloaterEncoding(4, hidden_dim=6.0),
    "num_heads=2.5 has type float": lambda t: alibi_slopes(2.5),
    "num_heads=2.0 has type float": lambda t: alibi_bias(2.0, 3),
    "queries=3.0 has type float": lambda t: alibi_bias(2, 3.0),
    "keys=3.0 has type float": lambda t: alibi_bias(2, 3, 3.0),
}


@pytest.mark.parametrize(
    "error, message, call",
    [(ValueError, *case) for case in VALUE_ERRORS.items()]
    + [(TypeError, *case) for case in TYPE_ERRORS.items()],
    ids=[*VALUE_ERRORS, *TYPE_ERRORS],
)
def test_errors_name_what_is_wrong_with_the_numbers(error, message, call):
    with pytest.raises(error, match=re.escape(message)):
        call(torch.ones)
