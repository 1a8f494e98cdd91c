"""What VDSM and the set-up tools do with the Python package, against a broker that has the blocks of `package.rs`."""
import ast
import errno
import io
import logging
import os
import stat
import sys
import tokenize

import ovirt_hosted_engine_ha
from ovirt_hosted_engine_ha.agent import constants as agent_constants
from ovirt_hosted_engine_ha.client import client
from ovirt_hosted_engine_ha.env import config, config_constants, constants
from ovirt_hosted_engine_ha.lib import util
from ovirt_hosted_engine_ha.lib.exceptions import BrokerConnectionError, DisconnectionError, RequestError
import ovirt_hosted_engine_ha.client.client as haClient

ROOT = os.environ["OVIRT_HA_ROOT"]
HA = haClient.HAClient


def equal(got, wanted):
    assert got == wanted and type(got) is type(wanted), "got %r, wanted %r" % (got, wanted)


def fails(call, kind, text):
    try:
        call()
    except kind as error:
        assert text in str(error), "%r in %r" % (text, str(error))
    else:
        raise AssertionError("no %s: %s" % (kind.__name__, text))


def write(path, text):
    path = os.path.join(ROOT, path)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w") as file:
        file.write(text)
    return path


def read(path):
    with open(path) as file:
        return file.read()


class Log(logging.Handler):
    lines = []

    def emit(self, record):
        self.lines.append(record.getMessage())


def not_deployed():
    """VDSM asks on every host, also where there is no hosted engine."""
    equal(HA().is_deployed(), False)
    equal(HA().get_local_host_id(), None)


def stats():
    rows = HA().get_all_stats(timeout=5)
    equal(sorted(rows), [0, 1, 5])
    equal(rows[0], {"maintenance": True})
    row = dict(rows[1])
    extra = row.pop("extra")
    assert extra.startswith("metadata_parse_version=1\n") and extra.endswith("stopped=False\n"), extra
    wanted = {"host-id": 1, "host-ts": 2351, "score": 3400, "hostname": "vm", "maintenance": False, "stopped": False,
              "engine-status": '{"vm": "up", "health": "good", "detail": "Up"}', "crc32": "0132871a",
              "conf_on_shared_storage": True, "local_conf_timestamp": 2351, "live-data": True}
    for key, value in wanted.items():
        equal(row.pop(key), value)
    equal(row, {})
    # The founding form has seven fields; its host is not alive.
    equal(rows[5], {"host-id": 5, "host-ts": 7, "score": 2400, "engine-status": "vm-down", "hostname": "h\u00f4st",
                    "live-data": False})
    # Each bad block cost its own row and a line in the log.
    for number, text in [(2, "does not match the data"), (3, "can't decode"), (4, "too new"),
                         (6, "it belongs to host 1"), (7, "non-parsable"), (8, "received 100 of 512")]:
        assert any("host %d:" % number in line and text in line for line in Log.lines), (number, Log.lines)
    assert "Invalid global metadata key: newer=x" in Log.lines, Log.lines
    equal(sorted(HA().get_all_host_stats()), [1, 5])
    equal(HA().get_all_stats(HA.StatModes.GLOBAL), {0: {"maintenance": True}})
    equal(HA().get_local_host_id(), 1)
    equal(HA().get_local_host_score(timeout=5), 3400)


def vdsm():
    """Host.getStats, Host.getCapabilities and setHaMaintenanceMode."""
    instance = HA()
    rows = instance.get_all_stats(timeout=5)
    host_id = instance.get_local_host_id()
    equal(rows[0].get(HA.GlobalMdFlags.MAINTENANCE, False), True)
    equal([rows[host_id][key] for key in ("live-data", "score", "maintenance")], [True, 3400, False])
    equal(instance.is_deployed(), True)
    for enabled in (False, True):
        HA().set_maintenance_mode(HA.MaintenanceMode.GLOBAL, enabled, timeout=60)
        equal(HA().get_all_stats(HA.StatModes.GLOBAL)[0]["maintenance"], enabled)
    fails(lambda: HA().set_global_md_flag("nosuch", 1), Exception, "nosuch")
    fails(lambda: HA().set_global_md_flag("maintenance", "perhaps"), ValueError, "perhaps")


def local_maintenance():
    path = write("var/lib/ovirt-hosted-engine-ha/ha.conf", "# head\nlocal_maintenance=False\nother=1\n")
    os.chmod(path, 0o640)
    if os.geteuid() == 0:
        os.chown(path, 36, 36)
    modes = HA.MaintenanceMode
    HA().set_maintenance_mode(modes.LOCAL, True)
    equal(read(path), "# head\nlocal_maintenance=True\nother=1\n")
    HA().set_maintenance_mode(modes.LOCAL_MANUAL, "yes")
    equal(read(path), "# head\nlocal_maintenance=True\nother=1\nlocal_maintenance_manual=True\n")
    HA().set_maintenance_mode(modes.LOCAL_MANUAL, 0)
    equal(read(path), "# head\nlocal_maintenance=False\nother=1\nlocal_maintenance_manual=False\n")
    equal(stat.S_IMODE(os.stat(path).st_mode), 0o640)
    if os.geteuid() == 0:
        equal((os.stat(path).st_uid, os.stat(path).st_gid), (36, 36))
    equal(os.listdir(os.path.dirname(path)), ["ha.conf"])
    os.unlink(path)
    HA().set_maintenance_mode(modes.LOCAL, False)
    equal(read(path), "local_maintenance=False\n")
    fails(lambda: HA().set_maintenance_mode("ELSEWHERE", True), Exception, "ELSEWHERE")


