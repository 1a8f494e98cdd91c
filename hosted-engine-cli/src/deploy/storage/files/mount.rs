//! Mounting file storage: command lines, what is mounted already, and what the programs' refusals mean.

use std::path::{Path, PathBuf};
use std::time::Duration;

use ha_config::hosted_engine::{escape_connection, normal_connection};
use ha_config::{HostedEngineConf, Paths};
use serde::{Deserialize, Serialize};

use crate::deploy::{Call, DeployError, Storage, StorageKind, ToolError, Tools, Undo, Undone, World};

/// Soft: a server that is gone fails reads and writes after a minute, so that the lock manager's own times count, and no
/// process hangs for ever. Each mount has a cache of its own. The times are VDSM's: 10, 20 and 30 seconds.
const NFS: &str = "soft,nosharecache,timeo=100,retrans=3";
/// Longer than any one try of a mount program.
const DEADLINE: Duration = Duration::from_secs(150);

/// One storage's mount on a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// `nfs` or `glusterfs`.
    pub kind: &'static str,
    /// As the server knows it: `server:/path`.
    pub source: String,
    /// Where on this host.
    pub target: PathBuf,
    /// The options to try, one after the other.
    tries: Vec<String>,
}

/// What is mounted somewhere.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Mounted {
    /// `server:/path`
    pub source: String,
    /// `nfs4`, `fuse.glusterfs`
    pub fstype: String,
    /// Separated by commas.
    pub options: String,
}

impl Mounted {
    /// The version of NFS in hosted-engine.conf's words: `v3`, `v4_2`.
    pub fn nfs_version(&self) -> Option<String> {
        if !self.fstype.starts_with("nfs") {
            return None;
        }
        let version = self.options.split(',').find_map(|option| option.strip_prefix("vers="))?;
        Some(format!("v{}", version.replace('.', "_")))
    }
}

/// Where the storage is mounted, or linked to.
pub fn target(paths: &Paths, storage: &Storage) -> PathBuf {
    let mounts = paths.storage_mounts();
    let name = escape_connection(&storage.connection);
    if storage.kind == StorageKind::Glusterfs {
        mounts.join("glusterSD").join(name)
    } else {
        mounts.join(name)
    }
}

impl Mount {
    /// The mount that a storage needs; `None` when there is nothing to mount.
    ///
    /// # Errors
    /// When the connection or an option cannot be used.
    pub fn of(paths: &Paths, storage: &Storage) -> Result<Option<Self>, DeployError> {
        let version = match storage.kind {
            StorageKind::Nfs => None,
            StorageKind::Nfs3 => Some("3"),
            StorageKind::Nfs4 => Some("4"),
            StorageKind::Glusterfs => {
                check(storage)?;
                return Ok(Some(Self::new(paths, storage, "glusterfs", vec![storage.mount_options.clone()])));
            }
            StorageKind::Directory | StorageKind::Iscsi | StorageKind::Fc => return Ok(None),
        };
        check(storage)?;
        let tries = match version {
            Some(version) => vec![nfs_options(Some(version), &storage.mount_options)],
            // The mount program tries from 4.2 downwards, but not for every reason.
            None => [None, Some("3")].map(|version| nfs_options(version, &storage.mount_options)).to_vec(),
        };
        Ok(Some(Self::new(paths, storage, "nfs", tries)))
    }

    /// The mount that a deployed host's configuration asks for; `None` when there is nothing to mount.
    ///
    /// # Errors
    /// As [`Mount::of`]; and of the configuration.
    pub fn of_conf(conf: &HostedEngineConf) -> Result<Option<Self>, DeployError> {
        let Some(storage) = storage_of(conf)? else { return Ok(None) };
        let mount = Self::of(conf.paths(), &storage)?;
        // The version that the first host found is the cluster's.
        let version = conf.nfs_version().map(|text| text.trim_start_matches('v').replace('_', "."));
        Ok(mount.map(|mut mount| {
            if let Some(version) = version.filter(|version| mount.kind == "nfs" && version != "auto") {
                mount.tries = vec![nfs_options(Some(&version), &storage.mount_options)];
            }
            mount
        }))
    }

    fn new(paths: &Paths, storage: &Storage, kind: &'static str, tries: Vec<String>) -> Self {
        let source = normal_connection(&storage.connection);
        Self { kind, source, target: target(paths, storage), tries }
    }

    /// Whether it is mounted already; something else in its place is an error.
    ///
    /// # Errors
    /// When another storage is mounted there, or the mounts cannot be read.
    pub fn is_mounted(&self, tools: &dyn Tools) -> Result<bool, DeployError> {
        match mounted_at(tools, &self.target)? {
            None => Ok(false),
            Some(found) if is_same(&found.source, &self.source) => Ok(true),
            Some(found) => Err(DeployError::Refused(format!(
                "{} is mounted at {}, the place of {}: unmount it first (umount {0})",
                found.source,
                self.target.display(),
                self.source,
            ))),
        }
    }

