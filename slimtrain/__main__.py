"""`python -m slimtrain`."""

import os

# Threads of torch that wait for each other are to sleep, not spin: beside one other busy process, spinning made a
# training step on two cores take 5.4 s in place of 0.6 s. Read when torch is imported, which happens later.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

from slimtrain.cli import main

main()
