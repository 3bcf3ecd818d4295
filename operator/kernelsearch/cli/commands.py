"""What can be typed: options, help texts, exit codes. Each command imports what it needs only when it runs."""

import sys
from pathlib import Path

import click

import kernelsearch

FILE = click.Path(dir_okay=False, path_type=Path)
FOLDER = click.Path(file_okay=False, path_type=Path)
OLD_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(kernelsearch.__version__, message="%(prog)s %(version)s")
def main() -> None:
    """Let a reasoning model write GPU kernels until a deadline, and judge each one strictly."""


@main.command()
@click.option("-f", "--file", "path", metavar="FILE", help="KernelSearch manifest; - reads stdin.")
@click.option("--cluster", metavar="NAMESPACE/NAME", help="In a pod that the operator made: run this object.")
@click.option(
    "--out", type=FOLDER, metavar="DIR", help="Where results go; an unfinished search there goes on. [runs/NAME]"
)
@click.option("--fresh", is_flag=True, help="Start anew; what DIR holds moves to DIR/earlier/.")
@click.option("--json", "as_json", is_flag=True, help="One event a line on stdout, everything else on stderr.")
@click.option(
    "--deadline", type=click.IntRange(1, 30 * 86400), metavar="SECONDS", help="Instead of spec.budget.deadlineSeconds."
)
@click.option("--model", "model_name", metavar="NAME", help="Instead of spec.model.name.")
@click.option("--model-url", metavar="URL", help="OpenAI-compatible API, instead of the endpoint, serverRef or serve.")
@click.option("--replay", type=FILE, metavar="SCRIPT", help="Written answers in place of a model; docs/replay.md.")
@click.option(
    "--replay-speed", type=click.FloatRange(min=0, min_open=True), default=1.0, help="Divides its delays. [1]"
)
@click.option(
    "--verifier-url", "verifier_urls", multiple=True, metavar="URL", help="A running verifier; may be repeated."
)
@click.option("--config-dir", type=OLD_FOLDER, metavar="DIR", help="DIR/NAME/KEY stands for that key of a ConfigMap.")
def run(path: str | None, cluster: str | None, **options: object) -> None:
    """Run a search on this machine, or go on with one.

    The manifest is the cluster's own; a Secret's key is read from the environment variable
    KERNELSEARCH_SECRET_<NAME>_<KEY>, the API key of a --model-url from KERNELSEARCH_SECRET_MODEL_API_KEY when the
    manifest names none. Ctrl-C ends the search and keeps what was found; a second one ends it at once.

    Exit code: 0 a correct kernel was found, 1 none was, 2 invalid manifest, problem or usage, 3 infrastructure failed,
    130 ended at once by a second Ctrl-C.
    """
    if sys.platform == "win32":
        _refuse("kernelsearch run needs Linux or macOS: run it there, or in a container")
    if (path is None) == (cluster is None):
        _refuse("give -f FILE, or in a pod of a cluster --cluster NAMESPACE/NAME")
    if cluster is not None:
        from kernelsearch.cli import cluster_session

        sys.exit(cluster_session.run(cluster))
    from kernelsearch.cli import plan, session

    sys.exit(session.run(plan.Asked(path=path, **options)))  # type: ignore[arg-type]


@main.command()
@click.argument("folder", type=OLD_FOLDER, metavar="DIR")
@click.option("--html", type=FILE, metavar="FILE", help="Write a page that stands alone.")
def report(folder: Path, html: Path | None) -> None:
    """Show what the search in DIR found: curve, attempts, best kernel."""
    from kernelsearch.report import history, page, table

    try:
        found = history.read(folder)
        click.echo(table.text(found, color=sys.stdout.isatty()), color=True)
        if html is not None:
            page.write(found, html)
            click.echo(f"wrote {html}", err=True)
    except history.NoHistoryError as error:
        _refuse(str(error))
    except OSError as error:
        _refuse(f"the page cannot be written: {error}")


