"""What works on the layers inside a module, because the module calls them: checks for contracts.

Each check takes `make`, which returns a new module, and `run`, which calls the module and returns
one tensor; each goes through every layer with a weight that the module holds, at any depth. The
tools are PyTorch's and peft's own, met as their users meet them.
"""

from __future__ import annotations

import copy
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.ao.quantization import float_qparams_weight_only_qconfig, quantize_dynamic
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.utils import parametrizations, prune
from torch.testing import assert_close

Make = Callable[[], nn.Module]
Run = Callable[[nn.Module], Tensor]


def layers(module: nn.Module) -> list[str]:
    """Return the names of the layers that have a weight."""
    return [
        name
        for name, layer in module.named_modules()
        if name and isinstance(getattr(layer, "weight", None), Tensor)
    ]


def train(module: nn.Module, run: Run, steps: int = 2) -> None:
    """Take some steps away from the output at hand."""
    optimizer = torch.optim.SGD([p for p in module.parameters() if p.requires_grad], lr=0.1)
    for _ in range(steps):
        optimizer.zero_grad()
        run(module).square().sum().backward()
        optimizer.step()


def hooks_fire_on_every_layer(make: Make, run: Run) -> None:
    """Forward hooks see each layer, and what they return is what the module goes on with."""
    module = make()
    expected = run(module)
    names = layers(module)
    assert names
    for name in names:
        layer, seen = module.get_submodule(name), []
        handle = layer.register_forward_hook(lambda *call, seen=seen: seen.append(call))
        run(module)
        handle.remove()
        assert seen, f"{name} is never called"
        handle = layer.register_forward_hook(lambda layer, inputs, output: output + 1.5)
        changed = run(module)
        handle.remove()
        # What is added to every score, or in front of a normalisation, may cancel: it is computed.
        if not torch.equal(changed, expected):
            continue
        handle = layer.register_forward_hook(lambda layer, inputs, output: output * torch.nan)
        changed = run(module)
        handle.remove()
        assert changed.isnan().any(), f"what {name} returns is not used"


def every_layer_can_be_wrapped(make: Make, run: Run) -> None:
    """A layer may be replaced by whatever calls it, as adapters and tracers do."""

    class Wrapper(nn.Module):
        def __init__(self, layer: nn.Module) -> None:
            super().__init__()
            self.layer = layer

        def forward(self, *inputs: Tensor) -> Tensor:
            return self.layer(*inputs)

    module = make()
    expected = run(module)
    for name in layers(module):
        wrapped = copy.deepcopy(module)
        wrapped.set_submodule(name, Wrapper(wrapped.get_submodule(name)))
        assert_close(run(wrapped), expected, msg=lambda said, name=name: f"{name}: {said}")


def every_layer_can_be_pruned(make: Make, run: Run) -> None:
    """Pruned weights take part as zeros, over several steps, and the others learn."""
    module = make()
    for name in layers(module):
        layer = module.get_submodule(name)
        prune.random_unstructured(layer, "weight", amount=max(1, layer.weight.numel() // 2))
    before = {name: p.detach().clone() for name, p in module.named_parameters()}
    train(module, run, steps=3)
    for name in layers(module):
        layer = module.get_submodule(name)
        moved = layer.weight_orig != before[f"{name}.weight_orig"]
        assert moved.any(), f"{name} does not learn"
        assert not moved[layer.weight_mask == 0].any(), f"{name} is not pruned"
        prune.remove(layer, "weight")
    run(module)


def every_layer_can_be_reparametrised(make: Make, run: Run) -> None:
    """Spectral and weight norm, in PyTorch's old form and its new one, are part of the gradient."""
    ways = {
        "spectral_norm": parametrizations.spectral_norm,
        "weight_norm": parametrizations.weight_norm,
        "old spectral_norm": nn.utils.spectral_norm,
    }
    for way, normalise in ways.items():
        for name in layers(make()):
            module = make()
            layer = module.get_submodule(name)
            if layer.weight.ndim < 2 and way != "weight_norm":
                continue
            normalise(layer)
            before = {n: p.detach().clone() for n, p in layer.named_parameters()}
            train(module, run, steps=2)
            moved = [n for n, p in layer.named_parameters() if not torch.equal(p, before[n])]
            assert any("weight" in n for n in moved), f"{way} freezes {name}"


def lora_works_on_every_layer(make: Make, run: Run) -> None:
    """An adapter of peft changes the output and gets gradients. Wants the fixture torchvision."""
    peft = pytest.importorskip("peft")
    kinds = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Embedding)
    for name in layers(make()):
        module = make()
        if not isinstance(module.get_submodule(name), kinds):
            continue
        expected = run(module)
        config = peft.LoraConfig(target_modules=f".*{name}", r=2, init_lora_weights=False)
        peft.inject_adapter_in_model(config, module)
        adapted = run(module)
        assert not torch.equal(adapted, expected), f"an adapter of {name} has no effect"
        adapted.square().sum().backward()
        gradients = {n: p.grad for n, p in module.named_parameters() if "lora_" in n}
        assert len(gradients) >= 2
        for adapter, gradient in gradients.items():
            assert gradient is not None and gradient.any(), f"{adapter} gets no gradient"


def dynamic_quantisation_works(make: Make, run: Run) -> None:
    """Linear layers and embeddings with eight bits give nearly the same output."""
    module = make().eval()
    expected = run(module)
    kinds = {nn.Linear, nn.Embedding} & {type(layer) for layer in module.modules()}
    if not kinds:
        return
    config = dict.fromkeys(kinds, torch.ao.quantization.default_dynamic_qconfig)
    if nn.Embedding in kinds:
        config[nn.Embedding] = float_qparams_weight_only_qconfig
    with pytest.warns((DeprecationWarning, UserWarning)):  # it will move to torchao
        quantised = quantize_dynamic(module, config)
    assert any("quantized" in type(layer).__module__ for layer in quantised.modules())
    with torch.no_grad():
        scale = float(expected.abs().max())
        assert_close(run(quantised), expected, rtol=0, atol=0.1 * scale)


@contextmanager
def one_process() -> Iterator[None]:
    """Run a process group of this process alone."""
    with tempfile.TemporaryDirectory() as folder:
        store = dist.FileStore(str(Path(folder, "store")), 1)
        dist.init_process_group("gloo", rank=0, world_size=1, store=store)
        try:
            yield
        finally:
            dist.destroy_process_group()


def every_layer_can_be_sharded(make: Make, run: Run) -> None:
    """FSDP2 gathers each layer's weights when the layer is called, and only then."""
    module = make()
    sharded = copy.deepcopy(module)
    with one_process():
        mesh = init_device_mesh("cpu", (1,))
        for name in layers(sharded):
            fully_shard(sharded.get_submodule(name), mesh=mesh)
        fully_shard(sharded, mesh=mesh)
        with warnings.catch_warnings():  # a linear layer returns a view of its own
            warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view tensor")
            expected, output = run(module), run(sharded)
        assert_close(output, expected)
        expected.square().sum().backward()
        output.square().sum().backward()
        for (name, theirs), ours in zip(
            module.named_parameters(), sharded.parameters(), strict=True
        ):
            assert ours.grad is not None, name
            assert_close(ours.grad.full_tensor(), theirs.grad)


CHECKS = (
    hooks_fire_on_every_layer,
    every_layer_can_be_wrapped,
    every_layer_can_be_pruned,
    every_layer_can_be_reparametrised,
    lora_works_on_every_layer,
    dynamic_quantisation_works,
    every_layer_can_be_sharded,
)
