"""Time the curation of a whole ChEMBL: a simulated SQLite database with 20 million activities.

    python bench/chembl.py [--activities 20000000] [--folder /tmp] [--imaged 30000] [--all] [--keep]

The database is simulated, in the layout of a release (`tests/labels/chembl_layout.csv`): 50,000 assays
whose sizes follow a power law, a tenth as many molecules as activities (every eighth a salt of another),
and types, relations, units, comments and flags in about the shares of the real tables. It is then
curated for `--imaged` compounds, as a run does, and with `--all` for every compound in it.

Printed are the times and the peak memory of each curation, which runs in a process of its own. Ends with
exit code 1 if the records by rule do not add up to the activities.
"""

from __future__ import annotations

import argparse
import resource
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

from phenohit.config import ActivitySource, CurateConfig
from phenohit.labels.curate_records import read_records
from phenohit.labels.trace import Trace

LAYOUT = Path(__file__).parents[1] / "tests" / "labels" / "chembl_layout.csv"
CHUNK = 500_000
ASSAYS = 50_000
TYPES = ("IC50", "Ki", "Potency", "EC50", "Inhibition", "GI50", "Activity", "AC50", "MIC", "ED50")
SHARES = (0.16, 0.05, 0.26, 0.04, 0.20, 0.16, 0.08, 0.01, 0.03, 0.01)


def key(number: int) -> str:
    """Make a text of the form of an InChIKey that is unique to a number."""
    letters = []
    for _ in range(14):
        number, rest = divmod(number, 26)
        letters.append(chr(65 + rest))
    return "".join(letters) + "-UHFFFAOYSA-N"


def insert(connection: sqlite3.Connection, layout: pd.DataFrame, name: str, columns: dict) -> None:
    """Insert columns into a table; what must not be NULL and is not given becomes 0 or ''."""
    wanted = layout[layout["table"] == name]
    n = len(next(iter(columns.values())))
    for c in wanted[wanted["not_null"] == "1"].itertuples():
        columns.setdefault(c.column, [""] * n if "CHAR" in c.type else [0] * n)
    rows = zip(*(c.tolist() if isinstance(c, np.ndarray) else c for c in columns.values()), strict=True)
    marks = ", ".join("?" * len(columns))
    connection.executemany(f"INSERT INTO {name} ({', '.join(columns)}) VALUES ({marks})", rows)


