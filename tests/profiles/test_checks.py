from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from phenohit.config import ChecksConfig, Step
from phenohit.data.profiles import Profiles
from phenohit.errors import ColumnError, ConfigError, FileError
from phenohit.profiles.checks import Checks, check_plates, drop_flagged
from phenohit.profiles.steps import do_steps

PLATES, F, COMPOUNDS = 6, 30, 72
ROWS, COLUMNS = 8, 12


def screen(seed=0, n_plates=PLATES, batches=2, batch_shift=2.0, strength=1.5) -> Profiles:
    """Simulate clean plates of 96 wells: 24 controls in random wells, every compound once per plate."""
    rng = np.random.default_rng(seed)
    truth = np.random.default_rng(7).normal(size=(COMPOUNDS, F)) * strength
    wells = [f"{chr(65 + i // COLUMNS)}{i % COLUMNS + 1:02d}" for i in range(ROWS * COLUMNS)]
    shift = rng.normal(size=(batches, F)) * batch_shift
    X, rows = [], []
    for p in range(n_plates):
        place = rng.permutation(96)
        compound = np.full(96, -1)
        compound[place[24:]] = np.arange(COMPOUNDS)
        signal = np.where(compound[:, None] >= 0, truth[compound], 0)
        X.append(signal + rng.normal(size=(96, F)) + shift[p % batches] + rng.normal(size=F) * 0.5)
        rows.append(
            pd.DataFrame(
                {
                    "Metadata_Plate": f"P{p}",
                    "Metadata_Batch": f"b{p % batches}",
                    "Metadata_Well": wells,
                    "Metadata_pert_type": np.where(compound < 0, "negcon", "trt"),
                    "Metadata_compound_id": np.where(compound < 0, "DMSO", [f"c{c}" for c in compound]),
                    "Metadata_concentration_uM": np.where(compound < 0, "", "5"),
                    "Metadata_cell_count": rng.poisson(800, 96).astype(str),
                }
            )
        )
    table = pd.concat(rows, ignore_index=True).astype(str)
    return Profiles(np.vstack(X).astype(np.float32), table, [f"Cells_{j}" for j in range(F)])


def altered(given: Profiles, X=None, **columns) -> Profiles:
    return Profiles(given.X if X is None else X.astype(np.float32), given.rows.assign(**columns), given.features)


def checked(given: Profiles, **config) -> Checks:
    after, _ = do_steps(given, [Step("normalise", "standardize")])
    return check_plates(given, after, ChecksConfig(**config))


def value(checks: Checks, name: str) -> float:
    return float(checks.summary.set_index("name")["value"][name])


@pytest.fixture(scope="module")
def clean() -> Checks:
    return checked(screen())


def at_edge(given: Profiles) -> np.ndarray:
    well = given.rows["Metadata_Well"]
    return (well.str[0].isin(["A", "H"]) | well.str[1:].isin(["01", "12"])).to_numpy()


def test_clean_plates_are_not_flagged(clean):
    assert clean.flags.empty
    assert (clean.plates["rules"] == "").all()
    assert clean.plates["n_negcon"].tolist() == [24] * PLATES
    assert clean.plates["position_excess"].mean() == pytest.approx(0, abs=0.15)
    assert value(clean, "position_p") > 0.01


@pytest.mark.parametrize("seed", range(1, 9))
def test_other_clean_screens_are_not_flagged_either(seed):
    assert checked(screen(seed)).flags.empty


def test_plates_and_maps_count_wells(clean):
    assert clean.plates["n_wells"].sum() == len(clean.cells) == 96 * PLATES
    assert clean.plates["n_trt"].tolist() == [72] * PLATES
    assert clean.plates["batch"].tolist() == ["b0", "b1"] * 3
    assert clean.cells.iloc[13][["plate", "well", "row", "column"]].tolist() == ["P0", "B02", 2, 2]
    assert len(clean.positions) == 96
    assert clean.positions["n_control"].sum() == 24 * PLATES
    assert clean.positions["cells"].mean() == pytest.approx(1, abs=0.02)
    assert clean.plates["control_cells_cv"].between(0.01, 0.07).all()  # Poisson: 1 / sqrt(800)


def test_edge_effect_is_found_on_its_plate():
    given = screen()
    X = given.X.copy()
    bad = at_edge(given) & (given.rows["Metadata_Plate"] == "P2").to_numpy()
    X[bad] += 4
    found = checked(altered(given, X))
    assert found.flags.loc[found.flags["rule"] == "position", "plate"].tolist() == ["P2"]
    row = found.plates.set_index("plate").loc["P2"]
    assert row["rules"] == "position"
    assert row["position_excess"] > 0.4
    assert row["position_p"] < 1e-5


