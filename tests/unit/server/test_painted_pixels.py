"""Pictures that are painted over: read in any form, kept where a mask says so, and written."""

from __future__ import annotations

import numpy
import pytest

from pippin_server.engines.base import PromptRefused
from pippin_server.engines.mlx.diffusion import pixels
from support.media import picture, size


@pytest.mark.parametrize("kind", ["png", "mjpeg", "webp"])
def test_pictures_of_every_kind_are_read_in_the_size_that_is_wanted(kind: str) -> None:
    left = numpy.zeros((60, 90, 3), dtype=numpy.uint8)
    left[:, :45] = (200, 40, 90)
    found = pixels.read(picture(left, kind), "image", (64, 32))
    assert found.shape == (32, 64, 3)
    assert numpy.abs(found[:, :24].astype(int) - (200, 40, 90)).max() < 12
    assert found[:, 40:].max() < 12


def test_what_is_transparent_in_a_picture_is_white() -> None:
    clear = numpy.zeros((8, 8, 4), dtype=numpy.uint8)
    clear[:, 4:, 3] = 255
    found = pixels.read(picture(clear), "image", (8, 8))
    assert found[:, :4].min() == 255 and found[:, 4:].max() == 0


@pytest.mark.parametrize("kind", ["png", "mjpeg", "webp"])
def test_a_damaged_picture_is_named_with_its_field(kind: str) -> None:
    noise = numpy.random.default_rng(2).integers(0, 255, (64, 64, 3), dtype=numpy.uint8)
    whole = picture(noise, kind)
    said = "jpeg" if kind == "mjpeg" else kind
    with pytest.raises(PromptRefused, match=f"'image' is a damaged {said}") as caught:
        pixels.read(whole[: len(whole) // 3], "image", (64, 64))
    assert caught.value.param == "image"


def test_a_mask_without_a_transparent_part_is_refused() -> None:
    opaque = picture(numpy.full((8, 8, 3), 9, dtype=numpy.uint8))
    with pytest.raises(PromptRefused, match="'mask' has no transparent part"):
        pixels.kept(opaque, (8, 8))


def test_a_latent_stays_when_all_of_its_pixels_do() -> None:
    opaque = numpy.full((16, 24), 255, dtype=numpy.uint8)
    opaque[15, 8] = 0
    assert pixels.cells(opaque, 8)[0, ..., 0].tolist() == [[True] * 3, [True, False, True]]


def test_a_file_has_the_pixels_that_were_painted() -> None:
    for shape in ((64, 48, 3), (1, 1, 3)):
        some = numpy.random.default_rng(3).integers(0, 255, shape, dtype=numpy.uint8)
        file = pixels.file(some)
        assert size(file) == shape[1::-1]
        assert numpy.array_equal(pixels.read(file, "image", size(file)), some)
