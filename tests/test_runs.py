from __future__ import annotations

import errno
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from phenohit.errors import FileError, RunError
from phenohit.files import atomic, read_json, write_json, write_text
from phenohit.runs import open_run, slug


def _open(folder: Path):
    return open_run(folder, name="test", seed=0, simulated=True)


def _step(run, log: list[str], **kwargs):
    def make():
        log.append("made")
        write_text(run.path("a.txt"), "hello")
        return {"n": 1}

    return run.step("a", make, outputs=["a.txt"], **kwargs)


def test_a_finished_step_is_not_done_twice(tmp_path):
    log: list[str] = []
    for _ in range(2):
        with _open(tmp_path / "run") as run:
            _step(run, log, settings={"x": 1})
    assert log == ["made"]
    assert read_json(tmp_path / "run" / "manifest.json")["steps"]["a"]["n"] == 1


@pytest.mark.parametrize("change", ["settings", "input", "output deleted", "output cut", "stamp damaged"])
def test_a_changed_step_is_redone_and_says_why(tmp_path, caplog, change):
    log: list[str] = []
    with _open(tmp_path / "run") as run:
        _step(run, log, settings=1, inputs={"t.csv": "aa"})
    if change == "output deleted":
        (tmp_path / "run" / "a.txt").unlink()
    elif change == "output cut":
        (tmp_path / "run" / "a.txt").write_text("hel")
    elif change == "stamp damaged":
        (tmp_path / "run" / "stamps" / "a.json").write_text("{")
    with caplog.at_level("DEBUG", "phenohit"), _open(tmp_path / "run") as run:
        _step(
            run, log, settings=2 if change == "settings" else 1, inputs={"t.csv": "bb" if change == "input" else "aa"}
        )
    assert log == ["made", "made"]
    why = {"settings": "settings", "input": "file 't.csv'", "stamp damaged": "its stamp is damaged"}
    assert f"redone because {'of a change in ' if change in ('settings', 'input') else ''}" in caplog.text
    assert why.get(change, "'a.txt' is missing or not the file it wrote") in caplog.text


def test_a_change_upstream_redoes_what_depends_on_it(tmp_path):
    log: list[str] = []

    def both(settings):
        with _open(tmp_path / "run") as run:
            run.step("up", lambda: write_text(run.path("u.txt"), "u"), outputs=["u.txt"], settings=settings)
            _step(run, log, after=("up",))

    both(1)
    both(1)
    both(2)
    assert log == ["made", "made"]


def test_other_code_redoes_every_step(tmp_path, monkeypatch, caplog):
    log: list[str] = []
    with _open(tmp_path / "run") as run:
        _step(run, log)
    monkeypatch.setattr("phenohit.runs._code", lambda: "9.9.9 other")
    with caplog.at_level("DEBUG", "phenohit"), _open(tmp_path / "run") as run:
        _step(run, log)
    assert log == ["made", "made"]
    assert "of a change in version of PhenoHit" in caplog.text


def test_a_step_that_writes_nothing_is_an_error(tmp_path):
    with _open(tmp_path / "run") as run, pytest.raises(RunError, match=r"ended without writing \['b.txt'\]"):
        run.step("b", lambda: None, outputs=["b.txt"])


def test_a_run_in_use_is_refused_with_its_owner(tmp_path):
    script = textwrap.dedent(
        """
        import sys, time
        from phenohit.runs import open_run
        with open_run(sys.argv[1], name="x", seed=0, simulated=False):
            print("open", flush=True)
            time.sleep(60)
        """
    )
    other = subprocess.Popen([sys.executable, "-c", script, str(tmp_path / "run")], stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout is not None
        assert other.stdout.readline().strip() == "open"
        with (
            pytest.raises(RunError, match=rf"is in use by .* \(process {other.pid}, since 20"),
            _open(tmp_path / "run"),
        ):
            pass
    finally:
        other.kill()
        other.wait()
        other.stdout.close()
    with _open(tmp_path / "run"):  # a killed owner leaves no lock behind
        pass


def test_a_folder_with_other_things_is_refused(tmp_path):
    (tmp_path / "thesis.doc").write_text("precious")
    with pytest.raises(RunError, match="not empty and was not made by PhenoHit"), _open(tmp_path):
        pass
    assert (tmp_path / "thesis.doc").read_text() == "precious"


def test_leftovers_of_a_killed_process_are_swept(tmp_path):
    with _open(tmp_path / "run") as run:
        leftover = run.path("deep", ".x.parquet.123.partial")
        leftover.write_text("half")
    with _open(tmp_path / "run"):
        assert not leftover.exists()


def test_a_full_disk_is_told_and_leaves_nothing(tmp_path):
    target = tmp_path / "a.json"
    write_json(target, {"old": 1})

    def fill_up():
        with atomic(target) as partial:
            partial.write_text("half of it")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(FileError, match=r"Cannot write '.*a\.json': No space left.*Free some space"):
        fill_up()
    assert read_json(target) == {"old": 1}
    assert [f.name for f in tmp_path.iterdir()] == ["a.json"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_really_full_device_is_told(tmp_path, monkeypatch):
    # Every write to /dev/full fails with "no space left", as a full disk does.
    (tmp_path / f".b.txt.{os.getpid()}.partial").symlink_to("/dev/full")
    with pytest.raises(FileError, match="No space left on device"):
        write_text(tmp_path / "b.txt", "x" * 100_000)
    assert list(tmp_path.iterdir()) == []


def test_an_unwritable_folder_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FileError, match="Check that the folder exists and that you may write to it"):
        write_text(tmp_path / "file" / "a.txt", "x")


@pytest.mark.parametrize("text", ["assay >= 6.5", "a/b", "../../etc/passwd", "", "x" * 200, "<script>"])
def test_slugs_are_safe_and_distinct(text):
    made = slug(text)
    assert made
    assert "/" not in made
    assert not made.startswith(".")
    assert len(made) < 100
    assert made != slug(text + " ")
