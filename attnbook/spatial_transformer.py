"""Spatial transformer: a network looks at the image, and decides where each pixel is read from.

Axes: b batch, c channels, h height, w width of the input; i height, j width of the output; xy, a
position: first x, to the right, then y, downwards. Positions are normalised: -1 and 1 are the
outer edges of the image, so the centres of w pixels lie at (2 * 0 + 1) / w - 1, (2 * 1 + 1) / w - 1
... (`align_corners=False` in PyTorch).

Paper: Jaderberg et al. (2015), Spatial Transformer Networks, https://arxiv.org/abs/1506.02025.
"""

from __future__ import annotations

import inspect
import math

import torch
import torch.nn.functional as F
from einops import einsum, rearrange
from jaxtyping import Float
from torch import Tensor, fx, nn

from attnbook.checks import check_floating, check_image, check_size
from attnbook.module import Module
from attnbook.precision import no_autocast, widened

PADDING_MODES = ("zeros", "border", "reflection")
FAR = 1e30  # outside of every image; above about 1e37, grid_sample's own arithmetic overflows


def affine_grid(
    theta: Float[Tensor, "*batch 2 3"], height: int, width: int
) -> Float[Tensor, "*batch i j 2"]:
    """Return for each pixel of the output the position in the input that it is read from.

    (x_source, y_source) = theta (x_target, y_target, 1)

    Eq. 1 of the paper: theta maps target to source, so a theta that shrinks positions reads a part
    of the image, and an output of the image's own size shows it enlarged. As x is the same in every
    row and y in every column, the three columns of theta are multiplied by width, height and 1
    numbers, and only their sum has height * width.

    theta is (..., 2, 3) and the result (..., height, width, 2), of the dtype of theta.

    Each axis has a unit of its own, half the width and half the height, as in F.affine_grid. A
    plain rotation matrix therefore shears an oblong image. What turns it by R in pixels is
    S^-1 R S, with S = diag(width / 2, height / 2).

    Raises:
        TypeError: theta is not floating-point, or height or width is no whole number.
        ValueError: theta does not end in (2, 3), or height or width is below 1.

    >>> identity = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    >>> affine_grid(identity, height=1, width=2)
    tensor([[[-0.5000,  0.0000],
             [ 0.5000,  0.0000]]])

    A quarter turn of an image twice as wide as it is high:

    >>> turn, s = torch.tensor([[0.0, -1.0], [1.0, 0.0]]), torch.diag(torch.tensor([2.0, 1.0]))
    >>> s.inverse() @ turn @ s
    tensor([[ 0.0000, -0.5000],
            [ 2.0000,  0.0000]])
    """
    check_floating("theta", theta)
    if theta.shape[-2:] != (2, 3):
        hint = '; rearrange(theta, "... (xy three) -> ... xy three", xy=2) makes it so'
        raise ValueError(
            f"theta has shape {tuple(theta.shape)}, but must end in (2, 3)"
            + (hint if theta.shape[-1:] == (6,) else "")
        )
    for name, side in (("height", height), ("width", width)):
        check_size(name, side, least=-math.inf)
    if height < 1 or width < 1:
        raise ValueError(f"height={height} and width={width} must both be at least 1")
    wide = widened(theta)
    x = rearrange(_pixel_centres(width, wide.device, wide.dtype), "j -> 1 j")
    y = rearrange(_pixel_centres(height, wide.device, wide.dtype), "i -> i 1")
    by_x, by_y, shift = rearrange(wide, "... xy three -> three ... xy 1 1")
    # One plane of all x and one of all y: the sum then runs along whole rows of memory, not along
    # two numbers at a time, and grid_sample reads planes as fast as pairs.
    planes = (by_x * x + (by_y * y + shift)).to(theta.dtype)
    return rearrange(planes, "... xy i j -> ... i j xy")


