"""The parts of the crops example by themselves: bands, numbers, indices, verdicts, the networks and their training."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from crops_support import encoded, geotiff, pines, scene
from examples.crops.bands import band_named
from examples.crops.card import FOLDER, Card, read_card
from examples.crops.classifier import Classes, Classifier
from examples.crops.images import ImageRefused, check_image
from examples.crops.indices import IndexMap, cover, indices, summary
from examples.crops.maps import class_map, index_map
from examples.crops.samples import SCENES
from examples.crops.scene import coarser, read_scene
from examples.crops.settings import CropsSettings, settings
from examples.crops.train.export import export
from examples.crops.train.net import Net, softmax, train
from examples.crops.train.pines import CLASSES, GUARD, Split
from examples.crops.verdict import verdict

pytestmark = pytest.mark.filterwarnings("ignore:Dataset has no geotransform")


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("B04", "B04"),
        ("b4", "B04"),
        ("Red", "B04"),
        ("sr_b8 (nir)", "B08"),
        ("B8A", None),
        ("SWIR 1", "B11"),
        ("swir2", "B12"),
        ("thermal infrared", None),
        ("", None),
        (None, None),
    ],
)
def test_bands_are_known_by_many_names(text: str | None, name: str | None) -> None:
    """As satellites' products and people call them; and what only looks like one is none."""
    assert band_named(text) == name


def test_indices_are_what_their_formulas_say() -> None:
    """Worked out by hand for one pixel of leaves."""
    found = indices(scene(B02=0.03, B03=0.06, B04=0.04, B08=0.36, B11=0.18, B12=0.08))
    by_hand = {
        "ndvi": 0.32 / 0.40,
        "ndwi": -0.30 / 0.42,
        "ndmi": 0.18 / 0.54,
        "savi": 1.5 * 0.32 / 0.90,
        "evi": 2.5 * 0.32 / (0.36 + 0.24 - 0.225 + 1),
        "bsi": (0.22 - 0.39) / (0.22 + 0.39),
        "vari": 0.02 / 0.07,
    }
    assert {name: round(float(index.values[0, 0]), 4) for name, index in found.items()} == {
        name: round(value, 4) for name, value in by_hand.items()
    }


def test_an_index_is_not_defined_where_nothing_was_seen() -> None:
    """Neither a division by nothing nor a pixel without data comes into a mean."""
    dark = scene(B04=[[0.0, 0.1]], B08=[[0.0, 0.3]])
    told = summary(indices(dark)["ndvi"])
    assert told is not None
    assert (told.mean, told.pixels) == (0.5, 1)
    rough = msgspec.structs.replace(scene(B04=0.1, B08=0.3), calibrated=False)
    assert set(indices(rough)) == {"ndvi"}, "SAVI needs reflectance"


def test_cover_goes_from_bare_to_full() -> None:
    """None at an NDVI of 0.2, all of it at 0.5, a quarter half-way."""
    for value, share in ((0.1, 0.0), (0.2, 0.0), (0.35, 0.25), (0.5, 1.0), (0.9, 1.0)):
        ndvi = IndexMap(np.full((2, 2), value, np.float32), np.ones((2, 2), bool))
        assert round(cover(ndvi), 3) == share


def test_numbers_become_reflectance_as_the_file_says(tmp_path: Path) -> None:
    """Ten-thousandths and fractions are reflectance, 8-bit numbers are none; and empty pixels are left out."""
    whole = np.full((4, 40, 40), 2_500, np.uint16)
    whole[:, :10] = 0
    cases = {
        "whole": (geotiff(whole, ("B02", "B03", "B04", "B08")), True, 0.25, 0.75),
        "fractions": (geotiff(np.full((4, 40, 40), 0.25, np.float32)), True, 0.25, 1.0),
        "declared": (geotiff(whole, nodata=2_500), None, None, None),
        "bytes": (geotiff(np.full((4, 40, 40), 51, np.uint8), photometric="minisblack"), False, 0.2, 1.0),
    }
    for name, (content, calibrated, value, share) in cases.items():
        path = tmp_path / f"{name}.tif"
        path.write_bytes(content)
        if value is None:
            with pytest.raises(ImageRefused, match="no data"):
                read_scene(path, "GTiff")
            continue
        read = read_scene(path, "GTiff")
        assert (read.calibrated, float(read.valid.mean())) == (calibrated, share), name
        assert np.allclose(read.bands[0][read.valid], value), name


def test_a_pixel_is_as_large_as_the_file_says(tmp_path: Path) -> None:
    """In metres, also of degrees; and brought to the network's by the mean of those that have data."""
    path = tmp_path / "a.tif"
    path.write_bytes(pines())
    read = read_scene(path, "GTiff")
    assert read.pixel_m == 20.0
    rasterio: Any = import_module("rasterio")
    corner = rasterio.Affine(0.0001, 0, 10, 0, -0.0001, 60)
    path.write_bytes(geotiff(np.full((4, 40, 40), 900, np.uint16), crs="EPSG:4326", transform=corner))
    degrees = read_scene(path, "GTiff")
    assert degrees.pixel_m is not None and 5.5 < degrees.pixel_m < 5.6
    fine = scene(B04=[[0.1, 0.3, 9.0], [0.1, 0.3, 9.0]], B08=0.5)
    halved = coarser(fine, 2)
    assert halved.size == (1, 1)
    assert np.allclose(halved.band("B04"), 0.2)
    assert halved.pixel_m == 40.0


