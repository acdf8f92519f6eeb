"""spatial_transformer.py: against PyTorch, the paper's formulas, by its properties, everywhere."""

from __future__ import annotations

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.autograd import gradcheck, gradgradcheck
from torch.testing import assert_close
from vision_contract import (
    HALF,
    CompilerContract,
    LayersContract,
    output_and_gradients,
    random_image,
)

from attnbook import SpatialTransformer, affine_grid, bilinear_sample, init_identity

IDENTITY = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]


def double(rows, device="cpu"):
    return torch.tensor(rows, dtype=torch.float64, device=device)


def random_theta(device, *batch, spread=0.4):
    noise = torch.randn(*batch, 2, 3, dtype=torch.float64)
    return (double(IDENTITY) + spread * noise).to(device).requires_grad_()


def localisation_network(channels=6, **kwargs):
    """Return a network for images of any size, whose theta depends on the image."""
    last = init_identity(nn.Linear(4 * channels, 6, **kwargs))
    nn.init.normal_(last.weight, std=0.1)
    return nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), last)


class Fixed(nn.Module):
    """Return the same theta for every image; it is a parameter."""

    def __init__(self, theta):
        super().__init__()
        self.theta = nn.Parameter(theta.detach().clone())

    def forward(self, x):
        return self.theta.reshape(-1, 6).expand(x.shape[0], 6)


class Returns(nn.Module):
    """Return the same tensor for every input."""

    def __init__(self, tensor):
        super().__init__()
        self.tensor = tensor

    def forward(self, x):
        return self.tensor


class TestSettings(LayersContract, CompilerContract):
    inductor_fault = "torch 2.13 holds the height fixed, and so compiles anew for another one"
    float32_inside = False  # in the localisation network, which is the user's
    has_forward_mode = False

    def make(self, **kwargs):
        return SpatialTransformer(localisation_network(), **kwargs)

    def make_for_onnx(self):
        # Pooling to 2 x 2 is exported for the size of the example alone, to 1 x 1 for any.
        pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 6))
        return SpatialTransformer(pool)

    def asked(self, module):
        return module.theta

    @pytest.mark.parametrize("train", [False])
    @pytest.mark.parametrize("dtype", HALF, ids=str)
    def test_half_types_are_exact_to_their_rounding(self, device, dtype, train):
        theta = random_theta(device).to(dtype)  # 6 numbers that the half type holds exactly
        module = SpatialTransformer(Fixed(theta), size=(40, 50))
        x = self.image(device, height=30, width=40, dtype=dtype)
        expected = copy.deepcopy(module).double()(x.double())
        error = (module(x) - expected).abs() / expected.abs().clamp(min=1)
        assert module(x).dtype == dtype
        assert error.max() <= torch.finfo(dtype).eps / 2 * 1.01

    @pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")
    def test_the_way_to_forward_mode_and_second_derivatives(self, device):
        module = self.make(device=device, dtype=torch.float64)
        x, along = (self.image(device, dtype=torch.float64) for _ in range(2))

        def formula(x):
            return bilinear_sample(x, affine_grid(module.theta(x), 5, 7))

        assert_close(formula(x), module(x))
        step = 1e-6
        between = (module(x + step * along) - module(x - step * along)) / (2 * step)
        assert_close(torch.func.jvp(formula, (x,), (along,))[1], between, rtol=1e-5, atol=1e-6)

        def slope(x):
            return torch.autograd.grad((formula(x) * along).sum(), x, create_graph=True)[0]

        x = x.requires_grad_()
        (bend,) = torch.autograd.grad((slope(x) * along).sum(), x)
        ahead, behind = (
            slope((x + sign * step * along).detach().requires_grad_()) for sign in (1, -1)
        )
        assert_close(
            (bend * along).sum(),
            ((ahead - behind) * along).sum() / (2 * step),
            rtol=1e-4,
            atol=1e-4,
        )

    @pytest.mark.parametrize("dtype", HALF, ids=str)
    def test_autocast_costs_the_sampling_no_digit(self, device, dtype):
        theta, x = random_theta(device), self.image(device)
        module, grid = SpatialTransformer(Fixed(theta)), affine_grid(theta, 5, 7)
        with torch.autocast(device.type, dtype=dtype):
            answers = module(x), bilinear_sample(x, affine_grid(theta, 5, 7))
        expected = module(x), bilinear_sample(x, grid)
        assert_close(answers, expected, rtol=1e-6, atol=1e-6)

    def test_another_size_works_in_every_setting(self, device):
        module = self.make(size=(3, 4), device=device)
        compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
        x = self.image(device)
        assert compiled(x).shape == (2, 6, 3, 4)
        assert_close(compiled(x), module(x))


