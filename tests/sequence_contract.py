"""What every module of a sequence promises, in every setting: the tests that such modules share.

A test file subclasses `SequenceContract`, or the one of its subclasses that fits, and
`SequenceCompilerContract`, and says how its module is
made, what it is given, and by which paths it answers.
"""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable
from contextlib import nullcontext

import pytest
import torch
from children import CHECKS
from compilers import inductor, onnx_answer
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import grad
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.testing import assert_close

from attnbook import padding_mask

HALF = [torch.float16, torch.bfloat16]
FLOATS = [torch.float64, torch.float32, *HALF]
aot_eager = pytest.param("aot_eager", marks=pytest.mark.slow)
DIM = torch.export.Dim.DYNAMIC

# PyTorch's kernel for the CPU has no rule for vmap, so that vmap falls back to a loop.
loops_under_vmap = pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning")


class SequenceContract:
    half_tolerance = 4.0  # largest error of a half type, in units of its eps, beside float64
    autocast_is_half = True  # the output under autocast has its type, as that of nn.Linear has

    def make(self, **kwargs) -> nn.Module:
        """Return a new module; `device` and `dtype` are passed on."""
        raise NotImplementedError

    def inputs(self, device, batch=2, length=5, dtype=torch.float32) -> tuple[Tensor, ...]:
        """Return what one call is given; the first axis of each input is the batch."""
        raise NotImplementedError

    def ask(self, module) -> dict[str, Callable[..., Tensor]]:
        """Return the ways to an answer, each a function of the inputs that returns one tensor."""
        return {"forward": module}

    def ready(self, device, *, dtype=torch.float32, **sizes):
        """Return a module with random parameters, and inputs."""
        module = self.make(device=device, dtype=dtype).eval()
        for parameter in module.parameters():
            values = 0.5 * torch.randn(parameter.shape, dtype=torch.float64)
            parameter.data.copy_(values)
        return module, self.inputs(device, dtype=dtype, **sizes)

    @loops_under_vmap
    def test_vmap_is_a_batch_axis(self, device):
        module, _ = self.ready(device)
        calls = [self.inputs(device) for _ in range(3)]
        stacked = [torch.stack(same) for same in zip(*calls, strict=True)]
        for answer in self.ask(module).values():
            expected = torch.stack([answer(*inputs) for inputs in calls])
            assert_close(torch.vmap(answer)(*stacked), expected)

    @loops_under_vmap
    def test_vmap_over_parameters_is_an_ensemble(self, device):
        modules = [self.ready(device)[0] for _ in range(3)]
        if not list(modules[0].parameters()):
            pytest.skip("has no parameters")
        inputs = self.inputs(device)
        state = torch.func.stack_module_state(modules)
        for path in self.ask(modules[0]):

            def one(parameters, buffers, path=path):
                chosen = OnePath(copy.copy(modules[0]), self.ask, path)
                state = {f"module.{name}": x for name, x in {**parameters, **buffers}.items()}
                return torch.func.functional_call(chosen, state, inputs)

            expected = torch.stack([self.ask(module)[path](*inputs) for module in modules])
            assert_close(torch.vmap(one)(*state), expected)

    @pytest.mark.parametrize("dtype", HALF, ids=str)
    def test_autocast_keeps_the_answers(self, device, dtype):
        module, inputs = self.ready(device)
        for answer in self.ask(module).values():
            expected = answer(*inputs)
            with torch.autocast(device.type, dtype=dtype):
                output = answer(*inputs)
            assert output.dtype == (dtype if self.autocast_is_half else expected.dtype)
            assert_close(output.float(), expected, rtol=0.05, atol=0.05)

    @pytest.mark.parametrize("dtype", FLOATS, ids=str)
    def test_dtype_and_device_are_keyword_arguments_and_pass_through(self, device, dtype):
        module, inputs = self.ready(device, dtype=dtype)
        outputs = [answer(*inputs) for answer in self.ask(module).values()]
        for tensor in (*module.parameters(), *outputs):
            assert (tensor.dtype, tensor.device.type) == (dtype, device.type)

    @pytest.mark.parametrize("dtype", HALF, ids=str)
    def test_half_types_are_exact_to_their_rounding(self, device, dtype):
        half, inputs = self.ready(device, dtype=dtype)
        double = copy.deepcopy(half).double()
        widened = [x.double() if x.is_floating_point() else x for x in inputs]
        for path, answer in self.ask(half).items():
            expected = self.ask(double)[path](*widened)
            error = (answer(*inputs) - expected).abs() / expected.abs().clamp(min=1)
            assert error.max() <= self.half_tolerance * torch.finfo(dtype).eps

    def test_runs_on_the_meta_device(self, device):
        module = self.make(device="meta")
        expected = self.ask(self.make(device=device))
        for path, answer in self.ask(module).items():
            output = answer(*(x.to("meta") for x in self.inputs(device)))
            assert output.is_meta
            assert output.shape == expected[path](*self.inputs(device)).shape
        assert all(parameter.is_meta for parameter in module.parameters())

    def test_stays_where_its_inputs_are_whatever_the_default_device(self, device):
        module, inputs = self.ready(device)
        expected = [answer(*inputs) for answer in self.ask(module).values()]
        with torch.device("meta"):  # any other device
            outputs = [answer(*inputs) for answer in self.ask(module).values()]
        assert_close(outputs, expected)

    @pytest.mark.parametrize("way", ["deepcopy", "pickle", "state_dict"])
    def test_a_copy_gives_the_same_answers(self, device, way):
        module, inputs = self.ready(device)
        if way == "state_dict":
            copied = self.make(device=device).eval()
            copied.load_state_dict(module.state_dict())
        else:
            copied = (
                copy.deepcopy(module) if way == "deepcopy" else pickle.loads(pickle.dumps(module))
            )
        for path, answer in self.ask(module).items():
            assert torch.equal(self.ask(copied)[path](*inputs), answer(*inputs))
        own = {parameter.data_ptr() for parameter in module.parameters()}
        assert own.isdisjoint(parameter.data_ptr() for parameter in copied.parameters())

    def test_inputs_are_left_alone_and_answers_repeat(self, device):
        module, inputs = self.ready(device)
        before = [x.clone() for x in (*inputs, *module.state_dict().values())]
        for answer in self.ask(module).values():
            assert torch.equal(answer(*inputs), answer(*inputs))
        assert all(map(torch.equal, before, (*inputs, *module.state_dict().values())))

    @pytest.mark.parametrize("bad", [math.nan, math.inf])
    def test_one_row_of_the_batch_is_not_seen_by_another(self, device, bad):
        module, inputs = self.ready(device)
        spoilt = [x.clone() for x in inputs]
        for x in spoilt:
            if x.is_floating_point():
                x[1] = bad
        for answer in self.ask(module).values():
            expected = answer(*inputs)[:1]
            assert_close(answer(*(x[:1] for x in inputs)), expected)
            assert_close(answer(*spoilt)[:1], expected)

    @pytest.mark.no_cover
    def test_tracers_without_values_are_served(self, device):
        module, inputs = self.ready(device)
        for answer in self.ask(module).values():
            expected = answer(*inputs)
            with FakeTensorMode(allow_non_fake_inputs=True) as mode:
                fake = answer(*(mode.from_tensor(x) for x in inputs))
            assert fake.shape == expected.shape
            assert_close(make_fx(answer)(*inputs)(*inputs), expected)

    def test_a_batch_may_be_empty(self, device):
        module, inputs = self.ready(device)
        empty = [x[:0] for x in inputs]
        for answer in self.ask(module).values():
            output = answer(*empty)
            assert output.shape == answer(*inputs)[:0].shape
            if output.requires_grad:
                output.sum().backward()

    def test_what_is_no_sequence_of_numbers_is_refused(self, device):
        module, inputs = self.ready(device)
        x, *others = inputs
        wrong = [(TypeError, x.tolist())]
        if x.is_floating_point():
            wrong += [(TypeError, x.to(torch.int64)), (TypeError, x.to(torch.complex64))]
            wrong += [(ValueError, x[0, 0]), (ValueError, torch.cat([x, x], dim=-1))]
        for answer in self.ask(module).values():
            for error, bad in wrong:
                with pytest.raises(error, match=r"\w+ (is a|has)"):
                    answer(bad, *others)


