"""The feature tables that morphology is measured against: chemistry, cell count, plate.

A method only shows that images carry information where it beats the same learner on these.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from phenohit.data.matrix import RowMatrix
from phenohit.data.profiles import Profiles
from phenohit.errors import ShapeError

__all__ = ["cell_count_table", "fingerprint_table", "no_features", "plate_table"]


def fingerprint_table(compounds: NDArray[np.object_], packed: NDArray[np.uint8]) -> Profiles:
    """ECFP6 bits as features, one row per compound.

    Parameters
    ----------
    compounds : array of str, shape (N,)
    packed : uint8 array, shape (N, bits / 8)
        As made by `phenohit.chem.fingerprints.ecfp`.
    """
    if len(compounds) != len(packed):
        raise ShapeError(f"There are {len(compounds)} compounds but {len(packed)} fingerprints.")
    X = RowMatrix(packed)
    names = [f"ECFP6_{i}" for i in range(X.shape[1])]
    return Profiles(X, pd.DataFrame({"Metadata_compound": compounds}), names, ("ecfp6[none]",))


def cell_count_table(profiles: Profiles) -> Profiles | None:
    """Cell count and its square, or None where it is not known.

    The square lets a linear model see assays that respond to fewer *and* to more cells. Seal et al.
    (2026, doi 10.1038/s41467-026-68725-5) show that many bioactivity benchmarks need no more than this.
    """
    if "Metadata_cell_count" not in profiles.rows:
        return None
    count = profiles.numbers("Metadata_cell_count")
    known = np.isfinite(count)
    if not known.any():
        return None
    # Centred on the data's own scale so that count and square are not one direction; labels play no part.
    centred = (count - np.nanmedian(count)) / max(float(np.nanmedian(np.abs(count))), 1e-12)
    X = np.column_stack([centred, centred**2])
    return profiles.with_features(X.astype(np.float32), ["cell_count", "cell_count_squared"], "cell count[none]")


def plate_table(profiles: Profiles) -> Profiles | None:
    """Plate membership as features (a compound on two of three plates: 1/2 each), or None where unknown.

    What this table predicts, layout predicts: it is the level that any claim about biology must beat.
    """
    if "Metadata_Plate" not in profiles.rows:
        return None
    parts = profiles.rows["Metadata_Plate"].astype(str).str.split(";").explode()
    codes, plates = pd.factorize(parts, sort=True)
    if len(plates) < 2:
        return None
    n = np.bincount(parts.index, minlength=len(profiles))[parts.index]
    share = sparse.csr_matrix((1.0 / n, (parts.index, codes)), shape=(len(profiles), len(plates)))
    return profiles.with_features(RowMatrix(share), [f"plate_{p}" for p in plates], "plate[none]")


def no_features(profiles: Profiles) -> Profiles:
    """Return the rows alone, for models that know nothing but the labels."""
    return profiles.with_features(np.zeros((len(profiles), 0), np.float32), [], "nothing[none]")
