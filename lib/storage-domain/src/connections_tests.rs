use ha_config::Paths;
use serde_json::json;

use super::*;

fn list(text: &str, form: PathForm, interfaces: &[Interface]) -> Result<Connections, ConfigError> {
    let conf = HostedEngineConf::parse(&Paths::new("/r"), text);
    let mut count = 0;
    let mut new_id = || {
        count += 1;
        format!("id-{count}")
    };
    Connections::of_host(&conf, form, interfaces, &mut new_id)
}

fn sent(text: &str) -> (u8, Value) {
    let connections = list(text, PathForm::Normal, &[]).unwrap();
    (connections.domain_type, Value::from(connections.reveal()))
}

const FILES: &str = "storage=a.example:/exports//he/\nconnectionUUID=c-1\n";

/// What the existing release sends, for the same hosted-engine.conf.
#[test]
fn file_storage() {
    let nfs = |version: &str| json!([{"connection": "a.example:/exports/he", "user": "kvm", "id": "c-1", "protocol_version": version}]);
    assert_eq!(sent(&format!("domainType=nfs\n{FILES}")), (1, nfs("auto")));
    assert_eq!(sent(&format!("domainType=nfs\nnfs_version=v4_1\n{FILES}")), (1, nfs("4.1")));
    assert_eq!(sent(&format!("domainType=nfs\nnfs_version=auto\n{FILES}")), (1, nfs("auto")));
    assert_eq!(sent(&format!("domainType=nfs3\nnfs_version=v4\n{FILES}")), (1, nfs("3")));
    assert_eq!(sent(&format!("domainType=nfs4\n{FILES}")), (1, nfs("4")));
    let with_options = format!("domainType=glusterfs\nmnt_options=backup-volfile-servers=b:c\n{FILES}");
    assert_eq!(
        sent(&with_options),
        (
            7,
            json!([{"connection": "a.example:/exports/he", "user": "kvm", "id": "c-1", "vfs_type": "glusterfs",
                "mnt_options": "backup-volfile-servers=b:c"}])
        )
    );
    assert_eq!(
        sent(&format!("domainType=posixfs\nvfs_type=ceph\nmnt_options=None\n{FILES}")),
        (6, json!([{"connection": "a.example:/exports/he", "user": "kvm", "id": "c-1", "vfs_type": "ceph"}]))
    );
}

#[test]
fn disconnecting_names_the_path_as_it_was_connected() {
    let connections = list(&format!("domainType=nfs\n{FILES}"), PathForm::AsWritten, &[]).unwrap();
    assert_eq!(connections.reveal()[0]["connection"], "a.example:/exports//he/");
}

#[test]
fn fibre_channel_has_nothing_to_connect() {
    assert_eq!(sent("domainType=fc\n"), (2, json!([])));
}

const ISCSI: &str = "domainType=iscsi\nstorage=10.0.0.1,10.0.0.2\nport=3260,3261\niqn=iqn.x\nportal=1\n\
                     user=joe\npassword=hunter2\n";

#[test]
fn one_target_behind_several_portals() {
    let path = |address: &str, port: &str, id: &str| {
        json!({"connection": address, "iqn": "iqn.x", "tpgt": "1", "user": "joe", "password": "hunter2", "id": id,
            "port": port})
    };
    let both = json!([path("10.0.0.1", "3260", "id-1"), path("10.0.0.2", "3261", "id-2")]);
    assert_eq!(sent(ISCSI), (3, both));
    let bare = "domainType=iscsi\nstorage=10.0.0.1\nport=3260\niqn=iqn.x\nportal=1\nuser=\n";
    assert_eq!(
        sent(bare),
        (
            3,
            json!([{"connection": "10.0.0.1", "iqn": "iqn.x", "tpgt": "1", "user": "", "password": null,
                "id": "id-1", "port": "3260"}])
        )
    );
}

#[test]
fn several_targets_take_their_parts_from_every_list() {
    let text = "domainType=iscsi\nstorage=10.0.0.1,10.0.0.2\nport=3260,3261\niqn=iqn.x,iqn.y\nportal=1,2\n\
                user=joe,ann\npassword=hunter2,hunter3\nmnt_options=x\n";
    let both = json!([
        {"connection": "10.0.0.1", "iqn": "iqn.x", "tpgt": "1", "user": "joe", "password": "hunter2", "id": "id-1",
            "port": "3260", "mnt_options": "x"},
        {"connection": "10.0.0.2", "iqn": "iqn.y", "tpgt": "2", "user": "ann", "password": "hunter3", "id": "id-2",
            "port": "3261"}
    ]);
    assert_eq!(sent(text), (3, both));
}

#[test]
fn every_interface_has_its_paths_but_the_blacklisted() {
    let interfaces =
        ["eth1", "eth2"].map(|name| Interface { name: name.to_owned(), net: format!("{name}.5") });
    let text = format!("{ISCSI}iscsi_paths_blacklist=eth1<>10.0.0.2,eth2<>10.0.0.1\n");
    let connections = list(&text, PathForm::Normal, &interfaces).unwrap();
    let path = |address: &str, port: &str, id: &str, name: &str| {
        json!({"connection": address, "iqn": "iqn.x", "tpgt": "1", "user": "joe", "password": "hunter2", "id": id,
            "port": port, "netIfaceName": format!("{name}.5"), "ifaceName": name})
    };
    assert_eq!(
        Value::from(connections.reveal()),
        json!([path("10.0.0.1", "3260", "id-1", "eth1"), path("10.0.0.2", "3261", "id-2", "eth2")])
    );
    assert_eq!(connections.list[1].label, "10.0.0.2:3261 iqn.x on eth2");
    assert_eq!(connections.list[1].path.as_deref(), Some("eth2<>10.0.0.2"));
    let error = list(&format!("{ISCSI}iscsi_paths_blacklist=eth1\n"), PathForm::Normal, &interfaces);
    assert!(error.unwrap_err().to_string().contains("iscsi_paths_blacklist=\"eth1\""));
}

#[test]
fn passwords_do_not_show() {
    let connections = list(ISCSI, PathForm::Normal, &[]).unwrap();
    assert!(!format!("{connections:?}").contains("hunter2"));
    assert_eq!(connections.redact("login hunter2 refused"), "login ******** refused");
}

#[test]
fn missing_keys_are_named() {
    for (text, key) in [
        ("domainType=nfs\nconnectionUUID=c\n", "storage"),
        ("domainType=nfs\nstorage=a:/b\n", "connectionUUID"),
        ("domainType=posixfs\nstorage=a:/b\nconnectionUUID=c\n", "vfs_type"),
        ("domainType=iscsi\nstorage=10.0.0.1\nport=3260\n", "iqn"),
        ("domainType=iscsi\nstorage=10.0.0.1\niqn=iqn.x\n", "port"),
    ] {
        let error = list(text, PathForm::Normal, &[]).unwrap_err().to_string();
        assert!(error.contains(&format!("the key {key} is missing")), "{error}");
    }
}
