from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile
import zarr

from phenohit.errors import ConfigError, FileError, PlateError
from phenohit.images.layouts import LAYOUTS, find_views
from phenohit.images.read import read_view
from phenohit.imaging import ImageSource

IMAGE = np.arange(1, 31, dtype=np.uint16).reshape(5, 6)
GUIDS = (
    "BEDC2073-A983-4B98-95E9-84466707A25D",
    "3CD51CBC-2370-471F-BA01-EE250B14B3C8",
    "00000000-1111-2222-3333-444444444444",
)


def _touch(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


def _find(path, **settings):
    return find_views(ImageSource(path=str(path), **settings))


def _names(views) -> list[str]:
    return views.names().tolist()


def test_imagexpress_with_guids_thumbnails_steps_and_times(tmp_path):
    plate = "HCC15691/2015-07-31/4014"
    names = [
        f"{plate}/TimePoint_1/ZStep_{z}/val screen_{w}_s{s}_w{c}{GUIDS[(s + c) % 3]}.tif"
        for w in ("B02", "P24") for s in (1, 2) for c in (1, 2, 4) for z in (1, 2)
    ]  # fmt: skip
    thumbs = [n.replace("_w1", "_w1_thumb") for n in names if "_w1" in n]
    _touch(
        tmp_path, *names, *thumbs, f"{plate}/TimePoint_2/val screen_B02_s1_w1{GUIDS[0]}.tif", f"{plate}/odd name.tif"
    )
    views, lost = _find(tmp_path, channels={"DNA": "w4", "ER": "2", "AGP": "1"})
    assert _names(views) == [f"HCC15691/{w}/{s}" for w in ("B02", "P24") for s in (1, 2)]
    assert views.channels == ["DNA", "ER", "AGP"]
    assert views.files["DNA"][0] == f"{tmp_path}/{plate}/TimePoint_1/ZStep_1/val screen_B02_s1_w4{GUIDS[2]}.tif"
    reasons = lost.groupby("reason")["id"].count()
    assert reasons["a thumbnail"] == 8
    assert reasons.filter(like="first plane").sum() == 12
    assert reasons.filter(like="first time").sum() == 1
    assert lost[lost["reason"].str.contains("none of layout")]["id"].tolist() == [f"{plate}/odd name.tif"]


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("A1166127/Images/HTS_A01_s1_w4194CE2FF-40C4-45F0-B9D7-AE81D0047EEA.tif", ("A1166127/A01/1", "w4")),
        ("plate7/AF48_s12_w2.TIF", ("plate7/AF48/12", "w2")),
        ("p1/proto_t0_C05_s0_w0_z0.tif", ("p1/C05/0", "w0")),
        ("20585/IXMtest_A01_s3_w10000AAAA-1111-2222-3333-444444444444.tif", ("20585/A01/3", "w1")),
        ("BR35__2021-05-02T16_02_51-Measurement1/Images/r01c02f09p01-ch10sk1fk1fl1.tiff", ("BR35/A02/9", "ch10")),
        ("m/Images/r27c48f003p01-ch1t01.tiff", ("m/AA48/3", "ch1")),
        ("m/Images/r02c03f01p01rc1-ch4sk1fk1fl1.tiff", ("m/B03/1", "ch4")),
        ("Dest210809-141456/Dest210809-141456_K06_T0001F001L01A03Z01C04.tif", ("Dest210809-141456/K06/1", "C04")),
        ("q/AssayPlate_Greiner_#655090_C02_T0001F012L01A01Z01C01.png", ("q/C02/12", "C01")),
    ],
)  # fmt: skip
def test_names_met_in_the_field(tmp_path, name, key):
    _touch(tmp_path, name)
    views, lost = _find(tmp_path)
    assert (_names(views)[0], views.channels[0]) == key
    assert views.files.iloc[0, 0] == f"{tmp_path}/{name}"
    assert lost.empty
    inside = (tmp_path / name).parent  # the folder of the images themselves
    assert _names(_find(inside)[0]) == [key[0]]


