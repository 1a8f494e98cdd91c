//! `hosted-engine --deploy` as operators type it.

use std::fmt::Write as _;
use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;

use anyhow::Context as _;
use broker_api::BrokerClient;
use ha_config::Paths;

use super::carry_out::{Hands, Stopped, nothing_to};
use super::dialogue::{self, Asked, Asker, AtTerminal, Means, ThisHost};
use super::join;
use super::log::{Logged, Told};
use super::preflight::{self, Finding, Severity};
use super::services::Services;
use super::services_steps::asked;
use super::systemd::Systemd;
use super::{DeployArgs, Installed, Journal, Request, Story, Tools, Undo as _, plan, preview};
use crate::cli::OpenVm;
use crate::deployed;
use crate::sandbox::HostInit;
use crate::setup::Report as _;
use crate::status::{self, View};
use crate::terminal::{Exit, Terminal};

/// The last line of a deployment; the cluster's state follows it.
pub const SUCCESS: &str = "Hosted Engine successfully deployed";

/// `--deploy`, in all its ways.
///
/// # Errors
/// Why it was not done.
pub fn deploy(args: &DeployArgs, paths: &Paths, open_vm: &OpenVm) -> anyhow::Result<ExitCode> {
    if args.plan && (args.undo || args.resume) {
        let what = if args.undo { Plan::Undo } else { Plan::Resume };
        Terminal::default().print(&interrupted(paths, what)?);
        return Ok(Exit::OK.into());
    }
    anyhow::ensure!(
        rustix::process::geteuid().is_root() || !paths.is_real_host(),
        "deploying changes this host: run it as root"
    );
    let told = Told::new(paths, Terminal::default())?;
    let tools = Logged { tools: &Installed, told: &told };
    let services = service_manager(paths, &tools);
    let hands = Hands { paths, tools: &tools, report: &told, services: services.as_ref(), open_vm };
    told.info(&format!("Log file: {}", told.log_file().display()));
    if let Some(warning) = session_warning(|name| std::env::var_os(name).is_some()) {
        told.warning(warning);
    }
    let done = if args.undo {
        told.text(&interrupted(paths, Plan::Undo)?);
        if !confirm("Take this back?", args.yes)? {
            told.failure("Nothing was taken back");
            return Ok(Exit::FAILED.into());
        }
        hands.undo(None)
    } else if args.resume {
        hands.resume(None)
    } else {
        return begin(args, &hands, &told);
    };
    finish(args, &hands, &told, done)
}

/// A new deployment: its questions, its preview, and then the steps.
fn begin(args: &DeployArgs, hands: &Hands<'_>, told: &Told) -> anyhow::Result<ExitCode> {
    refuse_second(hands.paths)?;
    let mut terminal = AtTerminal::open();
    let lookups = ThisHost { paths: hands.paths, tools: hands.tools, report: told };
    let operator = terminal.as_mut().map(|terminal| terminal as &mut dyn Asker);
    let means =
        Means { paths: hands.paths, lookups: &lookups, storage: hands, asker: operator, report: told };
    let mut asked = dialogue::request(args, means)?;
    join::settle(&mut asked, hands.paths, told)?;
    if let Some(file) = &args.generate_answer {
        asked.answers.save(file)?;
        told.info(&format!("The answers are in {}; nothing was deployed", file.display()));
        return Ok(Exit::OK.into());
    }
    if args.plan {
        for line in preview::lines(&asked.preview) {
            told.text(&format!("{line}\n"));
        }
        told.text(&planned(&asked.request));
        is_fit(hands, &asked, told);
        return Ok(Exit::OK.into());
    }
    if !is_fit(hands, &asked, told) {
        told.failure("This host cannot be deployed as it is; nothing was changed");
        return Ok(Exit::FAILED.into());
    }
    let operator = terminal.as_mut().map(|terminal| terminal as &mut dyn Asker);
    preview::confirm(&asked, operator, told)?;
    let done = join::begin(hands, asked);
    finish(args, hands, told, done)
}

/// Tells everything that pre-flight found at once; whether the deployment may begin.
fn is_fit(hands: &Hands<'_>, asked: &Asked, told: &Told) -> bool {
    told.info("Checking this host");
    all_told(&preflight::check(&hands.world(&asked.request, &asked.secrets)), told)
}

/// Tells what was found; whether none of it stands in the way.
pub(super) fn all_told(found: &[Finding], told: &Told) -> bool {
    for finding in found {
        match finding.severity {
            Severity::Blocker => told.failure(&finding.to_string()),
            Severity::Warning => told.warning(&finding.to_string()),
            Severity::Note => told.info(&finding.to_string()),
        }
    }
    found.iter().all(|finding| finding.severity != Severity::Blocker)
}

fn finish(
    args: &DeployArgs,
    hands: &Hands<'_>,
    told: &Told,
    done: Result<(), Stopped>,
) -> anyhow::Result<ExitCode> {
    if let Err(stopped) = done {
        told.failure(&stopped.to_string());
        return Ok(Exit::FAILED.into());
    }
    if args.undo {
        told.info("Everything is taken back; the logs stay");
        return Ok(Exit::OK.into());
    }
    told.info(SUCCESS);
    show_status(hands.paths, told)?;
    Ok(Exit::OK.into())
}

