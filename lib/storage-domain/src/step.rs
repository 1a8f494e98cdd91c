//! The steps on the way to storage, as an operator reads them.

use std::fmt;

/// A volume that the HA services use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Volume {
    /// The blocks of all hosts.
    Metadata,
    /// The `hosted-engine` lockspace.
    Lockspace,
    /// The archive of the cluster's configuration files.
    Configuration,
}

impl Volume {
    /// Name of its link in `ha_agent`, if it has one.
    pub const fn link_name(self) -> Option<&'static str> {
        match self {
            Self::Metadata => Some("hosted-engine.metadata"),
            Self::Lockspace => Some("hosted-engine.lockspace"),
            Self::Configuration => None,
        }
    }
}

impl fmt::Display for Volume {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Metadata => "metadata volume",
            Self::Lockspace => "lockspace volume",
            Self::Configuration => "configuration volume",
        })
    }
}

/// A step; its text stands after "waiting for".
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// VDSM may be starting.
    Vdsm,
    /// `iscsiadm` lists the interfaces.
    Interfaces,
    /// Mounting, logging in.
    Connect {
        /// The connections, without secrets.
        what: String,
    },
    /// The opposite.
    Disconnect {
        /// The connections, without secrets.
        what: String,
    },
    /// VDSM looks at the domain's storage anew.
    Refresh,
    /// What the domain is.
    Find,
    /// A volume is being activated.
    Prepare(Volume),
    /// Its link.
    Link(&'static str),
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Vdsm => f.write_str("VDSM to answer"),
            Self::Interfaces => f.write_str("iscsiadm to list its interfaces"),
            Self::Connect { what } => write!(f, "VDSM to connect {what}"),
            Self::Disconnect { what } => write!(f, "VDSM to disconnect {what}"),
            Self::Refresh => f.write_str("VDSM to look at the storage domain"),
            Self::Find => f.write_str("VDSM to describe the storage domain"),
            Self::Prepare(volume) => write!(f, "VDSM to prepare the {volume}"),
            Self::Link(name) => write!(f, "the storage domain's directory, for the link ha_agent/{name}"),
        }
    }
}
