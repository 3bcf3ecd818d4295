"""What the cluster should look like: the only package that knows kopf or a Kubernetes client.

observe -> plan -> apply -> status. Decisions are in `plan`, manifests in `builders`; `handlers` only connects.
"""
