//! What is where in a sandbox: names, addresses and paths. Pure; touches nothing.
//!
//! ```text
//! DIR/sandbox.json     what the sandbox is made of
//! DIR/storage/         the shared folder, as the "file server" has it
//! DIR/lun              or the shared LUN, as the "array" has it
//! DIR/bin/             programs that play what the hosts have not
//! DIR/pki/             the authority of the hosts' certificates, where the VM runs by VDSM
//! DIR/power/           the hosts' power switches: their password, what they were asked
//! DIR/hN/              the root of host N: etc, run, var, rhev, storage
//! DIR/host/            the same root inside host N, and only there; its own view of the storage is mounted in it
//! ```
//!
//! Inside, every host's files have the same paths, as on real hosts: what describes the VM on one of them is true on
//! the others, and a VM can move.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use ha_config::Paths;

/// Default of `--dir`.
pub const DEFAULT_DIR: &str = "/var/lib/ovirt-ha-sandbox";
/// Name of the management bridge in each host.
pub const BRIDGE: &str = "ovirtmgmt";
/// Name by which the hosts know the engine.
pub const ENGINE_FQDN: &str = "engine.sandbox.test";
/// Address of the engine VM. The network exists only between the sandbox's namespaces.
pub const ENGINE: Ipv4Addr = Ipv4Addr::new(10, 199, 77, 200);
/// Address of the switch, which plays the gateway.
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 199, 77, 1);
/// Address of the hosts' power switches, where there are any.
pub const POWER: Ipv4Addr = Ipv4Addr::new(10, 199, 77, 2);
/// Length of the network's prefix.
pub const PREFIX: u8 = 24;
/// Most hosts in one sandbox.
pub const MAX_HOSTS: u8 = 64;
/// The directory where the hosts find the shared folder mounted, below their roots.
pub const STORAGE: &str = "/storage";
/// The same as an export, which VDSM connects, in the words of hosted-engine.conf.
pub const EXPORT: &str = "sandbox:/storage";
/// The file server's name in [`EXPORT`].
pub const FILE_SERVER: &str = "sandbox";
/// The file server's address: each host has its own view of the storage, and so of the server that exports it.
pub const FILE_SERVER_ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 3);
/// The port of NFS.
pub const NFS_PORT: u16 = 2049;

/// The longest path of a Unix socket under a host's root that anything here uses.
const LONGEST_SOCKET: usize = "/run/ovirt-hosted-engine-ha/qemu/console-cli.sock".len();
/// Bytes in a Unix socket's path, without the closing NUL.
const SOCKET_PATH: usize = 107;

/// Number of a host in the sandbox, from 1; also its `host_id`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct HostNumber(pub u8);

impl std::fmt::Display for HostNumber {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl HostNumber {
    /// Its name in the sandbox's network.
    pub fn name(self) -> String {
        format!("host{}.sandbox.test", self.0)
    }

    /// Its address.
    pub fn address(self) -> Ipv4Addr {
        Ipv4Addr::new(10, 199, 77, 100 + self.0)
    }

    /// The hardware address of its card, one of those that anybody may give, and as on a real host the same after each
    /// boot. Its bridge has it too: it is lower than that of any VM's tap.
    pub fn hardware_address(self) -> String {
        format!("02:00:00:00:01:{:02x}", self.0)
    }

    /// Its port on the switch.
    pub fn port(self) -> String {
        format!("h{}", self.0)
    }
}

/// The directory cannot hold a sandbox.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    /// Unix sockets would get too long a path.
    #[error(
        "the directory {dir} is too long: the sandbox's Unix sockets may have {SOCKET_PATH} bytes, so use one of at most {most} bytes (--dir)"
    )]
    TooLong {
        /// What was given.
        dir: String,
        /// Bytes that fit.
        most: usize,
    },
    /// Relative, or not text.
    #[error("the directory {dir} must be an absolute path of plain text (--dir)")]
    NotAbsolute {
        /// What was given.
        dir: String,
    },
}

/// Where one sandbox is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    dir: PathBuf,
}

impl Layout {
    /// A sandbox in `dir`.
    pub fn new(dir: &Path) -> Result<Self, LayoutError> {
        let text = dir.display().to_string();
        if !dir.is_absolute() || dir.to_str().is_none() || text.contains(char::is_whitespace) {
            return Err(LayoutError::NotAbsolute { dir: text });
        }
        let most = SOCKET_PATH - LONGEST_SOCKET - "/host".len();
        if text.len() > most {
            return Err(LayoutError::TooLong { dir: text, most });
        }
        Ok(Self { dir: dir.components().collect() })
    }

