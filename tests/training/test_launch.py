"""The local cluster, with programs that take no time in place of training."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time

import pytest

import mtl_zoo_cli as cli
from mtl_zoo.training import launch

START = """
import json, os, signal, subprocess, sys, time
config = json.loads(os.environ["TF_CONFIG"])
task = config["task"]["type"] + "-" + str(config["task"]["index"])
"""


def program(code):
    return [sys.executable, "-c", START + textwrap.dedent(code)]


def is_alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # A process that has ended stays until its parent has asked for it.
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rsplit(")", 1)[1].split()[0] != "Z"


def assert_ended(folder):
    pids = [int(path.read_text()) for path in folder.glob("*.pid")]
    assert pids
    assert not [pid for pid in pids if is_alive(pid)]


def assert_gone(started):
    assert not [pid for pids in started for pid in pids.values() if is_alive(pid)]


WRITE_PID = """
def write_pid(name, pid):
    part = os.path.join(sys.argv[1], name + ".part")
    open(part, "w").write(str(pid))
    os.replace(part, part[:-5] + ".pid")
write_pid(task, os.getpid())
"""


def test_every_process_knows_its_place(tmp_path):
    lines = []
    done = launch(program("print(json.dumps(config))"), workers=2, servers=1, logs=tmp_path, echo=lines.append)
    # The chief's end is that of the cluster: the others would wait for it.
    assert done.code == 0 and done.attempts == 1 and not done.failures
    assert set(done.codes) == {"chief-0", "worker-0", "worker-1", "ps-0"}
    (line,) = lines
    assert '"task": {"type": "chief", "index": 0}' in line
    hosts = json.loads(line)["cluster"]
    assert {role: len(at) for role, at in hosts.items()} == {"chief": 1, "worker": 2, "ps": 1}
    assert len({host for at in hosts.values() for host in at}) == 4
    assert "attempt 1" in (tmp_path / "worker-1.log").read_text()


def test_the_death_of_one_ends_all_and_what_they_started(tmp_path, monkeypatch):
    code = (
        WRITE_PID
        + """
