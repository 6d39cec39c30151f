import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from phenohit.data.labels import Labels
from phenohit.errors import ConfigError, ShapeError
from phenohit.fewshot.episodes import draw_episodes, draw_tasks


def screen(n_compounds, wells=1, share=0.4, seed=0):
    """Rows, labels and compounds of a task; the first compounds are the active ones."""
    compound = np.repeat(np.arange(n_compounds), wells)
    order = np.random.default_rng(seed).permutation(len(compound))
    names = np.array([f"c{i}" for i in compound], dtype=object)[order]
    return np.arange(len(compound)) + 100, (compound < share * n_compounds)[order], names


@given(
    n=st.integers(40, 160), wells=st.integers(1, 3), share=st.floats(0.05, 0.95), query=st.integers(4, 32),
    seed=st.integers(0, 99), by_series=st.booleans(),
)  # fmt: skip
def test_no_compound_is_on_both_sides_and_classes_are_stratified(n, wells, share, query, seed, by_series):
    rows, y, compounds = screen(n, wells, share, seed)
    of = {c: int(c[1:]) // 3 for c in compounds}
    series = np.array([of[c] for c in compounds]) if by_series else None
    episodes, lost = draw_episodes(
        "t", rows, y, compounds, sizes=(4, 8, 16), query=query, n=5, series=series, seed=seed
    )
    assert len(episodes) + len(lost) == 3 or not (0 < y.sum() < len(y))
    at = {row: i for i, row in enumerate(rows)}
    active = len(set(compounds[y])) / n
    for one in episodes:
        assert one.support.shape == (5, one.size)
        assert one.query.shape == (5, query)
        for side, labels in ((one.support, one.y_support), (one.query, one.y_query)):
            place = np.vectorize(at.get)(side)
            assert (y[place] == labels).all()
            assert labels.any(axis=1).all()
            assert not labels.all(axis=1).any()
            expected = np.clip(active * labels.shape[1], 1, labels.shape[1] - 1)
            assert abs(labels.sum(axis=1) - expected).max() <= 0.5 + 1e-9
        for support, asked in zip(one.support, one.query, strict=True):
            mine, theirs = (compounds[np.vectorize(at.get)(side)] for side in (support, asked))
            assert len(set(mine)) == one.size
            assert len(set(theirs)) == query
            assert not set(mine) & set(theirs)
            if by_series:
                assert not {of[c] for c in mine} & {of[c] for c in theirs}


def test_larger_supports_hold_the_smaller_and_share_the_query():
    rows, y, compounds = screen(140, wells=2)
    small, large = draw_episodes("t", rows, y, compounds, sizes=(64, 8), seed=3)[0]
    assert (small.size, large.size) == (8, 64)
    np.testing.assert_array_equal(small.query, large.query)
    assert all(set(a) <= set(b) for a, b in zip(small.support, large.support, strict=True))
    alone = draw_episodes("t", rows, y, compounds, sizes=(8,), seed=3)[0][0]
    np.testing.assert_array_equal(alone.support, small.support)


def test_every_compound_and_every_well_gets_its_turn():
    rows, y, compounds = screen(60, wells=3)
    one = draw_episodes("t", rows, y, compounds, sizes=(16,), query=32, n=400, seed=1)[0][0]
    times = np.bincount(np.concatenate([one.support, one.query], axis=1).ravel() - 100, minlength=180)
    # 400 episodes x 48 compounds over 180 wells: 106.7 each
    assert abs(times - 400 * 48 / 180).max() < 6 * np.sqrt(400 * 48 / 180)


def test_episodes_of_wells_put_replicates_on_both_sides():
    rows, y, compounds = screen(50, wells=6)
    one = draw_episodes("t", rows, y, compounds, sizes=(96,), unit="well", n=20)[0][0]
    shared = [set(compounds[s - 100]) & set(compounds[q - 100]) for s, q in zip(one.support, one.query, strict=True)]
    assert min(map(len, shared)) > 10


def test_what_cannot_be_drawn_is_listed_with_the_reason():
    rows, y, compounds = screen(60)
    episodes, lost = draw_episodes("few", rows, y, compounds, sizes=(8, 64))
    assert [one.size for one in episodes] == [8]
    assert lost["id"].tolist() == ["few (support 64)"]
    assert "has 60 compounds; a support of 64 and a query of 32 need 96" in lost["reason"][0]
    episodes, lost = draw_episodes("one", rows, np.ones(60, bool), compounds)
    assert not episodes
    assert "one class only" in lost["reason"][0]
    # 1 active compound is not enough for an active in support and in query
    episodes, lost = draw_episodes("rare", rows, np.arange(60) == 5, compounds, sizes=(8,))
    assert not episodes
    assert "has 1 active and 59 inactive compounds" in lost["reason"][0]
    whole = np.zeros(60, int)
    episodes, lost = draw_episodes("series", rows, y, compounds, sizes=(8,), series=whole)
    assert not episodes
    assert "series are too large" in lost["reason"][0]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"sizes": (1,)}, "at least 2"),
        ({"sizes": (8, 8)}, "different"),
        ({"query": 1}, "query"),
        ({"unit": "cell"}, "unit"),
    ],
)
def test_impossible_settings_are_refused(changed, message):
    with pytest.raises(ConfigError, match=message):
        draw_episodes("t", *screen(60), **changed)


def test_contradicting_rows_of_a_compound_are_refused():
    rows, y, compounds = screen(60, wells=2)
    y = y.copy()
    y[0] = ~y[0]
    with pytest.raises(ShapeError, match="different labels"):
        draw_episodes("t", rows, y, compounds)


def test_draws_of_a_task_do_not_depend_on_the_other_tasks():
    rng = np.random.default_rng(0)
    Y = sparse.csr_matrix((rng.integers(0, 2, 270).astype(np.float32), np.nonzero(np.ones((90, 3)))), shape=(90, 3))
    tasks = pd.DataFrame({"task": ["a", "b", "c"], "assay": ["a", "b", "c"], "kind": "binary", "threshold": np.nan})
    labels = Labels(Y, pd.DataFrame({"compound": [f"c{i}" for i in range(90)]}), tasks)
    compounds = labels.compounds["compound"].to_numpy(object)
    every, _ = draw_tasks(labels, compounds, ["a", "b", "c"], sizes=(8,), n=4)
    alone, _ = draw_tasks(labels, compounds, ["b"], sizes=(8,), n=4)
    np.testing.assert_array_equal(every[1].support, alone[0].support)
    assert (every[0].support != every[1].support).any()
