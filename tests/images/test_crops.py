"""Crops of single cells: cut where they should be, whole views only, and resumed."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from phenohit.errors import FileError, ShapeError
from phenohit.images.crops import COORDINATES, CropWriter, cut, read_crops


def view(shape=(2, 40, 50), dtype=np.uint16, seed=0):
    return np.random.default_rng(seed).integers(0, 250, shape).astype(dtype)


@given(st.integers(1, 15), st.lists(st.tuples(st.floats(0, 39), st.floats(0, 49)), max_size=8))
def test_a_crop_is_the_square_around_its_point(side, points):
    image = view()
    crops, kept = cut(image, np.array(points).reshape(-1, 2), side)
    padded, every = cut(image, np.array(points).reshape(-1, 2), side, "pad")
    assert crops.dtype == image.dtype
    assert crops.shape == (len(kept), 2, side, side)
    assert every.tolist() == list(range(len(points)))
    np.testing.assert_array_equal(padded[kept], crops)
    for k, (y, x) in enumerate(points):
        top, left = round(y) - side // 2, round(x) - side // 2
        inside = top >= 0 and left >= 0 and top + side <= 40 and left + side <= 50
        assert inside == (k in kept)
        assert (padded[k, :, side // 2, side // 2] == image[:, round(y), round(x)]).all()
        if inside:
            square = image[:, top : top + side, left : left + side]
            np.testing.assert_array_equal(crops[kept.tolist().index(k)], square)


def test_cells_at_the_border_are_padded_with_nothing():
    crops, _ = cut(np.ones((1, 10, 10), np.uint8), np.array([[0.0, 0.0]]), 4, "pad")
    np.testing.assert_array_equal(crops[0, 0], [[0] * 4, [0] * 4, [0, 0, 1, 1], [0, 0, 1, 1]])


def test_crops_of_a_plate_are_found_again(tmp_path):
    image = view()
    with CropWriter(tmp_path, "P/1 a", ["DNA", "ER"], 8, "uint16") as writer:
        assert writer.add("A01", "1", image, np.array([1, 2, 3]), np.array([[20, 20], [1, 1], [10, 30]])) == 2
        assert writer.add("A01", "2", image, np.array([]), np.empty((0, 2))) == 0
        left = writer.dropped()
    crops, cells = read_crops(tmp_path, "P/1 a")
    assert cells.columns.tolist() == COORDINATES
    assert cells[COORDINATES[:4]].to_numpy().tolist() == [["P/1 a", "A01", "1", 1], ["P/1 a", "A01", "1", 3]]
    assert crops.attrs["channels"] == ["DNA", "ER"]
    np.testing.assert_array_equal(crops[1], image[:, 6:14, 26:34])
    assert left.to_numpy().tolist() == [
        ["cut crops", "view", "P/1 a/A01/1", "1 cells are nearer to the border than half of 8 pixels"]
    ]


def test_a_killed_run_goes_on_after_the_last_whole_view(tmp_path):
    points = np.array([[20.0, 20.0], [15.0, 30.0]])
    first = CropWriter(tmp_path, "P1", ["DNA", "ER"], 8)
    first.add("A01", "1", view(dtype=np.uint8, seed=1), np.array([1, 2]), points)
    first.flush()
    first._array.append(np.full((5, 2, 8, 8), 99, np.uint8))  # written, but killed before the table
    with CropWriter(tmp_path, "P1", ["DNA", "ER"], 8) as second:
        assert second.done == {("A01", "1")}
        assert second.add("A01", "1", view(dtype=np.uint8, seed=1), np.array([1, 2]), points) == 0
        assert second.add("A01", "2", view(dtype=np.uint8, seed=2), np.array([1, 2]), points) == 2
    crops, cells = read_crops(tmp_path, "P1")
    assert crops.shape == (4, 2, 8, 8)
    assert cells["Crop"].tolist() == [0, 1, 2, 3]
    assert cells["Metadata_Site"].tolist() == ["1", "1", "2", "2"]
    expected = [cut(view(dtype=np.uint8, seed=s), points, 8)[0] for s in (1, 2)]
    np.testing.assert_array_equal(crops[:], np.concatenate(expected))


def test_many_crops_are_written_as_they_come(tmp_path, monkeypatch):
    monkeypatch.setattr("phenohit.images.crops._BUFFER", 1000)
    with CropWriter(tmp_path, "P1", ["DNA", "ER"], 8) as writer:
        for site in range(5):
            writer.add("A01", str(site), view(dtype=np.uint8), np.arange(3), np.full((3, 2), 20.0))
            assert len(writer._crops) <= 2
    assert read_crops(tmp_path, "P1")[0].shape[0] == 15


def test_crops_of_another_kind_are_told(tmp_path):
    CropWriter(tmp_path, "P1", ["DNA", "ER"], 8)
    with pytest.raises(FileError, match="another kind"):
        CropWriter(tmp_path, "P1", ["DNA", "ER"], 9)
    with pytest.raises(FileError, match="another kind"):
        CropWriter(tmp_path, "P1", ["ER", "DNA"], 8)
    writer = CropWriter(tmp_path, "P1", ["DNA", "ER"], 8)
    with pytest.raises(ShapeError, match="P1/A01/1 is 2 channels of uint16"):
        writer.add("A01", "1", view(), np.array([1]), np.array([[20, 20]]))
    with pytest.raises(FileError, match="no crops of plate 'P2'"):
        read_crops(tmp_path, "P2")
