"""`python -I -B -m kernelverify.guest FD`: the zygote, speaking with its referee over an inherited socket."""

import sys

from kernelverify import ipc
from kernelverify.guest import zygote

if __name__ == "__main__":
    zygote.serve(ipc.Channel.from_fd(int(sys.argv[1])))
