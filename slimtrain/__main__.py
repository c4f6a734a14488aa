"""`python -m slimtrain`, and the console script `slimtrain`."""

from slimtrain.base.command import script_messages


def main() -> None:
    """Run the command; without PyYAML, as on a board, say what to install."""
    with script_messages("slimtrain"):
        from slimtrain.cli import main as command
    command()


if __name__ == "__main__":
    main()
