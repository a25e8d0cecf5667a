"""A GPU for the tests of examples/crops: the real one, else an ONNX Runtime that only says it has one."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from ropeway.runtime.process.devices import found_devices

__all__ = ["CPU", "CUDA", "NO_GPU", "Calls", "pretend", "runtime_with_gpu"]

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"

_SHIM = """
import importlib, sys
sys.path.remove({folder!r})
del sys.modules["onnxruntime"]
real = importlib.import_module("onnxruntime")
sys.path.append({tests!r})
importlib.import_module("gpu_support").pretend(real)
"""


class Calls:
    """What was asked of a runtime that pretends. `before` is told the number of tiles, and may raise.

    Attributes:
        preloaded: how often CUDA's libraries were; sessions: for each one, what it was opened with.
        tiles: how many were in each call that was for the GPU.
    """

    def __init__(self, before: Callable[[int], None] = lambda tiles: None) -> None:
        self.before = before
        self.preloaded = 0
        self.sessions: list[dict[str, Any]] = []
        self.tiles: list[int] = []


def pretend(runtime: Any, calls: Calls | None = None, set_: Callable[[Any, str, Any], None] = setattr) -> Calls:
    """Have the runtime say that it has a GPU; processors do the work. As the real one, it needs its libraries first."""
    seen = calls or Calls()
    has_providers = runtime.get_available_providers

    class Session(runtime.InferenceSession):  # type: ignore[misc]
        def __init__(self, path: str, options: Any, providers: Sequence[Any], **more: Any) -> None:
            seen.sessions.append({"providers": list(providers), "preloaded": seen.preloaded, **more})
            self._on_gpu = any(CUDA in provider for provider in providers)
            if self._on_gpu and not os.environ.get("CUDA_VISIBLE_DEVICES"):
                raise RuntimeError("CUDA failure 100: no CUDA-capable device is detected ; GPU=-1 ; line=1")
            super().__init__(path, options, providers=[CPU], **more)

        def get_providers(self) -> list[str]:
            return [CUDA, CPU] if self._on_gpu else [CPU]

        def run(self, names: Any, given: dict[str, npt.NDArray[Any]], *more: Any) -> Any:
            if self._on_gpu:
                ((name, array),) = given.items()
                seen.before(len(array))
                seen.tiles.append(len(array))
                if not array.any():  # to be ready for such a call; a processor need not be
                    return [np.repeat(super().run(names, {name: array[:1]}, *more)[0], len(array), axis=0)]
            return super().run(names, given, *more)

    def preload_dlls() -> None:
        seen.preloaded += 1

    set_(runtime, "InferenceSession", Session)
    set_(runtime, "get_available_providers", lambda: [CUDA, *has_providers()])
    set_(runtime, "preload_dlls", preload_dlls)
    return seen


def has_gpu() -> bool:
    """Whether this machine has a GPU, and an ONNX Runtime made for one."""
    return bool(found_devices()) and CUDA in import_module("onnxruntime").get_available_providers()


NO_GPU = pytest.mark.skipif(not has_gpu(), reason="there is no GPU here, or no onnxruntime-gpu")


def runtime_with_gpu(folder: Path) -> dict[str, str]:
    """What processes need in their environment to have a GPU: nothing where there is one."""
    if has_gpu():
        return {}
    (folder / "runtime").mkdir()
    shim = folder / "runtime" / "onnxruntime.py"
    shim.write_text(_SHIM.format(folder=str(shim.parent), tests=str(Path(__file__).parent)))
    return {"PYTHONPATH": os.pathsep.join(filter(None, (str(shim.parent), os.environ.get("PYTHONPATH"))))}
