//! The leases of VMs with real sanlock daemons of two hosts: made, found, held, refused, removed, mended; and the engine
//! VM's lease moved from its disk into the volume and back. Needs root, sanlock, libfaketime.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail the test")]

mod site;

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use engine_vm::lease::{LeaseError, LeaseOwner, LeaseSpec};
use engine_vm::port::LeaseHolding;
use ha_config::HaToml;
use ha_tests::sanlock::{SanlockDaemon, Speed};
use ha_tests::wait;
use hosted_engine_cli::cli::{self, Command, SiteCommand};
use hosted_engine_cli::leases;
use hosted_engine_cli::terminal::{Exit, Record, Terminal};
use sanlock_client::{
    AcquireOptions, AddOptions, Disk, DiskPath, HostState, Lockspace, LockspaceName, Registration, Resource,
    ResourceName,
};
use serde_json::Value;
use site::Site;

const SOON: Duration = Duration::from_secs(20);
const TOML: &str = "[lease]\nio_timeout = 3\n";

fn run(site: &Site, words: &[&str]) -> (Exit, Record) {
    let line = ["hosted-engine"].iter().chain(words).map(OsString::from);
    let Command::Site(SiteCommand::Leases(command)) = cli::parse(line).unwrap().command else { panic!() };
    let mut terminal = Terminal::recording();
    let exit = leases::run(&command, &site.paths, &mut terminal);
    (exit, terminal.recorded())
}

fn done(site: &Site, words: &[&str]) -> String {
    let (exit, record) = run(site, words);
    assert_eq!(exit, Exit::OK, "{words:?}: {record:?}");
    record.out
}

fn refused(site: &Site, words: &[&str]) -> String {
    let (exit, record) = run(site, words);
    assert_eq!(exit, Exit::FAILED, "{words:?}: {record:?}");
    record.err
}

/// The storage domain's lockspace for this host id.
fn domain(site: &Site, host_id: u64) -> Lockspace {
    let path = DiskPath::new(site.conf.ids_path().unwrap()).unwrap();
    let name = LockspaceName::new(site.conf.sd_uuid().unwrap()).unwrap();
    Lockspace { name, host_id, disk: Disk { path, offset: 0 } }
}

fn join(site: &Site, daemon: &SanlockDaemon, host_id: u64) {
    let options = AddOptions { io_timeout: Some(3), is_async: false };
    daemon.client().add_lockspace(&domain(site, host_id), options).unwrap();
}

/// The lease `name` as another host's process would take it.
fn resource(site: &Site, name: &str) -> Resource {
    let told: Value = serde_json::from_str(&done(site, &["--lease-info", name, "--json"])).unwrap();
    Resource {
        lockspace: domain(site, 1).name,
        name: ResourceName::new(name).unwrap(),
        disks: vec![Disk {
            path: DiskPath::new(told["lease"]["path"].as_str().unwrap()).unwrap(),
            offset: told["lease"]["offset"].as_u64().unwrap(),
        }],
    }
}

fn hold(daemon: &SanlockDaemon, lease: &Resource) -> Registration {
    let mut registration = Registration::register_self(&daemon.client()).unwrap();
    let options = AcquireOptions { no_wait: true, owner_name: "test".to_owned() };
    registration.acquire(std::slice::from_ref(lease), &options).unwrap();
    registration
}

#[test]
fn leases_are_made_held_and_removed() {
    let site = Site::new(TOML);
    let needs = refused(&site, &["--lease-create", "vm-1"]);
    assert!(needs.contains("has not joined the lockspace"), "{needs}");
    let other = SanlockDaemon::start(&site.dir.path().join("h2"), "h2", Speed::Tenfold).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| join(&site, &site.sanlock, 1));
        scope.spawn(|| join(&site, &other, 2));
    });

    let blank = refused(&site, &["--lease-create", "vm-1"]);
    assert!(blank.contains("xleases: the xleases volume has never been formatted"), "{blank}");
    assert!(done(&site, &["--lease-format"]).contains("is ready for leases"));
    assert!(done(&site, &["--lease-create", "vm-1"]).contains("at offset 3145728"));
    done(&site, &["lease-create", "vm-2", "--json"]);
    assert!(refused(&site, &["--lease-create", "vm-2"]).contains("there is a lease vm-2 already"));
    assert!(refused(&site, &["--lease-format"]).contains("2 leases are on it"));
    let free = done(&site, &["--lease-info", "vm-2"]);
    assert!(free.contains("offset    4194304\nstatus    FREE\n"), "{free}");

    // Held by a process of another host.
    let lease = resource(&site, "vm-1");
    let holding = hold(&other, &lease);
    wait::until("host 1 to see host 2 alive", SOON, || {
        let hosts = site.sanlock.client().get_hosts(&lease.lockspace, Some(2)).ok()?;
        (hosts.first()?.state == HostState::Live).then_some(())
    });
    let shown = done(&site, &["--lease-info", "vm-1"]);
    assert!(shown.contains("status    EXCLUSIVE\nowner     host 2 (h2), generation 1, LIVE\n"), "{shown}");
    for words in [&["--lease-remove", "vm-1"][..], &["--lease-format", "--force"]] {
        let error = refused(&site, words);
        assert!(error.contains("host 2 may hold the lease \"vm-1\" in place 0 (offset 3145728)"), "{error}");
    }
    // Its record is damaged: the lease is found again, and stays held.
    let volume = fs::OpenOptions::new().write(true).open(site.conf.xleases_path().unwrap()).unwrap();
    volume.write_all_at(b"\xff", (1 << 20) + 512).unwrap();
    let damaged = refused(&site, &["--lease-list"]);
    assert!(damaged.contains("record 0 of the lease index is damaged"), "{damaged}");
    let mended = done(&site, &["--lease-rebuild"]);
    assert!(mended.contains("place 0: damaged record written anew for lease vm-1"), "{mended}");
    assert!(done(&site, &["--lease-rebuild"]).starts_with("Index and leases agree"));
    assert!(done(&site, &["--lease-list"]).contains("EXCLUSIVE"));

    // While another host changes the volume nobody else does.
    let lock = Resource {
        name: ResourceName::new("xleases-index").unwrap(),
        disks: vec![Disk { offset: 2 << 20, ..lease.disks[0].clone() }],
        ..lease.clone()
    };
    let changing = hold(&other, &lock);
    let busy = refused(&site, &["--lease-create", "vm-3"]);
    assert!(busy.contains("the right to change") && busy.contains("another host that is alive"), "{busy}");
    drop((holding, changing));
    wait::until("the lease to be given back", SOON, || {
        done(&site, &["--lease-list"]).matches("FREE").count().eq(&2).then_some(())
    });
    wait::until("the lease to be removed", SOON, || {
        (run(&site, &["--lease-remove", "vm-1"]).0 == Exit::OK).then_some(())
    });
    assert!(refused(&site, &["--lease-info", "vm-1"]).contains("there is no lease \"vm-1\""));
    assert!(other.client().read_resource(&lease).is_err(), "nothing is left in its place");
}