def test_edge_effect_in_cell_counts_and_over_all_plates():
    given = screen()
    count = given.rows["Metadata_cell_count"].astype(int)
    thinner = count.where(~at_edge(given), (count * 0.7).astype(int)).astype(str)
    found = checked(altered(given, Metadata_cell_count=thinner))
    assert set(found.flags["rule"]) == {"position"}
    assert set(found.flags["plate"]) == {f"P{i}" for i in range(PLATES)}
    assert found.flags["text"].str.contains("cell counts").all()
    edge = found.positions["row"].isin([1, 8]) | found.positions["column"].isin([1, 12])
    assert found.positions.loc[edge, "cells"].mean() < 0.8 * found.positions.loc[~edge, "cells"].mean()
    X = given.X.copy()
    X[at_edge(given), :8] += 2
    everywhere = checked(altered(given, X))
    assert value(everywhere, "position_p") < 0.01
    assert value(everywhere, "position_share") > 2 * value(everywhere, "position_expected")


def test_batch_shift_shows_before_and_is_gone_after(clean):
    table = clean.separation.set_index(["stage", "what"])
    assert table.loc[("before", "batch"), "share"] > 0.95
    assert table.loc[("before", "batch"), "expected"] == pytest.approx(2 / 5)
    assert table.loc[("after", "batch"), "share"] < 0.55
    assert table.loc[("before", "plate"), "expected"] == pytest.approx(23 / 143)
    assert table.loc[("before", "plate"), "share"] > table.loc[("after", "plate"), "share"]


def test_controls_that_cluster_by_position():
    """All control wells are where they are on every plate, and each place has its own look."""
    given = screen()
    rows, X = given.rows.copy(), given.X.copy()
    first = rows["Metadata_pert_type"][:96].to_numpy()
    for name in ("Metadata_pert_type", "Metadata_compound_id"):
        rows[name] = np.tile(rows[name][:96].to_numpy(), PLATES)
    look = np.random.default_rng(3).normal(size=(96, F)) * (first == "negcon")[:, None]
    fixed = Profiles(X, rows, given.features)
    table = checked(altered(fixed, X + 2 * np.tile(look, (PLATES, 1)))).separation.set_index(["stage", "what"])
    assert table.loc[("after", "position"), "share"] > 0.8
    assert table.loc[("after", "position"), "expected"] == pytest.approx(1 / 24)
    controls = (rows["Metadata_pert_type"] == "negcon").to_numpy()
    noise = np.random.default_rng(4).normal(size=X.shape)
    none = checked(altered(fixed, np.where(controls[:, None], noise, X))).separation.set_index(["stage", "what"])
    assert none.loc[("after", "position"), "share"] < 0.12


def test_dead_plate_does_not_replicate():
    given = screen()
    X = given.X.copy()
    dead = (given.rows["Metadata_Plate"] == "P4").to_numpy()
    X[dead] = np.random.default_rng(0).normal(size=(96, F))
    count = given.rows["Metadata_cell_count"].where(~dead, "40")
    found = checked(altered(given, X, Metadata_cell_count=count))
    assert set(found.flags["plate"]) == {"P4"}
    assert set(found.flags["rule"]) == {"few_cells", "replicates"}
    assert found.plates.set_index("plate").loc["P4", "rules"] == "few_cells;replicates"


def test_control_wells_with_few_cells_or_far_away():
    given = screen()
    control = np.flatnonzero((given.rows["Metadata_pert_type"] == "negcon").to_numpy())
    thin, far = control[3], control[30]
    X, count = given.X.copy(), given.rows["Metadata_cell_count"].copy()
    count.iloc[thin] = "100"
    X[far] += 8
    found = checked(altered(given, X, Metadata_cell_count=count)).flags.set_index("rule")
    place = given.rows[["Metadata_Plate", "Metadata_Well"]]
    assert found.loc["few_cells", ["plate", "well"]].tolist() == place.iloc[thin].tolist()
    assert found.loc["outlier", ["plate", "well"]].tolist() == place.iloc[far].tolist()
    assert len(found) == 2


def test_plate_without_controls():
    given = screen()
    kind = given.rows["Metadata_pert_type"].where(given.rows["Metadata_Plate"] != "P1", "trt")
    given = altered(given, Metadata_pert_type=kind)
    found = check_plates(given, given, ChecksConfig()).flags
    assert found[["plate", "rule"]].to_numpy().tolist() == [["P1", "no_controls"]]


def test_replicates_by_hand(clean):
    given = screen()
    after, _ = do_steps(given, [Step("normalise", "standardize")])
    rows = np.flatnonzero((given.rows["Metadata_compound_id"] == "c5").to_numpy())
    r = np.corrcoef(after.X[rows].astype(np.float64))[np.triu_indices(len(rows), 1)]
    found = clean.replicates.set_index("compound_id").loc["c5"]
    assert found["median_r"] == pytest.approx(np.median(r), abs=1e-6)
    assert found["n_wells"] == PLATES
    assert value(clean, "percent_replicating") == 100
    assert value(clean, "replicate_r") > 0.5
    assert abs(value(clean, "null_r")) < 0.1


