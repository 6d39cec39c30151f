from __future__ import annotations

import hashlib
import math
import sqlite3
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from phenohit.config import ActivitySource, CurateConfig
from phenohit.errors import ConfigError, FileError, LabelError
from phenohit.labels.curate_records import RecordLabels, read_records
from phenohit.labels.database import masked, stamp
from phenohit.labels.trace import Trace

PASSWORD = "s3cret/pw@x"


def source(path, thresholds=(), **curate) -> ActivitySource:
    return ActivitySource(path=str(path), format="chembl", thresholds=list(thresholds), curate=CurateConfig(**curate))


def cells(found: RecordLabels) -> dict[tuple[str, str], float]:
    coo = found.labels.Y.tocoo()
    names, tasks = found.labels.compounds["compound"].tolist(), found.labels.task_names
    return {(names[i], tasks[j]): float(v) for i, j, v in zip(coo.row, coo.col, coo.data, strict=True)}


def by_hand(tables: dict[str, pd.DataFrame], *, decide: bool, max_spread: float | None = None, levels=(5.5, 6.5, 7.5)):
    """The rules once more, a record at a time, from the tables themselves."""
    name = tables["molecule_dictionary"].set_index("molregno")["chembl_id"]
    parent = tables["molecule_hierarchy"].set_index("molregno")["parent_molregno"].to_dict()
    with_structure = set(tables["compound_structures"]["molregno"])
    assay = tables["assays"].set_index("assay_id")["chembl_id"]
    types = {t.lower() for t in CurateConfig().types}
    exact, bounds, votes, fates = defaultdict(list), defaultdict(list), defaultdict(list), Counter()
    for r in tables["activities"].astype(object).itertuples():
        get = {k: (None if pd.isna(v) else v) for k, v in r._asdict().items()}
        molecule = parent.get(get["molregno"], get["molregno"])
        molecule = molecule if molecule in name.index else get["molregno"]
        if molecule not in with_structure or molecule is None:
            fates["compound"] += 1
            continue
        if get["potential_duplicate"] == 1:
            fates["potential duplicate"] += 1
            continue
        if get["data_validity_comment"] not in (None, "Manually validated"):
            fates["validity"] += 1
            continue
        pair = (name[molecule], assay[get["assay_id"]])
        comment = (get["activity_comment"] or "").lower()
        vote = {"active": 1, "inactive": 0, "not active": 0, "no activity": 0}.get(comment)
        vote = 0 if comment.startswith("not active (inhibition < 50%") else vote
        if vote is not None:
            votes[pair].append(vote)
        fate = number(get, pair, types, exact, bounds, levels, decide)
        fates[
            ("comment" if fate not in ("value", "bound") else f"{fate} and comment") if vote is not None else fate
        ] += 1
    labels = {}
    for pair, v in exact.items():
        if max_spread is None or max(v) - min(v) <= max_spread:
            for t in levels:
                labels[pair[0], f"{pair[1]} >= {t:g}"] = float(round(math.fsum(v) / len(v), 9) >= t)
    tally = defaultdict(list)
    for pair, v in bounds.items():
        if pair not in exact:
            for t, active in v:
                tally[pair[0], f"{pair[1]} >= {t:g}"].append(active)
    for pair, v in votes.items():
        tally[pair[0], f"{pair[1]} comment"] += v
    for key, v in tally.items():
        if 2 * sum(v) != len(v):
            labels[key] = float(2 * sum(v) > len(v))
    return labels, fates, exact


