"""What tests share: stand-ins for devices, oracles, small networks and states, running the commands."""

from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
ROOT = TESTS.parent
REFERENCE = TESTS / "reference"
