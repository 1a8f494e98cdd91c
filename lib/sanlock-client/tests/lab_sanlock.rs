//! Every call against the real daemon. Needs root, sanlock and libfaketime.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail the test")]

use std::io::Read;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ha_tests::sanlock::{LeaseFile, SanlockDaemon, Speed, lab_directory};
use ha_tests::wait;
use sanlock_client::{
    AcquireOptions, AddOptions, Client, EventWatch, HostEvent, HostState, Lockspace, LockspacePhase, Refusal,
    Registration, RemoveOptions, Resource, SanlockError,
};
use tempfile::TempDir;

const SOON: Duration = Duration::from_secs(10);
const WAITING: AcquireOptions = AcquireOptions { no_wait: false, owner_name: String::new() };

fn no_wait() -> AcquireOptions {
    AcquireOptions { no_wait: true, owner_name: "lab".to_owned() }
}

/// Daemons for hosts `a`, `b`, … on one shared file with two leases.
struct Lab {
    daemons: Vec<SanlockDaemon>,
    file: LeaseFile,
    directory: TempDir,
    /// Sanlock's, in its own seconds: 0.3 s of ours at tenfold speed, which a busy machine's disk can keep.
    io_timeout: u32,
}

impl Lab {
    fn new(hosts: usize, speed: Speed) -> Self {
        let directory = lab_directory().unwrap();
        let daemons: Vec<_> = ["a", "b"][..hosts]
            .iter()
            .map(|name| SanlockDaemon::start(&directory.path().join(name), name, speed).unwrap())
            .collect();
        let client = daemons[0].client();
        let io_timeout = match speed {
            Speed::True => 1,
            Speed::Tenfold => 3,
        };
        let file =
            LeaseFile::create(&client, &directory.path().join("leases"), "space", 2, io_timeout).unwrap();
        client.write_resource(&file.resource(1).unwrap(), 0, 0, None).unwrap();
        Self { daemons, file, directory, io_timeout }
    }

    fn client(&self, host: usize) -> Client {
        self.daemons[host].client()
    }

    fn lockspace(&self, host: usize) -> Lockspace {
        self.file.lockspace(host as u64 + 1)
    }

    fn resource(&self) -> Resource {
        self.file.resource(1).unwrap()
    }

    fn options(&self) -> AddOptions {
        AddOptions { io_timeout: Some(self.io_timeout), is_async: true }
    }

    fn join(&self, host: usize) {
        let (client, lockspace) = (self.client(host), self.lockspace(host));
        client.add_lockspace(&lockspace, self.options()).unwrap();
        wait::until("the lockspace to be joined", SOON, || {
            let phase = client.inquire_lockspace(&lockspace).unwrap();
            assert_ne!(phase, LockspacePhase::NotJoined, "the join failed");
            (phase == LockspacePhase::Joined).then_some(())
        });
    }

    /// Both hosts in the lockspace, and each seen alive by the other: before that sanlock cannot say of an owner
    /// whether it is alive.
    fn join_both(&self) {
        std::thread::scope(|scope| {
            scope.spawn(|| self.join(0));
            scope.spawn(|| self.join(1));
        });
        for (seen_by, host) in [(0, 1), (1, 0)] {
            wait::until("the hosts to see each other alive", SOON, || {
                (self.state_of(seen_by, host) == Some(HostState::Live)).then_some(())
            });
        }
    }

    fn state_of(&self, seen_by: usize, host: usize) -> Option<HostState> {
        let hosts = self.client(seen_by).get_hosts(&self.lockspace(0).name, Some(host as u64 + 1));
        hosts.ok()?.first().map(|host| host.state)
    }
}

/// A program that holds the lease, started through the example launcher.
struct Holder(Child);

