use std::fs;

use ha_config::ha_toml::Hypervisor;

use super::*;
use crate::deploy::dialogue::testing::{StandIn, cluster};
use crate::deploy::job_tests::request;
use crate::deploy::questions::Cluster;
use crate::deploy::storage::conf;
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
