"""The verifier: a judge that takes no code's word for anything.

`app` (HTTP) and `jobs` (queues, lanes) know no torch. `host` is trusted and never runs a candidate; `guest` is the
untrusted side, started by path; `calling` is how both a candidate and a baseline are called; `build` compiles in a
sandbox. `ipc` and `sandbox` are leaves that both sides use.
"""

__version__ = "0.1.0"