    /// Mounts it. The directory must be there.
    ///
    /// # Errors
    /// What the program said, and what that means; of the last try.
    pub fn mount(&self, tools: &dyn Tools, has_systemd: bool) -> Result<(), DeployError> {
        let mut last = None;
        for options in &self.tries {
            match tools.run(&self.call(options, has_systemd)) {
                Ok(_) => return Ok(()),
                Err(error) => {
                    let is_final = is_final(&error);
                    // What the first try said is what the server thinks of the newest protocol.
                    last.get_or_insert(error);
                    if is_final {
                        break;
                    }
                }
            }
        }
        let Some(error) = last else { return Ok(()) };
        Err(DeployError::Refused(format!("cannot mount {}: {error}{}", self.source, advice(self, &error))))
    }

    fn call(&self, options: &str, has_systemd: bool) -> Call {
        let arguments = |call: Call| {
            let call = call.args(["-t", self.kind]);
            let call = if options.is_empty() { call } else { call.args(["-o", options]) };
            call.arg(&self.source).arg(&self.target).within(DEADLINE)
        };
        if self.kind == "glusterfs" && has_systemd {
            // Its process must outlive the session or service that mounts it.
            let scope = ["--scope", "--quiet", "--slice=ovirt-ha-glusterfs", "mount"];
            return arguments(Call::new("systemd-run").args(scope));
        }
        arguments(Call::new("mount"))
    }

    /// Unmounts it.
    ///
    /// # Errors
    /// What the program said, and what that means.
    pub fn unmount(tools: &dyn Tools, target: &Path) -> Result<(), DeployError> {
        match tools.run(&Call::new("umount").arg(target)) {
            Ok(_) => Ok(()),
            Err(error) => {
                let busy = error.to_string().contains("target is busy");
                let advice = if busy {
                    format!("; somebody uses it: fuser -vm {} names who", target.display())
                } else {
                    String::new()
                };
                Err(DeployError::Refused(format!("cannot unmount {}: {error}{advice}", target.display())))
            }
        }
    }
}

/// How a host's storage is reached, from its configuration. `None` for block storage.
///
/// # Errors
/// Of the configuration.
pub fn storage_of(conf: &HostedEngineConf) -> Result<Option<Storage>, DeployError> {
    use ha_config::DomainType;
    let kind = match conf.domain_type()? {
        DomainType::Nfs => StorageKind::Nfs,
        DomainType::Nfs3 => StorageKind::Nfs3,
        DomainType::Nfs4 => StorageKind::Nfs4,
        DomainType::Glusterfs => StorageKind::Glusterfs,
        DomainType::Posixfs => StorageKind::Directory,
        DomainType::Iscsi | DomainType::Fc => return Ok(None),
    };
    Ok(Some(Storage {
        kind,
        connection: conf.storage()?.to_owned(),
        mount_options: conf.mnt_options().unwrap_or_default().to_owned(),
        iscsi: None,
        lun: None,
    }))
}

/// The topmost mount at a path.
///
/// # Errors
/// When the mounts cannot be read.
pub fn mounted_at(tools: &dyn Tools, target: &Path) -> Result<Option<Mounted>, DeployError> {
    #[derive(Deserialize)]
    struct Answer {
        filesystems: Vec<Mounted>,
    }
    // As the kernel says it: looking at the path itself would hang with its server.
    let arguments = ["--json", "--nocanonicalize", "--output", "SOURCE,FSTYPE,OPTIONS", "--mountpoint"];
    let call = Call::new("findmnt").args(arguments).arg(target);
    let said = tools.ask(&call)?;
    if said.code == 1 && said.out.trim().is_empty() {
        return Ok(None);
    }
    let answer: Answer = serde_json::from_str(&said.out).map_err(|error| ToolError::Failed {
        call: call.to_string(),
        code: said.code,
        said: format!("{} ({error})", said.err.trim()),
    })?;
    Ok(answer.filesystems.into_iter().next_back())
}

fn nfs_options(version: Option<&str>, extra: &str) -> String {
    let mut options = vec![NFS.to_owned()];
    if let Some(version) = version {
        let (major, minor) = version.split_once('.').unwrap_or((version, ""));
        options.push(format!("nfsvers={major}"));
        if !minor.is_empty() {
            options.push(format!("minorversion={minor}"));
        }
    }
    options.extend(Some(extra.to_owned()).filter(|extra| !extra.is_empty()));
    let given = |name: &str| extra.split(',').any(|option| option == name);
    // NFS 3 keeps locks of hosts that died, and then no other host could start the VM.
    if matches!(version, None | Some("3")) && !given("lock") && !given("nolock") {
        options.push("nolock".to_owned());
    }
    if !extra.split(',').any(|option| option.starts_with("retry=")) {
        // Whoever waits is told at once; who wants to try again does.
        options.push("retry=0".to_owned());
    }
    options.join(",")
}

