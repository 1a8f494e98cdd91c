"""Paths and figures."""
import os

ROOT = os.environ.get("OVIRT_HA_ROOT") or "/"  # of a sandbox or a test

METADATA_PARSE_VERSION = METADATA_FEATURE_VERSION = 1
HOST_SEGMENT_BYTES = 4096
METADATA_BLOCK_BYTES = 512
VDSCLI_SSL_TIMEOUT = 900  # seconds

HOSTED_ENGINE_BINARY = os.path.join(ROOT, "usr/sbin/hosted-engine")
BROKER_SOCKET_FILE = os.path.join(ROOT, "run/ovirt-hosted-engine-ha/broker.socket")
ENGINE_SETUP_CONF_FILE = os.path.join(ROOT, "etc/ovirt-hosted-engine/hosted-engine.conf")
OVIRT_HOSTED_ENGINE_LB_DIR = os.path.join(ROOT, "var/lib/ovirt-hosted-engine-ha")
CACHED_ENGINE_SETUP_CONF_FILE = OVIRT_HOSTED_ENGINE_LB_DIR + "/hosted-engine.conf"
NOTIFY_CONF_FILE = OVIRT_HOSTED_ENGINE_LB_DIR + "/broker.conf"
HA_AGENT_CONF_FILE = OVIRT_HOSTED_ENGINE_LB_DIR + "/ha.conf"
LOCAL_VM_CONF_PATH = os.path.join(ROOT, "run/ovirt-hosted-engine-ha/vm.conf")
