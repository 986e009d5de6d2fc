"""The tests. `tests.servers` starts the real servers, for the demo and the benchmark too."""
