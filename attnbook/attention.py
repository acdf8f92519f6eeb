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

from attnbook.checks import check_bias, check_features, check_inputs, check_mask
from attnbook.module import Module

Score = Callable[[Tensor, Tensor], Tensor]


def dot_product_score(
    query: Float[Tensor, "*#batch i d"], key: Float[Tensor, "*#batch j d"]
) -> Float[Tensor, "*batch i j"]:
    """Score every key for every query by their dot product, divided by its standard deviation.

    q . k / sqrt(d)

    Vaswani et al., eq. 1. If the d components of q and k are independent with variance 1, q . k
    has variance d. Half types are scored in float32, and the query is scaled before the product:
    a sum of 64 products overflows float16 long before its 64 factors do.

    Raises:
        ValueError: query and key have different numbers of features.

    >>> dot_product_score(torch.tensor([[3.0, 4.0]]), torch.tensor([[1.0, 1.0], [1.0, 0.0]]))
    tensor([[4.9497, 2.1213]])
    """
    if query.shape[-1] != key.shape[-1]:
        raise ValueError(
            f"query has {query.shape[-1]} features but key has {key.shape[-1]}: "
            "a dot product needs equally many; project one of them"
        )
    dtype = torch.promote_types(query.dtype, torch.float32)
    query = query.to(dtype) / math.sqrt(max(query.shape[-1], 1))
    return einsum(query, key.to(dtype), "... i d, ... j d -> ... i j")


def cosine_score(
    query: Float[Tensor, "*#batch i d"],
    key: Float[Tensor, "*#batch j d"],
    *,
    scale: float | Float[Tensor, ""] = 1.0,
) -> Float[Tensor, "*batch i j"]:
    """Score every key for every query by the cosine of the angle between them.

    scale * q . k / (|q| |k|)

    The cosine lies between -1 and 1 whatever d is, so there is no sqrt(d) here; `scale` decides how
    sharp the softmax can get. A vector of zeros scores 0.

    Raises:
        ValueError: query and key have different numbers of features.

    >>> cosine_score(torch.tensor([[3.0, 4.0]]), torch.tensor([[6.0, 8.0], [-3.0, -4.0]]))
    tensor([[ 1., -1.]])
    """
    dtype = torch.promote_types(query.dtype, torch.float32)
    query, key = (F.normalize(x.to(dtype), dim=-1) for x in (query, key))
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
        super().__init__()
        if not init_scale > 0:
            raise ValueError(f"init_scale={init_scale} must be above 0: its logarithm is learned")
        self.log_scale = nn.Parameter(
            torch.full((), math.log(init_scale), device=device, dtype=dtype)
        )

    def forward(
        self, query: Float[Tensor, "*#batch i d"], key: Float[Tensor, "*#batch j d"]
    ) -> Float[Tensor, "*batch i j"]:
        """Return the scores, (..., i, j)."""
        return cosine_score(query, key, scale=self.log_scale.exp())


class AdditiveScore(Module):
    """Score by a small network with one hidden layer: v . tanh(W q + U k).

    W is (h, query_dim), U is (h, key_dim), v is (h,): query and key may differ in size. No biases.
    Bahdanau et al., appendix A.1.2. Initial values are those of nn.Linear.

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
        super().__init__()
        self.w = nn.Linear(query_dim, hidden_dim, bias=False, device=device, dtype=dtype)
        self.u = nn.Linear(key_dim, hidden_dim, bias=False, device=device, dtype=dtype)
        self.v = nn.Linear(hidden_dim, 1, bias=False, device=device, dtype=dtype)

    def forward(
        self, query: Float[Tensor, "*#batch i q"], key: Float[Tensor, "*#batch j k"]
    ) -> Float[Tensor, "*batch i j"]:
        """Return the scores, (..., i, j).

        Raises:
            ValueError: query or key has another number of features than the layer was made for.
        """
        check_features("query", query, self.w.in_features)
        check_features("key", key, self.u.in_features)
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
    `-inf` forbids its key as a mask does. Half types are summed in float32.

    Raises:
        TypeError: the mask is not boolean.
        ValueError: the mask does not broadcast to the scores.

    >>> masked_softmax(torch.zeros(2, 2), torch.tensor([[True, True], [False, False]]))
    tensor([[0.5000, 0.5000],
            [0.0000, 0.0000]])
    """
    permitted = scores != -math.inf
    if mask is not None:
        check_mask(mask, scores.shape)
        permitted = permitted & mask
    empty = ~permitted.any(dim=-1, keepdim=True)
    dtype = torch.promote_types(scores.dtype, torch.float32)
    scores_or_zero = scores.masked_fill(~permitted, -math.inf).masked_fill(empty, 0.0)
    return scores_or_zero.softmax(dim=-1, dtype=dtype).masked_fill(empty, 0.0).to(scores.dtype)


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
    the weights returned are those before it. Both results have the dtype of the value.

    Raises:
        TypeError: an input is not floating-point, the dtypes differ, or the mask is not boolean.
        ValueError: an input has fewer than two axes, key and value differ in length, the batch
            axes do not broadcast, or mask or bias do not broadcast to the scores.

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
    scores = score(query, key)
    if bias is not None:
        check_bias(bias, scores.shape)
        scores = scores + bias
    weights = masked_softmax(scores, mask)
    context = einsum(
        F.dropout(weights, dropout_p), value.to(weights.dtype), "... i j, ... j v -> ... i v"
    )
    return context.to(value.dtype), weights.to(value.dtype)


