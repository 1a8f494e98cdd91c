//! `sandbox.json`: what `up` was asked for, so that later commands need not be told again. Facts about what runs
//! are never kept here; see [`super::procs`].

use std::fs::{self, File};
use std::path::PathBuf;

use anyhow::Context;
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use super::layout::{HostNumber, Layout};

/// Who runs the engine VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Hypervisor {
    /// QEMU, started by the agent itself
    #[default]
    Qemu,
    /// A stand-in for VDSM on each host, as on hosts of oVirt
    Vdsm,
    /// libvirt with its sanlock lock manager, a daemon on each host
    Libvirt,
}

impl std::fmt::Display for Hypervisor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Qemu => "qemu",
            Self::Vdsm => "vdsm",
            Self::Libvirt => "libvirt",
        })
    }
}

/// What the hosts share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum SharedStorage {
    /// A folder, as from a file server, which can be made to fail
    #[default]
    Folder,
    /// A LUN with LVM on it, as from a storage array
    Lvm,
}

impl SharedStorage {
    /// Refuses what only the folder's file system can play.
    pub fn check_faults(self) -> Result<(), NoFaults> {
        match self {
            Self::Folder => Ok(()),
            Self::Lvm => Err(NoFaults),
        }
    }
}

/// Nobody stands between these hosts and their storage who could make it fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "faults of storage are played by the shared folder's file system, and the hosts of this sandbox share a LUN; make one \
     with a folder: hosted-engine sandbox up --storage folder"
)]
pub struct NoFaults;

/// What a sandbox is made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// How many hosts.
    pub hosts: u8,
    /// sanlock's `io_timeout`, in seconds.
    pub io_timeout: u32,
    /// Directory with the guest's `vmlinuz` and `initramfs`.
    pub guest: PathBuf,
    /// Who runs the engine VM.
    #[serde(default)]
    pub hypervisor: Hypervisor,
    /// What the hosts share.
    #[serde(default)]
    pub storage: SharedStorage,
    /// The hosts have a watchdog, played by its stand-in.
    #[serde(default)]
    pub watchdog: bool,
    /// The hosts have power switches, by which their agents power dead hosts off.
    #[serde(default)]
    pub fencing: bool,
    /// Directory of control groups, one in it for each host; absent where the machine does not let us make any.
    pub cgroup: Option<PathBuf>,
}

impl State {
    /// Reads it; an error when there is no sandbox.
    pub fn load(layout: &Layout) -> anyhow::Result<Self> {
        let file = layout.state_file();
        if !file.exists() {
            anyhow::bail!(
                "there is no sandbox in {}; make one with: hosted-engine sandbox up",
                layout.dir().display()
            );
        }
        let text = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        serde_json::from_str(&text).with_context(|| {
            format!("{} is damaged; take the sandbox down: hosted-engine sandbox down", file.display())
        })
    }

    /// Writes it.
    pub fn save(&self, layout: &Layout) -> anyhow::Result<()> {
        let (file, new) = (layout.state_file(), layout.dir().join("sandbox.json.new"));
        let text = serde_json::to_string_pretty(self)? + "\n";
        fs::write(&new, text).with_context(|| format!("cannot write {}", new.display()))?;
        fs::rename(&new, &file).with_context(|| format!("cannot replace {}", file.display()))
    }

    /// All hosts.
    pub fn numbers(&self) -> impl Iterator<Item = HostNumber> + use<> {
        (1..=self.hosts).map(HostNumber)
    }

    /// Host `number`, when the sandbox has it.
    pub fn host(&self, number: u8) -> anyhow::Result<HostNumber> {
        if number == 0 || number > self.hosts {
            anyhow::bail!("the sandbox has no host {number}; its hosts are 1 to {}", self.hosts);
        }
        Ok(HostNumber(number))
    }

    /// The control group of one host.
    pub fn host_cgroup(&self, number: HostNumber) -> Option<PathBuf> {
        self.cgroup.as_ref().map(|dir| dir.join(format!("h{number}")))
    }
}

/// Keeps other commands from changing the sandbox at the same time, until dropped.
#[derive(Debug)]
pub struct Lock(#[expect(dead_code, reason = "held, not read: closing the file unlocks it")] File);

impl Lock {
    /// Takes the lock, or says that another command is at work.
    pub fn take(layout: &Layout) -> anyhow::Result<Self> {
        fs::create_dir_all(layout.dir())
            .with_context(|| format!("cannot make the directory {}", layout.dir().display()))?;
        let path = layout.lock_file();
        let file = File::create(&path).with_context(|| format!("cannot open {}", path.display()))?;
        flock(&file, FlockOperation::NonBlockingLockExclusive)
            .with_context(|| format!("another sandbox command is changing {}", layout.dir().display()))?;
        Ok(Self(file))
    }
}
