"""Tasks for any OpenAI-compatible API, declared on an application: `upstream(app, "https://api.example.com/v1", …)`."""

from __future__ import annotations

import inspect
import re
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, aclosing
from typing import Any, NamedTuple, cast

from ropeway.domain.budget import Budget
from ropeway.domain.chat import ChatDelta, ChatRequest, EmbeddingRequest
from ropeway.domain.errors import InvalidRequest
from ropeway.domain.worker import MODEL_FEATURES, ModelCard
from ropeway.models.keys import KeySource, ModelUnavailable
from ropeway.models.options import UpstreamOptions, checked_url
from ropeway.runtime.context import Context
from ropeway.runtime.registry import App, TaskSettings
from ropeway.runtime.task import Task

__all__ = ["Family", "declare", "declare_resource", "resource_name", "upstream", "upstream_class"]

CHAT, EMBED = "chat", "embed"
TIMEOUT_S = 600.0  # of a job that says nothing else: no answer of a provider takes longer and is still waited for


class Family(NamedTuple):
    """The tasks that were declared: for chat models and for embedding models; None where no model was named."""

    chat: Task[..., Any, Any] | None
    embed: Task[..., Any, Any] | None


def upstream(
    app: App,
    base_url: str,
    *,
    key: str | None = None,
    models: Iterable[str] | Mapping[str, str] = (),
    embeddings: Iterable[str] | Mapping[str, str] = (),
    takes: Iterable[str] = MODEL_FEATURES,
    name: str = "",
    options: UpstreamOptions | None = None,
    task: TaskSettings | None = None,
    budget: Budget | None = None,
) -> Family:
    """Declare the tasks `chat` and `embed`, which ask an OpenAI-compatible API.

    A task of your own takes the same pool of connections as the resource `upstream`, or `upstream_NAME`: a ChatModel.

    Args:
        base_url: with the API's version, as its SDK wants it: `https://api.openai.com/v1`.
        key: where its key is: `env:NAME` or `file:PATH`. A worker reads it when it starts; nothing ever shows it.
        models, embeddings: ids that are served, or a mapping of those to the provider's own names.
        takes: what the models can do beyond words, as in `ModelCard`; the OpenAI routes refuse a request that asks for
            more. Everything, by default: the provider itself refuses what it cannot do.
        name: of this upstream, where an application has several; its tasks are then `name.chat` and `name.embed`.
        options: deadlines, limits and tries of a call.
        task: settings of both tasks, as `@app.task` takes them. Left out, `queue` is the task's own name, `timeout`
            600 s, and `concurrency` that of the options.
        budget: what the provider lets the key do; all workers share it, and nothing is asked that would go beyond it.

    Raises InvalidRequest or ValueError for what cannot be, and says what to do.
    """
    options = options or UpstreamOptions()
    source = KeySource(key)
    url = checked_url(base_url, has_key=bool(source), allow_plain_http=options.allow_plain_http)
    served = {**_names_of(models), **_names_of(embeddings)}
    if not served:
        raise InvalidRequest(f"name the models that {url} is to serve: models=['…'] or embeddings=['…']", "models")
    resource = declare_resource(
        app,
        resource_name("upstream", name),
        lambda: upstream_class()(url, served, source.read(), options, None, budget and budget.name),
    )
    own = cast(TaskSettings, {"timeout": TIMEOUT_S, "concurrency": options.concurrency, **(task or {})})
    if budget is not None:
        own["limits"] = (*own.get("limits", ()), budget)
    return declare(app, resource, name, _names_of(models), _names_of(embeddings), own, takes)


def declare_resource(app: App, name: str, opened: Callable[[], AbstractAsyncContextManager[Any]]) -> str:
    """A resource of that name, which is what the context manager gives; the name."""

    async def resource() -> AsyncIterator[Any]:
        async with opened() as value:
            yield value

    resource.__name__ = name
    app.resource(resource)
    return name


def declare(
    app: App,
    resource: str,
    name: str,
    models: Iterable[str],
    embeddings: Iterable[str],
    settings: TaskSettings,
    takes: Iterable[str] = (),
) -> Family:
    """The two tasks, over a resource that has `chat` and `embed` as an Upstream has them."""
    chat_task: Task[..., Any, Any] | None = None
    embed_task: Task[..., Any, Any] | None = None
    features = tuple(takes)
    if cards := [ModelCard(model, CHAT, name or "ropeway", takes=features) for model in models]:

        async def chat(request: ChatRequest, *, ctx: Context, **given: Any) -> AsyncIterator[str | ChatDelta]:
            """Go on with a conversation."""
            async with aclosing(given[resource].chat(request, ctx)) as pieces:
                async for piece in pieces:
                    yield piece

        chat_task = app.task(**_own(name, CHAT, cards, settings))(_taking(resource, chat))
    if cards := [ModelCard(model, "embedding", name or "ropeway", takes=features) for model in embeddings]:

        async def embed(request: EmbeddingRequest, *, ctx: Context, **given: Any) -> list[list[float]]:
            """A vector for each text."""
            vectors: list[list[float]] = await given[resource].embed(request, ctx)
            return vectors

        embed_task = app.task(**_own(name, EMBED, cards, settings))(_taking(resource, embed))
    return Family(chat_task, embed_task)


def resource_name(kind: str, name: str) -> str:
    """What the resource of a family of this name is called; also where the name is no Python identifier."""
    return f"{kind}_{re.sub(r'[^0-9A-Za-z_]', '_', name)}" if name else kind


def _taking(resource: str, fn: Callable[..., Any]) -> Callable[..., Any]:
    """The function, with a parameter of the resource's name in the place of its `**given`.

    So one function serves any number of upstreams in an application, each with a resource of its own name.
    """
    signature = inspect.signature(fn)
    kept = [one for one in signature.parameters.values() if one.kind is not one.VAR_KEYWORD]
    taken = inspect.Parameter(resource, inspect.Parameter.KEYWORD_ONLY)
    cast(Any, fn).__signature__ = signature.replace(parameters=[*kept, taken])
    return fn


def _names_of(models: Iterable[str] | Mapping[str, str]) -> dict[str, str]:
    """For each id that is served, the provider's name of the model. Raises InvalidRequest."""
    if isinstance(models, str):
        raise InvalidRequest(f"models are several: ['{models}']", "models")
    return dict(models) if isinstance(models, Mapping) else {model: model for model in models}


def _own(name: str, kind: str, cards: list[ModelCard], settings: TaskSettings) -> TaskSettings:
    own = f"{name}.{kind}" if name else kind
    return cast(TaskSettings, {"queue": own, **settings, "name": own, "models": cards})


def upstream_class(extra: str = "ropeway[models]") -> Any:
    """`Upstream`, imported when a worker needs it. Raises ModelUnavailable, naming the extra that brings its parts."""
    try:
        from ropeway.models.calling import Upstream
    except ModuleNotFoundError as error:
        if error.name not in ("httpx2", "h2"):
            raise
        raise ModelUnavailable(f"a call to a model needs {error.name}: pip install '{extra}'") from None
    return Upstream
