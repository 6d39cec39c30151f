from __future__ import annotations

import gzip
import http.server
import os
import threading
import time

import numpy as np
import pandas as pd
import pytest

from phenohit.data.read import read_profiles
from phenohit.data.remote import Place, cache_folder, safe_name
from phenohit.errors import ConfigError, FileError
from phenohit.sources import Join, ProfileSource

PLATES = ["BR1", "1053597806"]
WELLS = ["A01", "A02"]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PHENOHIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def store():
    """An object store that speaks S3 over HTTP on this computer only; the bucket is public."""
    server = pytest.importorskip("moto.server").ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


class Bucket:
    def __init__(self, address: str) -> None:
        import boto3

        self.storage = {"endpoint_url": address}
        self.client = boto3.client(
            "s3",
            endpoint_url=address,
            aws_access_key_id="owner",
            aws_secret_access_key="secret",  # of the store on this computer
            region_name="us-east-1",
        )
        self.name = f"bucket-{time.monotonic_ns()}"
        self.client.create_bucket(Bucket=self.name, ACL="public-read")

    def put(self, key: str, content: bytes) -> None:
        self.client.put_object(Bucket=self.name, Key=key, Body=content, ACL="public-read")

    def place(self, path: str = "") -> Place:
        return Place(f"s3://{self.name}/{path}", self.storage)


