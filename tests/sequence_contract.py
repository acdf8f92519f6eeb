"""What every module of a sequence promises, in every setting: the tests that such modules share.

A test file subclasses `SequenceContract` and `SequenceCompilerContract`, and says how its module is
made, what it is given, and by which paths it answers.
"""

from __future__ import annotations

import copy
import math
import pickle
import warnings
from collections.abc import Callable

import pytest
import torch
from children import CHECKS
from compilers import inductor, onnx_answer
from torch import Tensor, nn
from torch.testing import assert_close

HALF = [torch.float16, torch.bfloat16]
FLOATS = [torch.float64, torch.float32, *HALF]
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
                module = copy.copy(modules[0])
                with torch.nn.utils.stateless._reparametrize_module(
                    module, {**parameters, **buffers}
                ):
                    return self.ask(module)[path](*inputs)

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

    @pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
    def test_the_layers_inside_are_called(self, device, check, request):
        if not list(self.make().children()):
            pytest.skip("holds no layer")
        if check.__name__.startswith("lora"):
            request.getfixturevalue("torchvision")
        for path in self.ask(self.make()):
            inputs = self.inputs(torch.device("cpu"))
            check(lambda: self.ready("cpu")[0], lambda m, p=path, i=inputs: self.ask(m)[p](*i))


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
    onnx_fault = ""  # why it cannot be exported to ONNX, where it cannot

    @pytest.mark.parametrize("backend", ["aot_eager", inductor])
    @pytest.mark.parametrize("dynamic", [False, True])
    def test_compiles_to_one_graph(self, device, dynamic, backend):
        module, inputs = self.ready(device)
        for answer in self.ask(module).values():
            torch.compiler.reset()
            compiled = torch.compile(answer, fullgraph=True, dynamic=dynamic, backend=backend)
            assert_close(compiled(*inputs), answer(*inputs))
            if dynamic:
                others = self.inputs(device, batch=3, length=7)
                with torch._dynamo.config.patch(error_on_recompile=True):
                    assert_close(compiled(*others), answer(*others))

    def test_exports_with_any_batch_and_length(self, device):
        module, inputs = self.ready(device)
        others = self.inputs(device, batch=3, length=7)
        for path, answer in self.ask(module).items():
            one = OnePath(module, self.ask, path)
            exported = torch.export.export(one, inputs, dynamic_shapes=(self.axes,))
            assert_close(exported.module()(*others), answer(*others))

    @pytest.mark.filterwarnings("ignore")  # of the exporter, about itself
    def test_onnx_answers_as_pytorch_does_at_any_batch_and_length(self, device):
        if self.onnx_fault:
            pytest.skip(self.onnx_fault)
        module, inputs = self.ready("cpu")
        others = self.inputs(torch.device("cpu"), batch=3, length=7)
        for path, answer in self.ask(module).items():
            one = OnePath(module, self.ask, path)
            found = onnx_answer(one, inputs, others, self.axes)
            with warnings.catch_warnings(), torch.no_grad():
                assert_close(found, answer(*others), rtol=1e-4, atol=1e-4)