def test_phenix_takes_dyes_from_its_index_and_the_first_plane(tmp_path):
    names = [f"P1/Images/r01c0{c}f01p0{p}-ch{n}sk1fk1fl1.tiff" for c in (1, 2) for p in (2, 3) for n in (1, 2)]
    _touch(tmp_path, *names)
    index = tmp_path / "P1" / "Images" / "Index.idx.xml"
    image = "<Image><ChannelID>{}</ChannelID><FlimID>1</FlimID><ChannelName>{}</ChannelName></Image>"
    index.write_text("<Images>" + image.format(1, "HOECHST 33342") + image.format(2, "Alexa 568") + "</Images>")
    views, lost = _find(tmp_path)
    assert views.channels == ["HOECHST 33342", "Alexa 568"]
    assert views.files.iloc[1, 0] == f"{tmp_path}/P1/Images/r01c02f01p02-ch1sk1fk1fl1.tiff"
    assert len(lost) == 4
    for spelling in ("Alexa 568", "alexa 568", "ch2", "2", "CH02"):
        assert _find(tmp_path, channels={"AGP": spelling})[0].files["AGP"][0].endswith("p02-ch2sk1fk1fl1.tiff")
    entry = '<Entry ChannelID="{}"><ChannelName>{}</ChannelName></Entry>'  # version 5 and later
    index.write_text("<Maps><Map>" + entry.format(1, "DAPI") + entry.format(2, "Cy5") + "</Map></Maps>")
    assert _find(tmp_path)[0].channels == ["DAPI", "Cy5"]


def test_channels_that_are_not_there_are_named_with_those_that_are(tmp_path):
    _touch(tmp_path, *[f"P1/A01_s1_w{c}.tif" for c in (1, 2, 10)])
    with pytest.raises(ConfigError, match=r"ER: 'w7' is not in the images. There are: w1, w2, w10\."):
        _find(tmp_path, channels={"DNA": "w1", "ER": "w7"})
    with pytest.raises(ConfigError, match="DNA and ER are the same channel 'w1'"):
        _find(tmp_path, channels={"DNA": "w1", "ER": "1"})
    views, lost = _find(tmp_path, channels={"DNA": "w10"})
    assert views.channels == ["DNA"]
    assert lost[["what", "id"]].to_numpy().tolist() == [["channel", "w1"], ["channel", "w2"]]


def test_missing_channels_are_listed_or_refused(tmp_path):
    _touch(tmp_path, "P1/A01_s1_w1.tif", "P1/A01_s1_w2.tif", "P1/A02_s1_w1.tif")
    views, lost = _find(tmp_path)
    assert _names(views) == ["P1/A01/1"]
    assert lost[["what", "id", "reason"]].to_numpy().tolist() == [["view", "P1/A02/1", "no image of channel w2"]]
    with pytest.raises(FileError, match=r"1 of 2 views lack channels: 'P1/A02/1 \(no image of channel w2\)'.*skip"):
        _find(tmp_path, missing="fail")


def test_two_files_of_one_channel_are_named(tmp_path):
    _touch(tmp_path, "P1__day1/Images/r01c01f01p01-ch1sk1fk1fl1.tiff", "P1__day2/Images/r01c01f01p01-ch1sk1fk1fl1.tiff")
    with pytest.raises(PlateError, match=r"P1/A01/1/ch1: .*day1.* and .*day2"):
        _find(tmp_path)


def test_plates_are_chosen_and_named(tmp_path):
    _touch(tmp_path, "P1/A01_s1_w1.tif", "P2/A01_s1_w1.tif", "Q1/A01_s1_w1.tif")
    views, lost = _find(tmp_path, plates=["P*"])
    assert views.plates == ["P1", "P2"]
    assert lost["id"].tolist() == ["Q1"]
    with pytest.raises(PlateError, match=r"images\.plates has 'R\*'"):
        _find(tmp_path, plates=["R*"])
    with pytest.raises(ConfigError, match=r"folders of 3 plates"):
        _find(tmp_path, plate="mine")
    assert _find(tmp_path / "P1", plate="mine")[0].plates == ["mine"]


