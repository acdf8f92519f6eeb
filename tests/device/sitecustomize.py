"""Read by every Python that starts with this folder on its path: it then has the device.

Test processes, their children and the notebooks' kernels get it in this one way, before any of
them can import torch. `python tests/device` sets both variables.
"""

import os
import traceback

if "SIMDEVICE_SHIM" in os.environ:
    try:
        import simdevice  # noqa: F401
    except BaseException:
        # Python would go on without the device, and all would seem to pass.
        traceback.print_exc()
        os._exit(1)
