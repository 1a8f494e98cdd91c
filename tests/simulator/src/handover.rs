//! Live migration between simulated hosts, as QEMU and the shipped hand-over of the lease do it: memory flows while the
//! guest runs at the source; then it stands still, the source gives the lease up, the destination takes the very next
//! version of it and lets the guest go on. Whoever does not get that version never goes on.
//!
//! The stream runs in the source's guest process and the hand-over on each side in its own, so that a host that loses
//! its power or stands still takes its side with it. A peer without power answers nothing: the stream then waits, as TCP
//! does, until somebody calls it off.

use std::time::Duration;

use engine_vm::{MigrationProgress, MigrationTarget, VmActivity, VmError, VmEvent, VmExit};
use rand::Rng;

use crate::sanlock::{Space, Standing};
use crate::vm::{Ask, By, Process};
use crate::world::{HostRef, State};

/// Bytes of guest memory.
const MEMORY: u64 = 4 << 30;
/// Pause between two looks of the stream.
const STREAM: Duration = Duration::from_millis(200);
/// Pause between two looks at the lease.
const POLL: Duration = Duration::from_millis(50);
/// How long the source leaves the free lease to the destination before it takes it back.
const LEFT_FREE: Duration = Duration::from_secs(10);
/// How long a side tries for the lease in all.
const TRY: Duration = Duration::from_mins(1);
/// The first three parts of the hosts' addresses; the last is the host's id.
const NETWORK: [u8; 3] = [192, 0, 2];

/// What a process waits for that was started to receive the VM.
#[derive(Debug, Clone)]
pub struct Arrival {
    /// The lease's version when it began to wait: the guest goes on with the next one only.
    version: u64,
    /// The guest, once all of it has come.
    loaded: Option<Box<Process>>,
}

impl Arrival {
    /// Whether all of the guest has come.
    pub const fn is_loaded(&self) -> bool {
        self.loaded.is_some()
    }
}

fn failed(action: &'static str, detail: impl Into<String>) -> VmError {
    VmError::Failed { action, detail: detail.into() }
}

impl HostRef {
    /// The host's address on the management network.
    pub fn address(&self) -> std::net::IpAddr {
        let [a, b, c] = NETWORK;
        // Scenarios have 64 hosts at most.
        [a, b, c, u8::try_from(self.id.get()).unwrap_or(u8::MAX)].into()
    }

    /// The host that listens there.
    fn listener(&self, target: &MigrationTarget) -> Option<Self> {
        let address = target.uri.strip_prefix("tcp:")?.rsplit_once(':')?.0;
        self.world.hosts().find(|host| host.address().to_string() == address)
    }

    /// Starts a process that waits for the VM.
    pub async fn prepare_to_receive(&self, listen: &MigrationTarget) -> Result<MigrationTarget, VmError> {
        const ACTION: &str = "get ready for the migration";
        if let Some(process) = self.vm(|vm| vm.clone()) {
            return Err(VmError::AlreadyExists { pid: u32::try_from(process.instance).ok() });
        }
        self.io(false).await.map_err(|errno| VmError::NoLease { detail: errno.to_string() })?;
        let version = self.world.state().areas.vm.version;
        tokio::time::sleep(Duration::from_millis(300)).await;
        {
            let mut state = self.world.state();
            let host = &mut state.hosts[self.index()];
            if host.sanlock.space(Space::Domain).standing != Standing::Held {
                return Err(VmError::NoLease { detail: "this host is not in the lockspace".to_owned() });
            }
            if host.vm.is_some() {
                return Err(failed(ACTION, "a VM began meanwhile"));
            }
            host.vm_exit = None;
            host.migration = None;
            host.vm = Some(Process::arriving(Arrival { version, loaded: None }));
        }
        self.world.vm_note(self.id, "a process waits for the VM");
        self.world.vm_changed();
        self.tell_vm(VmEvent::Changed(VmActivity::MigrationDestination));
        Ok(listen.clone())
    }

