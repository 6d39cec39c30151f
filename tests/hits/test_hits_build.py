from __future__ import annotations

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rdkit import Chem, DataStructs
from rdkit.Chem import FilterCatalog, rdFingerprintGenerator

from phenohit.config import HitsConfig
from phenohit.errors import ConfigError, LabelError, ShapeError
from phenohit.files import read_json, read_table
from phenohit.hits.build import build_hits
from phenohit.hits.export import HIT_COLUMNS, LIST_COLUMNS
from phenohit.hits.filter import Evidence, rejected
from phenohit.hits.picklist import ECHO_COLUMNS


def test_the_small_screen(small_hits):
    table = small_hits.table
    assert table.columns.tolist() == HIT_COLUMNS
    # Ranked by score; salicylic acid (known) and paracetamol (measured in the sibling task) are out.
    assert table["compound_id"].tolist() == [
        "aspirin", "caffeine", "rhodanine", "quinone", "ethanol", "=naked", "ibuprofen",
    ]  # fmt: skip
    assert table["pains"].tolist()[:2] == ["", ""]
    assert table.set_index("compound_id")["pains"]["=naked"] == "no structure"
    picked = small_hits.picked
    assert picked["compound_id"].tolist() == ["aspirin", "caffeine", "ethanol"]
    assert picked["pick_order"].tolist() == [1, 2, 3]
    assert picked["nearest_active"].tolist() == ["salicylic acid"] * 3
    assert picked["new_scaffold"].tolist() == [False, True, None]
    assert picked[["plate", "well"]].to_numpy().tolist() == [["P1", "A01"], ["P1", "A03"], ["P1", "A06"]]
    assert picked["reason"].str.startswith("Score 0.").all()
    gone = small_hits.dropped.set_index("id")["reason"]
    assert gone["salicylic acid"] == gone["paracetamol"] == "already measured in assay 'COX'"
    assert "rhod" in gone["rhodanine"]
    assert "quinone" in gone["quinone"]
    assert len(gone) == 4
    assert small_hits.summary["n_pains"] == 2
    assert small_hits.summary["warnings"] == []
    assert small_hits.echo["Source Well"].tolist() == ["A1", "A3", "A6"]


