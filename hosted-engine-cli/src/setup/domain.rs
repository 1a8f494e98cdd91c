//! A storage domain's own description.

use ha_config::DomainType;
use uuid::Uuid;

use super::leases::grid_for;

/// The storage domain's own description, with VDSM's keys. VDSM's checksum over it is left out: a domain made here is
/// not in any engine's database, and an engine that imports it has it written anew.
pub(crate) fn domain_metadata(
    kind: DomainType,
    name: &str,
    connection: &str,
    sd_uuid: Uuid,
    sector: u32,
) -> String {
    let kind = match kind {
        DomainType::Nfs | DomainType::Nfs3 | DomainType::Nfs4 => "NFS",
        DomainType::Glusterfs => "GLUSTERFS",
        DomainType::Posixfs => "POSIXFS",
        DomainType::Iscsi => "ISCSI",
        DomainType::Fc => "FCP",
    };
    format!(
        "ALIGNMENT={}\nBLOCK_SIZE={sector}\nCLASS=Data\nDESCRIPTION={name}\nMASTER_VERSION=0\nPOOL_UUID=\n\
         REMOTE_PATH={connection}\nROLE=Regular\nSDUUID={sd_uuid}\nTYPE={kind}\nVERSION=5\n",
        grid_for(sector).align_bytes(),
    )
}
