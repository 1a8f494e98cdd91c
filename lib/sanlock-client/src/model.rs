//! What sanlock knows: lockspaces, resources, hosts, owners. Plain data, no I/O.

use std::fmt;

use crate::names::{DiskPath, LockspaceName, ResourceName};

/// A place on storage where a lease area starts.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Disk {
    /// The file or block device.
    pub path: DiskPath,
    /// Byte offset of the area; a multiple of its alignment (1 MiB with 512-byte sectors).
    pub offset: u64,
}

/// A lockspace and this host's id in it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Lockspace {
    /// Its name.
    pub name: LockspaceName,
    /// This host's id: 1…2000 with 512-byte sectors. Writing a lockspace ignores it.
    pub host_id: u64,
    /// Where it is.
    pub disk: Disk,
}

/// A lease that a process can hold.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Resource {
    /// The lockspace that its holder's host must have joined.
    pub lockspace: LockspaceName,
    /// Its name.
    pub name: ResourceName,
    /// Where it is: one place, or up to four copies.
    pub disks: Vec<Disk>,
}

/// Sector size and alignment of a lease area; together they bound the number of hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum GridSize {
    /// 512-byte sectors in 1 MiB: 2000 hosts.
    Sector512Align1M,
    /// 4096-byte sectors in 1 MiB: 250 hosts.
    Sector4kAlign1M,
    /// 4096-byte sectors in 2 MiB: 500 hosts.
    Sector4kAlign2M,
    /// 4096-byte sectors in 4 MiB: 1000 hosts.
    Sector4kAlign4M,
    /// 4096-byte sectors in 8 MiB: 2000 hosts.
    Sector4kAlign8M,
}

impl GridSize {
    /// Greatest host id in such an area.
    pub const fn max_hosts(self) -> u32 {
        match self {
            Self::Sector512Align1M | Self::Sector4kAlign8M => 2000,
            Self::Sector4kAlign1M => 250,
            Self::Sector4kAlign2M => 500,
            Self::Sector4kAlign4M => 1000,
        }
    }

    /// Bytes of one area: a lockspace, or one resource.
    pub const fn align_bytes(self) -> u64 {
        match self {
            Self::Sector512Align1M | Self::Sector4kAlign1M => 1 << 20,
            Self::Sector4kAlign2M => 2 << 20,
            Self::Sector4kAlign4M => 4 << 20,
            Self::Sector4kAlign8M => 8 << 20,
        }
    }

    /// Bytes of one sector.
    pub const fn sector_bytes(self) -> u32 {
        match self {
            Self::Sector512Align1M => 512,
            Self::Sector4kAlign1M | Self::Sector4kAlign2M | Self::Sector4kAlign4M | Self::Sector4kAlign8M => {
                4096
            }
        }
    }
}

/// How far this host is with a lockspace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LockspacePhase {
    /// The host id is ours.
    Joined,
    /// Asked for, not yet ours. An inquiry cannot tell this from [`Self::Leaving`] and says `Joining` for both.
    Joining,
    /// Being given up.
    Leaving,
    /// Not ours, and not asked for.
    NotJoined,
}

/// One row of the daemon's list of lockspaces.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct LockspaceRecord {
    /// The lockspace, with this host's id.
    pub lockspace: Lockspace,
    /// How far it is; never [`LockspacePhase::NotJoined`].
    pub phase: LockspacePhase,
}

/// What this host has seen of another host's lease on its id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HostState {
    /// Not watched long enough to say.
    Unknown,
    /// Given up in order: nobody holds the id.
    Free,
    /// Renewed lately.
    Live,
    /// Not renewed for 8 × its I/O time-out: its sanlock is killing lease holders, if it can.
    Fail,
    /// Silent for so long that its watchdog must have fired: its leases may be taken.
    Dead,
}

impl HostState {
    /// True when a lease of such a host can be taken at once.
    pub const fn gives_way(self) -> bool {
        match self {
            Self::Free | Self::Dead => true,
            Self::Unknown | Self::Live | Self::Fail => false,
        }
    }
}

impl fmt::Display for HostState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unknown => "UNKNOWN",
            Self::Free => "FREE",
            Self::Live => "LIVE",
            Self::Fail => "FAIL",
            Self::Dead => "DEAD",
        })
    }
}

/// One host of a lockspace, as this host's daemon sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct HostStatus {
    /// Its id.
    pub host_id: u64,
    /// Grows by one each time the id is taken anew.
    pub generation: u64,
    /// That host's monotonic seconds at its last renewal; 0 when it gave the id up.
    pub timestamp: u64,
    /// The I/O time-out in seconds that it joined with.
    pub io_timeout: u32,
    /// The verdict.
    pub state: HostState,
}

/// Who owns a resource, by its record on storage. Compare id *and* generation with a [`HostStatus`]: a host
/// with a greater generation has restarted and owns nothing of what its earlier generation took.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Owner {
    /// The owner's host id.
    pub host_id: u64,
    /// Its generation when it took the lease.
    pub generation: u64,
    /// That host's monotonic seconds when it took the lease; 0 for a shared owner.
    pub timestamp: u64,
}

/// Answer to the question who owns a resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResourceOwners {
    /// Grows by one with each new exclusive owner.
    pub lver: u64,
    /// True when the owners share it.
    pub shared: bool,
    /// The owners; empty when it is free.
    pub owners: Vec<Owner>,
}

/// A resource's record as read from storage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResourceRecord {
    /// Lockspace name in the record.
    pub lockspace: LockspaceName,
    /// Resource name in the record.
    pub name: ResourceName,
    /// Grows by one with each new exclusive owner.
    pub lver: u64,
    /// Its sectors and alignment; `None` when the record is of a release that did not say.
    pub grid: Option<GridSize>,
}

/// A resource that a process holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResourceHeld {
    /// The resource.
    pub resource: Resource,
    /// The version of the lease that is held; `None` for a shared one.
    pub lver: Option<u64>,
}

/// The daemon's release and protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// 3 or 4.
    pub major: u8,
    /// Second figure.
    pub minor: u8,
    /// Third figure.
    pub patch: u8,
    /// Protocol number; its upper 16 bits must be those of our own, 0.
    pub protocol: u32,
}

/// How the daemon was started. `None` for what it does not say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DaemonSettings {
    /// Whether the host's watchdog resets it when a lease that it carries cannot be renewed.
    pub uses_watchdog: Option<bool>,
    /// Its I/O time-out in seconds where a lockspace's own is not given.
    pub io_timeout: Option<u32>,
    /// The watchdog's time in seconds.
    pub watchdog_fire_timeout: Option<u32>,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}
