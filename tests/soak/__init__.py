"""The long tests, run by hand (`python -m tests.soak --help`): hostile files, kills, failing disks, many exports."""
