//! `hosted-engine --move-storage`: the cluster moves to another storage domain, with its VM's disk and its configuration.
//!
//! ```text
//!  first host:  global maintenance, the VM down everywhere
//!               new domain made, hidden ── disk copied and read back ─┐  the VM's lease on the former storage is held
//!                                        former domain: note, lease ──┘  from before the copy until it is retired
//!               ═══════════════ no way back ═══════════════
//!               new domain shown ── this host changes over ── VM started ── agents
//!  each other:  --follow: finds the new storage by the note ── changes over
//! ```
//!
//! Nobody can start the VM twice: as long as the lease on the former storage is there, the new domain is hidden and its VM
//! is not started; before the new domain is shown, that lease is gone, and a host that did not follow has none to take. A copy
//! counts only if the lease was held all the time since it began: else the VM may have run in between. Of two hosts that
//! move the same cluster, the note says whose move retired the lease.
//!
//! The former domain stays as it is otherwise: nothing is deleted.

mod cluster;
mod command;
mod copy;
mod facts;
mod lease;
mod note;
mod steps;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

use ha_config::Paths;

use super::services_steps::{Broker, HandOver};
use super::{DeployError, Former, Journal, Request, Step, StepId, Story, World, storage};

pub use command::{MoveStorageArgs, move_storage};
pub(super) use note::left_for;
pub use note::{ClosedFormer, moved_notice};
pub use steps::ReplacedFile;

use lease::{FormerLease, Held, OfSanlock};

/// What was given up, of a request that moves.
fn former<'w>(world: &World<'w>) -> Result<&'w Former, DeployError> {
    world.request.moves().ok_or_else(|| DeployError::Refused("this is no move of a cluster".to_owned()))
}

/// The steps of a move, or of following one.
pub(super) fn steps(request: &Request) -> Vec<Box<dyn Step>> {
    let mut steps = until_changed_over(request, Box::new(OfSanlock));
    steps.push(Box::new(Broker));
    if let Request::FirstHost(_) = request {
        steps.push(Box::new(steps::StartVm));
    }
    steps.push(Box::new(HandOver));
    steps
}

/// Those before the daemons of this host start again.
fn until_changed_over(request: &Request, lease: Box<dyn FormerLease>) -> Vec<Box<dyn Step>> {
    match request {
        Request::FirstHost(_) => {
            let held = Held::shared(lease);
            vec![
                Box::new(storage::Connect),
                Box::new(storage::MakeDomain),
                Box::new(storage::WriteLeases),
                Box::new(steps::ShareMoved),
                Box::new(steps::CopyDisk(held.clone())),
                Box::new(steps::CloseFormer(held)),
                Box::new(steps::LeaveFormer),
                Box::new(steps::ChangeOver),
            ]
        }
        Request::FurtherHost(_) => {
            vec![Box::new(storage::Connect), Box::new(steps::LeaveFormer), Box::new(steps::ChangeOver)]
        }
    }
}

/// Where the journal of a move is.
fn journal(paths: &Paths) -> PathBuf {
    paths.setup_state_dir().join("move.journal")
}

/// Where the journal of what is to be done is.
pub(super) fn journal_of(paths: &Paths, request: &Request) -> PathBuf {
    if request.moves().is_some() { journal(paths) } else { paths.deploy_journal() }
}

/// A move that was begun on this host and is not over, for people. Its journal is root's to read: others learn nothing.
///
/// # Errors
/// When the journal is damaged.
pub fn half_move(paths: &Paths) -> Result<Option<String>, DeployError> {
    let path = journal(paths);
    let story = match Journal::read(&path) {
        Err(DeployError::Io { source, .. }) if source.kind() == std::io::ErrorKind::PermissionDenied => {
            return Ok(None);
        }
        other => other?.filter(|story| story.outcome.is_none()),
    };
    let Some(story) = story else { return Ok(None) };
    let step =
        story.cut.map_or_else(String::new, |step| format!(" at \"{}\"", super::title(&story.request, step)));
    Ok(Some(if Journal::is_worked_on(&path)? {
        format!("The hosted engine is moved to other storage now on this host{step}")
    } else {
        format!(
            "Moving the hosted engine to other storage was interrupted on this host{step}\n{}",
            super::carry_out::MOVE_WAYS
        )
    }))
}

/// Refuses to take back a move whose former storage is closed: the VM may have run on the new one since.
fn refuse_behind(story: &Story, world: &World<'_>, lease: &dyn FormerLease) -> Result<(), DeployError> {
    let Request::FirstHost(first) = &story.request else { return Ok(()) };
    let is_closed = if story.ended.contains(&StepId::CloseFormerDomain) {
        true
    } else if story.items.iter().any(|item| item.step == StepId::CloseFormerDomain) {
        lease.is_retired(world)? && note::is_to(&former(world)?.conf(world.paths), first.ids.sd)?
    } else {
        false
    };
    if !is_closed {
        return Ok(());
    }
    Err(DeployError::Refused(format!(
        "the former storage is closed already, and no host can start the VM from there: go on with hosted-engine \
         --move-storage --resume. To go back afterwards, move again, to new storage; the former domain stays as it is ({})",
        former(world)?.conf(world.paths).storage_domain_dir()?.display()
    )))
}