def test_views_are_sorted_as_people_count(tmp_path):
    wells = ["B01", "A10", "A02", "AA01", "Z01"]
    _touch(tmp_path, *[f"P/{w}_s{s}_w1.tif" for w in wells for s in (10, 9, 1)])
    expected = [f"P/{w}/{s}" for w in ("A02", "A10", "B01", "Z01", "AA01") for s in (1, 9, 10)]
    assert _names(_find(tmp_path)[0]) == expected


def test_patterns_name_their_fields(tmp_path):
    _touch(tmp_path, "run 1/BR1/r2-c13/f01.DNA.tif", "run 1/BR1/r2-c13/f01.ER.tif", "run 1/notes.txt", "x.tif")
    views, lost = _find(tmp_path, pattern="*/{plate}/r{row}-c{col}/f{site}.{channel}.tif")
    assert _names(views) == ["BR1/B13/1"]
    assert views.channels == ["DNA", "ER"]
    assert lost["id"].tolist() == ["x.tif"]
    stated = "**/f{site}.{channel}.tif"
    with pytest.raises(ConfigError, match=r"tells no well.*\{well=A01\}"):
        _find(tmp_path, pattern=stated)
    assert _names(_find(tmp_path, pattern="{plate=X}{well=af48}" + stated)[0]) == ["X/AF48/1"]
    with pytest.raises(ConfigError, match=r"\{dye\}, which is no field"):
        _find(tmp_path, pattern="{well}_{dye}.tif")
    with pytest.raises(FileError, match=r"fits images\.pattern.*example: 'run 1/"):
        _find(tmp_path, pattern="{well}_{channel}.tif")
    with pytest.raises(ConfigError, match=r"images\.pattern is empty"):
        _find(tmp_path, layout="pattern")
    _touch(tmp_path / "b", "r99-c01/f1.DNA.tif")
    with pytest.raises(PlateError, match=r"99.*images\.pattern"):
        _find(tmp_path / "b", pattern="r{row}-c{col}/f{site}.{channel}.tif")


def _load_data(folder: Path, illum: bool) -> pd.DataFrame:
    rows = []
    for well in ("A1", "B02"):
        for site in (1, 2):
            row = {"Metadata_Plate": "0017", "Metadata_Well": well, "Metadata_Site": site, "Metadata_AbsTime": "t"}
            for channel in ("DNA", "ER"):
                name = f"{well}_{site}_{channel}.tif"
                row |= {f"FileName_Orig{channel}": name, f"PathName_Orig{channel}": "/elsewhere/raw"}
                if illum:
                    row[f"FileName_Illum{channel}"] = f"0017_Illum{channel}.npy"
                    row[f"PathName_Illum{channel}"] = str(folder / "illum")
                _touch(folder, f"raw/{name}")
            rows.append(row)
    return pd.DataFrame(rows)


def test_load_data_tables_find_images_that_were_moved(tmp_path):
    _load_data(tmp_path, False).to_csv(tmp_path / "load_data.csv", index=False)
    views, lost = _find(tmp_path)
    assert _names(views) == ["0017/A01/1", "0017/A01/2", "0017/B02/1", "0017/B02/2"]
    assert views.files["ER"][3] == f"{tmp_path}/raw/B02_2_ER.tif"
    assert views.rows["Metadata_AbsTime"].tolist() == ["t"] * 4
    assert lost.empty
    _touch(tmp_path, "illum/0017_IllumER.npy")
    _load_data(tmp_path, True).to_csv(tmp_path / "load_data_with_illum.csv.gz", index=False)  # is preferred
    (tmp_path / "raw" / "A1_1_DNA.tif").unlink()
    views, lost = _find(tmp_path, channels={"Nuclei": "DNA", "Endo": "ER"})
    assert _names(views) == ["0017/A01/2", "0017/B02/1", "0017/B02/2"]
    assert views.rows["Metadata_Illum_Endo"].unique().tolist() == [f"{tmp_path}/illum/0017_IllumER.npy"]
    assert "Metadata_Illum_Nuclei" not in views.rows
    gone = dict(zip(lost["id"], lost["reason"], strict=True))
    assert "does not exist" in gone[f"{tmp_path}/raw/A1_1_DNA.tif"]
    assert "illumination function" in gone[f"{tmp_path}/illum/0017_IllumDNA.npy"]
    assert gone["0017/A01/1"] == "no image of channel Nuclei"
    assert _names(_find(tmp_path / "load_data.csv")[0]) == _names(views)


