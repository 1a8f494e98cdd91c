//! The dialogue about block storage.

use ha_config::Secret;

use super::testing::{Script, StandIn, cluster, ip};
use super::tests::{NFS, first, further, with_file};
use super::*;
use crate::deploy::StorageKind;
use crate::deploy::questions::{Device, Target};

#[test]
fn iscsi_targets_and_devices_are_offered() {
    let mut host = StandIn::new();
    let target = |name: &str, tpgt| Target {
        name: name.to_owned(),
        tpgt,
        portals: vec![("10.0.0.1".to_owned(), 3260), ("10.0.0.2".to_owned(), 3260)],
    };
    let device = |id: &str| Device { id: id.to_owned(), bytes: 100 << 30, about: "LIO disk".to_owned() };
    host.targets = vec![target("iqn.2026-01.com.example:a", 1), target("iqn.2026-01.com.example:b", 4)];
    host.devices = vec![device("36001405aaaa"), device("36001405bbbb")];
    let mut script = Script::new(&[
        ("storage you would like", "iscsi"),
        ("portal IP", "10.0.0.1, 10.0.0.2"),
        ("portal login user", "he"),
        ("portal login password", "chap"),
        ("Confirm", "chap"),
        ("target name", "2"),
        ("LUN", "36001405bbbb"),
        NFS[1],
        NFS[2],
    ]);
    let (asked, _) = host.ask(&DeployArgs::default(), &mut script);
    script.assert_over();
    let asked = asked.unwrap();
    assert_eq!(asked.secrets.iscsi, Some(Secret::new("chap")));
    let storage = first(asked).storage;
    assert_eq!((storage.kind, storage.connection.as_str()), (StorageKind::Iscsi, "10.0.0.1,10.0.0.2"));
    let iscsi = storage.iscsi.unwrap();
    assert_eq!((iscsi.target.as_str(), iscsi.tpgt), ("iqn.2026-01.com.example:b", 4));
    assert_eq!((iscsi.ports, iscsi.user.as_deref()), (vec![3260, 3260], Some("he")));
    assert_eq!(storage.lun, Some(Lun { id: "36001405bbbb".to_owned(), bytes: 100 << 30 }));
    let shown = "[2] 36001405bbbb  100 GiB  LIO disk".to_owned();
    assert!(script.screen.contains(&shown), "{:#?}", script.screen);
    assert_eq!(
        *host.looks.lock().unwrap(),
        ["targets 10.0.0.1,10.0.0.2", "devices 10.0.0.1,10.0.0.2", "clusters 10.0.0.1,10.0.0.2"]
    );
}

/// What a host on iSCSI is told by an answer file.
const ISCSI: &str = "OVEHOSTED_STORAGE/domainType=str:iscsi\n\
    OVEHOSTED_STORAGE/iSCSIPortalIPAddress=str:san.example.com,10.0.0.2\n\
    OVEHOSTED_STORAGE/iSCSIDiscoverUser=str:finder\nOVEHOSTED_STORAGE/iSCSIDiscoverPassword=str:look\n\
    OVEHOSTED_STORAGE/iSCSIPortalUser=str:he\nOVEHOSTED_STORAGE/iSCSIPortalPassword=str:chap\n";
const NAMED: &str = "OVEHOSTED_STORAGE/iSCSITargetName=str:iqn.2026-01.com.example:b\n\
    OVEHOSTED_STORAGE/iSCSIPortal=str:4\nOVEHOSTED_STORAGE/LunID=str:36001405aaaa\n";

fn san() -> StandIn {
    let mut host = StandIn::new();
    host.names.insert("san.example.com", vec![ip("10.0.0.1"), ip("fd00::1")]);
    let name = "iqn.2026-01.com.example:b".to_owned();
    host.targets = vec![Target { name, tpgt: 4, portals: vec![("10.0.0.1".to_owned(), 3260)] }];
    host.devices =
        vec![Device { id: "36001405aaaa".to_owned(), bytes: 1 << 40, about: "LIO disk".to_owned() }];
    host
}

#[test]
fn an_answer_file_that_names_target_and_lun_spares_the_discovery() {
    let (folder, host) = (tempfile::tempdir().unwrap(), san());
    let lines = format!(
        "{ISCSI}{NAMED}OVEHOSTED_VM/vmCDRom=str:/iso/el9.iso\nOVEHOSTED_NETWORK/fqdn=str:engine.example.com\n"
    );
    let args = DeployArgs { yes: true, ..with_file(&folder, &lines) };
    let asked = host.alone(&args).unwrap();
    assert_eq!(asked.secrets.iscsi_discovery, Some(Secret::new("look")));
    let storage = first(asked).storage;
    assert_eq!(storage.connection, "10.0.0.1,10.0.0.2");
    assert_eq!(storage.lun, Some(Lun { id: "36001405aaaa".to_owned(), bytes: 1 << 40 }));
    assert_eq!(storage.iscsi.unwrap().discovery_user.as_deref(), Some("finder"));
    let place = "10.0.0.1,10.0.0.2";
    assert_eq!(
        *host.looks.lock().unwrap(),
        [format!("devices {place} 36001405aaaa"), format!("clusters {place}")]
    );

    let args = DeployArgs { ipv6: true, ..args };
    let asked = host.alone(&args);
    let looks = host.looks.lock().unwrap();
    assert!(looks[2].starts_with("devices fd00::1,10.0.0.2"), "{asked:?}: {looks:?}");
}

