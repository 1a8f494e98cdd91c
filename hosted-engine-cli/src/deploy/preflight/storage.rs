//! Shared storage: before it is connected, whether it answers and the host has the programs for it; afterwards, whether
//! those who must can write to it, and whether there is space.

use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ha_config::ha_toml::Hypervisor;

use super::{Finding, Host};
use crate::deploy::{Call, Family, Request, Storage, StorageKind, ToolError};

/// For one TCP connection.
const CONNECT: Duration = Duration::from_secs(5);
/// What the domain takes beside the VM's disk, in bytes: 1 GiB of leases for VMs, and a margin for the rest.
const BESIDES_DISK: u64 = (1 << 30) + (200 << 20);
/// User and group of VDSM on every host.
const VDSM: u32 = 36;

pub(super) fn check(host: &Host<'_>) -> Vec<Finding> {
    let storage = host.storage();
    let mut found = match host.hypervisor() {
        // VDSM's package asks for what it mounts and logs in with.
        Hypervisor::Vdsm => Vec::new(),
        Hypervisor::Qemu | Hypervisor::Libvirt => check_programs(host, storage.kind),
    };
    if storage.kind == StorageKind::Directory {
        let directory = host.paths.resolve(&storage.connection);
        if host.hear(&Call::new("test").arg("-d").arg(&directory)).is_none() {
            found.push(Finding::blocker(
                format!("there is no directory {}, or it does not answer", directory.display()),
                "make it, or have it mounted, on every host",
            ));
        } else {
            found.extend(check_connected(host, &directory));
        }
        return found;
    }
    let family = match host.request {
        Request::FirstHost(first) => first.family,
        Request::FurtherHost(_) => Family::Auto,
    };
    let (servers, ports) = servers(storage);
    let unreached: Vec<String> =
        servers.iter().filter_map(|server| reach(host, server, &ports, family).err()).collect();
    let is_lost = !servers.is_empty() && unreached.len() == servers.len();
    found.extend(unreached.into_iter().map(|what| {
        let advice = "check the name, the network and the server's firewall";
        if is_lost { Finding::blocker(what, advice) } else { Finding::warning(what, advice) }
    }));
    found
}

/// Whom to ask, and at which of the ports somebody must answer.
fn servers(storage: &Storage) -> (Vec<String>, Vec<u16>) {
    let server = |text: &str| {
        let host = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((address, _)) => address,
            None => text.split(':').next().unwrap_or_default(),
        };
        host.to_owned()
    };
    let connection = &storage.connection;
    match storage.kind {
        StorageKind::Nfs4 => (vec![server(connection)], vec![2049]),
        // Version 3 asks the port mapper first.
        StorageKind::Nfs3 => (vec![server(connection)], vec![111]),
        StorageKind::Nfs => (vec![server(connection)], vec![2049, 111]),
        StorageKind::Glusterfs => (vec![server(connection)], vec![24007]),
        StorageKind::Iscsi => {
            let ports = storage.iscsi.as_ref().map_or_else(Vec::new, |iscsi| iscsi.ports.clone());
            let portals = connection.split(',').map(str::trim).filter(|portal| !portal.is_empty());
            (portals.map(server).collect(), if ports.is_empty() { vec![3260] } else { ports })
        }
        StorageKind::Fc | StorageKind::Directory => (Vec::new(), Vec::new()),
    }
}

fn reach(host: &Host<'_>, server: &str, ports: &[u16], family: Family) -> Result<(), String> {
    let addresses = super::names::resolve(host, server, family);
    if addresses.is_empty() {
        return Err(format!("the storage server {server:?} leads to no address"));
    }
    let mut last = String::new();
    for (address, port) in
        addresses.iter().flat_map(|address| ports.iter().map(move |port| (*address, *port)))
    {
        match connect(address, port) {
            Ok(()) => return Ok(()),
            Err(error) => last = format!("{server} does not answer at TCP port {port} ({address}: {error})"),
        }
    }
    Err(last)
}

fn connect(address: IpAddr, port: u16) -> std::io::Result<()> {
    TcpStream::connect_timeout(&SocketAddr::new(address, port), CONNECT).map(drop)
}

/// The programs without which this kind cannot be connected, with the package that has them.
fn programs(kind: StorageKind) -> &'static [(&'static str, &'static str, &'static str)] {
    match kind {
        StorageKind::Nfs | StorageKind::Nfs3 | StorageKind::Nfs4 => {
            &[("mount.nfs", "-V", "nfs-utils (on Debian nfs-common)")]
        }
        StorageKind::Glusterfs => {
            &[("glusterfs", "--version", "glusterfs-fuse (on Debian glusterfs-client)")]
        }
        StorageKind::Iscsi => &[
            ("iscsiadm", "--version", "iscsi-initiator-utils (on Debian open-iscsi)"),
            ("lvm", "version", "lvm2"),
        ],
        StorageKind::Fc => &[("lvm", "version", "lvm2")],
        StorageKind::Directory => &[],
    }
}

