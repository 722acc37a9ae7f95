"""What is rendered holds what no failover survives without, and its readers take it."""

import json
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from chukan.ops import site as command
from chukan.ops.centres.layout import lab_site, site_file
from chukan.ops.centres.wires import Loopback, Namespaces
from chukan.replication import render
from chukan.replication.site import Site
from chukan.replication.site_file import parse
from chukan.replication.site_rules import check
from chukan.settings import load

Changed = Callable[..., Site]
SECRETS = render.Secrets("su-password", "repl-password", "rewind-password", "rest-password")


def rendered(site: Site, node: str) -> dict[str, Any]:
    document = yaml.safe_load(render.patroni(site, node, SECRETS))
    assert isinstance(document, dict)
    return document


@pytest.mark.requirement("PLT-01")
def test_every_node_has_the_settings_without_which_something_is_lost(changed: Changed) -> None:
    site = changed()
    for _, node in site.nodes():
        dcs = rendered(site, node.name)["bootstrap"]["dcs"]
        assert dcs["synchronous_mode"] == "on"
        assert dcs["synchronous_node_count"] == 2
        assert dcs["synchronous_mode_strict"] is True
        assert dcs["failsafe_mode"] is True
        assert dcs["primary_start_timeout"] == 0
        assert (dcs["ttl"], dcs["loop_wait"], dcs["retry_timeout"]) == (20, 2, 3)
        parameters = dcs["postgresql"]["parameters"]
        assert parameters["synchronous_commit"] == "on"
        assert parameters["wal_sender_timeout"] == parameters["tcp_user_timeout"] == "5s"


def test_names_scopes_and_namespaces_never_meet(changed: Changed) -> None:
    site = changed()
    documents = [rendered(site, node.name) for _, node in site.nodes()]
    assert len({document["name"] for document in documents}) == 8
    assert {document["scope"] for document in documents} == {"east", "west"}
    assert {document["namespace"] for document in documents} == {"/chukan/"}


def test_a_synchronous_standby_stands_in_the_other_centre_and_one_next_door(changed: Changed) -> None:
    site = changed()
    tags = {name: rendered(site, name)["tags"] for name in ("e1", "e2", "ew1", "ew2")}
    assert [tag["failover_priority"] for tag in tags.values()] == [3, 2, 1, 1]
    by_priority = sorted(("e2", "ew1", "ew2"), key=lambda name: -tags[name]["sync_priority"])
    assert by_priority[:2] == ["ew1", "e2"]


def test_everything_is_tls_and_nobody_else_may_connect(changed: Changed) -> None:
    document = rendered(changed(), "ew1")
    assert document["etcd3"]["protocol"] == "https"
    assert document["restapi"]["verify_client"] == "required"
    assert document["postgresql"]["parameters"]["ssl_min_protocol_version"] == "TLSv1.3"
    assert {user["sslmode"] for user in document["postgresql"]["authentication"].values()} == {"verify-full"}
    lines = document["postgresql"]["pg_hba"]
    assert all(line.startswith("hostssl ") and "scram-sha-256" in line for line in lines)
    assert not any("trust" in line or "/0 " in line for line in lines)
    superusers = [line for line in lines if " postgres " in line.replace("hostssl postgres", "")]
    assert all("clientcert=verify-ca" in line for line in superusers)


def test_a_server_says_nothing_of_what_it_holds(changed: Changed) -> None:
    parameters = rendered(changed(), "e1")["postgresql"]["parameters"]
    assert parameters["log_min_messages"] == "log"
    assert parameters["log_min_error_statement"] == "panic"
    assert parameters["log_parameter_max_length_on_error"] == "0"


def test_a_real_site_wants_a_watchdog_and_keeps_what_could_not_be_rewound(changed: Changed) -> None:
    real = rendered(changed(), "e1")
    sandbox = rendered(changed(("strict = true", "strict = true\nsandbox = true")), "e1")
    assert (real["watchdog"]["mode"], sandbox["watchdog"]["mode"]) == ("required", "off")
    assert real["postgresql"]["remove_data_directory_on_diverged_timelines"] is False


