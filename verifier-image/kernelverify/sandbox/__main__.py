"""`python -m kernelverify.sandbox POLICY PROGRAM ARGUMENT...`: become the program, locked in."""

import os
import sys

from kernelverify import sandbox

CANNOT_START = 126


def main(argv: list[str]) -> int:
    policy, program = argv[1], argv[2:]
    try:
        sandbox.apply(sandbox.Policy.from_json(policy))
        os.execvp(program[0], program)  # noqa: S606 - no shell is the point
    except (sandbox.SandboxError, OSError) as error:
        sys.stderr.write(f"sandbox: cannot start {program[0]}: {error}\n")
        return CANNOT_START


if __name__ == "__main__":
    sys.exit(main(sys.argv))
