from __future__ import annotations

import subprocess
import sys

import attnbook


def test_import_brings_in_what_mechanisms_need_and_no_more():
    program = (
        "import sys, torch\n"
        "before = {*sys.modules}\n"
        "import attnbook\n"
        "print(*{*sys.modules} - before)"
    )
    shown = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    packages = {name.partition(".")[0] for name in shown.stdout.split()}
    assert packages.isdisjoint({"matplotlib", "IPython", "sklearn", "skimage", "mlxtend", "babel"})
    assert {"attnbook", "einops", "jaxtyping"} <= packages


def test_every_public_name_is_there_and_says_what_it_does():
    assert sorted(attnbook.__all__, key=str.lower) == sorted(set(attnbook.__all__), key=str.lower)
    for name in attnbook.__all__:
        thing = getattr(attnbook, name)
        assert thing.__doc__ and thing.__doc__.split("\n")[0].rstrip().endswith((".", ":")), name
