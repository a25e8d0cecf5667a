"""A small convolutional network and its training, on numpy alone: four layers of 3x3 that see 9x9 pixels.

No layer pads, so the net that was trained on patches of 9x9, each of which comes to one answer, runs over an image of
any size as it is: an answer for each pixel but the four at each edge.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from examples.crops.train.pines import Floats

__all__ = ["REACH", "Net", "softmax", "train"]

REACH = 4  # pixels that an answer sees to each side

CHANNELS = (24, 24, 32, 32)
SIDE = 3
BATCH = 256
RATE = 3e-3
DECAY = 1e-3  # of the weights, apart from the gradient (AdamW: Loshchilov, Hutter 2019)
SMOOTHING = 0.05  # of the labels: a net that is never quite sure is less wrong where it is

Ints = npt.NDArray[np.int64]
Rows = npt.NDArray[np.intp]


class Net:
    """Weights by layer, each `(9 * channels in, channels out)`; the last one is a plain matrix."""

    def __init__(self, bands: int, classes: int, random: np.random.Generator) -> None:
        sizes = [(9 * before, after) for before, after in zip((bands, *CHANNELS[:-1]), CHANNELS, strict=True)]
        sizes.append((CHANNELS[-1], classes))
        self.weights = [(random.standard_normal(size) * np.sqrt(2 / size[0])).astype(np.float32) for size in sizes]
        self.biases = [np.zeros(size[1], np.float32) for size in sizes]

    @property
    def size(self) -> int:
        return sum(part.size for part in (*self.weights, *self.biases))

    def scores(self, patches: Floats) -> Floats:
        """Patches by height, width and band -> rows of scores."""
        return self.forward(patches)[-1]

    def forward(self, patches: Floats) -> list[Floats]:
        """What each layer was given, unfolded, and the scores at the end."""
        kept, values = [], patches
        for weights, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
            folds = _unfolded(values)
            kept.append(folds)
            values = np.maximum(folds @ weights + bias, 0)
        flat = values[:, 0, 0, :]
        return [*kept, flat, flat @ self.weights[-1] + self.biases[-1]]

    def gradients(self, patches: Floats, wanted: Ints, importance: Floats) -> list[Floats]:
        """Of the loss, for each of the weights and then of the biases."""
        *kept, scores = self.forward(patches)
        classes = scores.shape[1]
        aim = np.full_like(scores, SMOOTHING / classes)
        aim[np.arange(len(wanted)), wanted] += 1 - SMOOTHING
        error: Floats = (softmax(scores) - aim) * importance[wanted, None] / np.float32(len(wanted))
        of_weights, of_biases = [kept[-1].T @ error], [error.sum(0)]
        back: Floats = ((error @ self.weights[-1].T) * (kept[-1] > 0))[:, None, None, :]
        for layer in range(len(CHANNELS) - 1, -1, -1):
            folds = kept[layer]
            columns = back.reshape(-1, back.shape[-1])
            of_weights.append(folds.reshape(-1, folds.shape[-1]).T @ columns)
            of_biases.append(columns.sum(0))
            if layer:
                centre = _folded(back @ self.weights[layer].T)
                back = centre * (_inside(folds, centre.shape) > 0)
        return [*of_weights[::-1], *of_biases[::-1]]


def train(
    net: Net,
    patches: Floats,
    wanted: Ints,
    epochs: int,
    random: np.random.Generator,
    disturb: Callable[[Floats, np.random.Generator], Floats],
    tell: Callable[[int, float], None],
) -> None:
    """Adam over shuffled batches, the rate falling to nothing along a half cosine. `tell` hears each epoch's end."""
    counts = np.bincount(wanted, minlength=net.weights[-1].shape[1]).astype(np.float32)
    importance = np.sqrt(counts.sum() / np.maximum(counts, 1))  # half-way to making rare classes count as the others
    importance /= (importance * counts).sum() / counts.sum()
    parts = [*net.weights, *net.biases]
    means, squares = [np.zeros_like(part) for part in parts], [np.zeros_like(part) for part in parts]
    steps = epochs * (len(wanted) // BATCH)
    step = 0
    for epoch in range(epochs):
        order = random.permutation(len(wanted))
        for start in range(0, len(order) - BATCH + 1, BATCH):
            step += 1
            rows = order[start : start + BATCH]
            found = net.gradients(disturb(patches[rows], random), wanted[rows], importance)
            rate = RATE * 0.5 * (1 + np.cos(np.pi * step / steps))
            for part, slope, mean, square in zip(parts, found, means, squares, strict=True):
                mean += 0.1 * (slope - mean)
                square += 0.001 * (slope * slope - square)
                move = (mean / (1 - 0.9**step)) / (np.sqrt(square / (1 - 0.999**step)) + 1e-8)
                part -= (rate * (move + (DECAY * part if part.ndim > 1 else 0))).astype(np.float32)
        tell(epoch + 1, rate)


def softmax(scores: Floats) -> Floats:
    shifted = np.exp(scores - scores.max(axis=1, keepdims=True))
    shares: Floats = shifted / shifted.sum(axis=1, keepdims=True)
    return shares


def _unfolded(values: Floats) -> Floats:
    """(n, h, w, c) -> (n, h-2, w-2, 9c): beside each place, all that a layer sees from it."""
    high, wide = values.shape[1] - SIDE + 1, values.shape[2] - SIDE + 1
    seen = [values[:, dy : dy + high, dx : dx + wide, :] for dy in range(SIDE) for dx in range(SIDE)]
    return np.concatenate(seen, axis=3)


def _folded(folds: Floats) -> Floats:
    """The way back: each share added where it came from."""
    count, high, wide, deep = folds.shape
    channels = deep // SIDE**2
    values = np.zeros((count, high + SIDE - 1, wide + SIDE - 1, channels), np.float32)
    for number in range(SIDE**2):
        dy, dx = divmod(number, SIDE)
        share = folds[..., number * channels : (number + 1) * channels]
        values[:, dy : dy + high, dx : dx + wide, :] += share
    return values


def _inside(folds: Floats, shape: tuple[int, ...]) -> Floats:
    """What was unfolded, as it was before."""
    _, high, wide, channels = shape
    values = np.empty(shape, np.float32)
    for number in range(SIDE**2):
        dy, dx = divmod(number, SIDE)
        share = folds[..., number * channels : (number + 1) * channels]
        values[:, dy : dy + high - SIDE + 1, dx : dx + wide - SIDE + 1, :] = share
    return values
