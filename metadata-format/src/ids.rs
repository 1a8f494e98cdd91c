//! Small numbers that must not be mixed up: host ids and scores.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Highest host id that the metadata file and a sanlock lockspace of 512-byte sectors have room for.
pub const MAX_HOST_ID: u16 = 2000;

/// A host's number in the cluster, 1 to [`MAX_HOST_ID`]. It names the host's block and its sanlock host id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u16", into = "u16")]
pub struct HostId(u16);

/// A number outside 1 to [`MAX_HOST_ID`], or no number at all, where a host id was expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a host id: it must be a number from 1 to {MAX_HOST_ID}")]
pub struct HostIdError(String);

impl HostId {
    /// Checks the range.
    pub fn new(id: u16) -> Result<Self, HostIdError> {
        if (1..=MAX_HOST_ID).contains(&id) { Ok(Self(id)) } else { Err(HostIdError(id.to_string())) }
    }

    /// The number itself, 1 to [`MAX_HOST_ID`].
    pub const fn get(self) -> u16 {
        self.0
    }
}

impl TryFrom<u16> for HostId {
    type Error = HostIdError;
    fn try_from(id: u16) -> Result<Self, HostIdError> {
        Self::new(id)
    }
}

impl From<HostId> for u16 {
    fn from(id: HostId) -> Self {
        id.0
    }
}

impl FromStr for HostId {
    type Err = HostIdError;
    fn from_str(text: &str) -> Result<Self, HostIdError> {
        text.trim().parse().ok().and_then(|id| Self::new(id).ok()).ok_or_else(|| HostIdError(text.to_owned()))
    }
}

impl fmt::Display for HostId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// How fit a host is to run the engine VM: 0 (must not) and up; the profiles' highest are 2400 and 3400.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Score(pub u32);

impl fmt::Display for Score {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
