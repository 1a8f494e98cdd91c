//! What the adapter is given.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ha_config::ha_toml::Accel;
use ha_config::{HaToml, HostedEngineConf, Paths};

use super::from_conf::machine_from_conf;
use super::machine::Machine;
use super::run_dir::QmpRole;
use super::spawn::Launcher;
use crate::lease::LeaseSpec;
use crate::of_host::load_vm_conf;
use crate::port::VmError;

/// Where the VM's description comes from, asked anew at each start.
#[derive(Clone)]
pub struct MachineSource(Arc<dyn Fn() -> Result<Machine, VmError> + Send + Sync>);

impl MachineSource {
    /// From a function.
    pub fn new(source: impl Fn() -> Result<Machine, VmError> + Send + Sync + 'static) -> Self {
        Self(Arc::new(source))
    }

    /// The description now.
    pub fn load(&self) -> Result<Machine, VmError> {
        (self.0)()
    }
}

impl fmt::Debug for MachineSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MachineSource(…)")
    }
}

/// What the adapter is given.
#[derive(Debug, Clone)]
pub struct QemuSettings {
    /// The run directory: one for each VM on each host.
    pub run_dir: PathBuf,
    /// QEMU: a path, or a name looked up in PATH.
    pub program: PathBuf,
    /// What carries out guest code.
    pub accel: Accel,
    /// User that QEMU becomes after it has opened everything.
    pub user: Option<String>,
    /// Added to QEMU's arguments as they are.
    pub extra_args: Vec<String>,
    /// Which of QEMU's monitors is ours.
    pub role: QmpRole,
    /// What protects the VM.
    pub lease: LeaseSpec,
    /// W: so long after the lock manager began to fail on a host its watchdog has ended it.
    pub watchdog: Duration,
    /// The VM.
    pub machine: MachineSource,
    /// How the VM's process is started.
    pub launcher: Launcher,
}

impl QemuSettings {
    /// The settings of this host, from its configuration files.
    pub fn from_config(
        paths: &Paths,
        conf: &HostedEngineConf,
        toml: &HaToml,
        role: QmpRole,
    ) -> Result<Self, VmError> {
        let run_dir = paths.qemu_run_dir();
        // QEMU and sanlock work in directories of their own.
        let absolute = |path: PathBuf| {
            std::path::absolute(&path).map_err(|e| VmError::Config {
                detail: format!("cannot make {} absolute: {e}", path.display()),
            })
        };
        let lease = LeaseSpec::of_engine_vm(conf, toml)?;
        let machine = {
            let (paths, conf, toml) = (paths.clone(), conf.clone(), toml.clone());
            MachineSource::new(move || {
                let vm =
                    load_vm_conf(&conf).map_err(|error| VmError::Config { detail: error.to_string() })?;
                machine_from_conf(&vm, &paths, &conf, &toml)
            })
        };
        Ok(Self {
            run_dir: absolute(run_dir)?,
            program: PathBuf::from(&toml.qemu.binary),
            accel: toml.qemu.accel,
            user: toml.qemu.user.clone(),
            extra_args: toml.qemu.extra_args.clone(),
            role,
            lease,
            watchdog: Duration::from_secs(toml.lease.watchdog_timeout.into()),
            machine,
            launcher: Launcher::find(paths.is_real_host()),
        })
    }
}
