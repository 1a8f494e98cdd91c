//! The sandbox as a whole: bringing it up, looking at it, taking it down.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use clock::{Clock, SystemClock};
use ha_config::HostedEngineConf;
use rustix::process::Signal;

use super::deploy;
use super::disk_record::{self, Writers};
use super::host::Host;
use super::init::timestamp;
use super::layout::{ENGINE, ENGINE_FQDN, HostNumber, Layout, POWER};
use super::lun::{self, Place};
use super::observer::Observer;
use super::procs::{self, Process};
use super::services::Service;
use super::shell::wait_for;
use super::state::{Hypervisor, Lock, SharedStorage, State};
use super::{cgroup, faultfs, libvirtd, needs, net, power};

/// What `up` was asked for.
#[derive(Debug, Clone)]
pub struct UpOptions {
    /// How many hosts.
    pub hosts: u8,
    /// sanlock's `io_timeout`, in seconds.
    pub io_timeout: u32,
    /// Directory of the guest's `vmlinuz` and `initramfs`.
    pub guest: PathBuf,
    /// Who runs the engine VM.
    pub hypervisor: Hypervisor,
    /// What the hosts share.
    pub storage: SharedStorage,
    /// The hosts have a watchdog, played by its stand-in.
    pub watchdog: bool,
    /// The hosts have power switches, by which their agents power dead hosts off.
    pub fencing: bool,
    /// Stop before anything is deployed.
    pub bare: bool,
}

/// How long a new cluster may take until its engine is good.
const UP_PATIENCE: Duration = Duration::from_mins(5);

/// How long the first host may take until others can join it.
const JOIN_PATIENCE: Duration = Duration::from_mins(2);

/// One line of progress.
pub fn say(line: &str) {
    println!("{}  {line}", timestamp());
}

/// Brings a sandbox up. Leftovers of an earlier one in the same place are removed first, unless it is whole: then
/// nothing changes.
pub fn up(layout: &Layout, options: &UpOptions) -> anyhow::Result<()> {
    needs::check(options)?;
    if options.hypervisor == Hypervisor::Libvirt {
        libvirtd::check_place(layout.dir())?;
    }
    let _lock = Lock::take(layout)?;
    if let Ok(state) = State::load(layout) {
        let running = procs::inits(layout);
        let same = state.hosts == options.hosts
            && state.hypervisor == options.hypervisor
            && state.storage == options.storage
            && state.watchdog == options.watchdog
            && state.fencing == options.fencing;
        if same && state.numbers().all(|number| running.contains_key(&number)) {
            say(&format!("the sandbox in {} is up already", layout.dir().display()));
            return Ok(());
        }
    }
    remove(layout).context("cannot remove what is left of an earlier sandbox")?;

    say(&format!("making a sandbox of {} hosts in {}", options.hosts, layout.dir().display()));
    match options.storage {
        SharedStorage::Folder => fs::create_dir_all(layout.storage())?,
        SharedStorage::Lvm => lun::create(layout)?,
    }
    let state = State {
        hosts: options.hosts,
        io_timeout: options.io_timeout,
        guest: options.guest.clone(),
        hypervisor: options.hypervisor,
        storage: options.storage,
        watchdog: options.watchdog,
        fencing: options.fencing,
        cgroup: cgroup::create(layout),
    };
    state.save(layout)?;
    net::create_switch(layout)?;
    if options.fencing {
        power::start(layout, &state)?;
        say(&format!("the hosts' power switches answer on {POWER}"));
    }
    let cluster = Cluster { layout: layout.clone(), state };
    for host in cluster.hosts() {
        deploy::install(layout, &cluster.state, host.number)?;
        host.start()?;
        say(&format!(
            "host {} is up: {}, {}, sanlock runs",
            host.number,
            host.number.name(),
            host.number.address()
        ));
        if needs::has_guest(&options.guest) {
            deploy::prepare(layout, &cluster.state, host.number)?;
        }
    }
    if options.bare {
        if needs::has_guest(&options.guest) {
            println!("\nNothing is deployed. To do it:");
            for host in cluster.hosts() {
                let words = deploy::words(layout, &cluster.state, host.number).join(" ");
                println!("  hosted-engine sandbox exec {} hosted-engine {words}", host.number);
            }
        }
        return Ok(());
    }
    cluster.deploy()?;
    cluster.wait_for_engine()?;
    println!("\n{}", cluster.host(options.hosts)?.run(&["hosted-engine", "--vm-status"])?);
    for line in NEXT.lines() {
        // Its faults cannot be played on a LUN.
        if options.storage == SharedStorage::Folder || !line.contains("-storage") {
            println!("{line}");
        }
    }
    Ok(())
}

