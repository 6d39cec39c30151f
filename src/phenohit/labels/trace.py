"""Which records each label was made of: one row per record of a wanted compound, whatever became of it.

The file is sorted by compound, assay and record, in row groups: one compound is found by the
statistics of the groups without reading the rest. It is sorted by buckets of compounds, so that the
memory needed does not grow with the number of records.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from phenohit.files import atomic, write_table
from phenohit.labels.activities import Activities
from phenohit.labels.records import TEXTS, Block, Records
from phenohit.labels.rules import FATES, Judged, code

__all__ = ["COLUMNS", "Trace"]

_BUCKETS = 32
_GROUP = 50_000  # rows of a row group
_HELD = 2_000_000  # rows held over all buckets before they are written

COLUMNS = [
    "compound_row", "source", "compound", "assay", "record", "row", "type", "relation", "value", "units", "pchembl",
    "comment", "validity", "document", "salt", "fate", "used", "vote",
]  # fmt: skip
_CODED = [name for name in COLUMNS if name in TEXTS]
_SCHEMA = pa.schema(
    [("compound_row", pa.int32())]
    + [(c, pa.dictionary(pa.int32(), pa.string())) for c in ("source", "compound", "assay")]
    + [("record", pa.string()), ("row", pa.int64())]
    + [(c, pa.dictionary(pa.int32(), pa.string())) for c in ("type", "relation")]
    + [("value", pa.float64()), ("units", pa.dictionary(pa.int32(), pa.string())), ("pchembl", pa.float64())]
    + [(c, pa.dictionary(pa.int32(), pa.string())) for c in ("comment", "validity", "document")]
    + [("salt", pa.bool_()), ("fate", pa.dictionary(pa.int32(), pa.string())), ("used", pa.float64())]
    + [("vote", pa.int8())]
)


class Trace:
    """Writes ``<stem>.records.parquet`` and ``<stem>.records.compounds.parquet``, source after source.

    Use as a context manager; the files appear when it ends well.

    Parameters
    ----------
    path : path
        Of the labels, e.g. ``run/labels.parquet``.

    Notes
    -----
    Columns: `COLUMNS`. ``compound_row`` is the row in the table of compounds (``compound``, ``id``,
    ``inchikey``, ``skeleton``, ``source``); ``used`` the number that entered the mean, or the bound
    (-log10 M); ``vote`` 1 active, 0 inactive, -1 none.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).with_suffix(".records.parquet")
        self._folder = self.path.with_name(f".{self.path.name}.buckets.partial")
        self._compounds: list[pd.DataFrame] = []
        self._offset = 0

    def __enter__(self) -> Trace:
        shutil.rmtree(self._folder, ignore_errors=True)
        self._atomic = atomic(self.path)
        self._writer = pq.ParquetWriter(self._atomic.__enter__(), _SCHEMA, compression="zstd")
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        self._writer.close()
        shutil.rmtree(self._folder, ignore_errors=True)
        if kind is None:
            empty = pd.DataFrame({c: pd.Series(dtype=str) for c in _COMPOUND})
            table = pd.concat(self._compounds, ignore_index=True) if self._compounds else empty
            write_table(self.path.with_suffix(".compounds.parquet"), table)
        self._atomic.__exit__(kind, error, trace)

    def begin(self, records: Records) -> _Sorter:
        """Start a source; give its blocks to the returned sorter."""
        self._folder.mkdir(parents=True, exist_ok=True)
        return _Sorter(self._folder, len(records.compounds))

    def end(self, sorter: _Sorter, records: Records, settle: Callable[[NDArray, NDArray], NDArray]) -> None:
        """Write a source. ``settle(cells, fates)`` gives the last word on fates; a cell is compound * A + assay."""
        A = len(records.assays)
        for table in sorter.tables():
            fate = settle(table["compound"].astype(np.int64) * A + table["assay"], table["fate"])
            order = np.lexsort((table["row"], table["record"], table["assay"], table["compound"]))
            self._write({c: v[order] for c, v in (table | {"fate": fate}).items()}, records)
        self._remember(records.compounds, records.source)

    def _write(self, table: dict[str, NDArray], records: Records) -> None:
        assays = np.append(np.asarray(records.assays, dtype=object), "")  # -1: none
        coded = {c: _compact(table[c], np.asarray(records.words[c].texts, dtype=object)) for c in _CODED}
        used = {
            "source": _compact(np.zeros(len(table["row"]), np.int32), np.array([records.source], dtype=object)),
            "compound": _compact(table["compound"], records.compounds["compound"].to_numpy(object)),
            "assay": _compact(table["assay"] % len(assays), assays),
            "fate": _compact(table["fate"], np.array(FATES, dtype=object)),
        }
        plain = {c: table[c] for c in ("row", "value", "pchembl", "salt", "used", "vote")}
        record = table["record"]
        text = pa.array(record, pa.string()) if record.dtype == object else pa.array(record).cast(pa.string())
        columns = plain | coded | used | {"record": text, "compound_row": table["compound"] + np.int32(self._offset)}
        self._writer.write_table(pa.table([columns[c] for c in COLUMNS], schema=_SCHEMA), row_group_size=_GROUP)

    def _remember(self, compounds: pd.DataFrame, source: str) -> None:
        self._compounds.append(compounds.reindex(columns=_COMPOUND[:-1]).fillna("").astype(str).assign(source=source))
        self._offset += len(compounds)

    def add(self, activities: Activities) -> None:
        """Write a table that has no records but one value per row."""
        t = activities.table
        n, numbers = len(t), activities.kind == "value"
        value = t["value"].to_numpy(np.float64)
        zero = np.zeros(n, dtype=np.int32)
        table = {name: zero for name in _CODED} | {
            "compound": t["compound"].to_numpy(np.int32), "assay": t["assay"].to_numpy(np.int32),
            "record": np.full(n, "", dtype=object), "row": t["row"].to_numpy(np.int64), "value": value,
            "pchembl": np.full(n, np.nan), "salt": np.zeros(n, dtype=bool),
            "fate": np.full(n, code("value" if numbers else "comment"), dtype=np.int8),
            "used": value if numbers else np.full(n, np.nan),
            "vote": np.full(n, -1, np.int8) if numbers else value.astype(np.int8),
        }  # fmt: skip
        order = np.lexsort((table["row"], table["assay"], table["compound"]))
        names, nothing = activities.assays["name"].to_numpy(object), np.zeros(0, np.int8)
        records = Records(activities.source, "", activities.compounds, names, nothing, iter(()))
        self._write({c: v[order] for c, v in table.items()}, records)
        self._remember(activities.compounds, activities.source)


