//! The step that waits until the engine answers, and registers this host in it where a password was given.

use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;
use engine_vm::{EngineVm, VmExit};
use ha_config::HaToml;
use ha_config::ha_toml::LivelinessTable;
use tokio::time::Instant;

use super::first_start::{self, Stage};
use super::operator::{AtTerminal, Operator, choose};
use super::register;
use super::run::{LOOK, ensure, refused, show_console, something, trouble, words};
use crate::deploy::services_steps::asked;
use crate::deploy::{DeployError, FirstHost, Job, Request, Step, StepId, World};
use crate::liveliness;
use crate::setup::Report;

/// Between two looks at the page.
const PAGE: Duration = Duration::from_secs(5);
/// An unchanged reason is said again after so long.
const REMIND: Duration = Duration::from_mins(5);
/// After so long there is a hint.
const HINT: Duration = Duration::from_mins(20);
/// How long an engine that nobody watches may take.
const UNWATCHED: Duration = Duration::from_hours(1);
/// How often a VM that ends is started again when nobody is asked.
const STARTS: u32 = 3;

/// The engine's health page.
#[async_trait]
pub trait HealthPage: Send + Sync {
    /// Whether it is good; else why not.
    async fn look(&self) -> Result<(), String>;
}

struct OverHttp {
    client: reqwest::Client,
    table: LivelinessTable,
    fqdn: String,
}

#[async_trait]
impl HealthPage for OverHttp {
    async fn look(&self) -> Result<(), String> {
        let reasons = liveliness::look(&self.client, &self.table, &self.fqdn).await;
        reasons.map_err(|reasons| reasons.into_iter().next().unwrap_or_else(|| "no page to ask".to_owned()))
    }
}

/// Waits for the engine.
pub struct AwaitEngine {
    operator: Box<dyn Operator>,
}

impl AwaitEngine {
    /// With an operator.
    pub fn new(operator: Box<dyn Operator>) -> Self {
        Self { operator }
    }
}

impl Default for AwaitEngine {
    fn default() -> Self {
        Self::new(Box::new(AtTerminal))
    }
}

impl Step for AwaitEngine {
    fn id(&self) -> StepId {
        StepId::EngineAnswers
    }

    fn title(&self) -> String {
        "Waiting for the engine".to_owned()
    }

    fn run(&self, job: &mut Job<'_>) -> Result<(), DeployError> {
        let Request::FirstHost(first) = job.world.request else { return Ok(()) };
        let directory = first_start::directory(job.world.paths, first.ids.deploy);
        let table = HaToml::load(job.world.paths)?.liveliness;
        let client = liveliness::client(table.timeout).map_err(|error| refused(format!("{error:#}")))?;
        let page = OverHttp { client, table, fqdn: first.engine.fqdn.clone() };
        asked(self.wait(&job.world, first, &directory, &page))??;
        if let Some(password) = &job.world.secrets.engine_admin {
            register::this_host(job, first, password);
        }
        // What is in the seed has done its work.
        first_start::remove(&directory).map(drop)
    }
}

/// What the wait saw so far.
struct Seen {
    since: Instant,
    said: Option<(String, Instant)>,
    is_hinted: bool,
    starts: u32,
}

impl AwaitEngine {
    async fn wait(
        &self,
        world: &World<'_>,
        first: &FirstHost,
        directory: &Path,
        page: &dyn HealthPage,
    ) -> Result<(), DeployError> {
        let report = world.report;
        report.info(&format!(
            "When the engine is set up in the VM it answers as {}, and the deployment goes on by itself",
            first.engine.fqdn
        ));
        let mut seen = Seen { since: Instant::now(), said: None, is_hinted: false, starts: 0 };
        let mut vm = first_start::open(world, directory)?;
        loop {
            let reason = match vm.status().await {
                Err(error) => error.to_string(),
                Ok(status) if !status.exists() => {
                    self.start_again(world, first, status.exit.as_ref(), &mut seen).await?;
                    first_start::write(world, first, directory, Stage::Disk)?;
                    vm = first_start::open(world, directory)?;
                    ensure(vm.as_ref(), report).await?;
                    show_console(vm.as_ref(), self.operator.as_ref(), report).await;
                    continue;
                }
                Ok(status) => match trouble(status.activity) {
                    Some(trouble) => trouble.to_owned(),
                    None => match page.look().await {
                        Ok(()) => {
                            let spent = seen.since.elapsed();
                            report.progress(WAITING, spent.as_secs(), spent.as_secs().max(1));
                            report.info(&format!("The engine answers after {}", time(spent)));
                            return Ok(());
                        }
                        Err(reason) => reason,
                    },
                },
            };
            self.tell(report, &mut seen, &reason)?;
            self.pause(vm.as_ref(), report).await?;
        }
    }

