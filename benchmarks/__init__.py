"""Side-by-side timings of every mechanism and its peers: `python -m benchmarks --help`."""
