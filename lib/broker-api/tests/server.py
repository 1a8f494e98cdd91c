"""What the Python broker's socket is made of: the standard library's XML-RPC server on a Unix socket. SOCKET"""
import socketserver
import sys
import xmlrpc.client
import xmlrpc.server


class Server(socketserver.UnixStreamServer, xmlrpc.server.SimpleXMLRPCDispatcher):
    logRequests = False


class Handler(xmlrpc.server.SimpleXMLRPCRequestHandler):
    # There is no such algorithm on a Unix socket.
    disable_nagle_algorithm = False


class Verbs:
    def echo(self, value):
        return value

    def get_stats(self):
        return {"0": xmlrpc.client.Binary(b"maintenance=0" + bytes(4083)), "1": xmlrpc.client.Binary(bytes(4096))}

    def all_blocks(self):
        return {str(number): xmlrpc.client.Binary(bytes([number % 251 + 1]) * 4096) for number in range(2001)}

    def is_host_alive(self):
        return [1, 2]

    def put_stats(self, host_id, data):
        """An exception inside a verb becomes nil."""

    def status_monitor(self, id):
        return str(None)


def large_integers(marshaller, value, write):
    kind = "int" if -2**31 < value < 2**31 else "i8"
    write("<value><%s>%d</%s></value>" % (kind, value, kind))


xmlrpc.client.Marshaller.dispatch[int] = large_integers
server = Server(sys.argv[1], Handler)
xmlrpc.server.SimpleXMLRPCDispatcher.__init__(server, allow_none=True)
server.register_instance(Verbs())
print("ready", flush=True)
server.serve_forever()
