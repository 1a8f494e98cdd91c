//! What the cluster's configuration says about its storage.

use ha_config::DomainType;
use ha_config::hosted_engine::normal_connection;

use crate::deploy::{FirstHost, StorageKind, VolumeIds};
use crate::setup::BLANK_UUID;

/// The word for it in hosted-engine.conf. Which NFS it is, `nfs_version` says there.
pub const fn domain_type(kind: StorageKind) -> DomainType {
    match kind {
        StorageKind::Nfs | StorageKind::Nfs3 | StorageKind::Nfs4 => DomainType::Nfs,
        StorageKind::Glusterfs => DomainType::Glusterfs,
        StorageKind::Iscsi => DomainType::Iscsi,
        StorageKind::Fc => DomainType::Fc,
        StorageKind::Directory => DomainType::Posixfs,
    }
}

/// The cluster's hosted-engine.conf, as it is kept on shared storage: each host adds its `host_id`, and of iSCSI the
/// password. `nfs_version` is what the server and this host agreed upon: `v3`, `v4_2`; else the kind of storage says it.
pub fn hosted_engine_conf(first: &FirstHost, nfs_version: Option<&str>) -> String {
    let FirstHost { storage, network, vm, engine, ids, .. } = first;
    let none = || "None".to_owned();
    let (tcp_address, tcp_port) = network
        .tcp_target
        .as_ref()
        .map_or_else(|| (none(), none()), |(host, port)| (host.clone(), port.to_string()));
    let image = |ids: VolumeIds| ids.image.to_string();
    let volume = |ids: VolumeIds| ids.volume.to_string();
    let mut values = vec![
        ("fqdn", engine.fqdn.clone()),
        ("vm_disk_id", image(ids.disk)),
        ("vm_disk_vol_id", volume(ids.disk)),
        ("vmid", ids.vm.to_string()),
        ("storage", connection(first)),
        ("mnt_options", storage.mount_options.clone()),
    ];
    let asked = match storage.kind {
        StorageKind::Nfs => Some("auto"),
        StorageKind::Nfs3 => Some("v3"),
        StorageKind::Nfs4 => Some("v4"),
        StorageKind::Glusterfs | StorageKind::Iscsi | StorageKind::Fc | StorageKind::Directory => None,
    };
    values.extend(asked.map(|asked| ("nfs_version", nfs_version.unwrap_or(asked).to_owned())));
    values.extend([
        ("conf", "/var/run/ovirt-hosted-engine-ha/vm.conf".to_owned()),
        ("host_id", none()),
        ("console", vm.console.clone()),
        ("domainType", domain_type(storage.kind).word().to_owned()),
        ("spUUID", BLANK_UUID.to_owned()),
        ("sdUUID", ids.sd.to_string()),
        ("connectionUUID", ids.connection.to_string()),
        ("vdsm_use_ssl", "true".to_owned()),
        ("gateway", network.gateway.map_or_else(none, |gateway| gateway.to_string())),
        ("bridge", network.bridge.clone()),
        ("network_test", network.test.clone()),
        ("tcp_t_address", tcp_address),
        ("tcp_t_port", tcp_port),
        ("metadata_volume_UUID", volume(ids.metadata)),
        ("metadata_image_UUID", image(ids.metadata)),
        ("lockspace_volume_UUID", volume(ids.lockspace)),
        ("lockspace_image_UUID", image(ids.lockspace)),
        ("conf_volume_UUID", volume(ids.configuration)),
        ("conf_image_UUID", image(ids.configuration)),
    ]);
    if let Some(target) = &storage.iscsi {
        let ports: Vec<String> = target.ports.iter().map(u16::to_string).collect();
        values.extend([
            ("iqn", target.target.clone()),
            // The key has been named so since 2013; it is the portal group.
            ("portal", target.tpgt.to_string()),
            ("user", target.user.clone().unwrap_or_default()),
            ("port", ports.join(",")),
        ]);
    }
    values.iter().flat_map(|(key, value)| [*key, "=", value.as_str(), "\n"]).collect()
}

