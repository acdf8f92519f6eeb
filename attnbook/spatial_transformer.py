"""Spatial transformer: a network looks at the image, and decides where each pixel is read from.

Axes: b batch, c channels, h height, w width of the input; i height, j width of the output; xy, a
position: first x, to the right, then y, downwards. Positions are normalised: -1 and 1 are the
outer edges of the image, so the centres of w pixels lie at (2 * 0 + 1) / w - 1, (2 * 1 + 1) / w - 1
... (`align_corners=False` in PyTorch).

Paper: Jaderberg et al. (2015), Spatial Transformer Networks, https://arxiv.org/abs/1506.02025.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import einsum, rearrange
from jaxtyping import Float
from torch import Tensor, nn

from attnbook.checks import check_image
from attnbook.module import Module

PADDING_MODES = ("zeros", "border", "reflection")


def affine_grid(
    theta: Float[Tensor, "*batch 2 3"], height: int, width: int
) -> Float[Tensor, "*batch i j 2"]:
    """Return for each pixel of the output the position in the input that it is read from.

    (x_source, y_source) = theta (x_target, y_target, 1)

    Eq. 1 of the paper: theta maps target to source, so a theta that shrinks positions enlarges the
    image. As x is the same in every row and y in every column, the three columns of theta are
    multiplied by width, height and 1 numbers, and only their sum has height * width.

    Raises:
        ValueError: theta does not end in (2, 3), or height or width is below 1.

    >>> identity = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    >>> affine_grid(identity, height=1, width=2)
    tensor([[[-0.5000,  0.0000],
             [ 0.5000,  0.0000]]])
    """
    if theta.shape[-2:] != (2, 3):
        raise ValueError(f"theta has shape {tuple(theta.shape)}, but must end in (2, 3)")
    if height < 1 or width < 1:
        raise ValueError(f"height={height} and width={width} must both be at least 1")
    dtype = torch.promote_types(theta.dtype, torch.float32)
    x = rearrange(_pixel_centres(width, theta.device, dtype), "j -> 1 j")
    y = rearrange(_pixel_centres(height, theta.device, dtype), "i -> i 1")
    by_x, by_y, shift = rearrange(theta.to(dtype), "... xy three -> three ... xy 1 1")
    # One plane of all x and one of all y: the sum then runs along whole rows of memory, not along
    # two numbers at a time, and grid_sample reads planes as fast as pairs.
    planes = (by_x * x + (by_y * y + shift)).to(theta.dtype)
    return rearrange(planes, "... xy i j -> ... i j xy")


def bilinear_sample(
    x: Float[Tensor, "*#batch c h w"], grid: Float[Tensor, "*#batch i j 2"]
) -> Float[Tensor, "*batch c i j"]:
    """Read the image at the positions of the grid, between pixels by linear interpolation.

    v_ij = sum_h sum_w u_hw max(0, 1 - |x_ij - w|) max(0, 1 - |y_ij - h|)

    Eq. 5 of the paper. u is the image, the argument `x`; x_ij and y_ij are positions, in pixels.
    All c channels are read at the same positions, and outside the image there are zeros. Every
    pixel of the input is multiplied by every weight, most of them 0: this function is there to be
    understood, and to be tested with.
    `F.grid_sample` visits the four pixels around each position, and is what the module uses.

    Raises:
        ValueError: the grid does not end in 2.

    >>> image = torch.tensor([[[10.0, 20.0]]])
    >>> bilinear_sample(image, torch.tensor([[[-0.5, 0.0], [0.0, 0.0], [1.0, 0.0]]]))
    tensor([[[10., 15., 10.]]])
    """
    if grid.shape[-1] != 2:
        raise ValueError(f"grid has shape {tuple(grid.shape)}, but must end in 2: x and y")
    dtype = torch.promote_types(x.dtype, torch.float32)
    x_weight = _hat(grid[..., 0].to(dtype), x.shape[-1])
    y_weight = _hat(grid[..., 1].to(dtype), x.shape[-2])
    sampled = einsum(
        x.to(dtype), y_weight, x_weight, "... c h w, ... i j h, ... i j w -> ... c i j"
    )
    return sampled.to(x.dtype)


class SpatialTransformer(Module):
    """Warp each image by an affine map that a network, the localisation network, reads off it.

    theta = localisation(x),    output = x sampled at affine_grid(theta)

    `localisation` maps (b, c, h, w) to (b, 6), the two rows of theta one after the other; start its
    last layer with `init_identity`, as the paper does. The output has the size of x, or `size`,
    (height, width); what lies outside of the image is filled as `padding_mode` says: "zeros",
    "border" or "reflection". Positions are computed, and pixels blended, in float32 or above. All
    parameters are those of `localisation`; `device` and `dtype`, where given, move it there.

    Raises:
        ValueError: the padding mode is unknown, or a side of `size` is below 1.

    >>> localisation = nn.Sequential(nn.Flatten(), init_identity(nn.Linear(64, 6)))
    >>> layer = SpatialTransformer(localisation)
    >>> x = torch.randn(2, 1, 8, 8)
    >>> layer.theta(x).shape, torch.allclose(layer(x), x, atol=1e-5)
    (torch.Size([2, 2, 3]), True)
    """

    def __init__(
        self,
        localisation: nn.Module,
        *,
        size: tuple[int, int] | None = None,
        padding_mode: str = "zeros",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if size is not None and min(size) < 1:
            raise ValueError(f"size={size} must be a height and a width of at least 1")
        if padding_mode not in PADDING_MODES:
            raise ValueError(f"padding_mode={padding_mode!r} must be one of {PADDING_MODES}")
        self.localisation = localisation.to(device=device, dtype=dtype)
        self.size = size
        self.padding_mode = padding_mode

    def theta(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 2 3"]:
        """Return the affine map of each image, target to source, (b, 2, 3).

        Raises:
            TypeError: x is not floating-point.
            ValueError: x has a wrong number of axes or an empty side, or the localisation network
                does not return six numbers an image.
        """
        check_image(x)
        theta = self.localisation(x)
        if theta.shape != (x.shape[0], 6):
            raise ValueError(
                f"localisation returned shape {tuple(theta.shape)} for {x.shape[0]} images, "
                f"but must return ({x.shape[0]}, 6)"
            )
        return rearrange(theta, "b (xy three) -> b xy three", xy=2)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c i j"]:
        """Return the warped images."""
        dtype = torch.promote_types(x.dtype, torch.float32)
        height, width = x.shape[-2:] if self.size is None else self.size
        grid = affine_grid(self.theta(x).to(dtype), height, width)
        sampled = F.grid_sample(
            x.to(dtype), grid, padding_mode=self.padding_mode, align_corners=False
        ).to(x.dtype)
        if x.stride(3) > 1 == x.stride(1):  # channels_last, which grid_sample does not keep
            return rearrange(
                rearrange(sampled, "b c i j -> b i j c").contiguous(), "b i j c -> b c i j"
            )
        return sampled


def init_identity(layer: nn.Linear) -> nn.Linear:
    """Make a layer with six outputs return the identity map for every input, and return the layer.

    weight = 0,    bias = (1, 0, 0, 0, 1, 0)

    The paper starts the last layer of a localisation network so. It is a function, and not what
    the module does by itself, because only you know which layer of your network is the last, and
    a start from elsewhere is worth comparing.

    Raises:
        ValueError: the layer has no bias, or not six outputs.

    >>> init_identity(nn.Linear(10, 6))(torch.randn(1, 10)).detach()
    tensor([[1., 0., 0., 0., 1., 0.]])
    """
    if layer.out_features != 6 or layer.bias is None:
        raise ValueError(
            f"the layer has {layer.out_features} outputs and bias={layer.bias is not None}, "
            "but theta needs 6 outputs and a bias"
        )
    with torch.no_grad():
        layer.weight.zero_()
        layer.bias.copy_(torch.tensor([1.0, 0.0, 0.0, 0.0, 1.0, 0.0]))
    return layer


def _pixel_centres(size: int, device: torch.device, dtype: torch.dtype) -> Float[Tensor, " size"]:
    return (2 * torch.arange(size, device=device, dtype=dtype) + 1) / size - 1


def _hat(position: Float[Tensor, "*batch i j"], size: int) -> Float[Tensor, "*batch i j size"]:
    """Return max(0, 1 - |position - pixel|) for each pixel of a side, positions in [-1, 1]."""
    in_pixels = ((position + 1) * size - 1) / 2
    pixels = torch.arange(size, device=position.device, dtype=position.dtype)
    return F.relu(1 - (rearrange(in_pixels, "... i j -> ... i j 1") - pixels).abs())
