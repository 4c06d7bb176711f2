"""`subprocess.Popen` of Python programs that do not import TensorFlow again.

Imported by the `setup` of a program that `programs` starts: Python that this
one starts in turn is forked from it. It may have imported TensorFlow by then,
but no op may have run, and no thread may have anything to do.
"""

import os
import subprocess
import sys

import __main__ as starter


class Popen(subprocess.Popen):
    """A script or a module is forked; what is not Python starts as ever."""

    def __init__(self, args, **options):
        module = args[1] == "-m"
        if args[0] != sys.executable or args[1][0] == "-" and not module:
            super().__init__(args, **options)
            return
        self.args, self.returncode = args, None
        self.stdin = self.stdout = self.stderr = None
        read, write = os.pipe()
        output = options["stdout"]
        file = output.fileno() if output != subprocess.PIPE else write
        self.pid = os.fork()
        if not self.pid:
            os.close(read)
            program, *arguments = args[2:] if module else args[1:]
            call = {
                "arguments": [program.removeprefix("mart_tf."), *arguments],
                "cwd": os.getcwd(),
                "environment": options.get("env", os.environ).copy(),
                "hidden": [],
                "setup": "",
                **dict.fromkeys(("stdout", "stderr"), f"/dev/fd/{file}"),
            }
            os._exit(starter.status(call))
        os.close(write)
        self.stdout = os.fdopen(read, encoding="utf-8")

    def communicate(self, input=None, timeout=None):
        """Waits for the end, which `starter` limits."""
        del input, timeout
        output = self.stdout.read()
        self.poll()
        return output, None

    def poll(self):
        if self.returncode is None:
            _, ended = os.waitpid(self.pid, 0)
            self.returncode = os.waitstatus_to_exitcode(ended)
        return self.returncode


subprocess.Popen = Popen
