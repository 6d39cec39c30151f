"""Macau as a model: what it predicts, how sure it is, what it keeps."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse
from scipy.special import ndtr

import phenohit.models.macau_chain as chains
import phenohit.models.macau_side as sides
from phenohit.data.labels import Labels
from phenohit.data.matrix import RowMatrix
from phenohit.data.profiles import Profiles
from phenohit.errors import LabelError, PhenoHitError, ShapeError
from phenohit.models.macau import Macau
from phenohit.models.macau_cuda import Cuda
from phenohit.models.macau_follow import HeldOut
from phenohit.models.macau_posterior import probability
from phenohit.models.macau_side import Side

K, BURN_IN, USED = 8, 200, 400  # where SMURFF is the peer
SHORT = {"latent": 6, "sweeps": 260, "burn_in": 60, "keep": 100, "half": False}


def problem(
    n: int, T: int, F: int, *, seed: int = 0, fill: float = 0.4, rank: int = 4, noise: float = 0.32
) -> tuple[Profiles, np.ndarray, np.ndarray]:
    """Features, true values, and values measured with noise; NaN where not measured."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, F)).astype(np.float32)
    U = X @ rng.standard_normal((F, rank)) / F**0.5 + 0.5 * rng.standard_normal((n, rank))
    truth = 6 + U @ rng.standard_normal((rank, T)) / rank**0.5 + 0.3 * rng.standard_normal(T)
    measured = truth + noise * rng.standard_normal(truth.shape)
    measured[rng.random(truth.shape) > fill] = np.nan
    rows = pd.DataFrame({"Metadata_compound": [f"C{i:05d}" for i in range(n)]})
    return Profiles(X, rows, [f"f{j}" for j in range(F)]), truth, measured


def labels(data: Profiles, dense: np.ndarray, kind: str) -> Labels:
    row, column = np.nonzero(~np.isnan(dense))
    Y = sparse.csr_matrix((dense[row, column].astype(np.float32), (row, column)), shape=dense.shape)
    names = [f"t{j}" for j in range(dense.shape[1])]
    tasks = pd.DataFrame({"task": names, "assay": names, "kind": kind, "threshold": np.nan})
    return Labels(Y, pd.DataFrame({"compound": data.compounds}), tasks)


def fitted(data: Profiles, dense: np.ndarray, kind: str = "value", **settings: Any) -> Macau:
    return Macau(**{**SHORT, **settings}).fit(data, labels(data, dense, kind), seed=1)


def test_intervals_hold_what_they_promise() -> None:
    """90 % intervals of new measurements, of compounds with others and without."""
    data, truth, measured = problem(1600, 50, 12, seed=3)
    train = np.arange(1200)
    model = fitted(data.take(train), measured[:1200], sweeps=400, burn_in=100)
    scored = model.predict(data)
    rng = np.random.default_rng(9)
    again = truth + 0.32 * rng.standard_normal(truth.shape)
    half = 1.645 * np.sqrt(scored.spread**2 + 0.1)
    inside = np.abs(again - scored.score) < half
    unseen = np.isnan(measured[:1200])
    assert 0.88 < inside[:1200][unseen].mean() < 0.92  # other entries of compounds that were trained on
    assert 0.88 < inside[1200:].mean() < 0.92  # new compounds
    below = model.exceeding(data.take(np.arange(1200, 1600)), 6.5, noise=True).score
    for low, high in ((0.0, 0.2), (0.2, 0.5), (0.5, 1.0)):
        chosen = (below > low) & (below <= high)
        assert abs((again[1200:][chosen] > 6.5).mean() - below[chosen].mean()) < 0.04


def test_known_labels_sharpen_a_prediction() -> None:
    data, truth, measured = problem(600, 40, 10, seed=4)
    model = fitted(data, measured)
    renamed = Profiles(data.X, data.rows.assign(Metadata_compound=[f"N{i}" for i in range(600)]), data.features)
    known, new = model.predict(data), model.predict(renamed)
    unseen = np.isnan(measured)
    error = [np.sqrt(((p.score - truth)[unseen] ** 2).mean()) for p in (known, new)]
    assert error[0] < 0.8 * error[1] < 0.6 * truth.std()
    assert np.median(known.spread[unseen]) < 0.8 * np.median(new.spread[unseen])


def test_a_row_is_predicted_the_same_in_any_company() -> None:
    data, _, measured = problem(300, 12, 5)
    model = fitted(data, (measured > 6).astype(float) + 0 * measured, "binary")
    alone = np.concatenate([model.predict(data.take([i])).score for i in (0, 7, 299)])
    np.testing.assert_allclose(alone, model.predict(data).score[[0, 7, 299]], atol=2e-5)


