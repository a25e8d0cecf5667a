"""Help texts: what a command does, then commands to copy, then what else there is to know."""

from __future__ import annotations

__all__ = ["help_text"]

_KEEP_LINES = "\b\n"  # click's mark for a paragraph that is not to be filled


def help_text(about: str, *notes: str, examples: tuple[str, ...] = ()) -> str:
    """The text of a `--help`. `about` and `notes` are paragraphs, filled to the width; examples keep their lines.

    An example of more than 78 characters breaks on a narrow terminal.
    """
    shown = _KEEP_LINES + "\n".join(examples)
    return "\n\n".join((about, *((shown,) if examples else ()), *notes))