    /// Begins to send the VM.
    pub fn send_to(&self, target: &MigrationTarget) -> Result<(), VmError> {
        const ACTION: &str = "migrate";
        let Some(there) = self.listener(target) else {
            return Err(failed(ACTION, format!("nobody listens at {}", target.uri)));
        };
        self.world.vm_asked(self.id, By::Agent, Ask::Migrate { to: there.id });
        if !self.reaches(&there) || !there.vm(|vm| vm.as_ref().is_some_and(Process::waits_for_guest)) {
            return Err(failed(ACTION, format!("nobody answers at {}", target.uri)));
        }
        let (group, version, takes, breaks) = {
            let mut state = self.world.state();
            let State { rng, hosts, guest, areas, .. } = &mut *state;
            let here = &mut hosts[self.index()];
            let breaks = here.failing_migrations > 0;
            here.failing_migrations = here.failing_migrations.saturating_sub(1);
            let Some(process) = &mut here.vm else { return Err(VmError::NotRunning) };
            if process.activity != VmActivity::Up || process.dying.is_some() {
                return Err(failed(ACTION, "it must run"));
            }
            if !here.sanlock.holds_vm_lease {
                return Err(VmError::NoLease { detail: "its lease is not held".to_owned() });
            }
            process.activity = VmActivity::MigrationSource;
            process.called_off = false;
            here.migration = Some(MigrationProgress::Active { transferred: 0, remaining: MEMORY });
            let (least, most) = guest.moves;
            let takes = rng.random_range(least..=most.max(least));
            (here.guest_group.clone(), areas.vm.version, takes, breaks)
        };
        self.world.vm_changed();
        self.tell_vm(VmEvent::Changed(VmActivity::MigrationSource));
        let source = self.clone();
        if let Some(group) = group {
            group.spawn(async move { source.stream(&there, version, takes, breaks).await });
        }
        Ok(())
    }

    /// Whether the network between the two works.
    fn reaches(&self, there: &Self) -> bool {
        let state = self.world.state();
        let works = |host: &Self| {
            let host = state.host(host.id);
            host.powered && !host.frozen && host.bridge
        };
        works(self) && works(there)
    }

