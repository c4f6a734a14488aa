"""`python -m slimtrain`."""

from slimtrain.cli import main

main()
