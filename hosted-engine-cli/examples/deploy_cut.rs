//! Deploys on the sandbox host that it runs in, as `--deploy` does with the sandbox's answers, and is killed
//! where it is told to: `deploy_cut SANDBOX begin | resume | undo [STEP:LINE:before|after | undo:LINE:…]`.
//!
//! `LINE` counts the journal's lines from the step's beginning, which is line 1; of `undo`, from the first thing taken back. A
//! program of the tests, so that the product needs no switch for it.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use engine_vm::EngineVm;
use engine_vm::qemu::QmpRole;
use ha_config::{HaToml, HostedEngineConf};
use hosted_engine_cli::deploy::dialogue::{self, Means, ThisHost};
use hosted_engine_cli::deploy::{
    DeployArgs, Hands, Installed, Logged, Moment, Told, Watcher, service_manager,
};
use hosted_engine_cli::sandbox::{Layout, answers_file};
use hosted_engine_cli::terminal::Terminal;
use rustix::process::{Signal, getpid, kill_process};

fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [sandbox, verb, rest @ ..] = args.as_slice() else { bail!("deploy_cut SANDBOX VERB [CUT]") };
    let layout = Layout::new(Path::new(sandbox))?;
    let watcher = rest.first().map(|cut| kills_at(cut)).transpose()?;
    let paths = layout.inside();
    let told = Told::new(&paths, Terminal::default())?;
    let tools = Logged { tools: &Installed, told: &told };
    let services = service_manager(&paths, &tools);
    let hands =
        Hands { paths: &paths, tools: &tools, report: &told, services: services.as_ref(), open_vm: &open_vm };
    match verb.as_str() {
        "begin" => {
            let args =
                DeployArgs { config_append: vec![answers_file(&layout)], yes: true, ..DeployArgs::default() };
            let lookups = ThisHost { paths: &paths, tools: &tools, report: &told };
            let means =
                Means { paths: &paths, lookups: &lookups, storage: &hands, asker: None, report: &told };
            let asked = dialogue::request(&args, means)?;
            hands.begin(asked.request, &asked.secrets, watcher)?;
        }
        "resume" => hands.resume(watcher)?,
        "undo" => hands.undo(watcher)?,
        other => bail!("{other}: begin, resume or undo"),
    }
    Ok(())
}

fn open_vm(conf: &HostedEngineConf) -> anyhow::Result<Arc<dyn EngineVm>> {
    let toml = HaToml::load(conf.paths())?;
    Ok(engine_vm::of_host(conf, &toml, QmpRole::Cli, None)?)
}

/// As a power loss would: nothing of this process is done any more.
fn kills_at(cut: &str) -> anyhow::Result<Watcher> {
    let parts: Vec<&str> = cut.split(':').collect();
    let [step, line, moment] = parts.as_slice() else { bail!("{cut:?} is not STEP:LINE:MOMENT") };
    let line: u32 = line.parse().context("LINE")?;
    let moment = match *moment {
        "before" => Moment::Before,
        "after" => Moment::After,
        other => bail!("{other:?} is neither before nor after"),
    };
    let begin =
        if *step == "undo" { "{\"undoing\":".to_owned() } else { format!("{{\"begin\":\"{step}\"}}") };
    let mut seen = 0;
    Ok(Box::new(move |now, text| {
        if now == Moment::Before && (seen > 0 || text.starts_with(&begin)) {
            seen += 1;
        }
        if seen == line && now == moment {
            let _ = kill_process(getpid(), Signal::KILL);
        }
        Ok(())
    }))
}