    /// A VM that ended is started again, by the operator's wish or some times.
    async fn start_again(
        &self,
        world: &World<'_>,
        first: &FirstHost,
        exit: Option<&VmExit>,
        seen: &mut Seen,
    ) -> Result<(), DeployError> {
        let why = format!("the VM is down: {}", words(exit));
        if self.operator.is_there() {
            world.report.warning(&why);
            let is_wanted =
                choose(self.operator.as_ref(), &[("Start it again", true), ("Abort", false)]).await;
            return if is_wanted { Ok(()) } else { Err(aborted()) };
        }
        seen.starts += 1;
        if seen.starts > STARTS {
            return Err(refused(format!(
                "{why}; it was started again {STARTS} times. Look at its console, and whether {} is set up in it; then go on \
                 with --resume",
                first.engine.fqdn
            )));
        }
        world.report.warning(&format!("{why}; starting it again ({} of {STARTS})", seen.starts));
        Ok(())
    }

    fn tell(&self, report: &dyn Report, seen: &mut Seen, reason: &str) -> Result<(), DeployError> {
        let spent = seen.since.elapsed();
        report.progress(WAITING, spent.as_secs(), HINT.as_secs().max(spent.as_secs() + 1));
        let is_new = seen.said.as_ref().is_none_or(|(said, at)| said != reason || at.elapsed() >= REMIND);
        if is_new {
            report.info(&format!("The engine does not answer yet, after {}: {reason}", time(spent)));
            seen.said = Some((reason.to_owned(), Instant::now()));
        }
        if spent >= HINT && !seen.is_hinted {
            seen.is_hinted = true;
            report.warning(
                "This takes long. Is the engine set up in the VM (engine-setup)? Does its name lead to the VM's address? Are \
                 the ports 80 and 443 open there? The console says more: hosted-engine --console",
            );
        }
        if spent >= UNWATCHED && !self.operator.is_there() {
            return Err(refused(format!(
                "the engine did not answer within {}: {reason}; the VM still runs: look at it, then go on with --resume",
                time(UNWATCHED)
            )));
        }
        Ok(())
    }

    /// Until the next look, which an event of the VM brings forward.
    async fn pause(&self, vm: &dyn EngineVm, report: &dyn Report) -> Result<(), DeployError> {
        let mut events = vm.events();
        let until = Instant::now() + PAGE;
        let look = async {
            while Instant::now() < until {
                something(&mut events).await;
                match vm.status().await {
                    Ok(status) if !status.exists() => return,
                    Ok(_) | Err(_) => {}
                }
            }
        };
        // Answers are taken as they come: an open question would keep the VM from being watched.
        tokio::select! {
            () = look => {}
            line = self.operator.line() => match line.as_str() {
                "1" => show_console(vm, self.operator.as_ref(), report).await,
                "2" => return Err(aborted()),
                _ => self.operator.show("  (1) A new password for the console\n  (2) Abort"),
            },
        }
        Ok(())
    }
}

const WAITING: &str = "Waiting for the engine";
const _: () = assert!(LOOK.as_secs() < PAGE.as_secs());

fn aborted() -> DeployError {
    refused(
        "stopped by the operator; the VM still runs. Go on with hosted-engine --deploy --resume, or take everything back with \
         --undo",
    )
}

/// `75 s`, `3 min`.
fn time(spent: Duration) -> String {
    match spent.as_secs() {
        seconds @ 0..120 => format!("{seconds} s"),
        seconds => format!("{} min", seconds / 60),
    }
}

#[cfg(test)]
#[path = "answers_tests.rs"]
mod tests;
