from __future__ import annotations

import warnings

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from phenohit.data.simulate_settings import SimulateSettings
from phenohit.errors import FileError, ShapeError
from phenohit.images.draw import draw_view, illumination, usual_cells
from phenohit.images.illumination import correct, estimate, load_functions, save_functions

SIZE = 160


def _lamp(size=SIZE):
    y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    return np.stack([1.2 - 0.25 * ((x - 0.2) ** 2 + y**2), 1 + 0.2 * x - 0.1 * y]).astype(np.float32)


def _plate(rng, n, lamp, debris=0):
    """Simulated views of round cells: a sparse channel and a crowded one, with a few dark counts."""
    size = lamp.shape[1]
    y, x = np.ogrid[:size, :size]
    for number in range(n):
        light = np.full((2, size, size), 20.0)
        for channel, (cells, width) in enumerate([(20, 5), (60, 10)]):
            for cy, cx, bright in zip(*rng.uniform(0, size, (2, cells)), rng.normal(1000, 200, cells), strict=True):
                light[channel, (y - cy) ** 2 + (x - cx) ** 2 < width**2] = bright
        if number < debris:
            light[:, 20:60, 90:130] = 40000
        light = gaussian_filter(light, (0, 1, 1)) * lamp
        yield np.clip(light + 10 + rng.normal(0, 5, light.shape), 0, 65535).astype(np.uint16)


def _error(found, true):
    relative = (found / found.mean()) / (true / true.mean()) - 1
    return float(np.corrcoef(found.ravel(), true.ravel())[0, 1]), float(np.abs(relative).mean())


@pytest.mark.parametrize("debris", [0, 6])
def test_planted_shading_is_found_in_spite_of_debris(debris):
    lamp = _lamp()
    found = estimate(_plate(np.random.default_rng(1), 60, lamp, debris), 0.15)
    sparse, crowded = (_error(one, true) for one, true in zip(found, lamp, strict=True))
    assert crowded[0] > 0.99
    assert crowded[1] < 0.01
    # 1200 nuclei in all, and the debris always at the same place
    assert sparse[0] > (0.95 if debris else 0.97)
    assert sparse[1] < 0.03


def test_better_than_the_mean_of_all_pixels():
    # the peer: CellProfiler's regular, all, Gaussian smoothing with reflecting edges
    lamp = _lamp()
    views = list(_plate(np.random.default_rng(2), 30, lamp))
    found = estimate(iter(views), 0.15)
    peer = np.stack([gaussian_filter(m, 0.15 * SIZE, mode="reflect") for m in np.mean(views, axis=0)])
    for one, other, true in zip(found, peer, lamp, strict=True):
        assert _error(one, true)[1] < 0.6 * _error(other, true)[1]


def test_planted_shading_of_drawn_plates():
    settings = SimulateSettings(image_size=128)
    lamp = illumination(settings, 0)
    rng = np.random.default_rng(3)
    views = [draw_view(rng, settings, int(usual_cells(128)), lamp=lamp).pixels for _ in range(50)]
    found = estimate(views, 0.15)
    assert all(_error(f, t)[1] < 0.04 for f, t in zip(found, lamp, strict=True))
    assert np.mean([_error(f, t)[0] for f, t in zip(found, lamp, strict=True)]) > 0.8


def test_correction_flattens():
    lamp = _lamp()
    views = list(_plate(np.random.default_rng(4), 30, lamp))
    functions = estimate(views, 0.15)
    before, after = np.mean(views, axis=0), np.mean([correct(v, functions) for v in views], axis=0)

    def unevenness(image):
        parts = image.reshape(4, SIZE // 4, 4, SIZE // 4).mean(axis=(1, 3))
        return parts.std() / parts.mean()

    assert unevenness(after[1]) < 0.5 * unevenness(before[1])  # what is left is chance gatherings of cells
    assert after.dtype == np.float32


def test_functions_are_one_or_more_as_with_cellprofiler():
    found = estimate(_plate(np.random.default_rng(5), 25, _lamp()), 0.1)
    assert found.dtype == np.float32
    assert found.shape == (2, SIZE, SIZE)
    assert (found.min(axis=(1, 2)) == 1).all()
    # the robust minimum: 2 % of pixels lie at 1
    assert np.allclose((found == 1).mean(axis=(1, 2)), 0.02, atol=0.001)


def test_even_light_stays_even():
    found = estimate(_plate(np.random.default_rng(6), 30, np.ones((2, SIZE, SIZE), np.float32)), 0.2)
    assert (found.std(axis=(1, 2)) < 0.04).all()


def test_few_views_are_smoothed_more_and_said():
    views = list(_plate(np.random.default_rng(7), 4, _lamp()))
    with pytest.warns(UserWarning, match="from 4 views only"):
        few = estimate(views, 0.05)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        many = estimate(views * 5, 0.05)  # the same light, but called enough

    def roughness(image):
        return np.abs(np.diff(image, 2, axis=0)).mean()

    assert roughness(few[0]) < 0.5 * roughness(many[0])


def test_without_light_functions_are_one():
    assert (estimate([np.zeros((1, 40, 50), np.uint16)] * 20) == 1).all()
    assert np.allclose(estimate([np.full((1, 41, 53), 7, np.uint8)] * 20), 1)


def test_views_of_another_size_are_refused():
    with pytest.raises(ShapeError, match=r"View 1 of the plate is \(1, 5, 4\)"):
        estimate([np.zeros((1, 4, 4)), np.zeros((1, 5, 4))])
    with pytest.raises(ShapeError, match="No view"):
        estimate([])
    with pytest.raises(ShapeError, match="same size"):
        correct(np.zeros((1, 4, 4)), np.ones((1, 5, 4), np.float32))


def test_files_come_back_and_cellprofilers_are_read(tmp_path):
    functions = 1 + np.random.default_rng(8).random((2, 6, 7), dtype=np.float32)
    paths = save_functions(tmp_path, functions, ["DNA", "ER"], "P1")
    assert [p.name for p in paths] == ["P1_IllumDNA.npy", "P1_IllumER.npy"]
    assert (load_functions(paths) == functions).all()
    np.save(tmp_path / "other.npy", functions[0].astype(np.float64))  # CellProfiler may write double precision
    assert load_functions([tmp_path / "other.npy"]).dtype == np.float32


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (np.ones((3, 4, 5)), "expected numbers"),
        (np.zeros((4, 5)), "cannot be divided"),
        (np.full((4, 5), np.nan), "cannot be divided"),
        (np.array([["a"]]), "expected numbers"),
        (np.array([[None]]), "cannot be read"),
    ],
)
def test_bad_files_are_refused(tmp_path, array, said):
    np.save(tmp_path / "bad.npy", array, allow_pickle=True)
    with pytest.raises(FileError, match=said):
        load_functions([tmp_path / "bad.npy"])


def test_absent_and_unlike_files_are_refused(tmp_path):
    with pytest.raises(FileError, match="does not exist"):
        load_functions([tmp_path / "none.npy"])
    np.save(tmp_path / "a.npy", np.ones((4, 5)))
    np.save(tmp_path / "b.npy", np.ones((4, 6)))
    with pytest.raises(FileError, match=r"is \(4, 6\), but"):
        load_functions([tmp_path / "a.npy", tmp_path / "b.npy"])
