"""Thumbnails: one contrast for a plate, fixed colours, small files."""

import io

import numpy as np
import pytest
from PIL import Image

from phenohit.errors import ShapeError
from phenohit.images.thumbnails import COMPOSITE, channel_colors, contrast_limits, pair, thumbnails

STAINS = ["DNA", "ER", "RNA", "AGP", "Mito"]


def picture(png):
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


def test_limits_are_percentiles_of_all_views_of_a_plate():
    rng = np.random.default_rng(0)
    views = [rng.normal(m, 10, (2, 200, 300)) for m in (100, 300)]
    found = contrast_limits(views, 5, 95)
    together = np.concatenate([v.reshape(2, -1) for v in views], 1)
    assert found.shape == (2, 2)
    np.testing.assert_allclose(found, np.percentile(together, [5, 95], axis=1).T, rtol=0.02)
    with pytest.raises(ShapeError, match="at least one view"):
        contrast_limits([])


def test_a_picture_is_small_in_the_channels_colour_and_keeps_its_shape():
    view = np.zeros((5, 520, 696), np.uint16)
    view[:, :260] = 1000
    found = thumbnails(view, np.tile([0, 1000], (5, 1)), STAINS, 160)
    assert list(found) == [*STAINS, COMPOSITE]
    for name in STAINS:
        image = picture(found[name])
        assert image.shape == (120, 160, 3)
        assert tuple(image[10, 10]) == channel_colors(STAINS)[name]
        assert tuple(image[-1, -1]) == (0, 0, 0)
        assert len(found[name]) < 20_000
    total = np.array(list(channel_colors(STAINS).values())).sum(0) / np.sqrt(5)
    assert (total > 255).any()  # clipped, not wrapped around
    np.testing.assert_allclose(picture(found[COMPOSITE])[10, 10], np.minimum(total, 255), atol=1)


def test_pixels_are_averaged_then_clipped():
    view = np.array([[[0, 100], [100, 200]]], np.float32).repeat(2, 1).repeat(2, 2)
    limits = np.array([[50.0, 150.0]])
    dim = picture(thumbnails(view, limits, ["AGP"], 2)["AGP"])
    full = np.array(channel_colors(["AGP"])["AGP"])
    np.testing.assert_allclose(dim[0, 1], full / 2, atol=1)
    np.testing.assert_array_equal(dim[0, 0], 0)
    np.testing.assert_array_equal(dim[1, 1], full)


def test_control_and_compound_are_shown_in_the_same_contrast():
    control, compound = np.full((1, 40, 40), 50.0), np.full((1, 40, 40), 100.0)
    image = picture(pair(control, compound, np.array([[0, 100.0]]), ["DNA"], 40))
    assert image.shape == (40, 84, 3)
    blue = np.array(channel_colors(["DNA"])["DNA"])
    np.testing.assert_allclose(image[0, 0], blue / 2, atol=1)
    np.testing.assert_array_equal(image[0, -1], blue)
    assert (image[:, 40:44] == 255).all()


def test_colours_are_fixed_by_name_and_never_shared():
    assert channel_colors(STAINS) == channel_colors(STAINS[::-1])
    others = channel_colors(["DNA", "Hoechst", "PH3", "w5", "x", "y"])
    assert others["DNA"] == channel_colors(STAINS)["DNA"]
    assert len(set(others.values())) == 6


def test_a_flat_channel_is_black_and_wrong_limits_are_told():
    image = picture(thumbnails(np.full((1, 8, 8), 7), np.array([[7.0, 7.0]]), ["DNA"])["DNA"])
    assert not image.any()
    with pytest.raises(ShapeError, match="limits of the shape \\(1, 2\\)"):
        thumbnails(np.ones((1, 8, 8)), np.ones((2, 2)), ["DNA"])