def test_a_centres_files_name_its_own_tree_alone(changed: Changed) -> None:
    site = changed()
    west = str(site.directory("west"))
    for node in ("e1", "e2", "we1", "we2"):
        assert west not in render.patroni(site, node, SECRETS)
    assert west not in "\n".join(render.etcd(site, "etcd-east"))


def test_patroni_takes_what_is_rendered(changed: Changed, tmp_path: Path) -> None:
    """Its own check, with its own words: it complains of each setting that it does not know or cannot use."""
    site = changed()
    file = tmp_path / "e1.yml"
    file.write_text(render.patroni(site, "e1", SECRETS), encoding="utf-8")
    for name in ("pki/peers/e1", "run", "data"):
        (tmp_path / "east" / name).mkdir(parents=True)
    done = subprocess.run(
        [sys.executable, "-m", "patroni", "--validate-config", "--ignore-listen-port", str(file)],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    said = done.stdout + done.stderr
    complaints = [line for line in said.splitlines() if " is not " in line or " didn't " in line or "Expected" in line]
    # There is neither an etcd nor a certificate here: everything else must please it.
    assert [line for line in complaints if "etcd3" not in line and "file" not in line] == [], said


def test_etcd_votes_before_it_disturbs_and_trusts_its_own_only(changed: Changed) -> None:
    arguments = render.etcd(changed(), "etcd-west")
    assert {"--pre-vote", "--client-cert-auth", "--peer-client-cert-auth"} <= set(arguments)
    cluster = next(argument for argument in arguments if argument.startswith("--initial-cluster="))
    assert cluster.count("https://") == 3


def test_an_exchange_reads_what_is_rendered_for_it(changed: Changed, tmp_path: Path) -> None:
    site = changed(("strict = true", "strict = true\nsandbox = true"))
    file = tmp_path / "exchange.toml"
    file.write_text(render.exchange(site, "exchange-west", {"permit_grace_s": 1.0}), encoding="utf-8")
    settings = load(file, {})
    assert settings.site.centre == "west"
    assert settings.exchange.permit_grace_s == 1.0
    members = settings.cells["east"].members
    assert [(member.name, member.centre) for member in members] == [
        ("e1", "east"),
        ("e2", "east"),
        ("ew1", "west"),
        ("ew2", "west"),
    ]
    assert members[2].rest == "https://192.0.2.21:10809"
    assert settings.cells["east"].broker_password_file == tmp_path / "west" / "passwords" / "east-broker"


def test_an_operator_reads_what_is_rendered_for_them(changed: Changed, tmp_path: Path) -> None:
    file = tmp_path / "operator.toml"
    file.write_text(render.operator(changed(("strict = true", "strict = true\nsandbox = true"))), encoding="utf-8")
    settings = load(file, {})
    assert settings.cells["west"].steward_password_file == tmp_path / "operator" / "passwords" / "west-steward"
    assert settings.operator.directory_signing_key_file is not None


@pytest.mark.parametrize("topology", ["2+2", "2+1"])
@pytest.mark.parametrize("wires", [Namespaces, Loopback])
def test_the_labs_site_is_good_and_reads_back_the_same(topology: Any, wires: Any, tmp_path: Path) -> None:
    site = lab_site(tmp_path, topology, wires(tmp_path))
    assert check(site) == []
    assert parse(site_file(site), Path("/elsewhere")) == site
    assert tomllib.loads(site_file(site))["drills"] is True


def test_the_rendered_files_of_a_site_are_closed_to_others(
    tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "site.toml"
    file.write_text(text, encoding="utf-8")
    for centre in ("east", "west"):
        folder = tmp_path / centre / "passwords"
        folder.mkdir(parents=True)
        for name in (render.REST_PASSWORD, *(f"{c}-{s}" for c in ("east", "west") for s in render.PASSWORDS)):
            (folder / name).write_text(f"secret-of-{name}", encoding="ascii")
    command.render_command(out=tmp_path / "out", site=file, as_json=True)
    written = [Path(path) for path in json.loads(capsys.readouterr().out)]
    assert len(written) == 8 + 3 + 2
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in written)
    holding = [path.name for path in written if "secret-of" in path.read_text(encoding="utf-8")]
    assert sorted(holding) == sorted(f"patroni-{node.name}.yml" for _, node in parse(text, tmp_path).nodes())
