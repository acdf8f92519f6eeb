"""The class that all modules of the package derive from: nn.Module, with calls that are typed."""

from __future__ import annotations

from typing import TYPE_CHECKING, ParamSpec, Protocol, TypeVar

from torch import nn

P = ParamSpec("P")  # the parameters of forward
R_co = TypeVar("R_co", covariant=True)  # its result


class HasForward(Protocol[P, R_co]):
    """Whatever has a `forward`."""

    def forward(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """Compute the result."""
        ...


class Module(nn.Module):
    """A torch.nn.Module whose call has the signature of its `forward`.

    nn.Module declares that a call takes anything and returns anything, so an editor shows `(...)`
    on `layer(` and a misspelt keyword is no error until the program runs. This class says what is
    true, to type checkers only: at run time it adds nothing.
    """

    if TYPE_CHECKING:

        def __call__(self: HasForward[P, R_co], *args: P.args, **kwargs: P.kwargs) -> R_co:
            """Call `forward`, and the hooks around it."""
            ...