class LayersContract(SequenceContract):
    """What holds of modules with layers inside."""

    @pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
    @pytest.mark.no_cover
    def test_the_layers_inside_are_called(self, device, check, request):
        if check.__name__.startswith("lora"):
            request.getfixturevalue("torchvision")
        paths = list(self.ask(self.make()))
        for path in paths if check is CHECKS[0] else paths[:1]:
            inputs = self.inputs(torch.device("cpu"))
            check(lambda: self.ready("cpu")[0], lambda m, p=path, i=inputs: self.ask(m)[p](*i))


class MaskContract(LayersContract):
    """What holds of attention: its last input is a mask, its ways are "forward" and "attend"."""

    looked_at: tuple[int, ...]  # the inputs whose rows the mask hides

    @pytest.mark.parametrize("dtype", FLOATS, ids=str)
    @pytest.mark.parametrize("bad", [math.nan, math.inf])
    def test_padding_may_hold_anything(self, device, bad, dtype):
        module, (*inputs, mask) = self.ready(device, dtype=dtype)
        keys = mask.shape[-1]
        mask = padding_mask(torch.tensor([keys - 2, keys], device=device), keys)
        spoilt = list(inputs)
        for n in self.looked_at:
            spoilt[n] = torch.where(mask.mT, inputs[n], bad)
        to_itself = 0 in self.looked_at  # a position in the padding has an output of its own
        leaves = list(module.parameters())

        def results(answer, given):
            given = [x.clone().requires_grad_() for x in given]
            output = answer(*given, mask)
            if to_itself:
                return [torch.where(mask.mT, output, 0.0)]
            return [output, *grad(output.square().sum(), [*given, *leaves], allow_unused=True)]

        for path in ("forward", "attend"):
            answer = self.ask(module)[path]
            assert_close(results(answer, spoilt), results(answer, inputs), rtol=0, atol=0)

    @pytest.mark.parametrize("way", ["attend", "MATH"])
    @pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")  # of forward mode, at first
    def test_every_derivative_has_a_way(self, device, way):
        module, (x, *others) = self.ready(device)
        answer = self.ask(module)["forward" if way == "MATH" else way]
        tangent = torch.randn_like(x)

        def run(x):
            return answer(x, *others)

        def of_first_order(x):
            x = x.requires_grad_()
            return grad(run(x).square().sum(), x, create_graph=True)[0]

        with sdpa_kernel(SDPBackend.MATH) if way == "MATH" else nullcontext():
            _, forwards = torch.func.jvp(run, (x,), (tangent,))
            x = x.clone().requires_grad_()
            (second,) = grad((of_first_order(x) * tangent).sum(), x)
        double = copy.deepcopy(module).double()
        wide = [y.double() if y.is_floating_point() else y for y in others]
        by_attend = self.ask(double)["attend"]
        step = 1e-4 * tangent.double()

        def slope(x):
            x = x.detach().double().requires_grad_()
            output = by_attend(x, *wide)
            return output.detach(), grad(output.square().sum(), x)[0]

        (after, slope_after), (before, slope_before) = slope(x + step), slope(x - step)
        expected = [(after - before) / 2e-4, (slope_after - slope_before) / 2e-4]
        assert_close([forwards.double(), second.double()], expected, rtol=1e-3, atol=1e-3)


