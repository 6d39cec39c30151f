from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from phenohit.errors import ShapeError
from phenohit.images.objects import Objects
from phenohit.images.overlays import CELL, NUCLEUS, composite, draw_functions, draw_outlines, png


def _objects():
    nuclei, cells = np.zeros((2, 20, 30), np.int32)
    cells[4:16, 4:16] = 1
    nuclei[8:12, 8:12] = 1
    return Objects(nuclei, cells, np.where(nuclei > 0, 0, cells))


def test_composite_stretches_every_channel():
    view = np.zeros((2, 10, 10))
    view[0, :5], view[1, 5:] = 10, 60000
    picture = composite(view)
    assert picture.dtype == np.uint8
    assert (picture[:5] == picture[0, 0]).all()
    assert picture[0, 0].argmax() == 2  # blue first
    assert picture[9, 9].argmax() == 1  # then green
    assert not (composite(np.full((1, 4, 4), 7)) > 0).any()
    grey = composite(view[:1])
    assert (grey[..., 0] == grey[..., 2]).all()


@pytest.mark.parametrize("zoom", [1, 3])
def test_outlines_lie_on_edges(zoom):
    picture = draw_outlines(np.zeros((1, 20, 30)), _objects(), zoom=zoom)
    assert picture.shape == (20 * zoom, 30 * zoom, 3)
    assert tuple(picture[4 * zoom, 8 * zoom]) == CELL
    assert tuple(picture[8 * zoom, 9 * zoom]) == NUCLEUS
    assert not picture[10 * zoom, 10 * zoom].any()  # inside, nothing is drawn
    assert not picture[0].any()


def test_sizes_must_fit():
    with pytest.raises(ShapeError, match=r"The view is \(5, 5\)"):
        draw_outlines(np.zeros((1, 5, 5)), _objects())
    with pytest.raises(ShapeError, match="at least one channel"):
        composite(np.zeros((5, 5)))
    with pytest.raises(ShapeError, match="2 channels"):
        draw_functions(np.ones((1, 5, 5)), ["DNA", "ER"])


def test_functions_side_by_side():
    functions = np.ones((2, 20, 40), np.float32)
    functions[1, :, 20:] = 2
    picture = draw_functions(functions, ["DNA", "ER"], width=80)
    assert picture.shape == (40, 164)
    assert (picture[:, :80] == 0).all()
    assert (picture[:, 80:84] == 255).all()
    assert picture[20, 160] == 255


def test_png_holds_the_picture():
    picture = np.arange(60, dtype=np.uint8).reshape(4, 5, 3)
    assert (np.asarray(Image.open(io.BytesIO(png(picture)))) == picture).all()
