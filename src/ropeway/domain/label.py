"""Labels: what a worker says of itself, as `device=gpu` or `model=llama-8b`, and what a task needs of its worker.

A lease asks for a queue and not for a task. So needs hold for queues: all tasks of a queue need the same, and a worker
that lacks any of it does not ask for that queue.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ropeway.domain.errors import InvalidRequest

__all__ = ["CPU", "GPU", "lacking", "read_labels", "written"]

CPU = "device=cpu"
"""The label that every worker has."""
GPU = "device=gpu"
"""The label of workers that have devices to give."""

_KEY_CHARS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.")
_VALUE_CHARS = _KEY_CHARS | frozenset("/:@+")
_LENGTH = 128


def written(pairs: Mapping[str, str]) -> tuple[str, ...]:
    """Labels in the one form in which they are kept and compared: `key=value`, sorted.

    Raises InvalidRequest for what is none: 1 to 128 of letters, digits, `_-.`, and in values `/:@+` too.
    """
    for key, value in pairs.items():
        if not _fits(key, _KEY_CHARS) or not _fits(value, _VALUE_CHARS):
            raise InvalidRequest(
                f"'{str(key)[:_LENGTH]}={str(value)[:_LENGTH]}' is no label: key and value are 1 to {_LENGTH} of "
                "letters, digits, '_', '-', '.', and values may have '/', ':', '@', '+' too",
                param="labels",
            )
    return tuple(sorted(f"{key}={value}" for key, value in pairs.items()))


def read_labels(texts: Iterable[str]) -> tuple[str, ...]:
    """Labels from `key=value` texts, as a command line gives them; a key may come with several values.

    Raises InvalidRequest for what is none.
    """
    found: set[str] = set()
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals:
            raise InvalidRequest(f"{text!r} is no label: write key=value, as in zone=eu", param="labels")
        found.update(written({key: value}))
    return tuple(sorted(found))


def lacking(needs: Iterable[str], labels: Iterable[str]) -> tuple[str, ...]:
    """Those needs that are not among the labels."""
    there = set(labels)
    return tuple(need for need in needs if need not in there)


def _fits(text: object, chars: frozenset[str]) -> bool:
    return isinstance(text, str) and 1 <= len(text) <= _LENGTH and chars.issuperset(text)
