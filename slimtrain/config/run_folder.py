"""What a run writes into its folder, by name. No torch."""

LAST = "last.pt"  # all that a resumed run needs
BEST = "best.pt"  # the network with the smallest error so far
RESOLVED = "config.yml"  # every key of its configuration
SUMMARY = "summary.csv"  # a row per test and plan
LOG = "train.log"
BOARD = "tensorboard"
CURVES = "curves.png"  # loss and accuracy over the epochs
PROBE_FOLDER = "probes"  # test images for slimexport to verify with, where noise says nothing
NAMES = (LAST, BEST, RESOLVED, SUMMARY, LOG, BOARD, CURVES, PROBE_FOLDER)
