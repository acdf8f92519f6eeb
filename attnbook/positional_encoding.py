"""Positional encodings: six ways of telling attention where in the sequence something stands.

Two are added to the input (sinusoidal, learned), one turns queries and keys (rotary), two are added
to the scores (ALiBi, T5's), one follows a differential equation along the positions (FLOATER).

Axes: n positions, d features, of which d / 2 pairs, counted by l; h heads, i queries, j keys.

Papers: Vaswani et al. (2017), section 3.5, https://arxiv.org/abs/1706.03762 (sinusoidal, learned);
Su et al. (2021), https://arxiv.org/abs/2104.09864 (rotary);
Chen et al. (2023), https://arxiv.org/abs/2306.15595 (rotary, positions interpolated);
Peng et al. (2023), https://arxiv.org/abs/2309.00071 (rotary, NTK-aware base);
Press, Smith and Lewis (2021), https://arxiv.org/abs/2108.12409 (ALiBi);
Raffel et al. (2019), https://arxiv.org/abs/1910.10683 (T5's relative bias);
Liu et al. (2020), https://arxiv.org/abs/2003.09229 (FLOATER).
"""

from __future__ import annotations

import math
from contextlib import nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int, Real
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from attnbook.checks import (
    check_features,
    check_flag,
    check_floating,
    check_inputs,
    check_number,
    check_size,
    check_tensor,
    fits,
)
from attnbook.module import Module
from attnbook.precision import no_autocast, widened

HALF = (torch.float16, torch.bfloat16)


def rotary_angles(
    positions: Real[Tensor, "*batch n"],
    dim: int,
    base: float = 10_000.0,
    *,
    interpolation: float = 1.0,
    ntk: float = 1.0,
) -> Float[Tensor, "*batch n pair"]:
    """Return the angle, in radians, by which each of the dim / 2 pairs turns at each position.

    angle(p, l) = p / base^(2l / dim),    l = 0 .. dim / 2 - 1

    Su et al. count from 1 and write -2(i - 1) / dim in the exponent. The angles are float32, or
    float64 for positions in float64, whatever is rotated: bfloat16 has no number between 256 and
    258, so there angles are wrong by whole radians.

    For sequences s times as long as those a model was trained on there are two ways to turn more
    slowly. Position interpolation (Chen et al.) slows every pair down alike, so that no angle is
    new to the model, and neighbours come closer to each other:

    angle(p, l) = (p / s) / base^(2l / dim),    s = interpolation

    The NTK-aware base (Peng et al., definition 1) slows the last pair down as much, the first not
    at all, and those between by degrees: neighbours stay apart, and some angles are new:

    angle(p, l) = p / b^(2l / dim),    b = base s^(dim / (dim - 2)),    s = ntk

    Args:
        positions: (..., n), whole numbers or not.
        dim: the number of features, two for each angle.
        base: what the slowest pair's period grows with, 10,000 in both papers.
        interpolation: what positions are divided by; 1 changes nothing.
        ntk: how many times slower the last pair turns, by a larger base; 1 changes nothing.

    Returns:
        The angles, (..., n, dim / 2).

    Raises:
        TypeError: the positions are in a half type, which has rounded them already, or no real
            numbers; dim is no whole number, or base, interpolation or ntk no number.
        ValueError: dim is odd or below 2; base, interpolation or ntk is not above 0; or ntk is
            given for a single pair, whose angle no base changes.

    >>> rotary_angles(torch.arange(3), dim=4)
    tensor([[0.0000, 0.0000],
            [1.0000, 0.0100],
            [2.0000, 0.0200]])
    """
    _check_pairs(dim, base, interpolation, ntk)
    check_tensor("positions", positions)
    if positions.is_complex() or positions.dtype == torch.bool:
        raise TypeError(f"positions has dtype {positions.dtype}, but must be integer or floating")
    _check_precision("positions", positions)
    dtype = torch.promote_types(positions.dtype, torch.float32)
    exponents = torch.arange(0, dim, 2, device=positions.device, dtype=dtype) / dim
    if ntk != 1:
        base = base * ntk ** (dim / (dim - 2))
    places = rearrange(positions.to(dtype) / interpolation, "... n -> ... n 1")
    # Not a matrix product, which autocast would take in half precision.
    return places * base**-exponents


