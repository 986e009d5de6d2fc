"""`make soak`: long runs under faults against the real program, seeded; figures for docs/reliability.md and benchmarks.md."""
