"""The proof runs on the simulated device alone: elsewhere it is not collected."""

import os

collect_ignore = [] if "SIMDEVICE_SHIM" in os.environ else ["test_proof.py"]
