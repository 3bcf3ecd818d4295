"""The closed loop: propose, verify, remember, until the budget ends.

No Kubernetes, no torch, no HTTP library. What the loop needs of the world is in `ports`.

- The algorithm: `loop`, which waits by `patience`, ends by `watch` and remembers by `ledger`.
- The decisions, all pure: `strategy` (what next), `budget` (when to end), `population` (what is remembered), `extract`
  (answer to kernel), `verdict` (reports to attempt), `feedback` and `prompts` (words for the model).
- The values: `config` (what is asked), `facts` (what is published), `checkpoint` (what survives).
- The laptop's adapters, plain file I/O: `journal` (checkpoints) and `archive` (whole attempts).
"""
