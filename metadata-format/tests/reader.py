"""A reader of metadata blocks by the rules that the existing release's tools follow.

Standard input: one JSON object, {"host id": "block in base64", ...}. Standard output: one JSON object with what such a
reader makes of each block: {"error": text} or its fields. Id 0 is the cluster's block. A reader gets a block as text: it
is decoded as UTF-8 before it is cut at 512, so that a character of two bytes in the record would shift everything.
"""
import base64
import json
import sys
import zlib

RELEASE = 1
RECORD = 512
BLOCK = 4096


class Unreadable(Exception):
    pass


def boolean(text):
    first = text[:1].lower()
    if first not in tuple("ty1fn0"):
        raise Unreadable("no boolean: " + text)
    return first in tuple("ty1")


def cluster(text):
    if len(text) < BLOCK:
        raise Unreadable("a short block")
    found = {}
    unknown = []
    for line in text[:BLOCK].rstrip("\0").split("\n"):
        key, mark, value = line.partition("=")
        if mark and key == "maintenance":
            found["maintenance"] = boolean(value)
        else:
            unknown.append(line)
    found["unknown"] = unknown
    return found


def host(text):
    if len(text) < RECORD:
        raise Unreadable("a short block")
    record = text[:RECORD].rstrip("\0")
    digits = record[: len(record) - len(record.lstrip("0123456789"))]
    if not digits:
        raise Unreadable("no version")
    if int(digits) > RELEASE:
        raise Unreadable("too new")
    fields = record.split("|")
    if len(fields) < 7:
        raise Unreadable("too few fields")
    if int(fields[1]) < RELEASE:
        raise Unreadable("too old")
    found = {
        "timestamp": int(fields[2]),
        "score": int(fields[4]),
        "hostname": fields[6],
        "maintenance": int(fields[7]) > 0 if len(fields) > 7 else None,
        "stopped": int(fields[8]) > 0 if len(fields) > 8 else None,
    }
    if len(fields) > 9:
        plain = fields[:9] + ["00000000"] + fields[10:]
        checksum = "%08x" % zlib.crc32("|".join(plain).encode())
        if checksum != fields[9]:
            raise Unreadable("checksum %s, not %s" % (fields[9], checksum))
    if len(fields) > 11:
        found["shared"] = int(fields[10]) > 0
        found["refreshed"] = int(fields[11])
    found["engine-status"] = json.loads(fields[5])
    found["extra"] = text[RECORD:].rstrip("\0")
    return found


def read(number, block):
    try:
        text = base64.b64decode(block).decode()
        return cluster(text) if number == "0" else host(text)
    except (Unreadable, ValueError) as error:
        return {"error": str(error)}


json.dump({number: read(number, block) for number, block in json.load(sys.stdin).items()}, sys.stdout)
