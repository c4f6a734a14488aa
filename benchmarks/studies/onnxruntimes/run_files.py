"""What one onnxruntime makes of many files: a program for that version's own environment, which has numpy and nothing of ours.

    python run_files.py FILES

FILES is a JSON list of {"path", "images", "expected"}; prints a JSON object as its last line.
"""

from __future__ import annotations

import json
import sys
import time

import numpy as np
import onnxruntime


def outcome(path: str, images: str, expected: str) -> dict:  # type: ignore[type-arg]
    """How far a file's output is off what is expected, relative to its scale, milliseconds of an image, or why it does not
    run."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    try:
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        given, wanted = np.load(images), np.load(expected)
        name = session.get_inputs()[0].name
        output = session.run(None, {name: given})[0]
        times = []
        for _ in range(5):
            began = time.perf_counter()
            session.run(None, {name: given[:1]})
            times.append(1e3 * (time.perf_counter() - began))
    except Exception as error:  # onnxruntime's types have no base of their own
        return {"error": str(error).splitlines()[0][:200]}
    off = float(np.abs(output.astype(np.float64) - wanted).max() / np.abs(wanted).max())
    agree = float((output.argmax(1) == wanted.argmax(1)).mean())
    return {"max_rel_error": off if np.isfinite(off) else None, "top1_agreement": agree, "ms": round(min(times), 4)}


def main() -> None:
    with open(sys.argv[1], encoding="utf-8") as stream:
        files = json.load(stream)
    rows = [outcome(**file) for file in files]
    print(json.dumps({"onnxruntime": onnxruntime.__version__, "numpy": np.__version__, "rows": rows}))


if __name__ == "__main__":
    main()
