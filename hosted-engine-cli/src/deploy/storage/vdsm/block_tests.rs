//! Block storage through VDSM's stand-in: a volume group on a LUN, the domain on it, its volumes, and back.

use std::fs::{self, File};
use std::io::Read as _;

use ha_config::Secret;
use ha_config::ha_toml::Hypervisor;

use super::tests::{Host, Unmounted, is_gone_on_with_and_undone};
use super::*;
use crate::deploy::questions::StorageLookups as _;
use crate::deploy::storage::testing::{first_host, storage};
use crate::deploy::storage::{Connect, backend};
use crate::deploy::testing::Heard;
use crate::deploy::{self, FurtherHost, HostIdentity, Iscsi, Journal, Lun, Step};

const LUN: &str = "36001405f0a1b2c3d4e5f60718293a4b5";
const TARGET: &str = "iqn.2026-11.test.example:he";
const BYTES: u64 = 20 << 30;

fn iscsi() -> Storage {
    let target = Iscsi {
        target: TARGET.to_owned(),
        tpgt: 1,
        ports: vec![3260],
        user: Some("u".to_owned()),
        discovery_user: None,
    };
    let lun = Lun { id: LUN.to_owned(), bytes: BYTES };
    Storage { iscsi: Some(target), lun: Some(lun), ..storage(StorageKind::Iscsi, "192.0.2.1") }
}

fn fc() -> Storage {
    Storage { lun: Some(Lun { id: LUN.to_owned(), bytes: BYTES }), ..storage(StorageKind::Fc, "") }
}

/// A host that reaches one LUN.
fn host(storage: Storage) -> Host {
    let place = if storage.kind == StorageKind::Iscsi {
        format!("srv/iscsi/{TARGET}")
    } else {
        "dev/mapper".to_owned()
    };
    let mut host = Host::on(FirstHost { storage, ..first_host(StorageKind::Nfs, "") });
    let place = host.site.dir.path().join(place);
    fs::create_dir_all(&place).unwrap();
    File::create(place.join(LUN)).unwrap().set_len(BYTES).unwrap();
    fs::create_dir_all(host.site.dir.path().join("dev/mapper")).unwrap();
    let interfaces = host.site.paths.iscsi_interfaces();
    fs::create_dir_all(interfaces.parent().unwrap()).unwrap();
    fs::write(interfaces, "default tcp,<empty>,<empty>,<empty>,<empty>\n").unwrap();
    host.site.secrets.iscsi = Some(Secret::new("s3cret"));
    host
}

fn read(path: &Path, bytes: u64) -> Vec<u8> {
    let mut read = Vec::new();
    File::open(path).unwrap().take(bytes).read_to_end(&mut read).unwrap();
    read
}

#[test]
fn a_first_host_has_vdsm_make_a_domain_on_a_lun_and_take_it_away_again() {
    for storage in [iscsi(), fc()] {
        let kind = storage.kind;
        let host = host(storage.clone());
        let before = host.tree();
        host.all_but_the_end();

        let heard = Heard::default();
        let world = host.site.world(&host.request, &Unmounted, &heard);
        let (first, backend) = (host.first(), backend(&host.request));
        let sd = first.ids.sd.to_string();
        let info = ask(&world, async |vdsm| vdsm.domain_info(&sd).await.map_err(while_("test"))).unwrap();
        assert_eq!((info.name.as_deref(), info.pools.len()), (Some("hosted_storage"), 0));
        assert_eq!(info.raw["type"], if kind == StorageKind::Iscsi { "ISCSI" } else { "FCP" });
        let found = backend.find(&world).unwrap();
        assert_eq!(found.iter().map(|found| found.sd_uuid).collect::<Vec<_>>(), [first.ids.sd]);
        for role in [Role::Metadata, Role::Lockspace, Role::Configuration, Role::Disk] {
            assert!(backend.volume(&world, role).is_file(), "{role:?}");
        }
        // What was on the LUN before is gone where somebody would read it.
        let metadata = read(&backend.volume(&world, Role::Metadata), 8 << 20);
        assert!(metadata.len() == 8 << 20 && metadata.iter().all(|byte| *byte == 0));
        let cluster = ClusterConf::read(&found[0].configuration).unwrap();
        let conf = cluster.parsed(&host.site.paths);
        assert_eq!(fs::metadata(conf.metadata_path().unwrap()).unwrap().len(), 8 << 20);
        assert!(fs::metadata(conf.lockspace_path().unwrap()).unwrap().len() >= 1 << 20);
        assert!(backend.ids(&world).path.is_file());
        let lease = backend.vm_lease(&world).unwrap();
        assert!(lease.path.ends_with(format!("dev/{sd}/leases")) && lease.offset > 100 << 20, "{lease:?}");
        let offset = conf.file().get("vm_lease_offset").map(str::to_owned);
        assert_eq!(offset, Some(lease.offset.to_string()));

        another_host_joins(&host, &storage);
        another_first_host_is_refused(&host, &storage);

        let mut journal = Journal::open(&host.journal()).unwrap().unwrap();
        deploy::undo(world, &mut journal).unwrap();
        assert_eq!(host.tree(), before, "{kind:?}");
    }
}