    async fn stream(&self, there: &Self, version: u64, takes: Duration, breaks: bool) {
        let mut sent = Duration::ZERO;
        while sent < takes {
            tokio::time::sleep(STREAM).await;
            let Some(process) = self.vm(|vm| vm.clone()) else { return };
            if process.activity != VmActivity::MigrationSource || process.asked_down {
                return self.stays("the guest stopped on its way");
            }
            if process.called_off {
                return self.stays("it was called off");
            }
            if breaks && sent >= takes / 2 {
                return self.stays("the connection broke");
            }
            if !self.reaches(there) {
                continue;
            }
            if !there.vm(|vm| vm.as_ref().is_some_and(Process::waits_for_guest)) {
                return self.stays("the destination closed the connection");
            }
            sent += STREAM;
            let share = sent.as_secs_f64() / takes.as_secs_f64().max(0.001);
            #[allow(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                clippy::cast_precision_loss,
                reason = "a share of some gigabytes"
            )]
            let transferred = ((MEMORY as f64 * share) as u64).min(MEMORY);
            let progress = MigrationProgress::Active { transferred, remaining: MEMORY - transferred };
            self.world.state().hosts[self.index()].migration = Some(progress);
        }
        if !self.stop_guest(there) {
            return self.stays("the destination went away");
        }
        let (group, arriving) = (self.world.state().host(there.id).guest_group.clone(), there.clone());
        if let Some(group) = group {
            group.spawn(async move { arriving.take_over().await });
        }
        self.hand_over(version).await;
    }

    /// The guest stands still here, and all of it is at the destination.
    fn stop_guest(&self, there: &Self) -> bool {
        let stopped = {
            let mut state = self.world.state();
            let Some(process) = &mut state.hosts[self.index()].vm else { return false };
            process.between = true;
            let guest = process.clone();
            match state.hosts[there.index()].vm.as_mut().and_then(|vm| vm.arrival.as_mut()) {
                Some(arrival) if arrival.loaded.is_none() => {
                    arrival.loaded = Some(Box::new(guest));
                    true
                }
                _ => false,
            }
        };
        self.world.vm_changed();
        stopped
    }

    /// The source's side: gives the lease up, and takes it back only if nobody had it in between.
    async fn hand_over(&self, version: u64) {
        let begun = self.world.now();
        while self.io(true).await.is_err() {
            tokio::time::sleep(POLL).await;
        }
        {
            let mut state = self.world.state();
            let State { areas, hosts, .. } = &mut *state;
            if areas.vm.version == version && areas.vm.owner.is_some_and(|(id, _)| id == self.id.get()) {
                areas.vm.owner = None;
            }
            hosts[self.index()].sanlock.holds_vm_lease = false;
        }
        loop {
            tokio::time::sleep(POLL).await;
            if self.vm(|vm| vm.is_none()) {
                return;
            }
            let waited = self.world.now().saturating_sub(begun);
            if self.io(false).await.is_ok() {
                let on_storage = self.world.state().areas.vm.version;
                if on_storage != version {
                    return self.left();
                }
                if waited > LEFT_FREE && self.acquire_vm_lease().await.is_ok() {
                    return self.goes_on(version);
                }
            }
            if waited > TRY {
                // Nobody sees to it any more: whoever looks ends it, for its lease is not held.
                if let Some(process) = &mut self.world.state().hosts[self.index()].vm {
                    process.between = false;
                    process.activity = VmActivity::Paused;
                }
                self.tell_vm(VmEvent::Changed(VmActivity::Paused));
                return;
            }
        }
    }

    fn left(&self) {
        {
            let mut state = self.world.state();
            let here = &mut state.hosts[self.index()];
            here.vm = None;
            here.migration = Some(MigrationProgress::Completed);
            here.vm_exit = Some(VmExit::MigratedAway);
            here.sanlock.vm_gone.notify_waiters();
        }
        self.world.vm_ended(self.id, &VmExit::MigratedAway);
        self.tell_vm(VmEvent::Ended(VmExit::MigratedAway));
    }

    /// The source has the lease again.
    fn goes_on(&self, version: u64) {
        if self.world.state().areas.vm.version != version + 1 || self.vm(|vm| vm.is_none()) {
            self.release_vm_lease();
            return;
        }
        if let Some(process) = &mut self.world.state().hosts[self.index()].vm {
            process.between = false;
        }
        self.stays("the destination did not take the lease");
    }

    /// The migration has failed; the guest goes on here, if it did not stop for another reason.
    fn stays(&self, why: &str) {
        {
            let mut state = self.world.state();
            let here = &mut state.hosts[self.index()];
            here.migration = Some(MigrationProgress::Failed { detail: why.to_owned() });
            let Some(process) = &mut here.vm else { return };
            process.between = false;
            if process.activity == VmActivity::MigrationSource {
                process.activity = VmActivity::Up;
            }
        }
        self.world.vm_note(self.id, &format!("the VM stays: {why}"));
        self.world.vm_changed();
        self.tell_vm(VmEvent::Changed(VmActivity::Up));
        self.io_errors_pause_it();
    }

    /// The destination's side: takes the very next version of the lease, or ends.
    async fn take_over(&self) {
        let begun = self.world.now();
        loop {
            tokio::time::sleep(POLL).await;
            let waiting = self.vm(|vm| vm.as_ref()?.arrival.as_ref().map(|arrival| arrival.version));
            let Some(version) = waiting else { return };
            if self.io(false).await.is_ok() {
                if self.world.state().areas.vm.version != version {
                    return self.gives_up("the lease went to another host");
                }
                if self.acquire_vm_lease().await.is_ok() {
                    return self.arrives(version);
                }
            }
            if self.world.now().saturating_sub(begun) > TRY {
                return self.gives_up("the lease could not be had");
            }
        }
    }

    fn arrives(&self, version: u64) {
        let arrived = {
            let mut state = self.world.state();
            let next = state.areas.vm.version == version + 1;
            let here = &mut state.hosts[self.index()];
            let guest = here.vm.as_mut().and_then(|vm| vm.arrival.as_mut()).and_then(|it| it.loaded.take());
            match guest.filter(|_| next) {
                Some(guest) => {
                    here.vm = Some(Process { activity: VmActivity::Up, between: false, ..*guest });
                    true
                }
                None => false,
            }
        };
        if !arrived {
            self.release_vm_lease();
            return self.gives_up("the guest did not come");
        }
        self.world.vm_note(self.id, "the VM has arrived");
        self.world.vm_changed();
        self.tell_vm(VmEvent::Changed(VmActivity::Up));
        self.io_errors_pause_it();
    }

    fn gives_up(&self, why: &str) {
        let gone = self.vm(|vm| vm.take_if(|vm| vm.arrival.is_some()).is_some());
        if gone {
            let exit = VmExit::StartFailed { detail: why.to_owned() };
            self.world.state().hosts[self.index()].vm_exit = Some(exit.clone());
            self.world.vm_ended(self.id, &exit);
            self.tell_vm(VmEvent::Ended(exit));
        }
    }

    /// Asks for the end of the migration.
    pub fn call_off(&self) {
        self.world.vm_note(self.id, "the migration is to be called off");
        self.vm(|vm| {
            if let Some(process) = vm {
                process.called_off = true;
            }
        });
    }
}
