//! Where VDSM is and how it is spoken to.

use std::path::PathBuf;
use std::time::Duration;

/// Where VDSM is and how it is spoken to. [`Settings::new`] has the values that fit every VDSM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Host name or address, an IPv6 address without brackets.
    pub host: String,
    /// TCP port; VDSM's is 54321.
    pub port: u16,
    /// Certificates, or `None` for plain TCP (`vdsm_use_ssl=false`).
    pub tls: Option<TlsFiles>,
    /// How often the server is asked to give a sign of life: 24 s. With a quarter more of silence the connection counts
    /// as dead. At least a second: VDSM raises anything shorter.
    pub heart_beat: Duration,
    /// How long a connection may take to be made, TLS and STOMP included: 10 s.
    pub connect_timeout: Duration,
    /// The first pause before connecting again: 0.1 s. It doubles with every failure.
    pub first_pause: Duration,
    /// The longest pause before connecting again: 5 s.
    pub longest_pause: Duration,
    /// The pause before a request is repeated that was refused because VDSM is recovering: 1 s.
    pub recovery_pause: Duration,
}

impl Settings {
    /// For a host, a port, and files when it speaks TLS, with the defaults for the rest.
    pub fn new(host: impl Into<String>, port: u16, tls: Option<TlsFiles>) -> Settings {
        Settings {
            host: host.into(),
            port,
            tls,
            heart_beat: Duration::from_secs(24),
            connect_timeout: Duration::from_secs(10),
            first_pause: Duration::from_millis(100),
            longest_pause: Duration::from_secs(5),
            recovery_pause: Duration::from_secs(1),
        }
    }
}

/// PEM files of the two-sided TLS. They are read at every connect, because certificates get renewed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// Certificates of the authorities that the server's certificate must come from.
    pub ca: PathBuf,
    /// Our certificate, with the intermediate ones if there are any.
    pub cert: PathBuf,
    /// Its private key: PKCS#8, PKCS#1 or SEC1, not encrypted.
    pub key: PathBuf,
}
