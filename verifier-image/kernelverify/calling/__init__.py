"""One call of a function on memory that the referee shares: what a candidate's and a baseline's process have in common.

Nothing that decides belongs here, and nothing that knows whose function it is.
"""
