"""Self-attention: a sequence looks itself up. Queries, keys and values are read off one input.

Axes: i queries, j keys, d features of a head, x features of the input; in front of them any number
of batch axes. There are as many keys as queries.

Paper: Vaswani et al. (2017), section 3.2.3, https://arxiv.org/abs/1706.03762.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from attnbook.attention import attend, attend_with_one_head, causal_mask, seen
from attnbook.checks import check_features, check_flag, check_inputs, check_mask, check_size
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
        """Set up the three projections.

        Args:
            dim: features of x, at least 1.
            head_dim: features of queries, keys and values, and so of the result; dim by default.
            bias: whether the projections have biases; True by default.
            is_causal: whether a position sees no later one; False by default.
            device: where the parameters lie; PyTorch's default device by default.
            dtype: their type; PyTorch's default type by default.

        Raises:
            TypeError: a size is no whole number, or bias or is_causal neither True nor False.
            ValueError: a size is below 1.
        """
        super().__init__()
        head_dim = dim if head_dim is None else head_dim
        check_size("dim", dim)
        check_size("head_dim", head_dim)
        check_flag("bias", bias)
        check_flag("is_causal", is_causal)
        self.dim, self.is_causal = dim, is_causal
        self.q_proj = nn.Linear(dim, head_dim, bias=bias, device=device, dtype=dtype)
        self.k_proj = nn.Linear(dim, head_dim, bias=bias, device=device, dtype=dtype)
        self.v_proj = nn.Linear(dim, head_dim, bias=bias, device=device, dtype=dtype)

    def forward(
        self, x: Float[Tensor, "*batch i x"], mask: Bool[Tensor, "*#batch #i #i"] | None = None
    ) -> Float[Tensor, "*batch i d"]:
        """Return one vector per position, (..., i, head_dim), by F.scaled_dot_product_attention.

        x: (..., i, dim); mask: boolean, True where a position may see another one, broadcast to
        (..., i, i). For padding: (batch, 1, i).

        It runs fused, in memory linear in i, with up to two batch axes. A position that may see
        nothing gets zeros. One that no position may see may hold anything, NaN too, and changes no
        result but its own. The fused kernels have no second derivatives and no forward-mode ones:
        `attend` has, and so has this under `torch.nn.attention.sdpa_kernel(SDPBackend.MATH)`.

        Raises:
            TypeError: x is not floating-point, or the mask is not boolean.
            ValueError: a wrong number of axes or features, or a mask that does not broadcast.
        """
        query, key, value, mask = self._project(x, mask)
        # Without a mask in memory the kernel skips the upper triangle.
        causal = self.is_causal and mask is None
        return attend_with_one_head(query, key, value, mask=mask, is_causal=causal)

    def attend(
        self, x: Float[Tensor, "*batch i x"], mask: Bool[Tensor, "*#batch #i #i"] | None = None
    ) -> tuple[Float[Tensor, "*batch i d"], Float[Tensor, "*batch i i"]]:
        """Return what `forward` returns, and the weights (..., i, j), by the textbook formula.

        The arguments and errors are those of `forward`.
        """
        query, key, value, mask = self._project(x, mask)
        if self.is_causal and mask is None:
            mask = causal_mask(x.shape[-2], device=x.device)
        return attend(query, key, value, mask=mask)

    def extra_repr(self) -> str:
        """Say in `print(module)` whether it is causal: the projections do not show it."""
        return f"is_causal={self.is_causal}"

    def _project(
        self, x: Tensor, mask: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        check_inputs(x=x)
        check_features("x", x, self.dim)
        if mask is None:
            return self.q_proj(x), self.k_proj(x), self.v_proj(x), None
        length = x.shape[-2]
        check_mask(mask, (*x.shape[:-1], length))
        if self.is_causal:
            mask = mask & causal_mask(length, device=x.device)
        context = seen(x, mask)
        return self.q_proj(x), self.k_proj(context), self.v_proj(context), mask