@pytest.mark.parametrize("kind", ["value", "binary"])
def test_a_resumed_chain_is_the_same_chain(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, _, measured = problem(300, 8, 5)
    dense = measured if kind == "value" else (measured > 6).astype(float) + 0 * measured
    settings = {**SHORT, "sweeps": 30, "burn_in": 10, "chains": 2, "noise": "adaptive", "held_out": 0.1}
    table = labels(data, dense, kind)
    straight = Macau(**settings).fit(data, table, seed=5)
    monkeypatch.setattr(chains, "CHECKPOINT_SECONDS", 0.0)
    sweep, calls = chains.Chain._sweep, 0

    def interrupted(self: Any, number: int) -> None:
        nonlocal calls
        calls += 1
        if calls in (14, 40):
            raise KeyboardInterrupt
        sweep(self, number)

    monkeypatch.setattr(chains.Chain, "_sweep", interrupted)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            Macau(**settings).fit(data, table, seed=5, run=tmp_path)
    resumed = Macau(**settings).fit(data, table, seed=5, run=tmp_path)
    assert calls == 62  # two chains of 30 sweeps and the two that were broken off
    np.testing.assert_array_equal(resumed.predict(data).score, straight.predict(data).score)
    np.testing.assert_array_equal(resumed.traces, straight.traces)
    assert np.isfinite(straight.traces[..., -2]).all()  # of labels that are held out
    other = Macau(**settings).fit(data, table, seed=6, run=tmp_path)  # of another seed: not used
    assert not np.array_equal(other.traces, straight.traces)


def test_packed_bits_give_the_same_chain_as_numbers() -> None:
    """Sparse products with shift and scale against dense ones."""
    rng = np.random.default_rng(2)
    bits = (rng.random((200, 64)) < 0.2).astype(np.uint8)
    _, _, measured = problem(200, 10, 5)
    shift, scale = bits.mean(0).astype(np.float32), np.full(64, 0.4, np.float32)
    packed = RowMatrix(np.packbits(bits, axis=1)).affine(np.arange(64), shift, scale)
    rows = pd.DataFrame({"Metadata_compound": [f"C{i:05d}" for i in range(200)]})
    names = [f"b{j}" for j in range(64)]
    dense = Profiles(((bits - shift) / scale).astype(np.float32), rows, names)
    short = {"sweeps": 12, "burn_in": 2}  # rounding grows from sweep to sweep
    a = fitted(Profiles(packed, rows, names), measured, **short).predict(dense)
    b = fitted(dense, measured, **short).predict(dense)
    np.testing.assert_allclose(a.score, b.score, atol=5e-3)


def test_probability_of_a_normal_quantile() -> None:
    rng = np.random.default_rng(0)
    mean, variance = np.array([-1.0, 0.3, 2.0]), np.array([0.1, 1.5, 4.0])
    draws = ndtr(mean + np.sqrt(variance) * rng.standard_normal((400_000, 3)))
    p, spread = probability(mean.astype(np.float32), variance.astype(np.float32))
    np.testing.assert_allclose(p, draws.mean(0), atol=2e-3)
    np.testing.assert_allclose(spread, draws.var(0), atol=2e-3)


def test_assays_with_ten_labels_stay_near_their_share() -> None:
    """With nothing to learn from ten labels, no probability is extreme."""
    data, _, measured = problem(500, 12, 10, seed=6)
    dense = (measured > 6).astype(float) + 0 * measured
    rng = np.random.default_rng(1)
    dense[:, 0] = np.nan
    dense[rng.permutation(500)[:10], 0] = [1, 1, 1, 0, 0, 0, 0, 0, 0, 0]
    score = fitted(data, dense, "binary").predict(data).score[:, 0]
    new = score[np.isnan(dense[:, 0])]
    assert 0.15 < new.mean() < 0.5
    assert new.min() > 0.01
    assert new.max() < 0.97


def test_diagnostics_tell_whether_the_chains_have_settled() -> None:
    data, _, measured = problem(200, 10, 5)
    alone = fitted(data, measured).diagnostics()  # one chain: its halves
    assert alone["rhat"].notna().all()
    found = fitted(data, measured, chains=2).diagnostics()
    assert set(found.columns) == {"what", "rhat", "ess"}
    assert "link precision" in set(found["what"])
    assert found["rhat"].median() < 1.1
    assert found["ess"].min() > 1


def test_a_chain_too_short_to_tell() -> None:
    data, _, measured = problem(30, 4, 5)
    model = fitted(data, measured, sweeps=6, burn_in=2)
    assert model.diagnostics().empty
    assert len(model.progress()) > 0
    nothing = fitted(data, np.full_like(measured, np.nan))
    assert nothing.diagnostics().empty
    assert nothing.progress().empty


def test_more_latent_dimensions_than_compounds_and_a_constant_feature() -> None:
    data, _, measured = problem(12, 4, 5)
    constant = Profiles(np.column_stack([data.X, np.ones(12, np.float32)]), data.rows, [*data.features, "one"])
    scored = fitted(constant, measured, latent=30, sweeps=40, burn_in=10).predict(constant)
    assert np.isfinite(scored.score).all()
    assert (scored.spread > 0).all()


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_a_feature_that_is_no_number_is_refused(wrong: float) -> None:
    data, _, measured = problem(12, 4, 5)
    data.X[3, 2] = wrong
    with pytest.raises(ShapeError, match="'f2' is not finite in row 3"):
        fitted(data, measured)


def test_values_and_classes_are_not_learned_together() -> None:
    data, _, measured = problem(12, 4, 5)
    table = labels(data, (measured > 6).astype(float), "value")
    mixed = Labels(table.Y, table.compounds, table.tasks.assign(kind=["value", "binary", "value", "value"]))
    with pytest.raises(LabelError, match="hold values and some hold two classes"):
        Macau(**SHORT).fit(data, mixed)
    classes = fitted(data, (measured > 6).astype(float), "binary", sweeps=5, burn_in=1)
    with pytest.raises(LabelError, match="not values: its scores are probabilities"):
        classes.exceeding(data, 6.0)


def test_assays_and_compounds_without_labels_change_nothing() -> None:
    data, _, measured = problem(200, 5, 5, seed=3)
    measured[150:] = np.nan
    short = {"sweeps": 20, "burn_in": 5}
    wider = np.column_stack([measured, np.full(200, np.nan)])  # an assay that nobody measured
    with_both = fitted(data, wider, **short)
    without = fitted(data.take(np.arange(150)), measured[:150], **short)
    found = with_both.predict(data)
    np.testing.assert_array_equal(found.score[:, :5], without.predict(data).score)
    every = measured[np.isfinite(measured)]
    np.testing.assert_allclose(found.score[:, 5], every.mean(), rtol=1e-5)  # all that is known of it
    np.testing.assert_allclose(found.spread[:, 5], every.std(), rtol=1e-4)


def test_an_entry_given_twice_is_refused() -> None:
    data, _, measured = problem(12, 4, 5)
    table = labels(data, measured, "value")
    doubled = sparse.csr_matrix((np.array([5, 6], np.float32), np.array([1, 1]), np.array([0, *[2] * 12])), (12, 4))
    with pytest.raises(LabelError, match="two entries for one task"):
        Labels(doubled, table.compounds, table.tasks)


def test_classes_as_values_are_scores_between_0_and_1() -> None:
    data, _, measured = problem(200, 6, 5)
    scored = fitted(data, (measured > 6).astype(float) + 0 * measured, "binary", likelihood="gaussian").predict(data)
    assert scored.kind == "probability"
    assert scored.score.min() >= 0
    assert scored.score.max() <= 1


def test_the_papers_preset() -> None:
    settings = Macau(preset="simm2018").settings
    assert (settings.latent, settings.sweeps, settings.burn_in, settings.precision) == (150, 2000, 400, 10.0)
    assert settings.kept_sweeps[-1] == 2000
    assert settings.kept_sweeps[0] > 400
    assert len(settings.kept_sweeps) == settings.keep


def theirs(X: np.ndarray, train: sparse.csr_matrix, held: sparse.csr_matrix, seed: int) -> np.ndarray:
    """Return posterior means of SMURFF 1.1, (held entries,), in CSR order."""
    with warnings.catch_warnings():  # of its docstrings
        warnings.simplefilter("ignore")
        import smurff
    mean = train.data.mean()  # it does not centre
    shifted = [sparse.coo_matrix((m.data - mean, m.nonzero()), shape=m.shape) for m in (train, held)]
    session = smurff.TrainSession(
        priors=["macau", "normal"], num_latent=K, burnin=BURN_IN, nsamples=USED, seed=seed, num_threads=1, verbose=0
    )
    session.addTrainAndTest(shifted[0], shifted[1], smurff.FixedNoise(10.0), is_scarce=True)
    session.addSideInfo(0, X.astype(float), smurff.SampledNoise(5.0), direct=True)
    found = {p.coords: p.pred_avg for p in session.run()}
    return np.array([found[i, j] for i, j in zip(*held.nonzero(), strict=True)]) + mean


@pytest.mark.parametrize(("n", "T", "F", "fill"), [(600, 40, 20, 0.3), (900, 30, 60, 0.15), (300, 80, 10, 0.5)])
def test_held_out_errors_are_the_same(n: int, T: int, F: int, fill: float) -> None:
    data, truth, measured = problem(n, T, F, seed=n, fill=fill)
    rng = np.random.default_rng(n)
    cold = np.arange(n) >= n - n // 5
    shown = ~np.isnan(measured) & ~cold[:, None] & (rng.random(measured.shape) < 0.8)
    held = ~np.isnan(measured) & ~shown
    parts = [sparse.csr_matrix((measured[m], np.nonzero(m)), shape=measured.shape) for m in (shown, held)]
    peer = [theirs(data.X, *parts, seed=s) for s in (1, 2)]
    table = labels(data, np.where(shown, measured, np.nan), "value")
    settings = {"latent": K, "sweeps": BURN_IN + USED, "burn_in": BURN_IN, "keep": USED, "centre": "global"}
    mine = [Macau(**settings, half=False).fit(data, table, seed=s).predict(data).score[held] for s in (1, 2)]
    of_cold = np.repeat(cold[:, None], T, axis=1)[held]
    for chosen in (of_cold, ~of_cold):
        error = [[np.sqrt(((p - truth[held])[chosen] ** 2).mean()) for p in pair] for pair in (mine, peer)]
        assert abs(np.mean(error[0]) / np.mean(error[1]) - 1) < 0.03
        # As near to theirs as two of their chains are to each other, or nearly so.
        apart = np.sqrt(((peer[0] - peer[1])[chosen] ** 2).mean())
        between = np.mean([np.sqrt(((a - b)[chosen] ** 2).mean()) for a in mine for b in peer])
        assert between < 1.3 * apart + 0.01


@pytest.mark.parametrize("kind", ["value", "binary"])
def test_labels_that_are_held_out_are_followed(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    data, _, measured = problem(500, 10, 8, seed=7)
    twice = np.repeat(np.arange(500), 2)  # two wells of each compound, with the same labels
    dense = (measured if kind == "value" else (measured > 6).astype(float) + 0 * measured)[twice]
    with caplog.at_level("INFO", logger="phenohit"):
        model = fitted(data.take(twice), dense, kind, held_out=0.05)
    n = int(0.05 * np.isfinite(measured).sum())
    assert f"{2 * n} of {np.isfinite(dense).sum()} labels are held out" in caplog.text
    found = model.progress()
    assert set(found.columns) == {"series", "step", "what", "value", "used"}
    error = found[found["what"] == "held-out RMSE"].set_index("step")["value"]
    assert len(error) == SHORT["sweeps"]
    if kind == "value":
        assert 0.32 < error.iloc[-1] < 0.8 * error.iloc[0]  # above the noise
        assert not (found["what"] == "held-out AUC").any()
    else:
        assert found[found["what"] == "held-out AUC"]["value"].iloc[-1] > 0.75
        assert error.iloc[-1] < 0.5
    assert found.loc[found["used"], "step"].min() == SHORT["burn_in"] + 1
    alone = fitted(data.take(twice), dense, kind, held_out=0.0).progress()
    assert not alone["what"].str.startswith("held-out").any()


def test_held_out_wells_leave_no_copy() -> None:
    rng = np.random.default_rng(1)
    Y = sparse.random(300, 4, 0.9, format="csr", random_state=rng, dtype=np.float32)
    compounds = rng.integers(0, 120, 300)
    held, rest = HeldOut.of(Y, list(map(str, compounds)), 0.3, 0)
    assert len(held.label) + rest.nnz == Y.nnz
    assert np.array_equal(np.asarray(Y[held.rows, held.tasks]).ravel(), held.label)
    out = set(zip(compounds[held.rows], held.tasks, strict=True))
    row, task = rest.nonzero()
    assert not out & set(zip(compounds[row], task, strict=True))


def test_features_of_assays_tell_of_assays_with_few_labels(tmp_path: Path) -> None:
    """An assay's latent vector follows from its features: one with five labels is then predicted."""
    rng = np.random.default_rng(5)
    data, _, _ = problem(500, 60, 10, seed=8)
    G = rng.standard_normal((60, 4))
    U = data.X @ rng.standard_normal((10, 4)) / 10**0.5
    truth = 6 + U @ (G + 0.1 * rng.standard_normal(G.shape)).T
    measured = truth + 0.3 * rng.standard_normal(truth.shape)
    measured[:, 40:][rng.random((500, 20)) > 0.01] = np.nan
    table = pd.DataFrame(G, columns=list("abcd")).assign(assay=[f"t{j}" for j in range(60)], constant=1)
    table["class"] = "kinase"
    table.sample(frac=1, random_state=0).to_csv(tmp_path / "assays.csv", index=False)
    error = []
    for path in ("", str(tmp_path / "assays.csv")):
        score = fitted(data, measured, assay_features=path, centre="global").predict(data).score
        error.append(np.sqrt(((score - truth)[:, 40:][np.isnan(measured[:, 40:])] ** 2).mean()))
    assert error[1] < 0.6 * error[0]
    table.drop(columns=list("abcd")).to_csv(tmp_path / "none.csv", index=False)
    table.iloc[:59].to_csv(tmp_path / "short.csv", index=False)
    table.iloc[[*range(60), 0]].to_csv(tmp_path / "twice.csv", index=False)
    table.rename(columns={"assay": "assays"}).to_csv(tmp_path / "named.csv", index=False)
    wrong = {
        "none": "no column in which",
        "short": "lacks 1 of 60 assays: 't59'",
        "twice": "names 't0'",
        "named": "assays",
    }
    for name, message in wrong.items():
        with pytest.raises(PhenoHitError, match=message):
            fitted(data, measured, assay_features=str(tmp_path / f"{name}.csv"))


def test_a_memory_map_is_read_in_blocks(tmp_path: Path) -> None:
    data, _, measured = problem(300, 10, 6)
    file = tmp_path / "X.npy"
    np.save(file, data.X)
    mapped = Profiles(np.load(file, mmap_mode="r"), data.rows, data.features)
    assert isinstance(Side(mapped.X).X, np.memmap)
    short = {"sweeps": 12, "burn_in": 2}
    a, b = (fitted(d, measured, **short).predict(data).score for d in (mapped, data))
    np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(("kind", "form"), [("value", "dense"), ("binary", "packed"), ("value", "wide")])
def test_another_device_is_asked_for_nothing_it_cannot_do(
    kind: str, form: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The batches of the GPU, on the processor, with tensors that numpy cannot take for arrays unasked."""

    def refuse(*_: Any, **__: Any) -> None:
        raise TypeError("a tensor on another device is no array")

    data, truth, measured = problem(300, 12, 24, seed=4)
    if form != "dense":
        bits = data.X > 0.5
        data = Profiles(
            RowMatrix(np.packbits(bits, axis=1)).affine(np.arange(24), bits.mean(0)), data.rows, data.features
        )
    if form == "wide":
        monkeypatch.setattr(sides, "WIDE", 20)
    dense = measured if kind == "value" else (measured > 6).astype(float) + 0 * measured
    table = labels(data, dense, kind)
    settings = {**SHORT, "sweeps": 160, "chains": 2, "noise": "adaptive", "held_out": 0.05}
    here = Macau(**settings).fit(data, table, seed=1).predict(data).score
    monkeypatch.setattr(chains, "_device", lambda *_: Cuda("cpu"))
    with monkeypatch.context() as only:
        only.setattr(torch.Tensor, "__array__", refuse)
        there = Macau(**settings).fit(data, table, seed=1, run=tmp_path)
    score = there.predict(data).score
    wanted = truth if kind == "value" else (truth > 6)
    error = [np.sqrt(((s - wanted) ** 2).mean()) for s in (here, score)]
    assert abs(error[0] - error[1]) < 0.05 * error[0]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_predicts_as_well_as_a_processor() -> None:
    from tests.models.test_macau import SHORT, labels, problem

    from phenohit.models.macau import Macau

    data, truth, measured = problem(600, 40, 10, seed=4)
    table = labels(data.take(np.arange(450)), measured[:450], "value")
    error = []
    for device in ("cpu", "cuda"):
        model = Macau(**SHORT, device=device).fit(data.take(np.arange(450)), table, seed=1)
        error.append(np.sqrt(((model.predict(data).score - truth)[450:] ** 2).mean()))
    assert abs(error[0] - error[1]) < 0.03 * error[0]
