//! Which types of monitors there are.

/// The types of monitors. A type's name is also the id of its monitor: there is one of each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// [`super::cpu`].
    CpuLoad,
    /// [`super::cpu_no_engine`].
    CpuLoadNoEngine,
    /// [`super::engine_health`].
    EngineHealth,
    /// [`super::memory`].
    MemFree,
    /// [`super::memory`].
    MemLoad,
    /// [`super::bridge`].
    MgmtBridge,
    /// [`super::network`].
    Network,
    /// [`super::network`], as a boolean.
    Ping,
    /// [`super::storage`].
    StorageDomain,
}

impl Kind {
    /// All of them, in the order of their names.
    pub const ALL: [Self; 9] = [
        Self::CpuLoad,
        Self::CpuLoadNoEngine,
        Self::EngineHealth,
        Self::MemFree,
        Self::MemLoad,
        Self::MgmtBridge,
        Self::Network,
        Self::Ping,
        Self::StorageDomain,
    ];

    /// Its name, which callers give.
    pub const fn name(self) -> &'static str {
        match self {
            Self::CpuLoad => "cpu-load",
            Self::CpuLoadNoEngine => "cpu-load-no-engine",
            Self::EngineHealth => "engine-health",
            Self::MemFree => "mem-free",
            Self::MemLoad => "mem-load",
            Self::MgmtBridge => "mgmt-bridge",
            Self::Network => "network",
            Self::Ping => "ping",
            Self::StorageDomain => "storage-domain",
        }
    }

    /// The type of this name.
    pub fn find(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// What is read before the first measurement. Today's release assumes a working network, and its agent takes
    /// anything else for a failure: a host must not lose points for having just started.
    pub(super) fn assumed(self) -> Option<String> {
        match self {
            Self::Network => Some("1.0".to_owned()),
            Self::CpuLoad
            | Self::CpuLoadNoEngine
            | Self::EngineHealth
            | Self::MemFree
            | Self::MemLoad
            | Self::MgmtBridge
            | Self::Ping
            | Self::StorageDomain => None,
        }
    }
}
