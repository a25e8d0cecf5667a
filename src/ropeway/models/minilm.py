"""An embedding model in this process: all-MiniLM-L6-v2 in int8, run by onnxruntime.

Its tokenizer comes with a limit of 128 tokens and pads to it; the model was trained with up to 256, and padding to the
longest text of a batch saves most of the work on short ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from ropeway.models.keys import ModelUnavailable

__all__ = ["DIMENSIONS", "MiniLm"]

DIMENSIONS = 384
MAX_TOKENS = 256  # what is beyond it is cut off: sentence_bert_config.json of the model


class MiniLm:
    """The model, opened. Loading and computing block: do both on a thread. Calls from several threads may overlap.

    Raises ModelUnavailable when the runtime is missing.
    """

    def __init__(self, onnx: Path, tokenizer: Path, threads: int) -> None:
        self._np, runtime, tokenizers = _part("numpy"), _part("onnxruntime"), _part("tokenizers")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = threads
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # others want the cores, too
        self._session = runtime.InferenceSession(str(onnx), options, providers=["CPUExecutionProvider"])
        self._wanted = {one.name for one in self._session.get_inputs()}
        self._tokenizer = tokenizers.Tokenizer.from_file(str(tokenizer))
        self._tokenizer.enable_truncation(MAX_TOKENS)
        self._tokenizer.enable_padding()

    def embed(self, texts: Sequence[str]) -> tuple[list[list[float]], int]:
        """A vector of length 1 for each text, and how many tokens they were."""
        np = self._np
        encoded = self._tokenizer.encode_batch(list(texts))
        ids = np.array([one.ids for one in encoded], dtype=np.int64)
        mask = np.array([one.attention_mask for one in encoded], dtype=np.int64)
        inputs = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        states = self._session.run(None, {name: value for name, value in inputs.items() if name in self._wanted})[0]
        return _pooled(np, states, mask).tolist(), int(mask.sum())


def _pooled(np: Any, states: Any, mask: Any) -> Any:
    """The mean of the tokens that are no padding, at length 1: how this model's sentences are compared."""
    if states.ndim == 3:
        weights = mask[:, :, None].astype(states.dtype)
        states = (states * weights).sum(axis=1) / weights.sum(axis=1)
    lengths = np.linalg.norm(states, axis=1, keepdims=True)
    return states / np.maximum(lengths, 1e-12)


def _part(name: str) -> Any:
    try:
        return import_module(name)
    except ModuleNotFoundError:
        raise ModelUnavailable(f"local embeddings need {name}: pip install 'ropeway[local]'") from None
