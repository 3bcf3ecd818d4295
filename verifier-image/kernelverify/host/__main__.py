"""`python -m kernelverify.host --fd N --threads K --workdir DIR`: one lane's referee, asked over an inherited socket.

evaluate{id, request, builds} -> stage{stage}* then report{report} | build{request} | an error
audit{request}                -> audit{report} | an error
ping                          -> pong{capabilities}
stop

An error is problem_error{message, line}, the author's to mend, or host_error{message}, the machine's.
"""

import argparse
import os
import signal
from pathlib import Path
from typing import Any, NoReturn

from kernelverify import ipc, sandbox
from kernelverify.host.candidate import BuildWanted
from kernelverify.host.memory import TransportError
from kernelverify.host.problem import ProblemError
from kernelverify.host.referee import Referee, environment
from kernelverify.resources import HostError
from kernelverify.sandbox import kernel
from kernelverify_api.request import Audit, Evaluation

LIMIT = 4 << 20


def serve(channel: ipc.Channel, referee: Referee) -> None:
    """Answer until told to stop or left alone."""
    while True:
        try:
            message = channel.receive()
        except ipc.Closed:
            return
        if message["op"] == "stop":
            return
        channel.send(_answer(channel, referee, message))


def _answer(channel: ipc.Channel, referee: Referee, message: dict[str, Any]) -> dict[str, Any]:
    try:
        match message["op"]:
            case "evaluate":
                return _evaluate(channel, referee, message)
            case "audit":
                found = referee.audit(Audit(**message["request"]))
                return {"event": "audit", "report": found.model_dump(mode="json", by_alias=True)}
            case _:
                return {"event": "pong", "capabilities": capabilities()}
    except ProblemError as error:
        return {"event": "problem_error", "message": error.message, "line": error.line}
    except TransportError as error:
        return {"event": "problem_error", "message": str(error), "line": None}
    except HostError as error:
        return {"event": "host_error", "message": str(error)}


def _evaluate(channel: ipc.Channel, referee: Referee, message: dict[str, Any]) -> dict[str, Any]:
    def emit(stage: str) -> None:
        channel.send({"event": "stage", "stage": stage})

    asked = Evaluation.model_validate(message["request"])
    found = referee.evaluate(message["id"], asked, message["builds"], emit)
    if isinstance(found, BuildWanted):
        return {"event": "build", "request": dict(found.request)}
    return {"event": "report", "report": found.model_dump(mode="json", by_alias=True)}


def capabilities() -> dict[str, Any]:
    """What this lane can say of itself."""
    facts = {"cores": str(len(os.sched_getaffinity(0))), "machine": os.uname().machine, "model": _processor()}
    return {"environment": environment().model_dump(), "sandbox": sandbox.active(), "facts": facts}


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return "unknown"


def main() -> NoReturn:
    parser = argparse.ArgumentParser(prog="kernelverify.host")
    parser.add_argument("--fd", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--workdir", type=Path, required=True)
    arguments = parser.parse_args()
    kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the service's to handle
    referee = Referee(arguments.workdir, arguments.threads)
    try:
        serve(ipc.Channel.from_fd(arguments.fd, LIMIT), referee)
    finally:
        referee.close()
    os._exit(0)  # triton's bindings otherwise list every object that they did not free


if __name__ == "__main__":
    main()
