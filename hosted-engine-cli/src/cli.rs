//! The command line: which commands there are, and who does them.
//!
//! Every command has two spellings, `hosted-engine --vm-status` as operators know it and `hosted-engine vm-status`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result};
use broker_api::BrokerClient;
use clap::{CommandFactory, Parser, Subcommand, ValueEnum};
use engine_vm::{EngineVm, StartMode};
use ha_config::{ConfigKind, HostedEngineConf, Paths, ROOT_ENV, VmConf};

use crate::deploy::network::guard;
use crate::deploy::{self, DeployArgs, Installed};
use crate::deployed::{self, NOT_DEPLOYED};
use crate::maintenance::{self, Mode};
use crate::status::{self, Format};
use crate::terminal::{Exit, Terminal};
use crate::{
    console, doctor, fence, lease_status, leases, liveliness, migrate, password, repair, sandbox, saved,
    shared_config, simulate, storage, vm,
};

/// Shows and handles a highly available engine VM.
#[derive(Debug, Parser)]
#[command(
    name = "hosted-engine",
    version,
    disable_help_subcommand = true,
    after_help = "Each command may also be written with two dashes: hosted-engine --vm-status"
)]
pub struct Cli {
    /// Directory that stands for / in every path; for several hosts on one machine.
    #[arg(long, global = true, value_name = "DIR", env = ROOT_ENV, default_value = "/", hide_default_value = true)]
    pub root: PathBuf,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
#[allow(missing_docs, reason = "the variants' variants are the commands, and their words are the help")]
pub enum Command {
    #[command(flatten)]
    Operator(OperatorCommand),
    #[command(flatten)]
    Site(SiteCommand),
}

/// The commands that ask and tell.
#[derive(Debug, Subcommand)]
pub enum OperatorCommand {
    #[allow(missing_docs, reason = "its variants are the commands, and their words are the help")]
    #[command(flatten)]
    Deployed(DeployedCommand),
    /// Say whether this host was deployed (exit code 0) or not (1).
    CheckDeployed,
    /// Ask the engine's health page: up (exit code 0), not up (1), not configured (2).
    CheckLiveliness,
    /// Print the completions for a shell.
    #[command(hide = true)]
    Completions {
        /// Which shell.
        shell: clap_complete::Shell,
    },
    /// Write the manual pages.
    #[command(hide = true)]
    Man {
        /// Directory for them; without it the main page is printed.
        #[arg(long, value_name = "DIR")]
        dir: Option<PathBuf>,
    },
}

/// The commands that need a deployed host.
#[derive(Debug, Subcommand)]
pub enum DeployedCommand {
    /// Show what every host says about itself and the engine VM.
    VmStatus {
        /// JSON on one line, keyed by host id; --json=full is the broker's whole document.
        #[arg(long, value_name = "WHAT", num_args = 0..=1, require_equals = true, default_missing_value = "rows")]
        json: Option<Json>,
        /// Say also why this host's agent does what it does.
        #[arg(long, conflicts_with = "json")]
        explain: bool,
    },
    /// Start the engine VM on this host.
    VmStart,
    /// Start the engine VM on this host with stopped processors.
    VmStartPaused,
    /// Ask the engine VM on this host to power down.
    VmShutdown,
    /// End the engine VM on this host at once.
    VmPoweroff,
    /// Connect this terminal with the engine VM's serial console; Ctrl-] ends it.
    Console,
    /// Set a password for the engine VM's graphical console that lasts 120 s. It is read from the file, from the
    /// variable `OVIRT_HOSTED_ENGINE_CONSOLE_PASSWORD` of the environment, or from standard input.
    AddConsolePassword {
        /// File whose first line is the password; - is standard input.
        #[arg(long, value_name = "FILE")]
        password_file: Option<PathBuf>,
        /// Refused: other users can read the command line.
        #[arg(long, hide = true, num_args = 0..=1, value_name = "PASSWORD")]
        password: Option<Option<String>>,
    },
    /// Connect the hosted engine's storage domain to this host: through VDSM where it manages the host, else by mounting
    /// it.
    ConnectStorage(storage::ConnectArgs),
    /// Disconnect the hosted engine's storage domain from this host.
    DisconnectStorage {
        /// Also when the engine VM or the HA services on this host use it.
        #[arg(long)]
        force: bool,
    },
    #[allow(missing_docs, reason = "the words of its arguments are the help")]
    MigrateVm(migrate::MigrateVmArgs),
    /// Set the maintenance mode.
    SetMaintenance(maintenance::Wanted),
    /// Show a key of the configuration on shared storage, or of this host's files.
    GetSharedConfig {
        /// The key; of broker.conf as `section.key`, for example email.smtp-server.
        key: String,
        /// Which file, when several have the key: `he_local`, `he_shared`, `ha` or `broker`.
        #[arg(long = "type", value_name = "TYPE", value_parser = shared_config::kind)]
        kind: Option<ConfigKind>,
        /// Show a password instead of asterisks.
        #[arg(long)]
        show_secret: bool,
    },
    /// Set a key of the configuration on shared storage, or of this host's files. `he_shared` (hosted-engine.conf on
    /// shared storage) counts for hosts that are deployed from now on, `he_local` for this host once its services
    /// were restarted, `broker` for all hosts within a minute.
    SetSharedConfig {
        /// The key; of broker.conf as `section.key`, for example email.smtp-server.
        key: String,
        /// Its new value; - reads it from standard input, which passwords need.
        value: String,
        /// Which file, when several have the key: `he_local`, `he_shared`, `ha` or `broker`.
        #[arg(long = "type", value_name = "TYPE", value_parser = shared_config::kind)]
        kind: Option<ConfigKind>,
    },
    #[allow(missing_docs, reason = "the words of its arguments are the help")]
    FenceStatus(fence::FenceStatusArgs),
    #[allow(missing_docs, reason = "the words of its arguments are the help")]
    FenceHost(fence::FenceHostArgs),
}

/// The commands that build, repair and try out: they block, and need no runtime.
#[derive(Debug, Subcommand)]
pub enum SiteCommand {
    #[allow(missing_docs, reason = "the words of its arguments are the help")]
    Deploy(DeployArgs),
    #[allow(missing_docs, reason = "the words of its arguments are the help")]
    Undeploy(deploy::UndeployArgs),
    #[allow(missing_docs, reason = "the words of its arguments are the help")]
    MoveStorage(deploy::MoveStorageArgs),
    #[allow(missing_docs, reason = "the words of its arguments are the help")]
    Backup(saved::BackupArgs),
    #[allow(missing_docs, reason = "the words of its arguments are the help")]
    Restore(saved::RestoreArgs),
    #[allow(missing_docs, reason = "the words of its arguments are the help")]
    CleanMetadata(repair::CleanMetadataArgs),
    #[allow(missing_docs, reason = "the words of its arguments are the help")]
    ReinitializeLockspace(repair::ReinitializeLockspaceArgs),
    #[allow(missing_docs, reason = "the words of its arguments are the help")]
    LeaseStatus(lease_status::LeaseStatusArgs),
    #[allow(missing_docs, reason = "its variants are the commands, and their words are the help")]
    #[command(flatten)]
    Leases(leases::LeaseCommand),
    #[allow(missing_docs, reason = "the words of its arguments are the help")]
    Doctor(doctor::DoctorArgs),
    #[allow(missing_docs, reason = "the words of its arguments are the help")]
    Sandbox(sandbox::SandboxArgs),
    #[allow(missing_docs, reason = "the words of its arguments are the help")]
    Simulate(simulate::SimulateArgs),
    /// Change the host's network, and change it back unless told otherwise; deploy starts it.
    #[command(hide = true)]
    NetworkGuard,
}

impl SiteCommand {
    /// Does it.
    pub fn run(self, paths: &Paths, open_vm: &OpenVm) -> Result<ExitCode> {
        match self {
            Self::Deploy(args) => deploy::deploy(&args, paths, open_vm),
            Self::Undeploy(args) => deploy::undeploy(args, paths, open_vm),
            Self::MoveStorage(args) => deploy::move_storage(&args, paths, open_vm),
            Self::Backup(args) => saved::backup(&args, paths, &mut Terminal::default()),
            Self::Restore(args) => saved::restore(&args, paths, &mut Terminal::default()),
            Self::CleanMetadata(args) => repair::clean_metadata(&args, paths),
            Self::ReinitializeLockspace(args) => repair::reinitialize_lockspace(&args, paths),
            Self::LeaseStatus(args) => Ok(lease_status::show(&args, paths, &mut Terminal::default())),
            Self::Leases(command) => Ok(leases::run(&command, paths, &mut Terminal::default()).into()),
            Self::Doctor(doctor::DoctorArgs {}) => Ok(doctor::run(paths, &mut Terminal::default())),
            Self::Sandbox(args) => sandbox::run(args),
            Self::Simulate(args) => Ok(simulate::run(&args, paths, &mut Terminal::default()).into()),
            Self::NetworkGuard => guard::run(paths).map(|()| ExitCode::SUCCESS),
        }
    }
}

/// Which JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Json {
    /// The rows in the shape that existing consumers parse.
    Rows,
    /// Everything that the broker knows.
    Full,
}