def test_no_signal_replicates_at_the_rate_of_chance():
    shares = [value(checked(screen(s, strength=0)), "percent_replicating") for s in range(4)]
    assert np.mean(shares) == pytest.approx(5, abs=5)


def test_wells_always_at_one_position_are_reported(clean):
    assert clean.replicates["same_position"].mean() < 0.1
    given = screen()
    rows = given.rows.copy()
    for name in ("Metadata_pert_type", "Metadata_compound_id", "Metadata_concentration_uM"):
        rows[name] = np.tile(rows[name][:96].to_numpy(), PLATES)
    found = checked(Profiles(given.X, rows, given.features))
    assert (found.replicates["same_position"] == 1).all()


def test_same_seed_same_answer(clean):
    again = checked(screen())
    for name in set(vars(clean)) - {"history"}:
        pd.testing.assert_frame_equal(getattr(again, name), getattr(clean, name))


def test_one_feature_no_wells_known_and_one_plate():
    given = screen()
    counts = Profiles(given.X[:, :1], given.rows.drop(columns=["Metadata_Well", "Metadata_Batch"]), ["Cells_Count"])
    found = check_plates(counts, counts, ChecksConfig())
    assert "no correlation" in found.summary.set_index("name")["text"]["note_replicates"]
    assert found.plates["position_share"].isna().all()
    single = given.take(np.arange(96))
    one = check_plates(single, single, ChecksConfig())
    assert one.separation.empty
    assert "no treatment has two wells" in one.summary["text"].tolist()


def test_saved_and_loaded(clean, tmp_path):
    clean.save(tmp_path / "checks")
    again = Checks.load(tmp_path / "checks")
    for name in set(vars(clean)) - {"history"}:
        pd.testing.assert_frame_equal(getattr(again, name), getattr(clean, name), check_dtype=False)
    (tmp_path / "checks" / "map.parquet").unlink()
    with pytest.raises(FileError, match="does not exist"):
        Checks.load(tmp_path / "checks")


def test_flagged_wells_and_plates_are_dropped_and_listed():
    given = screen()
    control = np.flatnonzero((given.rows["Metadata_pert_type"] == "negcon").to_numpy())
    count = given.rows["Metadata_cell_count"].copy()
    count.iloc[control[3]] = "100"
    count = count.where(given.rows["Metadata_Plate"] != "P4", "30")
    given = altered(given, Metadata_cell_count=count)
    found = checked(given)
    left, lost = drop_flagged(given, found, ChecksConfig())
    assert left is given
    assert lost.empty
    left, lost = drop_flagged(given, found, ChecksConfig(drop=["few_cells"]))
    assert len(left) + len(lost) == len(given)
    assert len(lost) == 97
    assert "P4" not in set(left.rows["Metadata_Plate"])
    place = " ".join(given.rows.loc[control[3], ["Metadata_Plate", "Metadata_Well"]])
    assert lost.set_index("id")["reason"][place].startswith("few_cells: control well has 100 cells")
    assert drop_flagged(given, found, ChecksConfig(drop=["outlier"]))[0].X.shape == given.X.shape


def test_a_flagged_well_without_a_name_takes_no_other_with_it():
    given = screen()
    control = np.flatnonzero((given.rows["Metadata_pert_type"] == "negcon").to_numpy())[3]
    count, well = given.rows["Metadata_cell_count"].copy(), given.rows["Metadata_Well"].copy()
    count.iloc[control] = "100"
    plate = given.rows["Metadata_Plate"].iloc[control]
    own = np.flatnonzero((given.rows["Metadata_Plate"] == plate).to_numpy())
    well.iloc[[control, *np.setdiff1d(own, control)[:5]]] = ""
    given = altered(given, Metadata_cell_count=count, Metadata_Well=well)
    for rows in (given, Profiles(given.X, given.rows.drop(columns="Metadata_Well"), given.features)):
        left, lost = drop_flagged(rows, checked(rows), ChecksConfig(drop=["few_cells"]))
        assert len(left) == len(given)
        assert lost[["what", "id"]].to_numpy().tolist() == [["plate", plate]]
        assert lost["reason"].tolist() == ["few_cells: 1 flagged wells have no name, so they are kept"]


def test_mistakes():
    given = screen()
    with pytest.raises(ConfigError, match="Nearest: few_cells"):
        check_plates(given, given, ChecksConfig(drop=["few_cell"]))
    bare = Profiles(given.X, given.rows.drop(columns="Metadata_Plate"), given.features)
    with pytest.raises(ColumnError, match="Metadata_Plate"):
        check_plates(bare, bare, ChecksConfig())
