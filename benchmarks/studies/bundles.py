"""The bundles that `benchmarks.studies.engines` builds engines of, made on any machine with torch.

    python -m benchmarks.studies.bundles FOLDER

Untrained networks of the published shapes at 224 pixels: what engines are built of depends on shapes, not on training.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

NETWORKS = {"us_mobilenet_v1": [0.25, 0.5, 1.0], "us_mobilenet_v2": [0.35, 1.0], "s_resnet50": [0.25, 1.0]}
PRECISIONS = ["fp32", "fp16", "int8"]
IMAGES = 32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder

    import numpy as np

    from slimexport.exporter import VerificationFailed, export
    from slimtrain.data.noise import noise_images

    with tempfile.TemporaryDirectory() as name:
        images = Path(name) / "images.npy"
        np.save(images, noise_images(IMAGES, 224, 5))
        for network, widths in NETWORKS.items():
            try:
                manifest = export(
                    f"random:{network}",
                    widths=widths,
                    precisions=PRECISIONS,
                    calibration_data=images,
                    output_dir=folder / network,
                    overwrite=True,
                )
            except VerificationFailed as error:  # int8 of an untrained network may agree too little
                print(error)
                manifest = error.manifest
            print(f"{folder / network}: {', '.join(artifact.file for artifact in manifest.artifacts)}")


if __name__ == "__main__":
    main()
