//! Handing the lease over with a live migration: one task on each side, which share storage and nothing else.
//!
//! ```text
//!  source                                   destination
//!  guest runs, lease version L              QEMU waits, processors stopped, no lease; L is read from storage
//!  memory is sent ────────────────────────► memory is loaded
//!  sent: QEMU stopped the guest for good
//!  releases the lease                       loaded: tries for the lease
//!  sees version L+1 on storage: quits       holds version L+1: resumes the guest
//!  sees L for too long: takes it again      sees a later version, or L for too long: quits
//!  holds L+1: resumes the guest
//! ```
//!
//! A guest is resumed only by the side that holds version L+1: the lock manager gives that number out once, so the
//! memory that goes on is never older than the disk, and no two sides can go on. The source lets go only after
//! its QEMU has completed: before that, a QEMU whose migration fails resumes the guest by itself, whoever has
//! the lease. What is to be done follows from storage and QEMU alone, so a task of a restarted agent takes over
//! at any point.

use std::fs::File;
use std::time::Duration;

use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::look::{Found, Inner, Shared, blocking};
use super::run_dir::{HANDOVER, HANDOVER_LOCK, RunDir};
use crate::lease::{LeaseError, LeaseSpec, open_lock};
use crate::port::{VmActivity, VmError, VmEvent};

/// How long the source leaves the free lease to the destination before it takes it back. Taking a free lease is
/// some small writes.
const LEFT_FREE: Duration = Duration::from_secs(10);
/// How long a side tries for the lease in all. With storage that needs longer the guest cannot live anyway.
const TRY: Duration = Duration::from_mins(1);
/// How long a destination waits for the source to connect.
const CONNECT: Duration = Duration::from_mins(2);
/// Pause between two looks: neither QEMU's progress nor another host's release is told by an event here.
const POLL: Duration = Duration::from_millis(50);

/// How far a hand-over is; kept in the run directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Handover {
    /// The lease's version at the source.
    pub version: u64,
    /// How far it is on this side.
    pub phase: Phase,
}

/// Which side this is, and how it ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "phase", rename_all = "snake_case")]
pub enum Phase {
    /// The VM leaves this host.
    Leaving,
    /// It arrives.
    Arriving,
    /// It was handed over.
    Done,
    /// It was not.
    Failed {
        /// Why, and where the guest is.
        detail: String,
    },
}

impl Handover {
    /// The one of this run directory's VM. One that cannot be read is none: then nobody resumes anything.
    pub fn load(dir: &RunDir) -> Option<Self> {
        dir.read(HANDOVER).unwrap_or_else(|error| {
            tracing::warn!(%error, "cannot read {}", dir.file(HANDOVER).display());
            None
        })
    }

    /// True until it has ended either way.
    pub fn is_under_way(&self) -> bool {
        matches!(self.phase, Phase::Leaving | Phase::Arriving)
    }
}

/// What is to be done next by a side whose part of the migration itself is complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// This side has the lease in the right version.
    Resume,
    /// This side gives the lease up.
    Release,
    /// This side tries for the free lease.
    Take,
    /// Look again.
    Wait,
    /// Somebody else has had the lease in between: the guest here must never go on.
    Quit,
}

/// What the lock manager and storage say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Lease {
    /// Version that this side's process holds.
    held: Option<u64>,
    /// Version on storage.
    on_storage: u64,
}

fn next_step(handover: &Handover, lease: Lease, is_left_free: bool) -> Step {
    let (old, new) = (handover.version, handover.version + 1);
    match lease.held {
        Some(held) if held == new => Step::Resume,
        Some(held) if held == old && handover.phase == Phase::Leaving => Step::Release,
        Some(_) => Step::Quit,
        None if lease.on_storage != old => Step::Quit,
        None if handover.phase == Phase::Leaving && is_left_free => Step::Wait,
        None => Step::Take,
    }
}

fn look_at(lease: &LeaseSpec, pid: u32) -> Result<Lease, LeaseError> {
    // In this order: a version taken in between is then seen as another's, never as still free.
    let held = lease.held_version(pid)?;
    let on_storage = lease.version()?;
    Ok(Lease { held, on_storage })
}

/// Carries on a hand-over that is under way, in a task, unless one does already.
pub(super) fn carry_on(inner: &Shared) {
    if !Handover::load(&inner.dir).is_some_and(|handover| handover.is_under_way()) {
        return;
    }
    let Some(lock) = lock(&inner.dir) else { return };
    let inner = inner.clone();
    tokio::spawn(async move {
        let _lock = lock;
        if let Err(error) = carry_through(&inner).await {
            tracing::warn!(%error, "the migration's hand-over is interrupted; the agent goes on with it");
            // Not at once: whoever looks next tries again.
        }
    });
}