def reset_lockspace():
    fails(lambda: HA().reset_lockspace(), Exception, "with an active agent")
    HA().set_maintenance_mode(HA.MaintenanceMode.GLOBAL, False)
    fails(lambda: HA().reset_lockspace(), Exception, "in global maintenance mode only")
    # The broker looks at the lockspace itself, whatever the caller thinks.
    fails(lambda: HA().reset_lockspace(force=True, timeout=60), RequestError, "host 2 is live in it")


def set_up_tools():
    equal(agent_constants.PACKAGE_VERSION.split(".")[:2], ["2", "5"])
    equal(config.Config().get(config.ENGINE, config_constants.HEVMID), "5d2f")
    equal(config.Config().get(config.ENGINE, "nosuch"), None)
    fails(lambda: config.Config().get(config.ENGINE, "nosuch", raise_on_none=True), ValueError, "nosuch")
    equal([util.to_bool(word) for word in ("True", "yes", 1, "False", "no", "0")], [True] * 3 + [False] * 3)
    for word in ("", "maybe"):
        fails(lambda: util.to_bool(word), ValueError, word)
    assert issubclass(DisconnectionError, Exception)

    write("var/lib/ovirt-hosted-engine-ha/hosted-engine.conf", "fqdn=e\ngateway=g\n")
    write("var/lib/ovirt-hosted-engine-ha/broker.conf", "[email]\nsmtp-server=localhost\n[notify]\n")
    keys = HA().get_all_config_keys()
    equal(sorted(keys), ["broker", "ha", "he_local", "he_shared"])
    equal(keys["broker"], ["email.smtp-server"])
    equal(keys["he_shared"],
          ["fqdn", "gateway", "iscsi_paths_blacklist", "network_test", "tcp_t_address", "tcp_t_port"])
    equal(HA().get_all_config_keys("ha"), {"ha": ["local_maintenance"]})

    asked = os.path.join(ROOT, "asked")
    os.chmod(write("usr/sbin/hosted-engine", """#!/bin/sh
echo "$*" >>%s
case $* in
--set-shared-config*) echo "input: $(cat)" >>%s ;;
*--type=he_shared) printf '\\n%%s : a b, type : he_shared\\n\\n' "$2" ;;
*nosuch*) printf 'Invalid configuration key nosuch\\nAvailable keys are:\\n' >&2; exit 1 ;;
--get-shared-config*) echo "gateway is in he_local and he_shared" >&2; exit 1 ;;
--disconnect-storage) echo "Storage is in use" >&2; exit 1 ;;
esac
""" % (asked, asked)), 0o755)
    equal(HA().get_shared_config("gateway", "he_shared"), ["a b", "he_shared"])
    fails(lambda: HA().get_shared_config("gateway"), Exception, "in he_local and he_shared")
    fails(lambda: HA().get_shared_config("nosuch"), KeyError, "nosuch")
    HA().set_shared_config("gateway", "10.0.0.1 x", "he_shared")
    HA().connect_storage_server(timeout=30)
    fails(lambda: HA().disconnect_storage_server(), Exception, "Storage is in use")
    equal(read(asked).splitlines(), [
        "--get-shared-config gateway --show-secret --type=he_shared", "--get-shared-config gateway --show-secret",
        "--get-shared-config nosuch --show-secret", "--set-shared-config gateway - --type=he_shared",
        "input: 10.0.0.1 x", "--connect-storage", "--disconnect-storage"])
    # The Python release's command imports this package for its work: that must not go round in circles.
    os.environ["OVIRT_HA_ASKED"] = "1"
    fails(lambda: HA().connect_storage_server(), Exception, "is that of the Python release")
    del os.environ["OVIRT_HA_ASKED"]


def no_broker():
    """VDSM looks at the error's number, the set-up tools at its type."""
    constants.BROKER_SOCKET_FILE += ".nosuch"
    try:
        HA().get_all_stats(timeout=5)
    except OSError as error:
        equal(error.errno, errno.ENOENT)
    else:
        raise AssertionError("no error")
    assert not issubclass(BrokerConnectionError, OSError)


def code_lines(text):
    """Lines of a file without comments, empty lines and texts that only document."""
    idle = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)
    lines = set()
    begins = True
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        documents = token.type == tokenize.STRING and begins
        if token.type not in idle and not documents:
            lines.update(range(token.start[0], token.end[0] + 1))
        begins = token.type in idle or documents
    return len(lines)


def grammar():
    """Python 3.6 can read every file, and a person all of them."""
    folder = os.path.dirname(ovirt_hosted_engine_ha.__file__)
    files = [os.path.join(at, name) for at, _, names in os.walk(folder) for name in names if name.endswith(".py")]
    assert len(files) > 10, files
    for path in files:
        text = read(path)
        if sys.version_info >= (3, 8):
            ast.parse(text, path, feature_version=(3, 6))
        compile(text, path, "exec")
        assert all(len(line) <= 120 for line in text.splitlines()), path
    assert sum(code_lines(read(path)) for path in files) <= 300


if __name__ == "__main__":
    not_deployed()
    write("etc/ovirt-hosted-engine/hosted-engine.conf", "fqdn=engine.example.org\nhost_id=1\nvmid = 5d2f\n#vmid=x\n")
    logging.getLogger("ovirt_hosted_engine_ha").addHandler(Log())
    for part in (stats, vdsm, local_maintenance, reset_lockspace, set_up_tools, no_broker, grammar):
        part()
    assert client is haClient
    print("the package works")