/// The answers that made the cluster, in the form of an answer file.
pub fn answers(first: &FirstHost) -> String {
    let FirstHost { storage, network, vm, engine, ids, .. } = first;
    let lines = [
        ("STORAGE/domainType", "str", domain_type(storage.kind).word().to_owned()),
        ("STORAGE/storageDomainConnection", "str", connection(first)),
        ("STORAGE/storageDomainName", "str", first.domain_name.clone()),
        ("STORAGE/storageDatacenterName", "str", first.datacenter.clone()),
        ("STORAGE/sdUUID", "str", ids.sd.to_string()),
        ("NETWORK/fqdn", "str", engine.fqdn.clone()),
        ("NETWORK/bridgeName", "str", network.bridge.clone()),
        ("VM/vmMemSizeMB", "int", vm.memory_mb.to_string()),
        ("VM/vmVCpus", "str", vm.vcpus.to_string()),
        ("VM/vmMACAddr", "str", vm.mac.clone()),
    ];
    let mut text = "[environment:default]\n".to_owned();
    for (key, kind, value) in lines {
        text.extend(["OVEHOSTED_", key, "=", kind, ":", value.as_str(), "\n"]);
    }
    text
}

fn connection(first: &FirstHost) -> String {
    if domain_type(first.storage.kind).is_block() {
        return first.storage.connection.clone();
    }
    normal_connection(&first.storage.connection)
}

#[cfg(test)]
mod tests {
    use ha_config::{HostedEngineConf, NetworkTest, Paths};

    use super::*;
    use crate::deploy::Iscsi;
    use crate::deploy::storage::testing::first_host;

    fn parsed(first: &FirstHost, version: Option<&str>) -> HostedEngineConf {
        HostedEngineConf::parse(&Paths::default(), &hosted_engine_conf(first, version))
    }

    #[test]
    fn each_kind_of_storage_reads_back() {
        for (kind, connection, version, expected, mounted) in [
            (StorageKind::Nfs, "a:/he//x/", Some("v4_2"), DomainType::Nfs, "a:_he_x"),
            (StorageKind::Nfs3, "[fd00::1]:/he_1", Some("v3"), DomainType::Nfs, "[fd00::1]:_he__1"),
            (StorageKind::Glusterfs, "a:/he", None, DomainType::Glusterfs, "glusterSD/a:_he"),
            (StorageKind::Directory, "/srv/he", None, DomainType::Posixfs, "_srv_he"),
        ] {
            let mut first = first_host(kind, connection);
            first.storage.mount_options = "noatime".to_owned();
            let conf = parsed(&first, version);
            assert_eq!(conf.domain_type().unwrap(), expected);
            assert_eq!((conf.nfs_version(), conf.mnt_options()), (version, Some("noatime")));
            let mounts = Paths::default().storage_mounts();
            assert_eq!(conf.mount_dir().unwrap(), mounts.join(mounted));
            assert_eq!(conf.sd_uuid().unwrap(), first.ids.sd.to_string());
            assert_eq!(conf.vm_disk_vol_id().unwrap(), first.ids.disk.volume.to_string());
            assert_eq!(conf.host_id().unwrap(), None);
        }
    }

    #[test]
    fn a_target_has_its_keys_and_no_password() {
        let mut first = first_host(StorageKind::Iscsi, "192.0.2.1,192.0.2.2");
        first.storage.iscsi = Some(Iscsi {
            target: "iqn.2014-07.org.example:he".to_owned(),
            tpgt: 1,
            ports: vec![3260, 3261],
            user: Some("he".to_owned()),
            discovery_user: None,
        });
        let conf = parsed(&first, None);
        assert_eq!(conf.storage().unwrap(), "192.0.2.1,192.0.2.2");
        assert_eq!((conf.iqn(), conf.portal()), (Some("iqn.2014-07.org.example:he"), Some("1")));
        assert_eq!(conf.file().get("port"), Some("3260,3261"));
        assert_eq!((conf.iscsi_user(), conf.iscsi_password()), (Some("he"), None));
    }

    #[test]
    fn the_network_test_reads_back() {
        let mut first = first_host(StorageKind::Nfs, "a:/b");
        first.network.test = "tcp".to_owned();
        first.network.tcp_target = Some(("gw".to_owned(), 22));
        let expected = NetworkTest::Tcp { address: "gw".to_owned(), port: 22 };
        assert_eq!(parsed(&first, None).network_test().unwrap(), expected);
    }
}
