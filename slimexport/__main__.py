"""`python -m slimexport`."""

from slimexport.cli import main

main(prog_name="slimexport")
