//! Live migrations that lose an end or their stream at each phase: one guest goes on, under the lease, or none does and
//! the VM can be started again. Needs root, QEMU, sanlock and libfaketime.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail the test")]

mod lab;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use engine_vm::qemu::QmpRole;
use engine_vm::{EngineVm, MigrationProgress, MigrationTarget, StartMode, VmActivity, VmEvent, VmExit};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Notify;

use lab::moving::{Poller, limit_speed, progress_when, run_state_when};
use lab::{Lab, SOON, is_up, status_when};

/// So fast that a migration never ends in the time of a test.
const CRAWL: u64 = 10_000;

fn anywhere() -> MigrationTarget {
    MigrationTarget { uri: "tcp:127.0.0.1:0".to_owned() }
}

fn is_moving(progress: &MigrationProgress) -> bool {
    matches!(progress, MigrationProgress::Active { transferred: 1.., .. })
}

fn is_failed(progress: &MigrationProgress) -> bool {
    matches!(progress, MigrationProgress::Failed { .. })
}

fn is_gone(status: &engine_vm::VmStatus) -> bool {
    status.exit.is_some()
}

/// A network between source and destination that breaks.
struct Network {
    uri: String,
    sent: Arc<AtomicU64>,
    /// Breaks it now.
    cut: Arc<Notify>,
}

impl Network {
    async fn breaking_after(bytes: u64, destination: &MigrationTarget) -> Self {
        Self::start(bytes, true, destination).await
    }

    /// What the destination answers is lost.
    async fn mute(destination: &MigrationTarget) -> Self {
        Self::start(u64::MAX, false, destination).await
    }

