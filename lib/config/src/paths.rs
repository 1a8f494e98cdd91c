//! Where everything is on a host: every path of the product under one root prefix.
//!
//! The root is `/` on a real host. A sandbox gives each of its hosts a directory of its own. Nothing here
//! touches the file system.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

/// Environment variable that names the root when `--root` is not given.
pub const ROOT_ENV: &str = "OVIRT_HA_ROOT";

/// All paths of one host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paths {
    root: PathBuf,
}

impl Default for Paths {
    fn default() -> Self {
        Self::new("/")
    }
}

/// `--root` was the last argument, without its directory.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("--root needs a directory: --root DIR")]
pub struct RootArgumentError;

macro_rules! paths {
    ($($(#[$doc:meta])* $name:ident = $path:literal;)*) => {
        impl Paths {
            $($(#[$doc])* pub fn $name(&self) -> PathBuf { self.root.join($path) })*
        }
    };
}

paths! {
    /// Directory of the cluster's main configuration.
    hosted_engine_conf_dir = "etc/ovirt-hosted-engine";
    /// The main configuration, `key=value`.
    hosted_engine_conf = "etc/ovirt-hosted-engine/hosted-engine.conf";
    /// Answers of the last deploy.
    answers_conf = "etc/ovirt-hosted-engine/answers.conf";
    /// Directory of the daemons' configuration.
    ha_conf_dir = "etc/ovirt-hosted-engine-ha";
    /// The agent's INI file with the section `[score]`.
    agent_conf = "etc/ovirt-hosted-engine-ha/agent.conf";
    /// The broker's INI file with the sections `[email]` and `[notify]`.
    broker_conf = "etc/ovirt-hosted-engine-ha/broker.conf";
    /// Templates of notifications, one `EVENT.txt` for each event.
    notifications_dir = "etc/ovirt-hosted-engine-ha/notifications";
    /// What the older files have no place for: adapters, timers, policies.
    ha_toml = "etc/ovirt-hosted-engine-ha/ha.toml";
    /// What the daemons keep over restarts.
    state_dir = "var/lib/ovirt-hosted-engine-ha";
    /// Local maintenance of this host.
    ha_conf = "var/lib/ovirt-hosted-engine-ha/ha.conf";
    /// Copy of the cluster's `broker.conf`; wins over [`Paths::broker_conf`] when it is there.
    cached_broker_conf = "var/lib/ovirt-hosted-engine-ha/broker.conf";
    /// Copy of the cluster's `hosted-engine.conf`.
    cached_hosted_engine_conf = "var/lib/ovirt-hosted-engine-ha/hosted-engine.conf";
    /// Backups that repair commands make before they overwrite anything.
    backup_dir = "var/lib/ovirt-hosted-engine-ha/backup";
    /// What lasts until the next boot.
    run_dir = "run/ovirt-hosted-engine-ha";
    /// The broker's Unix socket. A Unix socket's path has at most 107 bytes: keep sandbox roots short.
    broker_socket = "run/ovirt-hosted-engine-ha/broker.socket";
    /// The engine VM's description, as refreshed from shared storage.
    vm_conf = "run/ovirt-hosted-engine-ha/vm.conf";
    /// The description that deploy wrote, for when nothing newer can be had.
    vm_conf_fallback = "run/ovirt-hosted-engine-ha/vm.conf.fallback";
    /// What `iscsiadm -m iface` said when the broker was started: only root may ask.
    iscsi_interfaces = "run/ovirt-hosted-engine-ha/iscsi-interfaces";
    /// Sockets, process ids and console of the QEMU that the qemu adapter runs.
    qemu_run_dir = "run/ovirt-hosted-engine-ha/qemu";
    /// What the libvirt adapter notes about the VM.
    libvirt_notes_dir = "run/ovirt-hosted-engine-ha/libvirt";
    /// Logs of the daemons.
    log_dir = "var/log/ovirt-hosted-engine-ha";
    /// The agent's log.
    agent_log = "var/log/ovirt-hosted-engine-ha/agent.log";
    /// The broker's log.
    broker_log = "var/log/ovirt-hosted-engine-ha/broker.log";
    /// Logs of deploy and repair.
    setup_log_dir = "var/log/ovirt-hosted-engine-setup";
    /// What deploy keeps: its journal, and its passwords while it is not over.
    setup_state_dir = "var/lib/ovirt-hosted-engine-setup";
    /// Journal of this host's deployment.
    deploy_journal = "var/lib/ovirt-hosted-engine-setup/deploy.journal";
    /// Passwords of a deployment that is not over.
    deploy_secrets = "var/lib/ovirt-hosted-engine-setup/deploy.secrets";
    /// sanlock's run directory.
    sanlock_run_dir = "run/sanlock";
    /// sanlock's socket.
    sanlock_socket = "run/sanlock/sanlock.sock";
    /// libvirt's system socket.
    libvirt_socket = "run/libvirt/libvirt-sock";
    /// What the sanlock daemon reads.
    sanlock_conf = "etc/sanlock/sanlock.conf";
    /// What multipathd reads.
    multipath_conf = "etc/multipath.conf";
    /// Where storage domains are mounted.
    storage_mounts = "rhev/data-center/mnt";
    /// Where VDSM links the volumes that it has prepared.
    prepared_volumes = "run/vdsm/storage";
    /// What VDSM reads first.
    vdsm_conf = "etc/vdsm/vdsm.conf";
    /// VDSM's client certificate.
    vdsm_cert = "etc/pki/vdsm/certs/vdsmcert.pem";
    /// The key of [`Paths::vdsm_cert`].
    vdsm_key = "etc/pki/vdsm/keys/vdsmkey.pem";
    /// The authority that signed VDSM's certificates.
    vdsm_ca = "etc/pki/vdsm/certs/cacert.pem";
}

impl Paths {
    /// The paths under `root`, which may be relative to the working directory.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The root itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// True when nothing is redirected.
    pub fn is_real_host(&self) -> bool {
        self.root == Path::new("/")
    }

    /// Where an absolute path found in a configuration file is on this host. A path that is under the root
    /// already stays as it is; `/var/run` is taken for `/run`, whose other name it is.
    pub fn resolve(&self, path: impl AsRef<Path>) -> PathBuf {
        let path = path.as_ref();
        if path.starts_with(&self.root) {
            return path.to_owned();
        }
        match path.strip_prefix("/var/run") {
            Ok(below) => self.root.join("run").join(below),
            Err(_) => self.root.join(path.strip_prefix("/").unwrap_or(path)),
        }
    }

    /// Template of the notification for `event`.
    pub fn notification_template(&self, event: &str) -> PathBuf {
        self.notifications_dir().join(format!("{event}.txt"))
    }

    /// Takes `--root DIR` or `--root=DIR` out of a command line (without the program's name), wherever it
    /// stands before a `--`; the last one wins, then `environment` (the value of [`ROOT_ENV`]), then `/`.
    /// Gives the paths and the arguments that are left.
    pub fn from_args(
        args: impl IntoIterator<Item = OsString>,
        environment: Option<OsString>,
    ) -> Result<(Self, Vec<OsString>), RootArgumentError> {
        let mut root = environment.filter(|value| !value.is_empty());
        let mut rest = Vec::new();
        let mut args = args.into_iter();
        while let Some(arg) = args.next() {
            if arg == "--" {
                rest.push(arg);
                rest.extend(args);
                break;
            } else if arg == "--root" {
                root = Some(args.next().filter(|dir| !dir.is_empty()).ok_or(RootArgumentError)?);
            } else if let Some(dir) = arg.to_str().and_then(|text| text.strip_prefix("--root=")) {
                if dir.is_empty() {
                    return Err(RootArgumentError);
                }
                root = Some(OsString::from(dir));
            } else {
                rest.push(arg);
            }
        }
        Ok((Self::new(root.as_deref().unwrap_or(OsStr::new("/"))), rest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(list: &[&str]) -> Vec<OsString> {
        list.iter().map(OsString::from).collect()
    }

    #[test]
    fn real_host_has_the_known_paths() {
        let paths = Paths::default();
        assert!(paths.is_real_host());
        assert_eq!(paths.hosted_engine_conf(), Path::new("/etc/ovirt-hosted-engine/hosted-engine.conf"));
        assert_eq!(paths.broker_socket(), Path::new("/run/ovirt-hosted-engine-ha/broker.socket"));
        assert_eq!(paths.storage_mounts(), Path::new("/rhev/data-center/mnt"));
    }

    #[test]
    fn root_comes_from_the_argument_then_the_environment() {
        let (paths, rest) = Paths::from_args(args(&["a", "--root", "/x", "b"]), Some("/env".into())).unwrap();
        assert_eq!((paths.root(), rest), (Path::new("/x"), args(&["a", "b"])));
        let (paths, rest) = Paths::from_args(args(&["--root=/y"]), None).unwrap();
        assert_eq!((paths.root(), rest.len()), (Path::new("/y"), 0));
        let (paths, _) = Paths::from_args(args(&[]), Some("/env".into())).unwrap();
        assert_eq!(paths.root(), Path::new("/env"));
        let (paths, _) = Paths::from_args(args(&[]), Some("".into())).unwrap();
        assert!(paths.is_real_host());
        let (paths, rest) = Paths::from_args(args(&["exec", "--", "--root", "/z"]), None).unwrap();
        assert_eq!((paths.is_real_host(), rest), (true, args(&["exec", "--", "--root", "/z"])));
        assert_eq!(Paths::from_args(args(&["--root"]), None), Err(RootArgumentError));
        assert_eq!(Paths::from_args(args(&["--root="]), None), Err(RootArgumentError));
    }

    #[test]
    fn absolute_paths_land_under_the_root_once() {
        let paths = Paths::new("/box/h1");
        assert_eq!(paths.resolve("/run/x"), Path::new("/box/h1/run/x"));
        assert_eq!(paths.resolve("/box/h1/run/x"), Path::new("/box/h1/run/x"));
        assert_eq!(paths.resolve("/var/run/x"), Path::new("/box/h1/run/x"));
        assert_eq!(paths.resolve("x"), Path::new("/box/h1/x"));
        let real = Paths::default();
        assert_eq!(real.resolve("/run/x"), Path::new("/run/x"));
    }
}
