//! Watches a sandbox from outside, as its users would: asks the engine's health page and the guest's clock, and counts
//! the QEMU processes on all hosts. It believes nothing that the product says about itself.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context;
use clock::{Clock, Monotonic, SystemClock};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::cluster::Cluster;
use super::guest_clock::{self, Asker, Pause, Tick};
use super::guests::{self, Guest};
use super::layout::{ENGINE, ENGINE_FQDN, Layout};
use super::shell::pause;
use super::timeline::{Qemu, Timeline};

/// Pause between two counts of the QEMUs: the shortest overlap that is sure to be seen.
const COUNT_EVERY: Duration = Duration::from_millis(100);
/// Pause between two questions to the health page.
const ASK_EVERY: Duration = Duration::from_millis(250);
/// How long the page may take.
const PAGE_PATIENCE: Duration = Duration::from_secs(2);
/// Answers of the guest's clock that are kept: those of about twenty minutes.
const TICKS: usize = 120_000;

#[derive(Debug, Default)]
struct Shared {
    timeline: Mutex<Timeline>,
    changed: Condvar,
    /// When the page was asked for its newest answer, if that was a good one.
    answered: Mutex<Option<Monotonic>>,
    ticks: Mutex<VecDeque<Tick>>,
    stop: AtomicBool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Timeline> {
        self.timeline.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Watches until it is dropped.
#[derive(Debug)]
pub struct Observer {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl Observer {
    /// Begins to watch.
    pub fn start(cluster: &Cluster) -> anyhow::Result<Self> {
        let shared = Arc::new(Shared::default());
        let namespace = open_switch(cluster.layout())?;
        let (asking, switch) = (Arc::clone(&shared), namespace.try_clone()?);
        let asker = std::thread::Builder::new().name("health".into()).spawn(move || ask(&switch, &asking))?;
        let ticking = Arc::clone(&shared);
        let ticker =
            std::thread::Builder::new().name("clock".into()).spawn(move || tick(&namespace, &ticking))?;
        let (counting, cluster) = (Arc::clone(&shared), cluster.clone());
        let counter =
            std::thread::Builder::new().name("count".into()).spawn(move || count(&cluster, &counting))?;
        Ok(Self { shared, threads: vec![asker, ticker, counter] })
    }

    /// What was seen so far.
    pub fn timeline(&self) -> Timeline {
        self.shared.lock().clone()
    }

    /// The guest's longest silence after `start`.
    pub fn longest_pause(&self, start: Monotonic) -> Option<Pause> {
        let ticks = self.shared.ticks.lock().unwrap_or_else(PoisonError::into_inner);
        let since: Vec<Tick> = ticks.iter().filter(|tick| tick.at >= start).copied().collect();
        guest_clock::longest_pause(&since)
    }

    /// Waits until `holds`, looking after each count; `None` when it did not hold within `patience`.
    pub fn wait<T>(&self, patience: Duration, mut holds: impl FnMut(&Timeline) -> Option<T>) -> Option<T> {
        let start = SystemClock.monotonic();
        let mut timeline = self.shared.lock();
        loop {
            if let Some(found) = holds(&timeline) {
                return Some(found);
            }
            let left = patience.checked_sub(SystemClock.monotonic().saturating_since(start))?;
            timeline =
                self.shared.changed.wait_timeout(timeline, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Waits until the engine has been good for `steady`, and says since when it is good.
    pub fn wait_good(&self, since: Monotonic, steady: Duration, patience: Duration) -> Option<Monotonic> {
        self.wait(patience, |timeline| {
            let good = timeline.good_since(since)?;
            (SystemClock.monotonic().saturating_since(good) >= steady).then_some(good)
        })
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn open_switch(layout: &Layout) -> anyhow::Result<File> {
    let path = std::path::Path::new("/run/netns").join(layout.tag());
    File::open(&path).with_context(|| format!("the sandbox's switch {} is not there", path.display()))
}

fn count(cluster: &Cluster, shared: &Shared) {
    while !shared.stop.load(Ordering::Relaxed) {
        let mut qemus = look(cluster);
        if qemus.values().filter(|guest| guest.is_here()).count() > 1 {
            // The looks at two QEMUs are not one moment: a guest may have gone from one to the other in between.
            let again = look(cluster);
            for (qemu, guest) in &mut qemus {
                match again.get(qemu) {
                    Some(now) if !now.is_here() => *guest = *now,
                    Some(_) | None => {}
                }
            }
        }
        guests::settle(&mut qemus);
        let answered = *shared.answered.lock().unwrap_or_else(PoisonError::into_inner);
        shared.lock().look(SystemClock.monotonic(), &qemus, answered);
        shared.changed.notify_all();
        pause(COUNT_EVERY);
    }
}

fn look(cluster: &Cluster) -> BTreeMap<Qemu, Guest> {
    let qemus = cluster.qemus().into_iter();
    qemus
        .filter_map(|(host, process)| Some((Qemu { host, pid: process.pid }, Guest::of(&process)?)))
        .collect()
}

fn tick(switch: &File, shared: &Shared) {
    // Only this thread, as in `ask`.
    if move_into_link_name_space(switch.as_fd(), Some(LinkNameSpaceType::Network)).is_err() {
        return;
    }
    let Ok(mut asker) = Asker::new(ENGINE) else { return };
    while !shared.stop.load(Ordering::Relaxed) {
        asker.ask(|tick| {
            let mut ticks = shared.ticks.lock().unwrap_or_else(PoisonError::into_inner);
            if ticks.len() == TICKS {
                ticks.pop_front();
            }
            ticks.push_back(tick);
        });
    }
}

fn ask(switch: &File, shared: &Shared) {
    // Only this thread moves into the switch's network; the others stay where they are.
    if move_into_link_name_space(switch.as_fd(), Some(LinkNameSpaceType::Network)).is_err() {
        return;
    }
    while !shared.stop.load(Ordering::Relaxed) {
        let asked = SystemClock.monotonic();
        let good = page_is_good().unwrap_or(false);
        *shared.answered.lock().unwrap_or_else(PoisonError::into_inner) = good.then_some(asked);
        pause(ASK_EVERY);
    }
}

fn page_is_good() -> std::io::Result<bool> {
    let mut stream = TcpStream::connect_timeout(&SocketAddr::from((ENGINE, 80)), PAGE_PATIENCE)?;
    stream.set_read_timeout(Some(PAGE_PATIENCE))?;
    stream.set_write_timeout(Some(PAGE_PATIENCE))?;
    write!(
        stream,
        "GET /ovirt-engine/services/health HTTP/1.0\r\nHost: {ENGINE_FQDN}\r\nConnection: close\r\n\r\n"
    )?;
    let mut page = Vec::new();
    stream.take(65536).read_to_end(&mut page)?;
    let page = String::from_utf8_lossy(&page);
    let status = page.lines().next().unwrap_or_default();
    Ok(status.contains(" 200 ") && page.contains("DB Up!Welcome to Health Status!"))
}