def test_an_image_that_would_fill_the_memory_is_refused(tmp_path: Path) -> None:
    """However small it was packed: its size unpacked counts, before anything is unpacked."""
    rasterio: Any = import_module("rasterio")
    path = tmp_path / "bomb.tif"
    about = {"count": 4, "height": 19_000, "width": 19_000, "dtype": "uint16", "sparse_ok": True, "tiled": True}
    with rasterio.open(path, "w", driver="GTiff", **about):
        pass
    assert path.stat().st_size < 5_000_000
    with pytest.raises(ImageRefused, match="too many"):
        check_image(path, "GTiff")


def test_a_file_does_not_lead_elsewhere(tmp_path: Path) -> None:
    """Formats that name other files, as GDAL's own VRT does, are not read under any name."""
    (tmp_path / "secret.png").write_bytes(encoded(np.zeros((3, 8, 8), np.uint8), "PNG"))
    path = tmp_path / "a.tif"
    path.write_text(
        '<VRTDataset rasterXSize="8" rasterYSize="8"><VRTRasterBand dataType="Byte" band="1"><SimpleSource>'
        f"<SourceFilename>{tmp_path}/secret.png</SourceFilename></SimpleSource></VRTRasterBand></VRTDataset>"
    )
    for kind in ("GTiff", "PNG", "JPEG"):
        with pytest.raises(ImageRefused):
            check_image(path, kind)


def test_a_verdict_says_what_it_cannot_know() -> None:
    """Thirst needs a band for water and leaves to hold it; a network that sees nothing familiar is not believed."""
    leaves = {"B02": 0.03, "B03": 0.06, "B04": 0.04, "B08": 0.36}

    def said(**bands: float) -> tuple[bool | None, str | None]:
        seen = scene(**bands)
        found = verdict(seen, indices(seen), None)
        return found.irrigation_needed, found.soil_health

    assert said(**leaves) == (None, "good")
    assert said(**leaves, B11=0.18) == (False, "good")
    assert said(**leaves, B11=0.40) == (True, "good")
    assert said(B02=0.1, B03=0.12, B04=0.15, B08=0.2, B11=0.3) == (None, "poor")
    seen = scene(**leaves)
    card = read_card(FOLDER / "crops-4.json")
    shares = np.zeros((len(card.classes), 1, 1), np.float32)
    shares[1] = 0.7
    strange = verdict(seen, indices(seen), Classes(shares, seen.valid, card, 0.1, None))
    assert (strange.crop_type, strange.confidence) == ("small grain", 0.7)
    assert any("only 10% of the pixels look like anything" in note for note in strange.notes)


def test_maps_are_images(tmp_path: Path) -> None:
    """Of the size of what they show, thinned out when it is large, and clear where there are no data."""
    rasterio: Any = import_module("rasterio")
    valid = np.ones((1_500, 900), bool)
    valid[0] = False
    path = tmp_path / "map.png"
    path.write_bytes(index_map(IndexMap(np.full(valid.shape, 0.8, np.float32), valid)))
    with rasterio.open(path) as image:
        assert (image.height, image.width, image.count) == (750, 450, 4)
        pixels = image.read()
    assert pixels[3, 0].max() == 0 and pixels[3, 1:].min() == 255
    red, green, _ = pixels[:3, 5, 5]
    assert green > red
    card = read_card(FOLDER / "crops-4.json")
    classes = Classes(np.zeros((len(card.classes), 4, 4), np.float32), np.ones((4, 4), bool), card, 1.0, None)
    assert class_map(classes).startswith(b"\x89PNG")


@pytest.mark.parametrize("name", ["crops-4", "crops-6"])
def test_the_score_that_is_told_is_the_networks_own(name: str) -> None:
    """On the squares that it was not trained on, the network that ships is right as often as its card says."""
    card, classifier = read_card(FOLDER / f"{name}.json"), Classifier(threads=1)
    (network,) = [one for one in classifier.networks if one.card.version == card.version]
    rasterio: Any = import_module("rasterio")
    with rasterio.open(SCENES / "indian-pines.tif") as image:
        bands = image.read(list(range(1, len(card.bands) + 1))).astype(np.float32) / 10_000
    with rasterio.open(SCENES / "indian-pines-labels.tif") as image:
        marks = image.read(1).astype(np.int64) - 1
    padded = np.pad(bands, ((0, 0), (card.reach, card.reach), (card.reach, card.reach)), "reflect")
    found = network.run(padded[None])[0].argmax(axis=0)
    held = Split(0, marks).held_out
    assert card.held_out.pixels == held.sum()
    assert abs(float((found == marks)[held].mean()) - card.held_out.accuracy) < 0.005
    assert card.held_out.accuracy > card.held_out.commonest + 0.1, "it is better than always saying the commonest"