impl Holder {
    fn start(lab: &Lab, host: usize) -> Self {
        let executable = std::env::current_exe().unwrap();
        let launcher: PathBuf = executable.parent().unwrap().parent().unwrap().join("examples/hold_lease");
        let resource = lab.resource();
        let child = Command::new(launcher)
            .arg(lab.daemons[host].socket())
            .args([resource.lockspace.as_str(), resource.name.as_str()])
            .arg(resource.disks[0].path.as_path())
            .arg(resource.disks[0].offset.to_string())
            .args(["sleep", "600"])
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Self(child)
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn refusal<T: std::fmt::Debug>(result: Result<T, SanlockError>) -> Refusal {
    let error = result.unwrap_err();
    error.refusal().unwrap_or_else(|| panic!("not a refusal: {error}"))
}

#[test]
fn before_anything_is_joined_the_daemon_says_what_is_missing() {
    let lab = Lab::new(1, Speed::Tenfold);
    let client = lab.client(0);
    let version = client.version().unwrap();
    assert!(version.major >= 3 && version.protocol >> 16 == 0, "{version:?}");
    assert_eq!(client.get_lockspaces().unwrap(), []);
    assert_eq!(client.inquire_lockspace(&lab.lockspace(0)).unwrap(), LockspacePhase::NotJoined);
    assert_eq!(refusal(client.get_hosts(&lab.lockspace(0).name, None)), Refusal::LockspaceNotJoined);
    let leave = client.remove_lockspace(&lab.lockspace(0), RemoveOptions::default());
    assert_eq!(refusal(leave), Refusal::NoSuchLockspace);

    let mut registration = Registration::register_self(&client).unwrap();
    assert_eq!(refusal(registration.acquire(&[lab.resource()], &WAITING)), Refusal::LockspaceNotJoined);
    // The refusal leaves the registration in step.
    assert_eq!(registration.inquire().unwrap(), []);
    assert_eq!(refusal(registration.release(&[lab.resource()])), Refusal::NotHeld);

    let (found, io_timeout) = client.read_lockspace(&lab.lockspace(0)).unwrap();
    assert_eq!((found.name, io_timeout), (lab.lockspace(0).name, lab.io_timeout));
    let record = client.read_resource(&lab.resource()).unwrap();
    assert_eq!((record.name, record.lockspace), (lab.resource().name, lab.resource().lockspace));
    assert_eq!(refusal(client.read_resource(&lab.file.resource(2).unwrap())), Refusal::NotInitialised);
    let mut misnamed = lab.resource();
    misnamed.name = lab.file.resource(2).unwrap().name;
    assert_eq!(refusal(client.read_resource(&misnamed)), Refusal::WrongName);
    let mut nowhere = lab.resource();
    nowhere.disks[0].path = sanlock_client::DiskPath::new(lab.directory.path().join("no-such-file")).unwrap();
    assert_eq!(refusal(client.read_resource(&nowhere)), Refusal::Storage);
}

#[test]
fn the_daemon_says_how_it_was_started() {
    let lab = Lab::new(1, Speed::True);
    let settings = lab.client(0).settings().unwrap();
    assert_eq!(settings.uses_watchdog, Some(false));
}

#[test]
fn a_lockspace_is_joined_seen_and_left() {
    let lab = Lab::new(1, Speed::Tenfold);
    let (client, lockspace) = (lab.client(0), lab.lockspace(0));
    client.add_lockspace(&lockspace, lab.options()).unwrap();
    assert_eq!(client.inquire_lockspace(&lockspace).unwrap(), LockspacePhase::Joining);
    assert_eq!(client.get_lockspaces().unwrap()[0].phase, LockspacePhase::Joining);
    assert_eq!(refusal(client.add_lockspace(&lockspace, AddOptions::default())), Refusal::InProgress);
    wait::until("the lockspace to be joined", SOON, || {
        (client.inquire_lockspace(&lockspace).unwrap() == LockspacePhase::Joined).then_some(())
    });
    let listed = client.get_lockspaces().unwrap();
    assert_eq!((&listed[0].lockspace, listed[0].phase), (&lockspace, LockspacePhase::Joined));
    assert_eq!(refusal(client.add_lockspace(&lockspace, AddOptions::default())), Refusal::AlreadyJoined);
    let other_id = lab.file.lockspace(9);
    assert_eq!(refusal(client.add_lockspace(&other_id, AddOptions::default())), Refusal::LockspaceConflict);
    assert_eq!(client.inquire_lockspace(&other_id).unwrap(), LockspacePhase::NotJoined);

    let hosts =
        wait::until("the first look at the hosts", SOON, || match client.get_hosts(&lockspace.name, None) {
            Ok(hosts) if !hosts.is_empty() => Some(hosts),
            Ok(_) => None,
            Err(e) => {
                assert_eq!(e.refusal(), Some(Refusal::HostsNotYetKnown), "{e}");
                None
            }
        });
    assert_eq!((hosts.len(), hosts[0].host_id, hosts[0].generation), (1, 1, 1));
    assert_eq!((hosts[0].io_timeout, hosts[0].state), (lab.io_timeout, HostState::Live));
    assert_eq!(client.get_hosts(&lockspace.name, Some(5)).unwrap()[0].host_id, 5);

    let mut registration = Registration::register_self(&client).unwrap();
    registration.killpath("/bin/true".as_ref(), "lab", true).unwrap();
    registration.acquire(&[lab.resource()], &no_wait()).unwrap();
    let unused = RemoveOptions { unused: true, is_async: false };
    assert_eq!(refusal(client.remove_lockspace(&lockspace, unused)), Refusal::LockspaceInUse);
    registration.release_all().unwrap();
    client.remove_lockspace(&lockspace, unused).unwrap();
    assert_eq!(client.inquire_lockspace(&lockspace).unwrap(), LockspacePhase::NotJoined);
    assert_eq!(client.get_lockspaces().unwrap(), []);
}

#[test]
fn two_hosts_contend_and_the_lease_goes_on_when_the_holder_exits() {
    let lab = Lab::new(2, Speed::Tenfold);
    lab.join_both();
    assert_eq!(lab.client(0).read_resource_owners(&lab.resource()).unwrap().owners, []);
    let mut first = Registration::register_self(&lab.client(0)).unwrap();
    first.acquire(&[lab.resource()], &no_wait()).unwrap();
    let held = first.inquire().unwrap();
    assert_eq!((&held[0].resource, held[0].lver), (&lab.resource(), Some(1)));
    assert_eq!(lab.client(0).inquire_pid(std::process::id()).unwrap(), held);

    let mut second = Registration::register_self(&lab.client(1)).unwrap();
    let error = second.acquire(&[lab.resource()], &no_wait()).unwrap_err();
    assert_eq!((error.code(), error.refusal()), (Some(-243), Some(Refusal::HeldByLiveHost)));
    let owners = lab.client(1).read_resource_owners(&lab.resource()).unwrap();
    let [owner] = owners.owners[..] else { panic!("{owners:?}") };
    assert_eq!((owner.host_id, owner.generation, owners.shared, owners.lver), (1, 1, false, 1));
    assert!(owner.timestamp > 0);

    // The other host's own view: one process of it holds the lease already.
    let mut sibling = Registration::register_self(&lab.client(0)).unwrap();
    assert_eq!(refusal(sibling.acquire(&[lab.resource()], &no_wait())), Refusal::HeldOnThisHost);

    first.release(&[lab.resource()]).unwrap();
    second.acquire(&[lab.resource()], &no_wait()).unwrap();
    assert_eq!(second.inquire().unwrap()[0].lver, Some(2));
    drop(second);
    wait::until("the lease to be free after its holder hung up", SOON, || {
        first.acquire(&[lab.resource()], &no_wait()).ok()
    });
}

#[test]
fn a_program_owns_the_lease_that_its_launcher_took() {
    let lab = Lab::new(2, Speed::Tenfold);
    lab.join_both();
    let mut holder = Holder::start(&lab, 0);
    let pid = holder.0.id();
    let client = lab.client(0);
    let held = wait::until("the program to own the lease", SOON, || {
        if let Some(status) = holder.0.try_wait().unwrap() {
            let mut why = String::new();
            holder.0.stderr.take().unwrap().read_to_string(&mut why).unwrap();
            panic!("the launcher ended with {status}: {why}");
        }
        client.inquire_pid(pid).ok().filter(|held| !held.is_empty())
    });
    assert_eq!(held[0].resource, lab.resource());
    wait::until("the launcher to become sleep", SOON, || {
        let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap();
        (name == "sleep\n").then_some(())
    });
    assert_eq!(client.inquire_pid(pid).unwrap(), held, "exec must not lose the lease");

    let mut rival = Registration::register_self(&lab.client(1)).unwrap();
    assert_eq!(refusal(rival.acquire(&[lab.resource()], &no_wait())), Refusal::HeldByLiveHost);
    holder.0.kill().unwrap();
    holder.0.wait().unwrap();
    wait::until("the killed program's lease to be free", SOON, || {
        rival.acquire(&[lab.resource()], &no_wait()).ok()
    });
    assert_eq!(refusal(client.inquire_pid(pid)), Refusal::NoSuchProcess);
}

#[test]
fn looking_at_a_process_does_not_make_its_acquire_fail() {
    let lab = Lab::new(1, Speed::Tenfold);
    lab.join(0);
    let client = lab.client(0);
    let own = std::process::id();
    let mut registration = Registration::register_self(&client).unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let lookers: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    while !done.load(Ordering::Relaxed) {
                        assert!(client.inquire_pid(own).unwrap().len() <= 1);
                    }
                })
            })
            .collect();
        let result = (0..30).try_for_each(|_| {
            registration.acquire(&[lab.resource()], &no_wait())?;
            registration.release(&[lab.resource()])
        });
        done.store(true, Ordering::Relaxed);
        for looker in lookers {
            looker.join().unwrap();
        }
        result.unwrap();
    });
}