def build(path: Path, n: int, seed: int = 0) -> None:
    """Write the database."""
    rng = np.random.default_rng(seed)
    layout = pd.read_csv(LAYOUT, dtype=str, keep_default_na=False)
    connection = sqlite3.connect(path)
    for pragma in ("journal_mode = OFF", "synchronous = OFF", "page_size = 32768", "cache_size = -262144"):
        connection.execute(f"PRAGMA {pragma}")
    for name, c in layout.groupby("table", sort=False):
        parts = [f"{r.column} {r.type}{' NOT NULL' if r.not_null == '1' else ''}" for r in c.itertuples()]
        keys = ", ".join(c["column"][c["primary_key"] == "1"])
        connection.execute(f"CREATE TABLE {name} ({', '.join(parts)}, PRIMARY KEY ({keys}))")
    n_molecules = max(n // 10, 1000)
    for start in range(1, n_molecules + 1, CHUNK):
        number = np.arange(start, min(start + CHUNK, n_molecules + 1))
        names = [f"CHEMBL{m}" for m in number]
        parent = np.where((number % 8 == 0) & (number > 8), number - 7, number)
        insert(connection, layout, "molecule_dictionary", {"molregno": number, "chembl_id": names})
        insert(connection, layout, "molecule_hierarchy", {"molregno": number, "parent_molregno": parent})
        smiles = [f"CC(=O)N{'C' * (m % 30)}c1ccccc1{'O' * (m % 3)}" for m in number.tolist()]
        keys = [key(m) for m in number.tolist()]
        columns = {"molregno": number, "standard_inchi_key": keys, "canonical_smiles": smiles}
        insert(connection, layout, "compound_structures", columns)
    assay = np.arange(1, ASSAYS + 1)
    insert(connection, layout, "assays", {
        "assay_id": assay, "chembl_id": [f"CHEMBL{10**7 + a}" for a in assay], "tid": assay % 5000 + 1,
        "description": [f"Simulated assay {a}: inhibition of a target in cells after 72 hrs" for a in assay],
        "assay_type": rng.choice(["B", "F", "A"], ASSAYS), "confidence_score": rng.integers(0, 10, ASSAYS),
    })  # fmt: skip
    target = np.arange(1, 5001)
    insert(connection, layout, "target_dictionary", {
        "tid": target, "chembl_id": [f"CHEMBL{2 * 10**7 + t}" for t in target],
        "pref_name": [f"Target {t}" for t in target], "target_type": ["SINGLE PROTEIN"] * 5000,
        "organism": ["Homo sapiens"] * 5000,
    })  # fmt: skip
    document = np.arange(1, 50_001)
    insert(connection, layout, "docs", {"doc_id": document, "chembl_id": [f"CHEMBL{3 * 10**7 + d}" for d in document]})
    connection.execute("INSERT INTO version (name) VALUES ('ChEMBL_simulated')")
    size = (np.arange(1, ASSAYS + 1) + 10.0) ** -1.0  # power law: the largest has some hundred thousand records
    edges = np.cumsum(size / size.sum())
    for start in range(1, n + 1, CHUNK):
        number = np.arange(start, min(start + CHUNK, n + 1))
        insert(connection, layout, "activities", activities(rng, number, edges, n_molecules))
    connection.commit()
    connection.close()


def activities(rng: np.random.Generator, number: np.ndarray, edges: np.ndarray, n_molecules: int) -> dict:
    """Return the columns of some activities."""
    n = len(number)
    kind = rng.choice(np.array(TYPES, dtype=object), n, p=SHARES)
    relation = rng.choice(np.array(["=", ">", "<", None], dtype=object), n, p=[0.68, 0.12, 0.02, 0.18])
    exact = (relation == "=") & np.isin(kind, TYPES[:4])
    value = np.round(10 ** rng.normal(3.3, 1.3, n), 2) + 0.01
    p = np.round(9 - np.log10(value), 2).astype(object)
    p[~exact] = None
    comments = np.array([None, "Not Active", "Active", "inactive", "Not Determined", "active"], dtype=object)
    comment = rng.choice(comments, n, p=[0.82, 0.05, 0.03, 0.06, 0.03, 0.01])
    codes = rng.random(n) < 0.03  # other registries' numbers
    comment[codes] = [str(c) for c in rng.integers(10**5, 10**7, codes.sum())]
    validity = rng.choice(
        np.array([None, "Outside typical range", "Manually validated"], object), n, p=[0.95, 0.04, 0.01]
    )
    assay = np.searchsorted(edges, rng.random(n)) + 1
    return {
        "activity_id": number, "assay_id": assay.clip(max=ASSAYS), "doc_id": assay % 50_000 + 1,
        "molregno": (n_molecules * rng.random(n) ** 1.5).astype(np.int64) + 1, "standard_relation": relation,
        "standard_value": value,
        "standard_units": rng.choice(np.array(["nM", "%", None], object), n, p=[0.75, 0.2, 0.05]),
        "standard_type": kind, "activity_comment": comment, "data_validity_comment": validity,
        "potential_duplicate": (rng.random(n) < 0.02).astype(np.int64), "pchembl_value": p, "type": kind,
    }  # fmt: skip


def curate(path: Path, n_imaged: int) -> int:
    """Curate and print what it took; `n_imaged` 0: all compounds."""
    imaged = None
    if n_imaged:
        with sqlite3.connect(path) as connection:
            total = connection.execute("SELECT MAX(molregno) FROM molecule_dictionary").fetchone()[0]
        keys = [key(m) for m in range(1, total + 1, max(total // n_imaged, 1))]
        imaged = pd.DataFrame({"compound": keys, "compound_id": "", "inchikey": keys})
        imaged["skeleton"] = imaged["inchikey"].str[:14]
    start = time.perf_counter()
    trace_path = path.with_name("labels.parquet")
    with Trace(trace_path) as trace:
        source = ActivitySource(path=str(path), format="chembl", curate=CurateConfig(censored="decide"))
        found = read_records(source, imaged=imaged, trace=trace)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    size = trace_path.with_suffix(".records.parquet").stat().st_size / 2**20
    n = int(found.fates["n"].sum())
    print(f"curated for {f'{len(imaged):,} imaged' if imaged is not None else 'all'} compounds: {seconds:.0f} s, "
          f"{n / seconds:,.0f} records/s, peak memory {peak:.2f} GiB, trace {size:,.0f} MiB")  # fmt: skip
    print(f"  {len(found.labels):,} compounds x {len(found.labels.tasks):,} tasks, {found.labels.Y.nnz:,} labels, "
          f"{len(found.values):,} averaged pairs, {found.n_salts:,} records of salts")  # fmt: skip
    print(found.fates[["fate", "used", "n"]].to_string(index=False))
    return n


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--activities", type=int, default=20_000_000)
    parser.add_argument("--folder", default=tempfile.gettempdir())
    parser.add_argument("--imaged", type=int, default=30_000)
    parser.add_argument("--all", action="store_true", help="also curate for every compound")
    parser.add_argument("--keep", action="store_true", help="do not delete the database")
    parser.add_argument("--curate", default="", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.curate:
        return 0 if curate(Path(given.curate), given.imaged) == given.activities else 1
    folder = Path(tempfile.mkdtemp(prefix="bench-chembl-", dir=given.folder))
    path, code = folder / "simulated_chembl.db", 0
    try:
        start = time.perf_counter()
        build(path, given.activities)
        print(f"simulated {given.activities:,} activities: {time.perf_counter() - start:.0f} s, "
              f"{path.stat().st_size / 2**30:.2f} GiB", flush=True)  # fmt: skip
        for n in (given.imaged, 0) if given.all else (given.imaged,):
            command = [sys.executable, __file__, "--curate", str(path), "--imaged", str(n)]
            code |= subprocess.run([*command, "--activities", str(given.activities)], check=False).returncode
    finally:
        if not given.keep:
            shutil.rmtree(folder)
    return code


if __name__ == "__main__":
    sys.exit(main())