const NEXT: &str = "\
The cluster is up. To look at it and to break it:
  hosted-engine sandbox status
  hosted-engine sandbox exec 1 hosted-engine --vm-status
  hosted-engine sandbox kill-vm
  hosted-engine sandbox kill-host 1       (and: start-host 1)
  hosted-engine sandbox cut-gateway 1     (and: restore-gateway 1)
  hosted-engine sandbox stall-storage 1   (and: resume-storage 1)
  hosted-engine sandbox watch
  hosted-engine sandbox scenario --help
  hosted-engine sandbox down";

/// Whether `--vm-status --json` says that all hosts live, and that the engine is up and well on one.
fn all_are_well(json: &str, hosts: u8) -> bool {
    let Ok(serde_json::Value::Object(rows)) = serde_json::from_str(json) else { return false };
    let live = rows.values().filter(|row| row["live-data"] == true).count();
    let good = |row: &serde_json::Value| {
        let status = &row["engine-status"];
        status["vm"] == "up" && status["health"] == "good"
    };
    live == usize::from(hosts) && rows.values().any(good)
}

/// Takes a sandbox down, whatever is left of it.
pub fn down(layout: &Layout) -> anyhow::Result<()> {
    if !layout.dir().exists() {
        say(&format!("there is no sandbox in {}", layout.dir().display()));
        return Ok(());
    }
    let lock = Lock::take(layout)?;
    remove(layout)?;
    let _ = fs::remove_file(layout.lock_file());
    drop(lock);
    // Only when nothing foreign is in it.
    let _ = fs::remove_dir(layout.dir());
    say("the sandbox is gone");
    Ok(())
}

/// Removes everything that may be there, in an order that works from any state.
fn remove(layout: &Layout) -> anyhow::Result<()> {
    let groups = cgroup::create(layout);
    // First, for it could boot hosts.
    power::stop(layout)?;
    let inits = procs::inits(layout);
    for init in inits.values() {
        init.signal(Signal::KILL);
    }
    if let Some(groups) = &groups {
        for entry in fs::read_dir(groups)?.flatten().filter(|entry| entry.path().is_dir()) {
            // Frozen processes die only when they thaw.
            cgroup::thaw(&entry.path())?;
        }
    }
    wait_for(Duration::from_secs(20), Duration::from_millis(20), || {
        let all = procs::all();
        let left =
            inits.values().any(|init| all.iter().any(|p| p.namespace == init.namespace && !p.is_zombie()));
        Ok((!left).then_some(()))
    })?
    .context("some processes of the sandbox do not die")?;
    net::remove_switch(layout)?;
    if let Some(groups) = &groups {
        // The kernel empties a group shortly after its last process is gone.
        wait_for(Duration::from_secs(5), Duration::from_millis(20), || Ok(cgroup::remove(groups).ok()))?
            .with_context(|| format!("cannot remove the control groups in {}", groups.display()))?;
    }
    lun::remove(layout)?;
    let mut ours = vec![
        layout.storage(),
        layout.lun(),
        layout.programs(),
        layout.authority(),
        layout.power(),
        layout.inside().root().to_owned(),
        layout.state_file(),
        layout.dir().join("sandbox.json.new"),
    ];
    ours.extend((1..=super::layout::MAX_HOSTS).map(|n| layout.watchdog_socket(HostNumber(n))));
    ours.extend((1..=super::layout::MAX_HOSTS).map(|n| layout.host(HostNumber(n)).root().to_owned()));
    for path in ours {
        let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        match removed {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("cannot remove {}", path.display()));
            }
            _ => {}
        }
    }
    Ok(())
}

/// A sandbox that is there.
#[derive(Debug, Clone)]
pub struct Cluster {
    layout: Layout,
    state: State,
}

impl Cluster {
    /// The sandbox in `layout`; an error when there is none.
    pub fn open(layout: &Layout) -> anyhow::Result<Self> {
        Ok(Self { layout: layout.clone(), state: State::load(layout)? })
    }