_COMPOUND = ["compound", "id", "inchikey", "skeleton", "source"]


def _compact(codes: NDArray, texts: NDArray) -> pa.DictionaryArray:
    """Make a dictionary column that carries only the texts it uses."""
    used, where = np.unique(codes, return_inverse=True)
    return pa.DictionaryArray.from_arrays(pa.array(where.astype(np.int32)), pa.array(texts[used], pa.string()))


class _Sorter:
    """Records put aside by ranges of compounds, on disk once they are many."""

    def __init__(self, folder: Path, n_compounds: int) -> None:
        self.folder, self.width = folder, max(-(-n_compounds // _BUCKETS), 1)
        self._held: list[list[dict[str, NDArray]]] = [[] for _ in range(_BUCKETS)]
        self._n, self._files = 0, [0] * _BUCKETS

    def add(self, block: Block, judged: Judged) -> None:
        """Keep the records of a block that have a compound."""
        kept = np.flatnonzero(block.compound >= 0)
        columns = block._asdict() | {"fate": judged.fate, "used": judged.p, "vote": judged.vote}
        bucket = block.compound[kept] // self.width
        order = np.argsort(bucket, kind="stable")
        kept, ends = kept[order], np.cumsum(np.bincount(bucket, minlength=_BUCKETS))
        taken = {c: v[kept] for c, v in columns.items()}
        start = 0
        for b, end in enumerate(ends.tolist()):
            if end > start:
                self._held[b].append({c: v[start:end] for c, v in taken.items()})
            start = end
        self._n += len(kept)
        if self._n > _HELD:
            self._spill()

    def _spill(self) -> None:
        for b, parts in enumerate(self._held):
            if parts:
                table = pa.table({c: pa.array(v) for c, v in _joined(parts).items()})
                name = self.folder / f"{b}-{self._files[b]}.arrow"
                with pa.OSFile(str(name), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
                    writer.write_table(table)
                self._files[b] += 1
                parts.clear()
        self._n = 0

    def tables(self) -> Any:
        """Yield all records, bucket after bucket."""
        for b, parts in enumerate(self._held):
            for k in range(self._files[b]):
                name = self.folder / f"{b}-{k}.arrow"
                with pa.OSFile(str(name), "rb") as handle:
                    table = pa.ipc.open_file(handle).read_all()
                parts.append({c: table[c].to_numpy() for c in table.column_names})
                name.unlink()
            if parts:
                yield _joined(parts)
                parts.clear()


def _joined(parts: list[dict[str, NDArray]]) -> dict[str, NDArray]:
    return {c: np.concatenate([p[c] for p in parts]) for c in parts[0]}
