"""What every module of an image promises, in every setting: the tests that such modules share.

A test file subclasses `VisionContract`, or `LayersContract` where the module holds layers, and
`CompilerContract` as `TestSettings`, and says how its module is made.
"""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from children import CHECKS
from compilers import onnx_answer
from torch import fx, nn
from torch._dynamo.testing import CompileCounterWithBackend
from torch.testing import assert_close

HALF = [torch.float16, torch.bfloat16]
FLOATS = [torch.float64, torch.float32, *HALF]
DIM = torch.export.Dim.DYNAMIC

# Importing inductor uses TorchScript, which warns that it is deprecated.
inductor = pytest.param(
    "inductor", marks=[pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning")]
)


def random_image(device, *shape, dtype=torch.float64):
    return torch.randn(shape, dtype=torch.float64).to(device, dtype).requires_grad_()


def output_and_gradients(module, x):
    """Return the output, and the gradients of x and of every parameter by name."""
    parameters = dict(module.named_parameters())
    output = module(x)
    loss = (output * torch.linspace(-1, 2, output.numel(), device=x.device).view_as(output)).sum()
    gradients = torch.autograd.grad(loss, [x, *parameters.values()])
    return output, gradients[0], dict(zip(parameters, gradients[1:], strict=True))


class VisionContract:
    channels = 6
    # Largest distance to the answers in float64, in units of the half type's eps. Below 1, where
    # gates lie, numbers are eps / 2 apart, so that a gate rounded once is off by eps / 4 at most.
    asked_tolerance = 0.25
    output_tolerance = 1.0
    float32_inside = True
    has_forward_mode = True

    def make(self, **kwargs) -> nn.Module:
        raise NotImplementedError

    def asked(self, module: nn.Module):
        """Return the method that says what the module attends to."""
        return module.gate

    def image(self, device, batch=2, height=5, width=7, dtype=torch.float32):
        return random_image(device, batch, self.channels, height, width, dtype=dtype).detach()

    def test_fx_traces_it(self, device):
        module = self.make(device=device).eval()
        traced = fx.symbolic_trace(module)
        for sizes in ({}, {"batch": 3, "height": 8, "width": 9}):
            x = self.image(device, **sizes)
            assert_close(traced(x), module(x))
        with pytest.raises(ValueError, match="x has 3 axes, but needs 4"):
            traced(x[0])

    def test_vmap_is_a_batch_axis(self, device):
        module = self.make(device=device).eval()
        x = torch.stack([self.image(device) for _ in range(3)])
        assert_close(torch.vmap(module)(x), torch.stack([module(image) for image in x]))

    @pytest.mark.parametrize("dtype", HALF, ids=str)
    def test_autocast_keeps_the_dtype_and_the_answers(self, device, dtype):
        module, x = self.make(device=device), self.image(device)
        expected = module(x)
        with torch.autocast(device.type, dtype=dtype):
            output = module(x)
            assert module(x.to(dtype)).dtype == dtype
        assert output.dtype == x.dtype
        assert_close(output, expected, rtol=0.03, atol=0.03)

    @pytest.mark.parametrize("dtype", HALF, ids=str)
    def test_autocast_costs_a_gate_no_digit(self, device, dtype):
        """What is float32 inside for half types is float32 under autocast too."""
        if not self.float32_inside:
            pytest.skip("its convolution runs in the type that autocast asks for, as any other")
        module, x = self.make(device=device).eval(), self.image(device)
        with torch.autocast(device.type, dtype=dtype):
            answers = self.asked(module)(x), module(x)
        assert_close(answers, (self.asked(module)(x), module(x)), rtol=1e-6, atol=1e-6)

    def test_images_stay_where_they_are_whatever_the_default_device_is(self):
        x = self.image("cpu")
        module = self.make().eval()
        expected = self.asked(module)(x), module(x)
        with torch.device("meta"):
            answers = self.asked(module)(x), module(x)
        assert_close(answers, expected)

    @pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")
    def test_forward_mode_and_mixed_second_derivatives(self, device):
        module = self.make(device=device, dtype=torch.float64).eval()
        x, along, across = (self.image(device, dtype=torch.float64) for _ in range(3))
        step = 1e-5

        def slope(x):
            return torch.func.jvp(module, (x,), (along,))[1]

        if not self.has_forward_mode:
            with pytest.raises(NotImplementedError, match="forward AD"):
                slope(x)
            return
        between = (module(x + step * along) - module(x - step * along)) / (2 * step)
        assert_close(slope(x), between, rtol=1e-6, atol=1e-7)
        bend = torch.func.jvp(slope, (x,), (across,))[1]
        between = (slope(x + step * across) - slope(x - step * across)) / (2 * step)
        assert_close(bend, between, rtol=1e-5, atol=1e-6)

    @pytest.mark.parametrize("dtype", FLOATS, ids=str)
    def test_dtype_and_device_are_keyword_arguments_and_pass_through(self, device, dtype):
        module = self.make(device=device, dtype=dtype)
        x = self.image(device, dtype=dtype)
        floats = [p for p in module.state_dict().values() if p.is_floating_point()]
        for tensor in (module(x), self.asked(module)(x), *floats):
            assert (tensor.dtype, tensor.device.type) == (dtype, device.type)

    @pytest.mark.parametrize("train", [False, True], ids=["eval", "train"])
    @pytest.mark.parametrize("dtype", HALF, ids=str)
    def test_half_types_are_exact_to_their_rounding(self, device, dtype, train):
        half = self.make(device=device, dtype=dtype).train(train)
        double = copy.deepcopy(half).double()
        x = self.image(device, dtype=dtype)
        for ask, tolerance in [
            (self.asked, self.asked_tolerance),
            (lambda m: m, self.output_tolerance),
        ]:
            expected = ask(double)(x.double())
            error = (ask(half)(x) - expected).abs() / expected.abs().clamp(min=1)
            assert error.max() <= tolerance * torch.finfo(dtype).eps

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
    def test_channels_last_is_kept(self, device, dtype):
        module = self.make(device=device, dtype=dtype)
        x = self.image(device, dtype=dtype)
        output = module(x.contiguous(memory_format=torch.channels_last))
        assert output.is_contiguous(memory_format=torch.channels_last)
        assert module(x).is_contiguous()
        tolerance = 4 * torch.finfo(dtype).eps
        assert_close(output, module(x), rtol=tolerance, atol=tolerance)

    def test_runs_on_the_meta_device(self):
        module = self.make(device="meta")
        x = torch.empty(2, self.channels, 5, 7, device="meta")
        assert module(x).shape == self.make()(torch.randn(x.shape)).shape
        assert {p.device.type for p in module.parameters()} <= {"meta"}

    @pytest.mark.parametrize(
        "duplicate",
        [copy.deepcopy, lambda module: pickle.loads(pickle.dumps(module))],
        ids=["deepcopy", "pickle"],
    )
    def test_a_copy_gives_the_same_answers(self, device, duplicate):
        module, x = self.make(device=device).eval(), self.image(device)
        copied = duplicate(module)
        assert torch.equal(copied(x), module(x))
        own = {p.data_ptr() for p in module.parameters()}
        assert own.isdisjoint(p.data_ptr() for p in copied.parameters())

    def test_inputs_are_left_alone_and_answers_repeat(self, device):
        module, x = self.make(device=device).eval(), self.image(device).requires_grad_()
        before = x.detach().clone()
        first, again = (output_and_gradients(module, x) for _ in range(2))
        assert torch.equal(x, before)
        assert_close(first[0], again[0], rtol=0, atol=0)
        if device.type == "cpu":  # PyTorch sums some gradients in any order on a GPU
            assert_close(first, again, rtol=0, atol=0)

    def test_one_image_is_not_seen_by_another(self, device):
        module, x = self.make(device=device).eval(), self.image(device)
        assert_close(module(x)[:1], module(x[:1]))
        for value in (torch.nan, torch.inf, -torch.inf):
            spoilt = torch.cat([x[:1], torch.full_like(x[1:], value)]).requires_grad_()
            output = module(spoilt)
            assert_close(output[:1], module(x[:1]))
            (gradient,) = torch.autograd.grad(output.square().sum(), spoilt)
            assert gradient[0].isfinite().all()

    def test_a_batch_may_be_empty(self, device):
        module = self.make(device=device).eval()
        x = self.image(device, batch=0).requires_grad_()
        output, gradient, _ = output_and_gradients(module, x)
        assert output.shape == module(self.image(device))[:0].shape
        assert gradient.shape == x.shape

    @pytest.mark.parametrize(
        "shape, message",
        [
            ((6, 5, 7), r"x has 3 axes, but needs 4: \(batch, channels, height, width\)"),
            ((1, 2, 6, 5, 7), "x has 5 axes, but needs 4"),
            ((2, 0, 5, 7), r"x of shape \(2, 0, 5, 7\) has an empty side"),
            ((2, 6, 0, 7), r"x of shape \(2, 6, 0, 7\) has an empty side"),
            ((2, 6, 5, 0), r"x of shape \(2, 6, 5, 0\) has an empty side"),
        ],
        ids=str,
    )
    def test_what_is_no_image_is_refused(self, device, shape, message):
        module = self.make(device=device)
        for path in (module, self.asked(module)):
            with pytest.raises(ValueError, match=message):
                path(torch.zeros(shape, device=device))

    @pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.complex64], ids=str)
    def test_an_image_of_whole_numbers_is_refused(self, device, dtype):
        module = self.make(device=device)
        for path in (module, self.asked(module)):
            with pytest.raises(TypeError, match=f"x has dtype {dtype}, but a floating-point type"):
                path(torch.zeros(2, self.channels, 5, 7, dtype=dtype, device=device))


