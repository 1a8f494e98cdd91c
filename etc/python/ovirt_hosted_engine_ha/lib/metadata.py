"""From blocks of the metadata file to what clients show."""
import binascii
import re

from ..env import constants
from . import util
from .exceptions import MetadataError


def parse_global_metadata_to_dict(log, block):
    """The cluster's block: lines of key=value. Keys that are not known are reported and passed over."""
    flags = {}
    for line in block.rstrip(b"\0").decode("utf-8", "replace").split("\n"):
        key, _, value = line.partition("=")
        if key == "maintenance":
            flags[key] = util.to_bool(value)
        elif line:
            log.error("Invalid global metadata key: %s", line)
    return flags


def parse_metadata_to_dict(host_id, block):
    """A host's block: 512 bytes of fields between bars, then text for people."""
    try:
        return _row(host_id, block)
    except ValueError as error:
        raise MetadataError("Malformed metadata for host {0}: {1}".format(host_id, error))


def _row(host_id, block):
    size = constants.METADATA_BLOCK_BYTES
    if len(block) < size:
        raise ValueError("received {0} of {1} expected bytes".format(len(block), size))
    record = block[:size].rstrip(b"\0").decode("utf-8")
    version = re.match("[0-9]+", record)
    if not version:
        raise ValueError("non-parsable metadata version {0!r}".format(record[:40]))
    if int(version.group()) > constants.METADATA_FEATURE_VERSION:
        raise ValueError("version {0} is too new for this release".format(version.group()))
    fields = record.split("|")
    if len(fields) < 7:
        raise ValueError("received {0} of 7 expected tokens".format(len(fields)))
    if int(fields[1]) < constants.METADATA_PARSE_VERSION:
        raise ValueError("version {0} is too old for this release".format(fields[1]))
    if int(fields[3]) != host_id:
        raise ValueError("it belongs to host {0}".format(fields[3]))
    row = {"host-id": host_id, "host-ts": int(fields[2]), "score": int(fields[4]), "engine-status": fields[5],
           "hostname": fields[6]}
    # Later releases added fields, a few at a time.
    if len(fields) >= 8:
        row["maintenance"] = int(fields[7]) > 0
    if len(fields) >= 9:
        row["stopped"] = int(fields[8]) > 0
    if len(fields) >= 10:
        row["crc32"] = fields[9]
        checksum = "%08x" % (binascii.crc32("|".join(fields[:9] + ["0" * 8] + fields[10:]).encode()) & 0xffffffff)
        if fields[9] != checksum:
            raise ValueError("checksum {0} does not match the data {1}".format(fields[9], checksum))
    if len(fields) >= 12:
        row["conf_on_shared_storage"] = int(fields[10]) > 0
        row["local_conf_timestamp"] = int(fields[11])
    extra = block[size:].rstrip(b"\0").decode("utf-8", "replace")
    if extra:
        row["extra"] = extra
    return row
