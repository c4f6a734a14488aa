"""`python -m slimtrain`, and the console script `slimtrain`."""

import os

# How long threads of torch (GNU OpenMP) that wait for each other spin before they sleep. Measured on two cores, a step of
# the quick start: spinning without end 0.21 s, 5.4 s beside one busy process; never spinning 0.40 s and 0.57 s; with this
# count 0.23 s and 0.65 s. Read when torch is imported, which happens later.
os.environ.setdefault("GOMP_SPINCOUNT", "5000")

from slimtrain.base.command import script_messages


def main() -> None:
    """Run the command; without PyYAML, as on a board, say what to install."""
    with script_messages("slimtrain"):
        from slimtrain.cli import main as command
    command()


if __name__ == "__main__":
    main()
