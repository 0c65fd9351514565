"""Scripts that need two logical devices, which a process has or has not from its start: one process runs all of them.

Importing TensorFlow takes longer than what most of them do. `found(script, *arguments)` gives what a script printed as
JSON, a value a line, as if it had been run by `python -c` with these arguments.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import io
import json
import subprocess
import sys
import threading
import traceback
from typing import Any

SECONDS = 900


@functools.cache
def _process() -> subprocess.Popen[str]:
    # A file takes no room in a pipe that nobody reads.
    process = subprocess.Popen(
        [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    atexit.register(process.kill)
    return process


def found(script: str, *arguments: str) -> list[Any]:
    """What the script printed, parsed line by line; an AssertionError with its traceback where it failed."""
    process = _process()
    assert process.stdin is not None and process.stdout is not None
    timer = threading.Timer(SECONDS, process.kill)
    timer.start()
    try:
        process.stdin.write(json.dumps([script, arguments]) + "\n")
        process.stdin.flush()
        answer = process.stdout.readline()
    except BrokenPipeError:
        answer = ""
    finally:
        timer.cancel()
    if not answer:
        _process.cache_clear()
        raise AssertionError(f"The process of two devices ended with code {process.wait()}.")
    output, error = json.loads(answer)
    assert not error, error[-3000:]
    return [json.loads(line) for line in output.splitlines()]


def _run(script: str, arguments: list[str]) -> tuple[str, str]:
    import keras

    output, path = io.StringIO(), list(sys.path)
    sys.argv = ["-c", *arguments]
    try:
        with contextlib.redirect_stdout(output), contextlib.suppress(SystemExit):
            exec(compile(script, "<script>", "exec"), {"__name__": "__main__"})
        return output.getvalue(), ""
    except BaseException:
        return output.getvalue(), traceback.format_exc()
    finally:
        sys.path[:] = path
        keras.config.set_dtype_policy("float32")
        keras.backend.clear_session()


def _share_one_strategy() -> None:
    """Two strategies of the same devices would number their collective operations alike: all scripts get one."""
    import tensorflow as tf

    class Shared(tf.distribute.MirroredStrategy):
        made: tf.distribute.MirroredStrategy | None = None

        def __new__(cls, devices: list[str]) -> tf.distribute.MirroredStrategy:
            cls.made = cls.made or super().__new__(cls)
            return cls.made

        def __init__(self, devices: list[str]) -> None:
            if not hasattr(self, "_extended"):
                super().__init__(devices)

    tf.distribute.MirroredStrategy = Shared


if __name__ == "__main__":
    sys.path[0] = ""  # as with `python -c`
    _share_one_strategy()
    for request in sys.stdin:
        sys.stdout.write(json.dumps(_run(*json.loads(request))) + "\n")
        sys.stdout.flush()