def number(get, pair, types, exact, bounds, levels, decide) -> str:
    kind, relation, value, units = (get[f"standard_{k}"] for k in ("type", "relation", "value", "units"))
    if kind is not None and kind.lower() not in types:
        return "type"
    logarithm = kind in ("pIC50", "-Log EC50")
    if get["pchembl_value"] is None and (value is None or (not logarithm and value <= 0)):
        return "no value"
    if relation not in ("=", ">", "<", ">=", "<=", ">>"):
        return "relation"
    if relation != "=" and not decide:
        return "censored"
    if get["pchembl_value"] is None:
        if (logarithm and units is not None) or (not logarithm and units not in ("nM", "uM")):
            return "units"
        if not logarithm and relation == "=":
            return "no pchembl"
    p = get["pchembl_value"]
    if p is None:
        p = value if logarithm else {"nM": 9, "uM": 6}[units] - math.log10(value)
    if relation == "=":
        if not 4 <= p <= 10:
            return "range"
        exact[pair].append(p)
        return "value"
    above = (">" in relation) == logarithm  # of p
    strict = "=" not in relation
    p = round(p, 9)
    told = [(t, 1.0) for t in levels if t <= p] if above else [(t, 0.0) for t in levels if t > p or (strict and t == p)]
    if not told:
        return "open bound"
    bounds[pair] += told
    return "bound"


@pytest.mark.parametrize("settings", [{}, {"censored": "decide"}, {"censored": "decide", "max_spread": 1.0}])
def test_labels_are_those_worked_out_by_hand(chembl, chembl_file, settings):
    found = read_records(source(chembl_file, **settings))
    labels, fates, exact = by_hand(
        chembl, decide=settings.get("censored") == "decide", max_spread=settings.get("max_spread")
    )
    assert cells(found) == labels
    ours = found.fates.set_index("fate")["n"].to_dict()
    assert sum(ours.values()) == len(chembl["activities"])
    moved = {"settled", "spread", "bound", "value", "bound and comment", "value and comment", "comment"}
    assert {k: v for k, v in ours.items() if k not in moved} == {k: v for k, v in fates.items() if k not in moved}
    assert sum(v for k, v in ours.items() if k in moved) == sum(v for k, v in fates.items() if k in moved)
    values = {(r.compound, r.assay): (r.value, r.n, r.low, r.high) for r in found.values.itertuples()}
    assert set(values) == set(exact)
    for pair, v in exact.items():
        assert values[pair] == (pytest.approx(np.mean(v)), len(v), min(v), max(v))
    many = found.values[found.values["n"] > 2].iloc[0]
    assert many["sd"] == pytest.approx(np.std(exact[many["compound"], many["assay"]], ddof=1))
    assert found.n_salts > 50
    assert set(ours) > {"no pchembl", "range", "units"}


def test_tasks_say_what_they_are(chembl_file):
    tasks = read_records(source(chembl_file, thresholds=[6])).labels.tasks.set_index("task")
    about = ["assay", "kind", "target", "target_name", "target_type", "organism", "assay_type", "confidence", "release"]
    assert tasks.loc["CHEMBL9001 >= 6", about].tolist() == [
        "CHEMBL9001", "threshold", "CHEMBL2001", "Kinase A", "SINGLE PROTEIN", "Homo sapiens", "B", "9", "ChEMBL_99",
    ]  # fmt: skip
    assert tasks.loc["CHEMBL9003 comment", about].tolist() == [
        "CHEMBL9003", "comment", "CHEMBL2003", "Unchecked", "UNCHECKED", "", "B", "", "ChEMBL_99",
    ]  # fmt: skip
    assert tasks.loc["CHEMBL9005 >= 6", about].tolist()[2:7] == ["", "", "", "", ""]
    assert tasks.loc["CHEMBL9001 >= 6", "description"] == "Inhibition 1, 5 µM"
    assert (tasks[["n_active", "n_inactive"]].sum(axis=1) > 0).all()


