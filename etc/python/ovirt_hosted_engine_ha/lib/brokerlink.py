"""Requests to the broker: XML-RPC over its Unix socket."""
import base64
import http.client
import socket
import xmlrpc.client

from ..env import constants
from .exceptions import BrokerConnectionError, RequestError


class _Connection(http.client.HTTPConnection):
    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(base64.b16decode(self.host))


class _Transport(xmlrpc.client.Transport):
    def __init__(self, timeout):
        xmlrpc.client.Transport.__init__(self)
        self._timeout = timeout

    def make_connection(self, host):
        self._connection = host, _Connection(host, timeout=self._timeout)  # where close() looks for it
        return self._connection[1]


class BrokerLink(object):
    """`timeout` is in seconds for each step of a request; without one there is no limit."""

    def __init__(self, timeout=None):
        # A URL's host cannot have slashes, so the path goes in hexadecimal.
        host = base64.b16encode(constants.BROKER_SOCKET_FILE.encode()).decode()
        self._proxy = xmlrpc.client.ServerProxy("http://" + host, _Transport(timeout), allow_none=True)

    def _call(self, verb, *arguments):
        try:
            answer = getattr(self._proxy, verb)(*arguments)
        except xmlrpc.client.Fault as fault:
            raise RequestError("{0}: {1}".format(verb, fault.faultString))
        except (xmlrpc.client.ProtocolError, http.client.HTTPException) as error:
            raise BrokerConnectionError("{0}: {1}".format(verb, getattr(error, "errmsg", error)))
        finally:
            self._proxy("close")()
        if answer is None:  # how the Python broker says that something went wrong
            raise RequestError("{0}: the broker gave no answer; see its log".format(verb))
        return answer

    def get_stats_from_storage(self):
        """All blocks as bytes, by host id; 0 is the cluster's."""
        return {int(host_id): block.data for host_id, block in self._call("get_stats").items()}

    def put_stats_on_storage(self, host_id, block):
        """Returns once the block was written."""
        self._call("put_stats", host_id, xmlrpc.client.Binary(block))

    def get_live_hosts(self):
        return self._call("is_host_alive")

    def reset_lockspace(self):
        self._call("reset_lockspace")
