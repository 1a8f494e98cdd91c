use ha_config::ha_toml::Hypervisor;
use ha_config::{HaToml, Paths, Secret};
use uuid::Uuid;

use super::testing::{Script, StandIn, cluster, file, ip};
use super::*;
use crate::deploy::preview;
use crate::deploy::questions::{Cluster, Nic};
use crate::deploy::testing::Heard;
use crate::deploy::vm::image::Proposal;
use crate::deploy::{Boot, BridgeOrigin, FirstHost, FurtherHost, StorageKind};
use crate::setup::Quiet;

/// What a first host on NFS must be told.
pub(super) const NFS: [(&str, &str); 3] = [
    ("storage connection", "nas.example.com:/exports/he"),
    ("installation media", "/iso/el9.iso"),
    ("fully qualified", "engine.example.com"),
];

pub(super) fn first(asked: Asked) -> FirstHost {
    match asked.request {
        Request::FirstHost(host) => *host,
        Request::FurtherHost(host) => panic!("{host:?}"),
    }
}

pub(super) fn further(asked: Asked) -> FurtherHost {
    match asked.request {
        Request::FurtherHost(host) => *host,
        Request::FirstHost(host) => panic!("{host:?}"),
    }
}

pub(super) fn with_file(folder: &tempfile::TempDir, lines: &str) -> DeployArgs {
    DeployArgs { config_append: vec![file(folder, lines)], ..DeployArgs::default() }
}

#[test]
fn a_first_host_needs_three_answers() {
    let host = StandIn::new();
    let mut script = Script::new(&NFS);
    let (asked, heard) = host.ask(&DeployArgs::default(), &mut script);
    script.assert_over();
    assert_eq!(heard, ["Looking at the storage"]);
    let asked = asked.unwrap();
    assert_eq!(asked.secrets, Secrets::default());
    assert!(!asked.is_confirmed);
    let request = first(asked);
    assert_eq!(request.storage.kind, StorageKind::Nfs);
    assert_eq!(request.storage.connection, "nas.example.com:/exports/he");
    assert_eq!(
        (request.domain_name.as_str(), request.datacenter.as_str()),
        ("hosted_storage", "hosted_datacenter")
    );
    assert_eq!(request.network.bridge, "ovirtmgmt");
    assert_eq!(request.network.origin, BridgeOrigin::Over("eth1".to_owned()));
    assert_eq!((request.network.gateway, request.network.test.as_str()), (Some(ip("192.0.2.1")), "ping"));
    assert!(request.network.open_firewall);
    assert_eq!(request.vm.boot, Boot::Cdrom("/iso/el9.iso".into()));
    assert_eq!((request.vm.vcpus, request.vm.memory_mb, request.vm.disk_gib), (2, 4096, 25));
    assert!(request.vm.mac.starts_with("00:16:3e:") && request.vm.seed.is_none());
    assert_eq!(request.engine.fqdn, "engine.example.com");
    assert_eq!((request.host.id, request.host.name.as_str()), (1, "host1.example.com"));
    let toml = HaToml::parse(&Paths::new("/"), &request.ha_toml).unwrap();
    assert_eq!(toml.vm.hypervisor, Hypervisor::Qemu);

    let sections: Vec<_> = script.screen.iter().filter(|line| line.starts_with("== ")).collect();
    assert_eq!(sections, ["== Storage", "== Network", "== VM", "== Hosted engine"]);
    let shown = |line: &str| assert!(script.screen.iter().any(|shown| shown == line), "{:#?}", script.screen);
    shown(
        "? Please specify the storage you would like to use (glusterfs, iscsi, fc, nfs, nfs3, nfs4, directory) [nfs]: ",
    );
    shown("? Please indicate a nic to set the management bridge on (eth0, eth1) [eth1]: ");
    shown("? Please indicate the gateway IP address [192.0.2.1, - for none]: ");
}

