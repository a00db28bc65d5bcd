"""The ONNX graph of all-MiniLM-L6-v2 from its weights: a BERT of 6 layers, mean pooling, unit length.

Imports onnx and numpy, so import it where the graph is built and nowhere else.
"""

from typing import Any

import numpy as np
from onnx import TensorProto, checker, helper, numpy_helper
from safetensors.numpy import load

LAYERS, HEADS, WIDTH = 6, 12, 384
EPSILON = 1e-12
OPSET, IR_VERSION = 20, 9


class _Graph:
    """Nodes and constants as they are added; every method returns the name of its output."""

    def __init__(self, weights: dict[str, np.ndarray]) -> None:
        self.weights = {name.removeprefix("bert."): value for name, value in weights.items()}
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def constant(self, value: Any) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def ints(self, *values: int) -> str:
        return self.constant(np.array(values, dtype=np.int64))

    def weight(self, name: str, *, transposed: bool = False) -> str:
        value = self.weights[name].astype(np.float32)
        return self.constant(value.T if transposed else value)

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        name = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def linear(self, x: str, prefix: str) -> str:
        product = self.op("MatMul", x, self.weight(f"{prefix}.weight", transposed=True))
        return self.op("Add", product, self.weight(f"{prefix}.bias"))

    def norm(self, x: str, prefix: str) -> str:
        scale, bias = self.weight(f"{prefix}.weight"), self.weight(f"{prefix}.bias")
        return self.op("LayerNormalization", x, scale, bias, axis=-1, epsilon=EPSILON)


def build_graph(safetensors: bytes) -> bytes:
    """The serialized ONNX model: inputs `ids` and `mask` (int64, batch x tokens), output `embedding`."""
    g = _Graph(load(safetensors))
    mask = g.op("Cast", "mask", to=TensorProto.FLOAT)
    x = _embeddings(g)
    # Padding gets a score that the softmax turns into an exact zero.
    absent = g.op("Sub", g.constant(np.float32(1)), g.op("Unsqueeze", mask, g.ints(1, 2)))
    bias = g.op("Mul", absent, g.constant(np.float32(-1e9)))
    for layer in range(LAYERS):
        x = _layer(g, x, bias, f"encoder.layer.{layer}.")
    _pool(g, x, mask)
    int64, float32 = TensorProto.INT64, TensorProto.FLOAT
    inputs = [helper.make_tensor_value_info(name, int64, ["batch", "tokens"]) for name in ("ids", "mask")]
    outputs = [helper.make_tensor_value_info("embedding", float32, ["batch", WIDTH])]
    graph = helper.make_graph(g.nodes, "all-MiniLM-L6-v2", inputs, outputs, g.constants)
    opsets = [helper.make_opsetid("", OPSET)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)
    checker.check_model(model)
    return model.SerializeToString()


def _embeddings(g: _Graph) -> str:
    """Word + position + type, normalised."""
    tokens = g.op("Slice", g.op("Shape", "ids"), g.ints(1), g.ints(2))
    positions = g.weight("embeddings.position_embeddings.weight")
    position = g.op("Slice", positions, g.ints(0), tokens, g.ints(0))
    word = g.op("Gather", g.weight("embeddings.word_embeddings.weight"), "ids")
    kind = g.constant(g.weights["embeddings.token_type_embeddings.weight"][0].astype(np.float32))
    return g.norm(g.op("Add", g.op("Add", word, position), kind), "embeddings.LayerNorm")


def _layer(g: _Graph, x: str, bias: str, prefix: str) -> str:
    """Self-attention and feed-forward, each with its residual and its norm."""
    by_head = g.ints(0, 0, HEADS, WIDTH // HEADS)

    def heads(name: str, order: list[int]) -> str:
        projected = g.linear(x, f"{prefix}attention.self.{name}")
        return g.op("Transpose", g.op("Reshape", projected, by_head), perm=order)

    query, key, value = (
        heads("query", [0, 2, 1, 3]),
        heads("key", [0, 2, 3, 1]),
        heads("value", [0, 2, 1, 3]),
    )
    scale = g.constant(np.float32((WIDTH // HEADS) ** -0.5))
    scores = g.op("Add", g.op("Mul", g.op("MatMul", query, key), scale), bias)
    mixed = g.op("MatMul", g.op("Softmax", scores, axis=-1), value)
    joined = g.op("Reshape", g.op("Transpose", mixed, perm=[0, 2, 1, 3]), g.ints(0, 0, WIDTH))
    attended = g.linear(joined, f"{prefix}attention.output.dense")
    x = g.norm(g.op("Add", x, attended), f"{prefix}attention.output.LayerNorm")
    wide = g.op("Gelu", g.linear(x, f"{prefix}intermediate.dense"))
    return g.norm(
        g.op("Add", g.linear(wide, f"{prefix}output.dense"), x),
        f"{prefix}output.LayerNorm",
    )


def _pool(g: _Graph, x: str, mask: str) -> None:
    """Mean over the tokens that are there, then unit length."""
    kept = g.op("Mul", x, g.op("Unsqueeze", mask, g.ints(2)))
    total = g.op("ReduceSum", kept, g.ints(1), keepdims=0)
    mean = g.op("Div", total, g.op("ReduceSum", mask, g.ints(1), keepdims=1))
    length = g.op("ReduceL2", mean, g.ints(1), keepdims=1)
    g.nodes.append(helper.make_node("Div", [mean, length], ["embedding"]))
