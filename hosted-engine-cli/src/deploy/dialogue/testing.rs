//! Stand-ins for tests: an operator with a script, a host, storage.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use ha_config::ha_toml::Hypervisor;
use ha_config::{Paths, Secret};
use uuid::Uuid;

use super::{Asked, Asker, DialogueError, Means, request};
use crate::deploy::questions::{Cluster, Device, Gateway, HostFacts, Lookups, Nic, StorageLookups, Target};
use crate::deploy::testing::Heard;
use crate::deploy::vm::image::Proposal;
use crate::deploy::{DeployArgs, DeployError, Family, Secrets, Storage};
use crate::setup::ClusterConf;

/// An operator who answers a prompt that contains the first text with the second one, in this order. A prompt that the
/// next line is not for is answered with Enter.
#[derive(Debug, Default)]
pub(crate) struct Script {
    lines: VecDeque<(&'static str, &'static str)>,
    /// What was shown; `? ` before prompts, `! ` before errors, `== ` before sections.
    pub screen: Vec<String>,
}

impl Script {
    pub fn new(lines: &[(&'static str, &'static str)]) -> Self {
        Self { lines: lines.iter().copied().collect(), screen: Vec::new() }
    }

    /// Fails unless every line was used.
    pub fn assert_over(&self) {
        assert!(self.lines.is_empty(), "not asked: {:?}\n{}", self.lines, self.screen.join("\n"));
    }

    fn answer(&mut self, prompt: &str) -> Result<String, DialogueError> {
        assert!(self.screen.len() < 500, "asks for ever:\n{}", self.screen.join("\n"));
        self.screen.push(format!("? {prompt}"));
        match self.lines.front().copied() {
            Some((part, text)) if prompt.contains(part) => {
                self.lines.pop_front();
                if text == "\u{4}" { Err(DialogueError::Cancelled) } else { Ok(text.to_owned()) }
            }
            _ => Ok(String::new()),
        }
    }
}

impl Asker for Script {
    fn section(&mut self, title: &str) {
        self.screen.push(format!("== {title}"));
    }

    fn tell(&mut self, text: &str) {
        self.screen.push(text.to_owned());
    }

    fn error(&mut self, text: &str) {
        self.screen.push(format!("! {text}"));
    }

    fn line(&mut self, prompt: &str) -> Result<String, DialogueError> {
        self.answer(prompt)
    }

    fn hidden(&mut self, prompt: &str) -> Result<Secret, DialogueError> {
        self.answer(prompt).map(Secret::new)
    }
}

/// A host: two cards, one with the default route.
#[derive(Debug)]
pub(crate) struct StandIn {
    pub facts: HostFacts,
    pub names: BTreeMap<&'static str, Vec<IpAddr>>,
    pub files: BTreeMap<&'static str, &'static str>,
    /// What each of the files proposes that is taken for an image.
    pub image: Proposal,
    pub targets: Vec<Target>,
    pub devices: Vec<Device>,
    pub clusters: Vec<Cluster>,
    /// Storage of this connection cannot be reached.
    pub dead: Option<&'static str>,
    /// What was looked at.
    pub looks: Mutex<Vec<String>>,
}

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

impl StandIn {
    pub fn new() -> Self {
        let card = |name: &str| Nic { name: name.to_owned(), is_bridge: false, can_be_bridged: true };
        let lo = Nic { name: "lo".to_owned(), is_bridge: false, can_be_bridged: false };
        let gateway = |address, nic: &str| Gateway { address: ip(address), nic: nic.to_owned() };
        Self {
            facts: HostFacts {
                name: "host1.example.com".to_owned(),
                gateways: vec![gateway("192.0.2.1", "eth1"), gateway("2001:db8::1", "eth0")],
                nics: vec![lo, card("eth0"), card("eth1")],
                addresses: vec![ip("192.0.2.10"), ip("2001:db8::10")],
                memory_mb: 32768,
                cpus: 8,
                name_servers: vec![ip("192.0.2.53")],
                time_zone: Some("Europe/Prague".to_owned()),
                hypervisor: Hypervisor::Qemu,
            },
            names: BTreeMap::from([
                ("engine.example.com", vec![ip("192.0.2.20")]),
                ("self.example.com", vec![ip("192.0.2.10")]),
                ("engine6.example.com", vec![ip("2001:db8::20")]),
            ]),
            files: BTreeMap::from([
                ("/iso/el9.iso", "x"),
                ("/img/appliance.ova", "x"),
                ("/boot/vmlinuz", "x"),
                ("/boot/initrd", "x"),
            ]),
            image: Proposal { disk_gib: 10, ..Proposal::default() },
            targets: Vec::new(),
            devices: Vec::new(),
            clusters: Vec::new(),
            dead: None,
            looks: Mutex::new(Vec::new()),
        }
    }

