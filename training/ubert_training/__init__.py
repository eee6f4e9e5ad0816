"""Offline: reviews in; trained weights, a bundle and a store of encoder states out."""

import os

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # ONNX Runtime reports to its maker from the moment it is imported