#[test]
fn wrong_answers_are_explained_and_asked_for_again() {
    let host = StandIn::new();
    let mut script = Script::new(&[
        ("storage you would like", "smb"),
        ("storage you would like", "?"),
        ("storage you would like", "NFS4"),
        ("storage connection", "/exports/he"),
        ("storage connection", "nas:/exports/he/"),
        ("nic", "lo"),
        ("nic", "eth0"),
        ("gateway", "192.0.2.10"),
        ("gateway", "-"),
        ("gateway", "192.0.2.1"),
        ("configure", "perhaps"),
        ("configure", "n"),
        ("installation media", "el9.iso"),
        ("installation media", "/iso/none.iso"),
        ("installation media", "/iso/el9.iso"),
        ("virtual CPUs", "9"),
        ("virtual CPUs", "8"),
        ("memory", "32768"),
        ("memory", "8192"),
        ("MAC", "01:00:00:00:00:01"),
        ("MAC", "52:54:00:AB:cd:ef"),
        ("fully qualified", "engine"),
        ("fully qualified", "HOST1.example.com"),
        ("fully qualified", "self.example.com"),
        ("fully qualified", "unknown.example.com"),
        ("fully qualified", "engine.example.com"),
        ("admin password", "one"),
        ("Confirm", "two"),
        ("admin password", "same"),
        ("Confirm", "same"),
    ]);
    let (asked, _) = host.ask(&DeployArgs::default(), &mut script);
    script.assert_over();
    let asked = asked.unwrap();
    assert_eq!(asked.secrets.engine_admin, Some(Secret::new("same")));
    let request = first(asked);
    assert_eq!(
        (request.storage.kind, request.storage.connection.as_str()),
        (StorageKind::Nfs4, "nas:/exports/he")
    );
    assert_eq!(request.network.origin, BridgeOrigin::Over("eth0".to_owned()));
    assert!(!request.network.open_firewall);
    assert_eq!(
        (request.vm.vcpus, request.vm.memory_mb, request.vm.mac.as_str()),
        (8, 8192, "52:54:00:ab:cd:ef")
    );
    let errors: Vec<_> = script.screen.iter().filter_map(|line| line.strip_prefix("! ")).collect();
    let expected = [
        "\"smb\" must be one of",
        "\"/exports/he\" must be SERVER:/PATH",
        "\"lo\" must be one of: eth0, eth1",
        "192.0.2.10 is this host's own address",
        "the network test ping needs a gateway",
        "\"perhaps\" must be yes or no",
        "\"el9.iso\" must be an absolute path",
        "/iso/none.iso is not there",
        "9 is more than the 8 CPUs",
        "32768 MB is too much: this host has 32768 MB",
        "\"01:00:00:00:00:01\" must be the MAC address of one card",
        "\"engine\" must be a fully qualified",
        "host1.example.com is this host's own name",
        "self.example.com resolves to 192.0.2.10, which is this host",
        "unknown.example.com does not resolve: unknown name",
        "The two are not the same",
    ];
    assert_eq!(errors.len(), expected.len(), "{errors:#?}");
    for (error, start) in errors.iter().zip(expected) {
        assert!(error.starts_with(start) && error.ends_with("Please try again"), "{error}");
    }
    assert!(
        script.screen.iter().any(|line| line.contains("All hosts must reach the same storage")),
        "? explains"
    );
}

#[test]
fn without_a_terminal_all_that_is_missing_or_wrong_is_told_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let args = with_file(
        &folder,
        "OVEHOSTED_VM/vmVCpus=int:99\nOVEHOSTED_NETWORK/network_test=str:tcp\nOVEHOSTED_VM/vmMemSizeMB=str:lots\n",
    );
    let error = StandIn::new().alone(&args).unwrap_err();
    let DialogueError::Incomplete { missing, wrong } = &error else { panic!("{error}") };
    let keys: Vec<_> = missing.iter().map(|missing| missing.key).collect();
    assert_eq!(
        keys,
        [keys::CONNECTION, keys::TCP_ADDRESS, keys::TCP_PORT, keys::CDROM, keys::FQDN, keys::CONFIRM]
    );
    assert_eq!(wrong.len(), 2, "{wrong:?}");
    let text = error.to_string();
    for part in [
        "OVEHOSTED_VM/vmVCpus: 99 is more than the 8 CPUs of this host",
        "OVEHOSTED_VM/vmMemSizeMB: \"lots\" must be a whole number",
        "OVEHOSTED_NETWORK/network_test_tcp_port (int:, from 1 to 65535)",
        "SERVER:/EXPORT",
        "--yes",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    // What would be done may be seen without a confirmation.
    let error = StandIn::new().alone(&DeployArgs { plan: true, ..args }).unwrap_err();
    assert!(!error.to_string().contains("confirm"), "{error}");
}

