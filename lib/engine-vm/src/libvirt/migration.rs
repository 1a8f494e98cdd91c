//! Live migration: the daemons of both hosts arrange it among themselves, and hand the lease over while the guest stands
//! still. The domain leaves nothing behind.

use std::time::Duration;

use tokio::time::Instant;
use virt::domain::{Domain, MigrateParameters};
use virt::sys as c;

use super::link::{QUESTION, Trouble};
use super::look::{Inner, Migration, Seen, Shared, failed};
use super::sys::abort_job;
use crate::port::{LeaseHolding, MigrationProgress, MigrationTarget, VmActivity, VmError, VmEvent};

const MIGRATE: &str = "migrate";
/// Longer than any guest takes. The agent gives up earlier.
const LONGEST: Duration = Duration::from_hours(6);
/// Until the daemon has begun, or said no. It first asks the other one.
const BEGIN: Duration = Duration::from_secs(15);
/// Until it can be seen what came of a migration whose end was not told.
const SETTLE: Duration = Duration::from_mins(2);
/// From one look to the next.
const POLL: Duration = Duration::from_millis(100);

/// libvirt would also take files and programs for the way there.
fn check(uri: &str) -> Result<(), VmError> {
    let is_uri = uri.split_once("://").is_some_and(|(scheme, rest)| {
        scheme.starts_with("qemu+") && !rest.is_empty() && !rest.starts_with('/')
    });
    if is_uri && !uri.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Ok(());
    }
    Err(failed(
        MIGRATE,
        format!(
            "{uri:?} names no other host's libvirt daemon; it must be like qemu+tls://HOST/system ([libvirt] migrate_uri)"
        ),
    ))
}

impl Inner {
    /// Nothing has to be prepared: says whether this host could receive the VM.
    pub async fn prepare_incoming(&self, listen: &MigrationTarget) -> Result<MigrationTarget, VmError> {
        super::protection::check_daemon(&self.settings)?;
        match self.see().await.map_err(|trouble| trouble.to_error("get ready for the migration"))? {
            Some(_) => Err(VmError::AlreadyExists { pid: self.pid() }),
            None => Ok(listen.clone()),
        }
    }

    fn flags(&self) -> u32 {
        let flags = c::VIR_MIGRATE_LIVE
            | c::VIR_MIGRATE_PEER2PEER
            | c::VIR_MIGRATE_ABORT_ON_ERROR
            | c::VIR_MIGRATE_AUTO_CONVERGE;
        // The description made here keeps the host's cache out of it, and the disk is in the cluster's storage domain, on a
        // file system that libvirt may not know as a shared one.
        if self.settings.domain.is_none() { flags | c::VIR_MIGRATE_UNSAFE } else { flags }
    }

    /// Starts to send the VM to the daemon at `target`; a task follows it from here on.
    pub async fn migrate(inner: &Shared, target: &MigrationTarget) -> Result<(), VmError> {
        check(&target.uri)?;
        let status = inner.look().await?;
        match (status.activity, status.lease) {
            (VmActivity::Down, _) => return Err(VmError::NotRunning),
            (VmActivity::Up, LeaseHolding::Held) => {}
            (VmActivity::Up, other) => {
                return Err(VmError::NoLease { detail: format!("the lease is not this VM's: {other:?}") });
            }
            (other, _) => return Err(failed(MIGRATE, format!("it must run, and is: {}", other.word()))),
        }
        inner.memory().migration = Some(Migration::UnderWay);
        inner.tell(VmEvent::Changed(VmActivity::MigrationSource));
        let (uri, flags, following) = (target.uri.clone(), inner.flags(), inner.clone());
        let mut task = tokio::spawn(async move { following.send(uri, flags).await });
        let end = Instant::now() + BEGIN;
        loop {
            tokio::select! {
                biased;
                ended = &mut task => {
                    let ended = ended.map_err(|error| failed(MIGRATE, format!("a task failed: {error}")))?;
                    return ended.map_err(|detail| failed(MIGRATE, detail));
                }
                () = tokio::time::sleep(POLL) => {}
            }
            if Instant::now() >= end || matches!(inner.see().await, Ok(Some(seen)) if seen.is_leaving()) {
                return Ok(());
            }
        }
    }

