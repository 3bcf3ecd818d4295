"""A real single-node Kubernetes for tests: built from Go modules, started in namespaces of its own, gone with them.

    python -m cluster build [NAME...]          from the folder `tests`; or `make cluster-up`, `make cluster-down`
    python -m cluster up --state DIR           `--control-plane-only` for an API server without a node
    python -m cluster down --state DIR

`up` opens a listening socket on the machine's 127.0.0.1 and starts one process in new mount, network, PID, IPC, UTS and
cgroup namespaces. That process (`init`) is PID 1 of the cluster: it mounts private folders, makes the network, starts
every component, restarts what dies, and relays the socket to the API server. Killing it ends every process, mount,
interface and rule; only empty cgroup folders remain, and `down` removes them. Pods have no way out.
"""
