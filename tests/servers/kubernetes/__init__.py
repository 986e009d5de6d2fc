"""A Kubernetes API server for tests and the demo: real HTTP and real objects, no nodes behind it.

Idea: kpbackup, the Helm engine and kubectl talk to it as they would to a cluster. It keeps objects with uid, generation and
resourceVersion, refuses stale writes with 409, knows label selectors, watches, the scale subresource, merge patches (JSON,
strategic, server-side apply) and bearer tokens with rules of their own. `resources.py` lists the kinds, `store.py` keeps
the objects, `patches.py` merges, `access.py` judges tokens, `workloads.py` is what stands for controllers and kubelets,
`api.py` speaks HTTP, `cluster.py` puts them together.

Limits: this is no Kubernetes. No admission, no defaulting but the little that clients look at, no pods, no garbage
collection, no aggregated APIs. Nothing is written to disk: a crash leaves nothing.
"""
