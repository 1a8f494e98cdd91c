//! The cluster's configuration, as it is on its new storage.

use ha_config::hosted_engine::VM_LEASE_OFFSET;
use ha_config::{HostedEngineConf, KeyValueFile, VmConf};

use crate::deploy::DeployError;
use crate::setup::ClusterConf;

/// The keys of hosted-engine.conf that tell of storage.
const KEYS: [&str; 21] = [
    "vm_disk_id",
    "vm_disk_vol_id",
    "storage",
    "mnt_options",
    "nfs_version",
    "domainType",
    "spUUID",
    "sdUUID",
    "connectionUUID",
    "metadata_volume_UUID",
    "metadata_image_UUID",
    "lockspace_volume_UUID",
    "lockspace_image_UUID",
    "conf_volume_UUID",
    "conf_image_UUID",
    "iqn",
    "portal",
    "user",
    "password",
    "port",
    VM_LEASE_OFFSET,
];

/// hosted-engine.conf with the storage of another; everything else in it stays.
pub(super) fn with_storage_of(text: &str, other: &str) -> String {
    let (mut file, other) = (KeyValueFile::parse("", text), KeyValueFile::parse("", other));
    for key in KEYS {
        match other.get(key) {
            Some(value) => file.set(key, value),
            None => file.unset(key),
        }
    }
    // Paths of the former storage.
    file.unset("iscsi_paths_blacklist");
    file.text()
}

/// What is known of the storage on a host whose file has a password, for where no password may be.
pub(super) fn without_password(conf: &HostedEngineConf) -> String {
    let mut file = conf.file().clone();
    file.unset("password");
    file.text()
}

/// The whole configuration with the storage of `hosted_engine_conf`. The VM keeps its description but for the domain of its
/// disk.
///
/// # Errors
/// What in the description is bound to the former storage.
pub(super) fn moved(mut cluster: ClusterConf, hosted_engine_conf: &str) -> Result<ClusterConf, DeployError> {
    let sd = |text: &str| KeyValueFile::parse("", text).get("sdUUID").unwrap_or_default().to_owned();
    let (from, to) = (sd(&cluster.hosted_engine_conf), sd(hosted_engine_conf));
    check_vm(&cluster.vm_conf)?;
    cluster.hosted_engine_conf = with_storage_of(&cluster.hosted_engine_conf, hosted_engine_conf);
    if !from.is_empty() {
        cluster.vm_conf = cluster.vm_conf.replace(&from, &to);
        cluster.answers = cluster.answers.replace(&from, &to);
    }
    let new = KeyValueFile::parse("", hosted_engine_conf);
    for (answer, key) in
        [("STORAGE/domainType", "domainType"), ("STORAGE/storageDomainConnection", "storage")]
    {
        let begin = format!("OVEHOSTED_{answer}=");
        let line = format!("{begin}str:{}", new.get(key).unwrap_or_default());
        let lines = cluster.answers.lines().map(|old| if old.starts_with(&begin) { &line } else { old });
        cluster.answers = lines.flat_map(|line| [line, "\n"]).collect();
    }
    Ok(cluster)
}

/// Refuses a VM whose description or disk cannot simply be taken along.
///
/// # Errors
/// Why.
pub(super) fn check_vm(text: &str) -> Result<(), DeployError> {
    let conf = VmConf::parse("vm.conf", text)?;
    if text.lines().any(|line| line.trim_start().starts_with("xmlBase64=")) {
        return Err(DeployError::Refused(
            "vm.conf on shared storage has the VM's whole description in xmlBase64, with paths of the storage in it: \
             only who wrote it (the engine, VDSM) can write it for other storage"
                .to_owned(),
        ));
    }
    let disks = conf.devices().filter(|device| device.kind() == Some("disk"));
    let format = disks.filter_map(|device| device.text("format")).find(|format| *format != "raw");
    format.map_or(Ok(()), |format| {
        Err(DeployError::Refused(format!("the VM's disk is {format}, and only a raw one can be copied")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hosts_own_settings_stay_and_all_of_the_storage_changes() {
        let own = "# mine\nfqdn=e\nhost_id=2\nstorage=a:/x\nnfs_version=v4_2\nsdUUID=old\npassword=p\ngateway=10.0.0.1\n\
                   iscsi_paths_blacklist=x\n";
        let other =
            "fqdn=other\nhost_id=None\nstorage=/srv/new\ndomainType=posixfs\nsdUUID=new\ngateway=192.0.2.1\n";
        let changed = with_storage_of(own, other);
        let file = KeyValueFile::parse("", &changed);
        for (key, value) in [
            ("fqdn", Some("e")),
            ("host_id", Some("2")),
            ("gateway", Some("10.0.0.1")),
            ("storage", Some("/srv/new")),
            ("sdUUID", Some("new")),
            ("domainType", Some("posixfs")),
            ("nfs_version", None),
            ("password", None),
            ("iscsi_paths_blacklist", None),
        ] {
            assert_eq!(file.get(key), value, "{key} in {changed}");
        }
        assert!(changed.starts_with("# mine\n"));
    }

    #[test]
    fn the_vm_keeps_its_description_but_for_the_domain() {
        let cluster = ClusterConf {
            hosted_engine_conf: "sdUUID=old-sd\nstorage=/a\n".to_owned(),
            vm_conf: "vmId=1\ndevices={device:disk,type:disk,format:raw,domainID:old-sd,volumeID:v}\n".to_owned(),
            broker_conf: "b".to_owned(),
            ha_toml: "h".to_owned(),
            answers: "[environment:default]\nOVEHOSTED_STORAGE/sdUUID=str:old-sd\nOVEHOSTED_STORAGE/domainType=str:nfs\n"
                .to_owned(),
        };
        let new = "sdUUID=new-sd\nstorage=/b\ndomainType=posixfs\n";
        let moved = moved(cluster.clone(), new).unwrap();
        assert!(moved.vm_conf.contains("domainID:new-sd,volumeID:v"), "{}", moved.vm_conf);
        assert!(moved.answers.contains("sdUUID=str:new-sd\n"), "{}", moved.answers);
        assert!(moved.answers.contains("domainType=str:posixfs\n"), "{}", moved.answers);
        assert_eq!((moved.broker_conf, moved.ha_toml), (cluster.broker_conf, cluster.ha_toml));
    }

    #[test]
    fn a_vm_that_is_bound_to_its_storage_is_refused() {
        let error = check_vm("vmId=1\nxmlBase64=PGRvbWFpbj4=\n").unwrap_err().to_string();
        assert!(error.contains("xmlBase64"), "{error}");
        let error = check_vm("vmId=1\ndevices={device:disk,type:disk,format:cow}\n").unwrap_err().to_string();
        assert!(error.contains("is cow"), "{error}");
    }
}
