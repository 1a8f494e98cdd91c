"""What VDSM and the set-up tools ask about the hosted engine, and tell it."""
import logging
import os
import re
import subprocess

from ..env import config, config_constants, constants
from ..lib import brokerlink, metadata, util
from ..lib.exceptions import MetadataError


class HAClient(object):
    class StatModes(object):
        ALL, HOST, GLOBAL = "ALL", "HOST", "GLOBAL"

    class GlobalMdFlags(object):
        MAINTENANCE = "maintenance"

    class MaintenanceMode(object):
        LOCAL, GLOBAL, LOCAL_MANUAL = "LOCAL", "GLOBAL", "LOCAL_MANUAL"

    def __init__(self, log=False, **kwargs):
        self._log = logging.getLogger("{0}.HAClient".format(__name__))
        self._config = config.Config()

    def get_all_stats(self, mode=StatModes.ALL, timeout=None):
        """{host id: {key: value}}; the cluster's flags are under 0. A block that cannot be read has no row."""
        broker = brokerlink.BrokerLink(timeout=timeout)
        rows = self._parse(broker.get_stats_from_storage(), mode)
        live = broker.get_live_hosts() if any(rows) else []
        for host_id in filter(None, rows):
            rows[host_id]["live-data"] = host_id in live
        return rows

    def _parse(self, blocks, mode):
        rows = {}
        for host_id, block in sorted(blocks.items()):
            try:
                if host_id == 0 and mode != self.StatModes.HOST:
                    rows[0] = metadata.parse_global_metadata_to_dict(self._log, block)
                elif host_id != 0 and mode != self.StatModes.GLOBAL:
                    rows[host_id] = metadata.parse_metadata_to_dict(host_id, block)
            except (MetadataError, ValueError) as error:
                self._log.error(str(error))
        return rows

    def get_all_host_stats(self, timeout=None):
        return self.get_all_stats(self.StatModes.HOST, timeout)

    def get_local_host_id(self):
        host_id = self._config.get(config.ENGINE, config_constants.HOST_ID)
        return int(host_id) if host_id else None

    def get_local_host_score(self, timeout=None):
        """0 when this host's row is missing or old."""
        row = self.get_all_host_stats(timeout).get(self.get_local_host_id(), {})
        return row["score"] if row.get("live-data") else 0

    def set_global_md_flag(self, flag, value, timeout=None):
        """Returns once the flag was read back from shared storage; the broker keeps all other lines of the block."""
        if flag != self.GlobalMdFlags.MAINTENANCE:
            raise Exception("Unknown metadata flag: {0}".format(flag))
        line = "{0}={1:d}".format(flag, util.to_bool(value)).encode()
        brokerlink.BrokerLink(timeout=timeout).put_stats_on_storage(0, line.ljust(constants.HOST_SEGMENT_BYTES, b"\0"))

    def set_maintenance_mode(self, mode, value, timeout=None):
        if mode == self.MaintenanceMode.GLOBAL:
            return self.set_global_md_flag(self.GlobalMdFlags.MAINTENANCE, str(value), timeout)
        if mode not in (self.MaintenanceMode.LOCAL, self.MaintenanceMode.LOCAL_MANUAL):
            raise Exception("Invalid maintenance mode: {0}".format(mode))
        flag = str(util.to_bool(value))
        if mode == self.MaintenanceMode.LOCAL_MANUAL:
            self._config.set(config.HA, config_constants.LOCAL_MAINTENANCE_MANUAL, flag)
        self._config.set(config.HA, config_constants.LOCAL_MAINTENANCE, flag)

    def reset_lockspace(self, force=False, timeout=None):
        configured = self._config.get(config.ENGINE, config_constants.CONFIGURED)
        if not self.get_local_host_id() or configured not in (None, "True"):
            self._log.error("Hosted engine is not configured.")
            return
        rows = {} if force else self.get_all_stats(timeout=timeout)
        if not rows.pop(0, {"maintenance": True}).get("maintenance", False):
            raise Exception("Lockfile reset can be performed in global maintenance mode only.")
        if not all(row.get("stopped", False) for row in rows.values()):
            raise Exception("Lockfile reset cannot be performed with an active agent.")
        brokerlink.BrokerLink(timeout=timeout).reset_lockspace()

    def get_all_config_keys(self, config_type=None):
        return self._config.all_keys(config_type)

    def get_shared_config(self, key, config_type=None):
        """[value, type of the file that it is in]"""
        text = self._shared_config(["--get-shared-config", key, "--show-secret"], key, config_type)
        return list(re.search("^{0} : (.*), type : ([a-z_]+)$".format(re.escape(key)), text, re.M).groups())

    def set_shared_config(self, key, value, config_type=None):
        # By standard input: everybody can read a command line.
        self._shared_config(["--set-shared-config", key, "-"], key, config_type, str(value))

    def _shared_config(self, arguments, key, config_type, given=""):
        try:
            return self._run(arguments + (["--type=" + config_type] if config_type else []), given=given)
        except Exception as error:
            if "Invalid configuration key" in str(error):
                raise KeyError("Configuration key not found: key={0}".format(key))
            raise

    def connect_storage_server(self, timeout=constants.VDSCLI_SSL_TIMEOUT):
        self._run(["--connect-storage"], timeout)

    def disconnect_storage_server(self, timeout=constants.VDSCLI_SSL_TIMEOUT):
        self._run(["--disconnect-storage"], timeout)

    def is_deployed(self):
        return config.Config.static_files_exist()

    def _run(self, arguments, timeout=None, given=""):
        """hosted-engine does what needs VDSM or shared storage. The Python release's command would ask us back."""
        if os.environ.get("OVIRT_HA_ASKED"):
            raise Exception(constants.HOSTED_ENGINE_BINARY + " is that of the Python release; install ours")
        done = subprocess.run([constants.HOSTED_ENGINE_BINARY] + arguments, input=given, timeout=timeout,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True,
                              env=dict(os.environ, OVIRT_HA_ASKED="1"))
        if done.returncode != 0:
            raise Exception((done.stderr or done.stdout).strip() or "{0} failed".format(arguments[0]))
        return done.stdout
