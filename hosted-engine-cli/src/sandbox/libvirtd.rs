//! libvirt on a sandbox host: a real libvirtd of its own, with files, sockets and an identity of its own.
//!
//! libvirtd has its paths built in. The host's directories lie over the machine's, in the host's mount namespace alone.
//! The other hosts reach it without encryption on the sandbox's network, which leads nowhere else; so do hypervisors
//! when a VM moves.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;
use quick_xml::events::{BytesStart, Event};
use quick_xml::reader::Reader;
use rustix::mount::mount_bind;

use super::layout::HostNumber;

/// The daemon's program.
pub const PROGRAM: &str = "libvirtd";
/// The address at which a host's libvirtd finds another's, which `{host}` stands for.
pub const MIGRATE_URI: &str = "qemu+tcp://{host}/system";
/// What libvirtd may write, below `/`; the package makes all of them but `run`.
const PRIVATE: [&str; 5] = ["run", "etc/libvirt", "var/lib/libvirt", "var/cache/libvirt", "var/log/libvirt"];

/// What libvirt's QEMU driver cannot have in a sandbox host, which has no systemd, no control groups to give away and no
/// other user; each with the reason.
const QEMU_CONF: &str = "\
# There are no control groups below this host's own.
cgroup_controllers = []
# The host is a set of namespaces already.
namespaces = []
# No virtlogd runs.
stdio_handler = \"file\"
# QEMU reads and writes the shared folder as root.
security_driver = \"none\"
user = \"root\"
group = \"root\"
dynamic_ownership = 0
";

fn daemon_conf(number: HostNumber) -> String {
    format!(
        "# Without it all hosts would seem to be one, to which no VM can move.\n\
         host_uuid = \"5b0f2a64-9d3c-4c1e-8f57-{:012}\"\n\
         # For the other hosts' daemons.\n\
         listen_tls = 0\nlisten_tcp = 1\nauth_tcp = \"none\"\n\
         # No polkit runs; the socket's mode keeps others out.\n\
         unix_sock_rw_perms = \"0700\"\nauth_unix_rw = \"none\"\nauth_unix_ro = \"none\"\n",
        number.0
    )
}

/// Refuses a sandbox whose own directory would be hidden by its hosts'.
pub fn check_place(dir: &Path) -> anyhow::Result<()> {
    let hidden =
        PRIVATE.iter().map(|private| Path::new("/").join(private)).find(|private| dir.starts_with(private));
    match hidden {
        None => Ok(()),
        Some(private) => anyhow::bail!(
            "a sandbox with libvirt cannot be in {}, because each of its hosts has a {} of its own; take another \
             directory (--dir)",
            dir.display(),
            private.display()
        ),
    }
}

/// Makes a host's directories and, where they are not there yet, its daemon's two files.
pub fn prepare_files(root: &Path, number: HostNumber) -> anyhow::Result<()> {
    for dir in PRIVATE {
        fs::create_dir_all(root.join(dir)).with_context(|| dir.to_owned())?;
    }
    for (name, text) in [("libvirtd.conf", daemon_conf(number)), ("qemu.conf", QEMU_CONF.to_owned())] {
        let file = root.join("etc/libvirt").join(name);
        if !file.exists() {
            fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
        }
    }
    Ok(())
}

/// In the host's mount namespace: lays its directories over the machine's.
pub fn mount(root: &Path) -> anyhow::Result<()> {
    for dir in PRIVATE {
        let target = Path::new("/").join(dir);
        mount_bind(root.join(dir), &target).with_context(|| format!("bind {}", target.display()))?;
    }
    Ok(())
}

/// The daemon, in the foreground.
pub fn command() -> Command {
    let mut command = Command::new(PROGRAM);
    command.arg("--listen");
    command
}

/// What libvirtd keeps of a domain that is there, for its own next start: written anew at each change, and as it was when
/// the daemon died.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// `running`, `paused`, …
    pub state: String,
    /// Why it is in that state.
    pub reason: String,
    /// The job that takes longer: `migration in`, `migration out`, `none`, …
    pub job: String,
    /// How far that is; empty without one.
    pub phase: String,
}