@main.command("crd")
@click.option("--check", is_flag=True, help="Write nothing; fail when a file is stale.")
@click.option(
    "--folder",
    "folders",
    type=FOLDER,
    multiple=True,
    default=(Path("crds"), Path("charts/kernelsearch/files/crds")),
    show_default=True,
    metavar="DIR",
)
@click.option("--page", type=FILE, default=Path("docs/fields.md"), show_default=True, help="Every field, for people.")
def definitions(check: bool, folders: tuple[Path, ...], page: Path) -> None:
    """Write the custom resource definitions, for kubectl and for the chart, and the page of every field."""
    from kernelsearch.cli import definitions as files

    if not check:
        for path in [*(path for folder in folders for path in files.write(folder)), files.write_page(page)]:
            click.echo(f"wrote {path}")
        return
    stale = [path for folder in folders for path in files.stale(folder)] + [page] * files.page_is_stale(page)
    if stale:
        click.echo(f"stale: {', '.join(map(str, stale))}; run `kernelsearch crd`", err=True)
        sys.exit(1)


@main.command("operator")
@click.option("-v", "--verbose", is_flag=True, help="Log every pass.")
def operate(verbose: bool) -> None:
    """Reconcile KernelSearches, ModelServers and VerifierPools until SIGTERM.

    Configured by its environment, as the chart sets it; in a pod it uses the pod's ServiceAccount, elsewhere the
    kubeconfig. Exit code: 0 told to stop, 2 unusable settings, 3 no cluster.
    """
    from kernelsearch.cli import operator

    sys.exit(operator.run(verbose=verbose))


@main.command("uninstall")
@click.option("--namespace", required=True, help="The operator's own.")
@click.option("--deployment", required=True, help="Its name.")
@click.option("--release", required=True, help="Helm's name of the installation, by which its pods are known.")
@click.option("--watched", default="", help="Namespaces that it watches, comma separated. [all]")
def uninstall(namespace: str, deployment: str, release: str, watched: str) -> None:
    """Stop an operator and remove its finalizers, so that nothing is stuck without it. Objects stay."""
    from kernelsearch.cli import operator

    sys.exit(operator.uninstall(namespace, deployment, release, tuple(filter(None, watched.split(",")))))


@main.command("smoke-test")
@click.argument("path", type=FILE, metavar="FILE")
@click.option("--timeout", type=click.IntRange(1), default=1800, show_default=True, metavar="SECONDS")
def smoke_test(path: Path, timeout: int) -> None:
    """Create the search in FILE on the cluster, wait for its end, and delete it.

    Exit code: 0 a correct kernel was found, 1 none was, 2 FILE is unusable, 3 no cluster, no rights or no end.
    """
    from kernelsearch.cli import operator

    sys.exit(operator.smoke_test(path, timeout))


@main.command("replay-model")
@click.option("--script", required=True, type=FILE, help="Written answers; docs/replay.md explains the format.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=8001, show_default=True, type=click.IntRange(0, 65535), help="0 takes a free one.")
@click.option(
    "--speed",
    type=click.FloatRange(min=0, min_open=True),
    default=1.0,
    show_default=True,
    help="Divides all delays of the script.",
)
@click.option("--fault", "faults", multiple=True, metavar="SPEC", help="A failure to show, such as drop:every=3.")
@click.option("--api-key", default="", metavar="KEY", help="Answer 401 to requests without it.")
def replay_model(script: Path, host: str, port: int, speed: float, faults: tuple[str, ...], api_key: str) -> None:
    """Serve written answers over the OpenAI API. It is no model, and says so in every answer."""
    from kernelsearch.replay import server

    def say(line: str) -> None:
        click.echo(line)
        sys.stdout.flush()

    try:
        server.run(script, host=host, port=port, speed=speed, faults=faults, api_key=api_key, echo=say)
    except (ValueError, OSError) as error:
        _refuse(str(error))


def _refuse(message: str) -> None:
    click.echo(f"error: {message}", err=True)
    sys.exit(2)
