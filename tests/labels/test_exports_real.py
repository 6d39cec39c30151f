"""Two real exports of ChEMBL, curated, and labels recomputed from the files themselves."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest

from phenohit.chem.standardise import standardise
from phenohit.config import ActivitySource, CurateConfig
from phenohit.labels.curate_records import read_records
from phenohit.labels.trace import Trace

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("exports")]  # curated once

# file, separator, rows, and the column of each thing
EXPORTS = {
    "api": ("CHEMBL220_activities_api_export.csv.gz", ",", 7026, {
        "smiles": "canonical_smiles", "assay": "assay_chembl_id", "type": "standard_type",
        "relation": "standard_relation", "pchembl": "pchembl_value", "value": "standard_value",
        "units": "standard_units", "comment": "activity_comment",
        "validity": "data_validity_comment", "copy": "potential_duplicate"}),
    "web": ("CHEMBL1978_activities_web_export.csv.gz", ";", 6099, {
        "smiles": "Smiles", "assay": "Assay ChEMBL ID", "type": "Standard Type", "relation": "Standard Relation",
        "pchembl": "pChEMBL Value", "value": "Standard Value",
        "units": "Standard Units", "comment": "Comment", "validity": "Data Validity Comment",
        "copy": "Potential Duplicate"}),
}  # fmt: skip


@pytest.fixture(scope="module", params=list(EXPORTS))
def curated(request, shared_data, tmp_path_factory):
    name, separator, n, columns = EXPORTS[request.param]
    path = shared_data / "chembl-activity-slices" / name
    out = tmp_path_factory.mktemp(request.param) / "labels.parquet"
    with Trace(out) as trace:
        source = ActivitySource(path=str(path), format="records", curate=CurateConfig(censored="decide"))
        found = read_records(source, trace=trace, jobs=2)
    raw = pd.read_csv(path, sep=separator, dtype=str, keep_default_na=False)
    raw = pd.DataFrame({k: raw[v] for k, v in columns.items()})
    raw["relation"] = raw["relation"].str.strip("'")
    return found, raw, pd.read_parquet(out.with_suffix(".records.parquet")), n


def test_every_row_has_one_fate(curated):
    found, raw, trace, n = curated
    fates = found.fates.set_index("fate")["n"]
    assert fates.sum() == len(raw) == n
    assert fates["potential duplicate"] == (514 if n == 7026 else 464)
    # The trace holds every row of a compound that can be identified, once.
    assert trace["row"].is_unique
    assert len(trace) == n - fates.get("compound", 0)
    traced = trace["fate"].astype(str).value_counts().to_dict()
    assert traced == fates.drop("compound", errors="ignore").to_dict()
    assert (
        found.dropped["id"].str.extract(r"^([\d,]+) records")[0].str.replace(",", "").dropna().astype(int).sum()
        == n - found.fates["n"][found.fates["used"]].sum()
    )


def test_exact_values_and_votes_are_those_of_plain_pandas(curated):
    found, raw, _, _ = curated
    fates = found.fates.set_index("fate")["n"]
    ok = ~raw["copy"].isin(["True", "1"]) & raw["validity"].isin(["", "Manually validated"]) & (raw["smiles"] != "")
    p = pd.to_numeric(raw["pchembl"], errors="coerce")
    types = raw["type"].str.lower().isin([t.lower() for t in CurateConfig().types])
    # A logarithmic type without a pChEMBL value counts as it stands.
    logarithm = raw["type"].isin(["pIC50", "-Log IC50", "pEC50", "-Log EC50"]) & (raw["units"] == "")
    p = p.fillna(pd.to_numeric(raw["value"], errors="coerce").where(logarithm))
    exact = ok & types & (raw["relation"] == "=") & p.between(4, 10)
    assert fates.get("value", 0) + fates.get("value and comment", 0) == exact.sum()
    said = raw["comment"].str.lower().str.match(r"^(in)?active$|^not active($| \(inhibition < 50%)|^no activity$")
    assert sum(fates.get(f, 0) for f in ("comment", "value and comment", "bound and comment")) == (ok & said).sum()


def test_ten_labels_are_traced_to_their_rows(curated):
    found, raw, trace, _ = curated
    rng = np.random.default_rng(0)
    labels = found.labels
    coo = labels.Y.tocoo()
    repeated = set(zip(found.values["compound"][found.values["n"] > 1], found.values["assay"][found.values["n"] > 1],
                       strict=True))  # fmt: skip
    names, tasks = labels.compounds["compound"].to_numpy(), labels.tasks
    pairs = [(names[i], tasks["assay"][j]) in repeated for i, j in zip(coo.row, coo.col, strict=True)]
    several = rng.choice(np.flatnonzero(pairs), 5, replace=False)
    kinds = tasks["kind"].to_numpy()[coo.col]
    comments = rng.choice(np.flatnonzero(kinds == "comment"), 3, replace=False)
    any_ = rng.choice(len(coo.row), 4, replace=False)
    for k in [*several, *comments, *any_]:
        compound, task, label = names[coo.row[k]], tasks.iloc[coo.col[k]], coo.data[k]
        mine = trace[(trace["compound"] == compound) & (trace["assay"] == task["assay"])]
        rows = raw.iloc[mine["row"]]
        assert set(standardise(rows["smiles"].tolist())["inchikey"]) == {compound}
        assert set(rows["assay"]) == {task["assay"]}
        usable = rows[~rows["copy"].isin(["True", "1"]) & rows["validity"].isin(["", "Manually validated"])]
        if task["kind"] == "comment":
            votes = [
                c.lower() == "active" for c in usable["comment"] if re.match("(in|not )?active|no activity", c, re.I)
            ]
            assert label == (2 * sum(votes) > len(votes))
            continue
        p = pd.to_numeric(usable["pchembl"], errors="coerce")
        p = p[(usable["relation"] == "=") & p.between(4, 10)]
        if len(p):
            assert label == (round(p.mean(), 9) >= task["threshold"])
        else:
            assert set(mine["fate"]) & {"bound", "bound and comment", "value"}
