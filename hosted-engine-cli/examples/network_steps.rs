//! The deployment's steps that change the host's network, and no others: `network_steps begin ANSWERS | undo`.
//!
//! A program of the tests: a whole deployment needs storage and a hypervisor, which say nothing about network managers.

use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use engine_vm::EngineVm;
use ha_config::{HostedEngineConf, Paths};
use hosted_engine_cli::deploy::dialogue::{self, Means, ThisHost};
use hosted_engine_cli::deploy::firewall::OpenFirewall;
use hosted_engine_cli::deploy::network::{MakeBridge, guard};
use hosted_engine_cli::deploy::{
    DeployArgs, Hands, Installed, Journal, Logged, Secrets, Step, Told, World, run, service_manager, undo,
};
use hosted_engine_cli::terminal::Terminal;

/// Of the guard: shorter than its own, because here the gateway answers soon or never.
const PATIENCE: Duration = Duration::from_secs(6);

fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["begin", answers] => begin(Path::new(answers)),
        ["undo"] => {
            let paths = Paths::new("/");
            let journal = Journal::open(&paths.deploy_journal())?.context("nothing was begun")?;
            work(&paths, journal, |world, journal| Ok(undo(world, journal)?))
        }
        ["--root", root, guard::COMMAND] => {
            let socket = UnixStream::from(std::io::stdin().as_fd().try_clone_to_owned()?);
            guard::serve(&Paths::new(root), &Installed, socket, PATIENCE)
        }
        other => bail!("{other:?}: begin ANSWERS, or undo"),
    }
}

fn begin(answers: &Path) -> anyhow::Result<()> {
    let paths = Paths::new("/");
    let told = Told::new(&paths, Terminal::default())?;
    let tools = Logged { tools: &Installed, told: &told };
    let services = service_manager(&paths, &tools);
    let hands =
        Hands { paths: &paths, tools: &tools, report: &told, services: services.as_ref(), open_vm: &open_vm };
    let args = DeployArgs { config_append: vec![answers.to_owned()], yes: true, ..DeployArgs::default() };
    let lookups = ThisHost { paths: &paths, tools: &tools, report: &told };
    let means = Means { paths: &paths, lookups: &lookups, storage: &hands, asker: None, report: &told };
    let asked = dialogue::request(&args, means)?;
    let journal = Journal::begin(&paths.deploy_journal(), 0, asked.request)?;
    let steps: [Box<dyn Step>; 2] = [Box::new(MakeBridge), Box::new(OpenFirewall)];
    work(&paths, journal, |world, journal| Ok(run(&steps, world, journal)?))
}

fn work(
    paths: &Paths,
    mut journal: Journal,
    act: impl FnOnce(World<'_>, &mut Journal) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let told = Told::new(paths, Terminal::default())?;
    let tools = Logged { tools: &Installed, told: &told };
    let services = service_manager(paths, &tools);
    let request = journal.story().request.clone();
    let world = World {
        paths,
        tools: &tools,
        report: &told,
        secrets: &Secrets::default(),
        request: &request,
        services: services.as_ref(),
        open_vm: &open_vm,
    };
    act(world, &mut journal)
}

fn open_vm(_: &HostedEngineConf) -> anyhow::Result<Arc<dyn EngineVm>> {
    bail!("no VM is run here")
}
