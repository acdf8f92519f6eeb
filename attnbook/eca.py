"""Efficient channel attention: each channel's gate is computed from its nearest neighbours alone.

timm's weights load unchanged.

Axes: b batch, c channels, h height, w width; k, the channels that one gate looks at.

Paper: Wang et al. (2019), ECA-Net, https://arxiv.org/abs/1910.03151.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from einops import einsum, rearrange, reduce
from jaxtyping import Float
from torch import Tensor, nn

from attnbook.checks import centred_padding, check_image
from attnbook.module import Module
from attnbook.squeeze_excitation import mean


def adaptive_kernel_size(channels: int, gamma: float = 2.0, beta: float = 1.0) -> int:
    """Return how many neighbouring channels a gate looks at: an odd number that grows with log2(c).

    k = the odd number nearest to |log2(c) + beta| / gamma, the larger of two that are equally near

    Eq. 12 of the paper, and the ties of the code in its figure 3. Never below 3, however: the
    formula gives 1 for fewer than eight channels, and a gate that sees one channel mixes nothing.

    Raises:
        ValueError: channels is below 1, or gamma is not above 0.

    >>> [adaptive_kernel_size(channels) for channels in (4, 64, 128, 1024, 2048)]
    [3, 3, 5, 5, 7]
    """
    if channels < 1:
        raise ValueError(f"channels={channels} must be at least 1")
    if gamma <= 0:
        raise ValueError(f"gamma={gamma} must be above 0: the kernel size is divided by it")
    size = int(abs((math.log2(channels) + beta) / gamma))
    return max(size if size % 2 else size + 1, 3)


class EfficientChannelAttention(Module):
    """Multiply each channel by a gate that depends on the means of k neighbouring channels.

    z_c = mean of channel c,    s_c = sigmoid(sum_j w_j z_(c + j - (k - 1) / 2)),    j = 0 ... k - 1

    Eq. 9 of the paper: one convolution along the channels, whose k weights are all its parameters;
    no bias, and zeros beyond the first and the last channel. Give either `channels`, from which
    k follows by `adaptive_kernel_size`, or `kernel_size`, which is k; the layer then runs on any
    number of channels. Initial values are those of nn.Conv1d, as in the authors' code.

    Raises:
        ValueError: neither or both of channels and kernel_size are given, or k is even.

    >>> layer = EfficientChannelAttention(channels=64)
    >>> x = torch.randn(2, 64, 8, 8)
    >>> layer(x).shape, layer.gate(x).shape, layer.conv.weight.shape
    (torch.Size([2, 64, 8, 8]), torch.Size([2, 64, 1, 1]), torch.Size([1, 1, 3]))
    """

    def __init__(
        self,
        channels: int | None = None,
        *,
        kernel_size: int | None = None,
        gamma: float = 2.0,
        beta: float = 1.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if channels is not None and kernel_size is None:
            kernel_size = adaptive_kernel_size(channels, gamma, beta)
        elif channels is not None or kernel_size is None:
            raise ValueError(
                f"channels={channels} and kernel_size={kernel_size}: give exactly one of them; "
                "the kernel size follows from the channels, or is said outright"
            )
        padding = centred_padding(kernel_size)
        self.conv = nn.Conv1d(
            1, 1, kernel_size, padding=padding, bias=False, device=device, dtype=dtype
        )

    def gate(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c 1 1"]:
        """Return what each channel is multiplied by, (b, c, 1, 1).

        Raises:
            TypeError: x is not floating-point.
            ValueError: x has a wrong number of axes, or an empty side.
        """
        check_image(x)
        squeezed = reduce(x, "b c h w -> b c", mean)
        (k,) = self.conv.kernel_size
        neighbours = F.pad(squeezed, (k // 2, k // 2)).unfold(-1, k, 1)
        kernel = rearrange(self.conv.weight, "1 1 k -> k").to(squeezed.dtype)
        excited = torch.sigmoid(einsum(neighbours, kernel, "b c k, k -> b c"))
        return rearrange(excited, "b c -> b c 1 1").to(x.dtype)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Return x times its gate."""
        return x * self.gate(x)
