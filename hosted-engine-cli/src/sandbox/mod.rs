//! `hosted-engine sandbox`: a whole cluster on one machine, for trying the product and for testing it.
//!
//! Each sandbox host is its own set of namespaces (pid, mount, net, uts, ipc) with its own process 1, management
//! bridge, real sanlock daemon, broker and agent; all share one storage folder, each through its own faulty file
//! system. The engine VM is a real guest in QEMU. Hosts can be killed, frozen, cut off and starved of storage.
//!
//! It touches its own directory, one named network namespace and one control group, all of which `down` removes.
//! It never touches the machine's own network, services or storage.

mod cgroup;
mod cluster;
mod deploy;
pub mod disk_record;
pub mod faultfs;
mod guest_clock;
pub mod guests;
mod host;
mod host_init;
mod init;
pub mod layout;
mod libvirtd;
mod lun;
pub mod measure;
mod needs;
mod net;
pub mod observer;
mod power;
mod procs;
mod protection;
pub mod scenario;
mod services;
mod shell;
mod state;
pub mod timeline;

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, Subcommand};
use ha_config::ha_toml::RecoveryProfile;
use rustix::process::Signal;

pub use cluster::{Cluster, UpOptions};
pub use deploy::answers_file;
use faultfs::Mode;
pub use host::Host;
pub use host_init::HostInit;
pub use layout::{HostNumber, Layout};
pub use services::Service;
pub use state::{Hypervisor, SharedStorage, State};

/// A whole cluster on this machine, to try out and to break.
#[derive(Debug, Args)]
pub struct SandboxArgs {
    /// Where the sandbox is. Keep it short: Unix sockets in it may have 107 bytes.
    #[arg(long, global = true, value_name = "DIR", default_value = layout::DEFAULT_DIR)]
    dir: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Bring up a cluster: hosts, storage, engine VM; wait until the engine is healthy
    Up {
        /// How many hosts
        #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=i64::from(layout::MAX_HOSTS)))]
        hosts: u8,
        /// sanlock's I/O time-out in seconds: storage may stall for about 8 times as long
        #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=60))]
        io_timeout: u32,
        /// The I/O time-out of a recovery-time profile: standard, fast or aggressive. The watchdog's time stays 60 s, which
        /// is the only one that sanlock before 3.9 knows
        #[arg(long, conflicts_with = "io_timeout", value_parser = clap::value_parser!(RecoveryProfile))]
        profile: Option<RecoveryProfile>,
        /// Directory with the guest's vmlinuz and initramfs, made by etc/sandbox/build-guest
        #[arg(long, default_value = "/var/cache/ovirt-ha-sandbox", env = "OVIRT_HA_SANDBOX_GUEST")]
        guest: PathBuf,
        /// Who runs the engine VM
        #[arg(long, value_enum, default_value_t)]
        hypervisor: Hypervisor,
        /// What the hosts share. On LVM, which works without a device mapper, no faults of storage can be played
        #[arg(long, value_enum, default_value_t)]
        storage: SharedStorage,
        /// The hosts have a watchdog, which resets them when sanlock cannot renew a lease; its device is played by a
        /// stand-in
        #[arg(long)]
        watchdog: bool,
        /// The hosts have power switches, played by a stand-in outside of them, and their agents power dead hosts off
        #[arg(long)]
        fencing: bool,
        /// Only hosts, network, storage and sanlock: deploy nothing, and say how to do it
        #[arg(long)]
        bare: bool,
    },
    /// Show the hosts, what runs on them and which faults they have
    Status,
    /// Kill the engine VM's QEMU, wherever it runs
    KillVm,
    /// Kill a daemon with SIGKILL; its supervisor starts it again
    KillDaemon {
        /// Host
        host: u8,
        /// ovirt-ha-agent, ovirt-ha-broker, libvirtd, vdsm or sanlock
        daemon: String,
    },
    /// Power loss: everything on the host ends at once
    KillHost {
        /// Host
        host: u8,
    },
    /// Boot a killed host again
    StartHost {
        /// Host
        host: u8,
    },
    /// Stop everything on a host as it is
    FreezeHost {
        /// Host
        host: u8,
    },
    /// Let a frozen host go on
    ThawHost {
        /// Host
        host: u8,
    },
    /// The gateway no longer answers a host
    CutGateway {
        /// Host
        host: u8,
    },
    /// The gateway answers the host again
    RestoreGateway {
        /// Host
        host: u8,
    },
    /// Storage no longer answers a host
    StallStorage {
        /// Host
        host: u8,
    },
    /// Everything that a host does on storage fails (EIO)
    FailStorage {
        /// Host
        host: u8,
    },
    /// Storage answers a host later
    SlowStorage {
        /// Host
        host: u8,
        /// How much later, in milliseconds
        millis: u64,
    },
    /// A host can read its storage, and write nothing
    ReadOnlyStorage {
        /// Host
        host: u8,
    },
    /// Storage works again
    ResumeStorage {
        /// Host
        host: u8,
    },
    /// Print a host's logs
    Logs {
        /// Host
        host: u8,
        /// init, storage, wdmd, sanlock, libvirtd, vdsm, ovirt-ha-broker or ovirt-ha-agent; all of them when absent
        service: Option<String>,
        /// Only so many lines of each
        #[arg(long, short = 'n', default_value_t = 40)]
        lines: usize,
    },
    /// Run a command inside a host, for example: exec 1 hosted-engine --vm-status
    Exec {
        /// Host
        host: u8,
        /// The command
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<OsString>,
    },
    /// Print every change: where QEMU runs, whether the engine answers; until interrupted
    Watch,
    /// Play what can go wrong, and print a row of a table for each
    Scenario(scenario::ScenarioArgs),
    /// Show what `scenario --json` kept: tables, bars, lanes. Needs no sandbox
    Timelines(measure::TimelinesArgs),
    /// Play what only a watchdog protects from, and measure how long a second engine VM ran
    Protection {
        /// Which
        #[arg(required = true)]
        threats: Vec<protection::Threat>,
    },
    /// Take everything down and remove it
    Down,
    #[command(hide = true)]
    Init { layout: PathBuf, host: u8 },
    #[command(hide = true)]
    Power {
        host: u8,
        #[arg(value_enum)]
        deed: power::Deed,
    },
    #[command(hide = true)]
    Fs {
        source: PathBuf,
        mountpoint: PathBuf,
        control: PathBuf,
        #[arg(long)]
        listen: Option<SocketAddr>,
    },
}

