"""Workers that are lost: what is finished stays, the rest is done again once."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from joblib import delayed

from phenohit.config import WorkersConfig
from phenohit.errors import RunError
from phenohit.workers import Workers, lost_worker


def work(folder: Path, times: int):
    """Return ten calls that each leave a file; the fifth kills its process as often as told."""

    def piece(i: int) -> int:
        done = folder / f"{i}"
        if done.exists():
            return i
        if i == 5 and len(list(folder.glob("killed-*"))) < times:
            (folder / f"killed-{os.getpid()}").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        with done.open("x") as file:  # never twice
            file.write(f"{os.getpid()}")
        return i

    return [delayed(piece)(i) for i in range(10)]


def test_what_a_killed_process_had_not_finished_is_done_again(tmp_path, caplog):
    workers = Workers(WorkersConfig(), 2)
    try:
        assert len(list(workers.finish(work(tmp_path, 1)))) == 10  # as many as were asked for, for the progress
        assert {p.name for p in tmp_path.glob("?")} == {str(i) for i in range(10)}
        assert "a worker was lost" in caplog.text
    finally:
        workers.close()


def test_workers_that_are_lost_twice_end_with_what_to_do(tmp_path):
    workers = Workers(WorkersConfig(), 2)
    try:
        with pytest.raises(RunError, match="What is finished is kept: run again"):
            list(workers.finish(work(tmp_path, 2)))
    finally:
        workers.close()


def test_the_errors_of_the_work_itself_are_raised_at_once():
    tried = []

    def wrong() -> None:
        tried.append(1)
        raise ValueError("of the work")

    with pytest.raises(ValueError, match="of the work"):
        list(Workers(WorkersConfig(kind="threads"), 1).finish([delayed(wrong)()]))
    assert len(tried) == 1
    assert not lost_worker(ValueError())
