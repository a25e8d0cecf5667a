"""The embedding model that batches are measured with, and the texts: the same for every way of running it.

all-MiniLM-L6-v2 in int8 by onnxruntime on one thread, as `ropeway.models` has it; imported in the peers' environments
too, so it needs numpy, onnxruntime and tokenizers alone.
"""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from importlib import import_module
from typing import Any

__all__ = ["BATCH", "MAX_WAIT_S", "MODEL", "TOKENIZER", "Embedder", "texts"]

MODEL, TOKENIZER = "BENCH_MODEL", "BENCH_TOKENIZER"
"""The environment variables that say where its files are."""

BATCH = 64
MAX_WAIT_S = 0.005

_WORDS = """
able above across again air along also animal answer around ask away back base before began below between book
both boy carry change city close country cross different does earth end even every eye face family farm father
feet few follow food form found girl give great group grow hand hard head hear help high home house important
keep kind land large last late learn leave letter life light line list little live long made main man mean men
miles mother mountain move much music must name near never next night number often once open own page paper part
people place plant play point press question quick read real right river run saw school sea second see seem
sentence set should show side small song soon sound spell start state still stop story study such sun take talk
tell thing think thought tree try turn under until use very walk watch water way white while without word work
world write year young
"""


def texts(count: int) -> list[str]:
    """So many short texts, of 3 to 8 words as people type them to search; the same ones every time."""
    dice = random.Random(count)
    words = _WORDS.split()
    return [" ".join(dice.choices(words, k=dice.randint(3, 8))) for _ in range(count)]


class Embedder:
    """The model, opened from the files that the environment names."""

    def __init__(self) -> None:
        self._np: Any = import_module("numpy")
        runtime: Any = import_module("onnxruntime")
        tokenizers: Any = import_module("tokenizers")
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = runtime.InferenceSession(os.environ[MODEL], options, providers=["CPUExecutionProvider"])
        self._wanted = {one.name for one in self._session.get_inputs()}
        self._tokenizer = tokenizers.Tokenizer.from_file(os.environ[TOKENIZER])
        self._tokenizer.enable_truncation(256)
        self._tokenizer.enable_padding()

    def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """A vector of length 1 for each text."""
        np = self._np
        encoded = self._tokenizer.encode_batch(list(texts))
        ids = np.array([one.ids for one in encoded], dtype=np.int64)
        mask = np.array([one.attention_mask for one in encoded], dtype=np.int64)
        inputs = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        states = self._session.run(None, {name: value for name, value in inputs.items() if name in self._wanted})[0]
        if states.ndim == 3:
            weights = mask[:, :, None].astype(states.dtype)
            states = (states * weights).sum(axis=1) / weights.sum(axis=1)
        vectors: list[list[float]] = (states / np.linalg.norm(states, axis=1, keepdims=True)).tolist()
        return vectors
