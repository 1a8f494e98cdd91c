//! Live migration, which VDSM does on both hosts by itself.

use serde_json::json;
use vdsm_client::{MigrateParams, code};

use super::look::Inner;
use super::words::activity;
use super::{failed, is_unsure, trouble};
use crate::of_host::load_vm_conf;
use crate::port::{MigrationProgress, MigrationTarget, VmActivity, VmError, VmExit};

const MIGRATE: &str = "migrate the engine VM";

impl Inner {
    /// What engines ask for: no tunnel, and an end when the guest's disk fails on the way.
    pub async fn migrate(&self, target: &MigrationTarget) -> Result<(), VmError> {
        let mut params = MigrateParams::to(target.uri.as_str());
        params.auto_converge = Some(true);
        for (name, value) in
            [("tunneled", json!(false)), ("abortOnError", json!(true)), ("enableGuestEvents", json!(true))]
        {
            params.more.insert(name.to_owned(), value);
        }
        match self.vdsm.vm_migrate(&self.vm_id, &params).await {
            Ok(()) => Ok(()),
            Err(error) if is_unsure(&error) => {
                let status = self.look().await?;
                match (status.activity, status.exit) {
                    (VmActivity::MigrationSource, _) | (VmActivity::Down, Some(VmExit::MigratedAway)) => {
                        Ok(())
                    }
                    _ => Err(trouble(MIGRATE, &error)),
                }
            }
            Err(error) => Err(trouble(MIGRATE, &error)),
        }
    }

    /// Asks VDSM to end it. VDSM also says no when there is none: then there is nothing to end.
    pub async fn migrate_cancel(&self) -> Result<(), VmError> {
        match self.vdsm.vm_migrate_cancel(&self.vm_id).await {
            Ok(()) => Ok(()),
            Err(error) => match self.look().await?.activity {
                VmActivity::MigrationSource => Err(trouble("stop the migration", &error)),
                _ => Ok(()),
            },
        }
    }

    /// VDSM tells a percentage; the bytes are reckoned from the VM's memory.
    pub async fn migration_progress(&self) -> Result<MigrationProgress, VmError> {
        let status = self.look().await?;
        if status.activity == VmActivity::Down {
            if status.exit != Some(VmExit::MigratedAway) {
                return Ok(MigrationProgress::None);
            }
            self.forget_departed().await;
            return Ok(MigrationProgress::Completed);
        }
        let progress = match self.vdsm.vm_migration_status(&self.vm_id).await {
            Ok(progress) => progress,
            Err(error) if error.code() == Some(code::NO_SUCH_VM) => return Ok(MigrationProgress::None),
            Err(error) => return Err(trouble("tell how far the migration is", &error)),
        };
        if status.activity == VmActivity::MigrationSource {
            let percent = u64::try_from(progress.progress.unwrap_or(0)).unwrap_or(0).min(100);
            let memory = load_vm_conf(&self.conf).ok().and_then(|vm| vm.mem_size().ok()).unwrap_or(0) << 20;
            let transferred = memory / 100 * percent;
            return Ok(MigrationProgress::Active { transferred, remaining: memory - transferred });
        }
        Ok(match progress.code {
            Some(0) | None => MigrationProgress::None,
            Some(number) => {
                let message = progress.message.unwrap_or_default();
                MigrationProgress::Failed { detail: format!("{message} (code {number})") }
            }
        })
    }

    /// VDSM keeps a VM that has left as one that is down, until somebody destroys it, and refuses its return as long as it
    /// does. How it ended is remembered here.
    async fn forget_departed(&self) {
        // Without the record the VM may be on its way back already: then nothing must be destroyed.
        let is_kept = matches!(self.stats().await, Ok(stats) if activity(&stats).is_ok_and(|it| it == VmActivity::Down));
        if !is_kept {
            return;
        }
        if let Err(error) = self.vdsm.vm_destroy(&self.vm_id).await
            && error.code() != Some(code::NO_SUCH_VM)
        {
            // The next start here clears it; until then a migration to here is refused.
            tracing::warn!(%error, "VDSM still keeps the engine VM that has left for another host");
        }
    }

    /// The destination's VDSM makes its part of the VM when the source asks it to.
    pub async fn prepare_incoming(&self, listen: &MigrationTarget) -> Result<MigrationTarget, VmError> {
        match self.look().await?.activity {
            VmActivity::Down => Ok(listen.clone()),
            other => Err(failed(
                "receive the engine VM",
                format!("it is on this host already, in status {}", other.word()),
            )),
        }
    }
}
