"""Reading server-sent events, however the network cuts them."""

from __future__ import annotations

import pytest

from ropeway.client.sse import Block, SseReader

STREAM = (
    b"retry: 1000\nid: 0-1\nevent: job.queued\ndata: {}\n\n"
    b": hb\n"
    b'id: 5-0\nevent: output.delta\ndata: {"delta":"a\xe2\x80\xa8b"}\n\n'
    b": hb\n"
    b"event: reconnect\ndata: one\ndata: two\n\n"
)
BLOCKS = [
    Block("job.queued", "{}", "0-1"),
    Block("output.delta", '{"delta":"a\u2028b"}', "5-0"),
    Block("reconnect", "one\ntwo", None),
]


def read(*chunks: bytes) -> list[Block]:
    reader = SseReader()
    return [block for chunk in chunks for block in reader.feed(chunk)]


def test_blocks_are_read_and_heartbeats_pass_silently() -> None:
    """A comment line without a blank line belongs to no event; U+2028 is text, not a line's end."""
    assert read(STREAM) == BLOCKS


@pytest.mark.parametrize("size", [1, 2, 3, 7, 50])
def test_chunks_may_end_anywhere(size: int) -> None:
    """In a line, in a character, between CR and LF: the blocks are the same."""
    assert read(*(STREAM[n : n + size] for n in range(0, len(STREAM), size))) == BLOCKS
    crlf = STREAM.replace(b"\n", b"\r\n")
    assert read(*(crlf[n : n + size] for n in range(0, len(crlf), size))) == BLOCKS


def test_what_was_cut_short_is_not_an_event() -> None:
    """A block that its stream did not finish is not dispatched: it will come again after its id."""
    assert read(b"id: 1-1\nevent: log\ndata: {}\n") == []


def test_a_block_without_data_is_none() -> None:
    """As the standard has it."""
    assert read(b"retry: 5\n\nevent: x\n\nid: 7-1\n\n") == []
