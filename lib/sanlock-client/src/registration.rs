//! A process's own connection to the daemon: what its leases hang on.
//!
//! The daemon knows the process by the connection's peer credentials, taken when it was opened, and gives up all
//! leases of the process when the last descriptor of the connection closes: when the process ends, however it
//! ends. `exec` keeps the process id, so a launcher can register, acquire, and become the program to protect.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use rustix::io::FdFlags;

use crate::client::{Client, understood};
use crate::error::{Operation, SanlockError};
use crate::model::{Resource, ResourceHeld};
use crate::transport::{Connection, Request};
use crate::wire::{self, Command, HELPER_LEN, MAX_DISKS, MAX_RESOURCES};

/// The process itself, where a process id is expected.
const SELF: u32 = u32::MAX;

/// How to acquire.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AcquireOptions {
    /// Fail at once with [`Refusal::OwnerSilent`](crate::Refusal::OwnerSilent) instead of waiting until a silent
    /// owner is dead.
    pub no_wait: bool,
    /// Shown by `sanlock status` beside the process; cut at 48 bytes.
    pub owner_name: String,
}

impl AcquireOptions {
    pub(crate) fn request(&self, resources: &[Resource]) -> Result<Request, SanlockError> {
        check_resources(Operation::Acquire, resources)?;
        let mut request = Request::new(Operation::Acquire, Command::Acquire);
        request.flags = if self.no_wait { wire::ACQUIRE_OWNER_NOWAIT } else { 0 };
        request.data = u32::try_from(resources.len()).unwrap_or(u32::MAX);
        request.body = wire::acquire_body(resources, &self.owner_name);
        Ok(request)
    }
}

pub(crate) fn check_resources(operation: Operation, resources: &[Resource]) -> Result<(), SanlockError> {
    if !(1..=MAX_RESOURCES).contains(&resources.len()) {
        let detail = format!("{} resources in one call; 1 to {MAX_RESOURCES} are possible", resources.len());
        return Err(SanlockError::argument(operation, detail));
    }
    for Resource { name, disks, .. } in resources {
        if !(1..=MAX_DISKS).contains(&disks.len()) {
            let detail =
                format!("resource '{name}' has {} places; 1 to {MAX_DISKS} are possible", disks.len());
            return Err(SanlockError::argument(operation, detail));
        }
    }
    Ok(())
}

/// This process, registered. **Dropping it releases all leases that were acquired on it**, also when the program
/// still runs. A child that inherits the descriptor keeps them, so it closes on exec unless told otherwise.
#[derive(Debug)]
pub struct Registration {
    connection: Connection,
}

impl Registration {
    /// Registers this process. Sanlock kills it (SIGTERM, then SIGKILL) if a lockspace of its leases is lost.
    pub fn register_self(client: &Client) -> Result<Self, SanlockError> {
        let mut connection = client.connect()?;
        connection.tell(&Request::new(Operation::Register, Command::Register))?;
        // A registration is not answered. The daemon takes messages of one connection in order, so an answer to
        // the next question shows that it was taken (or the closed connection that it was not).
        connection.ask(&Request::new(Operation::Register, Command::Version))?;
        Ok(Self { connection })
    }

    /// The deadline of further calls. After one passed, no further call is possible: what was asked may still
    /// happen, and only dropping the registration is sure to undo it.
    pub fn set_deadline(&mut self, deadline: Duration) {
        self.connection.set_deadline(deadline);
    }

    /// Acquires leases: all of them or none.
    pub fn acquire(&mut self, resources: &[Resource], options: &AcquireOptions) -> Result<(), SanlockError> {
        let mut request = options.request(resources)?;
        request.data2 = SELF;
        self.connection.ask_in_turn(&request).map(drop)
    }

    /// Releases leases.
    pub fn release(&mut self, resources: &[Resource]) -> Result<(), SanlockError> {
        check_resources(Operation::Release, resources)?;
        let mut request = Request::new(Operation::Release, Command::Release);
        request.data = u32::try_from(resources.len()).unwrap_or(u32::MAX);
        request.data2 = SELF;
        request.body = wire::release_body(resources);
        self.connection.ask_in_turn(&request).map(drop)
    }

    /// Releases all leases.
    pub fn release_all(&mut self) -> Result<(), SanlockError> {
        let mut request = Request::new(Operation::Release, Command::Release);
        request.flags = wire::RELEASE_ALL;
        request.data2 = SELF;
        self.connection.ask_in_turn(&request).map(drop)
    }

    /// The leases that this process holds.
    pub fn inquire(&mut self) -> Result<Vec<ResourceHeld>, SanlockError> {
        let mut request = Request::new(Operation::Inquire, Command::Inquire);
        request.data2 = SELF;
        let answer = self.connection.ask_in_turn(&request)?;
        understood(&request, wire::resources_held(&answer.body))
    }

    /// A program that sanlock runs instead of sending SIGTERM when a lease is about to be lost, with `arguments`
    /// and, if `with_pid`, the process id behind them. Both shorter than 127 bytes; `arguments` are split at
    /// spaces. SIGKILL follows if the leases are not released in time.
    pub fn killpath(&mut self, path: &Path, arguments: &str, with_pid: bool) -> Result<(), SanlockError> {
        let program = path.as_os_str().as_bytes();
        for (what, value) in [("path", program), ("arguments", arguments.as_bytes())] {
            if value.len() >= HELPER_LEN - 1 || value.contains(&0) {
                let shown = String::from_utf8_lossy(value).escape_debug().to_string();
                let detail = format!(
                    "the {what} '{shown}' of the kill program: {} bytes, at most {} without NUL are possible",
                    value.len(),
                    HELPER_LEN - 2
                );
                return Err(SanlockError::argument(Operation::KillPath, detail));
            }
        }
        let mut request = Request::new(Operation::KillPath, Command::KillPath);
        request.flags = if with_pid { wire::KILL_PATH_PID } else { 0 };
        request.data2 = SELF;
        request.body = wire::kill_path_body(program, arguments.as_bytes());
        self.connection.ask_in_turn(&request).map(drop)
    }

    /// Lets the registration, and with it the leases, survive `exec`: the descriptor stays open in the program
    /// that this process becomes, which need not know of it. The value must then be kept from being dropped
    /// before `exec`. Whatever that program starts must not inherit the descriptor for longer than it lives.
    pub fn keep_across_exec(&self) -> Result<(), SanlockError> {
        rustix::io::fcntl_setfd(&self.connection, FdFlags::empty())
            .map_err(|e| SanlockError::Io { operation: Operation::Register, source: e.into() })
    }
}

impl AsFd for Registration {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.connection.as_fd()
    }
}

impl From<Registration> for OwnedFd {
    fn from(registration: Registration) -> Self {
        registration.connection.into()
    }
}
