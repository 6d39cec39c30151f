"""Activity records of a ChEMBL database: SQLite or PostgreSQL, by the same statements.

The records are one statement over ``activities`` (joined to ``assays`` where the settings leave
assays out), streamed in blocks. What belongs to an assay, a molecule, a target or a document is
text that would come again with each of 20 million records: it is read once, by a statement each,
and put together by number. On a server all statements see one state of the data.

Only rules about assays are part of the statement (`assays`, `targets`, `assay_types`,
`min_confidence`), and what they leave out is counted by a second one; every other rule is applied
to the records read, so that the trace can show them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phenohit.config import ActivitySource
from phenohit.errors import LabelError
from phenohit.labels.chembl_assays import Assays, assay_rules, describe, excluded, read_assays
from phenohit.labels.chembl_molecules import read_molecules
from phenohit.labels.database import connect, masked, need
from phenohit.labels.records import NO_COMPOUND, Block, Records, Wanted, Words
from phenohit.labels.statements import TABLES, binary, floats, integers, light, stream

__all__ = ["last_activity", "read_chembl", "release_of"]


def read_chembl(source: ActivitySource, wanted: Wanted | None, stack: ExitStack, *, jobs: int = 1) -> Records:
    """Open a ChEMBL database and return its records, to be gone through once.

    Parameters
    ----------
    source : ActivitySource
        ``path`` is a SQLite file or an address (postgresql://user@host/database).
    wanted : Wanted or None
        Compounds that labels are wanted for; None: all.
    stack : ExitStack
        Keeps the connection open as long as the records are read.
    jobs : int
        Processes for standardising structures.

    Returns
    -------
    Records
        A record belongs to the parent of its molecule (``molecule_hierarchy``; a molecule without an
        entry there is its own parent), identified by ChEMBL's InChIKey. Where that key is not among
        the wanted ones but its first block is, the structure is standardised as the imaged ones were
        and found by that key.

    Raises
    ------
    FileError, ConfigError, LabelError
        As from `phenohit.labels.database.connect`; if a table or column is missing; if an assay or
        target of the settings is not there.
    """
    connection = stack.enter_context(connect(source.path))
    need(connection, source.path, {t: list(c) for t, c in TABLES.items()})
    assays = read_assays(connection)
    if not len(assays.number):
        raise LabelError(f"'{masked(source.path)}' holds no assays: its tables are empty. Load a release into it.")
    rule, condition = assay_rules(connection, source, assays)
    compounds, molecules = read_molecules(connection, wanted, jobs, f"'{masked(source.path)}'")
    words = {name: Words() for name in ("type", "relation", "units", "comment", "validity", "document")}
    release = release_of(connection)
    records = Records(
        masked(source.path), release, compounds, assays.name, rule, iter(()), words=words,
        describe=lambda positions: describe(connection, assays, positions),
        excluded=excluded(connection, assays, rule, condition),
    )  # fmt: skip
    records.blocks = _blocks(connection, assays, molecules, words, condition)
    return records


# --- records ----------------------------------------------------------------------------------


def release_of(connection: Any) -> str:
    """Return the name of the release, e.g. ``ChEMBL_33``; '' where the database does not tell."""
    from sqlalchemy import column, inspect, select, table

    if "version" not in inspect(connection).get_table_names():
        return ""
    names = connection.execute(select(table("version", column("name")).c.name)).scalars().all()
    return next((str(n) for n in names if str(n).upper().startswith("CHEMBL")), str(names[0]) if names else "")


def last_activity(connection: Any) -> int:
    """Return the highest number of an activity."""
    from sqlalchemy import func, select

    return connection.execute(select(func.max(light("activities").c.activity_id))).scalar() or 0


def _documents(connection: Any, words: Words) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    from sqlalchemy import select

    d = light("docs")
    rows = connection.execute(select(d.c.doc_id, d.c.chembl_id)).fetchall()
    number = np.array([r[0] for r in rows], dtype=np.int64)
    order = np.argsort(number)
    return number[order], words.codes([rows[i][1] for i in order])


def _found(known: NDArray[np.int64], value: NDArray[np.int64], asked: NDArray[np.int64], missing: int) -> NDArray:
    """Look numbers up in a sorted list."""
    if not len(known):
        return np.full(len(asked), missing, dtype=np.int32)
    at = np.searchsorted(known, asked).clip(max=len(known) - 1)
    return np.where(known[at] == asked, value[at], missing).astype(np.int32)


def _blocks(
    connection: Any, assays: Assays, molecules: tuple[Any, Any, Any], words: dict[str, Words], condition: Any
) -> Iterator[Block]:
    from sqlalchemy import or_, select

    act, a = light("activities"), light("assays")
    columns = [binary(connection, act.c[c]) if k == "f" else act.c[c] for c, k in TABLES["activities"].items()]
    statement = select(*columns)
    if condition is not None:  # a record whose assay is not in the table is read, and left out by name
        statement = statement.select_from(act.outerjoin(a, act.c.assay_id == a.c.assay_id))
        statement = statement.where(or_(a.c.assay_id.is_(None), condition))
    documents = _documents(connection, words["document"])
    position = np.arange(len(assays.number))
    for record, assay, doc, molecule, kind, relation, value, units, pchembl, comment, validity, copied in stream(
        connection, statement
    ):
        numbers = integers(molecule)
        yield Block(
            record=integers(record),
            row=np.full(len(record), -1, dtype=np.int64),
            compound=_found(molecules[0], molecules[1], numbers, NO_COMPOUND),
            assay=_found(assays.number, position, integers(assay), -1),
            value=floats(value),
            pchembl=floats(pchembl),
            duplicate=integers(copied, 0) == 1,
            salt=_found(molecules[0], molecules[2], numbers, 0) == 1,
            type=words["type"].codes(kind),
            relation=words["relation"].codes(relation),
            units=words["units"].codes(units),
            comment=words["comment"].codes(comment),
            validity=words["validity"].codes(validity),
            document=_found(documents[0], documents[1], integers(doc), 0),
        )