/// Opens the hypervisor that a host's configuration names. The binary decides how.
pub type OpenVm = dyn Fn(&HostedEngineConf) -> Result<Arc<dyn EngineVm>>;

/// Reads a command line, program name first, in either spelling.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(without_dashes(args))
}

/// Exit code of a command line that is not understood: 1, as scripts know it; 2 for `simulate`, where 1 is an answer.
pub fn not_understood(args: impl IntoIterator<Item = OsString>) -> Exit {
    let args: Vec<OsString> = args.into_iter().collect();
    let command = args.get(place_of_command(&args)).and_then(|arg| arg.to_str());
    if matches!(command, Some("simulate" | "--simulate")) { Exit::NOT_CONFIGURED } else { Exit::FAILED }
}

/// Turns `--vm-status` into `vm-status` where the command stands.
fn without_dashes(args: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut args: Vec<OsString> = args.into_iter().collect();
    let at = place_of_command(&args);
    let command = args.get(at).and_then(|arg| arg.to_str()).and_then(|arg| arg.strip_prefix("--"));
    if let Some(name) = command.filter(|name| Cli::command().find_subcommand(name).is_some()) {
        args[at] = OsString::from(name);
    }
    args
}

/// Where the command stands: the first argument that is not `--root`.
fn place_of_command(args: &[OsString]) -> usize {
    let mut at = 1;
    while let Some(arg) = args.get(at).and_then(|arg| arg.to_str()) {
        if arg == "--root" {
            at += 2;
        } else if arg.starts_with("--root=") {
            at += 1;
        } else {
            break;
        }
    }
    at
}

