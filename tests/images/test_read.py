from __future__ import annotations

import imagecodecs
import numpy as np
import pytest
import tifffile
import zarr

from phenohit.errors import ConfigError, FileError, ShapeError
from phenohit.images.read import full_scale, read_image, read_view, split_address


def _image(bits: int = 16, seed: int = 0, shape=(37, 53)) -> np.ndarray:
    top = 2**bits
    return np.random.default_rng(seed).integers(1, top, shape).astype(np.uint8 if bits == 8 else np.uint16)


@pytest.mark.parametrize("packed", [None, "lzw", "packbits", "deflate", "adobe_deflate"])
@pytest.mark.parametrize("bits", [8, 12, 16])
@pytest.mark.parametrize("order", ["<", ">"])
def test_tiffs_come_back_as_they_were(tmp_path, packed, bits, order):
    image = _image(bits)
    path = tmp_path / "a.tif"
    if packed == "packbits":  # no writer for it here: one strip by hand
        encoded = imagecodecs.packbits_encode(image.astype(image.dtype.newbyteorder(order)))
        tifffile.imwrite(
            path, iter([encoded]), shape=image.shape, dtype=image.dtype, compression=32773, rowsperstrip=37,
            byteorder=order,
        )  # fmt: skip
    else:
        tifffile.imwrite(path, image, compression=packed, rowsperstrip=5, byteorder=order)
    found = read_image(str(path))
    assert found.dtype == image.dtype
    assert found.dtype.isnative
    np.testing.assert_array_equal(found, image)


def test_png_and_jpeg_are_read(tmp_path):
    image = _image(8)
    (tmp_path / "a.png").write_bytes(imagecodecs.png_encode(image))
    (tmp_path / "b.png").write_bytes(imagecodecs.png_encode(_image(16)))
    (tmp_path / "c.JPG").write_bytes(imagecodecs.jpeg_encode(image, level=95))
    np.testing.assert_array_equal(read_image(str(tmp_path / "a.png")), image)
    np.testing.assert_array_equal(read_image(str(tmp_path / "b.png")), _image(16))
    assert read_image(str(tmp_path / "c.JPG")).shape == image.shape


def test_channels_inside_files_are_found_by_number(tmp_path):
    view = np.stack([_image(16, seed) for seed in range(4)])
    tifffile.imwrite(tmp_path / "a.ome.tif", view, metadata={"axes": "CYX"}, photometric="minisblack")
    np.savez_compressed(tmp_path / "a.npz", sample=np.moveaxis(view, 0, -1))
    files = {"tif": f"{tmp_path}/a.ome.tif", "npz": f"{tmp_path}/a.npz"}
    for version in (2, 3):
        array = zarr.create_array(f"{tmp_path}/z{version}", shape=(2, 2, 37, 53), dtype="uint16", zarr_format=version)
        array[:] = view.reshape(2, 2, 37, 53)
        files[f"zarr{version}"] = f"{tmp_path}/z{version}"
    for file in files.values():
        found = read_view([f"{file}#3", f"{file}#0", f"{file}#1"])
        np.testing.assert_array_equal(found, view[[3, 0, 1]])
        with pytest.raises(FileError, match="no #4"):
            read_image(f"{file}#4")
    with pytest.raises(FileError, match=r"holds 4 images.*#"):
        read_image(files["tif"])
    with pytest.raises(FileError, match="no number of a channel"):
        read_image(files["npz"])
    assert split_address("x/Greiner_#655090_C02.tif") == ("x/Greiner_#655090_C02.tif", None)
    assert split_address("x/Greiner_#655090/a.tif#2") == ("x/Greiner_#655090/a.tif", 2)


@pytest.mark.parametrize("packed", [None, "lzw", "deflate"])
@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.9, 0.99])
def test_a_truncated_file_is_named_and_never_black(tmp_path, packed, share):
    path = tmp_path / "plate_A01.tif"
    tifffile.imwrite(path, _image(shape=(200, 210)), compression=packed, rowsperstrip=8)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(FileError, match=r"plate_A01\.tif"):
        read_image(str(path))


def test_damaged_files_of_every_kind_are_named(tmp_path):
    np.savez_compressed(tmp_path / "a.npz", sample=_image(8, shape=(40, 40, 5)))
    (tmp_path / "a.png").write_bytes(imagecodecs.png_encode(_image(8)))
    for name in ("a.npz", "a.png"):
        path = tmp_path / name
        path.write_bytes(path.read_bytes()[:-60])
        with pytest.raises(FileError, match=name):
            read_image(f"{path}#0")
    np.savez(tmp_path / "o.npz", sample=np.array([{}], dtype=object))  # holds a pickle, which is not loaded
    with pytest.raises(FileError, match=r"o\.npz"):
        read_image(str(tmp_path / "o.npz#0"))
    with pytest.raises(FileError, match=r"none\.tif' does not exist"):
        read_image(str(tmp_path / "none.tif"))
    (tmp_path / "folder.tif").mkdir()
    with pytest.raises(FileError, match="is a folder"):
        read_image(str(tmp_path / "folder.tif"))
    with pytest.raises(FileError, match=r"\.czi' is no image that is read"):
        read_image(str(tmp_path / "a.czi"))


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_truncated_png_and_jpeg_are_named_and_never_grey(tmp_path, share):
    image = _image(8, shape=(90, 90))
    for name, data in (("a.png", imagecodecs.png_encode(image)), ("b.jpg", imagecodecs.jpeg_encode(image))):
        (tmp_path / name).write_bytes(data[: int(len(data) * share)])
        with pytest.raises(FileError, match=name):
            read_image(str(tmp_path / name))


