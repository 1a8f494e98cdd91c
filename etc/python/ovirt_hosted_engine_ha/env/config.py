"""This host's configuration files; a change replaces the file as a whole, so that no reader sees half of it."""
import configparser
import fcntl
import logging
import os
import tempfile

from . import constants
from .config_constants import BROKER, ENGINE, ENGINE_OPTIONAL_KEYS, HA, HE_CONF, VM

PATHS = {ENGINE: constants.ENGINE_SETUP_CONF_FILE, BROKER: constants.NOTIFY_CONF_FILE,
         HE_CONF: constants.CACHED_ENGINE_SETUP_CONF_FILE, HA: constants.HA_AGENT_CONF_FILE,
         VM: constants.LOCAL_VM_CONF_PATH}


class Config(object):
    def __init__(self, logger=None):
        self._log = logger or logging.getLogger(__name__)

    def _lines(self, type):
        try:
            with open(PATHS[type], encoding="utf-8", errors="replace") as file:
                return file.read().splitlines()
        except OSError as error:
            self._log.error("Configuration file '%s' not available [%s]", PATHS[type], error)
            return []

    def values(self, type):
        """All keys and values of a file; those of an INI file are called section.key."""
        if type == BROKER:
            ini = configparser.RawConfigParser(strict=False)
            ini.read_string("\n".join(self._lines(type)))
            return {name + "." + key: value for name in ini.sections() for key, value in ini.items(name)}
        pairs = (line.split("=", 1) for line in self._lines(type) if "=" in line and line.strip()[0] != "#")
        return {key.strip(): value.strip() for key, value in pairs}

    def get(self, type, key, raise_on_none=False):
        value = self.values(type).get(key)
        if raise_on_none and value in (None, "None", ""):
            raise ValueError("'{0} can't be '{1}'".format(key, value))
        return value

    def set(self, type, key, value):
        """Changes the last line of the key, or adds one; every other line stays. Only for key=value files."""
        path = os.path.realpath(PATHS[type])
        directory = os.path.dirname(path)
        lock = os.open(directory, os.O_RDONLY)  # hosted-engine takes the same lock
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            lines = self._lines(type)
            place = max((n for n, line in enumerate(lines) if line.split("=", 1)[0].strip() == key), default=len(lines))
            lines[place:place + 1] = ["{0}={1}".format(key, value)]
            with tempfile.TemporaryDirectory(prefix=".", dir=directory) as beside:
                new = os.path.join(beside, "new")
                with open(new, "w", encoding="utf-8") as file:
                    file.write("\n".join(lines) + "\n")
                    file.flush()
                    os.fsync(file.fileno())
                old = os.stat(path) if os.path.exists(path) else None
                os.chmod(new, old.st_mode & 0o7777 if old else 0o644)
                if old and os.geteuid() == 0:
                    os.chown(new, old.st_uid, old.st_gid)
                os.rename(new, path)
            os.fsync(lock)
        finally:
            os.close(lock)

    def all_keys(self, type=None):
        """The keys that --get-shared-config and --set-shared-config know, by type of file."""
        optional = {ENGINE: ENGINE_OPTIONAL_KEYS, HE_CONF: ENGINE_OPTIONAL_KEYS}
        types = [type] if type else [ENGINE, BROKER, HE_CONF, HA]
        return {name: sorted(set(self.values(name)).union(optional.get(name, []))) for name in types}

    @classmethod
    def static_files_exist(cls):
        return os.path.exists(PATHS[ENGINE])
