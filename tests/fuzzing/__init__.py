"""Every parser of bytes from outside, fed with anything: a table of them, and the fuzzers that use it."""