def test_files_with_wrong_bytes_give_an_image_or_an_error_that_names_them(tmp_path):
    rng, image = np.random.default_rng(0), _image(12)
    for packed in (None, "lzw", "deflate"):
        tifffile.imwrite(tmp_path / f"{packed}.tif", image, compression=packed, rowsperstrip=8)
    np.savez_compressed(tmp_path / "a.npz", sample=np.stack([image] * 2, axis=-1))
    (tmp_path / "a.png").write_bytes(imagecodecs.png_encode(image))
    whole, errors = {path: path.read_bytes() for path in sorted(tmp_path.iterdir())}, []
    for path, data in list(whole.items()) * 60:
        damaged = np.frombuffer(data, np.uint8).copy()
        damaged[rng.integers(0, min(len(data), 400), 3)] = rng.integers(0, 256, 3)
        path.write_bytes(damaged.tobytes())
        try:
            assert read_image(f"{path}#0").dtype in (np.uint8, np.uint16)
        except FileError as error:
            errors.append(path.name in str(error))
    assert all(errors)
    assert len(errors) > 100


def test_a_chunk_that_a_zarr_lacks_is_an_error(tmp_path):
    array = zarr.create_array(str(tmp_path / "z"), shape=(2, 8, 8), chunks=(1, 8, 8), dtype="uint8")
    array[0] = 7
    assert (read_image(f"{tmp_path}/z#0") == 7).all()
    with pytest.raises(FileError, match=r"z#1' is 0 everywhere"):
        read_image(f"{tmp_path}/z#1")
    with pytest.raises(FileError, match=r"no zarr\.json"):
        read_image(f"{tmp_path}/nothing#1")


def test_what_is_no_greyscale_image_of_8_or_16_bits_is_refused(tmp_path):
    def said(image, **options) -> str:
        tifffile.imwrite(tmp_path / "odd.tif", image, **options)
        with pytest.raises(FileError) as error:
            read_image(str(tmp_path / "odd.tif"))
        assert "odd.tif" in str(error.value)
        return str(error.value)

    assert "in colour" in said(np.ones((8, 8, 3), np.uint8), photometric="rgb")
    assert "scale these to 0..65535" in said(np.ones((8, 8), np.float32))
    assert "int16" in said(np.ones((8, 8), np.int16))
    assert "uint32" in said(np.ones((8, 8), np.uint32))
    assert "holds 3 images" in said(np.ones((3, 8, 8), np.uint16), photometric="minisblack")
    assert "negative" in said(np.ones((8, 8), np.uint16), photometric="miniswhite")


def test_bits_are_checked_and_give_the_full_scale(tmp_path):
    image = _image(12)
    image[3, 4] = 4095
    tifffile.imwrite(tmp_path / "a.tif", image)
    view = read_view([str(tmp_path / "a.tif")] * 2, bits=12)
    assert full_scale(view, 12) == 4095
    assert full_scale(view) == 65535
    assert full_scale(view.astype(np.uint8)) == 255
    with pytest.raises(FileError, match=r"a\.tif' has a pixel of 4095, but 11 bits .* reach 2047"):
        read_view([str(tmp_path / "a.tif")], bits=11)
    with pytest.raises(ConfigError, match=r"images\.bits is 12, but the images have 8"):
        full_scale(view.astype(np.uint8), 12)


def test_channels_of_a_view_have_one_size_and_one_type(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", _image())
    tifffile.imwrite(tmp_path / "b.tif", _image(shape=(37, 54)))
    tifffile.imwrite(tmp_path / "c.tif", _image(8))
    with pytest.raises(ShapeError, match=r"b\.tif: 37 x 54"):
        read_view([str(tmp_path / n) for n in ("a.tif", "b.tif")])
    with pytest.raises(FileError, match=r"c\.tif: uint8"):
        read_view([str(tmp_path / n) for n in ("a.tif", "c.tif")])
    with pytest.raises(FileError, match="has no file"):
        read_view([str(tmp_path / "a.tif"), ""])


def test_real_fields_are_read(shared_data):
    folder = shared_data / "raw-images"
    found = {}
    for name in ("cdrp_cloome_example", "jump_r01c02f01", "examplehuman"):
        files = sorted(str(p) for p in (folder / name).glob("*.tif*"))
        view = read_view(files)
        found[name] = (view.shape, str(view.dtype), [int(v) for v in view.max(axis=(1, 2))])
        for file, image in zip(files, view, strict=True):
            np.testing.assert_array_equal(image, tifffile.imread(file))
    assert found["cdrp_cloome_example"] == ((5, 520, 696), "uint16", [2823, 4095, 2740, 2881, 4095])
    assert found["jump_r01c02f01"][:2] == ((6, 1080, 1080), "uint16")
    assert found["examplehuman"] == ((3, 512, 512), "uint8", [255, 245, 255])
    outlines = next((folder / "cytodataframe").glob("pediatric*/images/outlines/*.tiff"))
    with pytest.raises(FileError, match="in colour"):
        read_image(str(outlines))