fn check_programs(host: &Host<'_>, kind: StorageKind) -> Vec<Finding> {
    let missing = |(program, version, _): &&(&'static str, &'static str, &'static str)| {
        matches!(host.tools.ask(&Call::new(program).arg(version)), Err(ToolError::Missing { .. }))
    };
    let found = programs(kind).iter().filter(missing);
    found
        .map(|(program, _, package)| {
            Finding::blocker(format!("{program} is not installed"), format!("install {package}"))
        })
        .collect()
}

/// A program that works in somebody's name.
fn as_user(user: Option<u32>, program: &'static str) -> Call {
    match user {
        None => Call::new(program),
        Some(id) => {
            let ids = [format!("--reuid={id}"), format!("--regid={id}"), "--clear-groups".to_owned()];
            Call::new("setpriv").args(ids).arg("--").arg(program)
        }
    }
}

pub(super) fn check_connected(host: &Host<'_>, directory: &Path) -> Vec<Finding> {
    // The broker, which writes the hosts' blocks, works as vdsm where there is that user.
    let has_vdsm = host.hear(&Call::new("getent").args(["passwd", "vdsm"])).is_some();
    let mut found = Vec::new();
    for user in [None, has_vdsm.then_some(VDSM)]
        .into_iter()
        .enumerate()
        .filter_map(|(i, user)| (i == 0 || user.is_some()).then_some(user))
    {
        found.extend(try_writing(host, directory, user));
        if !found.is_empty() {
            break;
        }
    }
    if let Request::FirstHost(first) = host.request
        && let Some(text) = host.hear(&Call::new("stat").args(["-f", "-c", "%a %S"]).arg(directory))
    {
        found.extend(judge_space(directory, &text, first.vm.disk_gib));
    }
    found
}

fn try_writing(host: &Host<'_>, directory: &Path, user: Option<u32>) -> Vec<Finding> {
    let who = user.map_or_else(|| "root".to_owned(), |id| format!("vdsm ({id}:{id})"));
    let file: PathBuf = directory.join(format!(".hosted-engine-check.{}", std::process::id()));
    let with = |key: &str| {
        let mut word = std::ffi::OsString::from(key);
        word.push(&file);
        word
    };
    let dd = || as_user(user, "dd");
    let write =
        dd().args(["if=/dev/zero", "bs=4096", "count=1", "status=none", "conv=fsync"]).arg(with("of="));
    let plain = failure(host, &write);
    let direct = match plain {
        None => failure(host, &write.clone().arg("oflag=direct")),
        Some(_) => None,
    };
    let small = match (&plain, &direct) {
        (None, None) => failure(
            host,
            &dd().args(["bs=512", "count=1", "status=none", "iflag=direct", "of=/dev/null"]).arg(with("if=")),
        ),
        _ => None,
    };
    // What is written is removed, by whom wrote it.
    let rest = failure(host, &as_user(user, "rm").arg("-f").arg("--").arg(&file));
    judge_writing(directory, &who, [plain, direct, small, rest])
}

/// What a program said when it failed.
fn failure(host: &Host<'_>, call: &Call) -> Option<String> {
    host.tools.run(call).err().map(|error| match error {
        ToolError::Failed { said, .. } => said,
        other => other.to_string(),
    })
}

fn judge_writing(
    directory: &Path,
    who: &str,
    [plain, direct, small, rest]: [Option<String>; 4],
) -> Vec<Finding> {
    let at = directory.display();
    if let Some(why) = plain {
        return vec![Finding::blocker(
            format!("{who} cannot write to {at} ({why})"),
            "give the directory to 36:36 with mode 0755 on the server, and export it read-write without all_squash to another user",
        )];
    }
    let mut found = Vec::new();
    if let Some(why) = direct {
        found.push(Finding::blocker(
            format!("{at} knows no direct I/O ({why})"),
            "sanlock and the hosts' blocks need it: choose another file system (tmpfs and some overlays have none)",
        ));
    }
    if small.is_some() {
        found.push(Finding::note(
            format!("{at} reads and writes sectors of 4096 bytes only"),
            "nothing: the lockspaces are made for it, and take more space",
        ));
    }
    if let Some(why) = rest {
        found.push(Finding::warning(
            format!("a file of this check stays in {at} ({why})"),
            "remove .hosted-engine-check.*",
        ));
    }
    found
}

