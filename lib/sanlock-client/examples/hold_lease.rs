//! Becomes a program that holds a lease: registers, acquires, executes.
//!
//! `hold_lease SOCKET LOCKSPACE RESOURCE PATH OFFSET PROGRAM [ARGUMENT…]`
//!
//! Sanlock takes the lease back when the program ends, and ends the program when the lease is lost.

use std::error::Error;
use std::os::unix::process::CommandExt;
use std::process::Command;

use sanlock_client::{
    AcquireOptions, Client, Disk, DiskPath, LockspaceName, Registration, Resource, ResourceName,
};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [socket, lockspace, resource, path, offset, program, rest @ ..] = arguments.as_slice() else {
        return Err("usage: hold_lease SOCKET LOCKSPACE RESOURCE PATH OFFSET PROGRAM [ARGUMENT…]".into());
    };
    let resource = Resource {
        lockspace: LockspaceName::new(lockspace)?,
        name: ResourceName::new(resource)?,
        disks: vec![Disk { path: DiskPath::new(path)?, offset: offset.parse()? }],
    };
    let mut registration = Registration::register_self(&Client::new(socket))?;
    let options = AcquireOptions { no_wait: true, owner_name: program.clone() };
    registration.acquire(&[resource], &options)?;
    registration.keep_across_exec()?;
    // Returns only when it fails; then the registration is dropped and the lease is free again.
    Err(Command::new(program).args(rest).exec().into())
}
