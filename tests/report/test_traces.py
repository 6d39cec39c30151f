"""How the final model was fitted: panels, thinning, and what the reader is told."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from phenohit.files import read_table, write_json, write_table
from phenohit.models.contract import Followed
from phenohit.report.traces import POINTS, thin, trace_chart, traces_facts


@pytest.fixture(scope="module")
def facts(run_folder):
    return traces_facts(run_folder)


def test_panels_go_from_errors_to_entries(facts, run_folder):
    diagnosed = pd.read_csv(run_folder / "models/final/diagnostics.csv").set_index("what")
    assert [p["kind"] for p in facts["panels"]] == ["error"] * 2 + ["precision"] * 2 + ["entry"] * 4
    entries = [p["rhat"] for p in facts["panels"] if p["kind"] == "entry"]
    assert entries == sorted(entries, reverse=True)
    of_entries = diagnosed[diagnosed.index.str.contains(" in ")]["rhat"]
    assert (entries[0], entries[-1]) == pytest.approx((of_entries.max(), of_entries.min()))
    assert facts["panels"][0]["rhat"] is None
    assert (facts["n_series"], facts["n_steps"], facts["n_burn"]) == (2, 300, 100)
    assert [len(p["lines"]) for p in facts["panels"]] == [2] * 8


def test_what_counts_takes_its_share_of_the_range(facts, run_folder):
    """The first steps lie far off; what is used is still drawn over a third of the height."""
    table, _ = read_table(run_folder / "models/final/progress.parquet")
    for panel in facts["panels"]:
        mine = table[(table["what"] == panel["title"]) & table["used"]]["value"]
        assert panel["low"] <= mine.min() <= mine.max() <= panel["high"]
        if panel["kind"] != "error":
            assert (panel["high"] - panel["low"]) <= 3.3 * (mine.max() - mine.min())


def test_what_is_told(facts, run_folder, tmp_path):
    diagnosed = pd.read_csv(run_folder / "models/final/diagnostics.csv")
    share = (diagnosed["rhat"] < 1.05).mean()
    assert facts["told"][1].startswith("2 chains of 300 sweeps, of which the first 100 are not used. ")
    assert f"Of {len(diagnosed)} quantities that were followed, {share:.0%} have" in facts["told"][1]
    assert facts["settled"] is False  # 13 of 14
    assert facts["advice"] == "models: {macau: {sweeps: 600, burn_in: 200}}"
    folder = tmp_path / "models" / "final"
    table, _ = read_table(run_folder / "models/final/progress.parquet")
    write_table(folder / "progress.parquet", table)
    write_table(folder / "diagnostics.csv", diagnosed.assign(rhat=1.001))
    told = traces_facts(tmp_path)
    assert told["settled"] is True
    assert told["told"][0] == "More sweeps would not change much."
    write_table(folder / "diagnostics.csv", diagnosed.assign(rhat=1.001, ess=21.0))
    assert traces_facts(tmp_path)["advice"] == "models: {macau: {sweeps: 1500, burn_in: 500}}"
    write_json(tmp_path / "hits" / "plan.json", {"model": "own", "input": "profiles", "tasks": ["t"]})
    told = traces_facts(tmp_path)
    assert (told["label"], told["advice"], told["step"]) == ("own on profiles", "", "steps")
    (folder / "diagnostics.csv").unlink()
    assert traces_facts(tmp_path)["settled"] is None
    write_json(tmp_path / "hits" / "plan.json", {"model": "own", "input": "profiles", "tasks": []})
    assert traces_facts(tmp_path) is None


def test_odd_files_do_not_stop_the_report(tmp_path):
    assert traces_facts(tmp_path) is None
    path = tmp_path / "models" / "final" / "progress.parquet"
    write_table(path, pd.DataFrame({"step": [1], "what": ["x"], "value": [1.0], "used": [True]}))
    assert traces_facts(tmp_path)["problem"] == "progress.parquet lacks the columns series."
    table = pd.DataFrame({"series": 1, "step": [1, 2], "what": "x in y", "value": [np.nan, np.inf], "used": True})
    write_table(path, table)
    assert traces_facts(tmp_path) is None
    write_table(path, table.assign(value=3.0))  # what never changes still has a range
    panel = traces_facts(tmp_path)["panels"][0]
    assert panel["low"] < 3 < panel["high"]
    ElementTree.fromstring(str(trace_chart(panel)))
    write_table(path, pd.DataFrame(columns=["series", "step", "what", "value", "used"]))
    assert traces_facts(tmp_path) is None


def test_compounds_have_the_names_that_users_gave(run_folder, tmp_path):
    table, _ = read_table(run_folder / "models/final/progress.parquet")
    write_table(tmp_path / "models/final/progress.parquet", table)
    compounds, _ = read_table(run_folder / "compounds.parquet")
    write_table(tmp_path / "compounds.parquet", compounds.assign(compound_id="MY-" + compounds["compound"]))
    titles = [p["title"] for p in traces_facts(tmp_path)["panels"]]
    assert [t for t in titles if " in " in t]
    assert all(t.startswith("MY-K") for t in titles if " in " in t)


def test_the_drawing(facts):
    panel = facts["panels"][4]
    drawn = ElementTree.fromstring(str(trace_chart(panel)))
    lines = [p for p in drawn.iter("path") if (p.get("class") or "").startswith("trace")]
    assert len(lines) == 2
    for path, one in zip(lines, panel["lines"], strict=True):
        places = re.findall(r"([\d.]+) ([\d.]+)", path.get("d"))
        assert len(places) == len(one["step"]) == 300
        assert all(10 <= float(y) <= 146 for _, y in places)
    assert [r.get("class") for r in drawn.iter("rect")] == ["band"]


@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=700), st.sampled_from([4, 10, POINTS]))
def test_thinning_loses_no_excursion(values, most):
    step, value = np.arange(1.0, len(values) + 1), np.array(values)
    kept_step, kept = thin(step, value, most)
    assert len(kept) <= most or len(values) <= most
    assert (np.diff(kept_step) > 0).all()
    assert (kept.min(), kept.max()) == (value.min(), value.max())
    assert (value[kept_step.astype(int) - 1] == kept).all()
    if len(values) > most:  # each stretch keeps its own extremes
        for part in np.split(value, np.linspace(0, len(values), most // 2 + 1).astype(int)[1:-1]):
            assert {part.min(), part.max()} <= set(kept)


def test_of_a_real_fit(tmp_path):
    """A tiny fit of Macau tells what the report can draw."""
    from scipy import sparse

    from phenohit.data.labels import Labels
    from phenohit.data.profiles import Profiles
    from phenohit.models import find_model

    rng = np.random.default_rng(0)
    X = rng.normal(size=(120, 6)).astype(np.float32)
    Y = (X @ rng.normal(size=(6, 4)) > 0).astype(np.float32)
    row, column = np.nonzero(rng.random(Y.shape) < 0.7)
    tasks = pd.DataFrame({"task": [f"t{i}" for i in range(4)], "assay": "a", "kind": "binary", "threshold": np.nan})
    compounds = pd.DataFrame({"compound": [f"c{i}" for i in range(120)]})
    labels = Labels(sparse.csr_matrix((Y[row, column], (row, column)), shape=Y.shape), compounds, tasks)
    data = Profiles(X, pd.DataFrame({"Metadata_compound": compounds["compound"]}), [f"f{i}" for i in range(6)])
    macau = find_model("macau")
    assert issubclass(macau, Followed)
    assert not issubclass(find_model("forest"), Followed)
    fitted = macau(latent=4, sweeps=80, burn_in=20, chains=2).fit(data, labels)
    write_table(tmp_path / "models/final/progress.parquet", fitted.progress())
    write_table(tmp_path / "models/final/diagnostics.csv", fitted.diagnostics())
    facts = traces_facts(tmp_path)
    assert (facts["n_series"], facts["n_steps"], facts["n_burn"]) == (2, 80, 20)
    assert {"precision", "entry"} <= {p["kind"] for p in facts["panels"]}
    assert all(p["rhat"] is not None for p in facts["panels"] if p["kind"] == "entry")
    assert facts["settled"] is not None
    for panel in facts["panels"]:
        ElementTree.fromstring(str(trace_chart(panel)))
