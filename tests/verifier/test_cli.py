"""The command `kernelverify` as its user sees it: exit codes, what is on stdout, what on stderr, how it is stopped."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from small_search import below, command_line

pytestmark = [pytest.mark.needs("linux"), pytest.mark.timeout(240)]

PROBLEMS = Path(__file__).resolve().parent.parent / "problems"
MODEL = """\
import torch


class {name}(torch.nn.Module):
    def forward(self, x):
        {body}
"""
REFERENCE = MODEL.format(name="Model", body="return x + 1") + "\n\ndef get_inputs():\n    return [torch.randn(64)]\n"
BUILT = """\
import torch
from torch.utils.cpp_extension import load_inline

SOURCE = "// {unknown}\\ntorch::Tensor f(torch::Tensor x) {{ return x + 1; }}"
built = load_inline("built", cpp_sources=[SOURCE], functions=["f"])


class ModelNew(torch.nn.Module):
    def forward(self, x):
        return built.f(x)
"""
TORCH_TOO = ("--custom-kernel", "optional")
TRACEBACK = "Traceback"


@pytest.fixture
def place(tmp_path) -> Path:
    """A folder with a reference, and candidates that are right, wrong, hang, or want a compiler."""
    (tmp_path / "reference.py").write_text(REFERENCE)
    for name, body in {"right": "return x + 1", "wrong": "return x + 2", "hangs": "while True: pass"}.items():
        (tmp_path / f"{name}.py").write_text(MODEL.format(name="ModelNew", body=body))
    (tmp_path / "built.py").write_text(BUILT.format(unknown=tmp_path))
    return tmp_path


def _command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "kernelverify.cli", *map(str, arguments)]


def _told(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """What the command said; never a traceback."""
    env = {**os.environ, "COLUMNS": "200", **environment}
    done = subprocess.run(_command(*arguments), capture_output=True, text=True, timeout=200, check=False, env=env)
    assert TRACEBACK not in done.stderr + done.stdout, done.stderr
    return done


def _check(place: Path, *names: str, more: tuple[object, ...] = (), **environment: str):
    candidates = [place / f"{name}.py" for name in names]
    return _told("check", *candidates, "--reference", place / "reference.py", *TORCH_TOO, *more, **environment)


# ---- verdicts ----


def test_right_is_zero_and_said_to_a_reader(place):
    done = _check(place, "right")

    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("right.py: CORRECT\n  correct\n")
    assert done.stderr.splitlines() == [f"right.py: {stage}" for stage in ("queued", "static", "checking", "done")]


def test_json_is_one_report_a_line_and_nothing_else_on_stdout(place):
    done = _check(place, "right", "wrong", "right", more=("--json",))

    reports = [json.loads(line) for line in done.stdout.splitlines()]
    assert [report["status"] for report in reports] == ["correct", "incorrect", "correct"]
    assert {report["schema"] for report in reports} == {1}
    assert done.returncode == 1
    assert {line.split(":")[0] for line in done.stderr.splitlines()} == {"right.py", "wrong.py"}


def test_a_problem_that_is_unusable_is_two_with_its_line_and_no_verdict(place):
    (place / "reference.py").write_text(REFERENCE.replace("torch.randn(64)", "torch.rand_n(64)"))

    done = _check(place, "right", more=("--json",))

    assert (done.returncode, done.stdout) == (2, "")
    assert "error: problem.source:10: get_inputs() raised AttributeError" in done.stderr


# ---- what cannot be used ----


@pytest.mark.parametrize("which", ["candidate", "reference"])
@pytest.mark.parametrize(
    ("made", "told"),
    [
        ("missing", "does not exist"),
        ("folder", "is a directory"),
        ("bytes", "is no UTF-8 text"),
        ("long", "characters; at most 262144 are judged"),
        ("memory", "cannot be read: Input/output error"),
    ],
)
def test_a_file_that_cannot_be_read_is_two_and_says_which(place, which, made, told):
    path = Path("/proc/self/mem") if made == "memory" else place / "odd.py"
    if made == "folder":
        path.mkdir()
    elif made == "bytes":
        path.write_bytes(b"import torch # \xff\n")
    elif made == "long":
        path.write_text("#" * 262_145)
    candidate, reference = (path, place / "reference.py") if which == "candidate" else (place / "right.py", path)

    done = _told("check", candidate, "--reference", reference)

    assert (done.returncode, done.stdout) == (2, "")
    assert str(path) in done.stderr
    assert told in done.stderr


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (("--seed", 1 << 64), "'--seed': 18446744073709551616 is not in the range"),
        (("--seed", -(1 << 63) - 1), "'--seed': -9223372036854775809 is not in the range"),
        (("--timeout", 0), "'--timeout': 0.0 is not in the range"),
        (("--timeout", "nan"), "error: timeout_s is nan: "),
        (("--device", "cuda"), "--device cuda is not available yet"),
        (("--baseline", "eager") * 9, "error: baselines is "),
    ],
)
def test_an_option_out_of_range_is_two(place, more, told):
    done = _check(place, "right", more=more)

    assert (done.returncode, done.stdout) == (2, "")
    assert told in done.stderr


def test_the_reference_is_asked_for(place):
    done = _told("check", place / "right.py")

    assert done.returncode == 2
    assert "Missing option '--reference'" in done.stderr


@pytest.mark.parametrize("command", ["check", "audit", "serve"])
@pytest.mark.parametrize(
    ("variable", "value", "code"),
    [
        ("QUEUE", "abc", 2),
        ("THREADS", "-1", 2),
        ("CACHE", "", 2),
        ("CACHE", "/proc/no/such", 3),
        ("CACHE", "/dev/null", 3),
    ],
)
def test_a_setting_that_cannot_be_used_is_one_line(place, command, variable, value, code):
    arguments = {
        "check": ("check", place / "right.py", "--reference", place / "reference.py"),
        "audit": ("audit", place / "reference.py"),
        "serve": ("serve", "--port", "0"),
    }[command]

    done = _told(*arguments, **{f"KERNELVERIFY_{variable}": value})

    (line,) = done.stderr.splitlines()
    assert (done.returncode, done.stdout) == (code, "")
    assert line.startswith("error: ")
    assert f"KERNELVERIFY_{variable}" in line


# ---- infrastructure ----


def test_without_a_compiler_it_is_three_with_the_remedy(place):
    tools = place / "tools"
    tools.mkdir()
    for name in ("nm", "sh", "nice"):
        (tools / name).symlink_to(shutil.which(name))

    done = _check(place, "built", more=("--json",), PATH=str(tools), KERNELVERIFY_CACHE=str(place / "cache"))

    (report,) = map(json.loads, done.stdout.splitlines())
    assert (done.returncode, report["status"]) == (3, "infra_error")
    assert "no g++" in report["summary"]
    assert "apt-get install g++" in report["summary"]


def test_a_port_in_use_is_three_with_the_remedy():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

        done = _told("serve", "--port", port)

    assert (done.returncode, done.stdout) == (3, "")
    (line,) = done.stderr.splitlines()
    assert line == (
        f"error: cannot listen on 127.0.0.1:{port}: Address already in use; "
        "choose another --port or --host (0 is any free port)"
    )


def test_a_result_that_cannot_be_written_is_three(place):
    with Path("/dev/full").open("w") as full:
        command = _command("check", place / "right.py", "--reference", place / "reference.py", *TORCH_TOO, "--json")
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=200, check=False)

    assert done.returncode == 3
    assert done.stderr.splitlines()[-1] == "error: the result cannot be written: No space left on device"


# ---- how it is stopped ----


def _started(place: Path, name: str) -> subprocess.Popen[str]:
    command = _command("check", place / f"{name}.py", "--reference", place / "reference.py", *TORCH_TOO)
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)


def _until(process: subprocess.Popen[str], stage: str) -> None:
    for line in process.stderr:
        if line.endswith(f": {stage}\n"):
            return


def _alive(pids: list[int], seconds: float = 20.0) -> list[str]:
    """Command lines of those that are still there after a while."""
    deadline = time.monotonic() + seconds
    while (left := [line for pid in pids if (line := command_line(pid))]) and time.monotonic() < deadline:
        time.sleep(0.05)
    return left


def _judges(pid: int) -> list[int]:
    """Referee, zygote and candidate below a command, once they have become these; not what else it starts."""
    return [child for child, line in below(pid).items() if "kernelverify.host" in line or "kernelverify.guest" in line]


def _group(pid: int) -> int | None:
    try:
        return os.getpgid(pid)
    except ProcessLookupError:  # between zygote and candidate stands one that ends at once
        return None


@pytest.mark.parametrize(("stage", "started"), [("queued", 1), ("checking", 3)])
def test_ctrl_c_ends_all_at_once_without_a_traceback(place, stage, started):
    """While the referee still imports torch, and while a candidate hangs."""
    with _started(place, "hangs") as process:
        _until(process, stage)
        deadline = time.monotonic() + 60
        while len(children := _judges(process.pid)) < started and time.monotonic() < deadline:
            time.sleep(0.02)
        asked_by_terminal = [pid for pid in children if _group(pid) == process.pid]
        os.killpg(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=60)

    assert (process.returncode, out) == (3, "")
    assert err.splitlines()[-1] == "error: interrupted"
    assert TRACEBACK not in err
    assert asked_by_terminal == [], "a referee that imports torch would answer Ctrl-C with a traceback of its own"
    assert len(children) >= started
    assert _alive(children) == []


def test_whoever_stops_reading_ends_it_quietly(place):
    with _started(place, "right") as process:
        process.stdout.close()
        _until(process, "checking")
        children = _judges(process.pid)
        err = process.stderr.read()
        process.wait(60)

    assert process.returncode == 3
    assert err.splitlines() == ["right.py: done"]
    assert children
    assert _alive(children) == []


# ---- audits ----


def test_an_audit_of_a_sound_problem_is_zero():
    done = _told("audit", PROBLEMS / "multiply_add.py")

    assert (done.returncode, done.stdout) == (0, "multiply_add: sound\n")


@pytest.mark.parametrize("as_json", [False, True])
def test_an_audits_findings_are_one_and_told(as_json):
    done = _told("audit", PROBLEMS / "degenerate" / "all_zero.py", *(["--json"] if as_json else []))

    assert done.returncode == 1
    if as_json:
        report = json.loads(done.stdout)
        assert (report["problem"], report["sound"]) == ("all_zero", False)
        assert ("zeros", "ours") in {(f["kind"], f["criterion"]) for f in report["findings"]}
    else:
        assert done.stdout.startswith("all_zero: NOT SOUND\n  zeros (ours): an answer of zeros passes\n")


def test_an_audit_of_what_is_unusable_is_two_with_its_line():
    path = PROBLEMS / "bad" / "syntax_error.py"

    done = _told("audit", path, "--json")

    (finding,) = json.loads(done.stdout)["findings"]
    assert done.returncode == 2
    assert finding["kind"] == "unreadable"
    assert done.stderr.startswith(f"error: {path}:")
