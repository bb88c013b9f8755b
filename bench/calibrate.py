"""What this machine can do at best: matrix products by precision, and memory bandwidth.

A latency divided by these limits says how much of the machine is used, and lets laptops be compared by ratio instead
of by second. The idea of measuring limits with a product and a stream: S. Williams, A. Waterman, D. Patterson,
"Roofline: an insightful visual performance model for multicore architectures", CACM 52(4), 2009.
"""

from __future__ import annotations

from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray

from bench.timing import calls_made, interleave
from zoo.backends import lacking_bf16
from zoo.backends.graphs.onnx_runtime import session_options

#: Side of the square matrices: too large for a core's private caches, small enough for any laptop.
SIDE = 1536
#: Floats of each stream array: 64 MiB, beyond the last cache of laptops.
STREAM_LENGTH = 2**24
#: Arrays that one pass over the stream reads and writes: a + b to c. (The write's own read is not counted.)
STREAM_ARRAYS = 3
ROUNDS, WARMUP = 20, 2
#: Products in float32, by the library that makes them.
FP32 = ("torch", "onnxruntime")


def measure_peak(threads: int, rounds: int = ROUNDS, on_call: Callable[[], None] = lambda: None) -> dict[str, Any]:
    """Measurements of a `peak` record: see `bench.record.MEASUREMENTS`. Takes some seconds and 250 MiB.

    Of float32 products those of the faster library: torch's takes half of what some CPUs can do. `bf16_s` is None on a
    CPU without bfloat16 instructions.

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
    seconds = {name: found.seconds for name, found in samples.items()}
    products: dict[str, Any] = {"bf16_s": None, "fp32_s": min((seconds.pop(name) for name in FP32), key=median)}
    return products | seconds | {"product_macs": SIDE**3, "stream_bytes": 4 * STREAM_ARRAYS * STREAM_LENGTH}


def calibration_calls(rounds: int = ROUNDS) -> int:
    """How often `measure_peak` calls `on_call`."""
    return calls_made(len(FP32) + (3 if _has_bf16() else 2), rounds, WARMUP)


def _calls(threads: int) -> dict[str, Callable[[], object]]:
    rng = np.random.default_rng(0)
    whole = {"a": rng.integers(0, 256, (SIDE, SIDE), np.uint8), "b": rng.integers(-64, 64, (SIDE, SIDE), np.int8)}
    floats = {name: rng.standard_normal((SIDE, SIDE), np.float32) for name in whole}
    products = [_torch_product(torch.float32), _onnx_product(floats, threads)]
    bf16 = {"bf16_s": _torch_product(torch.bfloat16)} if _has_bf16() else {}
    # uint8 by int8 to int32, as quantised convolutions multiply: torch has no public one.
    rest = {"int8_s": _onnx_product(whole, threads), "stream_s": _stream()}
    return dict(zip(FP32, products, strict=True)) | bf16 | rest


def _has_bf16() -> bool:
    """Elsewhere a bfloat16 product is emulated, a hundred times slower than float32: nobody's limit."""
    return lacking_bf16("bf16") is None


def _torch_product(dtype: torch.dtype) -> Callable[[], object]:
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(SIDE, SIDE, generator=generator).to(dtype) for _ in range(2))
    out = torch.empty(SIDE, SIDE, dtype=dtype)
    return lambda: torch.mm(a, b, out=out)


def _stream() -> Callable[[], object]:
    a, b, out = (torch.ones(STREAM_LENGTH) for _ in range(3))
    return lambda: torch.add(a, b, out=out)


def _onnx_product(inputs: dict[str, NDArray[Any]], threads: int) -> Callable[[], object]:
    model = product_model(inputs["a"].dtype, inputs["b"].dtype).SerializeToString()
    session = onnxruntime.InferenceSession(model, session_options(threads), providers=["CPUExecutionProvider"])
    return lambda: session.run(None, inputs)


def product_model(a: np.dtype[Any], b: np.dtype[Any]) -> onnx.ModelProto:
    """A graph of one product, `a` (SIDE, SIDE) by `b` (SIDE, SIDE): of floats, or of bytes into int32."""
    whole = np.issubdtype(a, np.integer)
    types = {"a": a, "b": b, "c": np.dtype(np.int32) if whole else a}
    a_info, b_info, c_info = (
        onnx.helper.make_tensor_value_info(name, onnx.helper.np_dtype_to_tensor_dtype(kind), [SIDE, SIDE])
        for name, kind in types.items()
    )
    node = onnx.helper.make_node("MatMulInteger" if whole else "MatMul", ["a", "b"], ["c"])
    graph = onnx.helper.make_graph([node], "product", [a_info, b_info], [c_info])
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
