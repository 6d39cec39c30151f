from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile
import zarr

from phenohit.data.views import Views
from phenohit.errors import FileError, ShapeError
from phenohit.images import store as module
from phenohit.images.convert import to_uint8
from phenohit.images.layouts import find_views
from phenohit.images.read import read_view
from phenohit.images.store import open_store, write_store
from phenohit.imaging import ImageSource

CHANNELS = ["DNA", "ER", "AGP"]
SOURCE = ImageSource()


def _screen(folder: Path, plates=("P1", "P/2 .x"), n: int = 5, shape=(24, 31), dtype=np.uint16) -> Views:
    rng = np.random.default_rng(0)
    rows, files = [], []
    folder.mkdir(exist_ok=True)
    for p, plate in enumerate(plates):
        for i in range(n):
            rows.append({"Metadata_Plate": plate, "Metadata_Well": f"A{i + 1:02d}", "Metadata_Site": "1"})
            files.append({c: f"{folder}/{p}_{i}_{c}.tif" for c in CHANNELS})
            for file in files[-1].values():
                tifffile.imwrite(file, rng.integers(0, np.iinfo(dtype).max, shape).astype(dtype))
    return Views(pd.DataFrame(rows), pd.DataFrame(files))


def _expected(views: Views) -> np.ndarray:
    return np.stack([to_uint8(read_view(f)) for f in views.files.to_numpy().tolist()])


