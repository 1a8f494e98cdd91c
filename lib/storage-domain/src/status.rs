//! VDSM's status of one connection: 0, or the code of what went wrong (`lib/vdsm/storage/exception.py`).

/// What a code means, and what to do about it.
pub fn explain(code: i64) -> &'static str {
    match code {
        100 => "VDSM failed inside: its log (/var/log/vdsm/vdsm.log) says why",
        450..=453 => {
            "the storage server was not reached, or refused: check its address, its exports and the network"
        }
        454 | 457..=460 | 465 => {
            "iSCSI could not be set up: see iscsid's log and the target's address and name"
        }
        456 => "the iSCSI sessions of this host cannot be listed: is iscsid running?",
        461..=463 => "the iSCSI user or password could not be set: see iscsid's log",
        464 => {
            "the iSCSI target refused the login: check portal, port and target name, and this host's initiator name \
                on the target"
        }
        469 => {
            "the storage's permissions are wrong: its directory must belong to vdsm:kvm (36:36), mode 0755"
        }
        470 | 471 => "the mount's type or path is not one that VDSM knows: check domainType and storage",
        473 => "the iSCSI interface is missing on this host: iscsiadm -m iface",
        474 => "the iSCSI session could not be ended: something still uses it",
        475 => "the iSCSI portal did not answer discovery: check its address, port and the network",
        476 => "the iSCSI target refused user or password",
        477 => {
            "it could not be mounted: check that the server exports it to this host, and the mount options"
        }
        _ => "see VDSM's log, /var/log/vdsm/vdsm.log",
    }
}
