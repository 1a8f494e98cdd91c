//! Every configuration file of the product, and every path, under one root prefix.
//!
//! - [`Paths`]: where things are.
//! - [`HostedEngineConf`], [`HaConf`], [`VmConf`]: files whose form is older than this program; kept as they are.
//! - [`AgentConf`], [`BrokerConf`]: the daemons' INI files.
//! - [`HaToml`]: what is new. [`deadlines`]: times that nobody sets, which its timers must fit to.
//! - [`conf_archive`]: the copy of these files on shared storage; [`conf_volume`]: reading and changing it there.
//! - [`shared_config`]: what operators may read and change in it, key by key.
//! - [`multipath`], [`sanlock_conf`]: whether what others read on this host fits the leases' times.
//! - [`vdsm_conf`]: what VDSM is told of this host.
//! - [`atomic`]: how files are replaced; [`shared_file`]: reading and writing shared storage past the page cache.
//!
//! Nothing here decides anything or talks to anybody.

pub mod agent_conf;
mod aligned;
pub mod atomic;
pub mod broker_conf;
mod cached;
pub mod conf_archive;
pub mod conf_volume;
pub mod deadlines;
pub mod device;
mod edit;
pub mod error;
pub mod ha_toml;
pub mod hosted_engine;
mod ini;
pub mod key_value;
pub mod multipath;
pub mod paths;
pub mod refresh;
pub mod sanlock_conf;
pub mod secret;
pub mod shared_config;
pub mod shared_file;
pub mod text;
pub mod vdsm_conf;
pub mod vm_conf;

pub use agent_conf::{AgentConf, ScoreOverlay};
pub use aligned::AlignedBuffer;
pub use broker_conf::{BrokerConf, EmailConf};
pub use device::{Device, DeviceValue};
pub use error::{ConfigError, Result};
pub use ha_toml::HaToml;
pub use hosted_engine::{DomainType, HaConf, HostedEngineConf, NetworkTest};
pub use key_value::KeyValueFile;
pub use paths::{Paths, ROOT_ENV};
pub use refresh::{RefreshError, Refreshed, refresh_copies, refresh_vm_conf};
pub use secret::Secret;
pub use shared_config::{ConfigKind, Content};
pub use vm_conf::VmConf;
