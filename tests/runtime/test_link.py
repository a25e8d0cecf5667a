"""The line between a child and its supervisor."""

from __future__ import annotations

import os
import threading

from runtime_support import PATIENCE_S

from ropeway.runtime.link import LINK_VARIABLE, SupervisorLink


def make_line() -> tuple[SupervisorLink, int, int]:
    """A child's end, and the supervisor's two."""
    heard_fd, child_write = os.pipe()
    child_read, hold_fd = os.pipe()
    for fd in (child_write, child_read):
        os.set_inheritable(fd, True)  # as it arrives in a child
    link = SupervisorLink.from_environment({LINK_VARIABLE: f"{child_write},{child_read}"})
    assert link is not None
    return link, heard_fd, hold_fd


def test_a_process_of_its_own_has_no_line() -> None:
    """Whoever starts a worker by hand gets one without a supervisor."""
    assert SupervisorLink.from_environment({}) is None


def test_it_tells_what_the_child_has_opened_and_closed() -> None:
    """One line each, whole."""
    link, heard_fd, hold_fd = make_line()
    link.ready()
    link.session_opened("ses_1")
    link.session_closed("ses_1")
    assert os.read(heard_fd, 1000) == b"ready\nopened ses_1\nclosed ses_1\n"
    os.close(heard_fd)
    link.session_opened("ses_2")  # nobody hears it any more, which is no error
    os.close(hold_fd)


def test_the_end_of_the_line_is_heard() -> None:
    """When the supervisor dies, the kernel closes its end."""
    link, heard_fd, hold_fd = make_line()
    gone = threading.Event()
    link.when_gone(gone.set)
    assert not gone.is_set()
    os.close(hold_fd)
    assert gone.wait(PATIENCE_S)
    os.close(heard_fd)


def test_what_a_child_starts_does_not_hold_the_line_open() -> None:
    """A grandchild that outlives its parent would hide the parent's death from the supervisor."""
    link, heard_fd, hold_fd = make_line()
    assert [os.get_inheritable(fd) for fd in (link._write_fd, link._read_fd)] == [False, False]
    os.close(heard_fd)
    os.close(hold_fd)