def test_rules_about_assays_are_part_of_the_statement_and_counted(chembl, chembl_file):
    n = len(chembl["activities"])
    per_assay = chembl["activities"]["assay_id"].value_counts()
    found = read_records(source(chembl_file, targets=["kinase a"], assay_types=["B"]))
    fates = found.fates.set_index("fate")["n"]
    assert fates.sum() == n
    assert fates["target"] == n - per_assay[[1, 4, 7, 10]].sum()
    assert fates["assay type"] == per_assay[[4, 10]].sum()
    assert set(found.labels.tasks["assay"]) == {"CHEMBL9001", "CHEMBL9007"}
    strict = read_records(source(chembl_file, min_confidence=9)).fates.set_index("fate")["n"]
    assert strict.sum() == n
    assert strict["confidence"] == n - per_assay[[1, 6, 7, 12]].sum()
    one = read_records(source(chembl_file, assays=["CHEMBL9002"]))
    assert set(one.labels.tasks["assay"]) == {"CHEMBL9002"}
    assert one.fates["n"].sum() == n
    with pytest.raises(LabelError, match=r"curate\.targets names 'Kinase B'.*Nearest: Kinase A"):
        read_records(source(chembl_file, targets=["Kinase B"]))
    with pytest.raises(LabelError, match=r"curate\.assays names 'CHEMBL1'.*Nearest"):
        read_records(source(chembl_file, assays=["CHEMBL1"]))


def imaged(chembl, molecules) -> pd.DataFrame:
    keys = chembl["compound_structures"].set_index("molregno")["standard_inchi_key"][molecules]
    return pd.DataFrame(
        {"compound": keys.to_numpy(), "compound_id": [f"x{m}" for m in molecules], "inchikey": keys.to_numpy(),
         "skeleton": keys.str[:14].to_numpy()}
    )  # fmt: skip


def test_only_imaged_compounds_are_kept_and_the_rest_is_counted(chembl, chembl_file):
    everything = read_records(source(chembl_file))
    some = read_records(source(chembl_file), imaged=imaged(chembl, [1, 2, 29]))
    assert sorted(some.labels.compounds["compound"]) == ["CHEMBL101", "CHEMBL102", "CHEMBL129"]
    kept = {"CHEMBL101", "CHEMBL102", "CHEMBL129"}
    assert cells(some) == {k: v for k, v in cells(everything).items() if k[0] in kept}
    used, n = some.fates["used"], some.fates["n"]
    assert n.sum() == everything.fates["n"].sum()
    assert (
        n[used].sum() + n[some.fates["fate"] == "not imaged"].sum()
        == everything.fates["n"][everything.fates["used"]].sum()
    )


def test_a_delivered_key_that_differs_is_found_by_the_structure(chembl, tmp_path, make_sqlite):
    """ChEMBL writes a charged form; the imaged compound was neutralised, so only the first block agrees."""
    tables = dict(chembl)
    structures = tables["compound_structures"].copy()
    wanted = imaged(chembl, [5])
    key = wanted["inchikey"][0]
    at = structures.index[structures["molregno"] == 5]
    structures.loc[at, "standard_inchi_key"] = key[:-1] + "M"
    tables["compound_structures"] = structures
    found = read_records(source(make_sqlite(tmp_path / "c.db", tables)), imaged=wanted)
    assert found.labels.compounds[["compound", "inchikey"]].values.tolist() == [["CHEMBL105", key]]


@pytest.mark.xdist_group("postgres")
def test_sqlite_and_postgresql_give_identical_labels(chembl_file, chembl_server, tmp_path, monkeypatch):
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    address, _ = chembl_server
    for settings in ({"censored": "decide"}, {"targets": ["HeLa"], "min_confidence": 1}):
        one, two = source(chembl_file, **settings), source(address, **settings)
        found = []
        for s, name in ((one, "a"), (two, "b")):
            (tmp_path / name).mkdir(exist_ok=True)
            with Trace(tmp_path / name / "labels.parquet") as trace:
                found.append(read_records(s, trace=trace))
        a, b = found
        assert (a.labels.Y != b.labels.Y).nnz == 0
        assert a.labels.Y.nnz == b.labels.Y.nnz > 100
        pd.testing.assert_frame_equal(a.labels.tasks.drop(columns="source"), b.labels.tasks.drop(columns="source"))
        pd.testing.assert_frame_equal(a.labels.compounds, b.labels.compounds)
        pd.testing.assert_frame_equal(a.values.drop(columns="source"), b.values.drop(columns="source"))
        pd.testing.assert_frame_equal(a.fates.drop(columns="source"), b.fates.drop(columns="source"))
        traces = [pd.read_parquet(tmp_path / n / "labels.records.parquet").drop(columns="source") for n in "ab"]
        pd.testing.assert_frame_equal(*(t.astype({c: str for c in t.select_dtypes("category")}) for t in traces))


