"""kernelverify serve | check | audit."""

import asyncio
import json
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import click
from pydantic import ValidationError

from kernelverify import __version__, resources, settings
from kernelverify.jobs import Job, Jobs, ProblemError
from kernelverify_api.report import AuditReport, Report, Stage, Status
from kernelverify_api.request import (
    LEAST_SEED,
    MAX_SOURCE,
    MOST_SEED,
    Audit,
    CustomKernel,
    Evaluation,
    Level,
    Options,
    Problem,
    TorchOps,
)

CORRECT, CANDIDATES_FAULT, USAGE, INFRASTRUCTURE = 0, 1, 2, 3
SEED = click.IntRange(LEAST_SEED, MOST_SEED)
MOST_BUILD_S = 600.0
"""For the builds of one candidate, beside its own time."""


class Unusable(click.ClickException):
    """The end of a command whose settings or options cannot be used: one line on stderr."""

    exit_code = USAGE

    def show(self, file: Any = None) -> None:
        click.echo(f"error: {self.message}", err=True, file=file)


class Failed(Unusable):
    """As that, but infrastructure is to blame."""

    exit_code = INFRASTRUCTURE


class Commands(click.Group):
    """Whatever ends a command has its exit code and its line, and no traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except settings.SettingsError as error:
            raise Unusable(str(error)) from error
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            raise Unusable(f"{'.'.join(map(str, first['loc']))} is {first['input']!r}: {first['msg']}") from error
        except resources.HostError as error:
            raise Failed(str(error)) from error
        except KeyboardInterrupt as error:
            raise Failed("interrupted") from error
        except BrokenPipeError:  # nobody reads any more, so nothing is said
            _leave_stdout()
            ctx.exit(INFRASTRUCTURE)
        except OSError as error:
            raise Failed(resources.told(error)) from error


def _result(text: str) -> None:
    """Print it."""
    try:
        click.echo(text)
    except BrokenPipeError:
        raise
    except OSError as error:
        _leave_stdout()
        raise Failed(f"the result cannot be written: {error.strerror or error}") from error


def _leave_stdout() -> None:
    """What stdout did not take is dropped: Python would try once more at its end, and exit with a code of its own."""
    with suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def main() -> None:
    """Judge GPU kernels in a sandbox that sees neither the answer nor the clock."""


def _choices(values: type[Level] | type[CustomKernel] | type[TorchOps]) -> click.Choice[str]:
    return click.Choice([v.value for v in values])


@main.command()
@click.argument("candidates", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--reference", required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--device", default="cpu", show_default=True, type=click.Choice(["cpu", "cuda"]))
@click.option("--level", default="check", show_default=True, type=_choices(Level), help="How far to go.")
@click.option("--custom-kernel", default="required", show_default=True, type=_choices(CustomKernel))
@click.option("--torch-ops", default="report", show_default=True, type=_choices(TorchOps))
@click.option("--dtype", default=None, type=click.Choice(["float32", "float16", "bfloat16"]), help="Cast floats to it.")
@click.option("--allow-tf32", is_flag=True, help="Let reference, baselines and tolerance admit TF32 products.")
@click.option("--baseline", "baselines", multiple=True, default=("eager",), help="Repeat for several.")
@click.option("--seed", default=None, type=SEED, help="Fix the draws, to debug a verdict. Never for real use.")
@click.option("--timeout", default=300.0, show_default=True, type=click.FloatRange(1, 3600), help="Seconds in all.")
@click.option("--json", "as_json", is_flag=True, help="One report per candidate and line on stdout.")
def check(  # noqa: PLR0913, PLR0917 - one parameter an option
    candidates: tuple[Path, ...],
    reference: Path,
    device: str,
    level: str,
    custom_kernel: str,
    torch_ops: str,
    dtype: str | None,
    allow_tf32: bool,
    baselines: tuple[str, ...],
    seed: int | None,
    timeout: float,
    as_json: bool,
) -> None:
    """Judge CANDIDATES against a reference. Exit code: 0 correct, 1 not, 2 unusable problem, 3 infrastructure."""
    _need_cpu(device)
    options = Options(
        level=Level(level),
        custom_kernel=CustomKernel(custom_kernel),
        torch_ops=TorchOps(torch_ops),
        baselines=baselines,
        timeout_s=timeout,
        seed=seed,
        fresh=True,
    )
    problem = _problem(reference, dtype).model_copy(update={"allow_tf32": allow_tf32})
    # a verdict takes at most its time and that of its builds: whatever else happens, the command ends
    longest = len(candidates) * (timeout + MOST_BUILD_S)
    asked = [Evaluation(problem=problem, source=_text(p), options=options, deadline_s=longest) for p in candidates]
    sys.exit(asyncio.run(_check(asked, candidates, as_json=as_json)))


async def _check(asked: Sequence[Evaluation], names: Sequence[Path], *, as_json: bool) -> int:
    jobs = Jobs(settings.read())
    await jobs.start()
    try:
        submitted = [await jobs.submit(a) for a in asked]
        codes = [await _one(job, name, as_json=as_json) for job, name in zip(submitted, names, strict=True)]
    finally:
        await jobs.close()
    return max(codes)


async def _one(job: Job, name: Path, *, as_json: bool) -> int:
    async for stage in job.stages():
        click.echo(f"{name.name}: {stage.value}", err=True)
    if job.stage is Stage.FAILED and job.error is not None:
        click.echo(f"error: {job.error.field}: {job.error.error}", err=True)
        return USAGE
    if job.report is None:
        return INFRASTRUCTURE
    _result(job.report.model_dump_json(by_alias=True) if as_json else _readable(name, job.report))
    return exit_code(job.report)


def exit_code(report: Report) -> int:
    if report.status is Status.CORRECT:
        return CORRECT
    return INFRASTRUCTURE if report.status in {Status.INFRA_ERROR, Status.CANCELLED} else CANDIDATES_FAULT


def _readable(name: Path, report: Report) -> str:
    """What a person wants to know, most useful first."""
    lines = [f"{name.name}: {report.status.value.upper()}", f"  {report.summary}"]
    if report.failure is not None and report.failure.source_line:
        lines.append(f"  line {report.failure.line}: {report.failure.source_line}")
    if report.build is not None:
        lines += [f"  {e.file}:{e.line}: {e.message}" for e in report.build.errors]
    if report.correctness is not None:
        lines += [
            f"  {s.name:14} {'ok' if s.ok else 'WRONG'}  share of limit "
            f"{s.share_of_limit if s.share_of_limit is None else round(s.share_of_limit, 4)}  {s.reason}"
            for s in report.correctness.sets
        ]
    if report.kernels is not None and report.kernels.ablation:
        lines.append("  without its kernels: " + ", ".join(f"{k} {v}" for k, v in report.kernels.ablation.items()))
    return "\n".join(lines)


@main.command()
@click.argument("reference", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--dtype", default=None, type=click.Choice(["float32", "float16", "bfloat16"]))
@click.option("--seed", default=None, type=SEED)
@click.option("--json", "as_json", is_flag=True)
def audit(reference: Path, dtype: str | None, seed: int | None, as_json: bool) -> None:
    """Say whether a problem can be solved without solving it.

    Exit code: 0 sound, 1 findings, 2 unreadable, 3 infrastructure.
    """
    try:
        report = asyncio.run(_audit(Audit(problem=_problem(reference, dtype), seed=seed)))
    except ProblemError as error:
        _unreadable(reference, error, as_json=as_json)
        sys.exit(USAGE)
    _result(report.model_dump_json(by_alias=True) if as_json else _audited(report))
    sys.exit(int(bool(report.findings)))


async def _audit(asked: Audit) -> AuditReport:
    jobs = Jobs(settings.read())
    try:
        return await jobs.audit(asked)
    finally:
        await jobs.close()


def _audited(report: AuditReport) -> str:
    lines = [f"{report.problem}: {'sound' if report.sound else 'NOT SOUND'}"]
    return "\n".join([*lines, *(f"  {f.kind} ({f.criterion}): {f.evidence}" for f in report.findings)])


def _unreadable(reference: Path, error: ProblemError, *, as_json: bool) -> None:
    where = f"{reference}:{error.line}" if error.line else str(reference)
    click.echo(f"error: {where}: {error.message}", err=True)
    if as_json:
        finding = {"kind": "unreadable", "criterion": "ours", "evidence": error.message}
        _result(json.dumps({"schema": 1, "problem": reference.stem, "sound": False, "findings": [finding]}))


@main.command()
@click.option("--device", default="cpu", show_default=True, type=click.Choice(["cpu", "cuda"]))
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", default=8080, show_default=True, type=click.IntRange(0, 65535), help="0 picks a free one.")
@click.option("--insecure-open", is_flag=True, help="Allow a host other than loopback although nobody authenticates.")
@click.option(
    "--auth",
    "how",
    default="none",
    show_default=True,
    type=click.Choice(["none", "jwks"]),
    help="jwks: clients show a Kubernetes ServiceAccount token.",
)
@click.option("--jwks-file", type=click.Path(dir_okay=False, path_type=Path), help="The cluster's keys; read anew.")
@click.option("--issuer", default="", help="Who must have issued a token.")
@click.option("--audience", default="kernelsearch-verifier", show_default=True, help="For whom it must be meant.")
@click.option(
    "--namespaces-file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Namespaces whose tokens are admitted, one a line; read anew.",
)
def serve(  # noqa: PLR0913, PLR0917 - one parameter an option
    device: str,
    host: str,
    port: int,
    insecure_open: bool,
    how: str,
    jwks_file: Path | None,
    issuer: str,
    audience: str,
    namespaces_file: Path | None,
) -> None:
    """Serve evaluations over HTTP."""
    from kernelverify import app, auth

    _need_cpu(device)
    guard = None
    if how == "jwks":
        if jwks_file is None or not issuer or namespaces_file is None:
            raise click.UsageError("--auth jwks needs --jwks-file, --issuer and --namespaces-file")
        guard = auth.Guard(jwks_file, issuer, audience, namespaces_file)
    elif host not in {"127.0.0.1", "localhost", "::1"} and not insecure_open:
        raise click.UsageError(f"--host {host} is no loopback address and nobody authenticates; add --insecure-open")
    asyncio.run(app.serve(settings.read(), host, port, guard))


def _need_cpu(device: str) -> None:
    if device != "cpu":
        raise click.UsageError("--device cuda is not available yet: this version has a CPU lane only; use --device cpu")


def _problem(reference: Path, dtype: str | None) -> Problem:
    return Problem(source=_text(reference), name=reference.stem, dtype=dtype)


def _text(path: Path) -> str:
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise click.UsageError(f"{path} is no UTF-8 text: {error}") from error
    except OSError as error:
        raise click.UsageError(f"{path} cannot be read: {error.strerror}") from error
    if len(text) > MAX_SOURCE:
        raise click.UsageError(f"{path} has {len(text)} characters; at most {MAX_SOURCE} are judged")
    return text


if __name__ == "__main__":
    main()
