"""Commands for a person; tests use `machine.held`."""

import os
from pathlib import Path

import click

from cluster import cgroups, images, machine, packages, system, tools

STATE = click.option("--state", type=click.Path(path_type=Path), default=Path(".cluster"), show_default=True)


@click.group(help="A real single-node Kubernetes for tests.")
def main() -> None:
    """Group of commands."""


@main.command()
@click.argument("names", nargs=-1, type=click.Choice(sorted(tools.TOOLS)))
@click.option("--packages/--no-packages", "with_packages", default=True, help="Install Debian's part too.")
def build(names: tuple[str, ...], with_packages: bool) -> None:
    """Build the cluster's programs (all by default) into the cache, and print where they are."""
    if with_packages:
        packages.install(packages.CONTROL_PLANE)
        packages.install(packages.NODE)
    for name in names or tools.TOOLS:
        click.echo(tools.build(tools.TOOLS[name]))


@main.command("images")
def build_images() -> None:
    """Build the system's images from this checkout, and print where their archives are."""
    for image in (images.OPERATOR, images.VERIFIER):
        click.echo(images.build(image))


@main.command()
@STATE
@click.option("--control-plane-only", is_flag=True, help="An API server without a node: no pod ever runs.")
@click.option(
    "--image", "archives", multiple=True, type=click.Path(exists=True, path_type=Path), help="Archive to import."
)
@click.option("--system", "with_system", is_flag=True, help="Build our images, install our chart.")
@click.option("--gpus", default=0, help="Fake GPUs on the node.")
def up(state: Path, control_plane_only: bool, archives: tuple[Path, ...], with_system: bool, gpus: int) -> None:
    """Start a cluster that outlives this command."""
    state.mkdir(parents=True, exist_ok=True)
    try:
        built = [images.build(each) for each in (images.OPERATOR, images.VERIFIER)] if with_system else []
        started = machine.up(state, node=not control_plane_only, images=[*archives, *built], gpus=gpus)
    except (machine.ClusterError, cgroups.CgroupError, tools.BuildError, images.ImageError) as error:
        raise click.ClickException(str(error)) from error
    if not control_plane_only and with_system:
        system.install(started)
        system.lend_torch(started, "default")
    click.echo(f"# ready: {', '.join(f'{name} after {seconds} s' for name, seconds in started.seconds.items())}")
    kubectl = tools.build(tools.TOOLS["kubectl"])
    click.echo(
        f"export KUBECONFIG={started.kubeconfig} KUBECACHEDIR={started.state}/kubecache PATH={kubectl.parent}:$PATH"
    )


@main.command()
@STATE
def down(state: Path) -> None:
    """End it."""
    machine.down(state)


@main.command(context_settings={"ignore_unknown_options": True})
@STATE
@click.argument("command", nargs=-1, required=True)
def inside(state: Path, command: tuple[str, ...]) -> None:
    """Run a command in the cluster's namespaces."""
    pid = machine.read(state.resolve()).pids[-1]
    entry = ["nsenter", "-t", str(pid), "-m", "-n", "-p", "-i", "-u", "-C", "--"]
    os.execvp(entry[0], [*entry, *command])


if __name__ == "__main__":
    main()