#[test]
fn leases_are_acquired_and_released_for_another_process() {
    let lab = Lab::new(1, Speed::Tenfold);
    lab.join(0);
    let client = lab.client(0);
    let own = std::process::id();
    let _registration = Registration::register_self(&client).unwrap();
    client.acquire_for_pid(own, &[lab.resource()], &no_wait()).unwrap();
    assert_eq!(client.inquire_pid(own).unwrap()[0].resource, lab.resource());
    client.release_for_pid(own, &[lab.resource()]).unwrap();
    assert_eq!(client.inquire_pid(own).unwrap(), []);
    assert_eq!(refusal(client.acquire_for_pid(1, &[lab.resource()], &no_wait())), Refusal::NoSuchProcess);
}

#[test]
fn a_dead_hosts_lease_is_refused_while_it_is_silent_and_given_when_it_is_dead() {
    let mut lab = Lab::new(2, Speed::Tenfold);
    lab.join_both();
    let _holder = Holder::start(&lab, 1);
    let client = lab.client(0);
    wait::until("the other host to own the lease", SOON, || {
        client.read_resource_owners(&lab.resource()).ok().filter(|found| !found.owners.is_empty())
    });
    drop(lab.daemons.pop());
    wait::until("the silent host to be failing", SOON, || {
        (lab.state_of(0, 1) == Some(HostState::Fail)).then_some(())
    });
    let mut heir = Registration::register_self(&client).unwrap();
    assert_eq!(refusal(heir.acquire(&[lab.resource()], &no_wait())), Refusal::OwnerSilent);
    wait::until("the silent host to be dead", Duration::from_secs(30), || {
        (lab.state_of(0, 1) == Some(HostState::Dead)).then_some(())
    });
    heir.acquire(&[lab.resource()], &no_wait()).unwrap();
}

