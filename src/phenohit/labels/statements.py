"""Statements on a ChEMBL database: which tables and columns are read, and how results are streamed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

__all__ = ["TABLES", "binary", "floats", "integers", "light", "stream", "texts"]

BLOCK = 50_000

# What is read, with the kind of each column: i integer, f number, t text.
TABLES = {
    "activities": {
        "activity_id": "i", "assay_id": "i", "doc_id": "i", "molregno": "i", "standard_type": "t",
        "standard_relation": "t", "standard_value": "f", "standard_units": "t", "pchembl_value": "f",
        "activity_comment": "t", "data_validity_comment": "t", "potential_duplicate": "i",
    },
    "assays": {
        "assay_id": "i", "chembl_id": "t", "assay_type": "t", "confidence_score": "i", "tid": "i", "description": "t",
    },
    "target_dictionary": {"tid": "i", "chembl_id": "t", "pref_name": "t", "target_type": "t", "organism": "t"},
    "molecule_dictionary": {"molregno": "i", "chembl_id": "t"},
    "molecule_hierarchy": {"molregno": "i", "parent_molregno": "i"},
    "compound_structures": {"molregno": "i", "standard_inchi_key": "t", "canonical_smiles": "t"},
    "docs": {"doc_id": "i", "chembl_id": "t"},
}  # fmt: skip


@cache  # one object per table: statements are put together from it
def light(name: str) -> Any:
    """Light table of SQLAlchemy Core: names only, so that values come as the driver gives them."""
    from sqlalchemy import column, table

    return table(name, *(column(c) for c in TABLES[name]))


def binary(connection: Any, column: Any) -> Any:
    """Let a server send binary floats rather than decimals; SQLite has them already."""
    from sqlalchemy import Double, cast

    return cast(column, Double).label(column.name) if connection.dialect.name == "postgresql" else column


def stream(connection: Any, statement: Any) -> Iterator[tuple[Sequence[Any], ...]]:
    """Yield the columns of a result, block by block."""
    result = connection.execution_options(yield_per=BLOCK).execute(statement)
    for rows in result.partitions(BLOCK):
        yield tuple(zip(*rows, strict=True))


def integers(values: Sequence[Any], missing: int = -1) -> NDArray[np.int64]:
    """Make whole numbers of what the driver gives."""
    try:
        return np.array(values, dtype=np.int64)
    except TypeError:  # None among them
        values = [missing if v is None else v for v in values]
    except ValueError:
        pass
    # Text where a number should stand is a missing one.
    return np.array([v if isinstance(v, int) else missing for v in values], dtype=np.int64)


def floats(values: Sequence[Any]) -> NDArray[np.float64]:
    """Make numbers; NULL, and text where a number should stand, become NaN."""
    try:
        return np.array(values, dtype=np.float64)
    except (TypeError, ValueError):
        return pd.to_numeric(pd.Series(values, dtype=object), errors="coerce").to_numpy(np.float64, na_value=np.nan)


def texts(values: Sequence[Any]) -> pa.Array:
    """Make an Arrow column; NULL becomes ''."""
    return pa.array(["" if v is None else v for v in values], pa.large_string())