/// The cluster's state, after what was done.
pub(super) fn show_status(paths: &Paths, told: &Told) -> anyhow::Result<()> {
    let broker = BrokerClient::new(paths.broker_socket());
    let mut terminal = Terminal::recording();
    asked(status::show(&broker, status::Format::Text, false, &mut terminal))??;
    told.text(&terminal.recorded().out);
    if asked(View::fetch(&broker))?.is_ok_and(|view| view.has_stale_rows()) {
        told.info(
            "Rows with \"unknown stale-data\" are those of hosts that this one has not watched for a minute yet: \
             hosted-engine --vm-status shows them live then",
        );
    }
    Ok(())
}

/// Refuses what cannot become a new deployment of this host.
///
/// # Errors
/// What is in the way, and what to do.
pub fn refuse_second(paths: &Paths) -> anyhow::Result<()> {
    if let Some(half) = deployed::half_deploy(paths)? {
        anyhow::bail!("{half}");
    }
    if let Some(conf) = deployed::configuration(paths)? {
        let id = conf.host_id().ok().flatten().map_or_else(String::new, |id| format!(" as number {id}"));
        anyhow::bail!(
            "this host is deployed already{id}, for {}: to begin anew, take it out first with hosted-engine --undeploy",
            conf.fqdn().unwrap_or("an engine without a name")
        );
    }
    Ok(())
}

/// Which plan of an interrupted deployment is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Plan {
    /// What is taken back.
    Undo,
    /// What is done still.
    Resume,
}

/// What is left to do, or to take back.
fn interrupted(paths: &Paths, what: Plan) -> anyhow::Result<String> {
    let path = paths.deploy_journal();
    let story = Journal::read(&path)?;
    nothing_to(if what == Plan::Undo { "take back" } else { "go on with" }, story.as_ref())?;
    Ok(story.map_or_else(String::new, |story| left(&story, what)))
}

/// The same of a story that is not over.
pub(super) fn left(story: &Story, what: Plan) -> String {
    let mut text = String::new();
    match what {
        Plan::Undo => {
            let left: Vec<_> = story.left().collect();
            if left.is_empty() {
                text.push_str("Nothing is left to take back.\n");
            }
            for item in left {
                let part = if item.is_done { "" } else { " (perhaps not there, or in part)" };
                // Writing to a String cannot fail.
                let _ = writeln!(text, "  {}{part}: {}", item.made.describe(), item.made.describe_undo());
            }
        }
        Plan::Resume => {
            let begun = story.left_of_incomplete().count();
            if begun > 0 {
                let _ = writeln!(text, "  taking back {begun} things of what was cut");
            }
            for step in plan::steps(&story.request) {
                if !story.ended.contains(&step.id()) {
                    let _ = writeln!(text, "  {}", step.title());
                }
            }
        }
    }
    text
}

/// What a request would do, and how each step is undone.
pub fn planned(request: &Request) -> String {
    let mut text = String::new();
    for (index, step) in plan::steps(request).iter().enumerate() {
        let title = step.title();
        let (makes, unmakes) = (step.makes(), step.unmakes());
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{:2}. {title}\n      makes: {makes}\n      undo:  {unmakes}", index + 1);
    }
    text
}

/// systemd on a real host; on a host of the sandbox its init.
pub fn service_manager<'a>(paths: &Paths, tools: &'a dyn Tools) -> Box<dyn Services + 'a> {
    match HostInit::of(paths) {
        Some(init) => Box::new(init),
        None => Box::new(Systemd { tools }),
    }
}

/// A session that ends with its connection would take the deployment with it.
pub(super) fn session_warning(is_set: impl Fn(&str) -> bool) -> Option<&'static str> {
    let is_remote = is_set("SSH_CONNECTION") || is_set("SSH_TTY");
    let is_kept = is_set("STY") || is_set("TMUX");
    (is_remote && !is_kept).then_some(
        "This is an SSH session without screen or tmux: when the connection breaks, the deployment is interrupted. \
         Run it in screen or tmux; an interrupted one goes on with: hosted-engine --deploy --resume",
    )
}

/// Asks on the terminal.
pub(crate) fn confirm(question: &str, is_given: bool) -> anyhow::Result<bool> {
    if is_given {
        return Ok(true);
    }
    anyhow::ensure!(
        std::io::stdin().is_terminal(),
        "nobody is there to confirm it: give --yes, or run it on a terminal"
    );
    print!("{question} (yes/no) [no]: ");
    std::io::stdout().flush().context("cannot ask")?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer).context("cannot read the answer")?;
    Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_that_is_lost_with_its_connection_is_warned_about() {
        let with = |names: &[&str]| session_warning(|name| names.contains(&name)).is_some();
        assert!(with(&["SSH_CONNECTION"]) && with(&["SSH_TTY"]));
        assert!(!with(&["SSH_TTY", "TMUX"]) && !with(&["SSH_TTY", "STY"]) && !with(&[]));
    }

    #[test]
    fn a_plan_says_of_each_step_what_it_makes_and_how_it_is_undone() {
        let text = planned(&crate::deploy::job_tests::request());
        assert!(text.contains("Writing the main configuration\n      makes: answers.conf"), "{text}");
        assert!(text.contains("undo:  removed: this host does not count as deployed\n"), "{text}");
    }
}
