"""Processes that stay warm and take turns: each does on demand what it was started for, and says how long it took."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence

# What is told of a process that ended: so many lines of its standard error.
_LINES = 20


class Worker:
    """A process that answers requests.

    Args:
        code: What it runs, in Python: at its end `serve`, or what does the same.
        environ: Variables beside those of this process.
    """

    def __init__(self, code: str, environ: Mapping[str, str] | None = None):
        pipe = subprocess.PIPE
        variables = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", **(environ or {})}
        command = [sys.executable, "-c", code]
        self._errors = tempfile.TemporaryFile("w+")
        self._process = subprocess.Popen(
            command, stdin=pipe, stdout=pipe, stderr=self._errors, text=True, env=variables
        )
        self._answer()

    def _answer(self) -> str:
        assert self._process.stdout is not None
        answer = self._process.stdout.readline()
        if not answer:
            code = self._process.wait()
            self._errors.seek(0)
            said = "".join(self._errors.readlines()[-_LINES:])
            raise RuntimeError(f"A process that takes turns ended with code {code}. It said last:\n{said}")
        return answer

    def ask(self, request: str) -> float:
        """What the process answers, a number."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return float(self._answer())

    def close(self) -> None:
        """Ends the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()
        self._errors.close()


def take_turns(workers: Sequence[Worker], requests: Sequence[str], rounds: int) -> list[list[float]]:
    """The answers of each worker to its request, a number a round; who comes first changes with every round."""
    answers: list[list[float]] = [[] for _ in workers]
    for number in range(rounds):
        order = range(len(workers))
        for i in order if number % 2 else reversed(order):
            answers[i].append(workers[i].ask(requests[i]))
    return answers


def serve(answer: Callable[[str], float]) -> None:
    """Answers requests on standard input until it ends; what else is printed goes to standard error."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        print(answer(json.loads(line)), file=answers, flush=True)
