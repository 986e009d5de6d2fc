"""`make bench`: kpbackup beside the tools people use today, on one machine, on the same servers, in one interleaved run.

Idea: only ratios of runs made side by side mean something, so the variants take turns (A B C, B C A, C A B) and every run is
kept. `stage.py` has the servers and the data, `variants.py` the command lines, `measure.py` the clock and the memory sampler,
`rounds.py` and `memory.py` the order of things, `verdicts.py` medians, ratios and goals, `tables.py` the text made of them.

Limits: client, database and store share the machine's cores, so a run's cost is the processor time of all three, not of the
client alone. What another machine would show is not claimed.

After a crash: servers die with the bench (see `tests/servers/process.py`); the directory `kpbench-*` stays in the temporary
folder only after a kill -9.
"""
