//! `--fence-status` and `--fence-host`: the power of hosts, by the switches that ha.toml has for them.
//!
//! Only the operator decides here. The agents of the cluster see the consequences as they see any loss of power.

mod target;

use std::io::{BufRead, IsTerminal, Write};

use anyhow::Result;
use broker_api::BrokerClient;
use clap::{Args, ValueEnum};
use fencing::{Action, FenceError, HostError, HostPower, Power, PowerSwitch, Progress};
use ha_config::{HaToml, Paths};
use metadata_format::HostId;
use tokio::signal::unix::{SignalKind, signal};

use self::target::Known;
use crate::status::View;
use crate::terminal::{Exit, Terminal};

/// Exit code of `--action=status` when the power is off; the agents' own.
const POWER_IS_OFF: Exit = Exit(2);

/// Show whether hosts have power, by each of their switches in ha.toml.
#[derive(Debug, Args)]
pub struct FenceStatusArgs {
    /// This host only; default: all hosts that have switches.
    #[arg(long, value_name = "ID")]
    pub host_id: Option<HostId>,
}

/// Switch another host off or on from outside, by its switches in ha.toml.
#[derive(Debug, Args)]
pub struct FenceHostArgs {
    /// The host.
    #[arg(long, value_name = "ID")]
    pub host_id: HostId,
    /// What to do. The exit code of status is 0 for on, 2 for off, 1 when it is not known.
    #[arg(long, value_name = "ACTION")]
    pub action: Deed,
    /// Do not ask whether this is meant.
    #[arg(long)]
    pub yes: bool,
    /// Switch off a host that runs the engine VM, or that nothing is known of.
    #[arg(long)]
    pub force: bool,
}

/// What can be done with a host's power.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Deed {
    /// Say whether it has power.
    Status,
    /// Switch it on.
    On,
    /// Switch it off, at once.
    Off,
    /// Switch it off, see that it is off, and switch it on again.
    Reboot,
}

/// This host, as far as fencing another needs it.
pub struct Host<'a> {
    /// Its paths.
    pub paths: &'a Paths,
    /// Its id.
    pub id: HostId,
    /// Its broker.
    pub broker: &'a BrokerClient,
}

/// What an operator answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// It is meant.
    Yes,
    /// It is not.
    No,
    /// There is no terminal to ask on.
    NobodyThere,
}

/// Asks on the terminal; only the whole word counts.
pub fn ask(question: &str) -> Answer {
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        return Answer::NobodyThere;
    }
    let mut error = std::io::stderr();
    // A question that cannot be shown is answered no by whoever does not see it.
    let _ = write!(error, "{question} Type yes to go on: ").and_then(|()| error.flush());
    let mut line = String::new();
    match stdin.lock().read_line(&mut line) {
        Ok(_) if line.trim() == "yes" => Answer::Yes,
        Ok(_) | Err(_) => Answer::No,
    }
}

/// `--fence-status`: one line for each switch. Exit 1 when one does not answer.
pub async fn status(args: &FenceStatusArgs, host: &Host<'_>, terminal: &mut Terminal) -> Result<Exit> {
    let toml = HaToml::load(host.paths)?;
    let known = look_at_cluster(host.broker).await;
    let (ids, strangers) = match args.host_id {
        Some(id) => (vec![id], Vec::new()),
        None => target::hosts_in_table(&toml.fencing, &known),
    };
    if ids.is_empty() && strangers.is_empty() {
        terminal.say(format!(
            "No host has a power switch: there is no [[fencing.host]] in {}",
            host.paths.ha_toml().display()
        ));
        return Ok(Exit::FAILED);
    }
    let mut exit = Exit::OK;
    for name in strangers {
        let why = match &known {
            Ok(_) => "no row has this name",
            Err(error) => error,
        };
        terminal.complain(format!("[[fencing.host]] name = {name:?}: {why}"));
        exit = Exit::FAILED;
    }
    for id in ids {
        let Some(power) = switches_of(&toml, &known, id, host.paths, terminal) else {
            exit = Exit::FAILED;
            continue;
        };
        terminal.say(capital(&target::label(&known, id)));
        let numbered = power.levels().iter().zip(1..);
        for (switch, level) in numbered.flat_map(|(level, number)| level.iter().map(move |one| (one, number)))
        {
            let (line, answers) = status_line(switch, terminal).await;
            terminal.say(format!("    level {level}: {}: {line}", switch.label()));
            if !answers {
                exit = Exit::FAILED;
            }
        }
    }
    Ok(exit)
}

/// What a switch says, and whether it says anything.
async fn status_line(switch: &PowerSwitch, terminal: &mut Terminal) -> (String, bool) {
    let mut report = |step: &Progress| terminal.complain(step.to_string());
    match switch.status(&mut report).await {
        Ok(power) => match switch.untold() {
            Some(untold) => (format!("the host is {power} {untold}"), true),
            None => (format!("the power is {power}"), true),
        },
        Err(FenceError::NoAction { action: Action::Status, .. }) => match switch.monitor(&mut report).await {
            Ok(()) => ("its device answers; this agent cannot tell the power".to_owned(), true),
            Err(error) => (error.to_string(), false),
        },
        Err(error) => (error.to_string(), false),
    }
}

