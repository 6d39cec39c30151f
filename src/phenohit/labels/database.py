"""Open a ChEMBL database to read, and only to read; say clearly why it cannot be opened.

Passwords belong in PGPASSWORD or ~/.pgpass. One that stands in an address all the same is never
shown: every message goes through `masked`.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from phenohit.errors import ConfigError, FileError, LabelError, nearest, some

__all__ = ["connect", "is_address", "masked", "need", "stamp"]

_ADDRESS = re.compile(r"^[A-Za-z][\w+.-]*://")
_USERINFO = re.compile(r"([A-Za-z][\w+.-]*://[^\s:/@?#'\"]*):([^\s'\"]*)@")
_PARAMETER = re.compile(r"([?&](?:password|passwd|sslpassword)=)[^&\s'\"]*", re.IGNORECASE)
_TIMEOUT = 15  # seconds to wait for a server


def is_address(path: str) -> bool:
    """Tell an address (postgresql://...) from a file."""
    return bool(_ADDRESS.match(path))


def masked(text: str) -> str:
    """Return the text with every password in an address replaced by ``***``.

    Examples
    --------
    >>> masked("postgresql://reader:s3cret@host/chembl")
    'postgresql://reader:***@host/chembl'
    """
    if is_address(text) and not text.count("\n"):  # nothing but an address: whatever signs the password holds
        head, at, tail = text.rpartition("@")
        user = re.match(r"[^:]*://[^:]*:", head)
        text = f"{user[0]}***{at}{tail}" if user else text
    return _PARAMETER.sub(r"\1***", _USERINFO.sub(r"\1:***@", text))


@contextmanager
def connect(path: str) -> Iterator[Any]:
    """Yield a SQLAlchemy connection that can only read.

    Parameters
    ----------
    path : str
        SQLite file, or the address of a PostgreSQL server.

    Raises
    ------
    FileError
        If the file is absent, truncated or no database, or the server cannot be reached or refuses.
    ConfigError
        If the address is of another kind of server, or its driver is not installed.
    LabelError
        If a table may not be read, within the block.
    """
    from sqlalchemy import exc

    engine = _server(path) if is_address(path) else _file(path)
    try:
        with engine.connect() as connection:
            if engine.dialect.name == "postgresql":  # one state of the data for all statements; a write is refused
                connection = connection.execution_options(
                    isolation_level="REPEATABLE READ", postgresql_readonly=True, stream_results=True
                )
            yield connection
    except exc.SQLAlchemyError as error:
        raise _explained(path, error) from error
    finally:
        engine.dispose()


def _server(path: str) -> Any:
    from sqlalchemy import create_engine, exc
    from sqlalchemy.engine import make_url

    try:
        url = make_url(re.sub(r"^postgres(ql)?://", "postgresql+psycopg://", path))
    except (exc.ArgumentError, ValueError) as error:
        raise ConfigError(f"activities: '{masked(path)}' is no address. Write postgresql://user@host/database.") from (
            None if masked(path) != path else error
        )
    if not url.drivername.startswith("postgresql"):
        raise ConfigError(
            f"activities: '{masked(path)}' is a {url.drivername} server. ChEMBL is read from a SQLite file or from "
            "postgresql://user@host/database."
        )
    try:
        return create_engine(url, connect_args={} if "connect_timeout" in url.query else {"connect_timeout": _TIMEOUT})
    except (ModuleNotFoundError, exc.NoSuchModuleError) as error:
        raise ConfigError(
            "Reading ChEMBL from a PostgreSQL server needs a driver that is not installed: "
            "pip install 'phenohit[postgres]'"
        ) from error


def _file(path: str) -> Any:
    from sqlalchemy import create_engine, pool

    options = _sqlite_options(Path(path))

    def opened() -> sqlite3.Connection:
        connection = sqlite3.connect(f"{Path(path).resolve().as_uri()}?{options}", uri=True, check_same_thread=False)
        connection.execute("PRAGMA query_only = ON")
        connection.execute("PRAGMA cache_size = -65536")  # 64 MiB: it must not grow with the file
        connection.execute("PRAGMA temp_store = MEMORY")
        return connection

    return create_engine("sqlite://", creator=opened, poolclass=pool.NullPool)


def _sqlite_options(path: Path) -> str:
    """Look at the header of the file before SQLite does; return how it is opened.

    ``mode=ro`` writes nothing to a database with a rollback journal. One in WAL mode makes it create
    -wal and -shm files beside the database, unless somebody else has it open; then, and on read-only
    media, ``immutable=1`` reads the file alone. It is chosen only where there is no log with content.
    """
    if not path.exists():
        raise FileError(
            f"'{path}' does not exist. Give the path of ChEMBL's SQLite file, or postgresql://user@host/db."
        )
    if not path.is_file():
        raise FileError(f"'{path}' is a folder. Give the SQLite file of ChEMBL that lies in it.")
    try:
        with path.open("rb") as handle:
            header = handle.read(100)
    except OSError as error:
        raise FileError(f"'{path}' cannot be read: {error.strerror}. Check that you may read it.") from error
    size = path.stat().st_size
    if header[:16] != b"SQLite format 3\x00":
        packed = " It looks packed: unpack it first (tar -xzf)." if header[:2] in (b"\x1f\x8b", b"PK") else ""
        raise FileError(
            f"'{path}' is no SQLite database ({size:,} bytes).{packed} Expected the file chembl_NN.db of a release."
        )
    page = int.from_bytes(header[16:18], "big")
    expected = (65536 if page == 1 else page) * int.from_bytes(header[28:32], "big")
    log = path.with_name(path.name + "-wal")
    live = log.exists() and log.stat().st_size > 0
    if header[24:28] == header[92:96] and size < expected and not live:
        raise FileError(
            f"'{path}' is truncated: it holds {size:,} of {expected:,} bytes. Copy or unpack it again; "
            "a full disk is the usual cause."
        )
    return "immutable=1" if header[18:20] == b"\x02\x02" and not live else "mode=ro"


def _explained(path: str, error: Exception) -> Exception:
    """Turn what a database says into our error; never with a password."""
    said = masked(" ".join(str(getattr(error, "orig", None) or error).split()))
    password = re.search(r"://[^:/@\s]*:(.+)@", path)
    if password and len(password[1]) > 2:
        said = said.replace(password[1], "***")
    shown, low = masked(path), said.lower()
    if "permission denied" in low and is_address(path):
        return LabelError(
            f"'{shown}' does not let you read: {said}. The user needs USAGE on the schema and SELECT on the tables "
            "of ChEMBL, nothing more."
        )
    if "no such table" in low or ("does not exist" in low and "relation" in low):
        return LabelError(f"'{shown}' is no ChEMBL database: {said}.")
    if not is_address(path):
        busy = "locked" in low
        hint = "Another program is writing to it: wait or copy it." if busy else "It may be damaged: copy it again."
        return FileError(f"'{shown}' cannot be read as a SQLite database ({said}). {hint}")
    hint = "Check host, port and that the server runs."
    if "password" in low or "authentication" in low or "pg_hba" in low:
        hint = "Set PGPASSWORD or a line of ~/.pgpass, and check the user."
    elif "database" in low and "does not exist" in low:
        hint = "Check the name of the database."
    return FileError(f"The server of '{shown}' cannot be used: {said}. {hint}")


def need(connection: Any, path: str, tables: Mapping[str, Sequence[str]]) -> None:
    """Check that tables and columns exist.

    Raises
    ------
    LabelError
        Naming the first that does not.
    """
    from sqlalchemy import inspect

    inspector = inspect(connection)
    known = {*inspector.get_table_names(), *inspector.get_view_names()}
    for table, columns in tables.items():
        if table not in known:
            raise LabelError(
                f"'{masked(path)}' is no ChEMBL database: it has no table '{table}' but {some(sorted(known), 5)}. "
                "Give a release, loaded whole."
            )
        present = {c["name"] for c in inspector.get_columns(table)}
        for column in columns:
            if column not in present:
                raise LabelError(
                    f"Table '{table}' of '{masked(path)}' has no column '{column}'. {nearest(column, present)} "
                    "Releases from 22 on have it: use a newer one."
                )


def stamp(path: str) -> str:
    """Return what tells whether a database has changed, without reading 25 GB of it.

    Of a file: size, time of the last change and SQLite's own change counter. Of a server: the release
    and its last activity.
    """
    if not is_address(path):
        _sqlite_options(Path(path))
        with Path(path).open("rb") as handle:
            counter = int.from_bytes(handle.read(28)[24:28], "big")
        told = Path(path).stat()
        log = Path(path + "-wal")
        return f"{told.st_size} {told.st_mtime_ns} {counter} {log.stat().st_size if log.exists() else 0}"
    from phenohit.labels.chembl import last_activity, release_of

    with connect(path) as connection:
        return f"{release_of(connection)} {last_activity(connection)}"
