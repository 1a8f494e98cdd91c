//! The binary: reads the command line, runs the command, turns its end into an exit code.

use std::process::ExitCode;
use std::sync::Arc;

use engine_vm::EngineVm;
use engine_vm::qemu::QmpRole;
use ha_config::{HaToml, HostedEngineConf, Paths};
use hosted_engine_cli::cli::{self, Command, OperatorCommand};
use hosted_engine_cli::terminal::{Exit, Terminal};

fn main() -> ExitCode {
    let cli = match cli::parse(std::env::args_os()) {
        Ok(cli) => cli,
        Err(error) => {
            // A closed pipe is no reason to say more.
            let _ = error.print();
            // Asked-for help is a success.
            let exit = if error.use_stderr() { cli::not_understood(std::env::args_os()) } else { Exit::OK };
            return exit.into();
        }
    };
    // sanlock and QEMU work in directories of their own.
    let ended = std::path::absolute(&cli.root).map_err(anyhow::Error::from).and_then(|root| {
        let paths = Paths::new(root);
        match cli.command {
            Command::Site(command) => command.run(&paths, &open_vm),
            Command::Operator(command) => operate(command, &paths),
        }
    });
    ended.unwrap_or_else(|error| {
        Terminal::default().complain(format!("{error:#}"));
        Exit::FAILED.into()
    })
}

/// The hypervisor that a host's configuration names.
fn open_vm(conf: &HostedEngineConf) -> anyhow::Result<Arc<dyn EngineVm>> {
    let toml = HaToml::load(conf.paths())?;
    let vdsm = engine_vm::vdsm::client_of_host(conf, &toml)?;
    Ok(engine_vm::of_host(conf, &toml, QmpRole::Cli, vdsm.as_ref())?)
}

fn operate(command: OperatorCommand, paths: &Paths) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let exit = runtime.block_on(cli::run(command, paths, &open_vm, &mut Terminal::default()));
    // A read of the keyboard that never ends must not keep us here.
    runtime.shutdown_background();
    exit.map(ExitCode::from)
}