/// Checks what an operator gave.
///
/// # Errors
/// The connection or the option that cannot be used, and why.
pub fn check(storage: &Storage) -> Result<(), DeployError> {
    let refused = |text: String| Err(DeployError::Refused(text));
    let connection = &storage.connection;
    let plain = |text: &str| !text.chars().any(|c| c.is_whitespace() || c.is_control());
    let what = match storage.kind {
        StorageKind::Nfs | StorageKind::Nfs3 | StorageKind::Nfs4 => "server:/path",
        StorageKind::Glusterfs => "server:/volume",
        StorageKind::Directory | StorageKind::Iscsi | StorageKind::Fc => return Ok(()),
    };
    let is_good = connection.rsplit_once(":/").is_some_and(|(server, path)| {
        let bracketed = server.starts_with('[') && server.ends_with(']');
        !server.is_empty()
            && !server.starts_with('-')
            && (bracketed || !server.contains(['/', ':']))
            && (!path.is_empty() || what == "server:/path")
    });
    if !is_good || !plain(connection) {
        return refused(format!("the storage {connection:?} cannot be mounted: it must be {what}"));
    }
    for option in storage.mount_options.split(',').filter(|_| !storage.mount_options.is_empty()) {
        let name = option.split('=').next().unwrap_or_default();
        let why = if name.is_empty() || !plain(option) {
            "options are words or word=value, with commas between them and nothing else"
        } else if name == "ro" {
            "the hosts write to the storage"
        } else if matches!(name, "vers" | "nfsvers" | "minorversion") {
            "the kind of storage says the version: nfs, nfs3 or nfs4"
        } else if ha_config::secret::is_secret_key(name) {
            "every user of the host can read mount options: no passwords in them"
        } else {
            continue;
        };
        return refused(format!("the mount option {option:?} cannot be used: {why}"));
    }
    Ok(())
}

/// `server:volume` and `server:/volume` are one thing.
fn is_same(a: &str, b: &str) -> bool {
    let plain = |text: &str| normal_connection(text).replacen(":/", ":", 1);
    plain(a) == plain(b)
}

/// Nothing that another protocol version could change.
fn is_final(error: &ToolError) -> bool {
    let text = error.to_string();
    let finals =
        ["resolve", "unknown filesystem type", "timed out", "No route to host", "need a /sbin/mount"];
    !matches!(error, ToolError::Failed { .. }) || finals.iter().any(|part| text.contains(part))
}

fn advice(mount: &Mount, error: &ToolError) -> String {
    let text = error.to_string();
    let server = mount.source.rsplit_once(":/").map_or(mount.source.as_str(), |(server, _)| server);
    let has = |part: &str| text.contains(part);
    let advice = if has("unknown filesystem type") || has("need a /sbin/mount") {
        let packages = if mount.kind == "nfs" {
            "nfs-utils or nfs-common"
        } else {
            "glusterfs-fuse or glusterfs-client"
        };
        format!("this host has no program for it: install {packages}")
    } else if has("No such device") {
        format!("this host's kernel knows no {}", mount.kind)
    } else if has("resolve") || has("Name or service not known") {
        format!("the name {server} does not resolve: check it, and this host's DNS")
    } else if has("Stale file handle") {
        "the server has replaced what it exported: export it anew there (exportfs -ra), then try again"
            .to_owned()
    } else if has("access denied") || has("Permission denied") || has("Operation not permitted") {
        format!(
            "the server does not give it to this host: compare with showmount -e {server}, and with its list of hosts"
        )
    } else if has("No such file or directory") {
        format!("the server has no such path: showmount -e {server} names what it exports")
    } else if has("Connection refused") {
        format!("{server} answers, but serves no {}: start it there, or open its firewall", mount.kind)
    } else if has("timed out") || has("No route to host") || matches!(error, ToolError::TooSlow { .. }) {
        format!("{server} does not answer: check that it is up, and the network and firewalls to it")
    } else if has("not supported") {
        "the server does not speak that version of NFS: choose another".to_owned()
    } else if mount.kind == "glusterfs" {
        let volume = mount.source.rsplit('/').next().unwrap_or_default();
        format!(
            "gluster volume status {volume}, on {server}, says whether the volume is started; this host's log of it is in \
             /var/log/glusterfs"
        )
    } else {
        return String::new();
    };
    format!("; {advice}")
}

/// A mount that was not there before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MadeMount {
    /// What is mounted.
    pub source: String,
    /// Where.
    pub target: PathBuf,
}

impl Undo for MadeMount {
    fn describe(&self) -> String {
        format!("mount of {} at {}", self.source, self.target.display())
    }

    fn describe_undo(&self) -> String {
        "unmounted".to_owned()
    }

    fn undo(&self, world: &World<'_>) -> Result<Undone, DeployError> {
        match mounted_at(world.tools, &self.target)? {
            None => Ok(Undone::Absent),
            Some(found) if is_same(&found.source, &self.source) => {
                Mount::unmount(world.tools, &self.target)?;
                Ok(Undone::TakenBack)
            }
            Some(found) => Ok(Undone::LeftAlone(format!("{} is mounted there now", found.source))),
        }
    }
}

#[cfg(test)]
#[path = "mount_tests.rs"]
mod tests;
