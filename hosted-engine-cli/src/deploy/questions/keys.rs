//! The keys of the questions. Those that the existing tool has are its own.

/// Kind of storage.
pub const DOMAIN_TYPE: &str = "OVEHOSTED_STORAGE/domainType";
/// `server:/path` or a directory.
pub const CONNECTION: &str = "OVEHOSTED_STORAGE/storageDomainConnection";
/// Options of the mount.
pub const MOUNT_OPTIONS: &str = "OVEHOSTED_STORAGE/mntOptions";
/// iSCSI portals' addresses.
pub const PORTALS: &str = "OVEHOSTED_STORAGE/iSCSIPortalIPAddress";
/// iSCSI portals' ports.
pub const PORTS: &str = "OVEHOSTED_STORAGE/iSCSIPortalPort";
/// CHAP user for discovery.
pub const DISCOVERY_USER: &str = "OVEHOSTED_STORAGE/iSCSIDiscoverUser";
/// Its password.
pub const DISCOVERY_PASSWORD: &str = "OVEHOSTED_STORAGE/iSCSIDiscoverPassword";
/// iSCSI target.
pub const TARGET: &str = "OVEHOSTED_STORAGE/iSCSITargetName";
/// Its target portal group tag.
pub const TPGT: &str = "OVEHOSTED_STORAGE/iSCSIPortal";
/// CHAP user of the target.
pub const ISCSI_USER: &str = "OVEHOSTED_STORAGE/iSCSIPortalUser";
/// Its password.
pub const ISCSI_PASSWORD: &str = "OVEHOSTED_STORAGE/iSCSIPortalPassword";
/// Device of block storage.
pub const LUN: &str = "OVEHOSTED_STORAGE/LunID";
/// Whether to join what is on the storage.
pub const JOIN: &str = "OVEHOSTED_CORE/isAdditionalHost";
/// The storage domain to join.
pub const STORAGE_DOMAIN: &str = "OVEHOSTED_STORAGE/sdUUID";
/// Name of the storage domain.
pub const DOMAIN_NAME: &str = "OVEHOSTED_STORAGE/storageDomainName";
/// Name of the data centre.
pub const DATACENTER: &str = "OVEHOSTED_STORAGE/storageDatacenterName";

/// IPv4 only.
pub const FORCE_IPV4: &str = "OVEHOSTED_NETWORK/forceIPv4";
/// IPv6 only.
pub const FORCE_IPV6: &str = "OVEHOSTED_NETWORK/forceIPv6";
/// Management bridge.
pub const BRIDGE: &str = "OVEHOSTED_NETWORK/bridgeName";
/// Network card of a bridge that is made.
pub const NIC: &str = "OVEHOSTED_NETWORK/bridgeIf";
/// How the network is tested.
pub const NETWORK_TEST: &str = "OVEHOSTED_NETWORK/network_test";
/// Gateway.
pub const GATEWAY: &str = "OVEHOSTED_NETWORK/gateway";
/// Host of the test `tcp`.
pub const TCP_ADDRESS: &str = "OVEHOSTED_NETWORK/network_test_tcp_address";
/// Port of the test `tcp`.
pub const TCP_PORT: &str = "OVEHOSTED_NETWORK/network_test_tcp_port";
/// Whether to open the firewall. Ours.
pub const OPEN_FIREWALL: &str = "OVEHOSTED_NETWORK/openFirewall";

/// File with ha.toml. Ours.
pub const HA_TOML: &str = "OVEHOSTED_CORE/haToml";
/// What runs the VM. Ours.
pub const HYPERVISOR: &str = "OVEHOSTED_VM/hypervisor";
/// What the VM boots from at first.
pub const BOOT: &str = "OVEHOSTED_VM/vmBoot";
/// Installation media.
pub const CDROM: &str = "OVEHOSTED_VM/vmCDRom";
/// Kernel of a VM without a boot loader. Ours.
pub const KERNEL: &str = "OVEHOSTED_VM/kernel";
/// Its initial RAM disk. Ours.
pub const INITRD: &str = "OVEHOSTED_VM/initrd";
/// Its command line. Ours.
pub const KERNEL_ARGS: &str = "OVEHOSTED_VM/kernelArgs";
/// Disk image or appliance.
pub const IMAGE: &str = "OVEHOSTED_VM/ovfArchive";
/// Processors.
pub const VCPUS: &str = "OVEHOSTED_VM/vmVCpus";
/// Size of the disk.
pub const DISK_GIB: &str = "OVEHOSTED_STORAGE/imgSizeGB";
/// Memory.
pub const MEMORY_MB: &str = "OVEHOSTED_VM/vmMemSizeMB";
/// MAC address.
pub const MAC: &str = "OVEHOSTED_VM/vmMACAddr";
/// Console.
pub const CONSOLE: &str = "OVEHOSTED_VDSM/consoleType";
/// Machine type.
pub const MACHINE: &str = "OVEHOSTED_VM/emulatedMachine";
/// CPU model.
pub const CPU: &str = "OVEHOSTED_VDSM/cpu";
/// Whether a seed for cloud-init is made.
pub const CLOUD_INIT: &str = "OVEHOSTED_VM/cloudInitISO";
/// Host name of the VM.
pub const VM_HOSTNAME: &str = "OVEHOSTED_VM/cloudinitInstanceHostName";
/// Root's password in the VM.
pub const ROOT_PASSWORD: &str = "OVEHOSTED_VM/cloudinitRootPwd";
/// Root's SSH keys in the VM.
pub const SSH_KEYS: &str = "OVEHOSTED_VM/rootSshPubkey";
/// Static address of the VM.
pub const VM_ADDRESS: &str = "OVEHOSTED_VM/cloudinitVMStaticCIDR";
/// Its gateway. Ours.
pub const VM_GATEWAY: &str = "OVEHOSTED_VM/cloudinitVMGateway";
/// Its name servers.
pub const VM_DNS: &str = "OVEHOSTED_VM/cloudinitVMDNS";
/// Its time zone.
pub const TIME_ZONE: &str = "OVEHOSTED_VM/cloudinitVMTZ";

/// The engine's name.
pub const FQDN: &str = "OVEHOSTED_NETWORK/fqdn";
/// Password of `admin`.
pub const ADMIN_PASSWORD: &str = "OVEHOSTED_ENGINE/adminPassword";
/// This host's name in the engine.
pub const APP_HOST_NAME: &str = "OVEHOSTED_ENGINE/appHostName";
/// This host's number.
pub const HOST_ID: &str = "OVEHOSTED_STORAGE/hostID";
/// This host's name.
pub const HOST_NAME: &str = "OVEHOSTED_NETWORK/host_name";

/// The preview is confirmed. Not a question of the table: it is asked at the end.
pub const CONFIRM: &str = "OVEHOSTED_CORE/confirmSettings";
/// Deploying outside screen and tmux is confirmed. Not a question of the dialogue.
pub const SCREEN_PROCEED: &str = "OVEHOSTED_CORE/screenProceed";
/// What an operator confirms each time: an answer file may say it, and none that is written does.
pub const CONFIRMATIONS: [&str; 2] = [CONFIRM, SCREEN_PROCEED];
