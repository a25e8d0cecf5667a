"""The trained net as an ONNX graph: reflectance in, a share of each class for each pixel out."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from examples.crops.train.net import Net
from examples.crops.train.pines import Floats

__all__ = ["export"]

OPSET = 17
IR_VERSION = 8  # read by every ONNX Runtime since 1.14


def export(net: Net, means: Floats, deviations: Floats, path: Path) -> None:
    """Write it. Input `reflectance` (n, bands, h, w), output `shares` (n, classes, h-8, w-8), all 32-bit."""
    onnx: Any = import_module("onnx")  # its types are not complete
    make, numbers = onnx.helper, onnx.numpy_helper
    bands, classes = len(means), net.weights[-1].shape[1]
    parts: dict[str, Floats] = {"means": means.reshape(1, -1, 1, 1), "deviations": deviations.reshape(1, -1, 1, 1)}
    nodes = [
        make.make_node("Sub", ["reflectance", "means"], ["centred"]),
        make.make_node("Div", ["centred", "deviations"], ["layer0"]),
    ]
    for number, (weights, bias) in enumerate(zip(net.weights, net.biases, strict=True)):
        is_last = number == len(net.weights) - 1
        side = 1 if is_last else 3
        shaped = weights.reshape(side, side, -1, weights.shape[1]).transpose(3, 2, 0, 1)
        parts |= {f"w{number}": np.ascontiguousarray(shaped), f"b{number}": bias}
        made = "scores" if is_last else f"conv{number}"
        nodes.append(make.make_node("Conv", [f"layer{number}", f"w{number}", f"b{number}"], [made]))
        if not is_last:
            nodes.append(make.make_node("Relu", [made], [f"layer{number + 1}"]))
    nodes.append(make.make_node("Softmax", ["scores"], ["shares"], axis=1))
    kind = onnx.TensorProto.FLOAT
    graph = make.make_graph(
        nodes,
        "crops",
        [make.make_tensor_value_info("reflectance", kind, ["n", bands, "h", "w"])],
        [make.make_tensor_value_info("shares", kind, ["n", classes, "h_out", "w_out"])],
        [numbers.from_array(part.astype(np.float32), name) for name, part in parts.items()],
    )
    model = make.make_model(graph, opset_imports=[make.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())