@pytest.fixture
def bucket(store, monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    found = Bucket(store)
    yield found
    found.client.close()


def plate_table(plate: str) -> pd.DataFrame:
    values = np.arange(4, dtype=np.float32).reshape(2, 2) + len(plate)
    table = pd.DataFrame(values, columns=["Cells_Texture_A", "Nuclei_Texture_B"])
    table.insert(0, "Metadata_Well", WELLS)
    return table


def test_a_place_in_a_store_is_a_place_on_a_disk(bucket, tmp_path):
    names = ["a/b/x.csv", "a/b/y.parquet", "a/c/deep/z.csv", "a/top.txt"]
    for name in names:
        bucket.put(f"root/{name}", name.encode())
        (tmp_path / "root" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "root" / name).write_text(name)
    far, near = bucket.place("root"), Place(tmp_path / "root")
    for place in (far, near):
        assert place.exists()
        assert place.is_dir()
        assert not place.join("a/top.txt").is_dir()
        assert place.join("a", "top.txt").exists()
        assert not place.join("a", "nothing").exists()
        assert place.join("a").folders() == ["b", "c"]
        assert place.name == "root"
        assert place.join("a").parent().path == place.path
        assert place.local("a/b/x.csv").read_text() == "a/b/x.csv"
    for pattern in ("*", "a/*", "a/*/*.csv", "**/*.csv", "a/**/z.csv", "a/b/[xy].*", "nothing*"):
        assert far.glob(pattern) == near.glob(pattern), pattern


def test_a_file_is_fetched_once_and_again_when_it_has_changed(bucket, cache):
    bucket.put("t.csv", b"first")
    path = bucket.place("t.csv").local()
    assert path.is_relative_to(cache)
    assert path.name == "t.csv"
    os.utime(path, (1, 1))
    assert bucket.place("t.csv").local() == path
    assert path.stat().st_mtime == 1  # not written again
    before = bucket.place().identity(["t.csv"])
    assert before == bucket.place().identity(["t.csv"])
    bucket.put("t.csv", b"other")  # of the same size
    assert bucket.place().identity(["t.csv"]) != before
    again = bucket.place("t.csv").local()
    assert again.read_bytes() == b"other"
    assert not path.exists()  # one version is kept
    again.write_bytes(b"x")  # damaged in the cache
    assert bucket.place("t.csv").local().read_bytes() == b"other"


def test_a_broken_transfer_leaves_nothing(bucket, cache, monkeypatch):
    from phenohit.data import remote

    content = os.urandom(20_000_000)
    bucket.put("big.bin", content)

    def cut(handle):
        yield handle.read(1000)
        raise ConnectionResetError("the cable")

    monkeypatch.setattr(remote, "_blocks", cut)
    with pytest.raises(FileError, match=r"big.bin' cannot be fetched \(the cable\)"):
        bucket.place("big.bin").local()
    monkeypatch.setattr(remote, "_blocks", lambda handle: [handle.read(1000)])
    with pytest.raises(FileError, match=r"20,000,000 bytes in the store, but 1,000 arrived"):
        bucket.place("big.bin").local()
    assert [p for p in cache.rglob("*") if p.is_file()] == []
    monkeypatch.undo()
    monkeypatch.setenv("PHENOHIT_CACHE", str(cache))
    assert bucket.place("big.bin").local().read_bytes() == content


def test_what_the_store_refuses(bucket):
    for place in (bucket.place("absent.csv"), Place("s3://no-such-bucket/x.csv", bucket.storage)):
        with pytest.raises(FileError, match=r"x?absent.csv|no-such-bucket/x.csv' is not there: the store has no such"):
            place.local()
    bucket.put("folder/x", b"1")
    with pytest.raises(FileError, match="is a folder in the store"):
        bucket.place("folder").local()
    with pytest.raises(FileError, match="does not exist"):
        read_profiles(ProfileSource(path=f"s3://{bucket.name}/nothing", storage=bucket.storage))


class _Refuse(http.server.BaseHTTPRequestHandler):
    signed: list[str | None] = []  # noqa: RUF012

    def do_GET(self) -> None:
        self.signed.append(self.headers.get("Authorization"))
        body = b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"
        self.send_response(403)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(b"" if self.command == "HEAD" else body)

    do_HEAD = do_GET

    def log_message(self, *_: object) -> None:
        pass


def test_what_needs_credentials(monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "of-this-computer")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not-to-be-used")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Refuse)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        place = Place("s3://private/x.csv", {"endpoint_url": f"http://127.0.0.1:{server.server_port}"})
        with pytest.raises(FileError, match=r"s3://private/x.csv' may not be read .*anonymously.*anon: false"):
            place.local()
        assert set(_Refuse.signed) == {None}  # anonymous unless stated, whatever this computer knows
        with pytest.raises(FileError, match="may not be read"):
            Place("s3://private/x.csv", {**place.storage, "anon": False}).local()
        assert "of-this-computer" in str(_Refuse.signed[-1])
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.mark.slow
def test_no_connection():
    with pytest.raises(FileError, match=r"s3://b/x.csv' cannot be fetched .*Check the connection"):
        Place("s3://b/x.csv", {"endpoint_url": "http://127.0.0.1:9"}).local()
    with pytest.raises(FileError, match=r"x.csv' cannot be fetched .*Check the connection"):
        Place("http://127.0.0.1:9/x.csv").local()


def test_addresses_that_are_not_read(monkeypatch):
    for address in ("ftp://x/y", "github://a:b@c/", "reference://x", "simplecache::s3://x/y", "filecache::file://x"):
        with pytest.raises(ConfigError, match=r"are not read\. Expected one of 's3'"):
            Place(address)
    monkeypatch.setitem(__import__("sys").modules, "gcsfs", None)
    with pytest.raises(ConfigError, match=r"gs:// addresses need gcsfs.*pip install gcsfs"):
        Place("gs://x/y")
    import fsspec

    def absent(*_: object, **__: object) -> None:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec, "filesystem", absent)
    with pytest.raises(ConfigError, match=r"need s3fs, which is not installed: pip install 'phenohit\[cloud\]'"):
        Place("s3://x/y")


def test_a_local_path_needs_no_network_library(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "fsspec", None)
    (tmp_path / "x.csv").write_text("1")
    place = Place(tmp_path)
    assert place.glob("*.csv") == ["x.csv"]
    assert place.local("x.csv") == tmp_path / "x.csv"
    assert Place(f"file://{tmp_path}").path == str(tmp_path)


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/etc/passwd", "~/x", "a\\..\\x", "s3://b/x", "C:/x", "a\0b"])
def test_names_that_lead_out(tmp_path, name):
    with pytest.raises(FileError, match="leads out of its folder"):
        Place(tmp_path).join(name)
    with pytest.raises(FileError, match=r"from 'map\.csv'"):
        safe_name(name, "map.csv")


def test_names_that_do_not():
    assert safe_name("a/./b//c.txt") == "a/b/c.txt"
    assert safe_name("..a/b..c") == "..a/b..c"


