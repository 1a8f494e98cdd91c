//! `--set-maintenance`: global (the cluster's block), local (this host's ha.conf), none (ends both).
//!
//! `global` never touches the local mode and `local` never touches the global one. A change of the global mode
//! counts once it was read back through the broker; other lines of the cluster's block stay as they are.

mod coming;
mod emptying;

use std::time::Duration;

use anyhow::{Context, Result, bail};
use broker_api::BrokerClient;
use broker_api::status::StorageState;
use engine_vm::EngineVm;
use ha_config::{HaConf, Paths};
use metadata_format::{GlobalBlock, HostId};

use crate::migrate::reasons;
use crate::moving::NO_AGENT;
use crate::status::View;
use crate::terminal::{Exit, Terminal};

/// How long a broker may take to read the file for the first time, and to show what was written: a few of the
/// Python broker's rounds of 10 s.
const PATIENCE: Duration = Duration::from_secs(30);
/// Pause between looks. The broker has no call that waits for a change of a block.
const PAUSE: Duration = Duration::from_millis(500);

/// Which maintenance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Mode {
    /// The agents of all hosts watch the engine VM and do not touch it.
    Global,
    /// This host does not run the engine VM.
    Local,
    /// Ends both.
    None,
}

/// What `--set-maintenance` is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::Args)]
pub struct Wanted {
    /// global: no agent touches the engine VM; local: this host does not run it; none: ends both.
    #[arg(long, value_name = "MODE")]
    pub mode: Mode,
    /// With local: also when no other host can take the engine VM, which is shut down then
    #[arg(long)]
    pub force: bool,
    /// With local: do not wait until the engine VM has left this host
    #[arg(long)]
    pub no_wait: bool,
}

/// This host, as far as setting its mode needs it.
pub struct Host<'a> {
    /// Its paths.
    pub paths: &'a Paths,
    /// Its id.
    pub id: HostId,
    /// Its broker.
    pub broker: &'a BrokerClient,
}

/// Sets a mode. `vm` is asked for [`Mode::Local`] only; `None` when the hypervisor cannot be asked.
pub async fn set(
    wanted: Wanted,
    host: Host<'_>,
    vm: Option<&dyn EngineVm>,
    terminal: &mut Terminal,
) -> Result<Exit> {
    if wanted.force && wanted.mode != Mode::Local {
        bail!("--force goes with --mode=local only: nothing stands in the way of the other modes");
    }
    match wanted.mode {
        Mode::Global => {
            set_global(host.broker, true, terminal).await?;
            terminal.say("Global maintenance is set: no agent starts, stops or moves the engine VM");
        }
        Mode::Local => {
            let leaving = may_leave(&host, vm, wanted.force, terminal).await;
            if leaving == Leaving::Refused {
                return Ok(Exit::FAILED);
            }
            set_local(host.paths, true, wanted.force)?;
            terminal.say("Local maintenance is set on this host");
            if leaving == Leaving::Watched && !wanted.no_wait {
                return Ok(emptying::follow(host.broker, host.id, terminal).await);
            }
        }
        Mode::None => {
            set_local(host.paths, false, false)?;
            terminal.say("Local maintenance has ended on this host");
            set_global(host.broker, false, terminal).await.context("Global maintenance may go on")?;
            terminal.say("Global maintenance has ended");
        }
    }
    Ok(Exit::OK)
}

/// Has this host empty itself by local maintenance, and waits until its agent says that it is. Whether another host can take
/// the VM, or soon may, was looked at before; with `force` the VM is shut down where none can.
///
/// # Errors
/// When the mode cannot be set.
pub(crate) async fn empty(
    host: Host<'_>,
    vm_is_here: bool,
    force: bool,
    terminal: &mut Terminal,
) -> Result<Exit> {
    if vm_is_here && !force {
        let view = coming::await_taker(host.broker, host.id, terminal).await?;
        if !view.somebody_else_can_run_it(host.id) {
            let why = reasons(&view.others(host.id));
            bail!("no other host can take the engine VM{why}\nBring another host up, or use --force");
        }
    }
    set_local(host.paths, true, force)?;
    Ok(emptying::follow(host.broker, host.id, terminal).await)
}

/// What local maintenance means for a VM on this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Leaving {
    /// Nothing leaves, or nobody can say how it goes.
    Unwatched,
    /// The agent has it leave, and tells.
    Watched,
    /// It cannot leave, so the mode is not set.
    Refused,
}

