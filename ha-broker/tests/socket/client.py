"""A client of the broker's socket made of Python's standard library only: PART SOCKET."""
import http.client
import socket
import sys
import threading
import xmlrpc.client


class Connection(http.client.HTTPConnection):
    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(20)
        self.sock.connect(bytes.fromhex(self.host).decode())


class Connection10(Connection):
    _http_vsn = 10
    _http_vsn_str = "HTTP/1.0"


class Transport(xmlrpc.client.Transport):
    connection_class = Connection

    def make_connection(self, host):
        return self.connection_class(host)


class Transport10(Transport):
    connection_class = Connection10


def large_integers(marshaller, value, write):
    kind = "int" if -2**31 < value < 2**31 else "i8"
    write("<value><%s>%d</%s></value>" % (kind, value, kind))


xmlrpc.client.Marshaller.dispatch[int] = large_integers


def proxy(path, transport=Transport):
    url = "http://" + path.encode().hex().upper()
    return xmlrpc.client.ServerProxy(url, transport=transport(), allow_none=True)


def equal(got, wanted):
    assert got == wanted, "got %r, wanted %r" % (got, wanted)


def verbs(path, transport=Transport):
    broker = proxy(path, transport)
    equal(broker.get_stats(), {})
    options = {"addr": "127.0.0.1", "tcp_t_port": None, "flag": True, "big": 2**40, "share": 0.5}
    equal(broker.start_monitor("network", options), "network")
    equal(broker.status_monitor("network"), "None")
    equal(broker.status_monitor("mgmt-bridge"), "True")
    equal(broker.status_monitor("engine-health"), '{"vm": "up", "detail": "<Ü & \\"q\\">"}')
    equal(broker.stop_monitor("network"), "ok")
    block = bytes(range(256)) + bytes(768)
    equal(broker.put_stats(1, xmlrpc.client.Binary(block)), "ok")
    equal(broker.put_stats(0, xmlrpc.client.Binary(b"maintenance=1\n" + bytes(4082))), "ok")
    blocks = broker.get_stats()
    equal(sorted(blocks), ["0", "1"])
    equal(blocks["1"].data, block)
    equal(len(blocks["0"].data), 4096)
    equal(broker.push_hosts_state([1, 2, 2000]), "ok")
    equal(broker.is_host_alive(), [1, 2, 2000])
    hostname = {"hostname": 'hôst <1> & "2"'}
    equal(broker.notify("state_transition", "StartState-ReinitializeFSM", hostname), "sent")
    equal(broker.notify("nosuch", "x", hostname), "ignored")
    equal(broker.start_domain_monitor(1), "ok")
    equal(broker.lock_host_id(1), "ok")
    equal(broker.release_host_id(), "ok")
    equal(broker.stop_domain_monitor(), "ok")
    try:
        broker.reset_lockspace()
        raise AssertionError("no fault")
    except xmlrpc.client.Fault as fault:
        equal(fault.faultString, "host 2 is live in it")
    print("13 verbs")


def faults(path):
    broker = proxy(path)
    for call, code, text in [
        (lambda: broker.nosuch(), 1, "<class 'Exception'>:method \"nosuch\" is not supported"),
        (lambda: broker.system.listMethods(), 1, 'method "system.listMethods" is not supported'),
        (lambda: broker.start_monitor("nosuch", {}), 2, 'there is no monitor "nosuch"'),
        (lambda: broker.start_monitor("network"), 2, "got 1 arguments"),
        (lambda: broker.put_stats(7, xmlrpc.client.Binary(b"x")), 3, "not held"),
        (lambda: broker.put_stats(8, xmlrpc.client.Binary(b"x")), 4, "storage stuck"),
    ]:
        try:
            call()
        except xmlrpc.client.Fault as fault:
            equal(fault.faultCode, code)
            assert text in fault.faultString, fault.faultString
        else:
            raise AssertionError("no fault: " + text)
    print("faults")


def concurrent(path):
    done, failed = [], []

    def client():
        try:
            broker = proxy(path)
            for _ in range(10):
                equal(broker.status_monitor("mgmt-bridge"), "True")
                done.append(1)
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=client) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    equal(failed, [])
    print(len(done), "calls")