const COMPLETE: &str = "OVEHOSTED_STORAGE/domainType=str:nfs\n\
    OVEHOSTED_STORAGE/storageDomainConnection=str:nas:/he\n\
    OVEHOSTED_VM/vmBoot=str:disk\n\
    OVEHOSTED_VM/ovfArchive=str:/img/appliance.ova\n\
    OVEHOSTED_VM/cloudinitVMStaticCIDR=str:192.0.2.20/24\n\
    OVEHOSTED_VM/cloudinitRootPwd=str:r00t\n\
    OVEHOSTED_VM/rootSshPubkey=str:ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJmVyeSBzZWNyZXQga2V5IGluZGVlZCE root@a\n\
    OVEHOSTED_VDSM/consoleType=str:qxl\n\
    OVEHOSTED_VDSM/cpu=str:model_Westmere\n\
    OVEHOSTED_NETWORK/fqdn=str:engine.example.com\n\
    OVEHOSTED_ENGINE/adminPassword=str:adm1n\n\
    OVEHOSTED_CORE/confirmSettings=bool:True\n";

#[test]
fn with_answers_for_everything_nobody_is_asked() {
    let folder = tempfile::tempdir().unwrap();
    let asked = StandIn::new().alone(&with_file(&folder, COMPLETE)).unwrap();
    assert!(asked.is_confirmed);
    let report = Heard::default();
    preview::confirm(&asked, None, &report).unwrap();
    assert_eq!(report.all(), preview::lines(&asked.preview), "what is done is known all the same");
    assert_eq!(asked.secrets.vm_root, Some(Secret::new("r00t")));
    assert_eq!(asked.secrets.engine_admin, Some(Secret::new("adm1n")));
    let request = first(asked);
    assert_eq!(request.vm.boot, Boot::Disk(Some("/img/appliance.ova".into())));
    assert_eq!((request.vm.console.as_str(), request.vm.cpu.as_deref()), ("spice", Some("Westmere")));
    let seed = request.vm.seed.unwrap();
    assert_eq!((seed.address.as_deref(), seed.gateway), (Some("192.0.2.20/24"), Some(ip("192.0.2.1"))));
    assert_eq!((seed.dns, seed.timezone.as_deref()), (vec![ip("192.0.2.53")], Some("Europe/Prague")));
    assert_eq!(seed.ssh_keys.len(), 1);
}

#[test]
fn the_answers_that_come_out_make_the_same_request() {
    let folder = tempfile::tempdir().unwrap();
    let host = StandIn::new();
    let asked = host.alone(&with_file(&folder, COMPLETE)).unwrap();
    let text = asked.answers.to_string();
    assert!(!text.contains("r00t") && !text.contains("adm1n"), "{text}");
    assert!(text.contains("#   OVEHOSTED_VM/cloudinitRootPwd=str:…"), "{text}");
    assert!(!text.contains("hostID") && !text.contains("host_name"), "another host has others: {text}");
    let path = folder.path().join("again.conf");
    asked.answers.save(&path).unwrap();
    let args = DeployArgs { config_append: vec![path], yes: true, ..DeployArgs::default() };
    let again = host.alone(&args).unwrap();
    assert_eq!(again.answers, {
        let mut answers = asked.answers.clone();
        for key in [keys::ROOT_PASSWORD, keys::ADMIN_PASSWORD] {
            answers.remove(key).unwrap();
        }
        answers
    });
    let (before, mut after) = (first(asked), first(again));
    after.ids = before.ids;
    assert_eq!(after, before);
}

#[test]
fn the_preview_shows_every_value_and_no_password() {
    let folder = tempfile::tempdir().unwrap();
    let mut asked = StandIn::new().alone(&with_file(&folder, COMPLETE)).unwrap();
    let lines = preview::lines(&asked.preview);
    let column = lines[0].find(" : ").unwrap();
    assert!(lines.iter().all(|line| line.find(" : ").is_some()), "{lines:#?}");
    let shown = |label: &str, value: &str| {
        let line = format!("{label:column$} : {value}");
        assert!(lines.contains(&line), "{line}\n{lines:#?}");
    };
    shown("Storage connection", "nas:/he");
    shown("Mount options", "(none)");
    shown("Bridge interface", "eth1");
    shown("Root's password", "********");
    shown("Engine's admin password", "********");
    assert!(lines.iter().all(|line| !line.contains("r00t") && !line.contains("adm1n")), "{lines:#?}");

    asked.is_confirmed = false;
    for (answer, goes_on) in [("", true), ("y", true), ("no", false), ("\u{4}", false)] {
        let mut script = Script::new(&[("confirm", "what?"), ("confirm", answer)]);
        let confirmed = preview::confirm(&asked, Some(&mut script), &Quiet);
        script.assert_over();
        assert_eq!(confirmed.is_ok(), goes_on, "{answer:?}");
        assert!(script.screen.contains(&"! Please answer yes or no".to_owned()));
    }
    assert!(preview::confirm(&asked, None, &Quiet).is_err(), "nobody confirmed it");
}

