from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from phenohit.data.profiles import Profiles
from phenohit.errors import ColumnError, ConfigError, FileError, ShapeError
from phenohit.profiles.select import OPERATIONS, Limits, Select
from phenohit.profiles.verbs import pycytominer


def screen(n=80, seed=0) -> Profiles:
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 12))
    X[:, 1] = X[:, 0] + 0.05 * rng.normal(size=n)
    X[:, 2] = 1.0
    X[: n // 4, 3] = np.nan
    X[5, 4] = 900.0
    X[:, 5] = np.arange(n) // (n - 2)
    groups = np.arange(n) % 10
    X[:, 6] = groups + 0.01 * rng.normal(size=n)
    names = [f"Cells_{j}" for j in range(11)] + ["Nuclei_Correlation_Manders_AGP_DNA"]
    rows = pd.DataFrame({"Metadata_compound_id": [f"c{g}" for g in groups]})
    return Profiles(X.astype(np.float32), rows, names)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_same_as_pycytominer(operation):
    given = screen()
    frame = pd.concat([given.rows, pd.DataFrame(given.X, columns=given.features)], axis=1)
    expected = pycytominer().feature_select(
        frame, features=given.features, operation=operation, noise_removal_perturb_groups="Metadata_compound_id",
        noise_removal_stdev_cutoff=0.8,
    )  # fmt: skip
    fitted = Select.fit(given, [operation])
    assert fitted.kept == [c for c in expected if c not in given.rows]
    assert len(fitted.kept) < 12
    assert set(fitted.dropped["id"]) == set(given.features) - set(fitted.kept)
    assert fitted.dropped["reason"].str.startswith(operation).all()


def test_several_operations_in_order():
    given = screen()
    wanted = ["drop_na_columns", "variance_threshold", "correlation_threshold", "blocklist", "drop_outliers"]
    frame = pd.DataFrame(given.X, columns=given.features)
    expected = pycytominer().feature_select(frame, features=given.features, operation=wanted)
    fitted = Select.fit(given, wanted)
    assert fitted.kept == list(expected)
    reasons = dict(zip(fitted.dropped["id"], fitted.dropped["reason"], strict=True))
    assert reasons["Cells_2"] == "variance_threshold: variance at most 1e-06"
    assert reasons["Cells_3"] == "drop_na_columns: more than 0.05 missing"
    assert reasons["Cells_4"] == "drop_outliers: a value beyond 500"
    out = fitted.apply(given)
    np.testing.assert_array_equal(out.X, frame[fitted.kept].to_numpy())
    assert out.history[-1].endswith("[train]")


def test_rows_held_out_have_no_say():
    """The fit on all rows would choose otherwise; the fit on training rows does not move."""
    given = screen()
    train, rest = np.arange(60), np.arange(60, 80)
    X = given.X.copy()
    X[rest, 7] = 1e6
    X[rest, 2] = np.linspace(-9, 9, 20)
    X[rest, 8] = np.nan
    spoiled = Profiles(X, given.rows, given.features)
    wanted = ["drop_na_columns", "variance_threshold", "correlation_threshold", "drop_outliers"]
    fitted = Select.fit(spoiled.take(train), wanted)
    assert fitted.kept == Select.fit(given.take(train), wanted).kept
    assert {"Cells_7", "Cells_8"} <= set(fitted.kept)
    assert Select.fit(spoiled, wanted).kept != fitted.kept
    assert fitted.apply(spoiled.take(rest)).features == fitted.kept


def test_saved_and_loaded(tmp_path):
    given = screen()
    limits = Limits(corr_threshold=0.5, blocklist=("Cells_9",))
    fitted = Select.fit(given, ["correlation_threshold", "blocklist"], limits=limits, scope="fold")
    fitted.save(tmp_path / "select.json")
    again = Select.load(tmp_path / "select.json")
    assert (again.kept, again.limits, again.scope) == (fitted.kept, limits, "fold")
    assert again.apply(given).history == ("select correlation_threshold+blocklist[fold]",)
    pd.testing.assert_frame_equal(again.dropped, fitted.dropped)
    for text in ("{}", '{"kind": "select"}', "[]"):
        (tmp_path / "x.json").write_text(text)
        with pytest.raises(FileError):
            Select.load(tmp_path / "x.json")


def test_mistakes():
    given = screen()
    with pytest.raises(ConfigError, match="Nearest: variance_threshold"):
        Select.fit(given, ["variance"])
    with pytest.raises(ShapeError, match="no training rows"):
        Select.fit(given.take(np.zeros(0, int)))
    with pytest.raises(ColumnError, match="leaves no feature"):
        Select.fit(given, ["variance_threshold"], limits=Limits(min_variance=1e9))
    with pytest.raises(ConfigError, match="correlation_threshold is refused"):
        Select.fit(given, ["correlation_threshold"], limits=Limits(corr_threshold=2))
    with pytest.raises(ColumnError, match="noise_removal needs"):
        Select.fit(given, ["noise_removal"], limits=Limits(perturbation="Metadata_x"))
    with pytest.raises(ShapeError, match="lack 1 of"):
        Select.fit(given, ["blocklist"]).apply(given.with_features(given.X[:, 1:], given.features[1:], "x"))