# Against PyTorch


@pytest.mark.parametrize("height, width", [(1, 1), (1, 5), (4, 1), (4, 5), (7, 3)])
def test_grid_is_pytorchs(device, height, width):
    theta = random_theta(device, 3, spread=1.0)
    ours = affine_grid(theta, height, width)
    theirs = F.affine_grid(theta, [3, 1, height, width], align_corners=False)
    assert_close(ours, theirs)
    weights = torch.randn_like(ours)
    gradients = [torch.autograd.grad((grid * weights).sum(), theta) for grid in (ours, theirs)]
    assert_close(*gradients)


@pytest.mark.parametrize("batch", [(), (2,), (2, 3)], ids=str)
def test_grid_and_sampler_take_any_batch_axes(device, batch):
    theta, x = random_theta(device, *batch), random_image(device, *batch, 2, 4, 5)
    grid = affine_grid(theta, 3, 6)
    sampled = bilinear_sample(x, grid)
    assert (grid.shape, sampled.shape) == ((*batch, 3, 6, 2), (*batch, 2, 3, 6))
    flat = F.grid_sample(x.reshape(-1, 2, 4, 5), grid.reshape(-1, 3, 6, 2), align_corners=False)
    assert_close(sampled, flat.view_as(sampled))
    shared = bilinear_sample(x, grid[(0,) * len(batch)])
    assert_close(shared[(0,) * len(batch)], sampled[(0,) * len(batch)])


@pytest.mark.parametrize("height, width", [(1, 1), (1, 6), (5, 1), (4, 6)])
def test_sampler_is_pytorchs(device, height, width):
    x = random_image(device, 2, 3, height, width)
    # Half of the positions lie outside, some of them far away.
    grid = (2.5 * torch.randn(2, 5, 7, 2, dtype=torch.float64)).to(device).requires_grad_()
    paths = [bilinear_sample(x, grid), F.grid_sample(x, grid, align_corners=False)]
    assert_close(*paths)
    weights = torch.randn_like(paths[0])
    gradients = [torch.autograd.grad((path * weights).sum(), [x, grid]) for path in paths]
    assert_close(*gradients)


def test_pytorchs_own_sample_inputs(device):
    pytest.importorskip("expecttest")
    methods = pytest.importorskip("torch.testing._internal.common_methods_invocations")
    (operator,) = [op for op in methods.op_db if op.name == "nn.functional.grid_sample"]
    tried = 0
    for sample in operator.sample_inputs(device, torch.float64):
        x, (grid,), how = sample.input, sample.args, sample.kwargs
        bilinear = how["mode"] == "bilinear" and how["padding_mode"] == "zeros"
        if x.ndim == 4 and bilinear and not how["align_corners"]:
            assert_close(bilinear_sample(x, grid), F.grid_sample(x, grid, **how))
            tried += 1
    assert tried > 0


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("size", [None, (3, 8)], ids=str)
@pytest.mark.parametrize("padding_mode", ["zeros", "border", "reflection"])
def test_module_is_pytorchs_grid_and_sampler(device, padding_mode, size, memory_format):
    localisation = localisation_network(device=device, dtype=torch.float64)
    nn.init.normal_(localisation[-1].weight, std=1.0)  # far beyond the edges
    layer = SpatialTransformer(localisation, size=size, padding_mode=padding_mode)

    class Pytorchs(nn.Module):
        def __init__(self):
            super().__init__()
            self.localisation = localisation

        def forward(self, x):
            theta = self.localisation(x).view(-1, 2, 3)
            shape = [*x.shape[:2], *(size or x.shape[2:])]
            grid = F.affine_grid(theta, shape, align_corners=False)
            return F.grid_sample(x, grid, padding_mode=padding_mode, align_corners=False)

    x = random_image(device, 3, 6, 5, 7).detach().to(memory_format=memory_format).requires_grad_()
    assert_close(output_and_gradients(layer, x), output_and_gradients(Pytorchs(), x))


