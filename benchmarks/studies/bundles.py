"""The bundles that `benchmarks.studies.engines` builds engines of, made on any machine with torch.

    python -m benchmarks.studies.bundles FOLDER

Untrained networks of the published shapes at 224 pixels: what engines are built of depends on shapes, not on training.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from benchmarks.studies.script import script_parser
from slimtrain.base.command import script_messages

NETWORKS = {"us_mobilenet_v1": [0.25, 0.5, 1.0], "us_mobilenet_v2": [0.35, 1.0], "s_resnet50": [0.25, 1.0]}
PRECISIONS = ["fp32", "fp16", "int8"]
IMAGES = 32


def write_bundles(folder: Path) -> None:
    """Export all NETWORKS, a bundle each below `folder`."""
    import numpy as np

    from slimexport.exporter import VerificationFailed, export
    from slimexport.request import CalibrationImages, Writing
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
                    output_dir=folder / network,
                    calibration=CalibrationImages(images),
                    writing=Writing(overwrite=True),
                )
            except VerificationFailed as error:  # int8 of an untrained network may agree too little
                print(error)
                manifest = error.manifest
            print(f"{folder / network}: {', '.join(artifact.file for artifact in manifest.artifacts)}")


def main() -> None:
    parser = script_parser(__doc__)
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    with script_messages("bundles"):
        write_bundles(arguments.folder)


if __name__ == "__main__":
    main()