/// `--fence-host`. `ask` is asked before power is taken away, unless the arguments say yes.
pub async fn switch_host(
    args: &FenceHostArgs,
    host: &Host<'_>,
    ask: &mut dyn FnMut(&str) -> Answer,
    terminal: &mut Terminal,
) -> Result<Exit> {
    let toml = HaToml::load(host.paths)?;
    let known = look_at_cluster(host.broker).await;
    let Some(power) = switches_of(&toml, &known, args.host_id, host.paths, terminal) else {
        return Ok(Exit::FAILED);
    };
    let label = target::label(&known, args.host_id);
    if args.action != Deed::Status
        && let Some(reason) = target::is_this_host(&known, host.id, args.host_id)
    {
        terminal.complain(format!("Refused: {reason}"));
        return Ok(Exit::FAILED);
    }
    match target::danger(&known, args.host_id, args.action) {
        Some(reason) if args.force => terminal.complain(format!("Forced, although {reason}")),
        Some(reason) => {
            terminal.complain(format!("Refused: {reason}. --force does it all the same"));
            return Ok(Exit::FAILED);
        }
        None => {}
    }
    if let Some(question) = question(args, &label) {
        match ask(&question) {
            Answer::Yes => {}
            Answer::No => {
                terminal.complain("Nothing was done");
                return Ok(Exit::FAILED);
            }
            Answer::NobodyThere => {
                terminal
                    .complain("Nothing was done: there is no terminal to ask on; use --yes when it is meant");
                return Ok(Exit::FAILED);
            }
        }
    }
    let mut interrupts =
        [signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?, signal(SignalKind::hangup())?];
    let [interrupt, terminate, hangup] = &mut interrupts;
    let done = tokio::select! {
        biased;
        done = act(args.action, &power, terminal) => Some(done),
        _ = interrupt.recv() => None,
        _ = terminate.recv() => None,
        _ = hangup.recv() => None,
    };
    let Some(done) = done else {
        terminal.complain(format!(
            "Interrupted: whether the power of {label} has changed is not known. Look with --action=status"
        ));
        return Ok(Exit::FAILED);
    };
    match done {
        Ok(power) => {
            terminal.say(format!("{}: the power is {power}", capital(&label)));
            Ok(if args.action == Deed::Status && power == Power::Off { POWER_IS_OFF } else { Exit::OK })
        }
        Err(error) => {
            terminal.complain(format!("{}: {error}", capital(&label)));
            Ok(Exit::FAILED)
        }
    }
}

fn question(args: &FenceHostArgs, label: &str) -> Option<String> {
    let what = match args.action {
        Deed::Off => "switched off",
        Deed::Reboot => "switched off and on again",
        Deed::Status | Deed::On => return None,
    };
    (!args.yes).then(|| format!("{} is {what}, and all that runs on it ends at once.", capital(label)))
}

/// Does it, and says how the power is then.
async fn act(deed: Deed, power: &HostPower, terminal: &mut Terminal) -> Result<Power, HostError> {
    let mut report = |step: &Progress| match step {
        Progress::Advice { .. } | Progress::LevelFailed { .. } | Progress::Complained { .. } => {
            terminal.complain(step.to_string());
        }
        Progress::Asked { .. } | Progress::Waiting { .. } | Progress::Confirmed { .. } => {
            terminal.say(step.to_string());
        }
    };
    match deed {
        Deed::Status => power.status(&mut report).await,
        Deed::On => power.on(&mut report).await.map(|()| Power::On),
        Deed::Off => power.off(&mut report).await.map(|()| Power::Off),
        Deed::Reboot => power.reboot(&mut report).await.map(|()| Power::On),
    }
}

async fn look_at_cluster(broker: &BrokerClient) -> Known {
    View::fetch(broker).await.map_err(|error| error.to_string())
}

/// A host's switches; says why there are none.
fn switches_of(
    toml: &HaToml,
    known: &Known,
    id: HostId,
    paths: &Paths,
    terminal: &mut Terminal,
) -> Option<HostPower> {
    let name = match target::name_in_table(&toml.fencing, known, id) {
        Ok(name) => name,
        Err(reason) => {
            terminal.complain(reason);
            return None;
        }
    };
    let power = HostPower::of(&toml.fencing, paths, id, name.as_deref());
    if power.is_none() {
        terminal.complain(format!(
            "{} has no power switch: there is no [[fencing.host]] for it in {}",
            capital(&target::label(known, id)),
            paths.ha_toml().display()
        ));
    }
    power
}

fn capital(label: &str) -> String {
    let mut letters = label.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}