def bilinear_sample(
    x: Float[Tensor, "*#batch c h w"], grid: Float[Tensor, "*#batch i j 2"]
) -> Float[Tensor, "*batch c i j"]:
    """Read the image at the positions of the grid, between pixels by linear interpolation.

    v_ij = sum_h sum_w u_hw max(0, 1 - |x_ij - w|) max(0, 1 - |y_ij - h|)

    Eq. 5 of the paper. u is the image, the argument `x`, (..., c, h, w); x_ij and y_ij are
    positions, in pixels, of the grid, (..., i, j, 2). The result is (..., c, i, j), of the dtype of
    x, computed in float32 or above.
    All c channels are read at the same positions, and outside the image there are zeros. Every
    pixel of the input is multiplied by every weight, most of them 0: this function is there to be
    understood, and to be tested with.
    `F.grid_sample` visits the four pixels around each position, and is what the module uses.

    Raises:
        TypeError: the image or the grid is not floating-point.
        ValueError: the image has fewer than three axes, or the grid does not end in 2.

    >>> image = torch.tensor([[[10.0, 20.0]]])
    >>> bilinear_sample(image, torch.tensor([[[-0.5, 0.0], [0.0, 0.0], [1.0, 0.0]]]))
    tensor([[[10., 15., 10.]]])
    """
    check_floating("x", x)
    check_floating("grid", grid)
    if x.ndim < 3:
        raise ValueError(f"x has {x.ndim} axes, but needs at least 3: (channels, height, width)")
    if grid.ndim < 3 or grid.shape[-1] != 2:
        raise ValueError(
            f"grid has shape {tuple(grid.shape)}, but must end in 2: x and y, of (height, width, 2)"
        )
    image = widened(x)
    x_weight = _hat(grid[..., 0].to(image.dtype), x.shape[-1])
    y_weight = _hat(grid[..., 1].to(image.dtype), x.shape[-2])
    with no_autocast(x.device):
        sampled = einsum(image, y_weight, x_weight, "... c h w, ... i j h, ... i j w -> ... c i j")
    return sampled.to(x.dtype)


