#!/usr/bin/python3
"""Plays a Redfish power switch: the management controller of a server or of several, as far as fence_redfish uses one.

Serves over HTTPS what DMTF's DSP0266 and the schema ComputerSystem say of a service root, a collection of
systems, their PowerState and their action ComputerSystem.Reset. All but the service root need basic authentication.
The server that is switched does not exist; its power is the file POWER, which holds On or Off. Or, with --power, a command
switches something that is there.

usage: redfish-switch.py DIRECTORY [--off-takes SECONDS] [--stuck] [--silent]
       redfish-switch.py DIRECTORY --listen ADDRESS:PORT --stay --systems ID... --power COMMAND...

DIRECTORY must have the file password (user: operator). Made in it: power, requests (a line for each request) and the
certificate. The first line on standard output is the port. Ends when its standard input does.

--off-takes  the power is PoweringOff for so long before it is Off
--stuck      requests to switch are accepted, and nothing happens
--silent     connections are accepted and never answered
--listen     default: 127.0.0.1 and any port
--stay       does not end with its standard input
--systems    which systems there are; default: 1. Of several, requests are noted with the system's id before them
--power      all the rest is a command, which is given a system's id and status, on or off; of status it prints On or Off
"""

import argparse
import base64
import hmac
import json
import pathlib
import ssl
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

ROOT = "/redfish/v1"
SYSTEMS = ROOT + "/Systems"
RESET = "/Actions/ComputerSystem.Reset"
RESETS = {"On": "On", "ForceOff": "Off", "ForceRestart": "On"}
DEEDS = {"On": ["on"], "ForceOff": ["off"], "ForceRestart": ["off", "on"]}


class Log:
    """The file requests."""

    def __init__(self, directory):
        self.path = directory / "requests"
        self.lock = threading.Lock()

    def note(self, line):
        with self.lock, self.path.open("a") as log:
            log.write(line + "\n")


class Machine:
    """The power of something that is there."""

    def __init__(self, command):
        self.command = command
        self.lock = threading.Lock()

    def power(self):
        asked = subprocess.run([*self.command, "status"], check=True, stdout=subprocess.PIPE, text=True)
        return asked.stdout.strip()

    def reset(self, kind):
        # Answered at once, as controllers do; the power follows.
        threading.Thread(target=self.carry_out, args=(kind,)).start()

    def carry_out(self, kind):
        with self.lock:
            for deed in DEEDS[kind]:
                subprocess.run([*self.command, deed], check=True, stdin=subprocess.DEVNULL, stdout=sys.stderr)


