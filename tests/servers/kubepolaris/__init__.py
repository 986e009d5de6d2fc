"""A small application that answers as KubePolaris does, on a real database, and what stands between it and its users.

`application.py` is the back end, `network.py` Services, the front end and the Ingress, `platform.py` what runs them for a fake
cluster.
"""
