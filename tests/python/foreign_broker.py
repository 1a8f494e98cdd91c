"""A broker as the Python release's behaves on its socket, for one host: SOCKET METADATA_FILE.

One connection at a time, HTTP/1.0, gzip for answers over 1400 bytes when asked. A verb that fails answers nil; only an
unknown one is a fault. Host ids are held in memory, blocks are in the file, monitors give a plain host's results.
Standard library only. Tells its calls on standard output, one JSON array each.
"""
import json
import os
import socketserver
import sys
import xmlrpc.client
import xmlrpc.server

BLOCK = 4096
HOSTS = 2000

DOWN = {"vm": "down", "health": "bad", "detail": "unknown", "reason": "vm not running on this host"}
# A monitor's type: the options that it cannot do without, and its result.
MONITORS = {
    "network": (("addr",), 1.0),
    "mgmt-bridge": (("bridge_name",), True),
    "mem-free": ((), "16384"),
    "mem-load": ((), "0.2500"),
    "cpu-load": ((), "0.0312"),
    "cpu-load-no-engine": (("vm_uuid",), "0.0156"),
    "engine-health": (("vm_uuid",), json.dumps(DOWN)),
    "storage-domain": (("sd_uuid",), True),
}


class Blocks:
    """The metadata file, and what was written since it was last read as a whole."""

    def __init__(self, path):
        self.file = os.open(path, os.O_RDWR | os.O_SYNC)
        self.fresh = {}

    def read(self):
        """What was just written comes back as it came, without padding; after that the file counts."""
        content = os.pread(self.file, BLOCK * (HOSTS + 1), 0)
        blocks = {at // BLOCK: content[at:at + BLOCK] for at in range(0, len(content), BLOCK) if content[at]}
        blocks.update(self.fresh)
        self.fresh = {}
        return blocks

    def write(self, number, data):
        os.pwrite(self.file, data.ljust(BLOCK, b"\0"), BLOCK * number)
        self.fresh[number] = data


class Verbs:
    def __init__(self, blocks):
        self.blocks = blocks
        self.monitors = {}
        self.host_id = None
        self.alive = []

    def _dispatch(self, name, arguments):
        verb = None if name.startswith("_") else getattr(self, name, None)
        told = [len(a.data) if isinstance(a, xmlrpc.client.Binary) else a for a in arguments]
        if verb is None:
            raise Exception('method "%s" is not supported' % name)
        try:
            answer = verb(*arguments)
        except Exception as error:
            answer, told = None, told + [str(error)]
        print(json.dumps([name] + told), flush=True)
        return answer

    def start_monitor(self, type, options):
        needed, result = MONITORS[type]
        missing = [option for option in needed if options.get(option) is None]
        if missing:
            raise Exception("%s requires %s" % (type, missing))
        self.monitors[type] = result
        return type

    def stop_monitor(self, id):
        del self.monitors[id]
        return "ok"

    def status_monitor(self, id):
        return str(self.monitors[id])

    def get_stats(self):
        return {str(number): xmlrpc.client.Binary(data) for number, data in self.blocks.read().items()}

    def put_stats(self, host_id, data):
        # Written later and only under the lease; the caller is not told whether it was.
        if host_id in (0, self.host_id):
            self.blocks.write(host_id, data.data)
        return "ok"

    def push_hosts_state(self, alive_hosts):
        self.alive = alive_hosts
        return "ok"

    def is_host_alive(self):
        return self.alive

    def notify(self, event_type, detail, options):
        return "sent" if event_type == "state_transition" and options["hostname"] else "ignored"

    def start_domain_monitor(self, host_id):
        return "ok"

    def stop_domain_monitor(self):
        return "ok"

    def lock_host_id(self, host_id):
        self.host_id = host_id
        return "ok"

    def release_host_id(self):
        self.host_id = None
        return "ok"

    def reset_lockspace(self):
        raise Exception("there is no lockspace")


class Server(socketserver.UnixStreamServer, xmlrpc.server.SimpleXMLRPCDispatcher):
    logRequests = False

    def __init__(self, path, verbs):
        xmlrpc.server.SimpleXMLRPCDispatcher.__init__(self, allow_none=True)
        socketserver.UnixStreamServer.__init__(self, path, Handler)
        self.register_instance(verbs)


class Handler(xmlrpc.server.SimpleXMLRPCRequestHandler):
    # There is no such algorithm on a Unix socket.
    disable_nagle_algorithm = False


if __name__ == "__main__":
    server = Server(sys.argv[1], Verbs(Blocks(sys.argv[2])))
    print("ready", flush=True)
    server.serve_forever()
