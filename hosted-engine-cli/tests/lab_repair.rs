//! Repair with the real sanlock daemon and the real broker: the living are never overridden, the rest is. Needs root,
//! sanlock, libfaketime.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail the test")]

mod site;

use std::process::ExitCode;
use std::time::Duration;

use ha_broker::daemon::{self, Setup};
use ha_tests::sanlock::{SanlockDaemon, Speed};
use ha_tests::wait;
use hosted_engine_cli::delta_lease;
use hosted_engine_cli::repair::{
    CleanMetadataArgs, ReinitializeLockspaceArgs, clean_metadata, reinitialize_lockspace,
};
use hosted_engine_cli::shared_file::SharedFile;
use metadata_format::{EngineStatus, HostId, HostRecord, Score, block_offset};
use sanlock_client::AddOptions;
use site::Site;

const TOML: &str = "[lease]\nio_timeout = 3\n[timers]\nloop = 0.5\n";
const FORCE: ReinitializeLockspaceArgs = ReinitializeLockspaceArgs { unused: false, all: false, force: true };
const MEND: ReinitializeLockspaceArgs = ReinitializeLockspaceArgs { unused: false, all: false, force: false };

fn id(number: u16) -> HostId {
    HostId::new(number).unwrap()
}

fn lease(site: &Site, number: u16) -> sanlock_client::DeltaRecord {
    let file = SharedFile::open(&site.conf.lockspace_path().unwrap(), false).unwrap();
    delta_lease::read(&file, id(number)).unwrap().unwrap()
}

fn put_block(site: &Site, number: u16, stopped: bool) {
    let record = HostRecord {
        host_ts: 100,
        host_time: "then".to_owned(),
        host_id: id(number),
        score: Score(0),
        engine_status: EngineStatus::unknown("the agent stopped"),
        hostname: format!("h{number}"),
        maintenance: false,
        stopped,
        conf_on_shared_storage: true,
        vm_conf_refresh_ts: 90,
        vm_conf_refresh_time: "then".to_owned(),
        state: "AgentStopped".to_owned(),
        timeout: None,
        notes: std::collections::BTreeMap::new(),
    };
    let file = SharedFile::open(&site.conf.metadata_path().unwrap(), true).unwrap();
    file.write(block_offset(number), &record.encode().unwrap()).unwrap();
}

fn has_block(site: &Site, number: u16) -> bool {
    let file = SharedFile::open(&site.conf.metadata_path().unwrap(), false).unwrap();
    file.read(block_offset(number), 4096).unwrap()[0] != 0
}

#[test]
fn a_living_host_keeps_its_lease_and_a_dead_ones_is_wiped() {
    let site = Site::new(TOML);
    let other = SanlockDaemon::start(&site.dir.path().join("h2"), "h2", Speed::Tenfold).unwrap();
    let here = site.sanlock.client();
    let options = AddOptions { io_timeout: Some(3), is_async: false };
    other.client().add_lockspace(&site.lockspace(2), options).unwrap();
    // Left behind in this host's sanlock by a broker that died.
    here.add_lockspace(&site.lockspace(1), options).unwrap();

    let code = reinitialize_lockspace(&FORCE, &site.paths).unwrap();
    assert_ne!(code, ExitCode::SUCCESS, "a living host cannot be overridden, even by force");
    assert_eq!((lease(&site, 2).is_taken(), lease(&site, 2).owner.as_str()), (true, "h2"));
    assert_eq!(site.backups(), 0);

    drop(other);
    assert_eq!(reinitialize_lockspace(&FORCE, &site.paths).unwrap(), ExitCode::SUCCESS);
    assert!(!lease(&site, 2).is_taken() && !lease(&site, 1).is_taken());
    assert_eq!(site.backups(), 1);
    assert_eq!(here.get_lockspaces().unwrap().len(), 0);
    here.add_lockspace(&site.lockspace(2), options).unwrap();
}

#[test]
fn a_running_broker_does_what_only_it_may_do() {
    let site = Site::new(TOML);
    put_block(&site, 1, true);
    put_block(&site, 3, true);
    let setup = Setup::load(site.paths.clone()).unwrap();
    // Ends with the test's process.
    std::thread::spawn(move || daemon::run(&setup));
    wait::until("the broker to listen", Duration::from_secs(10), || {
        site.paths.broker_socket().exists().then_some(())
    });

    let own = CleanMetadataArgs::default();
    assert_eq!(clean_metadata(&own, &site.paths).unwrap(), ExitCode::SUCCESS);
    assert!(!has_block(&site, 1) && has_block(&site, 3));
    assert!(!lease(&site, 1).is_taken(), "the id was taken for the repair only");
    assert!(lease(&site, 1).generation > 0);

    let other = CleanMetadataArgs { host_id: Some(id(3)), ..CleanMetadataArgs::default() };
    assert_eq!(clean_metadata(&other, &site.paths).unwrap(), ExitCode::SUCCESS);
    assert!(!has_block(&site, 3));

    assert_eq!(reinitialize_lockspace(&FORCE, &site.paths).unwrap(), ExitCode::SUCCESS);
    assert_eq!((lease(&site, 1).generation, site.backups()), (0, 3));
}

