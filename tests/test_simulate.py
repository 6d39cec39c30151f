"""The simulated screen: reproducible, in the promised form, and its planted truth can be found again."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rdkit import Chem
from rdkit.Chem import rdFingerprintGenerator
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold

from phenohit.chem.library import GROUPS
from phenohit.config import Config, ProfileSource, StructureSource
from phenohit.data.read import read_profiles, read_structures
from phenohit.data.simulate import draw_latents, response
from phenohit.data.simulate_assays import auroc, draw_assays, measure_assays
from phenohit.data.simulate_layout import feature_names
from phenohit.errors import ConfigError
from phenohit.settings import read_config
from phenohit.simulate import SimulateSettings, command, simulate

SMALL = SimulateSettings(n_compounds=330, n_features=30, dose_series_share=0.1)


@dataclasses.dataclass
class Screen:
    """What a simulation wrote, read back with pandas alone."""

    folder: Path
    counts: dict[str, int]
    settings: SimulateSettings = SMALL

    def __post_init__(self) -> None:
        self.wells = pd.read_parquet(self.folder / "simulated_profiles.parquet")
        self.features = [c for c in self.wells if not c.startswith("Metadata_")]
        for name in ("structures", "activities", "truth", "answers"):
            setattr(self, name, pd.read_csv(self.folder / f"simulated_{name}.csv"))


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Screen:
    folder = tmp_path_factory.mktemp("small")
    return Screen(folder, simulate(folder, SMALL))


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Screen:
    """The screen as it comes by default."""
    folder = tmp_path_factory.mktemp("demo")
    return Screen(folder, simulate(folder), SimulateSettings())


def test_same_seed_same_files(small: Screen, tmp_path: Path) -> None:
    simulate(tmp_path, SMALL)
    names = [p.name for p in sorted(small.folder.glob("*.csv"))]
    assert len(names) == 4
    for name in names:
        assert (tmp_path / name).read_bytes() == (small.folder / name).read_bytes()
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "simulated_profiles.parquet"), small.wells)


def test_another_seed_another_screen(small: Screen, tmp_path: Path) -> None:
    simulate(tmp_path, dataclasses.replace(SMALL, seed=1))
    other = pd.read_parquet(tmp_path / "simulated_profiles.parquet")
    assert set(other) != set(small.wells)
    assert not pd.read_csv(tmp_path / "simulated_structures.csv")["smiles"].isin(small.structures["smiles"]).all()


def test_plates_are_384_wells_with_controls_in_fixed_columns(small: Screen) -> None:
    wells = small.wells
    assert not wells.duplicated(["Metadata_Plate", "Metadata_Well"]).any()
    assert wells["Metadata_Well"].str.fullmatch(r"[A-P](0[1-9]|1\d|2[0-4])").all()
    column = wells["Metadata_Well"].str[1:].astype(int)
    assert (column.isin([1, 2, 23, 24]) == (wells["Metadata_pert_type"] != "trt")).all()
    counts = wells.groupby("Metadata_Plate")["Metadata_pert_type"].value_counts().unstack()
    assert (counts["negcon"] == 48).all()
    assert (counts["poscon"] == 16).all()
    assert counts["trt"].max() == 320
    assert (wells.loc[wells["Metadata_pert_type"] == "negcon", "Metadata_compound_id"] == "DMSO").all()
    assert small.counts["wells"] == len(wells)
    assert small.counts["plates"] == wells["Metadata_Plate"].nunique() == 4


def test_replicates_doses_and_batches(small: Screen) -> None:
    treated = small.wells[small.wells["Metadata_pert_type"] == "trt"]
    each = treated.groupby(["Metadata_compound_id", "Metadata_concentration_uM"])
    assert (each.size() == 2).all()
    assert (each["Metadata_Plate"].nunique() == 2).all()
    assert (each["Metadata_Batch"].nunique() == 1).all()
    doses = treated.groupby("Metadata_compound_id")["Metadata_concentration_uM"].agg(set)
    assert len(doses) == 330
    assert doses.map(len).value_counts().to_dict() == {1: 297, 5: 33}
    assert {"1", "3", "10", "30", "100"} in doses.tolist()
    assert small.wells["Metadata_Batch"].nunique() == 2


def test_every_plate_is_scaled_to_its_dmso_wells(small: Screen) -> None:
    dmso = small.wells[small.wells["Metadata_pert_type"] == "negcon"].groupby("Metadata_Plate")[small.features]
    assert np.abs(dmso.mean()).to_numpy().max() < 1e-5
    spread = dmso.std().to_numpy()
    constant = (small.wells[small.features] == 0).all().to_numpy()
    assert constant.sum() == SMALL.n_constant
    np.testing.assert_allclose(spread[:, ~constant], 1, atol=1e-5)


def test_features_are_named_as_cellprofiler_names_them_and_come_in_groups(demo: Screen) -> None:
    X = demo.wells[demo.features].to_numpy()
    assert X.dtype == np.float32
    assert np.isfinite(X).all()
    assert len(demo.features) == 120
    pattern = r"(Cells|Cytoplasm|Nuclei)_(AreaShape|Correlation|Granularity|Intensity|RadialDistribution|Texture)_\w+"
    assert pd.Series(demo.features).str.fullmatch(pattern).all()
    r = np.abs(np.corrcoef(X[:, X.std(axis=0) > 0].T))
    np.fill_diagonal(r, 0)
    assert np.median(r.max(axis=1)) > 0.5  # most features have a near relative
    assert len(set(feature_names(SimulateSettings(n_features=1_800)))) == 1_800


def test_positions_leave_a_trace_only_where_wished(tmp_path: Path) -> None:
    def edge_trace(position_effect: float) -> float:
        settings = dataclasses.replace(SMALL, position_effect=position_effect, effect=0.0, bad_wells=0.0)
        simulate(tmp_path, settings)
        wells = pd.read_parquet(tmp_path / "simulated_profiles.parquet")
        wells = wells[wells["Metadata_pert_type"] == "trt"]
        edge = wells["Metadata_Well"].str[0].isin(["A", "P"])
        features = [c for c in wells if not c.startswith("Metadata_")]
        return float(np.abs(wells.loc[edge, features].mean() - wells.loc[~edge, features].mean()).mean())

    assert edge_trace(0.0) < 0.15
    assert edge_trace(1.0) > 0.4


def test_cells_die_with_dose(small: Screen) -> None:
    wells = small.wells
    count = wells["Metadata_cell_count"].astype(float)
    poscon = count[wells["Metadata_compound_id"] == "SIM-POSCON-TOXIC"].mean()
    dmso = count[wells["Metadata_pert_type"] == "negcon"].mean()
    assert poscon < 0.4 * dmso
    treated = wells["Metadata_pert_type"] == "trt"
    by_dose = count[treated].groupby(wells["Metadata_concentration_uM"][treated].astype(float)).quantile(0.1)
    assert by_dose[100.0] < by_dose[1.0] - 0.2 * dmso


@given(st.floats(3, 10), st.floats(0.001, 1_000), st.floats(0, 2))
def test_dose_response_is_hill_with_slope_1(potency: float, dose: float, shift: float) -> None:
    half_uM = 10 ** (6 - potency + shift)
    at_half = response(np.array([potency]), np.array([half_uM]), shift)
    assert at_half == pytest.approx(0.5)
    low, high = response(np.full(2, potency), np.array([dose, 2 * dose]), shift)
    assert 0 <= low <= high <= 1
    assert low / (1 - low) == pytest.approx(dose / half_uM, rel=1e-6) or low > 1 - 1e-9


def test_activities_are_sparse_repeated_and_cut_at_the_threshold(demo: Screen) -> None:
    long = demo.activities
    assert list(long) == ["compound_id", "assay", "value"]
    pairs = long.groupby(["assay", "compound_id"])["value"]
    assert len(pairs) / (800 * 16) == pytest.approx(0.35, abs=0.02)
    assert (pairs.size() == 2).mean() == pytest.approx(0.1, abs=0.02)
    np.testing.assert_allclose(long["value"] * 100, (long["value"] * 100).round(), atol=1e-6)
    truth = demo.truth.set_index("assay")
    active = (pairs.mean() >= 6.0).groupby("assay").agg(["sum", "mean"]).loc[truth.index]
    assert (active["sum"] == truth["n_active"]).all()
    assert active["mean"].between(0.10, 0.40).all()
    assert (truth["n_active"] >= 25).all()


def test_ceiling_is_the_auroc_of_what_can_be_seen() -> None:
    settings = SimulateSettings(n_compounds=500, seed=5)
    rng = np.random.default_rng(0)
    series = np.repeat(np.arange(100), 5)
    latents = draw_latents(settings, series, series % 7)
    groups = rng.random((500, len(GROUPS))) < 0.15
    assays = draw_assays(settings, latents, groups, list(GROUPS), rng.normal(size=500))
    measured, truth = measure_assays(settings, assays)
    for column, row in enumerate(truth.itertuples()):
        mine = measured[measured["column"] == column].groupby("compound")["value"].mean() >= settings.threshold
        expected = roc_auc_score(mine, assays.visible(column)[mine.index])
        assert row.ceiling_auroc == pytest.approx(expected, abs=1e-4)
        assert (row.ceiling_auroc == 0.5) == (row.kind == "invisible")


def test_without_noise_the_ceiling_is_1(tmp_path: Path) -> None:
    simulate(tmp_path, dataclasses.replace(SMALL, measurement_sd=0.0, unseen_sd=0.0))
    truth = pd.read_csv(tmp_path / "simulated_truth.csv")
    assert (truth.loc[truth["kind"] != "invisible", "ceiling_auroc"] > 0.999).all()


def test_actives_can_be_measured_more_often_at_the_same_fill() -> None:
    settings = SimulateSettings(n_compounds=3_000, fill_bias=1.0)
    latents = draw_latents(settings, np.arange(3_000), np.zeros(3_000, dtype=int))
    assays = draw_assays(settings, latents, np.zeros((3_000, len(GROUPS)), bool), list(GROUPS), np.arange(3_000.0))
    measured = measure_assays(settings, assays)[0].drop_duplicates(["compound", "column"])
    value = np.column_stack([assays.value(j) for j in range(len(assays))])
    assert len(measured) / value.size == pytest.approx(0.35, abs=0.01)
    is_measured = np.zeros(value.shape, bool)
    is_measured[measured["compound"], measured["column"]] = True
    active = value >= settings.threshold
    assert is_measured[active].mean() > is_measured[~active].mean() + 0.15


@settings(max_examples=40)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 5)), min_size=2, max_size=40))
def test_auroc_agrees_with_scikit_learn(rows: list[tuple[bool, int]]) -> None:
    is_active, score = (np.array(column) for column in zip(*rows, strict=True))
    if is_active.all() or not is_active.any():
        assert np.isnan(auroc(is_active, score))
    else:
        assert auroc(is_active, score) == pytest.approx(roc_auc_score(is_active, score))


def _cross_validate(X: np.ndarray, y: np.ndarray, series: np.ndarray) -> float:
    scores = []
    for train, test in GroupKFold(5, shuffle=True, random_state=0).split(X, y, series):
        forest = RandomForestClassifier(40, min_samples_leaf=2, random_state=0).fit(X[train], y[train])
        scores.append(roc_auc_score(y[test], forest.predict_proba(X[test])[:, 1]))
    return float(np.mean(scores))


def test_planted_truth_is_found_again(demo: Screen) -> None:
    treated = demo.wells[demo.wells["Metadata_pert_type"] == "trt"]
    by_compound = treated.groupby("Metadata_compound_id")
    X = by_compound[demo.features].median()
    count = treated["Metadata_cell_count"].astype(float).groupby(treated["Metadata_compound_id"]).mean().to_numpy()
    structures = demo.structures.set_index("compound_id").loc[X.index]
    generator = rdFingerprintGenerator.GetMorganGenerator(radius=3, fpSize=2048)
    ecfp = np.array([generator.GetFingerprintAsNumPy(Chem.MolFromSmiles(s)) for s in structures["smiles"]])
    series = structures["series"].to_numpy()
    mean = demo.activities.groupby(["assay", "compound_id"])["value"].mean().unstack(0).reindex(X.index)
    rows = []
    for assay in demo.truth.itertuples():
        known = mean[assay.assay].notna().to_numpy()
        y = (mean[assay.assay].to_numpy()[known] >= assay.threshold).astype(int)
        found = {"profile": _cross_validate(X.to_numpy()[known], y, series[known])}
        found["count"] = float(roc_auc_score(y, -count[known]))
        if assay.kind == "chemistry":
            found["ecfp"] = _cross_validate(ecfp[known], y, series[known])
        rows.append({"kind": assay.kind, "ceiling": assay.ceiling_auroc, **found})
    got = pd.DataFrame(rows).groupby("kind").mean()
    morphology = got.loc["morphology"]
    assert 0.85 < morphology["ceiling"] < 0.97
    assert morphology["profile"] > 0.8
    assert morphology["ceiling"] - 0.12 < morphology["profile"] < morphology["ceiling"]
    assert abs(morphology["count"] - 0.5) < 0.1  # death is independent of the mechanisms
    # Chance: three assays of about 280 labels, 20 % active, have a mean with a spread of 0.03.
    assert abs(got.loc["invisible", "profile"] - 0.5) < 0.09
    assert got.loc["cytotoxicity", "count"] > 0.85
    assert abs(got.loc["cytotoxicity", "count"] - got.loc["cytotoxicity", "profile"]) < 0.06
    assert got.loc["chemistry", "ecfp"] > 0.75
    assert got.loc["chemistry", "ecfp"] > got.loc["chemistry", "profile"] + 0.2


def test_readers_and_settings_take_the_files_as_they_are(small: Screen) -> None:
    config = read_config([str(small.folder / "simulated.yaml")], prog="phenohit run", description="", kind=Config)
    assert config.simulated
    assert config.name.startswith("SIMULATED")
    assert config.activities[0].thresholds == [6.0]
    assert config.splits[0].kind == "series"
    profiles, lost = read_profiles(ProfileSource(path=config.profiles.path))
    assert len(profiles) == len(small.wells)
    assert profiles.features == small.features
    assert set(lost["what"]) <= {"column", "feature"}
    structures = read_structures(StructureSource(**vars(config.structures)))
    assert len(structures) == 330


def test_everything_says_it_is_simulated(small: Screen) -> None:
    names = {p.name for p in small.folder.iterdir()}
    expected = {"profiles.parquet", "structures.csv", "activities.csv", "truth.csv", "answers.csv"}
    assert names == {f"simulated_{name}" for name in expected} | {"simulated.yaml", "README.txt"}
    assert "SIMULATED" in (small.folder / "README.txt").read_text().splitlines()[0]
    assert "SIMULATED" in (small.folder / "simulated.yaml").read_text().splitlines()[0]
    for table, column in ((small.structures, "compound_id"), (small.activities, "compound_id")):
        assert table[column].str.fullmatch(r"SIM-\d{4}").all()
    assert small.truth["assay"].str.startswith("sim_").all()
    assert small.wells["Metadata_Plate"].str.startswith("SIM-").all()


def test_command_tells_what_it_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command(str(tmp_path / "screen"), dataclasses.replace(SMALL, n_compounds=60))
    said = capsys.readouterr().out
    assert "Simulated 60 compounds" in said
    assert str(tmp_path / "screen" / "simulated.yaml") in said


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"fill": 1.5}, "settings.fill is 1.5. Expected: a share between 0 and 1"),
        ({"n_compounds": 0}, "settings.n_compounds is 0"),
        ({"n_constant": 120}, "settings.n_constant is 120. Expected: below n_features"),
        ({"dose_uM": 0.0}, "settings.dose_uM is 0.0"),
        ({"dose_series_uM": (1.0, 10.0)}, "the dose of every compound"),
        ({"unseen_sd": -1.0}, "settings.unseen_sd is -1.0"),
    ],
)
def test_impossible_settings_are_refused(wrong: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said.replace(".", r"\.")):
        SimulateSettings(**wrong)


def test_more_features_than_names_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"settings\.n_features is 9,999"):
        feature_names(SimulateSettings(n_features=9_999))


def test_the_command_imports_nothing_heavy_before_it_runs() -> None:
    code = "import sys, phenohit.simulate; print(sorted({'numpy', 'pandas', 'rdkit', 'scipy'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