/// Target and LUN are looked for, which needs the passwords; the file that is written has none.
#[test]
fn answers_are_generated_with_a_look_that_needs_passwords() {
    let (folder, host) = (tempfile::tempdir().unwrap(), san());
    let lines = format!(
        "{ISCSI}OVEHOSTED_VM/vmCDRom=str:/iso/el9.iso\nOVEHOSTED_NETWORK/fqdn=str:engine.example.com\n"
    );
    let args = DeployArgs { generate_answer: Some("/tmp/out".into()), ..with_file(&folder, &lines) };
    let asked = host.alone(&args).unwrap();
    let passwords = (Some(Secret::new("chap")), Some(Secret::new("look")));
    assert_eq!((asked.secrets.iscsi, asked.secrets.iscsi_discovery), passwords);
    let text = asked.answers.to_string();
    assert!(text.contains("iSCSITargetName=str:iqn.2026-01.com.example:b\n"), "{text}");
    assert!(text.contains("\n#   OVEHOSTED_STORAGE/iSCSIPortalPassword=str:…\n"), "{text}");
    assert!(!text.contains("chap") && !text.contains("=str:look"), "{text}");

    // Where no file has them they are asked for; others are not.
    let mut script = Script::new(&[
        ("storage you would like", "iscsi"),
        ("portal IP", "10.0.0.1"),
        ("portal login user", "he"),
        ("portal login password", "chap"),
        ("Confirm", "chap"),
        NFS[1],
        NFS[2],
    ]);
    let args = DeployArgs { config_append: Vec::new(), ..args };
    let asked = host.ask(&args, &mut script).0.unwrap();
    script.assert_over();
    assert_eq!(asked.secrets, Secrets { iscsi: Some(Secret::new("chap")), ..Secrets::default() });
    assert!(!asked.answers.to_string().contains("chap"));
    let asked_for = script.screen.iter().filter(|line| line.starts_with("? ") && line.contains("password"));
    assert_eq!(asked_for.count(), 1, "{:#?}", script.screen);
}

#[test]
fn a_lun_that_is_not_there_is_refused_with_those_that_are() {
    let (folder, host) = (tempfile::tempdir().unwrap(), san());
    let lines = format!("{ISCSI}{NAMED}").replace("36001405aaaa", "36001405cccc");
    let error = host.alone(&with_file(&folder, &lines)).unwrap_err().to_string();
    assert!(error.contains("\"36001405cccc\" must be one of: 36001405aaaa"), "{error}");

    let mut script = Script::new(&[("select the destination LUN", "1"), NFS[1], NFS[2]]);
    let (asked, _) = host.ask(&with_file(&folder, &lines), &mut script);
    script.assert_over();
    assert_eq!(first(asked.unwrap()).storage.lun.unwrap().id, "36001405aaaa");
    assert!(
        script.screen.contains(&"[1] 36001405aaaa  1024 GiB  LIO disk".to_owned()),
        "{:#?}",
        script.screen
    );
}

#[test]
fn a_further_host_finds_target_and_device_by_the_portals_name() {
    let mut host = san();
    host.clusters = vec![cluster()];
    let args =
        DeployArgs { join: Some("san.example.com:3261".to_owned()), yes: true, ..DeployArgs::default() };
    let mut script =
        Script::new(&[("portal login user", "he"), ("portal login password", "chap"), ("Confirm", "chap")]);
    let (asked, _) = host.ask(&args, &mut script);
    script.assert_over();
    let asked = asked.unwrap();
    assert_eq!(asked.secrets.iscsi, Some(Secret::new("chap")));
    assert!(script.screen.iter().all(|line| !line.contains("destination LUN")), "{:#?}", script.screen);
    let storage = further(asked).storage;
    assert_eq!((storage.connection.as_str(), storage.lun), ("10.0.0.1", None));
    let iscsi = storage.iscsi.unwrap();
    assert_eq!((iscsi.target.as_str(), iscsi.ports), ("iqn.2026-01.com.example:b", vec![3261]));
    assert_eq!(*host.looks.lock().unwrap(), ["targets 10.0.0.1", "clusters 10.0.0.1"]);

    let args = DeployArgs { join: Some("unknown.example.com".to_owned()), ..args };
    let error = host.alone(&args).unwrap_err().to_string();
    assert!(error.contains("--join: \"unknown.example.com\": unknown name"), "{error}");
}