#[test]
fn an_operator_can_end_the_dialogue_at_any_question() {
    let mut script = Script::new(&[("storage connection", "\u{4}")]);
    let (asked, _) = StandIn::new().ask(&DeployArgs::default(), &mut script);
    assert!(matches!(asked, Err(DialogueError::Cancelled)));
    let folder = tempfile::tempdir().unwrap();
    let error =
        StandIn::new().alone(&with_file(&folder, "OVEHOSTED_CORE/confirmSettings=bool:no\n")).unwrap_err();
    assert!(matches!(error, DialogueError::Declined(keys::CONFIRM)), "{error}");
}

#[test]
fn a_wrong_answer_of_a_file_is_asked_for_on_a_terminal() {
    let folder = tempfile::tempdir().unwrap();
    let lines = format!("{COMPLETE}OVEHOSTED_STORAGE/hostID=int:0\nOVEHOSTED_VM/vmVCpus=int:64\n");
    let mut script = Script::new(&[("virtual CPUs", "4"), ("number", "5")]);
    let (asked, _) = StandIn::new().ask(&with_file(&folder, &lines), &mut script);
    script.assert_over();
    let request = first(asked.unwrap());
    assert_eq!((request.vm.vcpus, request.host.id), (4, 5));
    assert!(script.screen.iter().any(|line| line.starts_with("! OVEHOSTED_VM/vmVCpus: 64 is more")));
}

#[test]
fn joining_asks_for_next_to_nothing() {
    let mut host = StandIn::new();
    host.clusters = vec![cluster()];
    let args = DeployArgs { join: Some("nas:/he".to_owned()), yes: true, ..DeployArgs::default() };
    let asked = host.alone(&args).unwrap();
    assert!(asked.answers.get(keys::HOST_ID).is_none() && asked.answers.get(keys::BOOT).is_none());
    let request = further(asked);
    assert_eq!((request.storage.kind, request.storage.connection.as_str()), (StorageKind::Nfs, "nas:/he"));
    assert_eq!((request.sd_uuid, request.host.id), (Uuid::from_u128(7), 2));
    assert_eq!(request.network.bridge, "ovirtmgmt");
    assert_eq!(request.network.origin, BridgeOrigin::Over("eth1".to_owned()));

    for (join, kind) in [("/srv/he", StorageKind::Directory), ("nas:/he", StorageKind::Nfs)] {
        let args = DeployArgs { join: Some(join.to_owned()), ..args.clone() };
        assert_eq!(further(host.alone(&args).unwrap()).storage.kind, kind);
    }
}

#[test]
fn what_join_says_is_not_asked_and_wins_over_files() {
    let mut host = StandIn::new();
    host.clusters = vec![cluster()];
    host.dead = Some("nas:/typo");
    let folder = tempfile::tempdir().unwrap();
    let other = "OVEHOSTED_STORAGE/storageDomainConnection=str:nas:/other\n";
    let args = DeployArgs { join: Some("nas:/he".to_owned()), ..with_file(&folder, other) };
    let mut script = Script::default();
    let (asked, _) = host.ask(&args, &mut script);
    assert_eq!(further(asked.unwrap()).storage.connection, "nas:/he");
    assert!(script.screen.iter().all(|line| !line.contains("connection path")), "{:#?}", script.screen);
    // Until it turns out to be wrong.
    let args = DeployArgs { join: Some("nas:/typo".to_owned()), ..args };
    let mut script = Script::new(&[("storage connection", "nas:/he")]);
    let (asked, _) = host.ask(&args, &mut script);
    script.assert_over();
    assert_eq!(further(asked.unwrap()).storage.connection, "nas:/he");
}