def test_module_is_the_papers_formula(device):
    layer = SpatialTransformer(localisation_network(device=device, dtype=torch.float64))
    x = random_image(device, 3, 6, 5, 7)
    assert_close(layer(x), bilinear_sample(x, affine_grid(layer.theta(x), 5, 7)))


def test_theta_is_what_the_network_returns_row_by_row(device):
    theta = double([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], device)
    layer = SpatialTransformer(Fixed(theta))
    expected = theta.expand(4, 2, 3)
    assert torch.equal(layer.theta(torch.zeros(4, 1, 2, 2, device=device)), expected)


# Against the formulas


def test_grid_is_its_formula_for_each_pixel(device):
    theta = random_theta(device)
    (a, b, c), (d, e, f) = theta.tolist()
    grid = affine_grid(theta, 3, 4)
    for i in range(3):
        for j in range(4):
            y, x = (2 * i + 1) / 3 - 1, (2 * j + 1) / 4 - 1
            expected = double([a * x + b * y + c, d * x + e * y + f], device)
            assert_close(grid[i, j], expected)


def test_sampler_is_its_formula_for_each_pixel(device):
    x = random_image(device, 2, 3, 4).detach()
    grid = 1.2 * torch.rand(2, 5, 2, dtype=torch.float64, device=device) - 0.6
    sampled = bilinear_sample(x, grid)
    for i in range(2):
        for j in range(5):
            x_ij, y_ij = (
                ((p + 1) * n - 1) / 2 for p, n in zip(grid[i, j].tolist(), (4, 3), strict=True)
            )
            expected = sum(
                x[:, h, w] * max(0.0, 1 - abs(x_ij - w)) * max(0.0, 1 - abs(y_ij - h))
                for h in range(3)
                for w in range(4)
            )
            assert_close(sampled[:, i, j], expected)


# Properties


def warp(x, theta, size=None):
    layer = SpatialTransformer(Fixed(double(theta, x.device)), size=size)
    return layer(x).detach()


def image(device, height=5, width=7):
    return random_image(device, 2, 3, height, width).detach()


@pytest.mark.parametrize("height, width", [(5, 7), (28, 28), (1, 1)])
def test_identity_changes_nothing(device, height, width):
    x = image(device, height, width)
    assert_close(warp(x, IDENTITY), x)


def test_a_network_that_starts_at_the_identity_changes_nothing_and_can_learn(device):
    localisation = nn.Sequential(nn.Flatten(), nn.Linear(35, 8), nn.ReLU(), nn.Linear(8, 6))
    assert init_identity(localisation[-1]) is localisation[-1]
    layer = SpatialTransformer(localisation, device=device, dtype=torch.float64)
    x = random_image(device, 2, 1, 5, 7)
    assert_close(layer.theta(x), double(IDENTITY, device).expand(2, 2, 3))
    assert_close(layer(x), x)
    layer(x).square().sum().backward()
    assert (localisation[-1].weight.grad != 0).any()
    assert (localisation[-1].bias.grad != 0).all()


