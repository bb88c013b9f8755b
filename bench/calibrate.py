"""What this machine can do at best: matrix products by precision, and memory bandwidth.

A latency divided by these limits says how much of the machine is used, and lets laptops be compared by ratio instead
of by second. The idea of measuring limits with a product and a stream: S. Williams, A. Waterman, D. Patterson,
"Roofline: an insightful visual performance model for multicore architectures", CACM 52(4), 2009.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray

from bench.machine import describe_machine
from bench.timing import calls_made, interleave

#: Side of the square matrices: too large for a core's private caches, small enough for any laptop.
SIDE = 1536
#: Floats of each stream array: 64 MiB, beyond the last cache of laptops.
STREAM_LENGTH = 2**24
#: Arrays that one pass over the stream reads and writes: a + b to c. (The write's own read is not counted.)
STREAM_ARRAYS = 3
ROUNDS, WARMUP = 20, 2
#: Without one of these a bfloat16 product is emulated, a hundred times slower than float32: nobody's limit.
BF16_FLAGS = frozenset({"avx512_bf16", "amx_bf16", "bf16"})


def measure_peak(threads: int, rounds: int = ROUNDS, on_call: Callable[[], None] = lambda: None) -> dict[str, Any]:
    """Measurements of a `peak` record: see `bench.record.MEASUREMENTS`. Takes some seconds and 250 MiB.

    `bf16_s` is None on a CPU without bfloat16 instructions.

    Args:
        threads: that one operator may use.
        rounds: measured calls of each, interleaved.
        on_call: called after every call, `calibration_calls(rounds)` times in all.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        samples = interleave(_calls(threads), rounds, WARMUP, on_call)
    finally:
        torch.set_num_threads(before)
    seconds: dict[str, Any] = {"bf16_s": None} | {name: found.seconds for name, found in samples.items()}
    return seconds | {"product_macs": SIDE**3, "stream_bytes": 4 * STREAM_ARRAYS * STREAM_LENGTH}


def calibration_calls(rounds: int = ROUNDS) -> int:
    """How often `measure_peak` calls `on_call`."""
    return calls_made(4 if _has_bf16() else 3, rounds, WARMUP)


def _calls(threads: int) -> dict[str, Callable[[], object]]:
    bf16 = {"bf16_s": _torch_product(torch.bfloat16)} if _has_bf16() else {}
    products = {"fp32_s": _torch_product(torch.float32), "int8_s": _int8_product(threads)}
    return products | bf16 | {"stream_s": _stream()}


def _has_bf16() -> bool:
    return not BF16_FLAGS.isdisjoint(describe_machine()["isa"])


def _torch_product(dtype: torch.dtype) -> Callable[[], object]:
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(SIDE, SIDE, generator=generator).to(dtype) for _ in range(2))
    out = torch.empty(SIDE, SIDE, dtype=dtype)
    return lambda: torch.mm(a, b, out=out)


def _stream() -> Callable[[], object]:
    a, b, out = (torch.ones(STREAM_LENGTH) for _ in range(3))
    return lambda: torch.add(a, b, out=out)


def _int8_product(threads: int) -> Callable[[], object]:
    """uint8 by int8 to int32, as quantised convolutions multiply. ONNX Runtime's: torch has no public one."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    model = int8_product_model().SerializeToString()
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(0)
    inputs: dict[str, NDArray[Any]] = {
        "a": rng.integers(0, 256, (SIDE, SIDE), np.uint8),
        "b": rng.integers(-64, 64, (SIDE, SIDE), np.int8),
    }
    return lambda: session.run(None, inputs)


def int8_product_model() -> onnx.ModelProto:
    """A graph of one product: `a` uint8 (SIDE, SIDE) by `b` int8 (SIDE, SIDE)."""
    types = {"a": onnx.TensorProto.UINT8, "b": onnx.TensorProto.INT8, "c": onnx.TensorProto.INT32}
    values = {name: onnx.helper.make_tensor_value_info(name, kind, [SIDE, SIDE]) for name, kind in types.items()}
    node = onnx.helper.make_node("MatMulInteger", ["a", "b"], ["c"])
    graph = onnx.helper.make_graph([node], "product", [values["a"], values["b"]], [values["c"]])
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
