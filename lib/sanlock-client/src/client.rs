//! Calls that need no registration: each opens a connection, asks once and closes it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::{Operation, Refusal, SanlockError};
use crate::model::{
    DaemonSettings, GridSize, HostStatus, Lockspace, LockspacePhase, LockspaceRecord, Resource, ResourceHeld,
    ResourceOwners, ResourceRecord, Version,
};
use crate::names::LockspaceName;
use crate::registration::{AcquireOptions, check_resources};
use crate::transport::{Answer, Connection, Request};
use crate::wire::{self, Command, WireError};

/// How to join a lockspace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AddOptions {
    /// Sanlock's I/O time-out in seconds, from which all its other times follow; `None` for the daemon's own
    /// (10). Must be the same on all hosts.
    pub io_timeout: Option<u32>,
    /// Return once the daemon has begun. Then ask [`Client::inquire_lockspace`] how it goes.
    pub is_async: bool,
}

/// How to leave a lockspace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RemoveOptions {
    /// Return once the daemon has begun.
    pub is_async: bool,
    /// Refuse while a process holds a lease of the lockspace. Without it the daemon **kills** such processes.
    pub unused: bool,
}

/// How to write a new lockspace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WriteLockspaceOptions {
    /// I/O time-out in seconds to put into the records; `None` for the daemon's own (10).
    pub io_timeout: Option<u32>,
    /// Sectors and alignment; `None` to let the daemon look at the device (512 bytes for files).
    pub grid: Option<GridSize>,
}

/// Where the daemon listens and how long to wait for it.
#[derive(Debug, Clone)]
pub struct Client {
    socket: PathBuf,
    deadline: Duration,
}