/// The bytes of the lockspace; `but` the sectors of these ids, which are taken out.
fn sectors_but(site: &Site, but: &[u16]) -> Vec<u8> {
    let file = SharedFile::open(&site.conf.lockspace_path().unwrap(), false).unwrap();
    let bytes = file.read(0, 1 << 20).unwrap();
    let numbered = bytes.chunks_exact(512).zip(1_u16..);
    numbered.filter(|(_, id)| !but.contains(id)).flat_map(|(sector, _)| sector.to_vec()).collect()
}

#[test]
fn a_bad_sector_is_mended_while_another_host_keeps_its_lease() {
    let site = Site::new(TOML);
    let file = SharedFile::open(&site.conf.lockspace_path().unwrap(), true).unwrap();
    let new = file.read(0, 1 << 20).unwrap();
    let other = SanlockDaemon::start(&site.dir.path().join("h2"), "h2", Speed::Tenfold).unwrap();
    let options = AddOptions { io_timeout: Some(3), is_async: false };
    other.client().add_lockspace(&site.lockspace(2), options).unwrap();
    // The first sector says how all are laid out; the third is beside the one that lives.
    file.write_sectors(0, &[b'x'; 512]).unwrap();
    let mut torn = new[1024..1536].to_vec();
    torn[40] = 9;
    file.write_sectors(1024, &torn).unwrap();
    let here = site.sanlock.client();
    assert!(here.add_lockspace(&site.lockspace(3), options).is_err(), "the daemon calls it bad, too");

    let before = sectors_but(&site, &[1, 2, 3]);
    let held = lease(&site, 2);
    assert_eq!(reinitialize_lockspace(&MEND, &site.paths).unwrap(), ExitCode::SUCCESS);
    assert_eq!(site.backups(), 1);
    assert_eq!(sectors_but(&site, &[1, 2, 3]), before, "no other sector is written");
    let after = file.read(0, 1 << 20).unwrap();
    assert_eq!(
        (&after[..512], &after[1024..1536]),
        (&new[..512], &new[1024..1536]),
        "as the daemon made them"
    );
    let lives = lease(&site, 2);
    assert_eq!((lives.generation, lives.owner.as_str()), (held.generation, "h2"));
    wait::until("the other host to renew its lease", Duration::from_secs(10), || {
        held.renewed_until(&lease(&site, 2)).then_some(())
    });
    here.add_lockspace(&site.lockspace(3), options).unwrap();

    assert_eq!(reinitialize_lockspace(&MEND, &site.paths).unwrap(), ExitCode::SUCCESS);
    assert_eq!(site.backups(), 1, "nothing is bad, nothing is written");
}

#[test]
fn the_bad_sector_of_a_host_that_writes_its_block_is_left_alone() {
    let site = Site::new(TOML);
    let file = SharedFile::open(&site.conf.lockspace_path().unwrap(), true).unwrap();
    for id in [4, 5] {
        file.write_sectors((id - 1) * 512, &[b'x'; 512]).unwrap();
    }
    put_block(&site, 5, false);
    let code = std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let path = site.conf.metadata_path().unwrap();
            let metadata = SharedFile::open(&path, true).unwrap();
            let mut block = metadata.read(block_offset(5), 4096).unwrap();
            // Until the repair is over: a host that writes changes its block again and again.
            for round in 0_u8.. {
                block[4000] = round.wrapping_add(1);
                metadata.write(block_offset(5), &block).unwrap();
                if site.backups() == 1 {
                    return;
                }
                std::thread::park_timeout(Duration::from_millis(50));
            }
        });
        let code = reinitialize_lockspace(&MEND, &site.paths).unwrap();
        writer.join().unwrap();
        code
    });
    assert_ne!(code, ExitCode::SUCCESS);
    assert_eq!(file.read(4 * 512, 512).unwrap()[..512], [b'x'; 512]);
    assert!(!lease(&site, 4).is_taken(), "its neighbour is mended");
}
