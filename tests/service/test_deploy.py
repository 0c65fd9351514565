"""The files for containers: they parse, and what they name is there."""

import configparser
import json
import re
import shlex
from pathlib import Path

import pytest
import yaml

import mtl_zoo_cli
from mtl_zoo.service import Settings

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "docs" / "deploy"
INSTRUCTIONS = ("FROM", "WORKDIR", "COPY", "RUN", "ENV", "USER", "EXPOSE", "VOLUME", "HEALTHCHECK", "ENTRYPOINT", "CMD")


def dockerfile():
    """(instruction, rest) of each line, those that go on joined."""
    text = re.sub(r"^#.*\n", "", (DEPLOY / "Dockerfile").read_text(encoding="utf-8"), flags=re.MULTILINE)
    lines = [line for line in text.replace("\\\n", " ").splitlines() if line.strip()]
    return [(line.split(" ", 1)[0], line.split(" ", 1)[1].strip()) for line in lines]


def parsed(arguments):
    """What the command makes of `mtl-zoo serve ...`; an unknown option ends it."""
    return mtl_zoo_cli.parser().parse_args(["serve", *arguments])


def container():
    return kubernetes()["Deployment"]["spec"]["template"]["spec"]["containers"][0]


def kubernetes():
    found = list(yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text(encoding="utf-8")))
    return {one["kind"]: one for one in found}


def compose():
    return yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))


def test_the_dockerfile_names_what_is_there():
    lines = dockerfile()
    assert {name for name, _ in lines} <= set(INSTRUCTIONS) and lines[0][0] == "FROM"
    stages = [rest.split(" AS ")[1] for name, rest in lines if name == "FROM" and " AS " in rest]
    for name, rest in lines:
        if name == "COPY":
            *sources, _ = [word for word in shlex.split(rest) if not word.startswith("--")]
            stage = re.search(r"--from=(\S+)", rest)
            assert stage is None or stage[1] in stages
            assert stage is not None or all((ROOT / source).exists() for source in sources), rest
        if name in ("ENTRYPOINT", "CMD"):
            assert all(isinstance(word, str) for word in json.loads(rest)), "no shell, which would swallow SIGTERM"
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    installed = re.search(r"\.\[(\w+)\]", next(rest for name, rest in lines if "pip install" in rest))[1]
    assert installed in setup["options.extras_require"]
    # What setup.cfg reads while it is built.
    copied = " ".join(rest for name, rest in lines if name == "COPY")
    for needed in ("README.md", "LICENSE", "mtl_zoo_cli.py", "pyproject.toml", "setup.cfg"):
        assert needed in copied
    users = [rest for name, rest in lines if name == "USER"]
    assert users and users[-1] not in ("0", "root")
    base = re.match(r"python:3\.(\d+)", lines[0][1])
    assert 11 <= int(base[1]) <= 13


def test_the_commands_are_ours():
    lines = dict(dockerfile())
    command, verb = json.loads(lines["ENTRYPOINT"])
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    assert f"{command} = mtl_zoo_cli:main" in setup["options.entry_points"]["console_scripts"] and verb == "serve"
    arguments = (json.loads(lines["CMD"]), compose()["services"]["scores"]["command"], container()["args"])
    assert [parsed(given).host for given in arguments] == ["0.0.0.0"] * 3
    assert {str(parsed(given).port) for given in arguments} == {lines["EXPOSE"]}


def test_compose_mounts_what_it_serves():
    scores = compose()["services"]["scores"]
    assert (DEPLOY / scores["build"]["context"]).resolve() == ROOT
    assert (ROOT / scores["build"]["dockerfile"]).exists()
    given = parsed(scores["command"])
    assert any(str(given.folder).startswith(volume.split(":")[1]) for volume in scores["volumes"])
    assert given.api_key_file.name in scores["secrets"] and set(scores["secrets"]) == set(compose()["secrets"])
    assert scores["ports"] == [f"127.0.0.1:{given.port}:{given.port}"]
    assert int(scores["stop_grace_period"].removesuffix("s")) > given.drain


def test_kubernetes_asks_the_routes_that_there_are():
    deployment, service = kubernetes()["Deployment"], kubernetes()["Service"]
    spec = deployment["spec"]["template"]["spec"]
    given = parsed(container()["args"])
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["selector"] == deployment["spec"]["selector"]["matchLabels"] == labels
    ports = {port["name"]: port["containerPort"] for port in container()["ports"]}
    assert ports == {"http": given.port} and service["spec"]["ports"][0]["targetPort"] in ports
    probes = [container()[f"{name}Probe"]["httpGet"]["path"] for name in ("startup", "readiness", "liveness")]
    assert probes == ["/ready", "/ready", "/health"]
    mounts = {mount["name"]: mount["mountPath"] for mount in container()["volumeMounts"]}
    assert set(mounts) == {volume["name"] for volume in spec["volumes"]}
    assert str(given.folder).startswith(mounts["models"]) and str(given.api_key_file).startswith(mounts["key"])
    wait = int(container()["lifecycle"]["preStop"]["exec"]["command"][1])
    assert spec["terminationGracePeriodSeconds"] > wait + Settings().drain
    assert spec["securityContext"]["runAsNonRoot"] and container()["securityContext"]["readOnlyRootFilesystem"]


@pytest.mark.parametrize("name", ["Dockerfile", "compose.yaml", "kubernetes.yaml"])
def test_the_page_names_each_file(name):
    assert f"deploy/{name}" in (ROOT / "docs" / "concepts" / "serving.md").read_text(encoding="utf-8")


def test_options_of_the_command_are_the_settings():
    import dataclasses

    given = vars(parsed(["models"]))
    for field in dataclasses.fields(Settings):
        if field.name not in ("api_key",):
            assert given[field.name] == field.default, field.name
    page = (ROOT / "docs" / "concepts" / "serving.md").read_text(encoding="utf-8")
    for name, default, _ in mtl_zoo_cli._LIMITS:
        option = f"--{name.replace('_', '-')}"
        assert re.search(rf"`{option}` \| {default:,}".replace(".0", r"(\.0)?"), page), f"the page leaves out {option}"