    /// The directory itself.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What the sandbox is made of.
    pub fn state_file(&self) -> PathBuf {
        self.dir.join("sandbox.json")
    }

    /// Locked by every command that changes the sandbox.
    pub fn lock_file(&self) -> PathBuf {
        self.dir.join("lock")
    }

    /// The shared folder, without faults.
    pub fn storage(&self) -> PathBuf {
        self.dir.join("storage")
    }

    /// The file behind the shared LUN.
    pub fn lun(&self) -> PathBuf {
        self.dir.join("lun")
    }

    /// Programs that come before the machine's own, where there are any.
    pub fn programs(&self) -> PathBuf {
        self.dir.join("bin")
    }

    /// The authority that signs the hosts' certificates.
    pub fn authority(&self) -> PathBuf {
        self.dir.join("pki")
    }

    /// The files of the hosts' power switches.
    pub fn power(&self) -> PathBuf {
        self.dir.join("power")
    }

    /// The file with the password of the power switches.
    pub fn power_password(&self) -> PathBuf {
        self.power().join("password")
    }

    /// A host's paths, seen from the machine.
    pub fn host(&self, number: HostNumber) -> Paths {
        Paths::new(self.dir.join(format!("h{number}")))
    }

    /// Every host's own paths, seen from inside it.
    pub fn inside(&self) -> Paths {
        Paths::new(self.dir.join("host"))
    }

    /// Where a host sees the shared folder, seen from inside it. VDSM's stand-in connects it from there, as an export.
    pub fn mountpoint(&self) -> PathBuf {
        self.inside().resolve(STORAGE)
    }

    /// The socket that sets a host's storage faults.
    pub fn fault_socket(&self, number: HostNumber) -> PathBuf {
        self.host(number).root().join("run/storage.sock")
    }

    /// The socket that tells a host's stand-in for VDSM how to misbehave.
    pub fn vdsm_socket(&self, number: HostNumber) -> PathBuf {
        self.host(number).root().join("run/vdsm.sock")
    }

    /// The socket of the device behind a host's watchdog, outside of the host.
    pub fn watchdog_socket(&self, number: HostNumber) -> PathBuf {
        self.dir.join(format!("h{number}.watchdog"))
    }

    /// The socket of a host's init.
    pub fn init_socket(&self, number: HostNumber) -> PathBuf {
        self.host(number).root().join("run/init.sock")
    }

    /// A log of one of a host's services, or of its init.
    pub fn log(&self, number: HostNumber, service: &str) -> PathBuf {
        self.host(number).root().join("var/log").join(format!("{service}.log"))
    }

    /// Name of the switch's network namespace and of the control groups' directory: one for each directory.
    pub fn tag(&self) -> String {
        let name: String = self
            .dir
            .to_string_lossy()
            .trim_matches('/')
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
            .collect();
        format!("ovirt-ha.{name}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_host_has_its_own_place() {
        let layout = Layout::new(Path::new("/var/lib/sb/")).expect("a fine directory");
        assert_eq!(layout.host(HostNumber(2)).root(), Path::new("/var/lib/sb/h2"));
        assert_eq!(layout.mountpoint(), Path::new("/var/lib/sb/host/storage"));
        assert_eq!(EXPORT, format!("{FILE_SERVER}:{STORAGE}"));
        assert_eq!(layout.tag(), "ovirt-ha.var-lib-sb");
        assert_eq!(HostNumber(3).address(), Ipv4Addr::new(10, 199, 77, 103));
    }

    #[test]
    fn the_last_host_is_not_the_engine() {
        assert!(HostNumber(MAX_HOSTS).address() < ENGINE);
    }

    #[test]
    fn directories_that_cannot_work_are_refused_with_the_reason() {
        assert!(matches!(Layout::new(Path::new("here")), Err(LayoutError::NotAbsolute { .. })));
        assert!(matches!(Layout::new(Path::new("/a b")), Err(LayoutError::NotAbsolute { .. })));
        let long = format!("/{}", "x".repeat(90));
        let error = Layout::new(Path::new(&long)).expect_err("too long").to_string();
        assert!(error.contains("at most 5"), "{error}");
    }
}
