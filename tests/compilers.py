"""The compilers that tests of sequences meet."""

from __future__ import annotations

import pytest
import torch

# Compiling takes minutes, so it is marked slow.
inductor = pytest.param(
    "inductor",
    marks=[
        pytest.mark.slow,
        # Importing it uses TorchScript, which warns that it is deprecated.
        pytest.mark.filterwarnings("ignore::DeprecationWarning"),
        # Said of rotations, which then run in PyTorch's own kernel.
        pytest.mark.filterwarnings(
            "ignore:Torchinductor does not support code generation for comp"
        ),
    ],
)


def onnx_answer(module, inputs, others, axes):
    """Export a module by example `inputs`, and return what onnxruntime answers to `others`.

    `axes` says for each input which of its sizes may change.
    """
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    program = torch.onnx.export(
        module.eval(), inputs, dynamo=True, dynamic_shapes=(axes,), verbose=False
    )
    session = runtime.InferenceSession(program.model_proto.SerializeToString())
    names = [given.name for given in session.get_inputs()]
    feed = {name: x.numpy() for name, x in zip(names, others, strict=True)}
    return torch.from_numpy(session.run(None, feed)[0])