def test_load_data_with_addresses_and_frames_stays_as_it_is(tmp_path):
    table = pd.DataFrame({"Metadata_Plate": ["P"], "Metadata_Well": ["A01"], "Metadata_Site": [1]})
    for n, channel in enumerate(("DNA", "ER")):
        table[f"URL_Orig{channel}"] = f"s3://bucket/p r/{channel}.ome.tif"
        table[f"Frame_Orig{channel}"] = n
    table["URL_IllumDNA"] = "s3://bucket/illum/DNA.npy"
    table.to_parquet(tmp_path / "load_data.parquet")
    views, _ = _find(tmp_path / "load_data.parquet")
    assert views.files.iloc[0].tolist() == ["s3://bucket/p r/DNA.ome.tif#0", "s3://bucket/p r/ER.ome.tif#1"]
    assert views.rows["Metadata_Illum_DNA"][0] == "s3://bucket/illum/DNA.npy"


def test_bbbc021_and_its_table(tmp_path, shared_data):
    table = pd.read_csv(shared_data / "bbbc021" / "BBBC021_v1_image.csv.gz", dtype=str)
    part = table[table["Image_PathName_DAPI"] == "Week4/Week4_27481"].head(12)
    part.to_csv(tmp_path / "BBBC021_v1_image.csv", index=False)
    for dye in ("DAPI", "Tubulin", "Actin"):
        _touch(tmp_path / "Week4_27481", *part[f"Image_FileName_{dye}"])  # as the archives unpack
    views, lost = _find(tmp_path, channels={"DNA": "DAPI", "Actin": "Actin", "Tubulin": "Tubulin"})
    assert len(views) == 12
    assert lost.empty
    at = views.names().tolist().index("Week4_27481/G10/1")
    row = views.rows.iloc[at]
    assert (row["Metadata_Compound"], row["Metadata_Concentration"], row["Metadata_Replicate"])[0] == "5-fluorouracil"
    name = "G10_s1_w1BEDC2073-A983-4B98-95E9-84466707A25D.tif"
    assert views.files["DNA"][at] == f"{tmp_path}/Week4_27481/{name}"
    (tmp_path / "bare").mkdir()
    table.head(300).to_csv(tmp_path / "bare" / "BBBC021_v1_image.csv", index=False)
    with pytest.raises(FileError, match="300 of 300 views lack channels"):  # no image is there
        _find(tmp_path / "bare" / "BBBC021_v1_image.csv")


def test_npz_samples_of_hti_cnn(tmp_path):
    view = np.random.default_rng(0).integers(1, 255, (7, 8, 5)).astype(np.uint8)
    for key in ("24294-I23-2", "a-b-A01-1"):
        np.savez_compressed(tmp_path / f"{key}.npz", sample=view)
    np.savez_compressed(tmp_path / "labels.npz", sample=view)
    views, lost = _find(tmp_path, channels={"DNA": 2, "ER": "0"})
    assert _names(views) == ["24294/I23/2", "a-b/A01/1"]
    assert lost[lost["what"] == "file"]["id"].tolist() == ["labels.npz"]
    found = read_view(views.files.iloc[1].tolist())
    np.testing.assert_array_equal(found, np.stack([view[:, :, 2], view[:, :, 0]]))


