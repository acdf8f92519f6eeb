"""Efficient channel attention: each channel's gate is computed from its nearest neighbours alone.

timm's weights load unchanged, and the authors' into a layer of their kernel size.

Axes: b batch, c channels, h height, w width; k, the channels that one gate looks at.

Paper: Wang et al. (2019), ECA-Net, https://arxiv.org/abs/1910.03151.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from einops import einsum, rearrange
from jaxtyping import Float
from torch import Tensor, fx, nn

from attnbook.checks import centred_padding, check_image, check_number, check_size
from attnbook.module import Module
from attnbook.precision import no_autocast
from attnbook.squeeze_excitation import mean


def adaptive_kernel_size(channels: int, gamma: float = 2.0, beta: float = 1.0) -> int:
    """Return how many neighbouring channels a gate looks at: an odd number that grows with log2(c).

    k = the odd number nearest to |log2(c) + beta| / gamma, the larger of two that are equally near

    Eq. 12 of the paper, and the ties of the code in its figure 3. Never below 3, however: the
    formula gives 1 for fewer than eight channels, and a gate that sees one channel mixes nothing.

    Raises:
        TypeError: channels is no whole number, or gamma or beta is no number.
        ValueError: channels is below 1, gamma is not above 0, or beta is not finite.

    >>> [adaptive_kernel_size(channels) for channels in (4, 64, 128, 1024, 2048)]
    [3, 3, 5, 5, 7]
    """
    check_size("channels", channels)
    check_number("gamma", gamma, above=0.0, why="the kernel size is divided by it")
    check_number("beta", beta, least=-1e6, most=1e6)
    size = int(abs((math.log2(channels) + beta) / gamma))
    return max(size if size % 2 else size + 1, 3)


class EfficientChannelAttention(Module):
    """Multiply each channel by a gate that depends on the means of k neighbouring channels.

    z_c = mean of channel c,    s_c = sigmoid(sum_j w_j z_(c + j - (k - 1) / 2)),    j = 0 ... k - 1

    Eq. 9 of the paper: one convolution along the channels, whose k weights are all its parameters;
    no bias, and zeros beyond the first and the last channel. Give either `channels`, from which
    k follows by `adaptive_kernel_size`, or `kernel_size`, which is k; the layer then runs on any
    number of channels. Initial values are those of nn.Conv1d, as in the authors' code. For half
    types everything up to the sigmoid is computed in float32, under autocast too. torch.onnx.export
    takes it with any sizes, its older form (`dynamo=False`) with fixed ones only.

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
        """Make the convolution along the channels.

        Args:
            channels: channels of the image, from which the kernel size follows; None.
            kernel_size: the channels that one gate looks at, odd; None. Give one of the two.
            gamma: what the kernel size of `channels` is divided by; 2 as in the paper.
            beta: what is added to log2(channels); 1 as in the paper.
            device: where the parameters lie; PyTorch's default device.
            dtype: type of the parameters; PyTorch's default type.

        Raises:
            TypeError: a size is no whole number, or gamma or beta is no number.
            ValueError: neither or both of channels and kernel_size are given, a size is below 1,
                kernel_size is even, or gamma is not above 0.
        """
        super().__init__()
        if channels is not None and kernel_size is None:
            kernel_size = adaptive_kernel_size(channels, gamma, beta)
        elif channels is not None or kernel_size is None:
            raise ValueError(
                f"channels={channels} and kernel_size={kernel_size}: give exactly one of them; "
                "the kernel size follows from the channels, or is said outright"
            )
        padding = centred_padding(kernel_size)
        self.conv = Band(1, 1, kernel_size, padding=padding, bias=False, device=device, dtype=dtype)

    def gate(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c 1 1"]:
        """Return what each channel of x, (batch, channels, height, width), is multiplied by.

        It is (batch, channels, 1, 1), of the dtype of x.

        Raises:
            TypeError: x is not floating-point.
            ValueError: x has a wrong number of axes, or an empty side.
        """
        check_image(x)
        squeezed = mean(x, (2, 3))
        logits = self.conv(rearrange(squeezed, "b c -> b 1 c"))
        return rearrange(torch.sigmoid(logits), "b 1 c -> b c 1 1").to(x.dtype)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Return x, (batch, channels, height, width), times its gate; errors as of `gate`."""
        return x * self.gate(x)


class Band(nn.Conv1d):
    """A centred convolution of stride 1, computed as a product with each place's neighbours.

    For one channel, as in a gate, that is faster. To whatever looks into a module (hooks, adapters,
    sharding, `repr`) it is the nn.Conv1d that it is in timm.

    >>> layer, z = Band(1, 1, 3, padding=1, bias=False), torch.randn(2, 1, 8)
    >>> torch.allclose(layer(z), nn.Conv1d.forward(layer, z), atol=1e-6)
    True
    """

    def forward(self, input: Float[Tensor, "*b c n"]) -> Float[Tensor, "*b out n"]:
        """Return the weighted sum over the neighbours of each place of (batch, channels, n)."""
        return band(input, self.weight, self.bias)

    def _get_name(self) -> str:
        return "Conv1d"


def band(
    z: Float[Tensor, "*b c n"], weight: Float[Tensor, "out c k"], bias: Tensor | None
) -> Float[Tensor, "*b out n"]:
    """Return sum_j w_j z_(n + j - (k - 1) / 2) + b in the dtype of z, autocast or not."""
    with no_autocast(z.device):
        k = weight.shape[-1]
        neighbours = F.pad(z, (k // 2, k // 2)).unfold(-1, k, 1)
        summed = einsum(neighbours, weight.to(z.dtype), "... c n k, out c k -> ... out n")
        return summed if bias is None else summed + bias.to(z.dtype)[:, None]


# To torch.fx each of these is one operation: they ask for dtypes, shapes and devices, which a graph
# that is being traced does not know.
for function in ("band", "check_image", "mean", "rearrange"):
    fx.wrap(function)
