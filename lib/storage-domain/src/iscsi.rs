//! iSCSI: the interfaces that paths may be bound to, and the lists in hosted-engine.conf.
//!
//! One connection is made for each interface that somebody has bound to a network device (multipath set-ups of the
//! engine do), or one without an interface when there is none.

use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use ha_config::Paths;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

/// How long `iscsiadm` may take to list its interfaces; it only reads small files.
const LIST: Duration = Duration::from_secs(20);

/// Interfaces that `iscsiadm` itself makes.
const RESERVED: [&str; 2] = ["default", "iser"];

/// An interface that is bound to a network device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// The network device.
    pub net: String,
}

/// Reads what `iscsiadm -m iface` prints: `NAME tcp,HWADDRESS,IPADDRESS,DEVICE,INITIATOR` on each line, `<empty>`
/// where there is no value. Other transports, `iscsiadm`'s own interfaces and those without a device are passed over.
pub fn parse_interfaces(text: &str) -> Vec<Interface> {
    text.lines()
        .filter_map(|line| {
            let (name, rest) = line.split_once(" tcp,")?;
            let [_, _, net, _] = rest.split(',').collect::<Vec<_>>()[..] else { return None };
            let usable = !RESERVED.contains(&name) && net != "<empty>";
            usable.then(|| Interface { name: name.to_owned(), net: net.to_owned() })
        })
        .collect()
}

/// The interfaces of this host: as the broker's unit has found them when it was started, else by `iscsiadm`, which only
/// root may run. Blocks for [`LIST`] at most.
///
/// # Errors
/// In words, when nobody can tell: paths are then not bound to interfaces.
pub fn interfaces(paths: &Paths) -> Result<Vec<Interface>, String> {
    match std::fs::read_to_string(paths.iscsi_interfaces()) {
        Ok(text) => Ok(parse_interfaces(&text)),
        Err(error) => ask().map_err(|why| {
            format!(
                "the iSCSI interfaces are unknown: {}: {error}; {why}",
                paths.iscsi_interfaces().display()
            )
        }),
    }
}

/// Runs `iscsiadm`; through sudo, as the existing release does, when this is not root.
fn ask() -> Result<Vec<Interface>, String> {
    let is_root = rustix::process::geteuid().is_root();
    let mut command = Command::new(if is_root { "iscsiadm" } else { "sudo" });
    let command = if is_root { &mut command } else { command.args(["-n", "iscsiadm"]) };
    let mut child = command
        .args(["-m", "iface"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| format!("cannot run iscsiadm: {error}"))?;
    let ended = wait(&child);
    if ended.is_err() {
        // It may have ended just now.
        let _ = child.kill();
    }
    let status = child.wait().map_err(|error| format!("cannot wait for iscsiadm: {error}"))?;
    ended?;
    if !status.success() {
        return Err(format!("iscsiadm -m iface ended with {status}"));
    }
    let mut text = String::new();
    if let Some(mut out) = child.stdout.take() {
        out.read_to_string(&mut text).map_err(|error| format!("cannot read iscsiadm's answer: {error}"))?;
    }
    Ok(parse_interfaces(&text))
}

/// Waits for its end. An answer that fills the pipe (64 KiB: hundreds of interfaces) counts as none.
fn wait(child: &Child) -> Result<(), String> {
    let failed = |error: rustix::io::Errno| format!("cannot wait for iscsiadm: {error}");
    let pidfd = pidfd_open(Pid::from_child(child), PidfdFlags::empty()).map_err(failed)?;
    let timeout = Timespec { tv_sec: LIST.as_secs().cast_signed(), tv_nsec: 0 };
    match poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&timeout)).map_err(failed)? {
        0 => Err(format!("iscsiadm -m iface did not end within {} s", LIST.as_secs())),
        _ => Ok(()),
    }
}

/// The pairs of `iscsi_paths_blacklist`: `INTERFACE<>PORTAL,…`.
///
/// # Errors
/// The part that has no `<>`.
pub fn parse_blacklist(text: &str) -> Result<Vec<(&str, &str)>, &str> {
    let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
    parts.map(|part| part.split_once("<>").ok_or(part)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_bound_tcp_interfaces_count() {
        let text = "default tcp,<empty>,<empty>,<empty>,<empty>\niser iser,<empty>,<empty>,<empty>,<empty>\n\
                    eth1 tcp,<empty>,<empty>,eth1,iqn.x\nunbound tcp,<empty>,<empty>,<empty>,<empty>\n\
                    my net tcp,00:11:22:33:44:55,10.0.0.1,bond0.5,<empty>\nbroken tcp,a,b\n\n";
        let interface = |name: &str, net: &str| Interface { name: name.to_owned(), net: net.to_owned() };
        assert_eq!(parse_interfaces(text), [interface("eth1", "eth1"), interface("my net", "bond0.5")]);
    }

    #[test]
    fn what_the_unit_found_counts() {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::new(root.path());
        std::fs::create_dir_all(paths.run_dir()).unwrap();
        std::fs::write(paths.iscsi_interfaces(), "eth1 tcp,<empty>,<empty>,eth1,<empty>\n").unwrap();
        let eth1 = Interface { name: "eth1".to_owned(), net: "eth1".to_owned() };
        assert_eq!(interfaces(&paths), Ok(vec![eth1]));
    }

    #[test]
    fn the_blacklist_has_pairs() {
        assert_eq!(
            parse_blacklist("eth1<>10.0.0.1, eth2<>10.0.0.2,"),
            Ok(vec![("eth1", "10.0.0.1"), ("eth2", "10.0.0.2")])
        );
        assert_eq!(parse_blacklist(""), Ok(vec![]));
        assert_eq!(parse_blacklist("eth1<>a,eth2"), Err("eth2"));
    }
}
