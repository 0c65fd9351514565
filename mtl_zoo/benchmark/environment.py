"""What a result depends on besides its settings: versions, hardware, the commit of the code."""

from __future__ import annotations

import functools
import importlib.metadata
import json
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

from mtl_zoo import __version__

PACKAGES = (
    "tensorflow",
    "keras",
    "keras-rs",
    "tensorflow-text",
    "tensorflow-recommenders",
    "jax",
    "torch",
    "numpy",
    "pandas",
    "pyarrow",
    "scikit-learn",
    "matplotlib",
)


def versions() -> dict[str, str]:
    """Versions of Python, this package and what it stands on, by name; packages that are not installed are left out."""
    found = {"python": platform.python_version(), "mtl_zoo": __version__}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def versions_of_result() -> dict[str, str]:
    """What a figure depends on most: short, since every row of results repeats it. `mtl-zoo env` has the rest."""
    import keras

    backend = keras.backend.backend()
    found = versions()
    return {
        "backend": backend,
        **{name: found[name] for name in ("python", "mtl_zoo", "keras", backend, "numpy") if name in found},
    }


@functools.cache
def processor() -> str:
    """Name of the processor and how many of its cores this process may use."""
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                name = line.partition(":")[2].strip()
                break
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{name}, {cores} cores"


def devices() -> list[str]:
    """Devices of the Keras backend, accelerators by their names."""
    import keras

    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        found = []
        for device in tf.config.list_physical_devices():
            details = tf.config.experimental.get_device_details(device) if device.device_type == "GPU" else {}
            name = details.get("device_name", "")
            found.append(f"{device.name.removeprefix('/physical_device:')} {name}".strip())
        return found
    return [str(device) for device in keras.distribution.list_devices()]


def hardware() -> str:
    """One line: processor, cores, and accelerators if there are any."""
    accelerators = [device for device in devices() if "CPU" not in device.upper()]
    return ", ".join([processor(), *accelerators])


@functools.cache
def commit() -> tuple[str, bool | None]:
    """(commit, whether tracked files differ from it) of the code that runs; ("", None) if it is not a git checkout.

    Results are left out of the comparison: a benchmark that appends to a tracked file does not change the code.
    """
    folder = Path(__file__).parents[1]

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(folder), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout.strip()

    try:
        # A package installed into a folder inside some other repository is not that repository's code.
        git("ls-files", "--error-unmatch", "__init__.py")
        changed = git("status", "--porcelain", "--untracked-files=no", "--", ":/", ":(top,exclude)benchmarks/results")
        return git("rev-parse", "HEAD"), bool(changed)
    except (OSError, subprocess.SubprocessError):
        return "", None


def about() -> dict[str, Any]:
    """What every row of results says of where it comes from: `commit`, `dirty`, `versions` (JSON), `hardware`."""
    name, dirty = commit()
    return {"commit": name, "dirty": dirty, "versions": json.dumps(versions_of_result()), "hardware": hardware()}
