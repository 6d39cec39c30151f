from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from phenohit.errors import ConfigError, ShapeError
from phenohit.images.convert import normalise, to_uint8

_SIDES = hnp.array_shapes(min_dims=2, max_dims=4, min_side=1, max_side=9)
_ANY = st.one_of(
    hnp.arrays(np.uint16, _SIDES),
    hnp.arrays(np.uint16, _SIDES, elements=st.integers(0, 3)),  # many ties, often black
    hnp.arrays(np.uint8, _SIDES),
)


def _by_count(image: np.ndarray, clip: float) -> np.ndarray:
    """The rule pixel by pixel: threshold is the smallest of the n brightest, scale by 256, cap, truncate."""
    values = sorted((int(v) for v in image.ravel()), reverse=True)
    t = values[max(1, round(len(values) * clip)) - 1]
    out = [255 if v and not t else 0 if not t else min(255, (v * 256) // t) for v in map(int, image.ravel())]
    return np.array(out, np.uint8).reshape(image.shape)


def _by_percentile(image: np.ndarray, clip: float) -> np.ndarray:
    t = np.quantile(image, 1 - clip)
    out = [255 if v and not t else 0 if not t else int(min(v / t, 1) * 255) for v in map(int, image.ravel())]
    return np.array(out, np.uint8).reshape(image.shape)


@given(_ANY, st.sampled_from([0.0, 2.8e-5, 0.02, 0.1, 0.5, 0.99]))
def test_both_rules_are_those_of_a_loop_over_pixels(images, clip):
    for rule, naive in (("count", _by_count), ("percentile", _by_percentile)):
        found = to_uint8(images, clip, rule)
        assert found.dtype == np.uint8
        flat = images.reshape(-1, *images.shape[-2:])
        expected = np.stack([naive(image, clip) for image in flat]).reshape(images.shape)
        np.testing.assert_array_equal(found, expected)


@given(_ANY)
def test_brighter_pixels_stay_at_least_as_bright(images):
    image = images.reshape(-1, *images.shape[-2:])[0]
    for rule in ("count", "percentile"):
        order = np.argsort(image, axis=None, kind="stable")
        assert (np.diff(to_uint8(image, 0.1, rule).ravel()[order].astype(int)) >= 0).all()


def test_ten_pixels_of_a_field_of_the_papers_are_clipped():
    rng = np.random.default_rng(0)
    image = rng.permutation(np.arange(520 * 696) % 4000).astype(np.uint16).reshape(520, 696)
    image.ravel()[:10] = np.arange(60_000, 60_010)  # the ten brightest
    found = to_uint8(image)
    assert (found.ravel()[:10] == 255).all()
    assert found.ravel()[10:].max() == 3999 * 256 // 60_000
    np.testing.assert_array_equal(to_uint8(image, rule="percentile"), _by_percentile(image, 2.8e-5))


@pytest.mark.parametrize("rule", ["count", "percentile"])
def test_constant_images_become_white_and_black_ones_black(rule):
    assert (to_uint8(np.full((4, 5), 700, np.uint16), rule=rule) == 255).all()
    assert (to_uint8(np.zeros((4, 5), np.uint16), rule=rule) == 0).all()


def test_channels_are_scaled_by_themselves(shared_data):
    from phenohit.images.read import read_view

    files = sorted(str(p) for p in (shared_data / "raw-images" / "cdrp_cloome_example").glob("*.tif"))
    view = read_view(files, bits=12)
    found = to_uint8(np.stack([view, view // 2]))
    for channel, image in zip(view, found[0], strict=True):
        threshold = np.sort(channel, axis=None)[-10]
        np.testing.assert_array_equal(image, np.minimum(channel.astype(np.int64) * 256 // threshold, 255))
    assert (found[0].max(axis=(1, 2)) == 255).all()


def test_what_is_no_image_or_no_share_is_refused():
    with pytest.raises(ShapeError, match="float"):
        to_uint8(np.zeros((3, 3)))
    with pytest.raises(ShapeError):
        to_uint8(np.zeros(3, np.uint16))
    with pytest.raises(ConfigError, match=r"images\.clip is 1"):
        to_uint8(np.zeros((3, 3), np.uint16), 1.0)
    with pytest.raises(ConfigError, match="median"):
        to_uint8(np.zeros((3, 3), np.uint16), rule="median")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ShapeError, match="two pixels"):
        normalise(np.zeros((3, 1, 1)))


@given(hnp.arrays(np.uint8, hnp.array_shapes(min_dims=3, max_dims=4, min_side=2, max_side=8)))
def test_images_get_mean_0_and_unbiased_sd_1(images):
    found = normalise(images)
    assert found.dtype == np.float32
    flat, out = images.reshape(-1, *images.shape[-2:]), found.reshape(-1, *images.shape[-2:])
    for image, image_out in zip(flat.astype(np.float64), out, strict=True):
        np.testing.assert_allclose(image_out, (image - image.mean()) / (image.std(ddof=1) + 1e-7), atol=2e-5)


def test_a_batch_is_its_images_and_wide_values_keep_their_digits():
    rng = np.random.default_rng(1)
    batch = rng.integers(60_000, 60_010, (2, 3, 64, 64)).astype(np.uint16)  # little spread far from 0
    found = normalise(batch)
    np.testing.assert_array_equal(found[1], normalise(batch[1]))
    assert np.abs(found.mean(axis=(-2, -1), dtype=np.float64)).max() < 1e-6
    np.testing.assert_allclose(found.std(axis=(-2, -1), ddof=1, dtype=np.float64), 1, atol=1e-6)
    assert not normalise(np.full((1, 4, 4), 9, np.uint8)).any()
