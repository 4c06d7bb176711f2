"""Files written whole, and folders that belong to one process at a time."""

import errno
import fcntl
import json
import os
import signal
import subprocess
import sys

import programs
import pytest

from mart_tf import files
from mart_tf import places


class TestWhole:
    def test_a_reader_never_sees_a_part(self, tmp_path):
        path = tmp_path / "a.txt"
        path.write_text("old")
        with files.whole(path) as temporary:
            temporary.write_text("half")
            assert path.read_text() == "old"
        assert path.read_text() == "half"
        assert [file.name for file in tmp_path.iterdir()] == ["a.txt"]

    def test_what_fails_leaves_what_was_there(self, tmp_path):
        path = tmp_path / "a.txt"
        path.write_text("old")
        with pytest.raises(OSError, match="full"), files.whole(path) as beside:
            beside.write_text("half")
            raise OSError("full")
        assert path.read_text() == "old"
        assert [file.name for file in tmp_path.iterdir()] == ["a.txt"]

    def test_two_writers_have_a_file_each(self, tmp_path):
        path = tmp_path / "a.txt"
        with files.whole(path) as slow:
            slow.write_text("half")
            with files.whole(path) as fast:
                fast.write_text("whole")
            assert path.read_text() == "whole"
            slow.write_text("half and half")
        assert path.read_text() == "half and half"
        assert [file.name for file in tmp_path.iterdir()] == ["a.txt"]

    def test_every_name_that_passes_the_check_can_be_written(self, tmp_path):
        longest = os.pathconf(tmp_path, "PC_NAME_MAX")
        written = 0
        for length in range(longest - 30, longest + 1):
            path = tmp_path / ("a" * length)
            try:
                places.check_folder("--output", path)
            except ValueError:
                continue
            files.replace_text(path, "whole")
            written = length
        assert longest - 30 < written < longest

    @pytest.mark.parametrize("has_links", [True, False])
    def test_a_new_file_takes_nobodys_place(
        self, tmp_path, monkeypatch, has_links
    ):
        if not has_links:
            # As a FAT or some object stores answer.
            def refuse(*_):
                raise PermissionError(errno.EPERM, "Operation not permitted")

            monkeypatch.setattr(os, "link", refuse)
        path = tmp_path / "a.txt"
        with files.whole(path, new=True) as beside:
            beside.write_text("first")
        with (
            pytest.raises(FileExistsError, match="File exists"),
            files.whole(path, new=True) as beside,
        ):
            beside.write_text("second")
        assert path.read_text() == "first"
        assert [file.name for file in tmp_path.iterdir()] == ["a.txt"]

    def test_what_a_killed_writer_left_goes_after_a_day(self, tmp_path):
        path = tmp_path / "a.txt"
        old, fresh, other = (
            path.with_name(name)
            for name in (".a.txt.partial-1", ".a.txt.partial-2", ".b.partial")
        )
        for file in (old, fresh, other):
            file.write_text("half")
        for file in (old, other):
            os.utime(file, (0, 0))
        files.replace_text(path, "whole")
        assert sorted(tmp_path.iterdir()) == [fresh, other, path]


def test_of_files_written_together_the_last_stands_for_all(
    tmp_path, monkeypatch
):
    """Where a process ends between the first and the last."""
    files.write_together(tmp_path, {"a.png": b"old", "report.json": b"old"})
    replace = os.replace

    def cut_off(source, target):
        if target.name == "report.json":
            raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr(os, "replace", cut_off)
    new = {"a.png": b"new", "report.json": b"new"}
    with pytest.raises(KeyboardInterrupt):
        files.write_together(tmp_path, new)
    assert [file.name for file in tmp_path.iterdir()] == ["a.png"]
    monkeypatch.undo()
    files.write_together(tmp_path, new)
    for name, content in new.items():
        assert (tmp_path / name).read_bytes() == content


def test_what_a_killed_process_wrote_aside_goes_after_a_day(tmp_path):
    code = """
import os, signal, sys
from mart_tf import files
os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
files.write_together(sys.argv[1], {"a": b"half"})
"""
    for _ in "12":
        killed = subprocess.run(
            [sys.executable, "-c", code, tmp_path], env=programs.environment()
        )
        assert killed.returncode == -signal.SIGKILL
    old, fresh = tmp_path.iterdir()
    os.utime(old, (0, 0))
    files.write_together(tmp_path, {"a": b"whole"})
    assert sorted(tmp_path.iterdir()) == [fresh, tmp_path / "a"]


_TAKER = """
import sys, time
from mart_tf import files
until = time.monotonic() + float(sys.argv[2])
had = 0
while time.monotonic() < until:
    try:
        with files.held(sys.argv[1]):
            had += 1
    except ValueError as error:
        assert "is being written by another process" in str(error), error
print(had)
"""


class TestHeld:
    def test_processes_that_begin_and_end_at_the_same_moment(self, tmp_path):
        """Each removes lock and folder while others open them."""
        processes = [
            subprocess.Popen(
                [sys.executable, "-c", _TAKER, str(tmp_path / "run"), "2"],
                env=programs.environment(),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for _ in range(3)
        ]
        for process in processes:
            said, error = process.communicate()
            assert process.returncode == 0, error
            assert int(said) > 0
        assert not (tmp_path / "run").exists()

    def test_another_process_is_refused_by_name(self, tmp_path):
        process = programs.hold(tmp_path / "run")
        try:
            said = json.loads((tmp_path / "run" / ".lock").read_text())
            assert said["process"] == process.pid
            with (
                pytest.raises(ValueError, match=f"process \\({process.pid} on"),
                files.held(tmp_path / "run"),
            ):
                raise AssertionError("Both have it.")
        finally:
            process.kill()
            process.wait()

    @pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
    def test_of_a_process_that_has_died_it_is_taken_over(
        self, tmp_path, number
    ):
        process = programs.hold(tmp_path / "run")
        process.send_signal(number)
        process.wait()
        assert (tmp_path / "run" / ".lock").exists()
        with files.held(tmp_path / "run"):
            said = json.loads((tmp_path / "run" / ".lock").read_text())
            assert said["process"] == os.getpid()
        # Nothing was written: nothing stays.
        assert not (tmp_path / "run").exists()

    def test_is_given_back_after_an_error(self, tmp_path):
        with pytest.raises(OSError, match="full"), files.held(tmp_path):
            (tmp_path / "a.txt").write_text("a")
            raise OSError("full")
        assert [file.name for file in tmp_path.iterdir()] == ["a.txt"]
        with files.held(tmp_path):
            pass

    @pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"host": 3}'])
    def test_a_lock_that_says_nothing_is_one(self, tmp_path, text):
        process = programs.hold(tmp_path)
        (tmp_path / ".lock").write_text(text)
        try:
            with (
                pytest.raises(ValueError, match="by another process; wait"),
                files.held(tmp_path),
            ):
                raise AssertionError("Both have it.")
        finally:
            process.kill()
            process.wait()

    @pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK])
    def test_a_file_system_without_locks_is_told_of(
        self, tmp_path, monkeypatch, number
    ):
        # Lustre without -o flock, NFS without lockd: none is at hand.
        def flock(file, operation):
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(fcntl, "flock", flock)
        with (
            pytest.warns(UserWarning, match="a file system without locks"),
            files.held(tmp_path / "run"),
        ):
            assert files.holder(tmp_path / "run") is None
        assert not (tmp_path / "run").exists()