/// The right to act, for as long as it is open.
fn lock(dir: &RunDir) -> Option<File> {
    let file = open_lock(&dir.file(HANDOVER_LOCK)).ok()?;
    rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).ok()?;
    Some(file)
}

async fn carry_through(inner: &Inner) -> Result<(), VmError> {
    // Read again under the lock.
    let Some(handover) = Handover::load(&inner.dir).filter(Handover::is_under_way) else { return Ok(()) };
    let Some(found) = inner.find()?.filter(|found| found.is_qemu) else { return Ok(()) };
    match await_end(inner, &found, &handover).await? {
        Moved::Gone => Ok(()),
        Moved::Completed => hand_over(inner, &found, &handover).await,
        Moved::Failed(detail) if handover.phase == Phase::Leaving => {
            // It never let go of the lease, and QEMU let the guest go on.
            tracing::warn!(detail, "the migration failed; the engine VM goes on here");
            note(inner, &handover, Phase::Failed { detail })?;
            inner.tell(VmEvent::Changed(VmActivity::Up));
            Ok(())
        }
        Moved::Failed(detail) => give_up(inner, &found, &handover, detail).await,
    }
}

/// How QEMU's part ended.
enum Moved {
    Completed,
    Failed(String),
    Gone,
}

async fn await_end(inner: &Inner, found: &Found, handover: &Handover) -> Result<Moved, VmError> {
    let begun = Instant::now();
    loop {
        if found.process.has_ended().unwrap_or(false) {
            return Ok(Moved::Gone);
        }
        let migration = inner.command("tell how the migration goes", "query-migrate", Value::Null).await;
        let state = inner.command("tell how the guest is", "query-status", Value::Null).await;
        // A QEMU that does not answer for a moment may still be at it: only its end, or its word, counts.
        if let (Ok(migration), Ok(state)) = (migration, state) {
            let is_stopped = state["running"] == false;
            let is_waiting = match (migration["status"].as_str().unwrap_or("none"), &handover.phase) {
                // The run state too: the word alone may be left from an earlier migration.
                ("completed", Phase::Leaving) if state["status"] == "postmigrate" => {
                    return Ok(Moved::Completed);
                }
                ("completed", Phase::Arriving) if is_stopped && state["status"] != "inmigrate" => {
                    return Ok(Moved::Completed);
                }
                ("failed" | "cancelled", _) => {
                    let detail = migration["error-desc"].as_str().unwrap_or("QEMU gives no reason");
                    return Ok(Moved::Failed(format!("the migration failed: {detail}")));
                }
                ("none" | "completed", Phase::Leaving) | ("none" | "setup", Phase::Arriving) => true,
                _ => false,
            };
            if is_waiting && begun.elapsed() > CONNECT {
                return Ok(Moved::Failed(format!("no migration began within {CONNECT:?}")));
            }
        }
        sleep(POLL).await;
    }
}

async fn hand_over(inner: &Inner, found: &Found, handover: &Handover) -> Result<(), VmError> {
    let begun = Instant::now();
    let pid = found.process.pid;
    let mut trouble = String::from("nobody took the lease");
    while begun.elapsed() < TRY {
        let lease = inner.settings.lease.clone();
        let seen = blocking(move || look_at(&lease, pid)).await?;
        let step = match seen {
            Ok(seen) => next_step(handover, seen, begun.elapsed() < LEFT_FREE),
            Err(error) => {
                trouble = error.to_string();
                Step::Wait
            }
        };
        let lease = inner.settings.lease.clone();
        match step {
            Step::Wait => {}
            Step::Release => {
                if let Err(error) = blocking(move || lease.release_for(pid)).await? {
                    trouble = error.to_string();
                }
                // What came of it is looked at, not believed.
                continue;
            }
            Step::Take => match blocking(move || lease.take_for(pid)).await? {
                Ok(()) => continue,
                Err(error) => trouble = error.to_string(),
            },
            Step::Resume => match inner.command("resume the guest", "cont", Value::Null).await {
                Ok(_) => return resumed(inner, handover),
                Err(VmError::NotRunning) => return Ok(()),
                Err(error) => trouble = error.to_string(),
            },
            Step::Quit => return quit(inner, found, handover).await,
        }
        sleep(POLL).await;
    }
    give_up(inner, found, handover, format!("the lease was not handed over: {trouble}")).await
}

