"""`python -m slimexport`."""

from slimexport.cli import main

if __name__ == "__main__":
    main(prog_name="slimexport")