/// Does what was asked.
pub async fn run(
    command: OperatorCommand,
    paths: &Paths,
    open_vm: &OpenVm,
    terminal: &mut Terminal,
) -> Result<Exit> {
    match command {
        OperatorCommand::CheckDeployed => deployed::check(paths, terminal),
        OperatorCommand::CheckLiveliness => liveliness::check(paths, terminal).await,
        OperatorCommand::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "hosted-engine", &mut std::io::stdout());
            Ok(Exit::OK)
        }
        OperatorCommand::Man { dir } => manual(dir, terminal),
        OperatorCommand::Deployed(command) => {
            let half = deployed::half_deploy(paths)?;
            let Some(conf) = deployed::configuration(paths)? else {
                if matches!(&command, DeployedCommand::ConnectStorage(args) if args.at_boot) {
                    // No failure: its unit would try again for ever.
                    terminal.say("This host is not deployed: there is no storage to connect");
                    return Ok(Exit::OK);
                }
                terminal.say(NOT_DEPLOYED);
                if let Some(half) = half {
                    terminal.complain(half.to_string());
                }
                return Ok(Exit::FAILED);
            };
            let is_status = matches!(command, DeployedCommand::VmStatus { .. });
            if is_status || matches!(command, DeployedCommand::VmStart | DeployedCommand::VmStartPaused) {
                deployed::warn(&conf, half.filter(|_| is_status), terminal)?;
            }
            on_deployed(command, &conf, open_vm, terminal).await
        }
    }
}