#[test]
fn a_host_id_of_a_live_host_is_refused() {
    let lab = Lab::new(2, Speed::Tenfold);
    lab.join(0);
    let options = AddOptions { is_async: false, ..lab.options() };
    let join = lab.client(1).with_deadline(Duration::from_mins(1)).add_lockspace(&lab.lockspace(0), options);
    let error = join.unwrap_err();
    assert_eq!((error.code(), error.refusal()), (Some(-262), Some(Refusal::HostIdBusy)));
}

#[test]
fn at_true_speed_a_free_id_is_joined_and_a_held_lease_refused_at_once() {
    let lab = Lab::new(2, Speed::True);
    lab.join_both();
    let mut first = Registration::register_self(&lab.client(0)).unwrap();
    first.acquire(&[lab.resource()], &WAITING).unwrap();
    let mut second = Registration::register_self(&lab.client(1)).unwrap();
    second.set_deadline(Duration::from_secs(10));
    assert_eq!(refusal(second.acquire(&[lab.resource()], &WAITING)), Refusal::HeldByLiveHost);
    drop(first);
    wait::until("the lease to be free", SOON, || second.acquire(&[lab.resource()], &no_wait()).ok());
}

#[test]
fn a_frozen_daemon_costs_one_deadline() {
    let lab = Lab::new(1, Speed::True);
    lab.daemons[0].freeze().unwrap();
    let error = lab.client(0).with_deadline(Duration::from_millis(200)).version().unwrap_err();
    assert!(matches!(error, SanlockError::Deadline { .. }), "{error}");
    lab.daemons[0].thaw().unwrap();
    lab.client(0).version().unwrap();
}

#[test]
fn a_message_reaches_the_addressed_host_and_its_answer_comes_back() {
    let lab = Lab::new(2, Speed::Tenfold);
    lab.join_both();
    let space = lab.lockspace(0).name;
    let mut watches: Vec<_> =
        [0, 1].map(|host| EventWatch::register(&lab.client(host), &space).unwrap()).into();
    assert_eq!(watches[1].next(Duration::ZERO).unwrap(), None);
    let event = |host_id, event| HostEvent { host_id, generation: 0, event, data: 42 };
    lab.client(0).set_event(&space, event(2, 1)).unwrap();
    let heard = watches[1].next(SOON).unwrap().expect("the question");
    assert_eq!((heard.from, heard.event.event, heard.event.data), (1, 1, 42));
    assert_eq!(heard.event.generation, 1, "the daemon filled it in");
    lab.client(1).set_event(&space, event(1, 2)).unwrap();
    let answer = watches[0].next(SOON).unwrap().expect("the answer");
    assert_eq!((answer.from, answer.event.event), (2, 2));
    let unknown = sanlock_client::LockspaceName::new("nowhere").unwrap();
    assert_eq!(lab.client(0).set_event(&unknown, event(2, 1)).unwrap_err().code(), Some(-2));
    // Each place of a listener is free again.
    for _ in 0..40 {
        drop(EventWatch::register(&lab.client(0), &space).unwrap());
    }
}