#[test]
fn the_engine_vm_changes_its_lease_and_no_host_can_use_the_other_one() {
    let site = Site::new(TOML);
    join(&site, &site.sanlock, 1);
    done(&site, &["--lease-format"]);
    done(&site, &["--lease-create", "engine"]);
    let spec = |more: &str| {
        let toml = HaToml::parse(&site.paths, &format!("{TOML}{more}")).unwrap();
        LeaseSpec::of_engine_vm(&site.conf, &toml).unwrap()
    };
    let (of_disk, indexed) = (spec(""), spec("vm = \"engine\"\n"));
    let error = indexed.take().unwrap_err().to_string();
    assert!(error.contains("still holds the lease of the VM's disk"), "{error}");

    // Not while the VM runs.
    let running = of_disk.take().unwrap();
    let error = refused(&site, &["--lease-use", "engine"]);
    assert!(error.contains("must be free: shut the engine VM down"), "{error}");
    drop(running);
    wait::until("the disk's lease to be retired", SOON, || {
        (run(&site, &["--lease-use", "engine"]).0 == Exit::OK).then_some(())
    });
    // sanlock has first to end the command's own hold.
    let gone = wait::until("the disk's lease to be gone", SOON, || match of_disk.take() {
        Err(LeaseError::Missing(detail)) => Some(detail),
        Err(LeaseError::Held(_)) => None,
        other => panic!("{other:?}"),
    });
    assert!(gone.contains("hosted-engine --lease-use gave the VM another one"), "{gone}");
    let holding = wait::until("the lease to be had", SOON, || indexed.take().ok());
    let own = std::process::id();
    assert_eq!(indexed.holding(own), LeaseHolding::Held);
    assert_eq!(indexed.owner(), Ok(LeaseOwner::ThisHost));
    assert!(indexed.held_version(own).unwrap().is_some());
    assert!(matches!(of_disk.holding(own), LeaseHolding::Lost { .. }));
    // Handed over by names alone.
    indexed.release_for(own).unwrap();
    assert_eq!(indexed.owner(), Ok(LeaseOwner::Nobody));
    drop(holding);

    // And back.
    fs::write(site.paths.ha_toml(), format!("{TOML}vm = \"engine\"\n")).unwrap();
    assert!(refused(&site, &["--lease-remove", "engine"]).contains("protects the engine VM"));
    wait::until("the disk's lease to be there again", SOON, || {
        (run(&site, &["--lease-use", "--disk"]).0 == Exit::OK).then_some(())
    });
    assert!(indexed.take().unwrap_err().to_string().contains("still holds the lease of the VM's disk"));
    wait::until("the disk's lease to be had", SOON, || of_disk.take().ok());
}

/// VDSM takes the lease of the VM's disk whatever this release would like, and its storage pool manager changes the volume
/// without our lock.
#[test]
fn where_vdsm_manages_the_host_the_leases_are_its_own() {
    let site = Site::new("[vm]\nhypervisor = \"vdsm\"\n");
    for words in [&["--lease-use", "engine"][..], &["--lease-use", "--disk"]] {
        let error = refused(&site, words);
        assert!(error.contains("VDSM always takes the lease of the engine VM's disk"), "{error}");
    }
    for words in [&["--lease-format"][..], &["--lease-create", "vm"], &["--lease-remove", "vm"]] {
        let error = refused(&site, words);
        assert!(error.contains("this storage domain is VDSM's"), "{error}");
    }
}
