"""Self-attention: a sequence looks itself up. Queries, keys and values are read off one input.

Axes: i queries, j keys, d features of a head, x features of the input; in front of them any number
of batch axes. There are as many keys as queries.

Paper: Vaswani et al. (2017), section 3.2.3, https://arxiv.org/abs/1706.03762.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from attnbook.attention import attend, causal_mask
from attnbook.checks import check_features, check_inputs, check_mask
from attnbook.module import Module


class SelfAttention(Module):
    """Attention with one head from a sequence to itself: CrossAttention with context = x.

    softmax(x W_q (x W_k)^T / sqrt(head_dim)) (x W_v)

    W_q, W_k and W_v are three different matrices (dim, head_dim); by default head_dim is dim. With
    `is_causal`, position i sees the positions 0 to i only, and of these the ones that a mask
    permits. Permuting the positions of x permutes the result in the same way, unless a mask or
    `is_causal` tells positions apart. No output projection: one head has nothing to mix. Initial
    values are those of nn.Linear. Vaswani et al., eq. 1 and section 3.2.3.

    >>> attention = SelfAttention(dim=8, is_causal=True)
    >>> context, weights = attention.attend(torch.randn(2, 3, 8))
    >>> context.shape, weights[0, 0].detach()
    (torch.Size([2, 3, 8]), tensor([1., 0., 0.]))
    """

    def __init__(
        self,
        dim: int,
        *,
        head_dim: int | None = None,
        bias: bool = True,
        is_causal: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        head_dim = dim if head_dim is None else head_dim
        self.is_causal = is_causal
        self.q_proj = nn.Linear(dim, head_dim, bias=bias, device=device, dtype=dtype)
        self.k_proj = nn.Linear(dim, head_dim, bias=bias, device=device, dtype=dtype)
        self.v_proj = nn.Linear(dim, head_dim, bias=bias, device=device, dtype=dtype)

    def forward(
        self, x: Float[Tensor, "*batch i x"], mask: Bool[Tensor, "*#batch #i #i"] | None = None
    ) -> Float[Tensor, "*batch i d"]:
        """Return one vector per position, (..., i, head_dim), by F.scaled_dot_product_attention.

        On a CPU it runs fused, in memory linear in i, where there are two batch axes.

        Raises:
            TypeError: x is not floating-point, or the mask is not boolean.
            ValueError: a wrong number of axes or features, or a mask that does not broadcast.
        """
        query, key, value = self._project(x)
        if mask is None:
            # Without a mask in memory the kernel skips the upper triangle.
            return F.scaled_dot_product_attention(query, key, value, is_causal=self.is_causal)
        return F.scaled_dot_product_attention(query, key, value, attn_mask=self._permitted(x, mask))

    def attend(
        self, x: Float[Tensor, "*batch i x"], mask: Bool[Tensor, "*#batch #i #i"] | None = None
    ) -> tuple[Float[Tensor, "*batch i d"], Float[Tensor, "*batch i i"]]:
        """Return what `forward` returns, and the weights (..., i, j), by the textbook formula."""
        return attend(*self._project(x), mask=self._permitted(x, mask))

    def extra_repr(self) -> str:
        """Say in `print(module)` whether it is causal: the projections do not show it."""
        return f"is_causal={self.is_causal}"

    def _project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        check_inputs(x=x)
        check_features("x", x, self.q_proj.in_features)
        return self.q_proj(x), self.k_proj(x), self.v_proj(x)

    def _permitted(self, x: Tensor, mask: Tensor | None) -> Tensor | None:
        length = x.shape[-2]
        if mask is not None:
            check_mask(mask, (*x.shape[:-1], length))
        if not self.is_causal:
            return mask
        causal = causal_mask(length, device=x.device)
        return causal if mask is None else causal & mask