fn judge_space(directory: &Path, free: &str, disk_gib: u64) -> Option<Finding> {
    let mut numbers = free.split_whitespace().map(str::parse::<u64>);
    let (blocks, size) = (numbers.next()?.ok()?, numbers.next()?.ok()?);
    let free = blocks.saturating_mul(size);
    let needed = disk_gib.saturating_mul(1 << 30).saturating_add(BESIDES_DISK);
    let gib = |bytes: u64| format!("{}.{} GiB", bytes >> 30, ((bytes & ((1 << 30) - 1)) * 10) >> 30);
    (free < needed).then(|| {
        Finding::blocker(
            format!(
                "{} has {} free, and the domain with the VM's disk needs {}",
                directory.display(),
                gib(free),
                gib(needed)
            ),
            "make space, or give the VM a smaller disk",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deploy::Iscsi;
    use crate::deploy::fixture::{Fixture, first_host};
    use crate::deploy::preflight::Severity;
    use crate::deploy::testing::Recorded;
    use crate::deploy::tools::Installed;

    fn storage(kind: StorageKind, connection: &str) -> Storage {
        Storage { kind, connection: connection.to_owned(), ..first_host().storage }
    }

    #[test]
    fn each_kind_is_asked_at_its_own_ports() {
        let names = |list: &[&str]| list.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        assert_eq!(servers(&storage(StorageKind::Nfs, "nas:/x")), (names(&["nas"]), vec![2049, 111]));
        assert_eq!(
            servers(&storage(StorageKind::Nfs4, "[2001:db8::1]:/x")),
            (names(&["2001:db8::1"]), vec![2049])
        );
        assert_eq!(servers(&storage(StorageKind::Glusterfs, "g1:/v")).1, [24007]);
        let mut iscsi = storage(StorageKind::Iscsi, "10.0.0.1, 10.0.0.2");
        assert_eq!(servers(&iscsi), (names(&["10.0.0.1", "10.0.0.2"]), vec![3260]));
        iscsi.iscsi = Some(Iscsi {
            target: "iqn.x".to_owned(),
            tpgt: 1,
            ports: vec![3261],
            user: None,
            discovery_user: None,
        });
        assert_eq!(servers(&iscsi).1, [3261]);
        assert_eq!(servers(&storage(StorageKind::Fc, "")), (Vec::new(), Vec::new()));
    }

    #[test]
    fn a_directory_is_written_to_and_left_as_it_was() {
        let fixture = Fixture::new();
        let host = Host { paths: &fixture.paths, tools: &Installed, request: &fixture.request };
        // The build directory is on a disk; /tmp may know no direct I/O.
        let directory = tempfile::tempdir_in(std::env::current_exe().unwrap().parent().unwrap()).unwrap();
        assert_eq!(try_writing(&host, directory.path(), None), []);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
        let missing = try_writing(&host, &directory.path().join("no"), None);
        assert!(
            missing[0].severity == Severity::Blocker && missing[0].what.contains("No such file"),
            "{missing:?}"
        );
    }

    #[test]
    fn vdsm_is_tried_where_it_is_a_user_and_what_fails_is_named() {
        let pid = std::process::id();
        let file = format!("/m/.hosted-engine-check.{pid}");
        let write = format!("dd if=/dev/zero bs=4096 count=1 status=none conv=fsync of={file}");
        let read = format!("dd bs=512 count=1 status=none iflag=direct of=/dev/null if={file}");
        let user = "setpriv --reuid=36 --regid=36 --clear-groups --";
        let refused = format!("dd: failed to open '{file}': Permission denied\n");
        let tools = Recorded::new(&[
            ("getent passwd vdsm", 0, "vdsm:x:36:36:Node Virtualization Manager:/:/sbin/nologin\n", ""),
            (&write, 0, "", ""),
            (&format!("{write} oflag=direct"), 0, "", ""),
            (&read, 1, "", "dd: error reading: Invalid argument\n"),
            (&format!("rm -f -- {file}"), 0, "", ""),
            ("stat -f -c '%a %S' /m", 0, "6553600 4096\n", ""),
        ]);
        let fixture = Fixture::new();
        let host = Host { paths: &fixture.paths, tools: &tools, request: &fixture.request };
        let found = check_connected(&host, Path::new("/m"));
        assert_eq!(found[0].what, "/m reads and writes sectors of 4096 bytes only");
        assert_eq!(found[1].what, "/m has 25.0 GiB free, and the domain with the VM's disk needs 26.1 GiB");
        tools.assert_over();
        let tools = Recorded::new(&[
            (&format!("{user} {write}"), 1, "", refused.as_str()),
            (&format!("{user} rm -f -- {file}"), 0, "", ""),
        ]);
        let host = Host { tools: &tools, ..host };
        let found = try_writing(&host, Path::new("/m"), Some(VDSM));
        assert!(
            found[0].what.starts_with("vdsm (36:36) cannot write to /m (dd: failed to open"),
            "{found:?}"
        );
        tools.assert_over();
    }
}
