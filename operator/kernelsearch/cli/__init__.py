"""The command line: composes everything else. The only module that knows all others."""

import sys
from pathlib import Path

import click
import yaml

import kernelsearch
from kernelsearch.api import crd

FILE = click.Path(dir_okay=False, path_type=Path)
FOLDER = click.Path(file_okay=False, path_type=Path)
HEADER = "# Generated from operator/kernelsearch/api by `kernelsearch crd`. Do not edit.\n"


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(kernelsearch.__version__)
def main() -> None:
    """Let a reasoning model write GPU kernels until a deadline, and judge each one strictly."""


@main.command()
@click.option("-f", "--file", "path", required=True, type=FILE, help="A KernelSearch manifest.")
@click.option("--out", type=FOLDER, default=None, help="Where everything goes; the same folder resumes. [runs/NAME]")
@click.option("--model-url", default="", help="An OpenAI-compatible API, instead of the manifest's.")
@click.option("--model", default="", help="The model's name, instead of the manifest's.")
@click.option("--replay", type=FILE, default=None, help="Written answers in place of a model; see docs/replay.md.")
@click.option("--replay-speed", default=1.0, help="How much faster than a real server the replay answers.")
@click.option("--verifier-url", "verifier_urls", multiple=True, help="A running verifier; repeat for several.")
@click.option("--config-dir", type=FOLDER, default=None, help="Files that stand for ConfigMaps: DIR/NAME/KEY.")
@click.option("--deadline", type=click.IntRange(5), default=None, help="Seconds, instead of the manifest's.")
@click.option("--json", "as_json", is_flag=True, help="One event a line on stdout.")
@click.option("--fresh", is_flag=True, help="Forget what the output folder holds.")
def run(path: Path, **options: object) -> None:
    """Run a search on this machine. Exit code: 0 solved, 1 not, 2 invalid manifest, 3 infrastructure."""
    from kernelsearch.cli import session

    sys.exit(session.run(session.Asked(manifest=path, **options)))  # type: ignore[arg-type]


@main.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--html", type=FILE, default=None, help="Write a page that stands alone.")
def report(folder: Path, html: Path | None) -> None:
    """Show what a search in FOLDER found."""
    from kernelsearch.report import page

    if not (folder / "status.json").exists():
        raise click.UsageError(f"{folder} holds no search: there is no status.json in it")
    click.echo(page.table(folder))
    if html is not None:
        page.write(folder, html)
        click.echo(f"wrote {html}")


@main.command("crd")
@click.option("--check", is_flag=True, help="Change nothing; fail when crds/ is stale.")
@click.option("--folder", type=FOLDER, default=Path("crds"), show_default=True)
def crd_(check: bool, folder: Path) -> None:
    """Write the custom resource definitions."""
    stale = []
    for name, made in crd.definitions().items():
        text = HEADER + yaml.safe_dump(made, sort_keys=False, allow_unicode=True, width=120)
        place = folder / name
        if check and (not place.exists() or place.read_text(encoding="utf-8") != text):
            stale.append(str(place))
        elif not check:
            folder.mkdir(parents=True, exist_ok=True)
            place.write_text(text, encoding="utf-8")
            click.echo(f"wrote {place}")
    if stale:
        click.echo(f"stale: {', '.join(stale)}; run `kernelsearch crd`", err=True)
        sys.exit(1)


@main.command("replay-model")
@click.option("--script", required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", default=8001, show_default=True, type=click.IntRange(0, 65535), help="0 picks a free one.")
@click.option("--speed", default=1.0, show_default=True, help="How much faster than a real server.")
@click.option("--fault", "faults", multiple=True, help="A failure to show; see docs/replay.md.")
@click.option("--api-key", default="", help="Require this key.")
def replay_model(script: Path, host: str, port: int, speed: float, faults: tuple[str, ...], api_key: str) -> None:
    """Serve written answers over the OpenAI API. It is no model, and says so in every answer."""
    from kernelsearch.replay import server

    try:
        server.run(script, host=host, port=port, speed=speed, faults=faults, api_key=api_key, echo=click.echo)
    except (ValueError, OSError) as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(2)