def test_held_out_squares_are_apart_from_what_is_trained_on() -> None:
    """No patch that is trained on shares a pixel with the patch of one that is held out."""
    split = Split(3, np.zeros((100, 120), np.int64))
    for row, column in np.argwhere(split.held_out)[::97]:
        reach = 2 * GUARD
        near = split.trained[max(row - reach, 0) : row + reach + 1, max(column - reach, 0) : column + reach + 1]
        assert not near.any()
    assert split.trained.sum() > split.held_out.sum()


def test_the_training_goes_down_the_slope() -> None:
    """The gradients are those that a small step shows, of every layer, weights and biases."""
    random = np.random.default_rng(0)
    net = Net(3, 4, random)
    patches = random.standard_normal((6, 9, 9, 3)).astype(np.float32)
    wanted, importance = np.array([0, 1, 2, 3, 0, 1]), np.ones(4, np.float32)

    def loss() -> float:
        shares = softmax(net.scores(patches)).astype(np.float64)
        aim = np.full(shares.shape, 0.05 / 4)
        aim[np.arange(6), wanted] += 0.95
        return float(-(aim * np.log(shares)).sum(axis=1).mean())

    slopes = net.gradients(patches, wanted, importance)
    for part, slope in zip([*net.weights, *net.biases], slopes, strict=True):
        at = np.unravel_index(np.abs(slope).argmax(), slope.shape)
        before = part[at].copy()
        part[at] = before + 1e-3
        above = loss()
        part[at] = before - 1e-3
        below = loss()
        part[at] = before
        assert abs((above - below) / 2e-3 - float(slope[at])) < 0.03 * abs(float(slope[at])) + 2e-3


def test_a_network_is_trained_and_written(tmp_path: Path) -> None:
    """It learns what can be learned, and ONNX Runtime answers as it does, over an image of any size."""
    random = np.random.default_rng(1)
    wanted = random.integers(0, 2, 1_024)
    patches = (random.standard_normal((1_024, 9, 9, 2)) + wanted[:, None, None, None]).astype(np.float32)
    net = Net(2, 2, random)
    train(net, patches, wanted, 3, random, lambda seen, _: seen, lambda epoch, rate: None)
    assert (net.scores(patches).argmax(axis=1) == wanted).mean() > 0.95
    means, deviations = np.array([0.5, 1.0], np.float32), np.array([2.0, 0.5], np.float32)
    export(net, means, deviations, tmp_path / "net.onnx")
    runtime: Any = import_module("onnxruntime")
    session = runtime.InferenceSession(str(tmp_path / "net.onnx"), providers=["CPUExecutionProvider"])
    image = random.standard_normal((1, 2, 12, 10)).astype(np.float32)
    (shares,) = session.run(None, {"reflectance": image})
    assert shares.shape == (1, 2, 4, 2)
    patch = ((image - means[:, None, None]) / deviations[:, None, None])[:, :, 1:10, 1:10].transpose(0, 2, 3, 1)
    assert np.allclose(shares[0, :, 1, 1], softmax(net.scores(patch))[0], atol=1e-5)


def test_many_images_are_classified_as_each_alone(tmp_path: Path) -> None:
    """Tiles of several images share calls, and nothing of one comes into another; one that was stopped is left out."""
    path = tmp_path / "a.tif"
    scenes = []
    for turn in (0, 40):
        path.write_bytes(pines(turn))
        scenes.append(read_scene(path, "GTiff"))
    classifier = Classifier(threads=1)
    together = classifier.classify([*scenes, scene(B04=0.1, B08=0.2)])
    assert together[2] is None, "no network can be given two bands"
    for one, other in zip([classifier.classify([each])[0] for each in scenes], together, strict=False):
        assert one is not None and other is not None
        assert np.allclose(one.shares, other.shares, atol=1e-5)
        assert np.allclose(one.shares.sum(axis=0), 1, atol=1e-4)
    assert classifier.classify(scenes, [lambda: True, lambda: False])[0] is None


def test_settings_travel_in_the_environment() -> None:
    """What one process was told is what the others read."""
    own = CropsSettings(min_bytes=1, results="sqlite:///x.db", device="cpu", batch=3, cpu_batch=1)
    assert settings(own.environment()) == own


def test_cards_tell_where_the_data_come_from() -> None:
    """Licence, source, classes and bands: with every model."""
    cards: list[Card] = [read_card(path) for path in sorted(FOLDER.glob("*.json"))]
    assert [len(card.bands) for card in cards] == [4, 6]
    for card in cards:
        assert card.classes == CLASSES
        assert "CC BY 3.0" in card.source and "10.4231/R7RX991C" in card.source
        assert len(card.other_splits) == 3