def _ome(path: Path, n: int, **metadata) -> np.ndarray:
    view = np.stack([IMAGE + c for c in range(n)])
    options = {"axes": "CYX", "Channel": {"Name": [f"dye {c}" for c in range(n)]}, **metadata}
    tifffile.imwrite(path, view, metadata=options, photometric="minisblack")
    return view


def test_ome_tiff_tells_channels_and_names_tell_wells(tmp_path):
    (tmp_path / "P1").mkdir()
    view = _ome(tmp_path / "P1" / "screen_B03_f2.ome.tif", 3)
    z_stack = np.stack([np.stack([IMAGE + 10 * c + z for z in range(2)]) for c in range(3)])
    options = {"axes": "CZYX", "Channel": {"Name": [f"dye {c}" for c in range(3)]}}
    tifffile.imwrite(tmp_path / "P1" / "A01.ome.tif", z_stack, metadata=options, photometric="minisblack")
    (tmp_path / "P1" / "C01.ome.tif").write_bytes(b"II*\0")
    views, lost = _find(tmp_path, channels={"DNA": "dye 2", "ER": "dye 0"})
    assert _names(views) == ["P1/A01/1", "P1/B03/2"]
    np.testing.assert_array_equal(read_view(views.files.iloc[1].tolist()), view[[2, 0]])
    np.testing.assert_array_equal(read_view(views.files.iloc[0].tolist()), z_stack[[2, 0], 0])
    assert set(lost["id"]) == {"P1/A01.ome.tif", "P1/C01.ome.tif", "dye 1"}
    with pytest.raises(FileError, match=r"C01\.ome\.tif"):
        _find(tmp_path, missing="fail")


def test_the_plate_of_an_ome_tiff_tells_wells(tmp_path):
    path = tmp_path / "all.ome.tif"
    with tifffile.TiffWriter(path, ome=True) as out:
        for well in range(3):
            out.write(np.stack([IMAGE + well, IMAGE + 9]), metadata={"axes": "CYX"}, photometric="minisblack")
    with tifffile.TiffFile(path) as tif:
        xml = tif.ome_metadata or ""
    wells = "".join(
        f'<Well ID="Well:{i}" Row="{row}" Column="{col}"><WellSample ID="WellSample:{i}" Index="{i}">'
        f'<ImageRef ID="Image:{i}"/></WellSample></Well>'
        for i, (row, col) in enumerate([(0, 0), (1, 11), (26, 47)])
    )
    xml = xml.replace("<Image ", f'<Plate ID="Plate:0" Name="BR7">{wells}</Plate><Image ', 1)
    tifffile.tiffcomment(path, xml.encode())
    views, _ = _find(tmp_path)
    assert _names(views) == ["BR7/A01/1", "BR7/B12/1", "BR7/AA48/1"]
    np.testing.assert_array_equal(read_view(views.files.iloc[1].tolist()), np.stack([IMAGE + 1, IMAGE + 9]))


def _hcs(folder: Path, version: int) -> np.ndarray:
    """An OME-Zarr plate by the specification, version 0.4 on Zarr 2 or 0.5 on Zarr 3."""

    def about(group, **attributes):
        group.attrs.update({"ome": {"version": "0.5", **attributes}} if version == 3 else attributes)

    root = zarr.create_group(str(folder), zarr_format=version)
    wells = [{"path": p, "rowIndex": 0, "columnIndex": i} for i, p in enumerate(("A/1", "A/2"))]
    about(
        root, plate={"name": "BR9", "wells": wells, "rows": [{"name": "A"}], "columns": [{"name": "1"}, {"name": "2"}]}
    )
    data = np.arange(1, 2 * 3 * 2 * 20 + 1, dtype=np.uint16).reshape(2, 3, 2, 4, 5)  # t, c, z, y, x
    for well in wells:
        group = root.create_group(well["path"])
        about(group, well={"images": [{"path": "0", "acquisition": 1}, {"path": "1", "acquisition": 2}]})
        for field in ("0", "1"):
            image = group.create_group(field)
            axes = [{"name": a} for a in "tczyx"]
            labels = [{"label": n} for n in ("Hoechst", "ConA", "WGA")]
            about(
                image,
                multiscales=[{"axes": axes, "datasets": [{"path": "0"}, {"path": "1"}]}],
                omero={"channels": labels},
            )
            image.create_array("0", data=data, chunks=(1, 1, 1, 4, 5))
    return data


