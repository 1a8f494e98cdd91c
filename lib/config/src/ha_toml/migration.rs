//! `[migration]`: how the VM is moved while it runs.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use serde::Deserialize;

use super::seconds;

/// `[migration]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MigrationTable {
    /// Where this host receives the VM's memory from the other hosts, an IP address or a name of this host; default: the
    /// address of the management bridge. Only for `hypervisor = "qemu"`.
    pub address: Option<String>,
    /// TCP ports for that, `first-last`; default `"49152-49215"`, libvirt's own. Only for `hypervisor = "qemu"`.
    pub ports: PortRange,
    /// A migration that has not ended by then is called off and the VM stays where it is, 60 to 86400 seconds; default 600.
    #[serde(with = "seconds")]
    pub timeout: Duration,
}

impl Default for MigrationTable {
    fn default() -> Self {
        Self { address: None, ports: PortRange::default(), timeout: Duration::from_mins(10) }
    }
}

impl MigrationTable {
    pub(super) fn check(&self) -> Result<(), String> {
        let is_name = |name: &str| name.chars().all(|c| c.is_ascii_alphanumeric() || "._:-".contains(c));
        match &self.address {
            Some(address) if address.is_empty() || !is_name(address) => Err(format!(
                "migration.address = {address:?} must be an IP address or a host's name; leave the key out for the \
                 address of the management bridge"
            )),
            _ => Ok(()),
        }
    }
}

/// TCP ports, from the first to the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct PortRange {
    first: u16,
    last: u16,
}

/// A text that is no range of ports.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no range of TCP ports; write first-last, for example \"49152-49215\"")]
pub struct PortRangeError(String);

impl PortRange {
    /// All of them, in order; never empty, never 0.
    pub const fn all(self) -> RangeInclusive<u16> {
        self.first..=self.last
    }
}

impl Default for PortRange {
    fn default() -> Self {
        Self { first: 49152, last: 49215 }
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

impl FromStr for PortRange {
    type Err = PortRangeError;

    fn from_str(text: &str) -> Result<Self, PortRangeError> {
        let parts = || {
            let (first, last) = text.split_once('-')?;
            let (first, last) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
            (0 < first && first <= last).then_some(Self { first, last })
        };
        parts().ok_or_else(|| PortRangeError(text.to_owned()))
    }
}

impl TryFrom<String> for PortRange {
    type Error = PortRangeError;

    fn try_from(text: String) -> Result<Self, PortRangeError> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::super::HaToml;
    use super::*;
    use crate::paths::Paths;

    fn parse(text: &str) -> Result<MigrationTable, String> {
        let toml = HaToml::parse(&Paths::default(), text).map_err(|error| error.to_string())?;
        Ok(toml.migration)
    }

    #[test]
    fn keys_are_read() {
        let read =
            parse("[migration]\naddress = \"192.0.2.7\"\nports = \"4000-4001\"\ntimeout = 90\n").unwrap();
        assert_eq!((read.address.as_deref(), read.timeout), (Some("192.0.2.7"), Duration::from_secs(90)));
        assert_eq!(read.ports.all().collect::<Vec<_>>(), [4000, 4001]);
        assert_eq!(parse("").unwrap().ports.to_string(), "49152-49215");
    }

    #[test]
    fn values_that_cannot_be_used_are_refused_with_what_is_right() {
        for (line, says) in [
            ("ports = \"0-5\"", "\"49152-49215\""),
            ("ports = \"5-4\"", "first-last"),
            ("ports = \"5\"", "first-last"),
            ("address = \"\"", "must be an IP address"),
            ("address = \"a b\"", "must be an IP address"),
            ("timeout = 59", "migration.timeout = 59 must be from 60 to 86400 seconds"),
            ("adress = \"x\"", "did you mean address?"),
        ] {
            let text = parse(&format!("[migration]\n{line}\n")).unwrap_err();
            assert!(text.contains(says), "{text}");
        }
    }
}
