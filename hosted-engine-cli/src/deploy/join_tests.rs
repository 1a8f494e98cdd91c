use std::fs;

use ha_config::ha_toml::Hypervisor;

use super::*;
use crate::deploy::dialogue::testing::{StandIn, cluster};
use crate::deploy::job_tests::request;
use crate::deploy::questions::Cluster;
use crate::deploy::storage::conf;
use crate::deploy::storage::find::Seen;
use crate::deploy::testing::Heard;
use crate::deploy::{DeployArgs, HostIdentity, Storage, StorageKind};

const TOML: &str = "[lease]\nio_timeout = 5\n";

fn cluster_conf(ha_toml: &str, connection: &str) -> ClusterConf {
    let Request::FirstHost(mut first) = request() else { unreachable!("a first host") };
    first.storage.connection = connection.to_owned();
    ClusterConf {
        hosted_engine_conf: conf::hosted_engine_conf(&first, None),
        vm_conf: "vmId=x\n".to_owned(),
        broker_conf: String::new(),
        ha_toml: ha_toml.to_owned(),
        answers: String::new(),
    }
}

#[test]
fn other_leases_than_the_clusters_are_refused_and_other_scores_are_not() {
    let root = tempfile::tempdir().unwrap();
    let paths = Paths::new(root.path());
    let cluster = cluster_conf(TOML, "/srv/engine");
    refuse_other_leases(&paths, &cluster).unwrap();
    fs::create_dir_all(paths.ha_toml().parent().unwrap()).unwrap();
    for (text, differs) in [
        (TOML, None),
        ("# mine\n[lease]\nio_timeout = 5\n", None),
        ("[lease]\nio_timeout = 10\n", Some("lease.io_timeout is 10, the cluster's 5")),
        ("[lease]\nio_timeout = 5\nvm = \"other\"\n", Some("lease.vm is other, the cluster's none")),
        (
            "[lease]\nio_timeout = 5\n[vm]\nhypervisor = \"libvirt\"\n",
            Some("vm.hypervisor is libvirt, the cluster's qemu"),
        ),
    ] {
        fs::write(paths.ha_toml(), text).unwrap();
        match (refuse_other_leases(&paths, &cluster), differs) {
            (Ok(()), None) => {}
            (Err(error), Some(what)) => {
                let said = error.to_string();
                assert!(said.contains(what) && said.contains("Move the file away"), "{said}");
            }
            (result, _) => panic!("{text}: {result:?}"),
        }
    }
}

#[test]
fn leases_that_are_renewed_with_another_time_out_are_refused_and_old_ones_are_told() {
    let root = tempfile::tempdir().unwrap();
    let paths = Paths::new(root.path());
    let judged = |all: &[(u16, u16)]| {
        let cluster = Cluster {
            io_timeouts: all.iter().copied().collect(),
            conf: cluster_conf(TOML, "/srv/engine"),
            ..crate::deploy::dialogue::testing::cluster()
        };
        let heard = Heard::default();
        let result = refuse_other_renewals(&paths, &cluster, &heard).map_err(|error| error.to_string());
        result.map(|()| heard.all().join("; "))
    };
    assert_eq!(judged(&[]), Ok(String::new()), "nobody has a lease");
    assert_eq!(judged(&[(1, 5), (3, 5)]), Ok(String::new()));
    let told = judged(&[(1, 5), (3, 10)]).unwrap();
    assert!(
        told.contains("would be 5 s") && told.contains(": host 3 (host8.example.com) with 10 s."),
        "{told}"
    );
    let refused = judged(&[(1, 10), (9, 2)]).unwrap_err();
    assert!(refused.contains("host 1 (host7.example.com) with 10 s, host 9 with 2 s"), "{refused}");
    // What is in this host's own file counts.
    fs::create_dir_all(paths.ha_toml().parent().unwrap()).unwrap();
    fs::write(paths.ha_toml(), "[lease]\nio_timeout = 10\n").unwrap();
    assert_eq!(judged(&[(1, 10)]), Ok(String::new()));
}

#[test]
fn a_number_that_another_host_took_first_is_changed_for_the_next_one_that_is_free() {
    let Request::FirstHost(first) = request() else { unreachable!("a first host") };
    let further = FurtherHost {
        hypervisor: first.hypervisor,
        storage: first.storage.clone(),
        network: first.network.clone(),
        host: HostIdentity { id: 2, name: "h2".to_owned() },
        sd_uuid: first.ids.sd,
        moves: None,
    };
    let request = Request::FurtherHost(Box::new(further));
    let next = |owners: &[(u16, &str)]| {
        let seen = |(id, owner): &(u16, &str)| {
            let seen = Seen { block: None, last_seen: None, owner: Some((*owner).to_owned()) };
            (HostId::new(*id).unwrap(), seen)
        };
        next_number(&Hosts(owners.iter().map(seen).collect()), &request).map(HostId::get)
    };
    assert_eq!(next(&[(1, "h1")]), None, "it failed for another reason");
    assert_eq!(next(&[(1, "h1"), (2, "h2")]), None, "it has the lease itself");
    assert_eq!(next(&[(1, "h1"), (2, "h3")]), Some(3));
    assert_eq!(next(&[(1, "h1"), (2, "h3"), (3, "h4")]), Some(4));
}

#[test]
fn the_storage_has_the_name_that_the_cluster_gave_it() {
    let Request::FirstHost(first) = request() else { unreachable!("a first host") };
    let mut further = FurtherHost {
        hypervisor: first.hypervisor,
        storage: Storage { connection: "/mnt/other-name".to_owned(), ..first.storage.clone() },
        network: first.network.clone(),
        host: HostIdentity { id: 2, name: "h2".to_owned() },
        sd_uuid: first.ids.sd,
        moves: None,
    };
    let heard = Heard::default();
    let conf = cluster_conf("", "/srv/engine").parsed(&Paths::default());
    take_storage(&mut further, &conf, &heard).unwrap();
    assert_eq!(
        (further.storage.kind, further.storage.connection.as_str()),
        (StorageKind::Directory, "/srv/engine")
    );
    assert_eq!(heard.all(), ["The cluster reaches this storage as /srv/engine: so will this host"]);
    take_storage(&mut further, &conf, &heard).unwrap();
    assert_eq!(heard.all().len(), 1, "nothing to say when the names are the same");
}

#[test]
fn the_hypervisor_is_the_clusters() {
    for (ha_toml, expected) in [
        ("[vm]\nhypervisor = \"libvirt\"\n", Hypervisor::Libvirt),
        ("[score]\nprofile = \"founding\"\n", Hypervisor::Qemu),
        // A former release's: what this host has.
        ("", Hypervisor::Vdsm),
    ] {
        let (root, mut host) = (tempfile::tempdir().unwrap(), StandIn::new());
        let paths = Paths::new(root.path());
        let conf = cluster_conf(ha_toml, "nas.example.com:/exports/he");
        host.clusters = vec![Cluster { conf, ..cluster() }];
        let join = Some("nas.example.com:/exports/he".to_owned());
        let mut asked = host.alone(&DeployArgs { join, yes: true, ..DeployArgs::default() }).unwrap();
        let Request::FurtherHost(further) = &mut asked.request else { panic!("{asked:?}") };
        further.hypervisor = Hypervisor::Vdsm;
        settle(&mut asked, &paths, &Heard::default()).unwrap();
        assert_eq!(asked.request.hypervisor(), expected);
    }
}