#[test]
fn a_host_id_in_use_is_refused_with_its_owner() {
    let mut host = StandIn::new();
    host.clusters = vec![cluster()];
    let folder = tempfile::tempdir().unwrap();
    let args = DeployArgs {
        join: Some("nas:/he".to_owned()),
        yes: true,
        ..with_file(&folder, "OVEHOSTED_STORAGE/hostID=int:3\n")
    };
    let error = host.alone(&args).unwrap_err().to_string();
    assert!(error.contains("OVEHOSTED_STORAGE/hostID: 3 is the number of host8.example.com"), "{error}");
    host.facts.name = "host8.example.com".to_owned();
    assert_eq!(further(host.alone(&args).unwrap()).host.id, 3, "a host keeps its number");
    std::fs::write(&args.config_append[0], "[environment:default]\nOVEHOSTED_STORAGE/hostID=int:2\n")
        .unwrap();
    let error = host.alone(&args).unwrap_err().to_string();
    assert!(error.contains("this host is number 3 of the cluster already"), "{error}");
}

#[test]
fn a_hosted_engine_on_the_storage_is_joined_or_other_storage_taken() {
    let mut host = StandIn::new();
    host.clusters = vec![cluster()];
    let mut script =
        Script::new(&[("storage connection", "nas:/he"), ("further one", "no"), ("further one", "")]);
    let (asked, _) = host.ask(&DeployArgs::default(), &mut script);
    script.assert_over();
    assert_eq!(further(asked.unwrap()).host.id, 2);
    assert!(script.screen.iter().any(|line| line.starts_with("! engine.example.com is on this storage")));

    host.clusters.push(Cluster {
        sd_uuid: Uuid::from_u128(8),
        fqdn: "other.example.com".to_owned(),
        ..cluster()
    });
    let mut script = Script::new(&[("storage connection", "nas:/he"), ("storage domain to join", "2")]);
    let (asked, _) = host.ask(&DeployArgs::default(), &mut script);
    script.assert_over();
    assert_eq!(further(asked.unwrap()).sd_uuid, Uuid::from_u128(8));
}

#[test]
fn storage_that_cannot_be_looked_at_is_asked_for_again() {
    let mut host = StandIn::new();
    host.dead = Some("nas:/typo");
    let mut script = Script::new(&[
        ("storage connection", "nas:/typo"),
        ("storage connection", "nas:/he"),
        NFS[1],
        NFS[2],
    ]);
    let (asked, _) = host.ask(&DeployArgs::default(), &mut script);
    script.assert_over();
    assert_eq!(first(asked.unwrap()).storage.connection, "nas:/he");
    assert!(script.screen.contains(&"! nas:/typo does not answer".to_owned()), "{:#?}", script.screen);
    assert_eq!(*host.looks.lock().unwrap(), ["clusters nas:/typo", "clusters nas:/he"]);

    let args = DeployArgs { join: Some("nas:/empty".to_owned()), yes: true, ..DeployArgs::default() };
    let error = host.alone(&args).unwrap_err().to_string();
    assert!(error.contains("there is no hosted engine on nas:/empty"), "{error}");
    assert!(!error.contains("Missing"), "what nobody could answer is not missing: {error}");
}

#[test]
fn a_bridge_that_is_there_is_adopted() {
    let mut host = StandIn::new();
    host.facts.gateways[0].nic = "br0".to_owned();
    host.facts.nics.push(Nic { name: "br0".to_owned(), is_bridge: true, can_be_bridged: false });
    let (asked, _) = host.ask(&DeployArgs::default(), &mut Script::new(&NFS));
    let network = first(asked.unwrap()).network;
    assert_eq!((network.bridge.as_str(), network.origin), ("br0", BridgeOrigin::Adopted));
}

#[test]
fn the_address_family_counts_for_names_and_the_gateway() {
    let host = StandIn::new();
    let args = DeployArgs { ipv6: true, ..DeployArgs::default() };
    let mut script = Script::new(&[NFS[0], NFS[1], NFS[2], ("fully qualified", "engine6.example.com")]);
    let (asked, _) = host.ask(&args, &mut script);
    script.assert_over();
    let asked = asked.unwrap();
    assert_eq!(asked.answers.get(keys::FORCE_IPV6), Some(&Value::Bool(true)));
    let request = first(asked);
    assert_eq!((request.family, request.network.gateway), (Family::V6, Some(ip("2001:db8::1"))));
    assert_eq!(request.network.origin, BridgeOrigin::Over("eth0".to_owned()));
}

