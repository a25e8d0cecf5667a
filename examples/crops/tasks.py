"""The work: one function behind two tasks, on a queue for any worker and on one for workers with a GPU.

`ropeway worker examples.crops.tasks:app`. One call serves several images, of whichever jobs: their pixels share the
calls of the network. Whatever is wrong with one image fails its job alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from examples.crops.card import FOLDER, read_card
from examples.crops.classifier import Classifier
from examples.crops.results import ResultStore
from examples.crops.settings import GPU_CALLS, GPU_QUEUE, GPU_TASK, QUEUE, TASK, CropsSettings, settings
from examples.crops.shapes import Analysis
from examples.crops.work import analyzed
from ropeway import App, Batch, Cache, Context, Retry, given
from ropeway.runtime.settings import BatchSettings

__all__ = ["MODELS", "app", "build"]

TIMEOUT_S = 30 * 60.0
RETENTION_S, FAILED_RETENTION_S = 86_400.0, 7 * 86_400.0
MAX_WAIT_S = 0.05  # nothing beside the seconds that an image takes

MODELS = tuple(read_card(path).version for path in sorted(FOLDER.glob("crops-*.json")))


def build(own: CropsSettings) -> App:
    """The application for these settings."""
    app = App()

    @app.resource
    def classifier() -> Classifier:
        """The networks: loaded once in each worker, before its first job."""
        return Classifier(device=own.device)

    @app.resource
    def store() -> Iterator[ResultStore]:
        """The SQL database."""
        opened = ResultStore(own.results)
        yield opened
        opened.close()

    alike = BatchSettings(
        timeout=TIMEOUT_S,
        retry=Retry(max_attempts=3, base_s=1.0),
        retention=RETENTION_S,
        failed_retention=FAILED_RETENTION_S,
        cache=Cache(ttl_s=RETENTION_S, version=" ".join(MODELS)),  # another model, other results
        batch=Batch(max_size=own.cpu_batch, max_wait=MAX_WAIT_S),
    )

    larger = Batch(max_size=own.batch, max_wait=MAX_WAIT_S)

    @app.task(**(alike | {"name": TASK, "queue": QUEUE}))
    def analyze(
        image: list[Path],
        crop_id: list[str],
        *,
        ctxs: list[Context] = given,
        classifier: Classifier = given,
        store: ResultStore = given,
    ) -> list[Analysis | Exception]:
        """Indices, classes and a verdict for each image, on whatever the worker has."""
        return analyzed(image, crop_id, ctxs, classifier, store)

    @app.task(
        **(alike | {"name": GPU_TASK, "queue": GPU_QUEUE, "device": "gpu", "batch": larger, "concurrency": GPU_CALLS})
    )
    def analyze_gpu(
        image: list[Path],
        crop_id: list[str],
        *,
        ctxs: list[Context] = given,
        classifier: Classifier = given,
        store: ResultStore = given,
    ) -> list[Analysis | Exception]:
        """The same, for workers that have a GPU."""
        return analyzed(image, crop_id, ctxs, classifier, store)

    return app


app = build(settings())