/// Carries out one sandbox command.
pub fn run(args: SandboxArgs) -> anyhow::Result<ExitCode> {
    if let Command::Timelines(args) = &args.command {
        measure::show(args)?;
        return Ok(ExitCode::SUCCESS);
    }
    anyhow::ensure!(
        rustix::process::geteuid().is_root(),
        "the sandbox makes namespaces, mounts and bridges; run it as root (sudo hosted-engine sandbox …)"
    );
    match args.command {
        Command::Init { layout, host } => {
            let cgroup = std::env::var_os(host::CGROUP_ENV).map(PathBuf::from);
            init::run(&Layout::new(&layout)?, HostNumber(host), cgroup.as_deref())?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Fs { source, mountpoint, control, listen } => {
            if let Some(address) = listen {
                faultfs::answer_at(address)?;
            }
            faultfs::serve(&source, &mountpoint, &control)?;
            Ok(ExitCode::SUCCESS)
        }
        command => operate(command, &Layout::new(&args.dir)?),
    }
}

fn operate(command: Command, layout: &Layout) -> anyhow::Result<ExitCode> {
    match command {
        Command::Up { hosts, io_timeout, profile, guest, hypervisor, storage, watchdog, fencing, bare } => {
            let io_timeout = profile.map_or(io_timeout, |profile| profile.times().0);
            let options =
                UpOptions { hosts, io_timeout, guest, hypervisor, storage, watchdog, fencing, bare };
            cluster::up(layout, &options)?;
        }
        Command::Down => cluster::down(layout)?,
        Command::Init { .. } | Command::Fs { .. } | Command::Timelines(_) => {
            unreachable!("carried out by run()")
        }
        command => return on_cluster(command, &Cluster::open(layout)?),
    }
    Ok(ExitCode::SUCCESS)
}

fn on_cluster(command: Command, cluster: &Cluster) -> anyhow::Result<ExitCode> {
    let host = |number| cluster.host(number);
    let storage = |number, mode| {
        host(number)?;
        cluster.state().storage.check_faults()?;
        faultfs::tell(&cluster.layout().fault_socket(HostNumber(number)), mode)
    };
    match command {
        Command::Status => print!("{}", cluster.status()),
        Command::KillVm => {
            let qemus = cluster.qemus();
            anyhow::ensure!(!qemus.is_empty(), "no engine VM runs on any host");
            for (host, qemu) in qemus {
                println!("killing QEMU {} on host {host}", qemu.pid);
                qemu.signal(Signal::KILL);
            }
        }
        Command::KillDaemon { host: number, daemon } => {
            let service = Service::named(&daemon).with_context(|| {
                format!(
                    "\"{daemon}\" is no daemon: ovirt-ha-agent, ovirt-ha-broker, libvirtd, vdsm or sanlock"
                )
            })?;
            let process = host(number)?.service_process(service)?;
            process.with_context(|| format!("{daemon} does not run on host {number}"))?.signal(Signal::KILL);
        }
        Command::KillHost { host: number } => host(number)?.kill()?,
        Command::StartHost { host: number } => host(number)?.start()?,
        Command::FreezeHost { host: number } => host(number)?.freeze(true)?,
        Command::ThawHost { host: number } => host(number)?.freeze(false)?,
        Command::CutGateway { host: number } => net::cut_gateway(cluster.layout(), host(number)?.number)?,
        Command::RestoreGateway { host: number } => {
            net::restore_gateway(cluster.layout(), host(number)?.number)?;
        }
        Command::StallStorage { host } => storage(host, Mode::Hang)?,
        Command::FailStorage { host } => storage(host, Mode::Eio)?,
        Command::SlowStorage { host, millis } => storage(host, Mode::Delay(Duration::from_millis(millis)))?,
        Command::ReadOnlyStorage { host } => storage(host, Mode::ReadOnly)?,
        Command::ResumeStorage { host } => storage(host, Mode::Ok)?,
        Command::Logs { host: number, service, lines } => {
            cluster.logs(host(number)?.number, service.as_deref(), lines)?;
        }
        Command::Power { host: number, deed } => power::carry_out(&host(number)?, deed)?,
        Command::Watch => cluster.watch()?,
        Command::Scenario(args) => scenario::play_all(cluster, &args)?,
        Command::Protection { threats } => protection::play_all(cluster, &threats)?,
        Command::Exec { host: number, command } => {
            let status =
                host(number)?.command(&command)?.status().context("cannot run nsenter (util-linux)")?;
            let code = status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1);
            return Ok(ExitCode::from(code));
        }
        Command::Up { .. }
        | Command::Down
        | Command::Init { .. }
        | Command::Fs { .. }
        | Command::Timelines(_) => {
            unreachable!("carried out by operate()")
        }
    }
    Ok(ExitCode::SUCCESS)
}