    /// The dialogue with this operator, and what was said beside it.
    pub fn ask(&self, args: &DeployArgs, script: &mut Script) -> (Result<Asked, DialogueError>, Vec<String>) {
        let (paths, report) = (Paths::new("/"), Heard::default());
        let asker: Option<&mut dyn Asker> = Some(script);
        let means = Means { paths: &paths, lookups: self, storage: self, asker, report: &report };
        (request(args, means), report.all())
    }

    /// The dialogue without anybody to ask.
    pub fn alone(&self, args: &DeployArgs) -> Result<Asked, DialogueError> {
        let (paths, report) = (Paths::new("/"), Heard::default());
        request(args, Means { paths: &paths, lookups: self, storage: self, asker: None, report: &report })
    }

    fn look<T: Clone>(&self, what: &str, storage: &Storage, found: &[T]) -> Result<Vec<T>, DeployError> {
        let lun = storage.lun.as_ref().filter(|_| what == "devices");
        let lun = lun.map_or_else(String::new, |lun| format!(" {}", lun.id));
        self.looks.lock().unwrap().push(format!("{what} {}{lun}", storage.connection));
        if self.dead == Some(storage.connection.as_str()) {
            return Err(DeployError::Refused(format!("{} does not answer", storage.connection)));
        }
        Ok(found.to_vec())
    }
}

impl Lookups for StandIn {
    fn facts(&self) -> HostFacts {
        self.facts.clone()
    }

    fn resolve(&self, name: &str, family: Family) -> Result<Vec<IpAddr>, String> {
        let all = self.names.get(name).ok_or("unknown name")?;
        let all: Vec<_> = all.iter().copied().filter(|address| family.has(*address)).collect();
        if all.is_empty() { Err("no address of this family".to_owned()) } else { Ok(all) }
    }

    fn file(&self, path: &Path) -> Result<u64, String> {
        let text = self.read(path)?;
        Ok(text.len() as u64)
    }

    fn image(&self, path: &Path) -> Result<Proposal, String> {
        self.looks.lock().unwrap().push(format!("image {}", path.display()));
        self.file(path).map(|_| self.image)
    }

    fn read(&self, path: &Path) -> Result<String, String> {
        let text = path.to_str().and_then(|path| self.files.get(path));
        text.map(|text| (*text).to_owned()).ok_or_else(|| format!("{} is not there", path.display()))
    }
}

impl StorageLookups for StandIn {
    fn targets(&self, storage: &Storage, _: &Secrets) -> Result<Vec<Target>, DeployError> {
        self.look("targets", storage, &self.targets)
    }

    fn devices(&self, storage: &Storage, _: &Secrets) -> Result<Vec<Device>, DeployError> {
        self.look("devices", storage, &self.devices)
    }

    fn clusters(&self, storage: &Storage, _: &Secrets) -> Result<Vec<Cluster>, DeployError> {
        self.look("clusters", storage, &self.clusters)
    }
}

/// A cluster of hosts 1 and 3.
pub(crate) fn cluster() -> Cluster {
    Cluster {
        sd_uuid: Uuid::from_u128(7),
        fqdn: "engine.example.com".to_owned(),
        bridge: "ovirtmgmt".to_owned(),
        gateway: Some(ip("192.0.2.1")),
        test: "ping".to_owned(),
        tcp_target: None,
        taken: BTreeMap::from([(1, "host7.example.com".to_owned()), (3, "host8.example.com".to_owned())]),
        io_timeouts: BTreeMap::from([(1, 10)]),
        last_seen: BTreeMap::from([(3, "Sat Nov 21 17:30:00 2026".to_owned())]),
        conf: ClusterConf {
            hosted_engine_conf: String::new(),
            vm_conf: String::new(),
            broker_conf: String::new(),
            ha_toml: String::new(),
            answers: String::new(),
        },
        next_id: Some(2),
    }
}

/// An answer file that only its owner may read.
pub(crate) fn file(folder: &tempfile::TempDir, lines: &str) -> PathBuf {
    use std::os::unix::fs::PermissionsExt;
    let path = folder.path().join("answers.conf");
    std::fs::write(&path, format!("[environment:default]\n{lines}")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    path
}