fn another_host_joins(host: &Host, storage: &Storage) {
    let heard = Heard::default();
    let first = host.first();
    fs::create_dir_all(host.site.paths.ha_toml().parent().unwrap()).unwrap();
    fs::write(host.site.paths.ha_toml(), &first.ha_toml).unwrap();
    // It knows no LUN: the domain is found on all that the host sees.
    let storage = Storage { lun: None, ..storage.clone() };
    let further = Request::FurtherHost(Box::new(FurtherHost {
        hypervisor: Hypervisor::Vdsm,
        storage: storage.clone(),
        network: first.network.clone(),
        host: HostIdentity { id: 2, name: "h2".to_owned() },
        sd_uuid: first.ids.sd,
        moves: None,
    }));
    let world = host.site.world(&host.request, &Unmounted, &heard);
    let joining = host.site.world(&further, &Unmounted, &heard);
    let mut journal = Journal::begin(&host.site.dir.path().join("journal-2"), 0, further.clone()).unwrap();
    let connect: Vec<Box<dyn Step>> = vec![Box::new(Connect)];
    deploy::run(&connect, joining, &mut journal).unwrap();
    for role in [Role::Metadata, Role::Lockspace, Role::Configuration, Role::Disk] {
        assert_eq!(Vdsm.volume(&joining, role), Vdsm.volume(&world, role), "{role:?}");
    }

    // Who only looks reads the hosts' blocks without the links that a member has, and prepares nothing to stay.
    let sd = first.ids.sd.to_string();
    fs::remove_dir_all(host.site.paths.prepared_volumes().join(&sd)).unwrap();
    fs::remove_dir_all(host.site.paths.storage_mounts().join("blockSD").join(&sd)).unwrap();
    let clusters = host.site.hands(&Unmounted, &heard).clusters(&storage, &host.site.secrets).unwrap();
    let seen: Vec<_> = clusters.iter().map(|cluster| (cluster.sd_uuid, cluster.next_id)).collect();
    assert_eq!(seen, [(first.ids.sd, Some(1))]);
    assert!(!host.site.paths.prepared_volumes().join(&sd).exists());
}

fn another_first_host_is_refused(host: &Host, storage: &Storage) {
    let heard = Heard::default();
    let mut second = FirstHost { storage: storage.clone(), ..first_host(StorageKind::Nfs, "") };
    (second.hypervisor, second.ha_toml) = (Hypervisor::Vdsm, host.first().ha_toml.clone());
    let second = Request::FirstHost(Box::new(second));
    let mut journal = Journal::begin(&host.site.dir.path().join("journal-3"), 0, second.clone()).unwrap();
    let connect: Vec<Box<dyn Step>> = vec![Box::new(Connect)];
    let world = host.site.world(&second, &Unmounted, &heard);
    let error = deploy::run(&connect, world, &mut journal).unwrap_err().to_string();
    assert!(error.contains("another storage domain, volume group or file system is on it"), "{error}");
}

#[test]
fn cut_at_every_line_on_a_lun_it_is_gone_on_with_and_undone() {
    is_gone_on_with_and_undone(&|| host(iscsi()));
}

#[test]
fn a_volume_group_with_somebody_elses_domain_stays() {
    let host = host(fc());
    host.all_but_the_end();
    let heard = Heard::default();
    let world = host.site.world(&host.request, &Unmounted, &heard);
    let group = VolumeGroup { name: host.first().ids.sd, lun: LUN.to_owned() };
    let left = deploy::Undo::undo(&group, &world).unwrap();
    assert_eq!(left, deploy::Undone::LeftAlone("there is a storage domain on it".to_owned()));
}

#[test]
fn a_lun_that_cannot_be_used_is_refused_by_name() {
    let refused = |storage: Storage| {
        let host = host(storage.clone());
        let mut first = host.first().clone();
        first.storage = storage;
        if let Some(lun) = &mut first.storage.lun {
            lun.id = "36001405ffffffffffffffffffffffffff".to_owned();
        }
        let request = Request::FirstHost(Box::new(first));
        let heard = Heard::default();
        let world = host.site.world(&request, &Unmounted, &heard);
        let mut journal = Journal::begin(&host.journal(), 0, request.clone()).unwrap();
        let connect: Vec<Box<dyn Step>> = vec![Box::new(Connect)];
        deploy::run(&connect, world, &mut journal).unwrap_err().to_string()
    };
    assert!(refused(fc()).contains("VDSM does not see it"), "{}", refused(fc()));
    let mut elsewhere = iscsi();
    if let Some(target) = &mut elsewhere.iscsi {
        target.target = "iqn.2026-11.test.example:other".to_owned();
    }
    let error = refused(elsewhere);
    assert!(error.contains("iqn.2026-11.test.example:other") && error.contains("464"), "{error}");
    assert!(!error.contains("s3cret"), "{error}");
}
