"""An agent as the Python release's behaves towards its broker: SOCKET HOST_ID SD_UUID run|clean.

`run` starts every monitor with the release's options, takes the leases, waits until each monitor has a result, and
then loops until standard input ends: reads all blocks and monitors, writes its own block of 1024 bytes, tells who is
alive. It ends by writing that it stopped and giving the leases up. `clean` writes an empty block.
Standard library only. Tells what it saw on standard output, one JSON object for each loop.
"""
import base64
import binascii
import http.client
import json
import re
import socket
import sys
import threading
import time
import xmlrpc.client


class Connection(http.client.HTTPConnection):
    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.connect(base64.b16decode(self.host))


class Transport(xmlrpc.client.Transport):
    """A connection for each request."""

    def make_connection(self, host):
        return Connection(host)


def number_or_none(text):
    return None if text == "None" else float(text)


def monitors(sd_uuid, port):
    """Field, type, options, and how the result is read. The options are texts from hosted-engine.conf, or nil."""
    vdsm = {"address": "0", "use_ssl": "true"}
    vm = dict(vdsm, vm_uuid="5d2f7a60-0000-4000-8000-000000000005")
    network = {"addr": "127.0.0.1", "network_test": "tcp", "tcp_t_address": "127.0.0.1", "tcp_t_port": port}
    return [
        ("network", "network", network, float),
        ("bridge", "mgmt-bridge", dict(vdsm, bridge_name="lo"), bool),
        ("mem-free", "mem-free", vdsm, number_or_none),
        ("cpu-load", "cpu-load-no-engine", vm, number_or_none),
        ("engine-health", "engine-health", vm, json.loads),
        ("storage-domain", "storage-domain", {"sd_uuid": sd_uuid}, bool),
    ]


def block(host_id, state, score, engine, stopped):
    stamp = int(time.monotonic())
    fields = [1, 1, stamp, host_id, score, json.dumps(engine), "foreign.example.org", 0, int(stopped), "0" * 8, 1, stamp]
    fields[9] = "%08x" % binascii.crc32("|".join(map(str, fields)).encode())
    lines = ["metadata_parse_version=1", "metadata_feature_version=1", "timestamp=%d (%s)" % (stamp, time.ctime()),
             "host-id=%d" % host_id, "score=%d" % score, "vm_conf_refresh_time=%d (%s)" % (stamp, time.ctime()),
             "conf_on_shared_storage=True", "maintenance=False", "state=" + state, "stopped=%s" % stopped, ""]
    parts = "|".join(map(str, fields)), "\n".join(lines)
    return xmlrpc.client.Binary("".join(part.ljust(512, "\0") for part in parts).encode())


def listener():
    """A port to connect to, for the network test."""
    server = socket.socket()
    server.bind(("127.0.0.1", 0))
    server.listen()

    def serve():
        while True:
            server.accept()[0].close()

    threading.Thread(target=serve, daemon=True).start()
    return str(server.getsockname()[1])


def refused(call):
    """The text of the fault with which a call must end."""
    try:
        return "answered %r" % call()
    except xmlrpc.client.Fault as fault:
        return fault.faultString


def run(broker, host_id, sd_uuid):
    port = listener()
    wanted = monitors(sd_uuid, port)
    # Every network test, as hosted-engine.conf may name it; the one that stays is the first of `wanted`.
    for test in (None, "", "ping", "dns", "none"):
        options = {"addr": "127.0.0.1", "network_test": test, "tcp_t_address": None, "tcp_t_port": None}
        assert broker.start_monitor("network", options) == "network", test
    told = {"refused": refused(lambda: broker.start_monitor("network", {"network_test": "tcp", "addr": "127.0.0.1"}))}
    for _, kind, options, _ in wanted:
        assert broker.start_monitor(kind, options) == kind
        told[kind] = broker.status_monitor(kind)
    print(json.dumps(told), flush=True)

    told = {"before": refused(lambda: broker.put_stats(host_id, block(host_id, "EngineDown", 0, {}, False)))}
    assert broker.start_domain_monitor(host_id) == "ok"
    assert broker.lock_host_id(host_id) == "ok"
    print(json.dumps(told), flush=True)

    while any(broker.status_monitor(kind) == "None" for _, kind, _, _ in wanted):
        time.sleep(0.1)

    state = "ReinitializeFSM"
    for line in sys.stdin:
        blocks = {int(number): data.data.decode() for number, data in broker.get_stats().items()}
        local = {}
        for field, kind, _, read in wanted:
            text = broker.status_monitor(kind)
            local[field] = False if text == "False" else read(text)
        maintenance = blocks.get(0, "").startswith("maintenance=1")
        before, state = state, "GlobalMaintenance" if maintenance else "EngineDown"
        sent = broker.notify("state_transition", "%s-%s" % (before, state), {"hostname": socket.gethostname()})
        # The leases are asked for in each loop.
        assert broker.lock_host_id(host_id) == broker.start_domain_monitor(host_id) == "ok"
        score = 3400 if local["network"] == 1.0 else 1800
        assert broker.put_stats(host_id, block(host_id, state, score, local["engine-health"], False)) == "ok"
        remote = [number for number, data in blocks.items() if number not in (0, host_id) and re.match("1[|]1[|]", data)]
        assert broker.push_hosts_state([host_id] + remote) == "ok"
        print(json.dumps({"state": state, "local": local, "blocks": sorted(blocks), "notify": sent,
                          "alive": broker.is_host_alive()}), flush=True)

    assert broker.put_stats(host_id, block(host_id, "AgentStopped", 0, local["engine-health"], True)) == "ok"
    assert broker.release_host_id() == "ok"
    assert broker.stop_domain_monitor() == "ok"
    print(json.dumps({"stopped": True}), flush=True)


def clean(broker, host_id, sd_uuid):
    assert broker.start_domain_monitor(host_id) == broker.lock_host_id(host_id) == "ok"
    assert broker.put_stats(host_id, xmlrpc.client.Binary(b"")) == "ok"
    assert broker.release_host_id() == "ok"
    print(json.dumps({"cleaned": True}), flush=True)


if __name__ == "__main__":
    url = "http://" + base64.b16encode(sys.argv[1].encode()).decode()
    proxy = xmlrpc.client.ServerProxy(url, transport=Transport(), allow_none=True)
    {"run": run, "clean": clean}[sys.argv[4]](proxy, int(sys.argv[2]), sys.argv[3])