class Switch:
    """The power of a server that does not exist, and its rules."""

    def __init__(self, directory, off_takes, stuck):
        self.off_takes = off_takes
        self.stuck = stuck
        self.lock = threading.Lock()
        self.off_at = None
        self.power_file = directory / "power"
        if not self.power_file.exists():
            self.power_file.write_text("On\n")

    def power(self):
        with self.lock:
            if self.off_at is not None and time.monotonic() < self.off_at:
                return "PoweringOff"
            if self.off_at is not None:
                self.power_file.write_text("Off\n")
                self.off_at = None
            return self.power_file.read_text().strip()

    def reset(self, kind):
        if self.stuck:
            return
        with self.lock:
            if kind == "ForceOff":
                self.off_at = time.monotonic() + self.off_takes
            else:
                self.off_at = None
                self.power_file.write_text(RESETS[kind] + "\n")


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    server_version = "redfish-switch"

    def log_message(self, *_):
        """Requests are noted by Switch, without their headers."""

    def answer(self, code, document=None):
        body = b"" if document is None else json.dumps(document).encode()
        self.send_response(code)
        self.send_header("OData-Version", "4.0")
        if code == 401:
            self.send_header("WWW-Authenticate", 'Basic realm="redfish"')
        if body:
            self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def error(self, code, message_id, message):
        detail = {"@Message.ExtendedInfo": [{"MessageId": message_id, "Message": message}]}
        self.answer(code, {"error": {"code": message_id, "message": message} | detail})

    def refused(self):
        given = self.headers.get("Authorization", "")
        if hmac.compare_digest(given.encode(), self.server.credentials.encode()):
            return False
        self.error(401, "Base.1.8.InsufficientPrivilege", "Wrong user or password")
        return True

    def system(self, suffix=""):
        """The id of the system that the path, without this suffix, names."""
        path = self.path.rstrip("/")
        if not path.startswith(SYSTEMS + "/") or not path.endswith(suffix):
            return None
        number = path[len(SYSTEMS) + 1:len(path) - len(suffix)]
        return number if number in self.server.systems else None

    def note(self, system, line):
        self.server.log.note(line if len(self.server.systems) == 1 else f"{system}: {line}")

    def do_GET(self):
        path = self.path.rstrip("/")
        if path == ROOT:
            self.answer(200, {
                "@odata.id": ROOT, "@odata.type": "#ServiceRoot.v1_5_0.ServiceRoot", "Id": "RootService",
                "Name": "Root Service", "RedfishVersion": "1.6.0", "Systems": {"@odata.id": SYSTEMS},
            })
        elif self.refused():
            pass
        elif path == SYSTEMS:
            members = [{"@odata.id": f"{SYSTEMS}/{number}"} for number in self.server.systems]
            self.answer(200, {
                "@odata.id": path, "@odata.type": "#ComputerSystemCollection.ComputerSystemCollection",
                "Name": "Systems", "Members@odata.count": len(members), "Members": members,
            })
        elif system := self.system():
            try:
                power = self.server.systems[system].power()
            except (OSError, subprocess.CalledProcessError) as error:
                self.error(500, "Base.1.8.InternalError", str(error))
                return
            self.note(system, "power? " + power)
            self.answer(200, {
                "@odata.id": path, "@odata.type": "#ComputerSystem.v1_10_0.ComputerSystem", "Id": system,
                "Name": "Server", "SystemType": "Physical", "PowerState": power,
                "Actions": {"#ComputerSystem.Reset": {
                    "target": path + RESET, "ResetType@Redfish.AllowableValues": sorted(RESETS),
                }},
            })
        else:
            self.error(404, "Base.1.8.ResourceMissingAtURI", "There is nothing at " + self.path)

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        if self.refused():
            return
        system = self.system(RESET)
        if system is None:
            self.error(404, "Base.1.8.ResourceMissingAtURI", "There is nothing at " + self.path)
            return
        try:
            kind = json.loads(body)["ResetType"]
        except (ValueError, KeyError, TypeError):
            self.error(400, "Base.1.8.MalformedJSON", "An object with ResetType is needed")
            return
        if kind not in RESETS:
            self.error(400, "Base.1.8.ActionParameterNotSupported", "ResetType must be one of " + ", ".join(RESETS))
            return
        self.note(system, "reset " + kind)
        self.server.systems[system].reset(kind)
        self.answer(204)


class Server(ThreadingHTTPServer):
    """Shakes hands in the connection's thread, so that a slow client holds nobody up."""

    daemon_threads = True

    def __init__(self, address, directory, systems, context, silent):
        super().__init__(address, Handler)
        password = (directory / "password").read_text().splitlines()[0]
        self.credentials = "Basic " + base64.b64encode(f"operator:{password}".encode()).decode()
        self.log = Log(directory)
        self.systems = systems
        self.context = context
        self.silent = silent

    def finish_request(self, request, client_address):
        if self.silent:
            self.log.note("connection")
            threading.Event().wait()
        with self.context.wrap_socket(request, server_side=True) as secured:
            super().finish_request(secured, client_address)

    def handle_error(self, request, client_address):
        """A client that went away is its own affair."""


def certificate(directory):
    """A certificate of its own, as such controllers leave the factory with."""
    files = directory / "key.pem", directory / "cert.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-batch",
         "-subj", "/CN=redfish-switch", "-days", "1", "-keyout", files[0], "-out", files[1]],
        check=True, capture_output=True,
    )
    return files


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("directory", type=pathlib.Path)
    parser.add_argument("--off-takes", type=float, default=0.0)
    parser.add_argument("--stuck", action="store_true")
    parser.add_argument("--silent", action="store_true")
    parser.add_argument("--listen", default="127.0.0.1:0")
    parser.add_argument("--stay", action="store_true")
    parser.add_argument("--systems", nargs="+", default=["1"])
    parser.add_argument("--power", nargs=argparse.REMAINDER)
    args = parser.parse_args()
    if len(args.systems) > 1 and not args.power:
        parser.error("several systems need --power")
    key, cert = certificate(args.directory)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    if args.power:
        systems = {number: Machine([*args.power, number]) for number in args.systems}
    else:
        systems = {number: Switch(args.directory, args.off_takes, args.stuck) for number in args.systems}
    address, _, port = args.listen.rpartition(":")
    server = Server((address, int(port)), args.directory, systems, context, args.silent)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(server.server_address[1], flush=True)
    if args.stay:
        threading.Event().wait()
    sys.stdin.read()


if __name__ == "__main__":
    main()
