"""The operator's environment: what cannot be used is told by its value's name, in lines of our own."""

import pytest
import yaml
from click.testing import CliRunner

from kernelsearch.cli.commands import main
from kernelsearch.controller import settings


def read(tmp_path, policy=None, **environment):
    file = tmp_path / "policy.yaml"
    file.write_text(yaml.safe_dump(policy or {}))
    images = {"KERNELSEARCH_OPERATOR_IMAGE": "a", "KERNELSEARCH_VERIFIER_IMAGE": "b"}
    return settings.read({**images, "KERNELSEARCH_POLICY_FILE": str(file), **environment})


@pytest.mark.parametrize(
    ("policy", "environment", "told"),
    [
        ({"networkPolicy": {"externalCIDRs": ["1.2.3/24"]}}, {}, "networkPolicy.externalCIDRs.0 is '1.2.3/24'"),
        ({"maxReplicas": 0}, {}, "maxReplicas is 0: "),
        ({"maxReplica": 3}, {}, "maxReplica is 3: Extra inputs"),
        ({}, {"KERNELSEARCH_PORT": "x"}, "port is 'x': "),
    ],
    ids=str,
)
def test_what_is_wrong_is_told_by_name_and_value(tmp_path, policy, environment, told):
    with pytest.raises(settings.SettingsError) as caught:
        read(tmp_path, policy, **environment)

    assert told in str(caught.value)
    assert "pydantic" not in str(caught.value)


@pytest.mark.parametrize(("text", "told"), [("kind: [", "line 1"), ("kind: Pod", "write KernelSearch")])
def test_a_trial_of_a_file_that_is_no_search_says_so(tmp_path, text, told):
    file = tmp_path / "search.yaml"
    file.write_text(text)

    done = CliRunner().invoke(main, ["smoke-test", str(file)])

    assert done.exit_code == 2
    assert told in done.output
    assert CliRunner().invoke(main, ["smoke-test", str(tmp_path / "none.yaml")]).exit_code == 2


@pytest.mark.parametrize("speed", ["0", "-1"])
def test_a_replay_needs_a_speed(tmp_path, speed):
    done = CliRunner().invoke(main, ["replay-model", "--script", str(tmp_path / "x"), "--speed", speed])

    assert done.exit_code == 2
    assert "--speed" in done.output