class LayersContract(VisionContract):
    """What a module promises whose weights lie in layers that it holds."""

    @pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
    def test_calls_the_layers_it_holds(self, torchvision, check):
        x = self.image("cpu").abs()

        def make():
            module = self.make()
            for name, layer in [*module.named_modules()]:
                if isinstance(layer, nn.BatchNorm2d):  # one weight: half of it is all or nothing
                    module.set_submodule(name, nn.BatchNorm2d(1, affine=False))
            with torch.no_grad():
                for parameter in module.parameters():
                    parameter.abs_()  # no hidden unit is off
            return module

        check(make, lambda module: module(x))

    def test_vmap_over_parameters_is_an_ensemble(self, device):
        modules = [self.make(device=device).eval() for _ in range(3)]
        for module in modules:
            for parameter in module.parameters():
                nn.init.normal_(parameter, std=0.3)
        state = torch.func.stack_module_state(modules)
        x = self.image(device)

        def one(parameters, buffers):
            return torch.func.functional_call(modules[0], (parameters, buffers), (x,))

        expected = torch.stack([module(x) for module in modules])
        assert_close(torch.vmap(one)(*state), expected)


class CompilerContract:
    """The slower half: for whole modules, not for those that they are made of."""

    def make_for_onnx(self) -> nn.Module:
        return self.make()

    inductor_fault = ""  # why inductor itself fails on sizes that it does not know, where it does

    @pytest.mark.parametrize("backend", ["aot_eager", inductor])
    @pytest.mark.parametrize("dynamic", [False, True])
    @pytest.mark.no_cover
    def test_compiles_to_one_graph(self, device, dynamic, backend):
        if dynamic and backend == "inductor" and self.inductor_fault:
            pytest.xfail(self.inductor_fault)
        torch.compiler.reset()
        graphs = CompileCounterWithBackend(backend)
        module = self.make(device=device).eval()
        compiled = torch.compile(module, fullgraph=True, dynamic=dynamic, backend=graphs)
        compilations = []
        for sizes in [{}, {"batch": 3, "height": 8, "width": 9}]:
            x = self.image(device, **sizes).requires_grad_()
            expected = module(x)  # first: einops' own first call would count as a change of code
            assert_close(compiled(x), expected)
            gradients = [
                torch.autograd.grad(path(x).square().sum(), [x, *module.parameters()])
                for path in (compiled, module)
            ]
            assert_close(*gradients, rtol=1e-4, atol=1e-4)
            compilations.append(graphs.frame_count)
        assert (compilations[1] == compilations[0]) == dynamic

    @pytest.mark.filterwarnings("ignore")  # of the exporter, about itself
    @pytest.mark.no_cover
    def test_onnxruntime_gives_the_same_answers_at_any_batch_and_size(self):
        module = self.make_for_onnx().eval()
        x = self.image("cpu", batch=3, height=8, width=9)
        found = onnx_answer(module, (self.image("cpu"),), (x,), {0: DIM, 2: DIM, 3: DIM})
        assert_close(found, module(x).detach(), rtol=1e-5, atol=1e-5)

    @pytest.mark.no_cover
    def test_exports_with_any_batch_and_size(self, device):
        module = self.make(device=device).eval()
        exported = torch.export.export(
            module, (self.image(device),), dynamic_shapes=({0: DIM, 2: DIM, 3: DIM},)
        )
        x = self.image(device, batch=3, height=8, width=9)
        assert_close(exported.module()(x), module(x))
