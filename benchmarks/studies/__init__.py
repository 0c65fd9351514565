"""Studies of the project itself: `python -m benchmarks.studies.speed --help`, and so on."""

import os

# Before anything imports TensorFlow.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