@pytest.mark.parametrize("height, width", [(6, 6), (4, 7)])
def test_a_quarter_turn_is_rot90(device, height, width):
    x = image(device, height, width)
    turned = warp(x, [[0.0, -1.0, 0.0], [1.0, 0.0, 0.0]], size=(width, height))
    assert_close(turned, x.rot90(1, (2, 3)))
    back = warp(x, [[0.0, 1.0, 0.0], [-1.0, 0.0, 0.0]], size=(width, height))
    assert_close(back, x.rot90(-1, (2, 3)))


def test_mirrors_are_flips(device):
    x = image(device)
    assert_close(warp(x, [[-1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]), x.flip(3))
    assert_close(warp(x, [[1.0, 0.0, 0.0], [0.0, -1.0, 0.0]]), x.flip(2))


def test_theta_says_where_to_read_not_where_to_write(device):
    x = image(device, height=5, width=8)
    # Reading two pixels further right moves the image two pixels left; a pixel is 2 / width.
    left = warp(x, [[1.0, 0.0, 2 * 2 / 8], [0.0, 1.0, 0.0]])
    assert_close(left, torch.cat([x[..., 2:], torch.zeros_like(x[..., :2])], dim=3))
    down = warp(x, [[1.0, 0.0, 0.0], [0.0, 1.0, -2 / 5]])
    assert_close(down, torch.cat([torch.zeros_like(x[..., :1, :]), x[..., :-1, :]], dim=2))
    # Positions divided by two enlarge the middle of the image.
    y = image(device, 8, 8)
    assert_close(warp(y, [[0.5, 0.0, 0.0], [0.0, 0.5, 0.0]], size=(4, 4)), y[..., 2:6, 2:6])


def test_half_the_size_averages_four_pixels(device):
    x = image(device, 6, 8)
    assert_close(warp(x, IDENTITY, size=(3, 4)), F.avg_pool2d(x, 2))


def test_an_output_of_one_pixel_is_the_middle_of_the_image(device):
    x = image(device, 5, 7)
    assert_close(warp(x, IDENTITY, size=(1, 1)), x[..., 2:3, 3:4])


def test_composed_maps_are_multiplied_matrices(device):
    first, second = random_theta(device).detach(), random_theta(device).detach()
    last_row = double([[0.0, 0.0, 1.0]], device)
    both = (torch.cat([first, last_row]) @ torch.cat([second, last_row]))[:2]
    read_by_second = affine_grid(second, 4, 6)
    homogeneous = torch.cat([read_by_second, torch.ones_like(read_by_second[..., :1])], dim=-1)
    assert_close(affine_grid(both, 4, 6), homogeneous @ first.T)


def test_warping_twice_is_warping_by_the_product(device):
    x = F.pad(image(device, 4, 4), (2, 2, 2, 2))
    shift, turn = [[1.0, 0.0, 0.25], [0.0, 1.0, 0.0]], [[0.0, -1.0, 0.0], [1.0, 0.0, 0.0]]
    last_row = [0.0, 0.0, 1.0]
    product = (double([*shift, last_row]) @ double([*turn, last_row]))[:2].tolist()
    assert_close(warp(warp(x, shift), turn), warp(x, product))
    assert (warp(warp(x, turn), shift) - warp(x, product)).abs().max() > 0.1


@given(seed=st.integers(0, 2**32 - 1))
def test_outputs_stay_between_the_smallest_and_the_largest_pixel_or_zero(seed):
    torch.manual_seed(seed)
    x, theta = random_image("cpu", 1, 2, 4, 5), random_theta("cpu", 1, spread=1.0)
    sampled = bilinear_sample(x, affine_grid(theta, 6, 6))
    low, high = x.amin((2, 3), keepdim=True), x.amax((2, 3), keepdim=True)
    assert (sampled >= low.clamp(max=0) - 1e-12).all()
    assert (sampled <= high.clamp(min=0) + 1e-12).all()


def test_every_channel_is_warped_alike(device):
    x, theta = image(device), random_theta(device).tolist()
    order = torch.tensor([2, 0, 1], device=device)
    assert_close(warp(x[:, order], theta), warp(x, theta)[:, order])
    assert_close(warp(x[:, :1], theta), warp(x, theta)[:, :1])


@pytest.mark.parametrize("dtype", HALF, ids=str)
def test_grid_and_sampler_are_exact_to_the_rounding_of_half_types(device, dtype):
    theta = random_theta(device).detach().to(dtype)
    grid, exact = affine_grid(theta, 223, 301), affine_grid(theta.double(), 223, 301)
    assert grid.dtype == dtype
    eps = torch.finfo(dtype).eps
    assert ((grid - exact).abs() <= exact.abs() * eps / 2 * 1.01 + 1e-6).all()
    x = random_image(device, 2, 20, 30).to(dtype)
    sampled, expected = bilinear_sample(x, exact), bilinear_sample(x.double(), exact)
    assert sampled.dtype == dtype
    assert ((sampled - expected).abs() <= expected.abs() * eps / 2 * 1.01 + 1e-4).all()


@pytest.mark.parametrize("check", [gradcheck, gradgradcheck])
def test_derivatives_of_grid_and_sampler(device, check):
    x, theta = random_image(device, 2, 2, 3, 4), random_theta(device, 2, spread=0.2)
    assert check(lambda x, theta: bilinear_sample(x, affine_grid(theta, 3, 2)), (x, theta))


def test_derivatives_of_the_module(device):
    layer = SpatialTransformer(localisation_network(2, device=device, dtype=torch.float64))
    names = [name for name, _ in layer.named_parameters()]

    def run(x, *values):
        return torch.func.functional_call(layer, dict(zip(names, values, strict=True)), (x,))

    # PyTorch adds up the gradient of an image in any order on a GPU.
    x = random_image(device, 2, 2, 3, 4)
    assert gradcheck(run, (x, *layer.parameters()), nondet_tol=1e-12)


@pytest.mark.parametrize("padding_mode", ["zeros", "border", "reflection"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e38], ids=str)
@pytest.mark.parametrize("place", range(6))
def test_a_theta_that_is_not_finite_spoils_its_own_image_alone(device, padding_mode, value, place):
    """F.grid_sample alone crashes here, or calls what lies infinitely far outside NaN."""
    theta = torch.eye(2, 3, device=device).flatten().repeat(2, 1)
    theta[1, place] = value
    x = torch.randn(2, 3, 4, 6, device=device, requires_grad=True)
    theta.requires_grad_()
    layer = SpatialTransformer(Returns(theta), padding_mode=padding_mode)
    output = layer(x)
    assert_close(output[0], x[0])
    assert output[1].isnan().all() if math.isnan(value) else output[1].isfinite().all()
    if padding_mode == "zeros" and place in (2, 5) and not math.isnan(value):
        assert not output[1].any()
    for gradient in torch.autograd.grad(output.square().sum(), [x, theta]):
        assert gradient[0].isfinite().all()
        assert gradient[1].isnan().any() == math.isnan(value)


def test_turns_an_oblong_image_in_pixels():
    angle, half = math.radians(30), torch.diag(double([20.0, 10.0]))
    turn = double([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    linear = half.inverse() @ turn @ half
    theta = torch.cat([linear, torch.zeros(2, 1, dtype=torch.float64)], dim=1)
    in_pixels = affine_grid(theta, 20, 40) @ half
    right, down = in_pixels[0, 1] - in_pixels[0, 0], in_pixels[1, 0] - in_pixels[0, 0]
    assert_close(torch.stack([right, down]), turn.T)


def test_init_identity_keeps_device_and_dtype(device):
    layer = init_identity(nn.Linear(3, 6, device=device, dtype=torch.float16))
    assert layer.bias.tolist() == [1, 0, 0, 0, 1, 0]
    assert not layer.weight.any()
    assert layer.bias.requires_grad
    assert (layer.weight.dtype, layer.weight.device.type) == (torch.float16, device.type)


def test_a_turn_of_any_angle_and_back_keeps_a_smooth_image(device):
    angle = math.radians(30)
    turn = [[math.cos(angle), -math.sin(angle), 0.0], [math.sin(angle), math.cos(angle), 0.0]]
    back = [[turn[0][0], turn[1][0], 0.0], [turn[0][1], turn[1][1], 0.0]]
    y, x = torch.meshgrid(*2 * [torch.linspace(-3, 3, 65, dtype=torch.float64)], indexing="ij")
    blob = torch.exp(-(x - 0.5).square() - 2 * y.square()).to(device)[None, None]
    assert (warp(blob, turn) - blob).abs().max() > 0.1
    assert (warp(warp(blob, turn), back) - blob).abs().max() < 0.02


# Errors


@pytest.mark.parametrize("shape", [(3, 2), (2, 2), (6,), (4, 2, 4)], ids=str)
def test_a_theta_of_the_wrong_shape_is_refused(device, shape):
    with pytest.raises(ValueError, match=r"theta has shape .* but must end in \(2, 3\)") as error:
        affine_grid(torch.zeros(shape, device=device), 3, 4)
    assert str(shape) in str(error.value)


@pytest.mark.parametrize("height, width", [(0, 4), (3, 0), (-1, 4)])
def test_an_empty_grid_is_refused(height, width):
    with pytest.raises(
        ValueError, match=f"height={height} and width={width} must both be at least"
    ):
        affine_grid(torch.zeros(2, 3), height, width)


def test_a_grid_without_x_and_y_is_refused(device):
    with pytest.raises(ValueError, match=r"grid has shape \(4, 5, 3\), but must end in 2: x and y"):
        bilinear_sample(torch.zeros(1, 4, 5, device=device), torch.zeros(4, 5, 3, device=device))


@pytest.mark.parametrize(
    "last, returned",
    [
        (nn.Linear(4, 5), r"\(2, 5\)"),
        (nn.Linear(4, 12), r"\(2, 12\)"),
        (nn.Sequential(nn.Linear(4, 6), nn.Unflatten(1, (2, 3))), r"\(2, 2, 3\)"),
        (nn.Sequential(nn.Linear(4, 6), nn.Flatten(0)), r"\(12,\)"),
    ],
)
def test_a_localisation_network_of_the_wrong_width_is_refused(last, returned):
    layer = SpatialTransformer(nn.Sequential(nn.Flatten(), last))
    message = rf"localisation returned shape {returned} for 2 images, but must return \(2, 6\)"
    for path in (layer, layer.theta):
        with pytest.raises(ValueError, match=message):
            path(torch.zeros(2, 1, 2, 2))


@pytest.mark.parametrize(
    "kwargs, message",
    [
        ({"padding_mode": "circular"}, "padding_mode='circular' must be one of .*'reflection'"),
        ({"size": (0, 4)}, r"size=\(0, 4\) must be a height and a width of at least 1"),
        ({"size": (4, -1)}, r"size=\(4, -1\) must be a height and a width of at least 1"),
    ],
)
def test_wrong_settings_are_refused(kwargs, message):
    with pytest.raises(ValueError, match=message):
        SpatialTransformer(nn.Identity(), **kwargs)


@pytest.mark.parametrize(
    "layer, message",
    [
        (nn.Linear(4, 5), "the layer has 5 outputs and bias=True, but theta needs 6"),
        (nn.Linear(4, 6, bias=False), "the layer has 6 outputs and bias=False, but theta needs 6"),
    ],
)
def test_init_identity_needs_six_outputs_and_a_bias(layer, message):
    with pytest.raises(ValueError, match=message):
        init_identity(layer)