def _bytes(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("jobs", [1, 3])
def test_a_store_gives_back_what_was_converted(tmp_path, jobs):
    views = _screen(tmp_path / "tif")
    assert write_store(views, SOURCE, tmp_path / "store", jobs=jobs).empty
    store = open_store(tmp_path / "store")
    expected = _expected(views)
    assert len(store) == 10
    assert store.views.channels == CHANNELS
    assert store.views.names().tolist() == views.names().tolist()
    np.testing.assert_array_equal(store.read(np.arange(10)), expected)
    np.testing.assert_array_equal(store.read([7, 0, 7], threads=1), expected[[7, 0, 7]])
    np.testing.assert_array_equal(store.read(np.arange(10) > 6), expected[7:])
    assert len(store.read([])) == 0
    assert store.check().empty
    # Its addresses are those of any other image, and it is a zarr that others read.
    np.testing.assert_array_equal(read_view(store.views.files.iloc[8].tolist()), expected[8])
    group = zarr.open_group(str(tmp_path / "store" / "plates.zarr"), mode="r")
    assert group.metadata.zarr_format == 3
    arrays = dict(group.arrays())
    assert {a.shape for a in arrays.values()} == {(5, 3, 24, 31)}
    np.testing.assert_array_equal(arrays["P1"][:], expected[:5])


def test_batches_are_all_rows_in_order(tmp_path):
    views = _screen(tmp_path / "tif")
    write_store(views, SOURCE, tmp_path / "s")
    store, expected = open_store(tmp_path / "s"), _expected(views)
    rows = np.array([9, 3, 4, 0, 1, 8, 2])
    got = list(store.batches(rows, 3))
    assert [len(b) for _, b in got] == [3, 3, 1]
    np.testing.assert_array_equal(np.concatenate([i for i, _ in got]), rows)
    np.testing.assert_array_equal(np.concatenate([b for _, b in got]), expected[rows])
    assert list(store.batches([], 3)) == []


def test_a_store_is_a_place_of_images_like_any_other(tmp_path):
    views = _screen(tmp_path / "tif")
    write_store(views, SOURCE, tmp_path / "s")
    source = ImageSource(path=str(tmp_path / "s"), channels={"Golgi": "agp", "Nuclei": "DNA"}, plates=["P1"])
    found, lost = find_views(source)
    assert found.names().tolist() == views.names().tolist()[:5]
    assert found.channels == ["Golgi", "Nuclei"]
    assert lost[["what", "id"]].to_numpy().tolist() == [["plate", "P/2 .x"], ["channel", "ER"]]
    np.testing.assert_array_equal(read_view(found.files.iloc[4].tolist()), _expected(views)[4][[2, 0]])


def test_a_store_can_be_moved(tmp_path):
    views = _screen(tmp_path / "tif", n=2)
    write_store(views, SOURCE, tmp_path / "s")
    shutil.move(tmp_path / "s", tmp_path / "t")
    shutil.rmtree(tmp_path / "tif")
    store = open_store(tmp_path / "t")
    assert store.check().empty
    assert store.views.files.iloc[0, 0].startswith(str(tmp_path / "t"))


def test_a_write_that_was_killed_goes_on_and_gives_the_same_bytes(tmp_path, monkeypatch):
    views = _screen(tmp_path / "tif")
    write_store(views, SOURCE, tmp_path / "whole")
    made, calls = module._made, []

    def dies(files, source):
        calls.append(files)
        if len(calls) == 8:  # in the middle of the second plate
            raise KeyboardInterrupt
        return made(files, source)

    monkeypatch.setattr(module, "_made", dies)
    with pytest.raises(KeyboardInterrupt):
        write_store(views, SOURCE, tmp_path / "again")
    with pytest.raises(FileError, match="was not finished"):
        open_store(tmp_path / "again")
    calls.clear()
    monkeypatch.setattr(module, "_made", lambda f, s: (calls.append(f), made(f, s))[1])
    write_store(views, SOURCE, tmp_path / "again")
    assert len(calls) == 3  # the first plate is there already, and two views of the second
    assert _bytes(tmp_path / "again") == _bytes(tmp_path / "whole")


@pytest.mark.parametrize("damage", ["chunk cut", "chunk of another", "chunk absent", "line cut", "killed at the end"])
def test_what_a_killed_write_left_is_looked_at_before_it_is_kept(tmp_path, monkeypatch, damage):
    """Five views of which the second cannot be read: A01 is row 0, A03 row 1, A04 row 2."""
    views = _screen(tmp_path / "tif", plates=("P1",))
    Path(views.files["ER"][1]).unlink()
    write_store(views, SOURCE, tmp_path / "whole")
    made, calls, write = module._made, [], module.write_table

    def dies(files, source):
        calls.append(files)
        if len(calls) == 5 and damage != "killed at the end":
            raise KeyboardInterrupt
        return made(files, source)

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    folder = tmp_path / "again"
    monkeypatch.setattr(module, "_made", dies)
    monkeypatch.setattr(module, "write_table", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_store(views, SOURCE, folder)
    monkeypatch.setattr(module, "write_table", write)
    chunk = {i: folder / "plates.zarr" / "P1" / f"c.{i}.0.0.0" for i in range(3)}
    begun = folder / "index" / "P1.begun"
    if damage == "chunk cut":
        chunk[1].write_bytes(chunk[1].read_bytes()[:40])
    elif damage == "chunk of another":
        chunk[1].write_bytes(chunk[0].read_bytes())
    elif damage == "chunk absent":
        chunk[1].unlink()
    elif damage == "line cut":
        begun.write_text(begun.read_text()[:-4])
    calls.clear()
    monkeypatch.setattr(module, "_made", lambda f, s: (calls.append(f), made(f, s))[1])
    lost = write_store(views, SOURCE, folder)
    assert len(calls) == {"line cut": 2, "killed at the end": 0}.get(damage, 3)
    assert lost["id"].tolist() == ["P1/A02/1"]
    assert _bytes(folder) == _bytes(tmp_path / "whole")
    assert open_store(folder).check().empty


def test_a_killed_write_of_other_settings_is_not_taken(tmp_path, monkeypatch):
    views = _screen(tmp_path / "tif", plates=("P1",))
    write_store(views, ImageSource(clip=0.1), tmp_path / "whole")
    made, calls = module._made, []

    def dies(files, source):
        calls.append(files)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return made(files, source)

    monkeypatch.setattr(module, "_made", dies)
    with pytest.raises(KeyboardInterrupt):
        write_store(views, SOURCE, tmp_path / "again")
    monkeypatch.setattr(module, "_made", made)
    write_store(views, ImageSource(clip=0.1), tmp_path / "again")
    assert _bytes(tmp_path / "again") == _bytes(tmp_path / "whole")


def test_only_plates_whose_files_or_settings_changed_are_made_anew(tmp_path, monkeypatch):
    views = _screen(tmp_path / "tif")
    made, calls = module._made, []
    monkeypatch.setattr(module, "_made", lambda f, s: (calls.append(f), made(f, s))[1])

    def n_made(views=views, **settings) -> int:
        calls.clear()
        write_store(views, ImageSource(**settings), tmp_path / "s")
        return len(calls)

    assert n_made() == 10
    assert n_made() == 0
    os.utime(views.files["ER"][2], ns=(1, 1))
    assert n_made() == 5
    tifffile.imwrite(views.files["ER"][7], np.full((24, 31), 900, np.uint16), compression="deflate")
    assert n_made() == 5
    assert (open_store(tmp_path / "s").read([7])[0, 1] == 255).all()
    assert n_made(clip=0.1) == 10
    assert n_made(clip=0.1, bits=16) == 10
    assert n_made(views.of_plate("P1"), clip=0.1, bits=16) == 0
    assert open_store(tmp_path / "s").views.plates == ["P1"]  # the other is gone, not left behind
    assert sorted(p.name for p in (tmp_path / "s").iterdir()) == ["index", "plates.zarr", "views.parquet"]
    assert sorted(p.name for p in (tmp_path / "s" / "plates.zarr").iterdir()) == ["P1", "zarr.json"]
    assert n_made(views.with_channels(["ER", "DNA"]).of_plate("P1"), clip=0.1, bits=16) == 5


def test_views_that_cannot_be_read_are_listed_and_take_no_place(tmp_path):
    views = _screen(tmp_path / "tif")
    Path(views.files["ER"][1]).unlink()
    Path(views.files["AGP"][6]).write_bytes(Path(views.files["AGP"][6]).read_bytes()[:700])
    for _ in range(2):  # the second time from what was finished
        lost = write_store(views, SOURCE, tmp_path / "s", jobs=2)
        assert lost["id"].tolist() == ["P1/A02/1", "P/2 .x/A02/1"]
        assert "does not exist" in lost["reason"][0]
        assert "truncated" in lost["reason"][1]
    store = open_store(tmp_path / "s")
    kept = [i for i in range(10) if i not in (1, 6)]
    np.testing.assert_array_equal(store.read(range(8)), _expected(views.take(kept)))
    assert store.views.names().tolist() == views.take(kept).names().tolist()
    with pytest.raises(FileError, match="does not exist"):
        write_store(views, ImageSource(missing="fail"), tmp_path / "t")
    with pytest.raises(FileError, match="None of 1 views can be read"):
        write_store(views.take([1]), SOURCE, tmp_path / "u")


def test_damage_in_a_store_is_found_and_never_read_as_black(tmp_path):
    views = _screen(tmp_path / "tif", plates=("P1",))
    write_store(views, SOURCE, tmp_path / "s")
    store = open_store(tmp_path / "s")
    chunk = {i: tmp_path / "s" / "plates.zarr" / "P1" / f"c.{i}.0.0.0" for i in range(5)}
    chunk[0].unlink()
    chunk[1].write_bytes(chunk[1].read_bytes()[:50])
    chunk[2].write_bytes(chunk[3].read_bytes())  # of another view
    chunk[4].write_bytes(b"")
    for row in (0, 1, 4):
        with pytest.raises(FileError, match=rf"View {row} of the store .*P1' .*Write the store again"):
            store.read([row])
    bad = store.check()
    assert bad["id"].tolist() == ["P1/A01/1", "P1/A02/1", "P1/A03/1", "P1/A05/1"]
    assert "not those that were written" in bad["reason"][2]


def test_views_of_a_plate_have_one_size(tmp_path):
    views = _screen(tmp_path / "tif")
    for file in views.files.iloc[3]:
        tifffile.imwrite(file, np.ones((20, 31), np.uint16))
    with pytest.raises(ShapeError, match=r"'P1/A01/1' is 3 x 24 x 31, 'P1/A04/1' is 3 x 20 x 31"):
        write_store(views, SOURCE, tmp_path / "s")
    with pytest.raises(FileError, match="was not finished"):
        open_store(tmp_path / "s")


def test_plates_may_have_different_sizes_but_not_a_batch(tmp_path):
    small, wide = _screen(tmp_path / "a", ("P1",)), _screen(tmp_path / "b", ("P2",), shape=(24, 40))
    views = Views(pd.concat([small.rows, wide.rows]), pd.concat([small.files, wide.files]))
    write_store(views, SOURCE, tmp_path / "s")
    store = open_store(tmp_path / "s")
    assert store.read([8]).shape == (1, 3, 24, 40)
    assert store.check().empty
    with pytest.raises(ShapeError, match="P1: 3 x 24 x 31"):
        store.read([0, 9])


def test_8_bit_images_stay_as_they_are_and_black_ones_are_kept(tmp_path):
    views = _screen(tmp_path / "tif", ("P1",), dtype=np.uint8)
    tifffile.imwrite(views.files["DNA"][0], np.zeros((24, 31), np.uint8))
    write_store(views, SOURCE, tmp_path / "s")
    expected = np.stack([read_view(f) for f in views.files.to_numpy().tolist()])
    store = open_store(tmp_path / "s")
    np.testing.assert_array_equal(store.read(range(5)), expected)
    assert store.check().empty


def test_what_is_no_store_is_said(tmp_path):
    with pytest.raises(FileError, match="is no store of views"):
        open_store(tmp_path)
    (tmp_path / "file").write_text("x")
    views = _screen(tmp_path / "tif", ("P1",), n=1)
    with pytest.raises(FileError, match="Cannot write"):
        write_store(views, SOURCE, tmp_path / "file" / "s")


def test_plates_of_any_name_have_their_own_place():
    names = ["P1", "p/1", "p%2F1", "..", ".", "zarr.json", "a b", "Ä"]
    keys = [module._key(n) for n in names]
    assert len(set(keys)) == len(names)
    assert not {"..", ".", "zarr.json"} & set(keys)
    assert all("/" not in k and not k.startswith(".") for k in keys)
