//! What an OVF says and the description made of it does not.

use std::fmt;

/// Something that was left out or done in another way, for the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Note {
    /// A card without an address: the engine has not given it one yet.
    NicWithoutMac {
        /// The device's id.
        id: String,
    },
    /// A card's model has a number that this release does not know; `VirtIO` is taken.
    NicModel {
        /// The device's id.
        id: String,
        /// The number.
        number: String,
    },
    /// A device that is not plugged in.
    Unplugged {
        /// Its type.
        kind: String,
        /// Its id.
        id: String,
    },
    /// A disk that is no image (a LUN), or has no entry among the OVF's disks.
    DiskWithoutImage {
        /// The device's id.
        id: String,
    },
    /// The firmware's number is not known; `SeaBIOS` is taken.
    Firmware {
        /// The number.
        number: String,
    },
    /// Only domain XML can express it, and the OVF has none that can be used.
    NeedsXml {
        /// What is lost.
        what: String,
    },
    /// The OVF has domain XML that is not used.
    XmlNotUsed {
        /// Why not.
        why: String,
    },
    /// The domain's lease is not that of its disk.
    LeaseOfAnotherVolume,
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NicWithoutMac { id } => {
                write!(f, "the network card {id} has no MAC address and is left out")
            }
            Self::NicModel { id, number } => {
                write!(f, "the network card {id} has the unknown model {number:?}; VirtIO is taken")
            }
            Self::Unplugged { kind, id } => write!(f, "the {kind} {id} is not plugged in and is left out"),
            Self::DiskWithoutImage { id } => write!(f, "the disk {id} is no image and is left out"),
            Self::Firmware { number } => {
                write!(f, "the firmware type {number:?} is not known; the machine's usual BIOS is taken")
            }
            Self::NeedsXml { what } => write!(
                f,
                "{what} is lost: vm.conf cannot say it, and the OVF has no domain XML that can be used; change any \
                 setting of the engine VM in the engine, so that it writes one"
            ),
            Self::XmlNotUsed { why } => write!(
                f,
                "the engine's domain XML is not used because {why}; the VM is described without it, as the existing \
                 release does"
            ),
            Self::LeaseOfAnotherVolume => f.write_str(
                "the lease in the engine's domain XML is not that of the VM's disk: check that the engine VM cannot \
                 run twice",
            ),
        }
    }
}