impl Kept {
    /// Where a host with this root keeps it.
    pub fn file(root: &Path, domain: &str) -> PathBuf {
        root.join("run/libvirt/qemu").join(format!("{domain}.xml"))
    }

    /// Reads it; `None` when it is none.
    pub fn parse(text: &str) -> Option<Self> {
        let mut reader = Reader::from_str(text);
        let mut status = None;
        loop {
            match reader.read_event().ok()? {
                Event::Start(element) | Event::Empty(element) => match element.name().as_ref() {
                    b"domstatus" => {
                        status = Some((attribute(&element, "state")?, attribute(&element, "reason")?));
                    }
                    b"job" => {
                        let (state, reason) = status?;
                        let job = attribute(&element, "async")?;
                        let phase = attribute(&element, "phase").unwrap_or_default();
                        return Some(Self { state, reason, job, phase });
                    }
                    _ => {}
                },
                Event::Eof => return None,
                _ => {}
            }
        }
    }
}

fn attribute(element: &BytesStart<'_>, name: &str) -> Option<String> {
    Some(element.try_get_attribute(name).ok()??.unescape_value().ok()?.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_that_hosts_would_hide_is_refused() {
        assert!(check_place(Path::new("/var/lib/sb")).is_ok());
        let error = check_place(Path::new("/run/sb")).unwrap_err().to_string();
        assert!(error.contains("/run/sb") && error.contains("--dir"), "{error}");
    }

    #[test]
    fn hosts_have_identities_of_their_own_and_what_was_set_up_stays() {
        let dir = tempfile::tempdir().unwrap();
        let read = |host: &str, name: &str| fs::read_to_string(dir.path().join(host).join(name)).unwrap();
        for number in [1, 2] {
            prepare_files(&dir.path().join(format!("h{number}")), HostNumber(number)).unwrap();
        }
        let (one, two) = (read("h1", "etc/libvirt/libvirtd.conf"), read("h2", "etc/libvirt/libvirtd.conf"));
        assert_ne!(one, two);
        assert!(one.contains("-000000000001\"") && two.contains("-000000000002\""), "{one}{two}");

        let qemu_conf = dir.path().join("h1/etc/libvirt/qemu.conf");
        fs::write(&qemu_conf, "lock_manager = \"sanlock\"\n").unwrap();
        prepare_files(&dir.path().join("h1"), HostNumber(1)).unwrap();
        assert_eq!(read("h1", "etc/libvirt/qemu.conf"), "lock_manager = \"sanlock\"\n");
    }

    #[test]
    fn what_libvirtd_keeps_of_a_domain_is_read() {
        let kept = |status: &str, job: &str| {
            Kept::parse(&format!(
                "<!--\nWARNING: THIS IS AN AUTO-GENERATED FILE.\n-->\n\n<domstatus {status}>\n  <taint flag='x'/>\n  \
                 {job}\n  <domain type='qemu' id='1'><name>HostedEngine</name></domain>\n</domstatus>\n"
            ))
        };
        let found = kept(
            "state='paused' reason='migration' pid='77'",
            "<job type='none' async='migration out' phase='perform3' flags='0x1'><x/></job>",
        )
        .expect("a domain");
        assert_eq!((found.state.as_str(), found.reason.as_str()), ("paused", "migration"));
        assert_eq!((found.job.as_str(), found.phase.as_str()), ("migration out", "perform3"));
        let found = kept("state='running' reason='booted' pid='77'", "<job type='none' async='none'/>");
        assert_eq!(found.expect("a domain").phase, "");
        assert_eq!(kept("pid='77'", "<job type='none' async='none'/>"), None);
        assert_eq!(Kept::parse(""), None);
        assert_eq!(Kept::parse("<domstatus state='running"), None);
    }
}