@pytest.mark.xdist_group("postgres")
def test_what_a_server_refuses_is_said_without_the_password(chembl_server, monkeypatch):
    address, run = chembl_server
    monkeypatch.delenv("PGPASSWORD", raising=False)
    monkeypatch.setenv("PGPASSFILE", "/nowhere")
    secret = address.replace("reader@", "reader:wr0ng-secret@")
    with pytest.raises(FileError, match=r"password authentication failed.*PGPASSWORD") as error:
        read_records(source(secret))
    assert "wr0ng" not in str(error.value)
    with pytest.raises(FileError, match="PGPASSWORD"):
        read_records(source(address))
    quoted = address.replace("reader@", "reader:s3cret%2Fpw%40x@")  # the right one, in the address
    found = read_records(source(quoted))
    assert "s3cret" not in found.labels.tasks["source"].iloc[0] + str(found.fates) + str(found.dropped.values.tolist())
    assert stamp(quoted).startswith("ChEMBL_99 ")
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    with pytest.raises(FileError, match=r'database "nothing" does not exist.*name of the database'):
        read_records(source(address.replace("/chembl", "/nothing")))
    run("REVOKE SELECT ON activities FROM reader")
    try:
        with pytest.raises(LabelError, match=r"permission denied for table activities.*SELECT"):
            read_records(source(address))
    finally:
        run("GRANT SELECT ON activities TO reader")
    with pytest.raises(FileError, match=r"cannot be used: .*[Cc]onnection refused.*server runs"):
        read_records(source("postgresql://reader@127.0.0.1:1/chembl"))


@pytest.mark.xdist_group("postgres")
def test_a_server_is_only_read(chembl_server, monkeypatch):
    from sqlalchemy import text

    from phenohit.labels.database import connect

    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    address = chembl_server[0].replace("reader@", "owner@")  # a user who may do everything
    with pytest.raises(FileError, match="read-only transaction"), connect(address) as connection:
        connection.execution_options(stream_results=False).execute(text("DELETE FROM activities"))


def test_addresses():
    assert masked("see postgresql+psycopg://u:p@ss:w@h:1/d?x=1") == "see postgresql+psycopg://u:***@h:1/d?x=1"
    assert masked("postgresql://u@h/d?password=abc&sslmode=on") == "postgresql://u@h/d?password=***&sslmode=on"
    assert masked("/data/chembl_33.db") == "/data/chembl_33.db"
    assert masked("postgresql://u:it's \"odd?@h/d") == "postgresql://u:***@h/d"
    with pytest.raises(ConfigError, match=r"is a mysql server.*postgresql://") as error:
        read_records(source("mysql://me:hidden@host/chembl"))
    assert "hidden" not in str(error.value)


