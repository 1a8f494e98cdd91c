"""Small helpers that the set-up tools import from here."""


def to_bool(string):
    first = str(string).lower()[:1]
    if first in ("t", "y", "1"):
        return True
    if first in ("f", "n", "0"):
        return False
    raise ValueError("Invalid value for boolean: {0}".format(string))


def connect_vdsm_json_rpc(logger=None, timeout=900):
    from vdsm import client  # only where VDSM is installed

    return client.connect("localhost", timeout=timeout)