/// Does one of the commands that need a deployed host.
async fn on_deployed(
    command: DeployedCommand,
    conf: &HostedEngineConf,
    open_vm: &OpenVm,
    terminal: &mut Terminal,
) -> Result<Exit> {
    let paths = conf.paths();
    let broker = BrokerClient::new(paths.broker_socket());
    match command {
        DeployedCommand::VmStatus { json, explain } => {
            let format = match json {
                None => Format::Text,
                Some(Json::Rows) => Format::Json,
                Some(Json::Full) => Format::FullJson,
            };
            status::show(&broker, format, explain, terminal).await
        }
        DeployedCommand::SetMaintenance(wanted) => {
            let id = conf.require_host_id()?;
            let vm = if wanted.mode == Mode::Local { open_vm(conf).ok() } else { None };
            let host = maintenance::Host { paths, id, broker: &broker };
            maintenance::set(wanted, host, vm.as_deref(), terminal).await
        }
        DeployedCommand::MigrateVm(args) => {
            let vm = open_vm(conf).ok();
            let host = migrate::Host { id: conf.require_host_id()?, broker: &broker, vm: vm.as_deref() };
            migrate::migrate(args, host, terminal).await
        }
        DeployedCommand::VmStart | DeployedCommand::VmStartPaused => {
            if !vm_is_described(paths, terminal)? {
                return Ok(Exit::FAILED);
            }
            let mode = if matches!(command, DeployedCommand::VmStartPaused) {
                StartMode::Paused
            } else {
                StartMode::Run
            };
            let vm = open_vm(conf)?;
            let host = vm::Host { id: conf.host_id()?, broker: &broker, vm: vm.as_ref() };
            vm::start(host, mode, terminal).await
        }
        DeployedCommand::VmShutdown | DeployedCommand::VmPoweroff => {
            let vm = open_vm(conf)?;
            let host = vm::Host { id: conf.host_id()?, broker: &broker, vm: vm.as_ref() };
            if matches!(command, DeployedCommand::VmShutdown) {
                vm::shutdown(host, terminal).await
            } else {
                vm::power_off(host, terminal).await
            }
        }
        DeployedCommand::ConnectStorage(args) => {
            storage::connect(args, conf, storage::vdsm_of(conf)?.as_ref(), &Installed, terminal).await
        }
        DeployedCommand::DisconnectStorage { force } => {
            let (vm, vdsm) = (open_vm(conf), storage::vdsm_of(conf)?);
            let vm = vm.as_deref().map_err(|error| format!("{error:#}"));
            let host = storage::Host { conf, vdsm: vdsm.as_ref(), broker: &broker, vm, tools: &Installed };
            storage::disconnect(host, force, terminal).await
        }
        DeployedCommand::FenceStatus(args) => {
            let host = fence::Host { paths, id: conf.require_host_id()?, broker: &broker };
            fence::status(&args, &host, terminal).await
        }
        DeployedCommand::FenceHost(args) => {
            let host = fence::Host { paths, id: conf.require_host_id()?, broker: &broker };
            fence::switch_host(&args, &host, &mut fence::ask, terminal).await
        }
        DeployedCommand::Console => console::open(open_vm(conf)?.as_ref(), terminal).await,
        DeployedCommand::AddConsolePassword { password: Some(_), .. } => {
            terminal.complain(
                "A password on the command line can be read by every user of this host and is refused. Use \
                 --password-file=FILE, standard input, or the variable OVIRT_HOSTED_ENGINE_CONSOLE_PASSWORD",
            );
            Ok(Exit::FAILED)
        }
        DeployedCommand::AddConsolePassword { password_file, password: None } => {
            let vm = open_vm(conf)?;
            let password = password::read(password_file.as_deref(), std::env::var(password::VARIABLE).ok())?;
            password::set(vm.as_ref(), &password, terminal).await
        }
        DeployedCommand::GetSharedConfig { key, kind, show_secret } => {
            shared_config::get(conf, &key, kind, show_secret, terminal)
        }
        DeployedCommand::SetSharedConfig { key, value, kind } => {
            let value = shared_config::Given::of(value)?;
            shared_config::set(conf, &key, value, kind, terminal).await
        }
    }
}