def test_what_is_exported_is_what_was_written(small, tmp_path):
    hits = build_hits(**small | {"config": HitsConfig(n=5, volume_nl=10)})
    assert "=naked" in hits.picked["compound_id"].tolist()
    hits.write(tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == {
        "hits.parquet", "hits.csv", "hits.sdf", "picklist.csv", "echo.csv", "summary.json",
    }  # fmt: skip

    parquet, meta = read_table(tmp_path / "hits.parquet")
    assert meta["kind"] == "hits"
    pd.testing.assert_frame_equal(parquet, hits.table, check_dtype=False)

    made = pd.read_csv(tmp_path / "hits.csv", keep_default_na=False, dtype=str)
    assert made.columns.tolist() == HIT_COLUMNS
    assert made["compound_id"].tolist() == [c.replace("=naked", "'=naked") for c in hits.table["compound_id"]]
    assert made["score"].astype(np.float32).tolist() == hits.table["score"].tolist()
    assert made["reason"].tolist() == hits.table["reason"].tolist()
    assert (made["picked"] == "True").tolist() == hits.table["picked"].tolist()

    mols = list(Chem.SDMolSupplier(str(tmp_path / "hits.sdf")))
    drawn = hits.picked[hits.picked["smiles"] != ""]
    assert [m.GetProp("_Name") for m in mols] == drawn["compound_id"].tolist()
    assert [Chem.MolToSmiles(m) for m in mols] == [Chem.CanonSmiles(s) for s in drawn["smiles"]]
    for mol, row in zip(mols, drawn.itertuples(), strict=True):
        assert np.float32(mol.GetProp("score")) == row.score
        assert int(mol.GetProp("rank")) == row.rank
        assert mol.GetProp("task") == "COX >= 5"
        assert mol.GetProp("nearest_active") == "salicylic acid"
        assert mol.GetProp("reason") == row.reason
    assert "not in hits.sdf" in hits.dropped.set_index("id")["reason"]["=naked"]

    picklist = pd.read_csv(tmp_path / "picklist.csv", keep_default_na=False)
    assert picklist.columns.tolist() == LIST_COLUMNS
    assert sorted(picklist["compound_id"]) == sorted(["'=naked", *drawn["compound_id"]])
    echo = pd.read_csv(tmp_path / "echo.csv")
    assert echo.columns.tolist() == ECHO_COLUMNS
    pd.testing.assert_frame_equal(echo, hits.echo, check_dtype=False)
    assert (echo["Transfer Volume"] == 10).all()
    assert read_json(tmp_path / "summary.json") == json.loads(json.dumps(hits.summary, allow_nan=False))


def test_csv_holds_the_top_and_parquet_everything(real, tmp_path):
    hits = build_hits(**real | {"config": HitsConfig(n=20, per_cluster=2)})
    hits.write(tmp_path)
    assert len(read_table(tmp_path / "hits.parquet")[0]) == len(hits.table) > 200
    assert pd.read_csv(tmp_path / "hits.csv")["rank"].tolist() == list(range(1, 201))


def test_real_structures(real, shared_data):
    hits = build_hits(**real)
    picked, table = hits.picked, hits.table
    assert len(picked) == 100

    # Nobody measured a pick in Assay_2, or in Assay_25 and Assay_29: the same assay at other cut-offs.
    raw = pd.read_parquet(shared_data / "labels-hti209" / "label_matrix.parquet")[:3000]
    measured = raw[["Assay_2", "Assay_25", "Assay_29"]].notna().any(axis=1).to_numpy()
    keys = raw["inchikey"].to_numpy()
    assert set(table["compound"]) == set(keys[~measured])
    assert len(table) + measured.sum() == 3000 > len(table)

    # RDKit itself finds no PAINS alert among the picks, and one in each that was rejected for it.
    parameters = FilterCatalog.FilterCatalogParams()
    parameters.AddCatalog(FilterCatalog.FilterCatalogParams.FilterCatalogs.PAINS)
    catalog = FilterCatalog.FilterCatalog(parameters)
    assert not any(catalog.HasMatch(Chem.MolFromSmiles(s)) for s in picked["smiles"])
    rejected = table[~table["pains"].isin(["", "not checked"])]
    assert len(rejected) == hits.summary["n_pains"] > 5
    listed = hits.dropped[hits.dropped["reason"].str.startswith("PAINS")].set_index("id")["reason"]
    for row in rejected.itertuples():
        alerts = {e.GetDescription() for e in catalog.GetMatches(Chem.MolFromSmiles(row.smiles))}
        assert set(row.pains.split("; ")) == alerts
        assert listed[row.compound_id] == f"PAINS alert: {row.pains}"

    # Picks of different clusters are never 0.7 alike, and no cluster gives more than two.
    assert picked["cluster"].value_counts().max() <= 2
    generator = rdFingerprintGenerator.GetMorganGenerator(radius=3, fpSize=2048)
    fps = [generator.GetFingerprint(Chem.MolFromSmiles(s)) for s in picked["smiles"]]
    alike = np.array([DataStructs.BulkTanimotoSimilarity(f, fps) for f in fps]) >= 0.7
    cluster = picked["cluster"].to_numpy()
    assert not (alike & (cluster[:, None] != cluster[None, :])).any()

    # The task is not predicted above chance: summary and every sentence say so.
    assert "includes chance" in hits.summary["warnings"][0]
    assert picked["reason"].str.contains("includes chance").all()


def test_same_seed_same_hits_whatever_the_order_of_the_input(real):
    order = np.random.default_rng(5).permutation(3000)
    mixed = real | {
        "score": real["score"][order],
        "labels": real["labels"].take(order[::-1]),
        "compounds": real["compounds"].iloc[order],
        "fingerprints": real["fingerprints"][order],
    }
    small_plate = {"config": HitsConfig(n=40, per_cluster=2)}
    one, two = build_hits(**real | small_plate, seed=4), build_hits(**mixed | small_plate, seed=4)
    pd.testing.assert_frame_equal(one.table, two.table)
    assert one.summary == two.summary
    config = HitsConfig(n=40, per_cluster=1, similarity=0.4)
    one, other = (build_hits(**real | {"config": config}, seed=seed) for seed in (4, 5))
    assert set(other.picked["compound"]) != set(one.picked["compound"])


def test_ties_give_the_same_hits_in_any_order(small):
    order = np.array([8, 3, 5, 0, 7, 1, 6, 2, 4])
    flat = small | {"score": np.full(9, 0.5, np.float32)}
    mixed = flat | {
        "compounds": flat["compounds"].iloc[order],
        "fingerprints": flat["fingerprints"][order],
        "wells": flat["wells"].iloc[::-1],
    }
    one, two = build_hits(**flat), build_hits(**mixed)
    pd.testing.assert_frame_equal(one.table, two.table)
    pd.testing.assert_frame_equal(one.picklist, two.picklist)
    pd.testing.assert_frame_equal(one.echo, two.echo)


@given(
    st.integers(1, 12),
    st.floats(1, 3),
    st.integers(1, 3),
    st.booleans(),
    st.lists(st.integers(0, 3), min_size=9, max_size=9),
)
@settings(max_examples=20, deadline=None)
def test_exactly_n_or_all_survivors_are_picked(small, n, pool, cap, pains, score):
    config = HitsConfig(n=n, pool=pool, per_cluster=cap, filters=["pains"] if pains else [])
    hits = build_hits(**small | {"config": config, "score": np.array(score, np.float32)})
    survivors = 5 if pains else 7
    assert len(hits.picked) == min(n, survivors) == len(hits.picklist) == len(hits.echo)
    assert not pains or hits.picked["pains"].isin(["", "no structure"]).all()
    # Everything is accounted for: 9 compounds are candidates or listed, rejected ones are listed too.
    outside = hits.dropped[hits.dropped["stage"].str.startswith("rank")]
    assert len(outside) + len(hits.table) == 9
    assert any("Only" in note for note in hits.summary["notes"]) == (n > survivors)


def test_lifting_the_cap_is_said(small):
    twins = small["compounds"].assign(smiles=["CCCCc1ccccc1"] * 9)
    fps = np.repeat(small["fingerprints"][:1], 9, axis=0)
    config = HitsConfig(n=4, per_cluster=3)
    hits = build_hits(**small | {"compounds": twins, "fingerprints": fps, "config": config})
    assert len(hits.picked) == 4
    assert hits.summary["cap_lifted"]
    assert "cap of 3 per cluster was lifted; the most from one cluster is 4" in " ".join(hits.summary["notes"])
    roomy = build_hits(**small | {"compounds": twins, "fingerprints": fps, "config": HitsConfig(n=3, per_cluster=3)})
    assert not roomy.summary["cap_lifted"]


def test_alerts_may_be_kept_but_are_said(small):
    hits = build_hits(**small | {"config": HitsConfig(n=7, filters=[])})
    by_name = hits.picked.set_index("compound_id")
    assert "PAINS alert" in by_name["reason"]["quinone"]
    assert not hits.dropped["reason"].str.startswith("PAINS").any()


def test_candidates_that_the_store_lacks_are_replaced_by_others(small):
    store = pd.DataFrame({"compound_id": ["aspirin", "ibuprofen", "ethanol"], "plate": "S", "well": ["A1", "A2", "A3"]})
    hits = build_hits(**small, sources=store)
    assert hits.picked["compound_id"].tolist() == ["aspirin", "ethanol", "ibuprofen"]
    assert set(hits.picklist["source_plate"]) == {"S"}
    listed = hits.dropped[hits.dropped["reason"].str.contains("compound store")]["id"].tolist()
    assert listed == ["caffeine", "rhodanine", "quinone", "=naked"]
    assert not any("Source wells are those" in n for n in hits.summary["notes"])


def test_screens_without_wells_or_structures(small):
    bare = small["compounds"][["compound"]]
    hits = build_hits(**small | {"compounds": bare, "fingerprints": None, "wells": None})
    assert len(hits.picked) == 3
    assert len(hits.picklist) == len(hits.echo) == 0
    assert hits.picked["nearest_similarity"].isna().all()
    assert any("no structure" in n for n in hits.summary["notes"])
    assert any("no source well" in n for n in hits.summary["notes"])


def test_no_candidates_at_all(small, tmp_path):
    hits = build_hits(**small | {"score": np.full(9, np.nan)})
    hits.write(tmp_path)
    assert len(hits.table) == 0
    assert hits.summary["n_picked"] == 0
    back, _ = read_table(tmp_path / "hits.parquet")
    assert back.columns.tolist() == HIT_COLUMNS


def test_missing_metrics_warn(small):
    hits = build_hits(**small | {"metrics": {}})
    assert "could not be evaluated" in hits.summary["warnings"][0]


def test_mistakes_are_found_before_any_work(small):
    config = dataclasses.replace(small["config"], volume_nl=26)
    with pytest.raises(ConfigError, match=r"26 nL.*Nearest: 25 nL, 27.5 nL"):
        build_hits(**small | {"config": config})
    with pytest.raises(ConfigError, match=r"hits\.n is 0"):
        build_hits(**small | {"config": HitsConfig(n=0)})
    with pytest.raises(LabelError, match="not among the 2 tasks"):
        build_hits(**small | {"task": "COX"})
    with pytest.raises(ShapeError, match="9 compounds, but 8 fingerprints"):
        build_hits(**small | {"fingerprints": small["fingerprints"][:8]})


def test_plate_names_that_look_like_formulas_are_noted(small, tmp_path):
    hits = build_hits(**small | {"wells": small["wells"].assign(plate="=P1")})
    hits.write(tmp_path)
    assert any("apostrophe" in n for n in hits.summary["notes"])
    assert set(pd.read_csv(tmp_path / "echo.csv")["Source Plate Barcode"]) == {"'=P1"}


def test_expansion_takes_the_top_of_the_ranking(real):
    hits = build_hits(**real | {"config": HitsConfig(recipe="expansion", n=80)})
    assert hits.picked["rank"].tolist() != []
    assert sorted(hits.picked["rank"]) == list(range(1, 81))
    assert not any("cap" in note for note in hits.summary["notes"])
    assert not hits.dropped["reason"].str.startswith("PAINS").any()


def test_potency_takes_a_handful_of_every_cluster_above_the_bar(real):
    config = HitsConfig(recipe="potency", n=2000, min_score=0.9, per_cluster=2, similarity=0.5)
    hits = build_hits(**real | {"config": config})
    table, picked = hits.table, hits.picked
    assert picked["score"].min() >= 0.9
    assert picked["cluster"].value_counts().max() == 2  # the cap holds although there is room
    survivors = table[
        (table["score"] >= 0.9) & ~table["reason"].str.startswith("Not picked: ") | (table["cluster"] >= 0)
    ]
    assert survivors["cluster"].nunique() == picked["cluster"].nunique()  # no cluster goes without
    for name in ("pains", "reactive", "promiscuous", "autofluorescent"):
        assert not rejected(picked[name].to_numpy(object)).any()
        assert (table[name][table["score"] < 0.9] == "not checked").all()
        assert (table[name][table["score"] >= 0.9] != "not checked").all()
    low = table[table["score"] < 0.9]["reason"]
    assert low.str.contains("is below the bar of 0.9.", regex=False).all()
    # Each removed compound once, with its reasons, in the table and in the list of what was left out.
    lost = hits.dropped[hits.dropped["stage"].str.startswith("filter")].set_index("id")["reason"]
    assert lost.index.is_unique
    against = table[table["reason"].str.contains("alert:|group:|hitter:|autofluorescence:")].set_index("compound_id")
    assert (against["reason"] == "Not picked: " + lost[against.index] + ".").all()
    assert len(against) == len(lost) > 10
    counts = {one["name"]: one for one in hits.summary["filters"]}
    assert sum(one["alone"] for one in counts.values()) <= len(lost) <= sum(one["n"] for one in counts.values())
    assert counts["reactive"]["n"] == lost.str.contains("reactive").sum()
    assert any("each cluster gave 2 at most" in note for note in hits.summary["notes"])
    assert hits.summary["n_below_bar"] == len(low)


def test_a_bar_that_nothing_reaches_is_said(small):
    hits = build_hits(**small | {"config": HitsConfig(n=3, min_score=2.0)})
    assert len(hits.picked) == 0
    assert any("0 of 7 candidates score at least 2; the highest score is 0.90" in n for n in hits.summary["notes"])
    assert hits.table["reason"].iloc[0] == "Not picked: its score 0.9 is below the bar of 2."


def test_off_targets_have_a_column_and_a_reason(small, tmp_path):
    scores = pd.DataFrame({"COX >= 6": 0.1, "hERG": np.linspace(0.9, 0.1, 9)}, index=small["compounds"]["compound"])
    config = HitsConfig(n=3, off_targets=["COX >= 6", "hERG"], off_target_max=0.6)
    hits = build_hits(**small | {"config": config}, evidence=Evidence(off_scores=scores))
    assert hits.picked["compound_id"].tolist() == ["ethanol", "=naked", "ibuprofen"]
    by_name = hits.table.set_index("compound_id")
    assert by_name["reason"]["aspirin"] == "Not picked: off-target: hERG score 0.90."
    assert by_name["off_target_score"]["ethanol"] == pytest.approx(0.4)  # COX is the task's own assay
    hits.write(tmp_path)
    written = read_table(tmp_path / "hits.parquet")[0].columns.tolist()
    at = HIT_COLUMNS.index("pains") + 1
    assert written == [*HIT_COLUMNS[:at], "off_targets", "off_target_score", *HIT_COLUMNS[at:]]
    mol = next(iter(Chem.SDMolSupplier(str(tmp_path / "hits.sdf"))))
    assert float(mol.GetProp("off_target_score")) == pytest.approx(0.4)
