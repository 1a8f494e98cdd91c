//! Requests: from our types to bytes.

use std::os::unix::ffi::OsStrExt;

use super::{
    DISK_LEN, DISK_OFFSET, HELPER_LEN, LOCKSPACE_LEN, LS_DISK, LS_FLAGS, LS_HOST_ID, OPTIONS_LEN, RES_FLAGS,
    RES_NAME, RES_NUM_DISKS, RESOURCE_LEN,
};
use crate::model::{Disk, Lockspace, Resource};
use crate::names::LockspaceName;

/// Copies what fits; names and paths are checked at construction, so that everything fits.
fn put(target: &mut [u8], at: usize, bytes: &[u8]) {
    for (place, byte) in target.iter_mut().skip(at).zip(bytes) {
        *place = *byte;
    }
}

fn put_disk(target: &mut [u8], at: usize, disk: &Disk) {
    put(target, at, disk.path.as_path().as_os_str().as_bytes());
    put(target, at + DISK_OFFSET, &disk.offset.to_le_bytes());
}

/// Body of every command about one lockspace.
pub fn lockspace_body(lockspace: &Lockspace, flags: u32) -> Vec<u8> {
    let mut body = vec![0; LOCKSPACE_LEN];
    put(&mut body, 0, lockspace.name.as_str().as_bytes());
    put(&mut body, LS_HOST_ID, &lockspace.host_id.to_le_bytes());
    put(&mut body, LS_FLAGS, &flags.to_le_bytes());
    put_disk(&mut body, LS_DISK, &lockspace.disk);
    body
}

/// Body of a host list: name and host id only (0 for all hosts).
pub fn named_lockspace_body(name: &LockspaceName, host_id: u64) -> Vec<u8> {
    let mut body = vec![0; LOCKSPACE_LEN];
    put(&mut body, 0, name.as_str().as_bytes());
    put(&mut body, LS_HOST_ID, &host_id.to_le_bytes());
    body
}

fn push_resource(body: &mut Vec<u8>, resource: &Resource, flags: u32, with_disks: bool) {
    let start = body.len();
    body.resize(start + RESOURCE_LEN, 0);
    put(body, start, resource.lockspace.as_str().as_bytes());
    put(body, start + RES_NAME, resource.name.as_str().as_bytes());
    put(body, start + RES_FLAGS, &flags.to_le_bytes());
    // The caller has checked that there are one to four disks.
    let disks = u32::try_from(resource.disks.len()).unwrap_or(u32::MAX);
    put(body, start + RES_NUM_DISKS, &disks.to_le_bytes());
    if with_disks {
        for disk in &resource.disks {
            let at = body.len();
            body.resize(at + DISK_LEN, 0);
            put_disk(body, at, disk);
        }
    }
}

/// Body of every command about one resource on storage.
pub fn resource_body(resource: &Resource, flags: u32) -> Vec<u8> {
    let mut body = Vec::new();
    push_resource(&mut body, resource, flags, true);
    body
}

/// Body of an acquire; `owner_name` is shown by `sanlock status` and cut at 48 bytes.
pub fn acquire_body(resources: &[Resource], owner_name: &str) -> Vec<u8> {
    let mut body = Vec::new();
    for resource in resources {
        push_resource(&mut body, resource, 0, true);
    }
    let options = body.len();
    body.resize(options + OPTIONS_LEN, 0);
    let shown = owner_name.as_bytes();
    put(&mut body, options, shown.get(..crate::names::NAME_LEN).unwrap_or(shown));
    body
}

/// Body of a release: the resources without their disks.
pub fn release_body(resources: &[Resource]) -> Vec<u8> {
    let mut body = Vec::new();
    for resource in resources {
        push_resource(&mut body, resource, 0, false);
    }
    body
}

/// Body of a kill path; the caller has checked that both are shorter than 128 bytes.
pub fn kill_path_body(path: &[u8], arguments: &[u8]) -> Vec<u8> {
    let mut body = vec![0; 2 * HELPER_LEN];
    put(&mut body, 0, path);
    put(&mut body, HELPER_LEN, arguments);
    body
}