def sinusoidal_encoding(
    length: int,
    dim: int,
    *,
    base: float = 10_000.0,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> Float[Tensor, "length dim"]:
    """Return a vector for each position, made of the sines and cosines of dim / 2 clock hands.

    PE(p, 2l) = sin(p / base^(2l / dim)),    PE(p, 2l + 1) = cos(p / base^(2l / dim))

    Vaswani et al., section 3.5. The wavelengths grow from 2 pi to 2 pi base^((dim - 2) / dim).
    A step of k positions turns each (sin, cos) pair by a fixed angle: PE(p + k) = R_k PE(p).
    Half types are rounded from float32.

    Args:
        length: the number of positions, 0 .. length - 1.
        dim: the number of features, an even number.
        base: what the longest wavelength grows with.
        device: where the result lies.
        dtype: its type, by default torch.get_default_dtype().

    Returns:
        The encoding, (length, dim).

    Raises:
        TypeError: length or dim is no whole number, or base no number.
        ValueError: length is negative, dim is odd or below 2, or base is not above 0.

    >>> sinusoidal_encoding(2, 4)
    tensor([[0.0000, 1.0000, 0.0000, 1.0000],
            [0.8415, 0.5403, 0.0100, 0.9999]])
    """
    check_size("length", length, least=0)
    dtype = torch.get_default_dtype() if dtype is None else dtype
    positions = torch.arange(length, device=device, dtype=torch.promote_types(dtype, torch.float32))
    angles = rotary_angles(positions, dim, base)
    return rearrange([angles.sin(), angles.cos()], "two n pair -> n (pair two)").to(dtype)


class SinusoidalEncoding(Module):
    """Add the sinusoidal encoding to a sequence: x + PE.

    It has neither parameters nor buffers: the encoding is computed where x is and in its type. The
    paper scales its token embeddings by sqrt(dim) first, so that they are not drowned; that is left
    to the caller.

    >>> SinusoidalEncoding(4)(torch.zeros(1, 2, 4))
    tensor([[[0.0000, 1.0000, 0.0000, 1.0000],
             [0.8415, 0.5403, 0.0100, 0.9999]]])
    """

    def __init__(
        self,
        dim: int,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        """Make the encoding for sequences of vectors of `dim` features.

        Args:
            dim: the number of features of x, an even number.
            device: changes nothing, since there are no parameters.
            dtype: changes nothing either.

        Raises:
            TypeError: dim is no whole number.
            ValueError: dim is odd or below 2.
        """
        super().__init__()
        _check_pairs(dim, base=10_000.0)
        self.dim = dim

    def forward(self, x: Float[Tensor, "*batch n d"]) -> Float[Tensor, "*batch n d"]:
        """Return x + PE, (..., n, dim).

        Args:
            x: a sequence, (..., n, dim), floating-point.

        Raises:
            TypeError: x is not floating-point.
            ValueError: x has other than `dim` features, or fewer than two axes.
        """
        check_inputs(x=x)
        check_features("x", x, self.dim)
        return x + sinusoidal_encoding(x.shape[-2], self.dim, device=x.device, dtype=x.dtype)

    def extra_repr(self) -> str:
        """Say in `print(module)` how many features it expects."""
        return f"{self.dim}"


class LearnedEncoding(Module):
    """Add a learned vector for each position: x + table[0..n-1].

    The table is (max_length, dim) and starts, as nn.Embedding does, from a normal distribution with
    mean 0 and standard deviation 1. It has nothing to say about positions from max_length on.
    Vaswani et al., section 3.5 and table 3 (E).

    >>> LearnedEncoding(max_length=5, dim=8)(torch.randn(2, 3, 8)).shape
    torch.Size([2, 3, 8])
    """

    def __init__(
        self,
        max_length: int,
        dim: int,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        """Make the table, with a row for each of `max_length` positions.

        Args:
            max_length: the length of the longest sequence.
            dim: the number of features of x.
            device: where the table lies, by default PyTorch's default device.
            dtype: its type, by default torch.get_default_dtype().

        Raises:
            TypeError: max_length or dim is no whole number.
            ValueError: max_length or dim is below 1.
        """
        super().__init__()
        check_size("max_length", max_length)
        check_size("dim", dim)
        self.max_length = max_length
        self.dim = dim
        self.table = nn.Embedding(max_length, dim, device=device, dtype=dtype)

    def forward(self, x: Float[Tensor, "*batch n d"]) -> Float[Tensor, "*batch n d"]:
        """Return x + table, (..., n, dim), in the type of x.

        Args:
            x: a sequence, (..., n, dim), floating-point, with n up to max_length.

        Raises:
            TypeError: x is not floating-point.
            ValueError: x is longer than the table, or has another number of features.
        """
        check_inputs(x=x)
        check_features("x", x, self.dim)
        length = x.shape[-2]
        if length > self.max_length:
            raise ValueError(
                f"x has {length} positions, but the table was made for "
                f"max_length={self.max_length}: a learned encoding cannot be read past its last row"
            )
        return x + self.table(torch.arange(length, device=x.device)).to(x.dtype)


def rotate(
    x: Float[Tensor, "*batch n d"], angles: Float[Tensor, "*#batch n pair"]
) -> Float[Tensor, "*batch n d"]:
    """Turn each pair of neighbouring features of x, (x_0, x_1), (x_2, x_3) ..., by its angle.

    (a, b) -> (a cos - b sin, a sin + b cos),    or    a + bi -> (a + bi) e^(i angle)

    Norms are kept, and the product of a query at p with a key at q depends on p - q only. Computed
    in float32 at least; the result has the dtype of x.

    This is the interleaved layout of Su et al. The half layout pairs feature i with feature
    i + d / 2; it computes the same on features sorted into the even and then the odd ones:
    half(sort(x)) = sort(rotate(x)), with `rearrange(x, "... (pair two) -> ... (two pair)", two=2)`
    for sort(x). Sorting so, head by head, the rows of `q_proj.weight` and `k_proj.weight` and the
    entries of `q_proj.bias` and `k_proj.bias` moves a layer from one to the other:

        rearrange(weight, "(heads pair two) ... -> (heads two pair) ...", heads=heads, two=2)

    and, for `k_proj`, with the number of key-value heads where that is another. A learned norm of
    each head's queries and keys before the rotation, as in Qwen3, has weights to be sorted so, too.

    torch.compile warns that it generates no code for complex numbers. It calls PyTorch's own kernel
    instead, which is no slower than this function without compiling.

    Args:
        x: what is rotated, (..., n, d), floating-point.
        angles: in radians, (n, d / 2), or with as many axes as x, with 1 where shared.

    Returns:
        x rotated, (..., n, d).

    Raises:
        TypeError: x or the angles are not floating-point, or the angles are in a half type.
        ValueError: the angles do not fit the features or the positions of x, or have another
            number of axes.

    >>> rotate(torch.tensor([[1.0, 0.0]]), torch.tensor([[math.pi / 6]]))
    tensor([[0.8660, 0.5000]])
    """
    check_inputs(x=x)
    check_floating("angles", angles)
    _check_precision("angles", angles)
    if angles.ndim == 0 or x.shape[-1] != 2 * angles.shape[-1]:
        turned = 2 * angles.shape[-1] if angles.ndim else 0
        raise ValueError(
            f"x has {x.shape[-1]} features, but the angles turn {turned} ({turned // 2} pairs)"
        )
    if angles.ndim not in (2, x.ndim) or not fits(angles.shape[:-1], x.shape[:-1]):
        raise ValueError(
            f"angles of shape {tuple(angles.shape)} do not fit x of shape {tuple(x.shape)}: "
            f"they need {x.shape[-2]} positions, and 2 or {x.ndim} axes, with 1 where shared"
        )
    dtype = torch.promote_types(x.dtype, angles.dtype)
    turn = torch.polar(torch.ones_like(angles, dtype=dtype), angles.to(dtype))
    # A copy, because PyTorch reads two neighbours as a complex number only where they lie side by
    # side, at an even place of memory.
    x_copy = x.to(dtype, copy=True, memory_format=torch.contiguous_format)
    pairs = torch.view_as_complex(rearrange(x_copy, "... (pair two) -> ... pair two", two=2))
    turned = torch.view_as_real(pairs * turn)
    return rearrange(turned, "... pair two -> ... (pair two)").to(x.dtype)


class RotaryEncoding(Module):
    """Rotate queries or keys by their positions: rotate(x, rotary_angles(positions, dim, base)).

    Applied to queries and keys after their projection, never to values; `dim` is the number of
    features of one head. Nothing is stored: angles are computed in float32 at every call, so there
    is no cache to go stale and no buffer that `module.half()` could round. torch.compile warns of
    complex numbers, as `rotate` says; the result is right. Su et al. (2021), section 3.

    `interpolation` and `ntk` are for sequences longer than those a model was trained on, as
    `rotary_angles` says. They have no parameters and may be set later: model.rotary.ntk = 4.0.

    >>> rotary, query = RotaryEncoding(dim=4), torch.randn(2, 8, 5, 4)
    >>> later = rotary(query[..., 3:, :], torch.arange(3, 5))
    >>> torch.allclose(rotary(query)[..., 3:, :], later, atol=1e-6)
    True
    """

    def __init__(
        self,
        dim: int,
        *,
        base: float = 10_000.0,
        interpolation: float = 1.0,
        ntk: float = 1.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        """Make the rotation of heads of `dim` features.

        Args:
            dim: the number of features of one head, an even number.
            base: what the slowest pair's period grows with; larger for longer sequences.
            interpolation: what positions are divided by; 1, which changes nothing, by default.
            ntk: how many times slower the last pair turns, and others by degrees; 1 by default.
            device: changes nothing, since there are no parameters.
            dtype: changes nothing either.

        Raises:
            TypeError: dim is no whole number, or base, interpolation or ntk no number.
            ValueError: dim is odd or below 2; base, interpolation or ntk is not above 0; or ntk is
                given for a single pair.
        """
        super().__init__()
        _check_pairs(dim, base, interpolation, ntk)
        self.dim = dim
        self.base = base
        self.interpolation = interpolation
        self.ntk = ntk

    def forward(
        self, x: Float[Tensor, "*batch n d"], positions: Real[Tensor, "*#batch n"] | None = None
    ) -> Float[Tensor, "*batch n d"]:
        """Return x rotated, (..., n, dim).

        Args:
            x: queries or keys, (..., n, dim), floating-point.
            positions: (n,), by default 0 .. n - 1; or with one axis less than x, with 1 where it is
                shared: (batch, 1, n) gives each sequence of (batch, heads, n, dim) its own.

        Raises:
            TypeError: x is not floating-point, or the positions are in a half type.
            ValueError: a wrong number of features, or positions that do not fit x.
        """
        check_inputs(x=x)
        check_features("x", x, self.dim)
        if positions is None:
            positions = torch.arange(x.shape[-2], device=x.device)
        angles = rotary_angles(
            positions, self.dim, self.base, interpolation=self.interpolation, ntk=self.ntk
        )
        return rotate(x, angles)

    def extra_repr(self) -> str:
        """Say in `print(module)` what it was made with."""
        longer = {"interpolation": self.interpolation, "ntk": self.ntk}
        used = "".join(f", {name}={factor}" for name, factor in longer.items() if factor != 1)
        return f"{self.dim}, base={self.base}{used}"


def alibi_slopes(
    num_heads: int,
    *,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> Float[Tensor, " h"]:
    """Return the slope m of each head, a geometric sequence from 2^(-8 / heads) down to 2^-8.

    m_h = 2^(-8 h / heads),    h = 1 .. heads

    That is for a power of two. For other numbers of heads, as in the authors' code: the slopes for
    the nearest smaller power of two, followed by every other slope for twice that power. Press et
    al., section 3.

    Args:
        num_heads: the number of heads.
        device: where the result lies.
        dtype: its type, by default torch.get_default_dtype().

    Returns:
        The slopes, (num_heads,).

    Raises:
        TypeError: num_heads is no whole number.
        ValueError: num_heads is below 1.

    >>> alibi_slopes(6)
    tensor([0.2500, 0.0625, 0.0156, 0.0039, 0.5000, 0.1250])
    """
    check_size("num_heads", num_heads)
    power = 2 ** int(math.log2(num_heads))
    slopes = [2 ** (-8 * k / power) for k in range(1, power + 1)]
    between = [2 ** (-8 * k / (2 * power)) for k in range(1, 2 * power, 2)]
    return torch.tensor(slopes + between[: num_heads - power], device=device, dtype=dtype)


def alibi_bias(
    num_heads: int,
    queries: int,
    keys: int | None = None,
    *,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> Float[Tensor, "h queries keys"]:
    """Return the bias that lowers a score in proportion to the distance of its key.

    bias(h, i, j) = -m_h |i - j|

    To be added to the scores, as `bias`. It is symmetric; with a causal mask it is the bias of
    Press et al., section 3, who look back only. With fewer queries than keys the queries are the
    last of the positions (lower right), as in `causal_mask`.

    Args:
        num_heads: the number of heads.
        queries: the number of queries.
        keys: the number of keys, by default that of the queries.
        device: where the result lies.
        dtype: its type, by default torch.get_default_dtype(); rounded once, at the end.

    Returns:
        The bias, (num_heads, queries, keys).

    Raises:
        TypeError: one of the numbers is no whole number.
        ValueError: num_heads is below 1, or queries or keys below 0.

    >>> alibi_bias(2, 2, 3)[0]
    tensor([[-0.0625,  0.0000, -0.0625],
            [-0.1250, -0.0625,  0.0000]])
    """
    keys = queries if keys is None else keys
    check_size("queries", queries, least=0)
    check_size("keys", keys, least=0)
    query_positions = torch.arange(keys - queries, keys, device=device)
    key_positions = torch.arange(keys, device=device)
    distance = (rearrange(query_positions, "i -> i 1") - key_positions).abs()
    dtype = torch.get_default_dtype() if dtype is None else dtype
    slopes = alibi_slopes(num_heads, device=device, dtype=torch.promote_types(dtype, torch.float32))
    # The distances are negated while they are integers: the diagonal is 0, not -0.
    return (rearrange(slopes, "h -> h 1 1") * -distance).to(dtype)


def relative_buckets(
    queries: int,
    keys: int | None = None,
    *,
    num_buckets: int = 32,
    max_distance: int = 128,
    is_causal: bool = False,
    device: torch.device | str | None = None,
) -> Int[Tensor, "queries keys"]:
    """Return the number of the bucket in which T5 puts the distance of each query and key.

    bucket(r) = min(n - 1, near + floor((n - near) log(r / near) / log(max_distance / near)))

    r is the distance, n = num_buckets for a causal layer and else num_buckets / 2, near = n / 2,
    rounded down. A distance below near has a bucket of its own, bucket(r) = r; farther ones share
    wider and wider ones, and all from max_distance on the last. A key after the query has bucket 0
    in a causal layer, which hides it, and else n + bucket(r). With fewer queries than keys the
    queries are the last of the positions, as in `causal_mask`. Raffel et al., section 2.1; the
    formula is that of their code.

    Args:
        queries: the number of queries.
        keys: the number of keys, by default that of the queries.
        num_buckets: the number of buckets, an even one unless the layer is causal.
        max_distance: the distance from which on all keys share the last bucket.
        is_causal: whether the layer sees no key after the query.
        device: where the result lies.

    Returns:
        The buckets, (queries, keys), from 0 to num_buckets - 1.

    Raises:
        TypeError: one of the numbers is no whole number, or is_causal neither True nor False.
        ValueError: queries or keys below 0, fewer than 2 buckets for a direction, an odd number for
            two, or a max_distance among the near ones.

    >>> relative_buckets(1, 9, num_buckets=6, max_distance=8, is_causal=True)
    tensor([[5, 5, 5, 4, 3, 3, 2, 1, 0]])
    """
    keys = queries if keys is None else keys
    check_size("queries", queries, least=0)
    check_size("keys", keys, least=0)
    first = _first_distances(num_buckets, max_distance, is_causal)
    query_positions = torch.arange(keys - queries, keys, device=device)
    before = rearrange(query_positions, "i -> i 1") - torch.arange(keys, device=device)
    distance = before.clamp(min=0) if is_causal else before.abs()
    buckets = torch.bucketize(distance, torch.tensor(first[1:], device=device), right=True)
    return buckets if is_causal else buckets + len(first) * (before < 0)


class RelativeBias(Module):
    """A learned number for each head and each bucket of distances, to be added to the scores.

    bias(h, i, j) = table[bucket(i, j), h]

    The buckets are those of `relative_buckets`. To be given as `bias`, with an axis for the batch:
    attention(x, bias=relative(n)[None]). In T5 one table serves all layers, and the scores are not
    divided by sqrt(d). The table is (num_buckets, num_heads) and starts, as nn.Embedding does, from
    a normal distribution with mean 0 and standard deviation 1. Raffel et al., section 2.1.

    >>> RelativeBias(num_heads=2)(5).shape
    torch.Size([2, 5, 5])
    """

    def __init__(
        self,
        num_heads: int,
        *,
        num_buckets: int = 32,
        max_distance: int = 128,
        is_causal: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        """Make the table.

        Args:
            num_heads: the number of heads.
            num_buckets: the number of buckets, an even one unless the layer is causal.
            max_distance: the distance from which on all keys share the last bucket.
            is_causal: whether the layer sees no key after the query.
            device: where the table lies, by default PyTorch's default device.
            dtype: its type, by default torch.get_default_dtype().

        Raises:
            TypeError: one of the numbers is no whole number, or is_causal neither True nor False.
            ValueError: num_heads below 1, or as `relative_buckets`.
        """
        super().__init__()
        check_size("num_heads", num_heads)
        _first_distances(num_buckets, max_distance, is_causal)
        self.max_distance, self.is_causal = max_distance, is_causal
        self.table = nn.Parameter(torch.empty(num_buckets, num_heads, device=device, dtype=dtype))
        nn.init.normal_(self.table)

    def forward(self, queries: int, keys: int | None = None) -> Float[Tensor, "h queries keys"]:
        """Return the bias, (num_heads, queries, keys).

        Args:
            queries: the number of queries, the last of the positions.
            keys: the number of keys, by default that of the queries.

        Raises:
            TypeError: one of the numbers is no whole number.
            ValueError: one of them is below 0.
        """
        buckets = relative_buckets(
            queries,
            keys,
            num_buckets=len(self.table),
            max_distance=self.max_distance,
            is_causal=self.is_causal,
            device=self.table.device,
        )
        return rearrange(self.table[buckets], "i j h -> h i j")

    def extra_repr(self) -> str:
        """Say in `print(module)` what it was made with."""
        buckets, heads = self.table.shape
        return f"{heads}, {buckets} buckets up to {self.max_distance}, is_causal={self.is_causal}"


class FloaterEncoding(Module):
    """Position vectors that follow a learned differential equation from position to position.

    dp/dt = f(t, p),    f(t, p) = W_2 [relu(W_1 [p; t] + b_1); t] + b_2

    Position n stands at time n * step. Three starting points p(0), for query, key and value, move
    under the same f, by Runge and Kutta's 3/8 rule in `substeps` steps from one position to the
    next. Any length can be asked for; it costs 4 * substeps evaluations of f a position, one after
    the other, and the path may grow exponentially with length * step: with initial values and a
    step of 0.1 it is some 50 times as long at position 64 as at 0, with 0.01 hardly longer.
    W_1 is (hidden_dim, dim + 1), W_2 is (dim, hidden_dim + 1). Sizes, step and initial values are
    those of the authors' code: Xavier-normal for W, 0 for b, Xavier-uniform for p(0), (3, dim).

    That code (github.com/xuanqing94/FLOATER) adds the vectors to queries, keys and values after
    their projections, in every layer, beside a sinusoidal encoding of the input:

        p_q, p_k, p_v = floater(length)
        attend(layer.q_proj(x) + p_q, layer.k_proj(x) + p_k, layer.v_proj(x) + p_v)

    A layer that projects by itself can be given them before: layer(x + p_q, x + p_k, x + p_v) adds
    W p, learned too, in place of p. The rest differs: there every layer has a p(0) of its own under
    the one f of the encoder, gradients come from the adjoint equation, and the path is solved once
    for 255 positions and then kept for 400 updates, in which neither p(0) nor f learns. Here it is
    solved at every call, and differentiated through its steps. Liu et al. (2020).

    >>> floater = FloaterEncoding(dim=8)
    >>> [tuple(p.shape) for p in floater(length=5)]
    [(5, 8), (5, 8), (5, 8)]
    """

    def __init__(
        self,
        dim: int,
        *,
        hidden_dim: int | None = None,
        step: float = 0.01,
        substeps: int = 5,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        """Make the starting points and the two layers of f.

        Args:
            dim: the number of features of a position vector.
            hidden_dim: the number of features between the two layers, dim by default.
            step: the time from one position to the next, 0.01 by default.
            substeps: how many steps the solver takes for that, 5 by default.
            device: where the parameters lie, by default PyTorch's default device.
            dtype: their type, by default torch.get_default_dtype().

        Raises:
            TypeError: one of the sizes is no whole number, or step no number.
            ValueError: one of the sizes is below 1, or step is not above 0.
        """
        super().__init__()
        check_size("dim", dim)
        hidden_dim = dim if hidden_dim is None else hidden_dim
        check_size("hidden_dim", hidden_dim)
        check_number("step", step, above=0)
        check_size("substeps", substeps)
        self.step = step
        self.substeps = substeps
        self.start = nn.Parameter(torch.empty(3, dim, device=device, dtype=dtype))
        self.hidden = nn.Linear(dim + 1, hidden_dim, device=device, dtype=dtype)
        self.output = nn.Linear(hidden_dim + 1, dim, device=device, dtype=dtype)
        nn.init.xavier_uniform_(self.start)
        for layer in (self.hidden, self.output):
            nn.init.xavier_normal_(layer.weight)
            nn.init.zeros_(layer.bias)

    def velocity(self, time: float, p: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d"]:
        """Return f(time, p), (..., dim), computed in float32 at least, in the dtype of p.

        Args:
            time: n * step at position n; both layers see it as one feature more.
            p: points on a path, (..., dim).
        """
        # Half types are widened, weights too: a rounding is felt all along the path.
        wide = _WideLinear() if self.start.dtype in HALF else nullcontext()
        with no_autocast(p.device), wide:
            hidden = self.hidden(F.pad(widened(p), (0, 1), value=time)).relu()
            return self.output(F.pad(hidden, (0, 1), value=time)).to(p.dtype)

    def forward(
        self, length: int
    ) -> tuple[Float[Tensor, "n d"], Float[Tensor, "n d"], Float[Tensor, "n d"]]:
        """Return p_q, p_k and p_v, each (length, dim).

        Args:
            length: the number of positions.

        Raises:
            TypeError: length is no whole number.
            ValueError: length is negative.
        """
        check_size("length", length, least=0)
        p = widened(self.start)  # a half type would lose the small steps
        h = self.step / self.substeps
        path = [p]
        for n in range((length - 1) * self.substeps):
            t = n * h
            k1 = self.velocity(t, p)
            k2 = self.velocity(t + h / 3, p + h * k1 / 3)
            k3 = self.velocity(t + h * 2 / 3, p + h * (k2 - k1 / 3))
            k4 = self.velocity(t + h, p + h * (k1 - k2 + k3))
            p = p + h * (k1 + 3 * k2 + 3 * k3 + k4) / 8
            if (n + 1) % self.substeps == 0:
                path.append(p)
        p_q, p_k, p_v = rearrange(path, "n three d -> three n d").to(self.start.dtype)
        return p_q[:length], p_k[:length], p_v[:length]

    def extra_repr(self) -> str:
        """Say in `print(module)` how the equation is solved."""
        return f"step={self.step}, substeps={self.substeps}"


class _WideLinear(TorchFunctionMode):
    """While it is entered, linear layers with weights in a half type compute in float32.

    The layers stay nn.Linear, for whatever looks for these: quantisation does.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func is F.linear:
            args = tuple(widened(arg) if isinstance(arg, Tensor) else arg for arg in args)
        return func(*args, **(kwargs or {}))


def _first_distances(num_buckets: int, max_distance: int, is_causal: bool) -> list[int]:
    """Return the smallest distance in each bucket of a direction.

    From these a bucket is found by comparing whole numbers. The logarithm of the formula, rounded,
    may fall short of a whole number where it should be one.
    """
    check_flag("is_causal", is_causal)
    check_size("num_buckets", num_buckets, least=2 if is_causal else 4)
    check_size("max_distance", max_distance)
    if num_buckets % 2 and not is_causal:
        raise ValueError(f"num_buckets={num_buckets} must be even: half are for keys after a query")
    count = num_buckets if is_causal else num_buckets // 2
    near = count // 2
    if max_distance <= near:
        raise ValueError(
            f"max_distance={max_distance} must be above {near}: of num_buckets={num_buckets} the "
            "nearest distances have one each"
        )
    growth = (max_distance / near) ** (1 / (count - near))
    far = [math.ceil(near * growth**k - 1e-9) for k in range(count - near)]
    return [*range(near), *far]


def _check_pairs(dim: int, base: float, interpolation: float = 1.0, ntk: float = 1.0) -> None:
    check_size("dim", dim, least=-math.inf)
    if dim < 2 or dim % 2 != 0:
        raise ValueError(f"dim={dim} must be an even number from 2 on: features turn in pairs")
    check_number("base", base, above=0, why="its powers are the wavelengths")
    check_number("interpolation", interpolation, above=0, why="positions are divided by it")
    check_number("ntk", ntk, above=0, why="wavelengths are multiplied by its powers")
    if ntk != 1 and dim == 2:
        raise ValueError(f"ntk={ntk} changes nothing for dim=2: a single pair has no base")


def _check_precision(name: str, tensor: Tensor) -> None:
    if tensor.dtype in HALF:
        raise TypeError(
            f"{name} has dtype {tensor.dtype}, too coarse for long sequences; "
            "use torch.float32 (what is rotated may be in any floating-point type)"
        )
