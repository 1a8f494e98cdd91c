//! What a deployment makes or changes, each thing with what is needed to find it again, to know that it is still the one
//! that was made, and to take it back.

mod files;
mod services;

use serde::{Deserialize, Serialize};

use super::storage::block::iscsi::{MadeNode, MadeSession};
use super::storage::block::{Activated, MadeDomainTags, MadeGroup, MadeLogical, MadePhysical};
use super::storage::files::{MadeDomain, MadeMount, PublishedDomain};
use super::storage::vdsm::{ConnectedByVdsm, MadeByVdsm, PreparedByVdsm, TemporaryPool, VolumeGroup};
use super::vdsm::network::VdsmNetwork;
use super::vm::MadeVm;
use super::{DeployError, World};
pub use files::{ChangedFile, MadeDirectory, MadeFile, MadeLink};
pub use services::{ChangedMaintenance, ChangedService, DaemonDirectory, JoinedLockspaces};

/// How undoing one thing ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Undone {
    /// It is as it was before.
    TakenBack,
    /// It was not there any more, or not yet.
    Absent,
    /// It is not what was made, or others use it: it stays.
    LeftAlone(String),
}

/// A thing that can be taken back.
pub trait Undo {
    /// What was made, for people: `directory /rhev/…`.
    fn describe(&self) -> String;

    /// What undoing does, for people: `remove it if it is empty`.
    fn describe_undo(&self) -> String;

    /// Takes it back, however far it got when it was made; a second time it finds nothing to do. What is not provably
    /// the thing that was made stays.
    ///
    /// # Errors
    /// What stands in the way; trying again is safe.
    fn undo(&self, world: &World<'_>) -> Result<Undone, DeployError>;

    /// Whether going on with a step that was cut finds a use for it: it stays then, and goes with everything else.
    fn outlives_a_cut(&self) -> bool {
        false
    }
}

macro_rules! made {
    ($($(#[$doc:meta])* $variant:ident($kind:ty),)*) => {
        /// Everything that a deployment can make or change.
        #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(rename_all = "kebab-case")]
        pub enum Made {
            $($(#[$doc])* $variant($kind),)*
        }

        $(impl From<$kind> for Made {
            fn from(thing: $kind) -> Self {
                Self::$variant(thing)
            }
        })*

        impl Undo for Made {
            fn describe(&self) -> String {
                match self {
                    $(Self::$variant(thing) => thing.describe(),)*
                }
            }
            fn describe_undo(&self) -> String {
                match self {
                    $(Self::$variant(thing) => thing.describe_undo(),)*
                }
            }
            fn undo(&self, world: &World<'_>) -> Result<Undone, DeployError> {
                match self {
                    $(Self::$variant(thing) => thing.undo(world),)*
                }
            }
            fn outlives_a_cut(&self) -> bool {
                match self {
                    $(Self::$variant(thing) => thing.outlives_a_cut(),)*
                }
            }
        }
    };
}

made! {
    /// A directory.
    Directory(MadeDirectory),
    /// A file.
    File(MadeFile),
    /// A file that was there before.
    Changed(ChangedFile),
    /// A symbolic link.
    Link(MadeLink),
    /// A service that was started or enabled.
    Service(ChangedService),
    /// A directory that the daemons fill.
    DaemonDirectory(DaemonDirectory),
    /// This host's place in the lockspaces.
    Lockspaces(JoinedLockspaces),
    /// The note on storage that the cluster leaves.
    ClosedFormer(super::move_storage::ClosedFormer),
    /// A main configuration that another takes the place of.
    Replaced(super::move_storage::ReplacedFile),
    /// Global maintenance.
    Maintenance(ChangedMaintenance),
    /// LVM's label of a device.
    Physical(MadePhysical),
    /// A volume group.
    Group(MadeGroup),
    /// A logical volume.
    Logical(MadeLogical),
    /// The tags that make a volume group a storage domain.
    DomainTags(MadeDomainTags),
    /// Active logical volumes.
    Activated(Activated),
    /// A portal's record of open-iscsi.
    IscsiNode(MadeNode),
    /// An iSCSI session.
    IscsiSession(MadeSession),
    /// A mount.
    Mount(MadeMount),
    /// A storage domain of files.
    Domain(MadeDomain),
    /// A storage domain of files that others find.
    PublishedDomain(PublishedDomain),
    /// Storage that VDSM connected.
    ConnectedByVdsm(ConnectedByVdsm),
    /// A volume group that VDSM made.
    VdsmVolumeGroup(VolumeGroup),
    /// A storage domain that VDSM made.
    MadeByVdsm(MadeByVdsm),
    /// A storage pool for as long as volumes are made.
    TemporaryPool(TemporaryPool),
    /// Volumes that VDSM prepared.
    PreparedByVdsm(PreparedByVdsm),
    /// A network of VDSM's.
    VdsmNetwork(VdsmNetwork),
    /// The engine VM, running.
    Vm(MadeVm),
    /// The management bridge.
    Bridge(super::network::MadeBridge),
    /// Ports of firewalld.
    Firewalld(super::firewall::OpenedZone),
    /// Rules of nftables.
    Nftables(super::firewall::OpenedChains),
}
