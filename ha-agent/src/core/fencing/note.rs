//! What fencing has to say: a closed list, and the words for each. Logs, status displays and notifications render these.

use std::fmt;

use metadata_format::HostId;

use crate::core::reason::{HostName, NoFooting};

/// Why this host does not judge others at present.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs, reason = "the rendered texts say it")]
pub enum Hindrance {
    GlobalMaintenance,
    AgeUnknown,
    Unreadable { id: HostId },
    NoFooting(NoFooting),
    FencedItself { by: HostName },
}

/// One thing to say about a dead host.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs, reason = "the rendered texts say it")]
pub enum Note {
    Hindered { host: HostName, hindrance: Hindrance },
    Renews { host: HostName },
    Waits { host: HostName, left: u64, before: u64 },
    Claimed { host: HostName, left: u64 },
    OtherClaims { host: HostName, by: HostName },
    OffBy { host: HostName, by: HostName, at: i64 },
    Begun { host: HostName },
    Off { host: HostName, at: i64, remark: Option<String> },
    Failed { host: HostName, at: i64, detail: String },
    Back { host: HostName },
}

impl Note {
    /// True for what an operator must see before anything else.
    pub const fn is_warning(&self) -> bool {
        match self {
            Self::Failed { .. } => true,
            Self::Hindered { .. }
            | Self::Renews { .. }
            | Self::Waits { .. }
            | Self::Claimed { .. }
            | Self::OtherClaims { .. }
            | Self::OffBy { .. }
            | Self::Begun { .. }
            | Self::Off { .. }
            | Self::Back { .. } => false,
        }
    }
}

impl fmt::Display for Hindrance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::GlobalMaintenance => f.write_str("the cluster is in global maintenance"),
            Self::AgeUnknown => f.write_str("the broker does not say how old the hosts' rows are"),
            Self::Unreadable { id } => {
                write!(f, "the block of host {id}, which may have claimed it, cannot be read")
            }
            Self::NoFooting(cause) => write!(f, "{cause}"),
            Self::FencedItself { by } => write!(f, "{by} is about to power this host off"),
        }
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hindered { host, hindrance } => {
                write!(
                    f,
                    "{host} ran the engine VM and is dead; it is not powered off from here: {hindrance}"
                )
            }
            Self::Renews { host } => write!(
                f,
                "{host} ran the engine VM and has fallen silent, and its leases are renewed: it is not powered off"
            ),
            Self::Waits { host, left, before: 0 } => {
                write!(
                    f,
                    "{host} ran the engine VM and is dead: it is powered off in {left} s unless it comes back"
                )
            }
            Self::Waits { host, left, before } => write!(
                f,
                "{host} ran the engine VM and is dead: it is powered off from here in {left} s unless one of the {before} \
                 better hosts has done it"
            ),
            Self::Claimed { host, left } => {
                write!(f, "this host has announced that it powers {host} off, in {left} s")
            }
            Self::OtherClaims { host, by } => write!(f, "{by} powers {host} off"),
            Self::OffBy { host, by, .. } => write!(f, "{host} was powered off by {by}, confirmed"),
            Self::Begun { host } => write!(f, "powering {host} off"),
            Self::Off { host, remark: None, .. } => {
                write!(f, "{host} was powered off by this host, confirmed")
            }
            Self::Off { host, remark: Some(remark), .. } => {
                write!(f, "{host} was powered off by this host, confirmed; {remark}")
            }
            Self::Failed { host, detail, .. } => write!(
                f,
                "{host} could not be powered off from this host: {detail}; another host that has a switch for it tries \
                 once, this one not again before it was alive"
            ),
            Self::Back { host } => write!(f, "{host}, which this host had powered off, is back"),
        }
    }
}
