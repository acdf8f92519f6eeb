"""children.py: its checks pass where layers are called, and fail where weights are borrowed."""

from __future__ import annotations

import children
import pytest
import torch
import torch.nn.functional as F
from torch import nn

X = torch.linspace(-1, 2, 12).view(3, 4)


class Caller(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 6), nn.Linear(6, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(self.first(x).tanh())


class Borrower(Caller):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = F.linear(x, self.first.weight, self.first.bias).tanh()
        return F.linear(hidden, self.second.weight, self.second.bias)


class Reader(Caller):
    """Calls its layers, and asks one of them for its size."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) * self.first.in_features


every_check = pytest.mark.parametrize("check", children.CHECKS, ids=lambda check: check.__name__)


@every_check
def test_a_module_that_calls_its_layers_passes(torchvision, check):
    check(Caller, lambda module: module(X))


@every_check
def test_a_module_that_borrows_their_weights_does_not(torchvision, check):
    with pytest.raises((AssertionError, AttributeError, RuntimeError, TypeError)):
        check(Borrower, lambda module: module(X))


def test_a_module_that_asks_a_layer_for_its_size_cannot_be_wrapped():
    with pytest.raises(AttributeError, match="in_features"):
        children.every_layer_can_be_wrapped(Reader, lambda module: module(X))


def test_a_hook_that_is_called_and_not_used_is_noticed():
    class Ignorer(Caller):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.first(x)
            return self.second(torch.ones(3, 6))

    with pytest.raises(AssertionError, match="what first returns is not used"):
        children.hooks_fire_on_every_layer(Ignorer, lambda module: module(X))
