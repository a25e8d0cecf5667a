"""`python -m examples.crops.train`: the two models of `examples/crops/model`, with the scores that are told of them."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path
from typing import Annotated

import msgspec
import numpy as np
import typer

from examples.crops.bands import FOUR, SIX
from examples.crops.card import FOLDER, Card, Score
from examples.crops.train.export import export
from examples.crops.train.net import REACH, Net, softmax, train
from examples.crops.train.pines import CLASSES, GUARD, HELD_OUT, Floats, Split, labels, reflectance, splits

__all__ = ["main"]

SEED = 7
EPOCHS = 12
HAZE = 0.008  # reflectance that another correction of the air leaves, or takes too much
SCORED_AT_ONCE = 2_048

SOURCE = (
    "Baumgardner, Biehl, Landgrebe (2015): 220 Band AVIRIS Hyperspectral Image Data Set: June 12, 1992 Indian Pine "
    "Test Site 3. Purdue University Research Repository. doi:10.4231/R7RX991C. CC BY 3.0"
)


def main(
    folder: Annotated[Path, typer.Option(help="Where the models go.")] = FOLDER,
    epochs: Annotated[int, typer.Option(min=1, help="Rounds over the training pixels.")] = EPOCHS,
    others: Annotated[int, typer.Option(min=0, help="Also score so many other splits, to tell how far it varies.")] = 0,
) -> None:
    """Train on most squares of the scene, score on the rest, and write what came out, with its score."""
    folder.mkdir(parents=True, exist_ok=True)
    marks = labels()
    first, *rest = splits(marks, 1 + others)
    for names in (FOUR, SIX):
        bands = reflectance()[: len(names)]
        began_s = time.perf_counter()
        net, means, deviations, score = _trained(bands, marks, first, epochs)
        name = f"crops-{len(names)}"
        export(net, means, deviations, folder / f"{name}.onnx")
        taken_s = time.perf_counter() - began_s
        elsewhere = tuple(_trained(bands, marks, split, epochs)[3].accuracy for split in rest)
        card = Card(
            version=f"{name}-{_digest(folder / f'{name}.onnx')}",
            bands=names,
            classes=CLASSES,
            means=tuple(round(float(value), 5) for value in means),
            deviations=tuple(round(float(value), 5) for value in deviations),
            pixel_m=20.0,
            reach=REACH,
            held_out=score,
            other_splits=elsewhere,
            weights=net.size,
            epochs=epochs,
            seed=SEED,
            training_s=round(taken_s, 1),
            source=SOURCE,
        )
        (folder / f"{name}.json").write_bytes(msgspec.json.format(msgspec.json.encode(card), indent=1) + b"\n")
        print(f"{name}: {net.size:,} weights, {taken_s:.0f} s")
        print(_told(card))


def _trained(bands: Floats, marks: np.ndarray, split: Split, epochs: int) -> tuple[Net, Floats, Floats, Score]:
    random = np.random.default_rng([SEED, split.number])
    means = bands[:, split.trained].mean(axis=1)
    deviations = bands[:, split.trained].std(axis=1)

    def disturb(patches: Floats, random: np.random.Generator) -> Floats:
        """As another day, another air and another instrument would have it; turned and mirrored; then to scale."""
        count = len(patches)
        haze = random.normal(0, HAZE, (count, 1, 1, patches.shape[3]))
        light = random.normal(1, 0.1, (count, 1, 1, 1)) * random.normal(1, 0.04, (count, 1, 1, patches.shape[3]))
        seen = np.rot90((patches - haze) * light, int(random.integers(4)), axes=(1, 2))
        if random.random() < 0.5:
            seen = seen[:, :, ::-1]
        scaled: Floats = ((seen - means) / deviations).astype(np.float32)
        return scaled

    def tell(epoch: int, rate: float) -> None:
        if epoch % 5 == 0:
            print(f"  {len(bands)} bands, split {split.number}: epoch {epoch} of {epochs}", flush=True)

    net = Net(len(bands), len(CLASSES), random)
    train(net, _patches(bands, split.trained), marks[split.trained], epochs, random, disturb, tell)
    held = (_patches(bands, split.held_out) - means) / deviations
    parts = [held[start : start + SCORED_AT_ONCE] for start in range(0, len(held), SCORED_AT_ONCE)]
    found = np.concatenate([softmax(net.scores(part)).argmax(axis=1) for part in parts])
    return net, means, deviations, _score(found, marks[split.held_out], int(split.trained.sum()))


def _patches(bands: Floats, chosen: np.ndarray) -> Floats:
    """The 9x9 pixels round each chosen one, by height, width and band; beyond the scene it is mirrored."""
    wide = np.pad(bands, ((0, 0), (REACH, REACH), (REACH, REACH)), "reflect").transpose(1, 2, 0)
    windows = np.lib.stride_tricks.sliding_window_view(wide, (2 * REACH + 1, 2 * REACH + 1), axis=(0, 1))
    return np.ascontiguousarray(windows[chosen].transpose(0, 2, 3, 1))


def _score(found: np.ndarray, wanted: np.ndarray, trained_on: int) -> Score:
    matrix = np.zeros((len(CLASSES), len(CLASSES)), int)
    np.add.at(matrix, (wanted, found), 1)
    there = matrix.sum(axis=1)
    recall = {name: round(float(matrix[n, n] / there[n]), 3) if there[n] else None for n, name in enumerate(CLASSES)}
    known = [value for value in recall.values() if value is not None]
    return Score(
        accuracy=round(float((found == wanted).mean()), 3),
        commonest=round(float(there.max() / there.sum()), 3),
        mean_recall=round(sum(known) / len(known), 3),
        recall=recall,
        confusion=tuple(tuple(int(count) for count in row) for row in matrix),
        pixels=len(wanted),
        trained_on=trained_on,
        how=f"squares of 480 m, one of {HELD_OUT} held out, {2 * GUARD} pixels between: no patch shares a pixel",
    )


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:8]


def _told(card: Card) -> str:
    score = card.held_out
    rows = "".join(
        f"  {name:12} {'not held out' if of is None else f'{of:.2f}'}\n" for name, of in score.recall.items()
    )
    varied = f"; other splits {', '.join(f'{one:.2f}' for one in card.other_splits)}" if card.other_splits else ""
    return (
        f"  held out: {score.accuracy:.3f} of {score.pixels:,} pixels right (the commonest class alone: "
        f"{score.commonest:.3f}); mean recall {score.mean_recall:.3f}{varied}\n{rows}"
    )


if __name__ == "__main__":
    typer.run(main)