impl Client {
    /// A client of the daemon at `socket`, usually `/run/sanlock/sanlock.sock`, with a deadline of 30 s. Nothing
    /// is opened yet.
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self { socket: socket.into(), deadline: Duration::from_secs(30) }
    }

    /// The same with another deadline for each call. Joining without `is_async`, and acquiring from a silent
    /// owner without `no_wait`, take as long as sanlock's time-outs say: 140 s and more by default.
    #[must_use]
    pub fn with_deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// The socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    pub(crate) fn connect(&self) -> Result<Connection, SanlockError> {
        Connection::open(&self.socket, self.deadline)
    }

    fn ask(&self, request: &Request) -> Result<Answer, SanlockError> {
        self.connect()?.ask(request)
    }

    /// Asks for something of a registered process.
    fn ask_in_turn(&self, request: &Request) -> Result<Answer, SanlockError> {
        self.connect()?.ask_in_turn(request)
    }

    /// The daemon's release.
    pub fn version(&self) -> Result<Version, SanlockError> {
        let answer = self.ask(&Request::new(Operation::Version, Command::Version))?;
        Ok(wire::version(&answer.header))
    }

    /// How the daemon was started.
    pub fn settings(&self) -> Result<DaemonSettings, SanlockError> {
        let mut request = Request::new(Operation::Status, Command::Status);
        request.data = wire::STATE_DAEMON;
        let text = self.connect()?.ask_for_state(&request)?;
        understood(&request, wire::daemon_settings(&text))
    }

    /// Joins a lockspace: takes the host id in it.
    ///
    /// Takes 2 to 5 I/O time-outs after the id was given up in order, and up to 14 plus 60 s after it was not.
    pub fn add_lockspace(&self, lockspace: &Lockspace, options: AddOptions) -> Result<(), SanlockError> {
        let mut request = Request::new(Operation::AddLockspace, Command::AddLockspace);
        request.flags = if options.is_async { wire::ADD_ASYNC } else { 0 };
        request.data = options.io_timeout.unwrap_or(0);
        request.body = wire::lockspace_body(lockspace, 0);
        self.ask(&request).map(drop)
    }

    /// How far this host is with exactly this lockspace (name, host id and place). Never waits.
    pub fn inquire_lockspace(&self, lockspace: &Lockspace) -> Result<LockspacePhase, SanlockError> {
        let mut request = Request::new(Operation::InquireLockspace, Command::InqLockspace);
        request.body = wire::lockspace_body(lockspace, 0);
        match self.ask(&request) {
            Ok(_) => Ok(LockspacePhase::Joined),
            Err(e) if e.refusal() == Some(Refusal::InProgress) => Ok(LockspacePhase::Joining),
            Err(e) if e.code() == Some(-2) => Ok(LockspacePhase::NotJoined),
            Err(e) => Err(e),
        }
    }

    /// Leaves a lockspace: gives the host id up.
    pub fn remove_lockspace(
        &self,
        lockspace: &Lockspace,
        options: RemoveOptions,
    ) -> Result<(), SanlockError> {
        let mut request = Request::new(Operation::RemoveLockspace, Command::RemLockspace);
        request.flags = if options.is_async { wire::REM_ASYNC } else { 0 }
            | if options.unused { wire::REM_UNUSED } else { 0 };
        request.body = wire::lockspace_body(lockspace, 0);
        self.ask(&request).map(drop)
    }

    /// All lockspaces that this host is in, or is joining or leaving.
    pub fn get_lockspaces(&self) -> Result<Vec<LockspaceRecord>, SanlockError> {
        let request = Request::new(Operation::GetLockspaces, Command::GetLockspaces);
        let answer = self.ask(&request)?;
        understood(&request, wire::lockspaces(&answer.body, answer.header.data2))
    }

    /// The hosts of a joined lockspace that were ever seen alive, or only `host_id` (also when never seen).
    pub fn get_hosts(
        &self,
        lockspace: &LockspaceName,
        host_id: Option<u64>,
    ) -> Result<Vec<HostStatus>, SanlockError> {
        let mut request = Request::new(Operation::GetHosts, Command::GetHosts);
        request.body = wire::named_lockspace_body(lockspace, host_id.unwrap_or(0));
        let answer = self.ask(&request)?;
        understood(&request, wire::hosts(&answer.body, answer.header.data2))
    }

    /// Acquires leases for the registered process `pid`: all of them or none.
    pub fn acquire_for_pid(
        &self,
        pid: u32,
        resources: &[Resource],
        options: &AcquireOptions,
    ) -> Result<(), SanlockError> {
        let mut request = options.request(resources)?;
        request.data2 = pid;
        self.ask_in_turn(&request).map(drop)
    }

    /// Releases leases of the registered process `pid`.
    pub fn release_for_pid(&self, pid: u32, resources: &[Resource]) -> Result<(), SanlockError> {
        check_resources(Operation::Release, resources)?;
        let mut request = Request::new(Operation::Release, Command::Release);
        request.data = u32::try_from(resources.len()).unwrap_or(u32::MAX);
        request.data2 = pid;
        request.body = wire::release_body(resources);
        self.ask_in_turn(&request).map(drop)
    }

    /// The leases that process `pid` holds; [`Refusal::NoSuchProcess`] when it is not registered.
    pub fn inquire_pid(&self, pid: u32) -> Result<Vec<ResourceHeld>, SanlockError> {
        let mut request = Request::new(Operation::Inquire, Command::Inquire);
        request.data2 = pid;
        let answer = self.ask_in_turn(&request)?;
        understood(&request, wire::resources_held(&answer.body))
    }

    /// Reads a lockspace's name and I/O time-out from storage, by its place alone. `host_id` names the record to
    /// look at, usually 1.
    pub fn read_lockspace(&self, lockspace: &Lockspace) -> Result<(Lockspace, u32), SanlockError> {
        let mut request = Request::new(Operation::ReadLockspace, Command::ReadLockspace);
        request.body = wire::lockspace_body(lockspace, 0);
        let answer = self.ask(&request)?;
        let found = understood(&request, wire::read_lockspace(&answer.body))?;
        Ok((found, answer.header.data2))
    }

    /// Writes an empty lockspace, **whatever is there**: the caller has made sure that no host is in it. The daemon
    /// must be able to write the file, which must exist and be long enough.
    pub fn write_lockspace(
        &self,
        lockspace: &Lockspace,
        max_hosts: u32,
        options: WriteLockspaceOptions,
    ) -> Result<(), SanlockError> {
        let mut request = Request::new(Operation::WriteLockspace, Command::WriteLockspace);
        request.data = max_hosts;
        request.data2 = options.io_timeout.unwrap_or(0);
        request.body = wire::lockspace_body(lockspace, options.grid.map_or(0, wire::grid_flags));
        self.ask(&request).map(drop)
    }

    /// Reads a resource's record from storage. Its names must be those in `resource`.
    pub fn read_resource(&self, resource: &Resource) -> Result<ResourceRecord, SanlockError> {
        let request = resource_request(Operation::ReadResource, Command::ReadResource, resource, None)?;
        let answer = self.ask(&request)?;
        understood(&request, wire::resource_record(&answer.body))
    }

    /// Who owns a resource, by its record on storage. That record stays when an owner dies: compare it with
    /// [`Self::get_hosts`].
    pub fn read_resource_owners(&self, resource: &Resource) -> Result<ResourceOwners, SanlockError> {
        let (operation, command) = (Operation::ReadResourceOwners, Command::ReadResourceOwners);
        let request = resource_request(operation, command, resource, None)?;
        let answer = self.ask(&request)?;
        understood(&request, wire::owners(&answer.body, answer.header.data2))
    }

    /// Writes a free resource, **whatever is there**: the caller has made sure that nobody holds it. 0 for
    /// `max_hosts` and `num_hosts` means as many as fit.
    pub fn write_resource(
        &self,
        resource: &Resource,
        max_hosts: u32,
        num_hosts: u32,
        grid: Option<GridSize>,
    ) -> Result<(), SanlockError> {
        let (operation, command) = (Operation::WriteResource, Command::WriteResource);
        let mut request = resource_request(operation, command, resource, grid)?;
        request.data = max_hosts;
        request.data2 = num_hosts;
        self.ask(&request).map(drop)
    }

    /// Marks the place of a resource as holding none, **whatever is there**: the caller has made sure that nobody
    /// holds it. Reading it says afterwards that there is none.
    pub fn clear_resource(&self, resource: &Resource, grid: Option<GridSize>) -> Result<(), SanlockError> {
        let (operation, command) = (Operation::WriteResource, Command::WriteResource);
        let mut request = resource_request(operation, command, resource, grid)?;
        request.flags = wire::WRITE_CLEAR;
        self.ask(&request).map(drop)
    }
}

fn resource_request(
    operation: Operation,
    command: Command,
    resource: &Resource,
    grid: Option<GridSize>,
) -> Result<Request, SanlockError> {
    check_resources(operation, std::slice::from_ref(resource))?;
    let mut request = Request::new(operation, command);
    request.body = wire::resource_body(resource, grid.map_or(0, wire::grid_flags));
    Ok(request)
}

pub(crate) fn understood<T>(request: &Request, decoded: Result<T, WireError>) -> Result<T, SanlockError> {
    decoded.map_err(|e| SanlockError::protocol(request.operation, e.0))
}