fn note(inner: &Inner, handover: &Handover, phase: Phase) -> Result<(), VmError> {
    let record = Handover { version: handover.version, phase };
    inner.dir.write(HANDOVER, &record).map_err(|e| VmError::Unreachable {
        detail: format!("cannot write {}: {e}", inner.dir.file(HANDOVER).display()),
    })
}

fn resumed(inner: &Inner, handover: &Handover) -> Result<(), VmError> {
    inner.tell(VmEvent::Changed(VmActivity::Up));
    if handover.phase == Phase::Arriving {
        tracing::info!("the engine VM arrived and runs here, under its lease");
        return note(inner, handover, Phase::Done);
    }
    let detail = "the destination did not take the lease; the guest goes on here".to_owned();
    tracing::warn!(detail, "the migration failed");
    note(inner, handover, Phase::Failed { detail })
}

/// Somebody else had the lease after the source: the destination, as it should be, if this is the source.
async fn quit(inner: &Inner, found: &Found, handover: &Handover) -> Result<(), VmError> {
    if handover.phase == Phase::Arriving {
        let detail = "the lease went to another process while the VM was on its way here".to_owned();
        return give_up(inner, found, handover, detail).await;
    }
    tracing::info!("the engine VM's lease was taken by the destination");
    inner.end(found).await?;
    note(inner, handover, Phase::Done)
}

/// A destination ends. A source stays as it is, stopped: whoever looks sees whether it has its lease.
async fn give_up(inner: &Inner, found: &Found, handover: &Handover, detail: String) -> Result<(), VmError> {
    tracing::warn!(detail, "the migration failed");
    note(inner, handover, Phase::Failed { detail })?;
    match handover.phase {
        Phase::Arriving => inner.end(found).await,
        Phase::Leaving | Phase::Done | Phase::Failed { .. } => {
            inner.tell(VmEvent::Changed(VmActivity::Paused));
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(phase: Phase, held: Option<u64>, on_storage: u64, is_left_free: bool) -> Step {
        next_step(&Handover { version: 7, phase }, Lease { held, on_storage }, is_left_free)
    }

    #[test]
    fn the_source_lets_go_waits_and_takes_back_only_what_nobody_had() {
        let step = |held, on_storage, is_left_free| step(Phase::Leaving, held, on_storage, is_left_free);
        assert_eq!(step(Some(7), 7, true), Step::Release);
        assert_eq!(step(Some(7), 7, false), Step::Release);
        assert_eq!(step(None, 7, true), Step::Wait);
        assert_eq!(step(None, 7, false), Step::Take);
        assert_eq!(step(Some(8), 8, false), Step::Resume);
        assert_eq!(step(None, 8, true), Step::Quit);
        assert_eq!(step(Some(9), 9, false), Step::Quit);
    }

    #[test]
    fn the_destination_goes_on_only_with_the_very_next_version() {
        let step = |held, on_storage| step(Phase::Arriving, held, on_storage, true);
        assert_eq!(step(None, 7), Step::Take);
        assert_eq!(step(Some(8), 8), Step::Resume);
        assert_eq!(step(None, 8), Step::Quit);
        assert_eq!(step(Some(9), 9), Step::Quit);
        assert_eq!(step(Some(7), 7), Step::Quit);
    }

    /// Two sides and storage in every order of their steps: never do both resume, whatever each remembers.
    #[test]
    fn in_no_order_do_both_sides_go_on() {
        fn walk(storage: u64, owner: Option<usize>, held: [Option<u64>; 2], ran: [bool; 2], depth: u32) {
            assert!(!(ran[0] && ran[1]), "both went on");
            if depth == 0 {
                return;
            }
            for side in 0..2 {
                for is_left_free in [true, false] {
                    let phase = if side == 0 { Phase::Leaving } else { Phase::Arriving };
                    let lease = Lease { held: held[side], on_storage: storage };
                    let handover = Handover { version: 7, phase };
                    let (mut storage, mut owner, mut held, mut ran) = (storage, owner, held, ran);
                    match next_step(&handover, lease, is_left_free) {
                        Step::Resume => ran[side] = true,
                        Step::Release | Step::Quit => {
                            if owner == Some(side) {
                                owner = None;
                            }
                            held[side] = None;
                        }
                        Step::Take if owner.is_none() => {
                            storage += 1;
                            owner = Some(side);
                            held[side] = Some(storage);
                        }
                        Step::Take | Step::Wait => {}
                    }
                    walk(storage, owner, held, ran, depth - 1);
                    // It dies: its lease is free, and it goes on no more.
                    if owner == Some(side) {
                        held[side] = None;
                        walk(storage, None, held, ran, depth - 1);
                    }
                }
            }
        }
        walk(7, Some(0), [Some(7), None], [false, false], 6);
    }
}
