"""A model server that replays written answers over the OpenAI API, and says so wherever a model is named.

For demos, tests and fault drills: it delays, streams, thinks and fails as a real server does.
"""
