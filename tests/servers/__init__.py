"""Real servers on free ports of 127.0.0.1, for the tests, the demo and the benchmark.

`mariadb.mariadb_server(...)`, `mysql97.mysql97_server(...)` and `s3.s3_server(...)` are context managers: the server answers
when the block begins and is gone when it ends. Nothing here knows pytest; the fixtures are in `tests/conftest.py`.

Limits: Linux, Debian's MariaDB on the PATH, SeaweedFS from the Python environment that runs this code. Nothing is durable against
a power cut (no fsync), everything is durable against a kill of the server.

After a crash: a server dies with the process that started it, however that one ends (`process.py`); the directories of a
killed run stay in /tmp (`kpb-*`).
"""
