"""An exact round trip through a real API server."""

import re

import pytest

from kernelsearch.controller import cluster

TEXTS = ["🚀", "\x7f", "\x85", "\u2028", "\ufffe", "\uffff", "\x1b[31m", "中", "a\tb\r\nc", "\x00"]


@pytest.mark.parametrize("text", TEXTS)
async def test_text_comes_back_as_it_was_sent(server, namespace, text):
    manifest = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "text", "namespace": namespace.name},
        "data": {"kernel.py": f"# {text}\n"},
    }

    await server.apply(manifest, "test")
    found = await server.get(cluster.CONFIG_MAP, namespace.name, "text")

    assert found["data"]["kernel.py"] == f"# {text}\n"


async def test_errors_say_what_they_are(server, namespace):
    place = {"name": "x", "namespace": namespace.name}
    bad = {"apiVersion": "kernelsearch.dev/v1alpha1", "kind": "KernelSearch", "metadata": place, "spec": {}}

    with pytest.raises(cluster.InvalidError, match=r"spec\.model: Required"):
        await server.create(bad)
    made = await server.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": place})
    with pytest.raises(cluster.ConflictError):
        await server.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": place})
    await server.replace({**made, "data": {"a": "1"}})
    with pytest.raises(cluster.ConflictError):
        await server.replace({**made, "data": {"a": "2"}})
    with pytest.raises(cluster.ConflictError):
        await server.delete(cluster.CONFIG_MAP, namespace.name, "x", uid="another")
    await server.delete(cluster.CONFIG_MAP, namespace.name, "x")
    await server.delete(cluster.CONFIG_MAP, namespace.name, "x")

    assert await server.get(cluster.CONFIG_MAP, namespace.name, "x") is None


async def test_an_unreachable_server_is_told(tmp_path, monkeypatch, control_plane):
    config = tmp_path / "config"
    text = control_plane.kubeconfig.read_text()
    config.write_text(re.sub(r'https://[^\s"]+', "https://127.0.0.1:9", text))
    monkeypatch.setenv("KUBECONFIG", str(config))
    async with cluster.connect() as connected:
        with pytest.raises(cluster.UnreachableError, match="does not answer"):
            await connected.get(cluster.POD, "default", "x")