def values(path):
    """Every type of XML-RPC as an option's value, and what the broker says about those that no option can have."""
    broker = proxy(path)
    options = {
        "int": -7, "largest int": 2**31 - 1, "i8": 2**31, "smallest i8": -2**63, "true": True, "false": False,
        "double": 0.1, "whole double": 3.0, "large double": 1e300, "text": "", "space": " a  b ", "nil": None,
        "signs": "é \U0010ffff <&>]]> \"'\n\t", "date": xmlrpc.client.DateTime("20261121T02:07:35"), "<&> é": "key",
    }
    equal(broker.start_monitor("network", options), "network")
    for value, kind in [(xmlrpc.client.Binary(b"x"), "base64"), ([1, [2]], "an array"), ({"a": {}}, "a struct")]:
        try:
            broker.start_monitor("network", {"wrong": value})
        except xmlrpc.client.Fault as fault:
            equal(fault.faultCode, 2)
            assert 'has %s for "wrong"' % kind in fault.faultString, fault.faultString
        else:
            raise AssertionError("no fault: " + kind)
    print("values")


class Recording(Transport):
    """Keeps the last answer's head, and all connections."""

    def __init__(self, **settings):
        super().__init__(**settings)
        self.connections = []

    def make_connection(self, host):
        if not self._connection or self._connection[0] != host:
            self._connection = host, super().make_connection(host)
            self.connections.append(self._connection[1])
        return self._connection[1]

    def parse_response(self, response):
        self.head = response
        return super().parse_response(response)


def connections(path):
    """A kept connection, one for each request, packed requests, and the end of a kept one."""
    transport = Recording()
    url = "http://" + path.encode().hex().upper()
    broker = xmlrpc.client.ServerProxy(url, transport=transport, allow_none=True)
    for _ in range(3):
        equal(broker.status_monitor("mgmt-bridge"), "True")
    equal(len(transport.connections), 1)
    equal(transport.head.version, 11)
    # Python offers gzip in each request; an answer may come as it is.
    transport.encode_threshold = 100
    equal(broker.put_stats(0, xmlrpc.client.Binary(b"maintenance=1" + bytes(4083))), "ok")
    blocks = broker.get_stats()
    equal(len(blocks["0"].data), 4096)
    equal(transport.head.getheader("Content-Encoding"), None)
    equal(transport.head.getheader("Content-Type"), "text/xml")
    equal(len(transport.connections), 1)
    # The broker closes connections that are idle; Python asks again on a new one.
    transport.connections[0].sock.shutdown(socket.SHUT_WR)
    equal(broker.status_monitor("mgmt-bridge"), "True")

    if sys.version_info >= (3, 8):
        transport = Recording(headers=[("Connection", "close")])
        broker = xmlrpc.client.ServerProxy(url, transport=transport)
        equal(broker.status_monitor("mgmt-bridge"), "True")
        equal(transport.head.getheader("Connection"), "close")
    for target in ("/", "/RPC2"):
        equal(xmlrpc.client.ServerProxy(url + target, transport=Transport()).is_host_alive(), [])
    print("connections")


def full(path):
    blocks = proxy(path).get_stats()
    for number, block in blocks.items():
        equal(block.data, int(number).to_bytes(2, "big") + bytes(4094))
    print(len(blocks), "blocks")


def reader(path):
    """What a user without write access sees."""
    broker = proxy(path)
    equal(broker.get_stats(), {})
    equal(broker.is_host_alive(), [])
    equal(broker.status_monitor("mgmt-bridge"), "True")
    binary = xmlrpc.client.Binary(b"x")
    for name, arguments in [
        ("start_monitor", ("network", {})), ("stop_monitor", ("network",)), ("put_stats", (0, binary)),
        ("push_hosts_state", ([1],)), ("notify", ("a", "b", {})), ("start_domain_monitor", (1,)),
        ("stop_domain_monitor", ()), ("lock_host_id", (1,)), ("release_host_id", ()), ("reset_lockspace", ()),
    ]:
        try:
            getattr(broker, name)(*arguments)
        except xmlrpc.client.Fault as fault:
            equal(fault.faultCode, 6)
            assert "may not use " + name in fault.faultString, fault.faultString
            assert "(uid 65534)" in fault.faultString, fault.faultString
        else:
            raise AssertionError(name + " was allowed")
    for method, document, status in [
        ("GET", "/v1/status", 200), ("GET", "/metrics", 200), ("GET", "/v1/wake?timeout_ms=1", 200),
        ("PUT", "/v1/agent", 403),
    ]:
        connection = Connection(path.encode().hex())
        connection.request(method, document, body=b"{}" if method == "PUT" else None)
        equal(connection.getresponse().status, status)
    print("reader")


PARTS = {
    "verbs": verbs,
    "verbs-http-1.0": lambda path: verbs(path, Transport10),
    "faults": faults,
    "concurrent": concurrent,
    "connections": connections,
    "full": full,
    "values": values,
    "reader": reader,
}

if __name__ == "__main__":
    PARTS[sys.argv[1]](sys.argv[2])
