"""Where a quantised graph rounds: what each runtime needs to run whole chains of operators in integers.

The quantiser rounds before and after every layer with weights. Profiles of RepViT's graph showed what that costs:
OpenVINO computes GELU, gates and sums inside the convolution before them, but not across a rounding between the two;
ONNX Runtime runs convolutions in integers only with a rounding behind them, and GELU and the gates' means in float,
which took as long as the convolutions.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np
import onnx
from onnx import GraphProto, NodeProto, helper, numpy_helper

#: Operators with weights: the convolutions and products are where the time is.
OPERATORS = ("Conv", "MatMul", "Gemm")
#: What OpenVINO computes inside the layer before it.
FUSED_BY_OPENVINO = {"Gelu", "Relu", "Sigmoid", "Add", "Mul"}
#: GELU(x) is x times sigmoid of this times x, to 0.02 (Hendrycks and Gimpel, arXiv:1606.08415, section 2).
GELU_SLOPE = 1.702


def place(path: Path, backend: str) -> None:
    """Rewrites the quantised graph in `path` for a runtime; for another than these two it stays as it is."""
    rewrite = REWRITES.get(backend)
    if rewrite:
        model = onnx.load(path)
        rewrite(model.graph)
        onnx.save(model, path)


def pool_means(path: Path) -> None:
    """Makes the mean over the last two of four dimensions a pooling, which runtimes have in integers; exact."""
    model = onnx.load(path)
    graph = model.graph
    constants = _constants(graph)
    ranks = {value.name: len(value.type.tensor_type.shape.dim) for value in (*graph.value_info, *graph.input)}
    for node in graph.node:
        if node.op_type != "ReduceMean" or ranks.get(node.input[0]) != 4 or len(node.input) < 2:
            continue
        axes = constants.get(node.input[1])
        keeps = all(attribute.i for attribute in node.attribute if attribute.name == "keepdims")
        if axes is not None and keeps and sorted(int(axis) % 4 for axis in axes) == [2, 3]:
            node.CopyFrom(helper.make_node("GlobalAveragePool", node.input[:1], node.output, node.name))
    used = {name for node in graph.node for name in node.input}
    for tensor in [tensor for tensor in graph.initializer if tensor.name not in used]:
        graph.initializer.remove(tensor)
    onnx.save(model, path)


def gates(graph: GraphProto) -> list[str]:
    """Names of the sigmoids whose results scale something."""
    scaling = {name for node in graph.node if node.op_type == "Mul" for name in node.input}
    return [node.name for node in graph.node if node.op_type == "Sigmoid" and node.output[0] in scaling]


def _round_once(graph: GraphProto) -> None:
    """Takes away the rounding between a layer and what OpenVINO would compute inside it."""
    makers, takers = _makers(graph), _takers(graph)
    replaced: dict[str, str] = {}
    for node in graph.node:
        source = _layer_behind(node, makers)
        if source and {taker.op_type for taker in takers.get(node.output[0], ())} <= FUSED_BY_OPENVINO:
            replaced[node.output[0]] = source
    for node in graph.node:
        node.input[:] = [replaced.get(name, name) for name in node.input]
    _drop_unused(graph)


def _layer_behind(node: NodeProto, makers: Mapping[str, NodeProto]) -> str | None:
    """The layer's result that `node` gives back after rounding; None if it does something else."""
    rounding = makers.get(node.input[0]) if node.op_type == "DequantizeLinear" else None
    layer = makers.get(rounding.input[0]) if rounding is not None and rounding.op_type == "QuantizeLinear" else None
    return layer.output[0] if layer is not None and layer.op_type in OPERATORS else None


def _tabulate_gelu(graph: GraphProto) -> None:
    """Makes GELU of a rounded value a product of it and its sigmoid, both of which ONNX Runtime has on bytes.

    The slope goes into the scale of the bytes that the sigmoid reads, so that it costs no operator.
    """
    makers, constants = _makers(graph), _constants(graph)
    # The sigmoid lies in [0, 1].
    scale, zero = "byte_of_gate_scale", "byte_of_gate_zero_point"
    graph.initializer.append(numpy_helper.from_array(np.array(1 / 256, np.float32), scale))
    graph.initializer.append(numpy_helper.from_array(np.array(0, np.uint8), zero))
    nodes: list[NodeProto] = []
    for node in graph.node:
        rounded = makers.get(node.input[0]) if node.op_type == "Gelu" else None
        if rounded is None or rounded.op_type != "DequantizeLinear":
            nodes.append(node)
            continue
        steep = f"{node.name}_scale"
        slope = np.array(GELU_SLOPE * constants[rounded.input[1]], np.float32)
        graph.initializer.append(numpy_helper.from_array(slope, steep))
        wide, gate, low, high = (f"{node.name}_{part}" for part in ("wide", "gate", "rounded_gate", "gate_again"))
        nodes += [
            helper.make_node("DequantizeLinear", [rounded.input[0], steep, rounded.input[2]], [wide], wide),
            helper.make_node("Sigmoid", [wide], [gate], gate),
            helper.make_node("QuantizeLinear", [gate, scale, zero], [low], low),
            helper.make_node("DequantizeLinear", [low, scale, zero], [high], high),
            helper.make_node("Mul", [rounded.output[0], high], node.output, node.name),
        ]
    _set_nodes(graph, nodes)


def _drop_unused(graph: GraphProto) -> None:
    """Drops roundings that nothing takes any more."""
    dropped = True
    while dropped:
        used = Counter(name for node in graph.node for name in node.input)
        used.update(value.name for value in graph.output)
        kept = [node for node in graph.node if any(used[name] for name in node.output)]
        dropped = len(kept) < len(graph.node)
        _set_nodes(graph, kept)


def _set_nodes(graph: GraphProto, nodes: Iterable[NodeProto]) -> None:
    copies = [NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(copies)


def _makers(graph: GraphProto) -> dict[str, NodeProto]:
    """By a value's name, the node that makes it."""
    return {name: node for node in graph.node for name in node.output}


def _takers(graph: GraphProto) -> dict[str, list[NodeProto]]:
    """By a value's name, the nodes that take it."""
    takers: dict[str, list[NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            takers.setdefault(name, []).append(node)
    return takers


def _constants(graph: GraphProto) -> dict[str, np.ndarray[tuple[int, ...], np.dtype[np.float32]]]:
    """By its name, every small constant."""
    small = (tensor for tensor in graph.initializer if int(np.prod(tensor.dims)) <= 16)
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in small}


REWRITES: Mapping[str, Callable[[GraphProto], None]] = {"openvino": _round_once, "onnxruntime": _tabulate_gelu}
