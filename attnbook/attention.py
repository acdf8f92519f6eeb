"""Attention: a soft lookup. A query reads an average of the values, weighted by their keys' fit.

Axes: i queries, j keys and values, d features of query and key, v features of a value,
h hidden features, c features of the sequence looked at; in front of them any number of batch axes.

Papers: Bahdanau, Cho and Bengio (2014), https://arxiv.org/abs/1409.0473;
Vaswani et al. (2017), section 3.2, https://arxiv.org/abs/1706.03762.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from einops import einsum, rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from attnbook.checks import (
    check_between,
    check_bias,
    check_features,
    check_flag,
    check_floating,
    check_inputs,
    check_mask,
    check_number,
    check_scores,
    check_size,
    check_whole,
)
from attnbook.module import Module
from attnbook.precision import no_autocast, widened

Score = Callable[[Tensor, Tensor], Tensor]


def dot_product_score(
    query: Float[Tensor, "*#batch i d"], key: Float[Tensor, "*#batch j d"]
) -> Float[Tensor, "*batch i j"]:
    """Score every key for every query by their dot product, divided by its standard deviation.

    q . k / sqrt(d)

    Vaswani et al., eq. 1. If the d components of q and k are independent with variance 1, q . k
    has variance d. Half types are scored in float32, under autocast too, and the query is scaled
    before the product: a sum of 64 products overflows float16 long before its 64 factors do.

    Raises:
        TypeError: an input is not floating-point, or the dtypes differ.
        ValueError: query and key have different numbers of features, or fewer than two axes.

    >>> dot_product_score(torch.tensor([[3.0, 4.0]]), torch.tensor([[1.0, 1.0], [1.0, 0.0]]))
    tensor([[4.9497, 2.1213]])
    """
    check_inputs(query=query, key=key)
    if query.shape[-1] != key.shape[-1]:
        raise ValueError(
            f"query has {query.shape[-1]} features but key has {key.shape[-1]}: "
            "a dot product needs equally many; project one of them"
        )
    query = widened(query) / math.sqrt(max(query.shape[-1], 1))
    with no_autocast(query.device):
        return einsum(query, widened(key), "... i d, ... j d -> ... i j")


def cosine_score(
    query: Float[Tensor, "*#batch i d"],
    key: Float[Tensor, "*#batch j d"],
    *,
    scale: float | Float[Tensor, ""] = 1.0,
) -> Float[Tensor, "*batch i j"]:
    """Score every key for every query by the cosine of the angle between them.

    scale * q . k / (|q| |k|)

    The cosine lies between -1 and 1 whatever d is, so there is no sqrt(d) here; `scale` decides how
    sharp the softmax can get. A vector of zeros scores 0. Half types are scored in float32.

    Raises:
        TypeError: an input is not floating-point, the dtypes differ, or scale is no number.
        ValueError: query and key have different numbers of features, or fewer than two axes.

    >>> cosine_score(torch.tensor([[3.0, 4.0]]), torch.tensor([[6.0, 8.0], [-3.0, -4.0]]))
    tensor([[ 1., -1.]])
    """
    check_inputs(query=query, key=key)
    if not isinstance(scale, Tensor):
        check_number("scale", scale)
    query, key = (F.normalize(widened(x), dim=-1) for x in (query, key))
    return scale * math.sqrt(query.shape[-1]) * dot_product_score(query, key)


class CosineScore(Module):
    """Cosine score whose scale is learned: exp(log_scale) * q . k / (|q| |k|).

    The logarithm is the parameter, so that the scale stays positive; it starts at log(init_scale).
    Swin Transformer V2, https://arxiv.org/abs/2111.09883, learns the same with 1/tau for the scale.

    >>> CosineScore()(torch.eye(2), torch.eye(2)).detach()
    tensor([[10.,  0.],
            [ 0., 10.]])
    """

    def __init__(
        self,
        init_scale: float = 10.0,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        """Set up the score with a scale of `init_scale`.

        Args:
            init_scale: the scale before training, above 0; 10 by default.
            device: where the parameter lies; PyTorch's default device by default.
            dtype: its type; PyTorch's default type by default.

        Raises:
            TypeError: init_scale is no number.
            ValueError: init_scale is not above 0.
        """
        super().__init__()
        check_number("init_scale", init_scale, above=0, why="its logarithm is learned")
        self.log_scale = nn.Parameter(
            torch.full((), math.log(init_scale), device=device, dtype=dtype)
        )

    def forward(
        self, query: Float[Tensor, "*#batch i d"], key: Float[Tensor, "*#batch j d"]
    ) -> Float[Tensor, "*batch i j"]:
        """Return the scores, (..., i, j).

        query: (..., i, d); key: (..., j, d). Errors are those of `cosine_score`.
        """
        return cosine_score(query, key, scale=self.log_scale.exp())


class AdditiveScore(Module):
    """Score by a small network with one hidden layer: v . tanh(W q + U k).

    W is (h, query_dim), U is (h, key_dim), v is (h,): query and key may differ in size. No biases.
    Bahdanau et al., appendix A.1.2. Initial values are those of nn.Linear. The layers compute in
    the type of their weights, and under autocast in its type: unlike a dot product, tanh keeps
    every sum within h times the largest |v|, so nothing overflows.

    >>> score = AdditiveScore(query_dim=5, key_dim=3, hidden_dim=8)
    >>> score(torch.ones(2, 5), torch.ones(4, 3)).shape
    torch.Size([2, 4])
    """

    def __init__(
        self,
        query_dim: int,
        key_dim: int,
        hidden_dim: int,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        """Set up the three layers.

        Args:
            query_dim: features of a query, at least 1.
            key_dim: features of a key, at least 1.
            hidden_dim: hidden features, h, at least 1.
            device: where the parameters lie; PyTorch's default device by default.
            dtype: their type; PyTorch's default type by default.

        Raises:
            TypeError: a size is no whole number.
            ValueError: a size is below 1.
        """
        super().__init__()
        sizes = {"query_dim": query_dim, "key_dim": key_dim, "hidden_dim": hidden_dim}
        for name, size in sizes.items():
            check_size(name, size)
        self.query_dim, self.key_dim = query_dim, key_dim
        self.w = nn.Linear(query_dim, hidden_dim, bias=False, device=device, dtype=dtype)
        self.u = nn.Linear(key_dim, hidden_dim, bias=False, device=device, dtype=dtype)
        self.v = nn.Linear(hidden_dim, 1, bias=False, device=device, dtype=dtype)

    def forward(
        self, query: Float[Tensor, "*#batch i q"], key: Float[Tensor, "*#batch j k"]
    ) -> Float[Tensor, "*batch i j"]:
        """Return the scores, (..., i, j).

        query: (..., i, query_dim); key: (..., j, key_dim).

        Raises:
            TypeError: an input is not floating-point, or the dtypes differ.
            ValueError: a wrong number of axes or features, or batch axes that do not broadcast.
        """
        check_inputs(query=query, key=key)
        check_features("query", query, self.query_dim)
        check_features("key", key, self.key_dim)
        hidden = torch.tanh(
            rearrange(self.w(query), "... i h -> ... i 1 h")
            + rearrange(self.u(key), "... j h -> ... 1 j h")
        )
        return rearrange(self.v(hidden), "... i j 1 -> ... i j")


def masked_softmax(
    scores: Float[Tensor, "*batch i j"], mask: Bool[Tensor, "*#batch #i #j"] | None = None
) -> Float[Tensor, "*batch i j"]:
    """Turn each row of scores into weights that sum to 1, with weight 0 where `mask` is False.

    weight_ij = exp(score_ij) / sum_j' exp(score_ij')    over the permitted keys j'

    A row with no permitted key is all zeros, never NaN, and its gradients are finite. A score of
    `-inf` forbids its key as a mask does, and a NaN where the mask is False changes nothing. Half
    types are summed in float32.

    Raises:
        TypeError: the scores are not floating-point, or the mask is not boolean.
        ValueError: the mask does not broadcast to the scores.

    >>> masked_softmax(torch.zeros(2, 2), torch.tensor([[True, True], [False, False]]))
    tensor([[0.5000, 0.5000],
            [0.0000, 0.0000]])
    """
    check_floating("scores", scores)
    permitted = scores != -math.inf
    if mask is not None:
        check_mask(mask, scores.shape)
        permitted = permitted & mask
    empty = ~permitted.any(dim=-1, keepdim=True)
    scores_or_zero = scores.masked_fill(~permitted, -math.inf).masked_fill(empty, 0.0)
    return widened(scores_or_zero).softmax(dim=-1).masked_fill(empty, 0.0).to(scores.dtype)


def attend(
    query: Float[Tensor, "*#batch i d"],
    key: Float[Tensor, "*#batch j k"],
    value: Float[Tensor, "*#batch j v"],
    *,
    score: Score = dot_product_score,
    mask: Bool[Tensor, "*#batch #i #j"] | None = None,
    bias: Float[Tensor, "*#batch #i #j"] | None = None,
    dropout_p: float = 0.0,
) -> tuple[Float[Tensor, "*batch i v"], Float[Tensor, "*batch i j"]]:
    """Look each query up among the keys; return the averages of the values, and the weights.

    weights = softmax_j(score(q_i, k_j) + bias_ij),    context_i = sum_j weights_ij v_j

    `mask` is boolean, True where a query may attend to a key; `bias` is added to the scores. Both
    broadcast to (..., i, j). With `dropout_p` above 0, dropout acts on the weights that are used;
    the weights returned are those before it. Both results have the dtype of the value; softmax and
    average are computed in float32 for half types, under autocast too. What stands in a key, or in
    its value, that no query of its row of the batch may see reaches nothing, NaN and infinity
    included: padding may hold anything.

    query: (..., i, d); key: (..., j, k); value: (..., j, v). `score` takes query and key and
    returns (..., i, j).

    Raises:
        TypeError: an input is not floating-point, the dtypes differ, the mask is not boolean, or
            score is not callable.
        ValueError: an input has fewer than two axes, key and value differ in length, the batch
            axes do not broadcast, mask or bias do not broadcast to the scores, the scores have
            another shape than (..., i, j), or dropout_p lies outside 0 to 1.

    >>> query, key, value = torch.randn(2, 8), torch.randn(5, 8), torch.randn(5, 3)
    >>> context, weights = attend(query, key, value)
    >>> context.shape, weights.shape
    (torch.Size([2, 3]), torch.Size([2, 5]))
    """
    check_inputs(query=query, key=key, value=value)
    if key.shape[-2] != value.shape[-2]:
        raise ValueError(
            f"there are {key.shape[-2]} keys but {value.shape[-2]} values: each key needs one value"
        )
    if not callable(score):
        raise TypeError(f"score={score!r} has type {type(score).__name__}, but must be a function")
    check_number("dropout_p", dropout_p, least=0, most=1, why="it is a probability")
    batch = torch.broadcast_shapes(query.shape[:-2], key.shape[:-2])
    shape = (*batch, query.shape[-2], key.shape[-2])
    if mask is not None:
        check_mask(mask, shape)
        key, value = seen(key, mask), seen(value, mask)
    scores = score(query, key)
    check_scores(scores, shape)
    if bias is not None:
        check_bias(bias, shape)
        scores = scores + bias
    weights = masked_softmax(widened(scores), mask)
    with no_autocast(query.device):
        context = einsum(
            F.dropout(weights, dropout_p), widened(value), "... i j, ... j v -> ... i v"
        )
    return context.to(value.dtype), weights.to(value.dtype)


def seen(
    x: Float[Tensor, "*#batch j c"], mask: Bool[Tensor, "*#batch #i #j"]
) -> Float[Tensor, "*batch j c"]:
    """Return x with zeros in the rows that no query may see, whatever stood there.

    A weight of 0 times NaN is NaN, so NaN in padding has to go before it is weighted; and before
    it is projected, if the gradients of the projection are to be finite.

    >>> seen(torch.tensor([[1.0], [math.nan]]), torch.tensor([[True, False], [True, False]]))
    tensor([[1.],
            [0.]])
    """
    anyone = _any(torch.atleast_2d(mask), dim=-2)
    return torch.where(rearrange(anyone, "... 1 j -> ... j 1"), x, 0.0)


def _any(mask: Tensor, dim: int) -> Tensor:
    # mask.any(dim, keepdim=True), which takes a CPU twenty times as long on a whole mask.
    if mask.shape[dim] == 0:
        return mask.any(dim, keepdim=True)
    return mask.byte().amax(dim, keepdim=True).bool()


def attend_fused(
    query: Float[Tensor, "*#batch i d"],
    key: Float[Tensor, "*#batch j d"],
    value: Float[Tensor, "*#batch j v"],
    *,
    mask: Bool[Tensor, "*#batch #i #j"] | None = None,
    bias: Float[Tensor, "*#batch #i #j"] | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    enable_gqa: bool = False,
) -> Float[Tensor, "*batch i v"]:
    """Return the context of `attend`, by F.scaled_dot_product_attention: the weights stay unseen.

    A query from which the mask hides all keys gets zeros. What a kernel makes of such a query
    (zeros, NaN, the mean of all values) differs from kernel to kernel: here it may see everything,
    and its context is set to 0 afterwards. A bias of `-inf` is left to the kernel. `is_causal`, the
    kernel's own, aligns the first query with the first key and is for as many queries as keys.

    >>> query, key, value = torch.randn(2, 8), torch.randn(5, 8), torch.randn(5, 3)
    >>> torch.allclose(attend_fused(query, key, value), attend(query, key, value)[0], atol=1e-6)
    True
    """
    empty = None
    if mask is not None:
        empty = ~_any(mask, dim=-1)
        mask = mask | empty
    if mask is not None and bias is not None:
        bias = bias.masked_fill(~mask, -math.inf)
    context = F.scaled_dot_product_attention(
        query,
        key,
        value,
        attn_mask=mask if bias is None else bias,
        dropout_p=dropout_p,
        is_causal=is_causal,
        enable_gqa=enable_gqa,
    )
    return context if empty is None else torch.where(empty, 0.0, context)


def attend_with_one_head(
    query: Float[Tensor, "*#batch i d"],
    key: Float[Tensor, "*#batch j d"],
    value: Float[Tensor, "*#batch j v"],
    *,
    mask: Bool[Tensor, "*#batch #i #j"] | None = None,
    is_causal: bool = False,
) -> Float[Tensor, "*batch i v"]:
    """Return what `attend_fused` returns, in memory linear in i and j whatever the batch axes are.

    PyTorch runs fused on four axes only, (batch, heads, rows, features), of which the first two
    must be equal: shorter shapes get axes in front, and those that broadcast are written out.

    >>> query, key, value = torch.randn(2, 8), torch.randn(4, 5, 8), torch.randn(4, 5, 3)
    >>> attend_with_one_head(query, key, value).shape
    torch.Size([4, 2, 3])
    """
    batch = torch.broadcast_shapes(query.shape[:-2], key.shape[:-2])
    query, key, value = (
        x.expand(*batch, *x.shape[-2:])[(None,) * (2 - len(batch))] for x in (query, key, value)
    )
    if mask is not None:
        mask = mask[(None,) * (4 - mask.ndim)]
    context = attend_fused(query, key, value, mask=mask, is_causal=is_causal)
    return context.reshape(*batch, *context.shape[-2:])


def causal_mask(
    queries: int, keys: int | None = None, *, device: torch.device | str | None = None
) -> Bool[Tensor, "queries keys"]:
    """Return the mask in which a query sees no key later than itself: j <= i + keys - queries.

    The last query is aligned with the last key (lower right), as decoding needs it: the queries
    are the newest of the keys. With more queries than keys the first rows see nothing.

    Args:
        queries: how many, at least 0.
        keys: how many, at least 0; as many as queries by default.
        device: where the mask lies; PyTorch's default device by default.

    Raises:
        TypeError: a number is no whole number.
        ValueError: a number is below 0.

    >>> causal_mask(2, 3)
    tensor([[ True,  True, False],
            [ True,  True,  True]])
    """
    keys = queries if keys is None else keys
    check_size("queries", queries, least=0)
    check_size("keys", keys, least=0)
    last_key = torch.arange(keys - queries, keys, device=device)
    return torch.arange(keys, device=device) <= rearrange(last_key, "i -> i 1")


def padding_mask(lengths: Int[Tensor, " batch"], keys: int) -> Bool[Tensor, "batch 1 keys"]:
    """Return the mask in which sequence b of a padded batch shows its first lengths[b] keys only.

    It lies where the lengths do. For an attention with several heads written out, scores
    (batch, heads, queries, keys), it needs one axis more: mask[:, None].

    Raises:
        TypeError: lengths is no tensor of integers, or keys no whole number.
        ValueError: lengths has more than one axis, keys is below 0, or a length is negative or
            above `keys`. The lengths themselves are looked at on a CPU only, since a GPU would have
            to be waited for, and where they have values: not inside torch.compile, vmap, or on
            the meta device.

    >>> padding_mask(torch.tensor([1, 3]), keys=3)
    tensor([[[ True, False, False]],
    <BLANKLINE>
            [[ True,  True,  True]]])
    """
    check_whole("lengths", lengths)
    check_size("keys", keys, least=0)
    if lengths.ndim != 1:
        raise ValueError(f"lengths has shape {tuple(lengths.shape)}, but needs one axis: (batch,)")
    check_between("lengths", lengths, 0, keys, most_is="keys")
    return torch.arange(keys, device=lengths.device) < rearrange(lengths, "b -> b 1 1")


class CrossAttention(Module):
    """Attention with one head from one sequence, `x`, to another, `context`.

    softmax(x W_q (context W_k)^T / sqrt(head_dim)) (context W_v)

    Queries are read off x; keys and values off the context. W_q is (query_dim, head_dim), W_k and
    W_v are (context_dim, head_dim); by default context_dim and head_dim are query_dim. Initial
    values are those of nn.Linear. Vaswani et al., section 3.2.3.

    >>> cross = CrossAttention(query_dim=8, context_dim=6)
    >>> cross(torch.randn(2, 3, 8), torch.randn(2, 5, 6)).shape
    torch.Size([2, 3, 8])
    """

    def __init__(
        self,
        query_dim: int,
        context_dim: int | None = None,
        *,
        head_dim: int | None = None,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        """Set up the three projections.

        Args:
            query_dim: features of x, at least 1.
            context_dim: features of the context; query_dim by default.
            head_dim: features of queries, keys and values, and so of the result; query_dim by
                default.
            bias: whether the projections have biases; True by default.
            device: where the parameters lie; PyTorch's default device by default.
            dtype: their type; PyTorch's default type by default.

        Raises:
            TypeError: a size is no whole number, or bias neither True nor False.
            ValueError: a size is below 1.
        """
        super().__init__()
        context_dim = query_dim if context_dim is None else context_dim
        head_dim = query_dim if head_dim is None else head_dim
        sizes = {"query_dim": query_dim, "context_dim": context_dim, "head_dim": head_dim}
        for name, size in sizes.items():
            check_size(name, size)
        check_flag("bias", bias)
        self.query_dim, self.context_dim = query_dim, context_dim
        self.q_proj = nn.Linear(query_dim, head_dim, bias=bias, device=device, dtype=dtype)
        self.k_proj = nn.Linear(context_dim, head_dim, bias=bias, device=device, dtype=dtype)
        self.v_proj = nn.Linear(context_dim, head_dim, bias=bias, device=device, dtype=dtype)

    def forward(
        self,
        x: Float[Tensor, "*#batch i q"],
        context: Float[Tensor, "*#batch j c"],
        mask: Bool[Tensor, "*#batch #i #j"] | None = None,
    ) -> Float[Tensor, "*batch i d"]:
        """Return one vector per query, (..., i, head_dim), by F.scaled_dot_product_attention.

        x: (..., i, query_dim); context: (..., j, context_dim); mask: boolean, True where a query
        may see a row of the context, broadcast to (..., i, j). For padding: (batch, 1, j).

        It runs fused, in memory linear in i and j, with up to two batch axes. A query that may see
        nothing gets zeros. A row of the context that no query may see may hold anything, NaN too,
        and changes neither results nor gradients. The fused kernels have no second derivatives and
        no forward-mode ones: `attend` has, and so has this under
        `torch.nn.attention.sdpa_kernel(SDPBackend.MATH)`.

        Raises:
            TypeError: an input is not floating-point, the dtypes differ, or the mask is not
                boolean.
            ValueError: a wrong number of axes or features, or a mask that does not broadcast.
        """
        query, key, value = self._project(x, context, mask)
        return attend_with_one_head(query, key, value, mask=mask)

    def attend(
        self,
        x: Float[Tensor, "*#batch i q"],
        context: Float[Tensor, "*#batch j c"],
        mask: Bool[Tensor, "*#batch #i #j"] | None = None,
    ) -> tuple[Float[Tensor, "*batch i d"], Float[Tensor, "*batch i j"]]:
        """Return what `forward` returns, and the weights (..., i, j), by the textbook formula.

        The arguments and errors are those of `forward`.
        """
        return attend(*self._project(x, context, mask), mask=mask)

    def _project(
        self, x: Tensor, context: Tensor, mask: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        check_inputs(x=x, context=context)
        check_features("x", x, self.query_dim)
        check_features("context", context, self.context_dim)
        if mask is not None:
            batch = torch.broadcast_shapes(x.shape[:-2], context.shape[:-2])
            check_mask(mask, (*batch, x.shape[-2], context.shape[-2]))
            context = seen(context, mask)
        return self.q_proj(x), self.k_proj(context), self.v_proj(context)
