//! Tests of the whole: what needs more than one crate, real daemons, or another program as its peer.

pub mod libvirtd;
pub mod namespace;
pub mod sanlock;
pub mod vdsm;
pub mod wait;