    async fn start(bytes: u64, has_answers: bool, destination: &MigrationTarget) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let uri = format!("tcp:{}", listener.local_addr().unwrap());
        let to = destination.uri.strip_prefix("tcp:").unwrap().to_owned();
        let (sent, cut) = (Arc::new(AtomicU64::new(0)), Arc::new(Notify::new()));
        let (count, end) = (sent.clone(), cut.clone());
        tokio::spawn(async move {
            let (source, _) = listener.accept().await.unwrap();
            let destination = TcpStream::connect(to).await.unwrap();
            let (mut from_source, mut to_source) = source.into_split();
            let (mut from_destination, mut to_destination) = destination.into_split();
            let there = async {
                let mut chunk = vec![0; 4096];
                let mut left = bytes;
                while left > 0 {
                    let most = chunk.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                    let Ok(length @ 1..) = from_source.read(&mut chunk[..most]).await else { return };
                    if to_destination.write_all(&chunk[..length]).await.is_err() {
                        return;
                    }
                    left -= length as u64;
                    count.fetch_add(length as u64, Ordering::Relaxed);
                }
            };
            let back = async {
                if has_answers {
                    let _ = copy(&mut from_destination, &mut to_source).await;
                }
                std::future::pending::<()>().await;
            };
            // With both connections dropped, both ends see them broken.
            tokio::select! {
                () = there => {}
                () = back => {}
                () = end.notified() => {}
            }
        });
        Self { uri, sent, cut }
    }

    fn target(&self) -> MigrationTarget {
        MigrationTarget { uri: self.uri.clone() }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_breaks_anywhere_leaves_the_guest_at_the_source() {
    let lab = Lab::new();
    let (source, destination) = (lab.vm(0, QmpRole::Agent), lab.vm(1, QmpRole::Agent));
    source.start(StartMode::Run).await.unwrap();
    // Where it can break follows from a whole stream: there and back again.
    let network =
        Network::breaking_after(u64::MAX, &destination.prepare_incoming(&anywhere()).await.unwrap()).await;
    source.migrate(&network.target()).await.unwrap();
    status_when(&destination, "the guest to arrive", is_up).await;
    status_when(&source, "the source to end", is_gone).await;
    let whole = network.sent.load(Ordering::Relaxed);
    let back = source.prepare_incoming(&anywhere()).await.unwrap();
    destination.migrate(&back).await.unwrap();
    status_when(&source, "the guest to be back", is_up).await;
    status_when(&destination, "the other to end", is_gone).await;
    let pid = source.status().await.unwrap().pid;
    let version = lab.lease(0).version().unwrap();

    for bytes in [0, 1, whole / 2, whole - whole / 10] {
        let listening = destination.prepare_incoming(&anywhere()).await.unwrap();
        let network = Network::breaking_after(bytes, &listening).await;
        let poller = Poller::start(&lab, [0, 1]);
        source.migrate(&network.target()).await.unwrap();
        progress_when(&source, is_failed).await;
        let status = status_when(&source, "the guest to go on", is_up).await;
        assert_eq!(status.pid, pid, "broken after {bytes} of {whole} bytes");
        assert_eq!(lab.lease(0).held_version(pid.unwrap()), Ok(Some(version)), "it was never let go of");
        // A listener that no byte reached waits on: whoever had it made ends it.
        if destination.status().await.unwrap().activity == VmActivity::MigrationDestination {
            match destination.destroy().await {
                Ok(()) | Err(engine_vm::VmError::NotRunning) => {}
                Err(error) => panic!("{error}"),
            }
        }
        status_when(&destination, "the destination to be gone", is_gone).await;
        poller.end().await;
    }

    // The destination has everything, and the source does not hear of it: one side thinks that it worked.
    let listening = destination.prepare_incoming(&anywhere()).await.unwrap();
    let network = Network::mute(&listening).await;
    let poller = Poller::start(&lab, [0, 1]);
    source.migrate(&network.target()).await.unwrap();
    run_state_when(&lab, 1, "paused").await;
    network.cut.notify_one();
    progress_when(&source, is_failed).await;
    let status = status_when(&source, "the guest to go on", is_up).await;
    assert_eq!(status.pid, pid);
    // It tries for the lease, in vain.
    assert_eq!(destination.status().await.unwrap().activity, VmActivity::MigrationDestination);
    assert_eq!(lab.lease(0).held_version(pid.unwrap()), Ok(Some(version)), "it was never let go of");
    poller.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_migration_can_be_called_off_and_its_events_are_told() {
    let lab = Lab::new();
    let (source, destination) = (lab.vm(0, QmpRole::Agent), lab.vm(1, QmpRole::Agent));
    source.start(StartMode::Run).await.unwrap();
    // A port that somebody has is an error that names it, and nothing is left behind.
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = taken.local_addr().unwrap().port();
    let busy = MigrationTarget { uri: format!("tcp:127.0.0.1:{port}") };
    let error = destination.prepare_incoming(&busy).await.unwrap_err().to_string();
    assert!(error.contains("in use"), "{error}");
    assert_eq!(destination.status().await.unwrap().activity, VmActivity::Down);

    let listening = destination.prepare_incoming(&anywhere()).await.unwrap();
    limit_speed(&lab, 0, CRAWL).await;
    source.migrate(&listening).await.unwrap();
    progress_when(&source, is_moving).await;
    let poller = Poller::start(&lab, [0, 1]);
    source.migrate_cancel().await.unwrap();
    progress_when(&source, is_failed).await;
    status_when(&source, "the guest to go on", is_up).await;
    status_when(&destination, "the destination to be gone", is_gone).await;
    poller.end().await;
    // Called off once more: nothing is under way, and nothing happens.
    source.migrate_cancel().await.unwrap();
    limit_speed(&lab, 0, 1 << 30).await;

    let (mut leaving, mut arriving) = (source.events(), destination.events());
    let listening = destination.prepare_incoming(&anywhere()).await.unwrap();
    source.migrate(&listening).await.unwrap();
    await_event(&mut arriving, &VmEvent::Changed(VmActivity::MigrationDestination)).await;
    await_event(&mut leaving, &VmEvent::Changed(VmActivity::MigrationSource)).await;
    await_event(&mut arriving, &VmEvent::Changed(VmActivity::Up)).await;
    await_event(&mut leaving, &VmEvent::Ended(VmExit::MigratedAway)).await;
}

async fn await_event(events: &mut tokio::sync::broadcast::Receiver<VmEvent>, wanted: &VmEvent) {
    let heard = async {
        loop {
            if events.recv().await.unwrap() == *wanted {
                return;
            }
        }
    };
    tokio::time::timeout(SOON, heard).await.unwrap_or_else(|_| panic!("{wanted:?} was never told"));
}

/// In the middle there is nothing to go on with: the VM is started again. After all was sent, the destination goes on.
#[test]
fn a_lost_source_leaves_a_vm_that_can_start_or_one_that_goes_on() {
    let lab = Lab::new();
    let life = || tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let middle = life();
    middle.block_on(async {
        let (source, destination) = (lab.vm(0, QmpRole::Agent), lab.vm(1, QmpRole::Agent));
        source.start(StartMode::Run).await.unwrap();
        let listening = destination.prepare_incoming(&anywhere()).await.unwrap();
        limit_speed(&lab, 0, CRAWL).await;
        source.migrate(&listening).await.unwrap();
        progress_when(&source, is_moving).await;
        lab.kill(0);
        let gone = status_when(&destination, "the destination to end", is_gone).await;
        assert!(matches!(gone.exit, Some(VmExit::StartFailed { .. })), "{gone:?}");
        let gone = status_when(&source, "the source to be gone", is_gone).await;
        assert!(matches!(gone.exit, Some(VmExit::Crashed { .. })), "{gone:?}");
        destination.start(StartMode::Run).await.unwrap();
        status_when(&destination, "the VM to run again", is_up).await;
        destination.destroy().await.unwrap();
        source.start(StartMode::Run).await.unwrap();
    });
    middle.shutdown_timeout(SOON);

    // Nobody lets go of the lease at the source, as when its agent died; then its QEMU does.
    let (first, second) = (life(), life());
    let version = lab.lease(0).version().unwrap();
    let destination = second.block_on(async { lab.vm(1, QmpRole::Agent) });
    let listening = second.block_on(destination.prepare_incoming(&anywhere())).unwrap();
    first.block_on(async {
        limit_speed(&lab, 0, CRAWL).await;
        lab.vm(0, QmpRole::Agent).migrate(&listening).await.unwrap();
    });
    first.shutdown_timeout(SOON);
    second.block_on(async {
        limit_speed(&lab, 0, 1 << 30).await;
        let poller = Poller::start(&lab, [0, 1]);
        // Everything is sent, and it stands still with the lease in its hand.
        run_state_when(&lab, 0, "postmigrate").await;
        assert_eq!(destination.status().await.unwrap().activity, VmActivity::MigrationDestination);
        lab.kill(0);
        let arrived = status_when(&destination, "the guest to go on", is_up).await;
        assert_eq!(lab.lease(1).held_version(arrived.pid.unwrap()), Ok(Some(version + 1)));
        poller.end().await;
    });
}

/// Loaded, but gone before it had the lease: the source goes on. Gone after that: the VM is down, and can start.
#[test]
fn a_lost_destination_gives_the_guest_back_or_leaves_a_vm_that_can_start() {
    let lab = Lab::new();
    let life = || tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let (first, second) = (life(), life());
    let source = first.block_on(async { lab.vm(0, QmpRole::Agent) });
    first.block_on(source.start(StartMode::Run)).unwrap();
    let pid = first.block_on(source.status()).unwrap().pid;
    let version = lab.lease(0).version().unwrap();
    let listening = second.block_on(async {
        let destination = lab.vm(1, QmpRole::Agent);
        destination.prepare_incoming(&anywhere()).await.unwrap()
    });
    // Nobody takes the lease there, as when that agent died.
    second.shutdown_timeout(SOON);
    first.block_on(async {
        let poller = Poller::start(&lab, [0, 1]);
        source.migrate(&listening).await.unwrap();
        wait_until_released(&lab, pid.unwrap()).await;
        lab.kill(1);
        let status = status_when(&source, "the guest to go on at the source", is_up).await;
        assert_eq!(status.pid, pid);
        assert_eq!(lab.lease(0).held_version(pid.unwrap()), Ok(Some(version + 1)));
        poller.end().await;

        let destination = lab.vm(1, QmpRole::Agent);
        let listening = destination.prepare_incoming(&anywhere()).await.unwrap();
        source.migrate(&listening).await.unwrap();
        status_when(&destination, "the guest to arrive", is_up).await;
        lab.kill(1);
        let left = status_when(&source, "the source to end", is_gone).await;
        assert_eq!(left.exit, Some(VmExit::MigratedAway));
        let gone = status_when(&destination, "the destination to be gone", is_gone).await;
        assert!(matches!(gone.exit, Some(VmExit::Crashed { .. })), "{gone:?}");
        source.start(StartMode::Run).await.unwrap();
        status_when(&source, "the VM to run again", is_up).await;
    });
}

async fn wait_until_released(lab: &Lab, pid: u32) {
    let released = async {
        while lab.lease(0).held_version(pid) != Ok(None) {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(SOON, released).await.unwrap();
}

/// Its kernel drops every further request to connect.
async fn full_listener() -> (TcpListener, TcpStream) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(0).unwrap();
    let first = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    (listener, first)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_destination_that_nothing_reaches_is_given_up_soon_and_another_one_can_be_tried() {
    let lab = Lab::new();
    let (source, destination) = (lab.vm(0, QmpRole::Agent), lab.vm(1, QmpRole::Agent));
    source.start(StartMode::Run).await.unwrap();
    let (listener, _first) = full_listener().await;
    let silent = MigrationTarget { uri: format!("tcp:{}", listener.local_addr().unwrap()) };
    let error = tokio::time::timeout(SOON, source.migrate(&silent)).await.unwrap().unwrap_err().to_string();
    assert!(error.contains("no answer within 10 s") && error.contains("firewall"), "{error}");
    assert!(error.contains(&silent.uri["tcp:".len()..]), "{error}");
    assert!(is_up(&source.status().await.unwrap()));
    assert_eq!(source.migration_progress().await.unwrap(), MigrationProgress::None);

    let target = destination.prepare_incoming(&anywhere()).await.unwrap();
    source.migrate(&target).await.unwrap();
    status_when(&destination, "the guest to arrive", is_up).await;
    status_when(&source, "the source to end", is_gone).await;
    destination.destroy().await.unwrap();
}
