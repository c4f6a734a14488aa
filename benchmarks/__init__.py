"""What every width costs on this device, measured: the command `python -m benchmarks` and the scripts of `studies/`, whose
results, with their environment, are kept in `results/`. No names are public: all in here is internal."""