@pytest.mark.parametrize("version", [2, 3])
def test_ome_zarr_plates_of_both_versions(tmp_path, version):
    data = _hcs(tmp_path / "x.ome.zarr", version)
    for path in (tmp_path, tmp_path / "x.ome.zarr"):
        views, lost = _find(path, channels={"ER": "ConA", "DNA": "hoechst"})
        assert _names(views) == ["BR9/A01/0", "BR9/A02/0"]
        np.testing.assert_array_equal(read_view(views.files.iloc[1].tolist()), data[0, [1, 0], 0])
        assert lost[lost["what"] == "view"]["id"].tolist() == ["BR9/A/1/1", "BR9/A/2/1"]
        assert "4 planes" in lost.set_index("id").loc["BR9", "reason"]


def test_real_files_by_layout_or_pattern(shared_data):
    raw = shared_data / "raw-images"
    dyes = {"DNA": "Hoechst", "ER": "ERSyto", "RNA": "ERSytoBleed", "AGP": "Ph_golgi", "Mito": "Mito"}
    views, lost = _find(raw / "cdrp_cloome_example", pattern="{well=A01}{channel}.tif", channels=dyes, plate="CDRP")
    assert (_names(views), views.channels, len(lost)) == (["CDRP/A01/1"], list(dyes), 0)
    assert read_view(views.files.iloc[0].tolist(), bits=12).shape == (5, 520, 696)

    views, lost = _find(raw / "jump_r01c02f01", channels={"DNA": "ch4", "Other": "1"})
    assert _names(views) == ["jump_r01c02f01/A02/1"]
    assert sorted(lost["id"]) == ["ch2", "ch3", "ch5", "ch6"]
    assert read_view(views.files.iloc[0].tolist()).shape == (2, 1080, 1080)

    pattern = "{plate}/images/orig/r{row}c{col}f{site}p01-{channel}sk1fk1fl1.tiff"
    views, lost = _find(raw / "cytodataframe", pattern=pattern, channels={"DNA": "ch5", "ch2": "ch2", "ch3": "ch3"})
    assert _names(views) == ["JUMP_plate_BR00117006/A01/1", "pediatric_cancer_atlas_profiling/C03/3"]
    assert sum("outlines" in i for i in lost["id"]) == 4
    assert [read_view(f).shape for f in views.files.to_numpy().tolist()] == [(3, 1080, 1080)] * 2

    pattern = "{plate}_{well}f{site}d{channel}.tif"
    views, lost = _find(raw / "examplehuman", pattern=pattern, channels={"DNA": 0, "PH3": 1, "Actin": 2})
    assert (_names(views), len(lost)) == (["AS_09125_050116030001/D03/0"], 0)
    assert read_view(views.files.iloc[0].tolist()).max(axis=(1, 2)).tolist() == [255, 245, 255]


def test_what_is_nothing_is_said(tmp_path):
    with pytest.raises(ConfigError, match=r"images\.path is empty"):
        _find("")
    with pytest.raises(FileError, match="does not exist"):
        _find(tmp_path / "none")
    _touch(tmp_path, "holiday.tif")
    with pytest.raises(FileError, match=r"no layout that is known, such as 'holiday\.tif'\. Give images\.pattern"):
        _find(tmp_path)
    for layout in LAYOUTS:
        with pytest.raises((FileError, ConfigError)):
            _find(tmp_path, layout=layout)
    with pytest.raises(ConfigError, match=r"layout 'phoenix' is not known. Nearest: phenix"):
        _find(tmp_path, layout="phoenix")