class SpatialTransformer(Module):
    """Warp each image by an affine map that a network, the localisation network, reads off it.

    theta = localisation(x),    output = x sampled at affine_grid(theta)

    `localisation` maps (b, c, h, w) to (b, 6), the two rows of theta one after the other; start its
    last layer with `init_identity`, as the paper does. Positions are computed, and pixels blended,
    in float32 or above. All parameters are those of `localisation`.

    A theta with NaN makes that image NaN, and no other. Infinity counts as 1e30: what is read so
    far outside is what the padding mode says.

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
        """Take in the localisation network.

        Args:
            localisation: the network that returns the six numbers of theta for each image.
            size: height and width of the output; None, those of the input.
            padding_mode: what lies outside: "zeros", the default, "border" or "reflection".
            device: where the network is moved; None, nowhere.
            dtype: type that its parameters are cast to; None, their own.

        Raises:
            TypeError: the localisation is no torch.nn.Module, or `size` no pair of whole numbers.
            ValueError: the padding mode is unknown, or `size` has not two sides of at least 1.
        """
        super().__init__()
        if not isinstance(localisation, nn.Module):
            kind = "class" if inspect.isclass(localisation) else type(localisation).__name__
            raise TypeError(
                f"localisation={localisation!r} is a {kind}, but must be a torch.nn.Module, made "
                "and ready to be called"
            )
        if size is not None:
            size = _checked_size(size)
        if not isinstance(padding_mode, str):
            raise TypeError(
                f"padding_mode={padding_mode!r} has type {type(padding_mode).__name__}, but must "
                f"be one of {PADDING_MODES}"
            )
        if padding_mode not in PADDING_MODES:
            raise ValueError(f"padding_mode={padding_mode!r} must be one of {PADDING_MODES}")
        self.localisation = localisation.to(device=device, dtype=dtype)
        self.size = size
        self.padding_mode = padding_mode

    def theta(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 2 3"]:
        """Return the affine map of each image, target to source: (batch, 2, 3).

        x is (batch, channels, height, width).

        Raises:
            TypeError: x is not floating-point, or the localisation network returns no such tensor.
            ValueError: x has a wrong number of axes or an empty side, or the localisation network
                does not return six numbers an image.
        """
        check_image(x)
        theta = self.localisation(x)
        check_theta(theta, x)
        return rearrange(theta, "b (xy three) -> b xy three", xy=2)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c i j"]:
        """Return the images x, (batch, channels, height, width), warped; errors as of `theta`.

        The result is (batch, channels, *size). F.grid_sample, which reads the pixels, has neither
        forward-mode nor second derivatives; `bilinear_sample(x, affine_grid(layer.theta(x), height,
        width))` is the same with all of them, for the padding mode "zeros".
        """
        return warp(x, self.theta(x), self.size, self.padding_mode)


def warp(
    x: Float[Tensor, "b c h w"],
    theta: Float[Tensor, "b 2 3"],
    size: tuple[int, int] | None,
    padding_mode: str,
) -> Float[Tensor, "b c i j"]:
    """Return each image read at the positions of its theta."""
    height, width = x.shape[-2:] if size is None else size
    # F.grid_sample crashes or hides it where a position is NaN, and takes infinity for NaN:
    # https://github.com/pytorch/pytorch/issues/24823. It is given neither.
    lost = torch.isnan(theta).any(-1).any(-1)
    image = widened(x)
    known = theta.to(image.dtype).nan_to_num(0.0).clamp(-FAR, FAR)
    grid = affine_grid(known, height, width)
    sampled = F.grid_sample(image, grid, padding_mode=padding_mode, align_corners=False)
    # In place, and a sum: another tensor of that size, here or as its gradient, would take as long
    # as the sampling.
    sampled = sampled.add_(torch.where(lost, torch.nan, 0.0)[:, None, None, None]).to(x.dtype)
    if x.stride(3) > 1 == x.stride(1):  # channels_last, which grid_sample does not keep
        return sampled.contiguous(memory_format=torch.channels_last)
    return sampled


def init_identity(layer: nn.Linear) -> nn.Linear:
    """Make a layer with six outputs return the identity map for every input, and return the layer.

    weight = 0,    bias = (1, 0, 0, 0, 1, 0)

    The paper starts the last layer of a localisation network so. In the first step of training the
    layers before it get no gradient, since its weights are 0; it gets one itself, and then all do.

    It is a function, and not what the module does by itself, because only you know which layer of
    your network is the last, and a start from elsewhere is worth comparing.

    Raises:
        TypeError: the layer is no nn.Linear.
        ValueError: the layer has no bias, or not six outputs.

    >>> init_identity(nn.Linear(10, 6))(torch.randn(1, 10)).detach()
    tensor([[1., 0., 0., 0., 1., 0.]])
    """
    if not isinstance(layer, nn.Linear):
        raise TypeError(
            f"layer has type {type(layer).__name__}, but must be an nn.Linear: the last layer of "
            "the localisation network, not the network"
        )
    if layer.out_features != 6 or layer.bias is None:
        raise ValueError(
            f"the layer has {layer.out_features} outputs and bias={layer.bias is not None}, "
            "but theta needs 6 outputs and a bias"
        )
    with torch.no_grad():
        layer.weight.zero_()
        layer.bias.copy_(torch.tensor([1.0, 0, 0, 0, 1, 0], device=layer.bias.device))
    return layer


def check_theta(theta: Tensor, x: Tensor) -> None:
    """Raise TypeError unless theta is floating-point, ValueError unless (b, 6) for b images x."""
    check_floating("what localisation returned", theta)
    if theta.shape != (x.shape[0], 6):
        raise ValueError(
            f"localisation returned shape {tuple(theta.shape)} for {x.shape[0]} images, "
            f"but must return ({x.shape[0]}, 6)"
        )


def _checked_size(size: tuple[int, int]) -> tuple[int, int]:
    if not isinstance(size, (tuple, list)):
        raise TypeError(
            f"size={size!r} has type {type(size).__name__}, but must be a pair: (height, width)"
        )
    if len(size) != 2:
        raise ValueError(f"size={size} has {len(size)} numbers, but needs 2: (height, width)")
    for name, side in zip(("height", "width"), size, strict=True):
        check_size(f"size={size}: {name}", side, least=-math.inf)
    if min(size) < 1:
        raise ValueError(f"size={size} must be a height and a width of at least 1")
    return size[0], size[1]


def _pixel_centres(size: int, device: torch.device, dtype: torch.dtype) -> Float[Tensor, " size"]:
    return (2 * torch.arange(size, device=device, dtype=dtype) + 1) / size - 1


def _hat(position: Float[Tensor, "*batch i j"], size: int) -> Float[Tensor, "*batch i j size"]:
    """Return max(0, 1 - |position - pixel|) for each pixel of a side, positions in [-1, 1]."""
    in_pixels = ((position + 1) * size - 1) / 2
    pixels = torch.arange(size, device=position.device, dtype=position.dtype)
    return F.relu(1 - (rearrange(in_pixels, "... i j -> ... i j 1") - pixels).abs())


# To torch.fx each of these is one operation: they ask for dtypes and shapes, which a graph that is
# being traced does not know.
for function in ("check_image", "check_theta", "rearrange", "warp"):
    fx.wrap(function)
