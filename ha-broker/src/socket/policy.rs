//! Who may change something through the socket.
//!
//! The kernel says who connects (`SO_PEERCRED`); nothing that a client sends is believed. Root and the broker's own
//! user (the agent's) may always write; other users when the configuration names them; everybody may read.

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::path::Path;

use ha_config::ha_toml::Writer;
use tokio::net::UnixStream;
use tracing::info;

/// Where user names are looked up.
const PASSWD: &str = "/etc/passwd";

/// Who is on the other end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// The user that connected.
    pub uid: u32,
    /// The process that connected, as far as it can be seen from our namespace.
    pub pid: Option<i32>,
}

impl Peer {
    /// Asks the kernel.
    pub(super) fn of(stream: &UnixStream) -> io::Result<Self> {
        let credentials = stream.peer_cred()?;
        Ok(Self { uid: credentials.uid(), pid: credentials.pid() })
    }

    /// The user by name and number, for people.
    pub(super) fn user(self) -> String {
        let passwd = std::fs::read_to_string(PASSWD).unwrap_or_default();
        match users(&passwd).find(|(_, uid)| *uid == self.uid) {
            Some((name, uid)) => format!("{name} (uid {uid})"),
            None => format!("uid {}", self.uid),
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.pid {
            Some(pid) => write!(f, "uid {} pid {pid}", self.uid),
            None => write!(f, "uid {}", self.uid),
        }
    }
}

/// The users that may write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WriterPolicy {
    uids: BTreeSet<u32>,
}

impl Default for WriterPolicy {
    /// Root and the user that this process runs as.
    fn default() -> Self {
        Self { uids: BTreeSet::from([0, rustix::process::geteuid().as_raw()]) }
    }
}

impl WriterPolicy {
    /// Root, this process's user, and the `[socket] writers` of ha.toml. A name that this host does not have is passed
    /// over: hosts without VDSM have no user `vdsm`.
    pub fn with_writers(writers: &[Writer]) -> Self {
        Self::with_writers_of(writers, Path::new(PASSWD))
    }

    fn with_writers_of(writers: &[Writer], passwd: &Path) -> Self {
        let text = std::fs::read_to_string(passwd).unwrap_or_else(|error| {
            tracing::warn!(path = %passwd.display(), %error, "cannot look up users");
            String::new()
        });
        let mut policy = Self::default();
        for writer in writers {
            match writer {
                Writer::Uid(uid) => {
                    policy.uids.insert(*uid);
                }
                Writer::Name(name) => {
                    if let Some((_, uid)) = users(&text).find(|(known, _)| known == name) {
                        policy.uids.insert(uid);
                    } else {
                        info!(
                            name,
                            "this host has no such user; it gets no write access to the broker's socket"
                        );
                    }
                }
            }
        }
        policy
    }

    /// Whether this peer may use the verbs that change something.
    pub fn may_write(&self, peer: &Peer) -> bool {
        self.uids.contains(&peer.uid)
    }
}

/// Names and numbers in the text of a passwd file.
fn users(passwd: &str) -> impl Iterator<Item = (&str, u32)> {
    passwd.lines().filter_map(|line| {
        let mut fields = line.split(':');
        Some((fields.next()?, fields.nth(1)?.parse().ok()?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn peer(uid: u32) -> Peer {
        Peer { uid, pid: None }
    }

    #[test]
    fn root_and_configured_users_may_write_and_nobody_else() {
        let dir = tempfile::tempdir().unwrap();
        let passwd = dir.path().join("passwd");
        std::fs::write(&passwd, "root:x:0:0::/:/bin/sh\nbroken\nvdsm:x:36:36::/:/bin/sh\n").unwrap();
        let name = |name: &str| Writer::Name(name.to_owned());
        let policy = WriterPolicy::with_writers_of(
            &[name("vdsm"), Writer::Uid(4242), name("nosuch"), name("")],
            &passwd,
        );
        for uid in [0, 36, 4242] {
            assert!(policy.may_write(&peer(uid)), "{uid}");
        }
        assert!(!policy.may_write(&peer(4243)));
        let ours = WriterPolicy::default();
        assert_eq!(WriterPolicy::with_writers_of(&[name("vdsm")], &dir.path().join("missing")), ours);
    }
}
