"""Figures of the agent that set-up reads."""
from ..env.constants import ENGINE_SETUP_CONF_FILE, HOSTED_ENGINE_BINARY, METADATA_BLOCK_BYTES, \
    METADATA_FEATURE_VERSION, METADATA_PARSE_VERSION

PACKAGE_NAME = "ovirt-hosted-engine-ha"
# The release that this package stands for. Set-up writes it into the configuration archive, as its version.
PACKAGE_VERSION = "2.5.2"
HOST_ALIVE_TIMEOUT_SECS = 60
VDSM_USER, VDSM_GROUP = "vdsm", "kvm"
