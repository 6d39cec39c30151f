from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from phenohit.config import ActivitySource, Config, CurateConfig, LabelsConfig
from phenohit.data.labels import Labels
from phenohit.errors import FileError, LabelError
from phenohit.labels.curate_records import read_records
from phenohit.labels.explain import explain, records_of
from phenohit.labels.join import assemble
from phenohit.labels.trace import COLUMNS, Trace
from phenohit.settings import call

ANY = LabelsConfig(min_active=1, min_inactive=1)


def imaged(chembl) -> pd.DataFrame:
    s = chembl["compound_structures"].iloc[:30]
    return pd.DataFrame(
        {"compound": s["standard_inchi_key"], "compound_id": [f"x{m};y{m}" for m in s["molregno"]],
         "inchikey": s["standard_inchi_key"], "skeleton": s["standard_inchi_key"].str[:14]}
    )  # fmt: skip


@pytest.fixture(scope="module")
def joined(chembl, chembl_file, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    table = pd.DataFrame({"id": ["x1", "x2", "x3"], "assay": "long", "value": [1, 0, 1]})
    table.to_csv(folder / "long.csv", index=False)
    sources = [
        ActivitySource(path=str(chembl_file), format="chembl", prefix="C:", curate=CurateConfig(censored="decide")),
        ActivitySource(path=str(folder / "long.csv"), id="id"),
    ]
    path = folder / "labels.parquet"
    labels, report, lost = assemble(sources, imaged(chembl), ANY, trace=path)
    labels.save(path)
    return path, labels, report, lost


def test_labels_of_a_database_join_beside_those_of_a_table(joined):
    _, labels, report, lost = joined
    assert set(labels.tasks["kind"]) == {"threshold", "comment", "binary"}
    assert labels.tasks["task"].str.startswith("C:CHEMBL90").sum() == len(labels.tasks) - 1
    assert labels.tasks.loc[labels.tasks["kind"] == "threshold", "release"].unique().tolist() == ["ChEMBL_99"]
    assert report[report["match"] == "inchikey"]["n_label_compounds"].tolist() == [30, 0]
    assert lost["reason"].str.contains("[rule: type]", regex=False).sum() == 1


def test_every_label_can_be_made_again_from_its_records(joined):
    """The mean of the exact values, else the vote of bounds; the vote of comments; straight from the file."""
    path, labels, *_ = joined
    trace = pd.read_parquet(path.with_suffix(".records.parquet"))
    assert list(trace.columns) == COLUMNS
    trace = trace.astype({c: str for c in trace.select_dtypes("category")})
    known = pd.read_parquet(path.with_suffix(".records.compounds.parquet"))
    trace["key"] = known["inchikey"].to_numpy()[trace["compound_row"]]
    groups = dict(iter(trace[trace["fate"].isin(["value", "value and comment"])].groupby(["key", "assay"])))
    votes = dict(iter(trace[trace["vote"] >= 0].groupby(["key", "assay"])))
    coo = labels.Y.tocoo()
    made = 0
    for i, j, v in zip(coo.row, coo.col, coo.data, strict=True):
        task, key = labels.tasks.iloc[j], labels.compounds["inchikey"].iloc[i]
        if task["kind"] == "threshold" and (key, task["assay"]) in groups:
            assert v == (round(groups[key, task["assay"]]["used"].mean(), 9) >= task["threshold"])
            made += 1
        elif task["kind"] == "comment":
            said = votes[key, task["assay"]]
            said = said[said["fate"].str.endswith("comment")]["vote"]
            assert v == (said.mean() > 0.5)
            made += 1
    assert made > 500


def test_the_trace_is_sorted_and_found_by_its_statistics(chembl_file, tmp_path, monkeypatch, chembl):
    monkeypatch.setattr("phenohit.labels.trace._GROUP", 64)
    for held in (10**9, 200):  # in memory, and by files on the disk
        monkeypatch.setattr("phenohit.labels.trace._HELD", held)
        monkeypatch.setattr("phenohit.labels.statements.BLOCK", 50)
        with Trace(tmp_path / f"{held}.parquet") as trace:
            read_records(ActivitySource(path=str(chembl_file), format="chembl"), trace=trace)
    one, two = (pd.read_parquet(tmp_path / f"{h}.records.parquet") for h in (10**9, 200))
    pd.testing.assert_frame_equal(one.astype(str), two.astype(str))
    assert one["compound_row"].is_monotonic_increasing
    assert set(p.name for p in tmp_path.iterdir()) == {
        f"{h}.records{end}" for h in (10**9, 200) for end in (".parquet", ".compounds.parquet")
    }
    with pq.ParquetFile(tmp_path / "200.records.parquet") as file:
        ranges = [file.metadata.row_group(g).column(0).statistics for g in range(file.num_row_groups)]
    assert len(ranges) > 10
    assert all(a.max <= b.min for a, b in itertools.pairwise(ranges))
    found = records_of(tmp_path / "200.parquet", imaged(chembl), 4)
    at = pd.read_parquet(tmp_path / "200.records.compounds.parquet")["compound"].eq("CHEMBL105").to_numpy()
    assert len(found) == (one["compound_row"] == np.flatnonzero(at)[0]).sum() > 20
    assert set(found["matched"]) == {"inchikey"}


def test_nothing_is_left_when_the_reading_fails(tmp_path):
    with pytest.raises(FileError), Trace(tmp_path / "labels.parquet") as trace:
        read_records(ActivitySource(path=str(tmp_path / "no.db"), format="chembl"), trace=trace)
    assert not list(tmp_path.iterdir())


def test_explain_tells_label_rule_and_records(joined):
    path, labels, *_ = joined
    coo = labels.Y.tocoo()
    k = next(k for k in range(coo.nnz) if labels.tasks["kind"].iloc[coo.col[k]] == "threshold")
    i, task = coo.row[k], labels.tasks["task"].iloc[coo.col[k]]
    name = labels.compounds["compound_id"].iloc[i].split(";")[1]
    told = explain(path, f"{name} in {task}")
    assert f"{task}: {'active' if coo.data[k] else 'inactive'}" in told
    assert "matched by inchikey" in told
    trace = pd.read_parquet(path.with_suffix(".records.parquet"))
    mine = trace[(trace["compound"] == f"CHEMBL{101 + i}") & (trace["assay"] == labels.tasks["assay"].iloc[coo.col[k]])]
    assert len(mine)
    assert all(r in told for r in mine["record"])
    n = len(records_of(path, labels.compounds, i)) - len(mine)
    assert n >= (trace["compound"] == f"CHEMBL{101 + i}").sum() - len(mine) > 0
    assert f"records of this compound in other assays: {n} in" in told
    whole = explain(path, f"{labels.compounds['compound'].iloc[i]} in {labels.tasks['assay'].iloc[coo.col[k]]}")
    assert whole.count(">=") >= 1


def test_explain_says_why_a_pair_is_not_measured(chembl, chembl_file, tmp_path):
    path = tmp_path / "labels.parquet"
    source = ActivitySource(path=str(chembl_file), format="chembl", curate=CurateConfig(comments=False))
    labels, *_ = assemble([source], imaged(chembl), ANY, trace=path)
    labels.save(path)
    trace = pd.read_parquet(path.with_suffix(".records.parquet"))
    trace = trace.astype({c: str for c in trace.select_dtypes("category")})
    by = trace.groupby(["compound", "assay"])["fate"].agg(lambda f: tuple(sorted(set(f))))
    (compound, assay), fates = next((k, f) for k, f in by.items() if "value" not in f and len(f) > 1)
    told = explain(path, f"x{int(compound[6:]) - 100} in {assay} >= 5.5")
    assert "not measured" in told
    assert "nothing that can be used" in told
    assert all(f" x {f}: " in told for f in fates)
    for question, message in (
        ("x1", "no question"), ("nobody in CHEMBL9001", "No imaged compound is called 'nobody'"),
        ("x1 in CHEMBL9", "There is no task or assay 'CHEMBL9'. Nearest"),
    ):  # fmt: skip
        with pytest.raises(LabelError, match=message):
            explain(path, question)
    path.with_suffix(".records.parquet").unlink()
    with pytest.raises(FileError, match="run `phenohit labels` again"):
        explain(path, f"x1 in {assay}")


def test_a_pair_without_records_was_never_measured(tmp_path):
    table = pd.DataFrame({"c": ["a", "b", "b"], "assay": ["x", "x", "y"], "p": [5, 8, 8]})
    table.to_csv(tmp_path / "t.csv", index=False)
    source = ActivitySource(
        path=str(tmp_path / "t.csv"), format="records", columns={"compound": "c", "assay": "assay", "pchembl": "p"}
    )
    compounds = pd.DataFrame({"compound": ["a", "b"], "compound_id": ["a", "b"], "inchikey": "", "skeleton": ""})
    path = tmp_path / "labels.parquet"
    labels, *_ = assemble([source], compounds, ANY, trace=path)
    labels.save(path)
    assert isinstance(Labels.load(path), Labels)
    told = explain(path, "a in x >= 6.5")
    assert "x >= 6.5: inactive" in told
    assert "mean of 1 exact value: 5" in told
    # y has one class only and is no task, but its record is known
    assert "no task of 'y' is left" in explain(path, "b in y")


def test_a_command_may_have_flags_of_its_own():
    seen = {}

    def command(config: Config, explain: str = "") -> None:
        seen.update(out=config.out, explain=explain)

    call(command, ["--out", "here", "--explain", "a in b >= 5", "--seed=3"], prog="p")
    assert seen == {"out": "here", "explain": "a in b >= 5"}
    call(command, ["--explain=x in y"], prog="p")
    assert seen == {"out": "run", "explain": "x in y"}