def test_a_hundred_thousand_images_are_found_in_seconds():
    from phenohit.images.formats import Found, as_views

    wells = [f"{r}{c}" for r in "ABCDEFGHIJKLMNOP" for c in range(1, 25)]
    parts = [[f"P{i}" for i in range(6)], wells, list("123456789"), [f"w{i}" for i in range(5)]]
    images = pd.MultiIndex.from_product(parts, names=["plate", "well", "site", "channel"]).to_frame(index=False)
    images["file"] = images["plate"] + "/" + images["well"] + "/" + images["site"] + "/" + images["channel"]
    start = time.monotonic()
    views, _ = as_views(Found(images.sample(frac=1, random_state=0)), ImageSource(path="x"))
    assert time.monotonic() - start < 10
    rows = views.rows
    assert views.files.shape == (6 * 384 * 9, 5)
    well = rows["Metadata_Well"].str[0] + rows["Metadata_Well"].str[1:].astype(int).astype(str)
    assert (views.files["w3"] == rows["Metadata_Plate"] + "/" + well + "/" + rows["Metadata_Site"] + "/w3").all()


@pytest.fixture(scope="module")
def bucket():
    """A public bucket that speaks S3 over HTTP on this computer only."""
    server = pytest.importorskip("moto.server").ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    import boto3

    client = boto3.client(
        "s3", endpoint_url=f"http://{host}:{port}", region_name="us-east-1",
        aws_access_key_id="owner", aws_secret_access_key="secret",  # of the store on this computer
    )  # fmt: skip
    client.create_bucket(Bucket="screens", ACL="public-read")
    yield client, {"endpoint_url": f"http://{host}:{port}"}
    client.close()
    server.stop()


def _upload(client, folder: Path, prefix: str) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            key = f"{prefix}/{path.relative_to(folder).as_posix()}"
            client.put_object(Bucket="screens", Key=key, Body=path.read_bytes(), ACL="public-read")


def test_addresses_are_found_and_read_as_folders_are(bucket, tmp_path, monkeypatch):
    monkeypatch.setenv("PHENOHIT_CACHE", str(tmp_path / "cache"))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    client, storage = bucket
    here = tmp_path / "here"
    for c in (1, 2):
        path = here / "phenix" / "BR1__x" / "Images" / f"r01c02f03p01-ch{c}sk1fk1fl1.tiff"
        path.parent.mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(path, IMAGE + c)
    _hcs(here / "zarr" / "p.zarr", 3)
    workspace = here / "gallery" / "workspace" / "load_data_csv" / "b1" / "P1"
    workspace.mkdir(parents=True)
    row = {"Metadata_Plate": "P1", "Metadata_Well": "A01", "Metadata_Site": "1"}
    for c in (1, 2):
        row[f"URL_Origc{c}"] = f"s3://screens/all/phenix/BR1__x/Images/r01c02f03p01-ch{c}sk1fk1fl1.tiff"
    pd.DataFrame([row]).to_csv(workspace / "load_data.csv", index=False)
    _upload(client, here, "all")
    expected = {"phenix": "BR1/A02/3", "zarr": "BR9/A01/0", "gallery": "P1/A01/1"}
    for name, first in expected.items():
        far, lost = _find(f"s3://screens/all/{name}", storage=storage)
        assert _names(far)[0] == first
        if name != "gallery":
            near, lost_near = _find(here / name)
            assert _names(near) == _names(far)
            assert lost["what"].tolist() == lost_near["what"].tolist()
        view = read_view(far.files.iloc[0].tolist(), storage=storage)
        assert view.shape[1:] in ((5, 6), (4, 5))
        if name == "phenix":
            np.testing.assert_array_equal(view, np.stack([IMAGE + 1, IMAGE + 2]))
    gone = str(far.files.iloc[0, 0]).replace("ch1", "ch7")
    with pytest.raises(FileError, match=r"ch7.*is not there"):
        read_view([gone], storage=storage)
