"""A shell in a pseudo-terminal, typed into as a person would, and what it answered."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

# Escape sequences, and what a carriage return takes back.
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[=>]|\x07")
_TAKEN_BACK = re.compile(r"[^\n]*\r(?!\n)")


class Terminal:
    """A program that prompts and reads lines, in a terminal of its own.

    Args:
        command: The program, which writes `prompt` when it waits.
        prompt: What it writes.
        folder: Where it runs.
        environ: Variables beside those of this process.
    """

    def __init__(self, command: Sequence[str], prompt: str, folder: Path, environ: Mapping[str, str]) -> None:
        self.prompt, self.transcript = prompt, ""
        ours, theirs = pty.openpty()
        self._file = ours
        environ = {**os.environ, "TERM": "dumb", "COLUMNS": "100", "LINES": "50", "NO_COLOR": "1", **environ}
        self._process = subprocess.Popen(
            command, stdin=theirs, stdout=theirs, stderr=theirs, cwd=folder, env=environ, start_new_session=True
        )
        os.close(theirs)
        self._read(300)

    def type(self, line: str, seconds: float = 600) -> str:
        """Types a line, and waits for the next prompt; what was written in between, without the line itself."""
        os.write(self._file, f"{line}\n".encode())
        started = time.monotonic()
        text = self._read(seconds)
        answer = text.removeprefix(line).removesuffix(self.prompt).strip("\n")
        took = time.monotonic() - started
        self.transcript += f"{self.prompt}{line}\n{answer}\n[{took / 60:.1f} min]\n\n"
        return answer

    def _read(self, seconds: float) -> str:
        found, end = b"", time.monotonic() + seconds
        while not found.endswith(self.prompt.encode()):
            left = end - time.monotonic()
            if left <= 0 or not select.select([self._file], [], [], left)[0]:
                raise TimeoutError(f"no prompt after {seconds:.0f} s; so far: {found[-2000:].decode(errors='replace')}")
            try:
                found += os.read(self._file, 65536)
            except OSError as error:  # the program has ended
                raise EOFError(f"the program ended: {found[-2000:].decode(errors='replace')}") from error
        return _TAKEN_BACK.sub("", _ESCAPES.sub("", found.decode(errors="replace")).replace("\r\n", "\n"))

    def close(self) -> None:
        """Ends the program."""
        os.close(self._file)
        self._process.kill()  # a shell that prompts does not heed a request to end
        self._process.wait(30)