class OnePath(nn.Module):
    """A module that answers by one of its paths."""

    def __init__(self, module, ask, path):
        super().__init__()
        self.module, self.ask, self.path = module, ask, path

    def forward(self, *inputs):
        return self.ask(self.module)[self.path](*inputs)


class SequenceCompilerContract:
    """The slower half. Sizes that may change are those of `axes`, one dictionary for each input."""

    axes: tuple[dict[int, object], ...] = ({0: DIM, 1: DIM},)

    @pytest.mark.parametrize("backend", ["eager", aot_eager, inductor])
    @pytest.mark.parametrize("dynamic", [pytest.param(False, marks=pytest.mark.slow), True])
    @pytest.mark.parametrize("first", [True, pytest.param(False, marks=pytest.mark.slow)])
    @pytest.mark.no_cover
    def test_compiles_to_one_graph(self, device, first, dynamic, backend):
        module, inputs = self.ready(device)
        answers = list(self.ask(module).values())
        for answer in answers[:1] if first else answers[1:]:
            torch.compiler.reset()
            compiled = torch.compile(answer, fullgraph=True, dynamic=dynamic, backend=backend)
            assert_close(compiled(*inputs), answer(*inputs))
            if dynamic:
                others = self.inputs(device, batch=3, length=7)
                with torch._dynamo.config.patch(error_on_recompile=True):
                    assert_close(compiled(*others), answer(*others))

    @pytest.mark.parametrize("first", [True, pytest.param(False, marks=pytest.mark.slow)])
    @pytest.mark.no_cover
    def test_exports_with_any_batch_and_length(self, device, first):
        module, inputs = self.ready(device)
        others = self.inputs(device, batch=3, length=7)
        paths = list(self.ask(module).items())
        for path, answer in paths[:1] if first else paths[1:]:
            one = OnePath(module, self.ask, path)
            exported = torch.export.export(one, inputs, dynamic_shapes=(self.axes,))
            assert_close(exported.module()(*others), answer(*others))

    @pytest.mark.slow
    @pytest.mark.filterwarnings("ignore")  # of the exporter, about itself
    def test_onnx_answers_as_pytorch_does_at_any_batch_and_length(self, device):
        module, inputs = self.ready("cpu")
        others = self.inputs(torch.device("cpu"), batch=3, length=7)
        for path, answer in self.ask(module).items():
            found = onnx_answer(OnePath(module, self.ask, path), inputs, others, self.axes)
            assert_close(found, answer(*others).detach(), rtol=1e-4, atol=1e-4)