#[test]
fn a_kernel_of_its_own_needs_no_image() {
    let folder = tempfile::tempdir().unwrap();
    let mut host = StandIn::new();
    host.files.insert("/etc/my.toml", "[vm]\nhypervisor = \"libvirt\"\n");
    let lines = "OVEHOSTED_STORAGE/domainType=str:directory\nOVEHOSTED_STORAGE/storageDomainConnection=str:/srv/he\n\
        OVEHOSTED_VM/kernel=str:/boot/vmlinuz\nOVEHOSTED_VM/initrd=str:/boot/initrd\n\
        OVEHOSTED_VM/kernelArgs=str:console=ttyS0 quiet\nOVEHOSTED_CORE/haToml=str:/etc/my.toml\n\
        OVEHOSTED_NETWORK/fqdn=str:engine.example.com\n";
    let args = DeployArgs { yes: true, ..with_file(&folder, lines) };
    let request = first(host.alone(&args).unwrap());
    assert_eq!(request.vm.boot, Boot::Disk(None));
    let kernel = ("/boot/vmlinuz".into(), Some("/boot/initrd".into()), "console=ttyS0 quiet".to_owned());
    assert_eq!(request.vm.kernel, Some(kernel));
    assert!(request.vm.seed.is_none());
    assert_eq!(request.hypervisor, Hypervisor::Libvirt, "as ha.toml says");
    assert!(request.ha_toml.contains("libvirt"));
    let args =
        DeployArgs { yes: true, ..with_file(&folder, &format!("{lines}OVEHOSTED_VM/hypervisor=str:qemu\n")) };
    let error = host.alone(&args).unwrap_err().to_string();
    assert!(error.contains("\"qemu\" is not what /etc/my.toml says"), "{error}");
}

#[test]
fn generating_answers_asks_for_no_password_of_the_vm_and_no_confirmation() {
    let host = StandIn::new();
    let args = DeployArgs { generate_answer: Some("/tmp/out".into()), ..DeployArgs::default() };
    let mut script = Script::new(&NFS);
    let (asked, _) = host.ask(&args, &mut script);
    asked.unwrap();
    assert!(script.screen.iter().all(|line| !line.contains("password")), "{:#?}", script.screen);
}

#[test]
fn an_image_says_how_large_the_vm_should_be_and_is_looked_at_once() {
    const IMAGE: [(&str, &str); 4] =
        [NFS[0], ("device to boot", "disk"), ("disk image", "/img/appliance.ova"), NFS[2]];
    let mut host = StandIn::new();
    let propose = |memory_mb, vcpus, disk_gib| Proposal { memory_mb, vcpus, disk_gib };
    let sizes = |host: &StandIn| {
        let mut script = Script::new(&IMAGE);
        let vm = first(host.ask(&DeployArgs::default(), &mut script).0.unwrap()).vm;
        (vm.disk_gib, vm.memory_mb, vm.vcpus)
    };
    assert_eq!(sizes(&host), (25, 4096, 2), "a small disk without a description");
    host.image = propose(Some(16384), Some(4), 51);
    assert_eq!(sizes(&host), (51, 16384, 4));
    host.image = propose(Some(1 << 20), Some(64), 51);
    assert_eq!(sizes(&host), (51, 32768 - 512, 8), "what the host has");

    host.looks.lock().unwrap().clear();
    let mut script = Script::new(&[
        NFS[0],
        IMAGE[1],
        ("disk image", "/img/absent.ova"),
        IMAGE[2],
        ("disk size", "50"),
        ("disk size", "60"),
        NFS[2],
    ]);
    let vm = first(host.ask(&DeployArgs::default(), &mut script).0.unwrap()).vm;
    script.assert_over();
    assert_eq!(vm.disk_gib, 60);
    let why = "! 50 GiB is too small: the disk in /img/appliance.ova needs 51 GiB. Please try again";
    assert!(script.screen.contains(&why.to_owned()), "{:#?}", script.screen);
    let looks = host.looks.lock().unwrap();
    let images: Vec<_> = looks.iter().filter(|look| look.starts_with("image ")).collect();
    assert_eq!(images, ["image /img/absent.ova", "image /img/appliance.ova"]);
}
