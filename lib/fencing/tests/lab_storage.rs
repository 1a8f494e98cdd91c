//! The reset through storage with two real sanlock daemons and, on the host that is reset, the real `sanlk-resetd` without
//! a watchdog. Needs root, sanlock, sanlk-reset and libfaketime.

#![allow(clippy::unwrap_used, reason = "a failed assumption must fail the test")]

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use fencing::{Action, FenceError, HostError, HostPower, Power, StorageResetError};
use ha_config::{HaToml, Paths};
use ha_tests::sanlock::{LeaseFile, SanlockDaemon, Speed, lab_directory};
use ha_tests::wait;
use metadata_format::HostId;
use sanlock_client::{AddOptions, EventWatch, HostEvent, HostState, LockspaceName, LockspacePhase};
use tempfile::TempDir;

const SOON: Duration = Duration::from_secs(20);

struct Lab {
    daemons: Vec<SanlockDaemon>,
    directory: TempDir,
    space: LockspaceName,
}

/// Two hosts in one lockspace, each seen alive by the other. The first one has a root of its own.
fn lab() -> Lab {
    let directory = lab_directory().unwrap();
    let run_dirs = [directory.path().join("run/sanlock"), directory.path().join("b")];
    let daemons: Vec<_> = run_dirs
        .iter()
        .zip(["a", "b"])
        .map(|(run_dir, name)| SanlockDaemon::start(run_dir, name, Speed::Tenfold).unwrap())
        .collect();
    let file =
        LeaseFile::create(&daemons[0].client(), &directory.path().join("leases"), "space", 1, 3).unwrap();
    for (daemon, id) in daemons.iter().zip(1..) {
        let options = AddOptions { io_timeout: Some(3), is_async: true };
        daemon.client().add_lockspace(&file.lockspace(id), options).unwrap();
    }
    let space = file.lockspace(1).name;
    for (daemon, (own, other)) in daemons.iter().zip([(1, 2), (2, 1)]) {
        wait::until("the hosts to see each other alive", SOON, || {
            let joined = daemon.client().inquire_lockspace(&file.lockspace(own)).ok()?;
            let hosts = daemon.client().get_hosts(&space, Some(other)).ok()?;
            (joined == LockspacePhase::Joined && hosts.first()?.state == HostState::Live).then_some(())
        });
    }
    Lab { daemons, directory, space }
}

fn host2(lab: &Lab) -> HostPower {
    let paths = Paths::new(lab.directory.path());
    let text = "[[fencing.host]]\nhost_id = 2\nagent = \"sanlock\"\noptions = { lockspace = \"space\" }\n";
    let toml = HaToml::parse(&paths, text).unwrap();
    HostPower::of(&toml.fencing, &paths, HostId::new(2).unwrap(), None).unwrap()
}

/// Why the only switch did not do it.
fn reason(error: &HostError) -> &StorageResetError {
    let HostError::Failed { action: Action::Off | Action::Status, errors } = error else { panic!("{error}") };
    let FenceError::Storage(reason) = &errors[0] else { panic!("{error}") };
    reason
}

#[tokio::test]
async fn a_host_that_answers_and_dies_is_off() {
    let mut lab = lab();
    let host = host2(&lab);
    assert_eq!(host.status(&mut |_| {}).await.unwrap(), Power::On);
    // Plays the reset daemon and the watchdog behind it: hears the request, answers, and the host is gone.
    let there = lab.daemons.pop().unwrap();
    let (client, space) = (there.client(), lab.space.clone());
    let mut watch = EventWatch::register(&client, &space).unwrap();
    let dies = std::thread::spawn(move || {
        let asked = watch.next(SOON).unwrap().expect("the request");
        assert_eq!((asked.from, asked.event.event), (1, 1));
        let answer = HostEvent { host_id: 1, generation: 0, event: 2, data: 0 };
        client.set_event(&space, answer).unwrap();
        // Two renewals, so that the answer is on storage.
        let stamp = || client.get_hosts(&space, Some(2)).unwrap()[0].timestamp;
        let first = stamp();
        wait::until("two renewals", SOON, || (stamp() >= first + 12).then_some(()));
        drop(there);
    });
    let mut said = Vec::new();
    host.off(&mut |step| said.push(step.to_string())).await.unwrap();
    dies.join().unwrap();
    let steps: Vec<_> = said.iter().map(|line| line.split(" after").next().unwrap()).collect();
    assert_eq!(
        steps,
        ["off: asked sanlock through lockspace space", "off: the power is still on", "off: confirmed"]
    );
    assert_eq!(host.status(&mut |_| {}).await.unwrap(), Power::Off);
    let again = host.off(&mut |_| {}).await.unwrap_err();
    assert!(matches!(reason(&again), StorageResetError::NotLive { state: HostState::Dead, .. }), "{again}");
}

#[tokio::test]
async fn a_host_where_nobody_listens_is_not_off() {
    let lab = lab();
    let error = host2(&lab).off(&mut |_| {}).await.unwrap_err();
    assert!(matches!(reason(&error), StorageResetError::Deaf { .. }), "{error}");
    assert!(error.to_string().contains("sanlk-reset reg space"), "{error}");
    let error = host2(&lab).on(&mut |_| {}).await.unwrap_err().to_string();
    assert!(error.contains("boots by itself"), "{error}");
}

/// Ends with the test.
struct ResetDaemon(Child);

impl Drop for ResetDaemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_real_reset_daemon_understands_the_request() {
    let lab = lab();
    let there = &lab.daemons[1];
    assert!(
        Path::new("/usr/sbin/sanlk-resetd").exists(),
        "the package sanlk-reset must be installed for this test"
    );
    // Without a watchdog, in the foreground.
    let daemon = Command::new("/usr/sbin/sanlk-resetd")
        .args(["-f", "-w", "0", "-D", "space"])
        .env("SANLOCK_RUN_DIR", there.run_dir())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut daemon = ResetDaemon(daemon);
    let client = lab.daemons[0].client();
    let mut watch = EventWatch::register(&client, &lab.space).unwrap();
    let request = HostEvent { host_id: 2, generation: 0, event: 1, data: 0 };
    let answer = wait::until("the reset daemon to answer", Duration::from_secs(30), || {
        assert!(daemon.0.try_wait().unwrap().is_none(), "sanlk-resetd ended at once");
        // Again and again: the daemon may not listen yet.
        let _ = client.set_event(&lab.space, request);
        watch.next(Duration::from_secs(1)).unwrap().filter(|heard| heard.from == 2)
    });
    assert_ne!(answer.event.event & 2, 0, "it says that it is resetting");
}
