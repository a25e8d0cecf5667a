"""What is told of a model: what it reads and answers, and how good it was where it had not been trained."""

from __future__ import annotations

from pathlib import Path

import msgspec

__all__ = ["FOLDER", "Card", "Score", "read_card"]

FOLDER = Path(__file__).with_name("model")


class Score(msgspec.Struct, frozen=True):
    """On pixels that were held out.

    Attributes:
        accuracy: the share that is right; commonest: the same for who always says the commonest class.
        mean_recall: over the classes that were held out at all; recall: of each of them, None where none was.
        confusion: pixels by what they are (rows) and what was said (columns), in the order of the card's classes.
        pixels, trained_on: how many were held out, and trained on.
    """

    accuracy: float
    commonest: float
    mean_recall: float
    recall: dict[str, float | None]
    confusion: tuple[tuple[int, ...], ...]
    pixels: int
    trained_on: int
    how: str


class Card(msgspec.Struct, frozen=True):
    """A model.

    Attributes:
        version: its name and the first of its file's digest: another file is another version.
        bands: what it must be given, in this order, as reflectance of 0 to 1.
        means, deviations: of each band where it was trained, to tell what is unlike that.
        pixel_m: metres a pixel in training; reach: pixels that an answer sees to each side.
        other_splits: accuracy of models trained on other squares, to tell how far the figure varies.
    """

    version: str
    bands: tuple[str, ...]
    classes: tuple[str, ...]
    means: tuple[float, ...]
    deviations: tuple[float, ...]
    pixel_m: float
    reach: int
    held_out: Score
    other_splits: tuple[float, ...]
    weights: int
    epochs: int
    seed: int
    training_s: float
    source: str


def read_card(path: Path) -> Card:
    """The card that lies beside a model. Raises OSError, and msgspec.ValidationError for what is none."""
    return msgspec.json.decode(path.read_bytes(), type=Card)