def test_a_missing_driver_names_the_extra(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(ConfigError, match=r"pip install 'phenohit\[postgres\]'"):
        read_records(source("postgresql://me@127.0.0.1:1/chembl"))


def _content(folder: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.iterdir()}


def test_a_file_is_only_read(chembl, tmp_path, make_sqlite):
    path = make_sqlite(tmp_path / "c.db", chembl)
    before = _content(tmp_path)
    expected = cells(read_records(source(path)))
    assert _content(tmp_path) == before
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
    connection.close()
    before = _content(tmp_path)
    assert set(before) == {"c.db"}
    assert cells(read_records(source(path))) == expected
    assert _content(tmp_path) == before  # no -wal or -shm beside it: works on read-only media


def test_a_file_that_another_program_writes_to(chembl, tmp_path, make_sqlite):
    path = make_sqlite(tmp_path / "c.db", chembl)
    writer = sqlite3.connect(path)
    writer.execute("PRAGMA journal_mode = WAL")
    first = stamp(str(path))
    writer.execute("UPDATE version SET name = 'ChEMBL_100'")
    writer.commit()
    found = read_records(source(path))
    assert set(found.labels.tasks["release"]) == {"ChEMBL_100"}  # what is in the log counts
    assert stamp(str(path)) != first
    writer.close()


def test_damaged_files_are_named(chembl_file, tmp_path):
    whole = chembl_file.read_bytes()
    with pytest.raises(FileError, match=r"no.db' does not exist"):
        read_records(source(tmp_path / "no.db"))
    with pytest.raises(FileError, match="is a folder"):
        read_records(source(tmp_path))
    for content, message in (
        (b"hello" * 100, "is no SQLite database"), (b"\x1f\x8b" + b"0" * 200, "unpack it first"), (b"", "0 bytes"),
        (whole[: len(whole) // 2], "is truncated: it holds"),
        (whole[:8192] + b"\xff" * (len(whole) - 8192), "cannot be read as a SQLite database.*damaged"),
    ):  # fmt: skip
        path = tmp_path / "bad.db"
        path.write_bytes(content)
        with pytest.raises(FileError, match=message):
            read_records(source(path))


def test_missing_tables_and_columns_are_named(chembl, tmp_path, make_sqlite):
    path = make_sqlite(tmp_path / "c.db", chembl)
    connection = sqlite3.connect(path)
    connection.execute("ALTER TABLE activities RENAME COLUMN pchembl_value TO pchembl")
    connection.commit()
    with pytest.raises(LabelError, match=r"Table 'activities'.*no column 'pchembl_value'.*Nearest: pchembl"):
        read_records(source(path))
    connection.execute("ALTER TABLE activities RENAME COLUMN pchembl TO pchembl_value")
    connection.execute("DROP TABLE molecule_hierarchy")
    connection.commit()
    with pytest.raises(LabelError, match="is no ChEMBL database: it has no table 'molecule_hierarchy'"):
        read_records(source(path))
    connection.close()


def test_an_empty_release_and_one_without_version(chembl, tmp_path, make_sqlite):
    empty = {name: table.iloc[:0] for name, table in chembl.items()}
    with pytest.raises(LabelError, match="holds no assays"):
        read_records(source(make_sqlite(tmp_path / "e.db", empty)))
    path = make_sqlite(tmp_path / "c.db", chembl)
    connection = sqlite3.connect(path)
    connection.execute("DROP TABLE version")
    connection.execute("DELETE FROM molecule_hierarchy")
    connection.commit()
    connection.close()
    found = read_records(source(path))
    assert set(found.labels.tasks["release"]) == {""}
    assert found.n_salts == 0
    assert len(found.labels.compounds) == 40  # every molecule is its own parent


def test_the_layout_is_that_of_a_release(shared_data):
    real = pd.read_csv(
        shared_data / "chembl-activity-slices" / "chembl_sqlite_core_columns.csv", dtype=str, keep_default_na=False
    )
    ours = pd.read_csv(Path(__file__).with_name("chembl_layout.csv"), dtype=str, keep_default_na=False)
    columns = ["table", "column", "type", "not_null", "primary_key"]
    expected = real[real["table"].isin(ours["table"])][columns].reset_index(drop=True)
    pd.testing.assert_frame_equal(ours, expected)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"low": 9, "high": 5}, r"curate.low \(9\) is above curate.high"),
        ({"types": [], "comments": False}, "no record could be used"),
        ({"assay_types": ["binding"]}, "ChEMBL has B, F, A"),
        ({"min_confidence": 12}, "from 0 to 9"), ({"max_spread": -1.0}, "cannot be negative"),
    ],
)  # fmt: skip
def test_settings_that_cannot_be_meant(chembl_file, settings, message):
    with pytest.raises(ConfigError, match=message):
        read_records(source(chembl_file, **settings))
