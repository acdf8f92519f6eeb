"""Multi-head attention: several small attentions side by side, each with projections of its own.

`forward` runs PyTorch's fused kernel; `attend` runs the textbook formula and returns each head's
weights too. The weights of nn.MultiheadAttention load unchanged.

Axes: i queries, j keys, d features of a head; q, k and v features of the three inputs, e of the
output; heads of the queries, kv heads of keys and values, group = heads / kv. The features of all
heads lie one head after the other: (heads d).

Paper: Vaswani et al. (2017), section 3.2.2, https://arxiv.org/abs/1706.03762.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from jaxtyping import Bool, Float
from torch import Tensor, nn

from attnbook.attention import attend, causal_mask
from attnbook.checks import check_bias, check_features, check_inputs, check_mask
from attnbook.module import Module


class MultiHeadAttention(Module):
    """Attention with several heads, each of which looks at features of its own.

    head_h = softmax(q_h k_h^T / sqrt(d)) v_h,    output = [head_1, ..., head_H] W_o

    q_h, k_h and v_h are the h-th slices, d = embed_dim / num_heads wide, of query W_q, key W_k and
    value W_v. W_q and W_o are (embed_dim, embed_dim), W_k is (kdim, kv d), W_v is (vdim, kv d);
    kdim and vdim are embed_dim by default. With `num_kv_heads`, kv of them, fewer than num_heads,
    each head of keys and values serves num_heads / kv neighbouring heads of queries (grouped
    queries, https://arxiv.org/abs/2305.13245). `dropout` acts on the weights, in training only.

    `rotary` is applied to the queries and keys of each head, (batch, heads, length, d). Keys are at
    0, 1, ..., and the last query at the last key: with different lengths the queries are passed as
    rotary(x, positions=...).

    Initial values are those of nn.MultiheadAttention: biases 0, W_o as in nn.Linear, W_q, W_k and
    W_v uniform by Glorot's rule, for the three stacked to one matrix if their inputs are all
    embed_dim wide, else for each. Its state_dict loads unchanged, unless it has bias_k and bias_v
    (add_bias_kv). `add_zero_attn` leaves no trace there: `attnbook.from_torch` refuses that too.

    Raises:
        ValueError: a size below 1, sizes that do not divide, or a dropout outside 0 to 1.

    >>> attention = MultiHeadAttention(embed_dim=8, num_heads=2)
    >>> output, weights = attention.attend(torch.randn(3, 5, 8), is_causal=True)
    >>> output.shape, weights.shape
    (torch.Size([3, 5, 8]), torch.Size([3, 2, 5, 5]))
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        *,
        num_kv_heads: int | None = None,
        kdim: int | None = None,
        vdim: int | None = None,
        bias: bool = True,
        dropout: float = 0.0,
        rotary: nn.Module | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        num_kv_heads = num_heads if num_kv_heads is None else num_kv_heads
        kdim = embed_dim if kdim is None else kdim
        vdim = embed_dim if vdim is None else vdim
        sizes = {"embed_dim": embed_dim, "num_heads": num_heads, "num_kv_heads": num_kv_heads}
        for name, size in {**sizes, "kdim": kdim, "vdim": vdim}.items():
            if size < 1:
                raise ValueError(f"{name}={size} must be at least 1")
        if embed_dim % num_heads:
            raise ValueError(f"embed_dim={embed_dim} is not divisible by num_heads={num_heads}")
        if num_heads % num_kv_heads:
            raise ValueError(
                f"num_heads={num_heads} is not divisible by num_kv_heads={num_kv_heads}"
            )
        if not 0 <= dropout <= 1:
            raise ValueError(f"dropout={dropout} is a probability: it must lie between 0 and 1")
        self.embed_dim, self.num_heads, self.num_kv_heads = embed_dim, num_heads, num_kv_heads
        self.head_dim = embed_dim // num_heads
        self.dropout = dropout
        self.rotary = rotary
        kv_dim = num_kv_heads * self.head_dim
        self.q_proj = nn.Linear(embed_dim, embed_dim, bias=bias, device=device, dtype=dtype)
        self.k_proj = nn.Linear(kdim, kv_dim, bias=bias, device=device, dtype=dtype)
        self.v_proj = nn.Linear(vdim, kv_dim, bias=bias, device=device, dtype=dtype)
        self.out_proj = nn.Linear(embed_dim, embed_dim, bias=bias, device=device, dtype=dtype)
        self.reset_parameters()
        self.register_load_state_dict_pre_hook(_rename_pytorchs_parameters)

    def reset_parameters(self) -> None:
        """Draw new initial values."""
        self.out_proj.reset_parameters()
        projections = (self.q_proj, self.k_proj, self.v_proj)
        stacked = all(projection.in_features == self.embed_dim for projection in projections)
        stacked_rows = sum(projection.out_features for projection in projections)
        for projection in projections:
            rows = stacked_rows if stacked else projection.out_features
            bound = math.sqrt(6 / (projection.in_features + rows))
            nn.init.uniform_(projection.weight, -bound, bound)
        for projection in (*projections, self.out_proj):
            if projection.bias is not None:
                nn.init.zeros_(projection.bias)

    def forward(
        self,
        query: Float[Tensor, "*#batch i q"],
        key: Float[Tensor, "*#batch j k"] | None = None,
        value: Float[Tensor, "*#batch j v"] | None = None,
        *,
        mask: Bool[Tensor, "*_ #i #j"] | None = None,
        bias: Float[Tensor, "*_ #i #j"] | None = None,
        is_causal: bool = False,
    ) -> Float[Tensor, "*batch i e"]:
        """Return one vector per query, (batch, i, embed_dim), computed by PyTorch's fused kernel.

        `key` is by default the query, and `value` the key. All three may come without a batch axis.
        `mask` is boolean, True where a query may attend to a key; `bias` is added to the scores.
        Their number of axes says what they are: 2 (queries, keys), 3 (batch, queries, keys) and
        never (heads, queries, keys), 4 (batch, heads, queries, keys), with 1 where it is shared.
        With `is_causal`, no query sees a key later than itself, the last query being aligned with
        the last key; a mask forbids more. A query that may see no key gets the output's bias.

        Raises:
            TypeError: an input is not floating-point, their dtypes differ, the mask is not boolean,
                or the bias not floating-point.
            ValueError: a wrong number of axes or features, key and value of different length, or
                batches, a mask or a bias that do not fit.
        """
        q, k, v = self._project(query, key, value)
        # Without a mask in memory the kernel skips the upper triangle, but it aligns the first
        # query with the first key.
        by_kernel = is_causal and mask is None and bias is None
        if not by_kernel or q.shape[-2] != k.shape[-2]:
            by_kernel = False
            mask, bias = _mask_and_bias(mask, bias, is_causal, q, k)
        if mask is not None and bias is not None:
            bias = bias.masked_fill(~mask, -math.inf)
        context = F.scaled_dot_product_attention(
            q,
            k,
            v,
            attn_mask=mask if bias is None else bias,
            dropout_p=self.dropout if self.training else 0.0,
            is_causal=by_kernel,
            enable_gqa=q.shape[1] != k.shape[1],
        )
        return self._merge(context, query.ndim)

    def attend(
        self,
        query: Float[Tensor, "*#batch i q"],
        key: Float[Tensor, "*#batch j k"] | None = None,
        value: Float[Tensor, "*#batch j v"] | None = None,
        *,
        mask: Bool[Tensor, "*_ #i #j"] | None = None,
        bias: Float[Tensor, "*_ #i #j"] | None = None,
        is_causal: bool = False,
    ) -> tuple[Float[Tensor, "*batch i e"], Float[Tensor, "*batch heads i j"]]:
        """Return what `forward` returns, and each head's weights, by the textbook formula.

        The weights are (batch, heads, i, j), before dropout.
        """
        q, k, v = self._project(query, key, value)
        mask, bias = _mask_and_bias(mask, bias, is_causal, q, k)
        group = q.shape[1] // k.shape[1]
        k, v = (repeat(x, "batch kv j d -> batch (kv group) j d", group=group) for x in (k, v))
        context, weights = attend(
            q, k, v, mask=mask, bias=bias, dropout_p=self.dropout if self.training else 0.0
        )
        output = self._merge(context, query.ndim)
        return output, weights if query.ndim == 3 else rearrange(weights, "1 h i j -> h i j")

    def extra_repr(self) -> str:
        """Say in `print(module)` what the projections do not show."""
        return f"{self.num_heads} heads, {self.num_kv_heads} of keys and values"

    def _project(
        self, query: Tensor, key: Tensor | None, value: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        key = query if key is None else key
        value = key if value is None else value
        check_inputs(query=query, key=key, value=value)
        axes = (query.ndim, key.ndim, value.ndim)
        if axes not in ((2, 2, 2), (3, 3, 3)):
            raise ValueError(
                f"query, key and value have {axes} axes, but need 3 each (batch, length, features) "
                "or 2 each (length, features)"
            )
        check_features("query", query, self.q_proj.in_features)
        check_features("key", key, self.k_proj.in_features)
        check_features("value", value, self.v_proj.in_features)
        queries, keys = query.shape[-2], key.shape[-2]
        if keys != value.shape[-2]:
            raise ValueError(
                f"there are {keys} keys but {value.shape[-2]} values: each key needs one value"
            )
        q, k, v = (
            self._split(projection(x))
            for projection, x in zip(
                (self.q_proj, self.k_proj, self.v_proj), (query, key, value), strict=True
            )
        )
        if self.rotary is not None:
            if queries == keys:
                q = self.rotary(q)
            else:
                q = self.rotary(q, positions=torch.arange(keys - queries, keys, device=q.device))
            k = self.rotary(k)
        return q, k, v

    def _split(self, x: Tensor) -> Tensor:
        # By the width of a head, not by their number: tensor parallelism leaves a process with some
        # of the heads only.
        if x.ndim == 2:
            x = rearrange(x, "i features -> 1 i features")
        return rearrange(x, "batch i (heads d) -> batch heads i d", d=self.head_dim)

    def _merge(self, context: Tensor, axes: int) -> Tensor:
        output = self.out_proj(rearrange(context, "batch heads i d -> batch i (heads d)"))
        return output if axes == 3 else rearrange(output, "1 i e -> i e")


def _mask_and_bias(
    mask: Tensor | None, bias: Tensor | None, is_causal: bool, q: Tensor, k: Tensor
) -> tuple[Tensor | None, Tensor | None]:
    """Return both with the axes of the scores; `is_causal` becomes a part of the mask."""
    queries, keys = q.shape[-2], k.shape[-2]
    (batch,) = torch.broadcast_shapes(q.shape[:1], k.shape[:1])
    shape = (batch, q.shape[1], queries, keys)
    if mask is not None:
        mask = _over_heads("mask", mask, shape, check_mask)
    if bias is not None:
        bias = _over_heads("bias", bias, shape, check_bias).to(q.dtype)
    if is_causal:
        causal = causal_mask(queries, keys, device=q.device)
        mask = causal if mask is None else causal & mask
    return mask, bias


def _over_heads(
    name: str,
    term: Tensor,
    shape: tuple[int, int, int, int],
    check: Callable[[Tensor, Sequence[int]], None],
) -> Tensor:
    batch, _, queries, keys = shape
    if term.ndim not in (2, 3, 4):
        raise ValueError(
            f"{name} has {term.ndim} axes, but needs 2 (queries, keys), 3 (batch, queries, keys) "
            "or 4 (batch, heads, queries, keys)"
        )
    if term.ndim != 3:
        check(term, shape)
        return term
    if term.shape[0] not in (1, batch):
        raise ValueError(
            f"{name} of shape {tuple(term.shape)} has 3 axes, (batch, queries, keys), but there "
            f"is a batch of {batch}; one for each head needs 4: (batch, heads, queries, keys)"
        )
    check(term, (batch, queries, keys))
    return rearrange(term, "batch i j -> batch 1 i j")


def _rename_pytorchs_parameters(
    module: nn.Module, state_dict: dict[str, Any], prefix: str, *arguments: Any
) -> None:
    """Before loading: give the parameters of an nn.MultiheadAttention the names they have here.

    PyTorch stacks W_q, W_k and W_v to one in_proj_weight where their inputs are equally wide, and
    their biases always. `load_state_dict` hands each module a copy of the caller's dictionary.
    """
    for kind in ("weight", "bias"):
        stacked = state_dict.pop(f"{prefix}in_proj_{kind}", None)
        if stacked is not None:
            for name, part in zip("qkv", stacked.tensor_split(3), strict=True):
                state_dict[f"{prefix}{name}_proj.{kind}"] = part
    for name in "qkv":
        weight = state_dict.pop(f"{prefix}{name}_proj_weight", None)
        if weight is not None:
            state_dict[f"{prefix}{name}_proj.weight"] = weight
    extra_key = state_dict.pop(f"{prefix}bias_k", None)
    extra_value = state_dict.pop(f"{prefix}bias_v", None)
    if extra_key is not None or extra_value is not None:
        *_, error_messages = arguments
        error_messages.append(
            f"{prefix}bias_k and {prefix}bias_v (add_bias_kv=True) cannot be loaded: "
            f"{type(module).__name__} has no learned extra key and value."
        )