def test_identity_of_local_files(tmp_path, monkeypatch):
    from phenohit.data import remote

    (tmp_path / "x").write_text("one")
    first = Place(tmp_path).identity(["x"])
    os.utime(tmp_path / "x", (5, 5))
    assert Place(tmp_path).identity(["x"]) == first  # by content
    monkeypatch.setattr(remote, "_HASHED", 2)
    large = Place(tmp_path).identity(["x"])
    assert large != first
    os.utime(tmp_path / "x", (6, 6))
    assert Place(tmp_path).identity(["x"]) != large  # by size and time
    with pytest.raises(FileError, match="does not exist"):
        Place(tmp_path).identity(["y"])


def test_secrets_are_not_shown():
    assert "hunter2" not in repr(Place("s3://b/x", {"key": "k", "secret": "hunter2"}))


def test_the_cache_folder(monkeypatch, tmp_path):
    assert cache_folder() == tmp_path / "cache"
    monkeypatch.delenv("PHENOHIT_CACHE")
    assert cache_folder().parts[-2:] == (".cache", "phenohit")


# --- readers ----------------------------------------------------------------------------------------


def test_a_table_and_its_joins_from_a_store(bucket, tmp_path):
    table = pd.concat([plate_table(p).assign(Metadata_Plate=p, sample=["x", "y"]) for p in PLATES])
    table.to_parquet(tmp_path / "t.parquet", index=False)
    bucket.put("t.parquet", (tmp_path / "t.parquet").read_bytes())
    bucket.put("compounds.csv", b"sample,smiles\nx,CCO\ny,CCN\n")
    source = ProfileSource(
        path=f"s3://{bucket.name}/t.parquet",
        joins=[Join(f"s3://{bucket.name}/compounds.csv", "sample")],
        plates=["1053597806"],
        storage=bucket.storage,
    )
    profiles, _ = read_profiles(source)
    assert profiles.rows["Metadata_SMILES"].tolist() == ["CCO", "CCN"]
    assert profiles.X.shape == (2, 2)


def test_a_gallery_in_a_store(bucket):
    root = "cpg0000-test/broad/workspace"
    for plate in PLATES:
        csv = plate_table(plate).to_csv(index=False).encode()
        bucket.put(f"{root}/profiles/b1/{plate}/{plate}_normalized.csv.gz", gzip.compress(csv))
    maps = f"{root}/metadata/platemaps/b1"
    bucket.put(f"{maps}/barcode_platemap.csv", b"Assay_Plate_Barcode,Plate_Map_Name\nBR1,M\n1053597806,M\n")
    bucket.put(f"{maps}/platemap/M.txt", b"well_position\tbroad_sample\nA01\tone\nA02\ttwo\n")
    bucket.put("cpg0000-test/broad/images/b1/huge.tif", b"never fetched")
    source = ProfileSource(path=f"s3://{bucket.name}/cpg0000-test/broad", storage=bucket.storage)
    profiles, lost = read_profiles(source)
    assert lost.empty
    assert profiles.rows["Metadata_Plate"].tolist() == ["1053597806"] * 2 + ["BR1"] * 2
    assert profiles.rows["Metadata_broad_sample"].tolist() == ["one", "two"] * 2
    np.testing.assert_array_equal(profiles.X[2:], plate_table("BR1").iloc[:, 1:].to_numpy())
    assert profiles.history == ("normalized[upstream]",)
    bucket.put(f"{root}/profiles/b1/BR1/BR1_normalized.csv.gz", gzip.compress(b"Metadata_Well,Cells_A\n")[:-9])
    with pytest.raises(FileError, match=rf"Plate 'BR1' of batch 'b1' \('s3://{bucket.name}/.*BR1_normalized.csv.gz'\)"):
        read_profiles(source)
    bucket.put(f"{maps}/barcode_platemap.csv", b"Assay_Plate_Barcode,Plate_Map_Name\nBR1,../../../../etc/passwd\n")
    source.plates = ["10*"]
    assert "Metadata_broad_sample" not in read_profiles(source)[0].rows
    source.plates, source.batches = ["BR1"], ["b1"]
    bucket.put(f"{root}/profiles/b1/BR1/BR1_normalized.csv.gz", gzip.compress(plate_table("BR1").to_csv().encode()))
    with pytest.raises(FileError, match="leads out of its folder"):
        read_profiles(source)
