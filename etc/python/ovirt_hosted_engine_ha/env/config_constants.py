"""Types of configuration files, and their keys that other packages read."""
ENGINE, HE_CONF, BROKER, HA, VM = "he_local", "he_shared", "broker", "ha", "vm"

CONFIGURED, ENGINE_FQDN, HEVMID, HOST_ID = "configured", "fqdn", "vmid", "host_id"
DOMAIN_TYPE, SD_UUID, SP_UUID, STORAGE = "domainType", "sdUUID", "spUUID", "storage"
BRIDGE_NAME, GATEWAY_ADDR, NETWORK_TEST, VDSM_SSL = "bridge", "gateway", "network_test", "vdsm_use_ssl"
VM_UUID, MEM_SIZE = "vmId", "memSize"
LOCAL_MAINTENANCE, LOCAL_MAINTENANCE_MANUAL = "local_maintenance", "local_maintenance_manual"

ENGINE_OPTIONAL_KEYS = ["iscsi_paths_blacklist", NETWORK_TEST, "tcp_t_address", "tcp_t_port"]
