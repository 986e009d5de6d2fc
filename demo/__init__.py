"""`make demo`: kpbackup's whole job, told as a story, on a real MariaDB and a real S3 server.

Idea: everything a sceptic would do by hand. kpbackup is used through its command line alone, never imported; the truth it is
held against is read by the demo's own SQL. `story.py` is the story, `stage.py` the servers and directories it plays on,
`data.py` and `objects.py` the database, `writer.py` the application, `truth.py` and `leaks.py` the judges.

Limits: one machine plays all three (source, backup machine, recovery machine), told apart by directories, settings and
environment. Nothing is written outside one temporary directory.

After a crash: servers die with the demo (see `tests/servers/process.py`), the directory `kpdemo-*` stays in the temporary
folder only after a kill -9.
"""
