//! `[vdsm]`: where this host's VDSM listens.

use std::fmt;
use std::str::FromStr;

use serde::Deserialize;

/// `[vdsm]`: only for `hypervisor = "vdsm"`. Certificates are where VDSM keeps its own, and whether TLS is spoken is
/// `vdsm_use_ssl` of hosted-engine.conf.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct VdsmTable {
    /// Default `"localhost:54321"`.
    pub address: HostPort,
}

/// A host and a TCP port, `host:port`; an IPv6 address stands in brackets.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct HostPort {
    host: String,
    port: u16,
}

/// A text that is no `host:port`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not host:port (an IPv6 address in brackets), for example \"localhost:54321\" or \"[::1]:54321\""
)]
pub struct HostPortError(String);

impl HostPort {
    /// The host's name or address, without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port, never 0.
    pub fn port(&self) -> u16 {
        self.port
    }
}

/// Port 54321 of this host, where VDSM listens.
impl Default for HostPort {
    fn default() -> Self {
        Self { host: "localhost".to_owned(), port: 54321 }
    }
}

impl FromStr for HostPort {
    type Err = HostPortError;

    fn from_str(text: &str) -> Result<Self, HostPortError> {
        let parts = || {
            let (host, port) = text.rsplit_once(':')?;
            let port = port.parse().ok().filter(|port| *port != 0)?;
            let host = match host.strip_prefix('[') {
                Some(rest) => {
                    rest.strip_suffix(']').filter(|address| address.parse::<std::net::Ipv6Addr>().is_ok())?
                }
                None => Some(host).filter(|host| is_name(host))?,
            };
            Some(Self { host: host.to_owned(), port })
        };
        parts().ok_or_else(|| HostPortError(text.to_owned()))
    }
}

/// Letters, digits, dots and dashes: a host's name or an IPv4 address.
fn is_name(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
}

impl TryFrom<String> for HostPort {
    type Error = HostPortError;

    fn try_from(text: String) -> Result<Self, HostPortError> {
        text.parse()
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_and_port_are_told_apart_and_written_back() {
        for (text, host, port) in [
            ("localhost:54321", "localhost", 54321),
            ("192.0.2.7:1", "192.0.2.7", 1),
            ("[::1]:65535", "::1", 65535),
        ] {
            let read: HostPort = text.parse().unwrap();
            assert_eq!((read.host(), read.port(), read.to_string().as_str()), (host, port, text));
        }
        assert_eq!(HostPort::default().to_string(), "localhost:54321");
    }

    #[test]
    fn anything_else_is_refused_with_an_example() {
        for text in
            ["", "localhost", ":54321", "localhost:", "localhost:0", "h:70000", "::1:54321", "[x]:1", "a b:1"]
        {
            let error = text.parse::<HostPort>().unwrap_err().to_string();
            assert!(error.contains(&format!("{text:?}")) && error.contains("localhost:54321"), "{error}");
        }
    }
}