/// Whether local maintenance makes sense now: a VM on this host needs another host that can take it.
async fn may_leave(
    host: &Host<'_>,
    vm: Option<&dyn EngineVm>,
    is_forced: bool,
    terminal: &mut Terminal,
) -> Leaving {
    let here = match vm {
        Some(vm) => vm.status().await.map(|status| status.exists()).map_err(|error| error.to_string()),
        None => Err("there is no hypervisor to ask".to_owned()),
    };
    match here {
        Ok(false) => return Leaving::Unwatched,
        Ok(true) => {}
        Err(error) => {
            terminal.complain(format!("Cannot tell whether the engine VM runs on this host: {error}"));
            return Leaving::Unwatched;
        }
    }
    let view = if is_forced {
        View::fetch(host.broker).await
    } else {
        coming::await_taker(host.broker, host.id, terminal).await
    };
    match view {
        Ok(view) if view.somebody_else_can_run_it(host.id) => {
            terminal.say("The engine VM is running on this host; the agent moves it to another one first");
            watched(&view, terminal)
        }
        Ok(view) if is_forced => {
            terminal.say(format!(
                "The engine VM is running on this host, and no other host can take it{}\n\
                 It is shut down, since --force was given",
                reasons(&view.others(host.id))
            ));
            watched(&view, terminal)
        }
        Ok(view) => {
            terminal.complain(format!(
                "Unable to enter local maintenance mode: the engine VM is running on the current host, and no other \
                 live host has a score above 0 to take it{}\nBring another host up first, or use --mode=global to \
                 work on this host while the engine VM runs, or add --force to have the engine VM shut down",
                reasons(&view.others(host.id))
            ));
            Leaving::Refused
        }
        Err(error) if is_forced => {
            terminal.complain(format!(
                "It is not known whether another host can take the engine VM: {error}. If none can, the agent shuts it \
                 down, since --force was given"
            ));
            Leaving::Unwatched
        }
        Err(error) => {
            terminal.complain(format!(
                "Unable to enter local maintenance mode: the engine VM is running on the current host, and it is \
                 not known whether another can take it: {error}"
            ));
            Leaving::Refused
        }
    }
}

/// Whether anybody will tell how the VM leaves.
fn watched(view: &View, terminal: &mut Terminal) -> Leaving {
    let has_agent = view.document.as_ref().map(|document| document.agent.is_some());
    if has_agent == Some(false) {
        terminal.complain(format!("{NO_AGENT}. The engine VM leaves once it runs"));
    }
    if view.global_maintenance == Some(true) {
        terminal.complain("The cluster is in global maintenance: the engine VM leaves once that has ended");
        return Leaving::Unwatched;
    }
    if has_agent == Some(true) { Leaving::Watched } else { Leaving::Unwatched }
}

fn set_local(paths: &Paths, on: bool, force: bool) -> Result<()> {
    let folder = paths.state_dir();
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let wanted =
        HaConf { local_maintenance: on, local_maintenance_manual: on, local_maintenance_force: on && force };
    wanted.store(paths)?;
    let seen = HaConf::load(paths)?;
    if seen != wanted {
        bail!(
            "{} was written and reads differently: somebody else changes it",
            HaConf::path(paths).display()
        );
    }
    Ok(())
}

/// Read, modify, write of one line of the cluster's block, then a look whether it is there.
pub(crate) async fn set_global(broker: &BrokerClient, on: bool, terminal: &mut Terminal) -> Result<()> {
    let mut block = match GlobalBlock::parse(&cluster_block(broker).await?) {
        Ok(block) => block,
        Err(error) => {
            terminal.complain(format!("{error}. It is written anew now"));
            GlobalBlock::default()
        }
    };
    block.set_maintenance(on);
    let bytes = block.encode()?;
    broker.put_stats(0, &bytes).await.context("The maintenance mode was not changed")?;
    let seen = wait_for(async || {
        let blocks = broker.get_stats().await?;
        let seen = blocks.get(&0).and_then(|bytes| GlobalBlock::parse(bytes).ok());
        Ok(seen.is_some_and(|block| block.maintenance() == on).then_some(()))
    });
    seen.await?.with_context(|| {
        format!(
            "The maintenance mode was written, and {} s later the metadata file does not show it: another host may \
             have changed it at the same time. Look with: hosted-engine --vm-status",
            PATIENCE.as_secs()
        )
    })
}

/// Block 0; all NUL where the file has none. Waits for the broker's first read, since an absent block and one that
/// was not read yet look the same, and writing over the second would lose its other lines.
async fn cluster_block(broker: &BrokerClient) -> Result<Vec<u8>> {
    let block = wait_for(async || {
        let mut blocks = broker.get_stats().await?;
        if !blocks.is_empty() {
            return Ok(Some(blocks.remove(&0).unwrap_or_default()));
        }
        let read =
            broker.status().await?.is_some_and(|status| matches!(status.storage, StorageState::Good { .. }));
        Ok(read.then(Vec::new))
    });
    block.await?.context(
        "The broker has not read the metadata file yet, so the maintenance mode cannot be changed; its log says why",
    )
}

/// Looks again and again until there is something, for [`PATIENCE`].
async fn wait_for<T>(look: impl AsyncFn() -> Result<Option<T>>) -> Result<Option<T>> {
    let tries = PATIENCE.as_millis() / PAUSE.as_millis();
    for _ in 0..tries {
        if let Some(found) = look().await? {
            return Ok(Some(found));
        }
        tokio::time::sleep(PAUSE).await;
    }
    look().await
}