    /// Where it is.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// What it is made of.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Host `number`; an error when it has no such host.
    pub fn host(&self, number: u8) -> anyhow::Result<Host> {
        Ok(Host::new(&self.layout, &self.state, self.state.host(number)?))
    }

    /// All hosts.
    pub fn hosts(&self) -> Vec<Host> {
        self.state.numbers().map(|number| Host::new(&self.layout, &self.state, number)).collect()
    }

    /// Every QEMU process of every host that has the VM's disk at this moment, frozen and stopped ones included.
    pub fn qemus(&self) -> Vec<(HostNumber, Process)> {
        let all = procs::all();
        let hosts: BTreeMap<String, HostNumber> =
            procs::inits(&self.layout).into_iter().map(|(number, init)| (init.namespace, number)).collect();
        let inside = self.layout.inside();
        let places =
            [inside.storage_mounts(), inside.prepared_volumes()].map(|place| place.display().to_string());
        let is_disk = |argument: &String| places.iter().any(|place| argument.contains(place));
        let has_disk = |process: &Process| process.arguments.iter().any(is_disk);
        all.into_iter()
            .filter(|process| process.name.starts_with("qemu-system") && !process.is_zombie())
            .filter_map(|process| Some((*hosts.get(&process.namespace)?, process)))
            // Not the short run without a disk that finds out whether KVM works.
            .filter(|(_, process)| has_disk(process))
            .collect()
    }

    /// Deploys on the first host, and on the others as soon as there is a cluster that they can join.
    fn deploy(&self) -> anyhow::Result<()> {
        let hosts = self.hosts();
        let (first, further) = hosts.split_first().context("a sandbox has a host")?;
        // Written when the storage is complete.
        let joinable = self.layout.host(first.number).hosted_engine_conf();
        std::thread::scope(|scope| {
            let begin = scope.spawn(|| deploy::run(first, &self.state));
            wait_for(JOIN_PATIENCE, Duration::from_millis(100), || {
                Ok((joinable.exists() || begin.is_finished()).then_some(()))
            })?;
            let mut all = vec![begin];
            if joinable.exists() {
                all.extend(further.iter().map(|host| scope.spawn(|| deploy::run(host, &self.state))));
            }
            all.into_iter().try_for_each(|one| match one.join() {
                Ok(done) => done,
                Err(panic) => std::panic::resume_unwind(panic),
            })
        })?;
        Ok(())
    }

    /// Waits until the engine answers well, and tells what happens meanwhile.
    fn wait_for_engine(&self) -> anyhow::Result<()> {
        let observer = Observer::start(self)?;
        let begin = SystemClock.monotonic();
        let mut told = 0;
        say("waiting for the engine");
        let good = observer.wait(UP_PATIENCE, |timeline| {
            for (_, change) in timeline.changes_since(begin).skip(told) {
                told += 1;
                say(&change.to_string());
            }
            timeline.good_since(begin)
        });
        good.with_context(|| {
            format!(
                "the engine was not good within {} s; see: hosted-engine sandbox logs 1\n{}",
                UP_PATIENCE.as_secs(),
                self.status()
            )
        })?;
        say("waiting until the last host says so too, and knows that the others live, which takes a minute");
        let host = self.host(self.state.hosts)?;
        wait_for(Duration::from_mins(3), Duration::from_secs(1), || {
            let said = host.run(&["hosted-engine", "--vm-status", "--json"]).unwrap_or_default();
            Ok(all_are_well(&said, self.state.hosts).then_some(()))
        })?
        .with_context(|| {
            format!("the engine is good, but --vm-status on host {} does not say so", host.number)
        })
    }

    /// Where a volume of the storage domain is outside of all hosts: the file of this name in the domain's folder, or the
    /// part of the LUN.
    pub fn place(&self, domain: &str, file: &Path, volume: &str) -> anyhow::Result<Place> {
        match self.state.storage {
            SharedStorage::Folder => {
                Ok(Place { file: self.layout.storage().join(domain).join(file), offset: 0 })
            }
            SharedStorage::Lvm => {
                let mut hosts = self.state.numbers();
                let found = hosts.find_map(|number| lun::place(&self.layout, number, domain, volume));
                found.with_context(|| format!("the volume {volume} is active on no host"))
            }
        }
    }

