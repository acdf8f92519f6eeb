"""Read by every Python that starts with this folder on its path: it then has the device.

Test processes, their children and the notebooks' kernels get it in this one way, before any of
them can import torch. `python tests/device` sets both variables.
"""

import os

if "SIMDEVICE_SHIM" in os.environ:
    import simdevice  # noqa: F401