    /// Sends the VM, and notes what came of it.
    async fn send(&self, uri: String, flags: u32) -> Result<(), String> {
        let call =
            move |domain: &Domain| domain.migrate_to_uri3(Some(&uri), MigrateParameters::default(), flags);
        let failure = match self.ask(LONGEST, call).await {
            Ok(Some(())) => None,
            Ok(None) => Some("it ended before it was sent".to_owned()),
            Err(Trouble::Refused(error)) => Some(error.message().to_owned()),
            Err(Trouble::Unreachable(detail)) => Some(detail),
            Err(Trouble::Unsure(detail)) => self.settle_migration(detail).await,
        };
        if let Some(detail) = &failure {
            tracing::warn!(detail, "the engine VM was not migrated");
            self.memory().migration = Some(Migration::Failed(detail.clone()));
            self.tell(VmEvent::Changed(VmActivity::Up));
        } else {
            self.memory().migration = Some(Migration::Done);
        }
        failure.map_or(Ok(()), Err)
    }

    /// The daemon went away meanwhile. `None`: the VM has left.
    async fn settle_migration(&self, lost: String) -> Option<String> {
        let end = Instant::now() + SETTLE;
        while Instant::now() < end {
            match self.see().await {
                Ok(None) => return None,
                Ok(Some(seen)) if !seen.is_leaving() && seen.state == c::VIR_DOMAIN_RUNNING => {
                    return Some(format!("{lost}; the guest goes on here"));
                }
                Ok(Some(_)) | Err(_) => tokio::time::sleep(POLL).await,
            }
        }
        Some(format!("{lost}; it is not known what became of the migration"))
    }

    /// Asks for an end of the migration away from this host.
    pub async fn migrate_cancel(&self) -> Result<(), VmError> {
        let stop =
            |domain: &Domain| if super::look::see(domain)?.is_leaving() { abort_job(domain) } else { Ok(()) };
        let asked = self.ask(QUESTION, stop).await;
        asked.map(drop).map_err(|trouble| trouble.to_error("stop the migration"))
    }

    /// How far the migration from here, or to here, is.
    pub async fn migration_progress(&self) -> Result<MigrationProgress, VmError> {
        let seen = self.see().await.map_err(|trouble| trouble.to_error("tell how the migration goes"))?;
        let begun = self.memory().migration.clone();
        let Some(seen) = seen else {
            return Ok(Migration::without_domain(begun, self.exit().await.as_ref()));
        };
        let active = |seen: &Seen| MigrationProgress::Active {
            transferred: seen.job.processed,
            remaining: seen.job.remaining,
        };
        if begun == Some(Migration::Done) {
            // It came back since.
            self.memory().migration = None;
        }
        let is_arriving =
            seen.activity(self.notes.read(), self.has_run()) == VmActivity::MigrationDestination;
        Ok(match begun {
            _ if seen.is_leaving() || is_arriving => active(&seen),
            Some(Migration::UnderWay) => active(&seen),
            Some(Migration::Failed(detail)) => MigrationProgress::Failed { detail },
            Some(Migration::Done) | None => MigrationProgress::None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::port::VmExit;

    #[test]
    fn a_domain_that_left_has_arrived_as_soon_as_anybody_says_so() {
        let told = |begun, exit: Option<VmExit>| Migration::without_domain(begun, exit.as_ref());
        let left = Some(VmExit::MigratedAway);
        assert_eq!(told(Some(Migration::UnderWay), left.clone()), MigrationProgress::Completed);
        assert_eq!(told(None, left), MigrationProgress::Completed);
        // The daemon answered before its event was heard.
        assert_eq!(told(Some(Migration::Done), None), MigrationProgress::Completed);
        // Neither was heard yet: it is not over for this host.
        let waits = MigrationProgress::Active { transferred: 0, remaining: 0 };
        assert_eq!(told(Some(Migration::UnderWay), None), waits);
        assert_eq!(told(None, None), MigrationProgress::None);
    }

    #[test]
    fn only_daemons_of_other_hosts_are_targets() {
        for uri in
            ["qemu+tls://host2/system", "qemu+tcp://host2:16509/system?x=y", "qemu+ssh://root@h/system"]
        {
            assert!(check(uri).is_ok(), "{uri}");
        }
        for uri in
            ["qemu:///system", "tcp:host:1", "exec:true", "qemu+unix:///system", "", "qemu+tls://h/\nx"]
        {
            let error = check(uri).unwrap_err().to_string();
            assert!(error.contains("qemu+tls://HOST/system"), "{uri:?}: {error}");
        }
    }
}