/// Whether vm.conf is there; says what to do when it is not.
fn vm_is_described(paths: &Paths, terminal: &mut Terminal) -> Result<bool> {
    match VmConf::load_active(paths) {
        Ok(_) => Ok(true),
        Err(error) if error.is_not_found() => {
            terminal.say(
                "The hosted engine configuration has not been retrieved from shared storage yet,\n\
                 please ensure that ovirt-ha-agent service is running.\n",
            );
            Ok(false)
        }
        Err(error) => Err(error.into()),
    }
}

fn manual(dir: Option<PathBuf>, terminal: &mut Terminal) -> Result<Exit> {
    if let Some(dir) = dir {
        clap_mangen::generate_to(Cli::command(), &dir)
            .with_context(|| format!("Cannot write the manual pages to {}", dir.display()))?;
    } else {
        let mut page = Vec::new();
        clap_mangen::Man::new(Cli::command()).section("8").render(&mut page)?;
        terminal.print(&String::from_utf8_lossy(&page));
    }
    Ok(Exit::OK)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Cli, clap::Error> {
        parse(std::iter::once("hosted-engine").chain(line.split_whitespace()).map(OsString::from))
    }

    #[test]
    fn the_definition_holds_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn both_spellings_of_every_command_work() {
        for name in Cli::command().get_subcommands().map(|command| command.get_name().to_owned()) {
            let rest = match name.as_str() {
                "set-maintenance" => " --mode=global",
                "get-shared-config" => " gateway --type=he_local",
                "set-shared-config" => " gateway 192.0.2.1 --type=he_shared",
                "fence-host" => " --host-id=2 --action=status",
                "lease-create" | "lease-info" | "lease-remove" | "lease-use" => " vm",
                "backup" | "restore" => " /x",
                "sandbox" => " status",
                "simulate" => " host-power-loss",
                "completions" => " bash",
                _ => "",
            };
            for spelling in
                [format!("{name}{rest}"), format!("--{name}{rest}"), format!("--root /x --{name}{rest}")]
            {
                assert!(parsed(&spelling).is_ok(), "{spelling}: {}", parsed(&spelling).unwrap_err());
            }
        }
    }

    #[test]
    fn options_are_read_as_scripts_write_them() {
        let cli = parsed("--root=/x --vm-status --json").unwrap();
        assert_eq!(cli.root, PathBuf::from("/x"));
        assert!(matches!(
            cli.command,
            Command::Operator(OperatorCommand::Deployed(DeployedCommand::VmStatus {
                json: Some(Json::Rows),
                explain: false
            }))
        ));
        let cli = parsed("vm-status --json=full").unwrap();
        assert!(matches!(
            cli.command,
            Command::Operator(OperatorCommand::Deployed(DeployedCommand::VmStatus {
                json: Some(Json::Full),
                ..
            }))
        ));
        let cli = parsed("--set-maintenance --mode=none").unwrap();
        assert!(matches!(
            cli.command,
            Command::Operator(OperatorCommand::Deployed(DeployedCommand::SetMaintenance(
                maintenance::Wanted { mode: Mode::None, force: false, no_wait: false }
            )))
        ));
    }

    #[test]
    fn a_wrong_mode_and_a_wrong_command_are_named() {
        assert!(parsed("--set-maintenance --mode=all").unwrap_err().to_string().contains("all"));
        assert!(parsed("--set-maintenance").unwrap_err().to_string().contains("--mode"));
        assert!(parsed("--vm-stats").unwrap_err().to_string().contains("--vm-stats"));
    }

    #[test]
    fn a_wrong_command_line_is_1_and_of_simulate_2() {
        let code = |line: &str| {
            not_understood(
                std::iter::once("hosted-engine").chain(line.split_whitespace()).map(OsString::from),
            )
        };
        assert_eq!(code("--set-maintenance --mode=simulate"), Exit::FAILED);
        assert_eq!(code("--root simulate vm-stats"), Exit::FAILED);
        assert_eq!(code("--root /x --simulate"), Exit::NOT_CONFIGURED);
    }
}
