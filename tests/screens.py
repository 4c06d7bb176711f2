"""Programs on a terminal of their own, and what a person sees on it."""

import contextlib
import fcntl
import os
import pty
import re
import signal
import struct
import termios
import threading
import time

import programs

# Runs in the program's process, first of all: the terminal is its own, as
# after a login, and Ctrl-C is heeded where the tests are a background job.
_SETUP = """
import os, signal
os.environ.pop("COLUMNS")
os.setsid()
terminal = os.open({name!r}, os.O_RDWR)
for number in range(3):
    os.dup2(terminal, number)
signal.signal(signal.SIGINT, signal.default_int_handler)
"""

_TOKENS = re.compile(r"\x1b\[([0-9;?]*)([A-Za-z])|\r|\n|[^\x1b\r\n]+")
_LIMIT = 120


class Screen:
    """A terminal without an end: a line for each that was ever written.

    Attributes:
        columns: Its width.
        said: All that was written, control sequences included.
    """

    def __init__(self, columns, master):
        self.columns = columns
        self.said = ""
        self._master = master
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self):
        content = b""
        # Whoever reads after the last writer has gone gets an error.
        with contextlib.suppress(OSError):
            while new := os.read(self._master, 65536):
                content += new
                self.said = content.decode("utf-8", "ignore")

    def wait(self, text):
        """Until something was written."""
        ends = time.monotonic() + _LIMIT
        while not re.search(text, self.said):
            assert time.monotonic() < ends and self._reader.is_alive(), (
                self.said
            )
            time.sleep(0.02)

    def press_ctrl_c(self):
        """As a person does it: the terminal shows it and sends a signal."""
        os.write(self._master, b"\x03")

    def close(self):
        """Waits until nobody is there who could write."""
        self._reader.join(_LIMIT)
        os.close(self._master)

    @property
    def wraps(self):
        """How many lines went beyond the edge, and on in the next one."""
        return self._draw()[1]

    @property
    def lines(self):
        """What is seen in the end, without the empty lines below it."""
        lines, _ = self._draw()
        return "\n".join(line.rstrip() for line in lines).rstrip().split("\n")

    def _draw(self):
        lines, row, column, wraps = [""], 0, 0, 0
        for token in _TOKENS.finditer(self.said):
            text, code = token[0], token[2]
            if text == "\r":
                column = 0
            elif text == "\n":
                row += 1
                lines += [""] * (row + 1 - len(lines))
            elif code == "A":
                row = max(0, row - int(token[1] or 1))
            elif code == "K":
                lines[row] = "" if token[1] == "2" else lines[row][:column]
            elif code is None:
                for character in text:
                    if column == self.columns:
                        wraps += 1
                        row, column = row + 1, 0
                        lines += [""] * (row + 1 - len(lines))
                    line = lines[row].ljust(column)
                    lines[row] = line[:column] + character + line[column + 1 :]
                    column += 1
        return lines, wraps


@contextlib.contextmanager
def opened(columns, program, *arguments):
    """Starts a program on a terminal; yields its `Screen` and the process.

    Args:
        columns: The width of the terminal.
        program, arguments: As of `programs.started`.
    """
    master, slave = pty.openpty()
    size = struct.pack("HHHH", 40, columns, 0, 0)
    fcntl.ioctl(slave, termios.TIOCSWINSZ, size)
    setup = _SETUP.format(name=os.ttyname(slave))
    with programs.started(
        program, *arguments, setup=setup, TERM="xterm"
    ) as process:
        screen = Screen(columns, master)
        try:
            yield screen, process
        except BaseException:
            os.kill(process.pid, signal.SIGKILL)
            raise
        finally:
            process.finished()
            os.close(slave)
            screen.close()


def shown(columns, program, *arguments):
    """The `Screen` of a program that ends well."""
    with opened(columns, program, *arguments) as (screen, process):
        status = process.finished().returncode
    assert status == 0, screen.said
    return screen