    /// Who wrote to the VM's disk, as the "file server" or the "array" has it.
    pub fn writers(&self) -> anyhow::Result<Writers> {
        let conf = HostedEngineConf::load(&self.layout.host(HostNumber(1)))?;
        let (image, volume) = (conf.vm_disk_id()?, conf.vm_disk_vol_id()?);
        let file = Path::new("images").join(image).join(volume);
        let place = self.place(conf.sd_uuid()?, &file, volume)?;
        disk_record::read(&place).context("cannot read the VM's disk")
    }

    /// Prints every change until it is interrupted.
    pub fn watch(&self) -> anyhow::Result<()> {
        let observer = Observer::start(self)?;
        let begin = SystemClock.monotonic();
        let mut told = 0;
        observer.wait(Duration::MAX, |timeline| -> Option<()> {
            for (_, change) in timeline.changes_since(begin).skip(told) {
                told += 1;
                say(&change.to_string());
            }
            None
        });
        Ok(())
    }

    /// What is where, for people.
    pub fn status(&self) -> String {
        let mut text = format!(
            "Sandbox in {}: {} hosts, io_timeout {} s, hypervisor {}, engine {ENGINE_FQDN} {ENGINE}\n",
            self.layout.dir().display(),
            self.state.hosts,
            self.state.io_timeout,
            self.state.hypervisor
        );
        let qemus = self.qemus();
        for host in self.hosts() {
            // Writing to a String cannot fail.
            let _ =
                write!(text, "\nHost {} ({}, {}): ", host.number, host.number.name(), host.number.address());
            let Some(init) = host.init() else {
                text += "not running\n";
                continue;
            };
            if host.is_frozen() {
                text += "frozen\n";
                continue;
            }
            let _ = writeln!(text, "runs (init {})", init.pid);
            let storage = match self.state.storage {
                SharedStorage::Folder => faultfs::ask(&self.layout.fault_socket(host.number))
                    .map_or_else(|error| format!("{error:#}"), |mode| mode.to_string()),
                SharedStorage::Lvm => "on LVM".to_owned(),
            };
            let gateway = match net::is_cut(&self.layout, host.number) {
                Ok(false) => "answers".to_owned(),
                Ok(true) => "cut".to_owned(),
                Err(error) => format!("{error:#}"),
            };
            let _ = writeln!(text, "  storage: {storage}; gateway: {gateway}");
            match host.services() {
                Err(error) => {
                    let _ = writeln!(text, "  {error:#}");
                }
                Ok(services) => {
                    let is_shown =
                        |service: Service| service != Service::Storage && service.exists(&self.state);
                    for status in services.iter().filter(|status| is_shown(status.service)) {
                        let state = match (status.pid, &status.last_end) {
                            (Some(pid), _) => format!("runs as {pid}"),
                            (None, Some(end)) => format!("ended: {end}"),
                            (None, None) => "not started".to_owned(),
                        };
                        let _ = writeln!(
                            text,
                            "  {:16} {state}, {} restarts",
                            status.service.name(),
                            status.restarts
                        );
                    }
                }
            }
            for (_, qemu) in qemus.iter().filter(|(number, _)| *number == host.number) {
                let _ = writeln!(text, "  {:16} runs as {}", "engine VM", qemu.inner_pid);
            }
        }
        text
    }

    /// Prints the ends of a host's logs.
    pub fn logs(&self, number: HostNumber, service: Option<&str>, lines: usize) -> anyhow::Result<()> {
        let names: Vec<&str> = match service {
            Some("init") => vec!["init"],
            Some(name) => {
                vec![Service::named(name).with_context(|| format!("there is no log of \"{name}\""))?.name()]
            }
            None => {
                let all = Service::ALL.into_iter().filter(|service| service.exists(&self.state));
                std::iter::once("init").chain(all.map(Service::name)).collect()
            }
        };
        for name in names {
            let file = self.layout.log(number, name);
            let text = fs::read(&file).unwrap_or_default();
            let text = String::from_utf8_lossy(&text);
            let all: Vec<&str> = text.lines().collect();
            println!("==> {} <==", file.display());
            for line in &all[all.len().saturating_sub(lines)..] {
                println!("{line}");
            }
        }
        Ok(())
    }
}
