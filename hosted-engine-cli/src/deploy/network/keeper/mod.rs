//! Who makes the bridge again after a boot: the network manager that runs the card now.
//!
//! | keeper | it is told | and forgets |
//! | --- | --- | --- |
//! | `NetworkManager` | a bridge's profile with the card's IP settings; the card's profile becomes that of its port | profile deleted, settings written back, card's profile up |
//! | systemd-networkd | three files in /etc/systemd/network that come before all others, then `networkctl reload` | files removed, reload, reconfigure |
//! | ifupdown | the card's stanzas in /etc/network/interfaces become the bridge's; `ifdown` before, `ifup` after | text written back, `ifdown`, `ifup` |
//!
//! With none of them the bridge stands until the next boot, and the operator is told so.

pub mod ifupdown;
pub mod network_manager;
pub mod networkd;

use serde::{Deserialize, Serialize};

use super::bridge::MadeBridge;
use super::picture::Picture;
use crate::deploy::made::{ChangedFile, MadeFile, Undone};
use crate::deploy::{DeployError, Tools};
use ha_config::Paths;

/// A file that the keeper reads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KeptFile {
    /// A new one.
    New(MadeFile),
    /// One that was there.
    Changed(ChangedFile),
}

impl KeptFile {
    fn write(&self) -> Result<(), DeployError> {
        let (path, text) = match self {
            Self::New(file) => (&file.path, file.content.as_deref().unwrap_or_default()),
            Self::Changed(file) => (&file.path, file.after.as_str()),
        };
        Ok(ha_config::atomic::write(path, text.as_bytes(), ha_config::atomic::Mode::KeepOr644)?)
    }

    fn take_back(&self) -> Result<Option<String>, DeployError> {
        let (path, undone) = match self {
            Self::New(file) => (&file.path, file.take_back()?),
            Self::Changed(file) => (&file.path, file.take_back()?),
        };
        Ok(match undone {
            Undone::LeftAlone(why) => Some(format!("{}: {why}", path.display())),
            Undone::TakenBack | Undone::Absent => None,
        })
    }
}

fn write_all(files: &[KeptFile]) -> Result<(), DeployError> {
    files.iter().try_for_each(KeptFile::write)
}

/// Gives in words what was left alone.
fn take_back_all(files: &[KeptFile]) -> Result<Option<String>, DeployError> {
    let mut left = Vec::new();
    for file in files.iter().rev() {
        left.extend(file.take_back()?);
    }
    Ok((!left.is_empty()).then(|| left.join("; ")))
}

/// The network manager that runs a card, with what it is to be told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Keeper {
    /// None.
    Nobody,
    /// `NetworkManager`.
    NetworkManager(network_manager::Profiles),
    /// systemd-networkd.
    Networkd(networkd::Files),
    /// ifupdown, of Debian.
    Ifupdown(ifupdown::Stanzas),
}

impl Keeper {
    /// Finds who runs the card. Changes nothing.
    ///
    /// # Errors
    /// When it runs the card in a way that cannot be carried over to a bridge.
    pub fn find(
        paths: &Paths,
        tools: &dyn Tools,
        picture: &Picture,
        nic: &super::plan::Nic,
        bridge: &str,
    ) -> Result<Self, DeployError> {
        if let Some(profiles) = network_manager::find(tools, nic, bridge)? {
            return Ok(Self::NetworkManager(profiles));
        }
        if let Some(files) = networkd::find(paths, tools, picture, nic, bridge)? {
            return Ok(Self::Networkd(files));
        }
        if let Some(stanzas) = ifupdown::find(paths, tools, nic, bridge)? {
            return Ok(Self::Ifupdown(stanzas));
        }
        if nic.has_lent_ipv4() {
            return Err(DeployError::Refused(format!(
                "{name} has its address from DHCP, by a client that neither NetworkManager, systemd-networkd nor \
                 ifupdown runs: nobody would renew it on a bridge. Give {name} a fixed address, or make the bridge \
                 {bridge} yourself and start again",
                name = nic.name
            )));
        }
        Ok(Self::Nobody)
    }

    /// ` (kept by …)`
    pub fn describe(&self) -> &'static str {
        match self {
            Self::Nobody => "",
            Self::NetworkManager(_) => ", kept by NetworkManager",
            Self::Networkd(_) => ", kept by systemd-networkd",
            Self::Ifupdown(_) => ", kept by ifupdown",
        }
    }

    /// Has it make the bridge, now and at every boot. What it leaves to do is done afterwards.
    pub(super) fn keep(&self, made: &MadeBridge, tools: &dyn Tools) -> Result<(), DeployError> {
        match self {
            Self::Nobody => Ok(()),
            Self::NetworkManager(profiles) => profiles.make(made, tools),
            Self::Networkd(files) => files.make(made, tools),
            Self::Ifupdown(stanzas) => stanzas.make(made, tools),
        }
    }

    /// Makes it forget; gives in words what was left alone.
    pub(super) fn forget(&self, made: &MadeBridge, tools: &dyn Tools) -> Result<Option<String>, DeployError> {
        match self {
            Self::Nobody => Ok(None),
            Self::NetworkManager(profiles) => profiles.forget(made, tools),
            Self::Networkd(files) => files.forget(made, tools),
            Self::Ifupdown(stanzas) => stanzas.forget(made, tools),
        }
    }
}
