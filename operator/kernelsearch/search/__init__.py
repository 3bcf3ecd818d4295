"""The closed loop: propose, verify, remember, until the budget ends.

No Kubernetes, no torch, no HTTP library. Everything but `loop` is pure; what the loop needs of the world is in `ports`.
"""
