"""The proof runs on the simulated device alone; doctests are not looked for in its machinery."""

import os

collect_ignore = ["simdevice", "sitecustomize.py", "operators.py", "__main__.py"]
if "SIMDEVICE_SHIM" not in os.environ:
    collect_ignore.append("test_proof.py")