def causal_mask(
    queries: int, keys: int | None = None, *, device: torch.device | str | None = None
) -> Bool[Tensor, "queries keys"]:
    """Return the mask in which a query sees no key later than itself: j <= i + keys - queries.

    The last query is aligned with the last key (lower right), as decoding needs it: the queries
    are the newest of the keys. With more queries than keys the first rows see nothing.

    >>> causal_mask(2, 3)
    tensor([[ True,  True, False],
            [ True,  True,  True]])
    """
    keys = queries if keys is None else keys
    last_key = torch.arange(keys - queries, keys, device=device)
    return torch.arange(keys, device=device) <= rearrange(last_key, "i -> i 1")


def padding_mask(lengths: Int[Tensor, " batch"], keys: int) -> Bool[Tensor, "batch 1 keys"]:
    """Return the mask in which sequence b of a padded batch shows its first lengths[b] keys only.

    Raises:
        TypeError: the lengths are not integers.
        ValueError: a length is negative or above `keys` (checked where lengths have values: not
            inside torch.compile, nor on the meta device).

    >>> padding_mask(torch.tensor([1, 3]), keys=3)
    tensor([[[ True, False, False]],
    <BLANKLINE>
            [[ True,  True,  True]]])
    """
    if lengths.is_floating_point() or lengths.is_complex() or lengths.dtype == torch.bool:
        raise TypeError(f"lengths has dtype {lengths.dtype}, not an integer type")
    if lengths.numel() > 0 and not (torch.compiler.is_compiling() or lengths.is_meta):
        shortest, longest = lengths.aminmax()
        if shortest < 0 or longest > keys:
            raise ValueError(
                f"lengths run from {int(shortest)} to {int(longest)}, "
                f"but must lie between 0 and keys={keys}"
            )
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
        super().__init__()
        context_dim = query_dim if context_dim is None else context_dim
        head_dim = query_dim if head_dim is None else head_dim
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

        On a CPU it runs fused, in memory linear in i and j, where there are two batch axes.

        Raises:
            TypeError: an input is not floating-point, or the mask is not boolean.
            ValueError: a wrong number of axes or features, or a mask that does not broadcast.
        """
        query, key, value = self._project(x, context)
        if mask is not None:
            batch = torch.broadcast_shapes(query.shape[:-2], key.shape[:-2])
            check_mask(mask, (*batch, query.shape[-2], key.shape[-2]))
        return F.scaled_dot_product_attention(query, key, value, attn_mask=mask)

    def attend(
        self,
        x: Float[Tensor, "*#batch i q"],
        context: Float[Tensor, "*#batch j c"],
        mask: Bool[Tensor, "*#batch #i #j"] | None = None,
    ) -> tuple[Float[Tensor, "*batch i d"], Float[Tensor, "*batch i j"]]:
        """Return what `forward` returns, and the weights (..., i, j), by the textbook formula."""
        return attend(*self._project(x, context), mask=mask)

    def _project(self, x: Tensor, context: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        check_inputs(x=x, context=context)
        check_features("x", x, self.q_proj.in_features)
        check_features("context", context, self.k_proj.in_features)
        return self.q_proj(x), self.k_proj(context), self.v_proj(context)