if task == "worker-1":
    while len([n for n in os.listdir(sys.argv[1]) if n.endswith(".pid")]) < 5:
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGKILL)
signal.signal(signal.SIGTERM, signal.SIG_IGN)  # deaf: it must be killed
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
write_pid("child-" + task, child.pid)
time.sleep(600)
"""
    )
    monkeypatch.setattr(sys.modules[launch.__module__], "_GRACE_SECONDS", 0.5)
    done = launch([*program(code), str(tmp_path)], workers=3, logs=tmp_path, timeout=60)
    # Two deaf workers, their children, and the one that died.
    assert done.code == 128 + signal.SIGKILL
    assert done.codes["worker-1"] == -signal.SIGKILL
    assert done.failures == ("worker-1: killed by SIGKILL",)
    assert_ended(tmp_path)


def test_a_failure_is_restarted_and_told(tmp_path):
    code = """
    mark = os.path.join(sys.argv[1], "failed")
    if task == "worker-1" and not os.path.exists(mark):
        open(mark, "w").close()
        sys.exit(3)
    if not os.path.exists(mark):
        time.sleep(600)
    """
    command = [*program(code), str(tmp_path)]
    started = []
    done = launch(command, workers=2, restarts=2, logs=tmp_path, timeout=60, started=started.append)
    assert [set(pids) for pids in started] == [{"worker-0", "worker-1"}] * 2
    assert len({pid for pids in started for pid in pids.values()}) == 4
    assert_gone(started)
    assert (done.code, done.attempts, done.failures) == (0, 2, ("worker-1: exit code 3",))
    (tmp_path / "failed").unlink()
    done = launch(command, workers=2, logs=tmp_path, timeout=60)
    assert (done.code, done.attempts, done.failures) == (3, 1, ("worker-1: exit code 3",))


def test_a_cluster_that_does_not_end_is_ended(tmp_path):
    done = launch([*program(WRITE_PID + "time.sleep(600)"), str(tmp_path)], workers=1, logs=tmp_path, timeout=0.5)
    assert done.code == 124 and done.failures == ("worker-0: timeout",)


COMMAND = "cli.main(['launch', '--workers', '2', '--logs', LOGS, '--', *sys.argv[1:]])"
CALL = "launch(sys.argv[1:], workers=2, logs=LOGS).code"


@pytest.mark.parametrize(
    ("call", "number", "code"),
    [
        pytest.param(COMMAND, signal.SIGINT, 130, id="Ctrl-C"),
        pytest.param(COMMAND, signal.SIGTERM, 130, id="command", marks=pytest.mark.slow),
        pytest.param(CALL, signal.SIGTERM, 143, id="function", marks=pytest.mark.slow),
    ],
)
def test_a_signal_ends_all(tmp_path, call, number, code):
    # Tests that run in the background inherit that Ctrl-C is ignored, and under nohup that a hang-up is.
    program_of_user = f"""
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
import mtl_zoo_cli as cli
from mtl_zoo.training import launch
sys.modules[launch.__module__]._GRACE_SECONDS = 1.0
LOGS = {str(tmp_path)!r}
sys.exit({call})
"""
    deaf = "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    worker = [*program(deaf + WRITE_PID + "time.sleep(600)"), str(tmp_path)]
    process = subprocess.Popen([sys.executable, "-c", program_of_user, *worker])
    try:
        while len(list(tmp_path.glob("*.pid"))) < 2:
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(number)
        if number == signal.SIGTERM:  # a second one, while the first is at work
            time.sleep(0.3)
            process.send_signal(number)
        assert process.wait(30) == code
    finally:
        process.kill()
    assert_ended(tmp_path)


def launched(tmp_path, code, grace=0.5, **options):
    """A process that launches two workers, and waits until it has all pids that they write."""
    user = f"""
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
from mtl_zoo.training import launch
sys.modules[launch.__module__]._GRACE_SECONDS = {grace}
sys.exit(launch(sys.argv[1:], workers=2, logs={str(tmp_path)!r}).code)
"""
    worker = [*program(WRITE_PID + textwrap.dedent(code)), str(tmp_path)]
    return subprocess.Popen([sys.executable, "-c", user, *worker], stderr=subprocess.DEVNULL, **options)


def await_pids(process, folder, count):
    while len(list(folder.glob("*.pid"))) < count:
        assert process.poll() is None
        time.sleep(0.05)


# fault 30
@pytest.mark.extended
@pytest.mark.parametrize(
    "signals",
    [
        pytest.param([signal.SIGHUP], id="hangup", marks=pytest.mark.slow),
        pytest.param([signal.SIGINT] * 3, id="three interrupts"),
    ],
)
def test_no_signal_leaves_deaf_processes(tmp_path, signals):
    deaf = (
        "for n in (1, 2, 15): signal.signal(n, signal.SIG_IGN)\nwrite_pid('deaf-' + task, os.getpid())\ntime.sleep(600)"
    )
    process = launched(tmp_path, deaf, grace=20.0 if len(signals) > 1 else 0.5)
    try:
        await_pids(process, tmp_path, 4)
        for number in signals:
            process.send_signal(number)
            time.sleep(0.3)
        assert process.wait(15) != 0, "the second signal cuts the grace time short"
    finally:
        process.kill()
    assert_ended(tmp_path)


# fault 30
@pytest.mark.extended
def test_daemons_end_with_the_cluster(tmp_path):
    """What starts a session of its own, or has lost its parents."""
    code = """
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
    write_pid("session-" + task, child.pid)
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            write_pid("daemon-" + task, os.getpid())
            time.sleep(600)
        os._exit(0)
    while len([n for n in os.listdir(sys.argv[1]) if n.endswith(".pid")]) < 6:
        time.sleep(0.01)
    """
    done = launch([*program(WRITE_PID + textwrap.dedent(code)), str(tmp_path)], workers=2, logs=tmp_path, timeout=60)
    assert done.code == 0
    assert_ended(tmp_path)


# fault 30
@pytest.mark.extended
def test_a_closed_pipe_does_not_stop_training(tmp_path):
    """`mtl-zoo launch ... | head -1`."""
    user = "import sys, mtl_zoo_cli as cli; sys.exit(cli.main(sys.argv[1:]))"
    code = "for i in range(30_000): print('line', i)"
    command = [sys.executable, "-c", user, "launch", "--workers", "1", "--logs", str(tmp_path), "--", *program(code)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout.readline() == "line 0\n"
    process.stdout.close()
    process.wait(120)
    assert (tmp_path / "worker-0.log").read_text().endswith("line 29999\n")


# fault 30
def test_an_echo_that_fails_is_told_once(tmp_path, caplog):
    def fail(line):
        raise RuntimeError("of the caller")

    code = "for i in range(30_000): print('line', i)"
    assert launch(program(code), workers=1, logs=tmp_path, echo=fail, timeout=60).code == 0
    assert caplog.text.count("lines of worker-0 are not shown any more: of the caller") == 1


# fault 30
@pytest.mark.parametrize("number", [9, 40])
def test_any_signal_has_a_name(tmp_path, number):
    done = launch(program(f"os.kill(os.getpid(), {number})"), workers=1, logs=tmp_path, timeout=60)
    assert done.code == 128 + number
    assert done.failures == ("worker-0: killed by " + {9: "SIGKILL", 40: "signal 40"}[number],)


@pytest.mark.extended
def test_a_users_own_handler_of_sigterm_stays(tmp_path):
    got = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: got.append(number))
    try:
        kill = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGTERM))
        kill.start()
        assert launch(program("time.sleep(1.5)"), workers=1, logs=tmp_path, timeout=60).code == 0
        kill.join()
    finally:
        signal.signal(signal.SIGTERM, before)
    assert got == [signal.SIGTERM]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"command": []}, "`command` must be a program and its arguments"),
        ({"command": "python train.py"}, "`command` must be a program and its arguments"),
        ({"workers": 0}, "`workers` must be a whole number >= 1"),
        ({"servers": -1}, "`servers` must be a whole number >= 0"),
        ({"restarts": -1}, "`restarts` must be a whole number >= 0"),
        ({"timeout": 0}, "`timeout` must be"),
    ],
)
def test_wrong_arguments(tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        launch(**{"command": ["true"], "logs": tmp_path, **arguments})


def test_a_program_that_is_not_there(tmp_path):
    with pytest.raises(OSError, match="no-such-program"):
        launch(["no-such-program"], logs=tmp_path)


def test_the_command_line(tmp_path, capsys):
    command = program("print('trained', *sys.argv[1:]); sys.exit(4 if sys.argv[-1] == 'bad' else 0)")
    options = ["launch", "--workers", "1", "--logs", str(tmp_path), "--"]
    assert cli.main([*options, *command, "--epochs", "3"]) == 0
    assert "trained --epochs 3" in capsys.readouterr().out
    assert cli.main([*options, *command, "bad"]) == 4
    assert "worker-0: exit code 4" in capsys.readouterr().err
    assert cli.main(options) == 2
    assert "`command` must be a program" in capsys.readouterr().err


def test_threads_of_a_library_user(tmp_path):
    # Signals belong to the main thread: elsewhere launch does without.
    found = []
    thread = threading.Thread(
        target=lambda: found.append(launch(program(""), workers=1, logs=tmp_path, timeout=60).code)
    )
    thread.start()
    thread.join(60)
    assert found == [0]


def test_restarts_end_after_the_number_that_was_given(tmp_path):
    started = []
    done = launch(program("sys.exit(7)"), workers=1, restarts=2, logs=tmp_path, timeout=60, started=started.append)
    assert (done.code, done.attempts, len(started)) == (7, 3, 3)
    assert done.failures == ("worker-0: exit code 7",) * 3


@pytest.mark.extended
def test_an_error_of_the_caller_ends_all(tmp_path):
    started = []

    def fail(pids):
        started.append(pids)
        raise RuntimeError("of the caller")

    with pytest.raises(RuntimeError, match="of the caller"):
        launch(program("time.sleep(600)"), workers=2, logs=tmp_path, restarts=3, started=fail)
    assert len(started) == 1
    assert_gone(started)
