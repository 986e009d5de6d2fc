"""`make soak`: hours of random faults against the real program, seeded; figures for docs/reliability.md."""
