//! The guard: a process of its own that changes the host's network, looks whether the gateway still answers, and takes
//! the change back unless it is told to keep it.
//!
//! ```text
//!  deploy ── order ──▶ guard: gateway answers? ── no ──▶ "refused", nothing changed
//!                        │ yes
//!                      change ── failed, or no five answers in a row within 30 s, or deploy is gone
//!                        │                                          │
//!  deploy ◀─ "answers" ──┘                                  take back, "taken-back"
//!     └───── "keep" ────▶ "kept", end
//! ```
//!
//! It is this program, run again in a session of its own: what ends the deployment (a kill, a closed SSH connection,
//! which a change of the network may well cause) does not end it, and is seen by it as the end of the conversation. What
//! ends the guard is seen by the deployment in the same way, which then takes the change back itself. If both end, the
//! journal knows what was begun. Orders and answers are lines of JSON over one socket, the guard's standard input.

use std::io::{BufRead, BufReader, Write};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
#[cfg(not(test))]
use std::process::Command;
use std::process::Stdio;
use std::time::Duration;

use ha_config::Paths;
use serde::{Deserialize, Serialize};

use super::bridge::MadeBridge;
use super::watch::{PATIENCE, Test, Watch};
use crate::deploy::made::Undone;
use crate::deploy::{DeployError, Installed, Tools, World};

/// The word of the hidden command.
pub const COMMAND: &str = "network-guard";

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Order {
    Make(MadeBridge, Test),
    TakeBack(MadeBridge),
    Keep,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Answer {
    /// Nothing was changed: why.
    Refused(String),
    /// It is made and the gateway answers.
    Answers,
    /// It stays.
    Kept,
    /// It was made, or half made, and is taken back: why.
    GivenUp { why: String, trouble: Option<String> },
    /// As ordered.
    TakenBack(Undone),
    /// Taking back failed.
    Failed(String),
}

/// Makes the bridge under a guard.
///
/// # Errors
/// Why there is no bridge; whatever was changed is taken back then, or the text says what is not.
pub fn make(world: &World<'_>, made: &MadeBridge, test: &Test) -> Result<(), DeployError> {
    let mut guard = Guard::start(world.paths)?;
    let refused = |text: String| Err(DeployError::Refused(text));
    match guard.ask(&Order::Make(made.clone(), test.clone())) {
        Some(Answer::Answers) => {}
        Some(Answer::Refused(why)) => return refused(why),
        Some(Answer::GivenUp { why, trouble: None }) => {
            return refused(format!("{why}: everything is as it was before"));
        }
        Some(Answer::GivenUp { why, trouble: Some(trouble) }) => {
            return refused(format!(
                "{why}; taking it back failed, too: {trouble}. Try hosted-engine --deploy --undo"
            ));
        }
        other => return gone(world, made, other.as_ref()),
    }
    match guard.ask(&Order::Keep) {
        Some(Answer::Kept) => Ok(()),
        other => gone(world, made, other.as_ref()),
    }
}

/// The guard ended, or said what it cannot say there.
fn gone(world: &World<'_>, made: &MadeBridge, answer: Option<&Answer>) -> Result<(), DeployError> {
    take_back(world, made)?;
    let why = answer.map_or_else(|| "it ended".to_owned(), |answer| format!("it said {answer:?}"));
    Err(DeployError::Refused(format!(
        "the guard of the network did not do its work ({why}); the bridge is taken back"
    )))
}

/// Takes the bridge back, in a process that outlives this one.
///
/// # Errors
/// What stands in the way.
pub fn take_back(world: &World<'_>, made: &MadeBridge) -> Result<Undone, DeployError> {
    let answer = Guard::start(world.paths)?.ask(&Order::TakeBack(made.clone()));
    match answer {
        Some(Answer::TakenBack(how)) => Ok(how),
        Some(Answer::Failed(why) | Answer::Refused(why)) => Err(DeployError::Refused(why)),
        // It is gone: what is left to do can be done here.
        _ => made.take_back(world.tools),
    }
}

pub(super) struct Guard {
    socket: UnixStream,
    lines: BufReader<UnixStream>,
}

impl Guard {
    pub(super) fn start(paths: &Paths) -> Result<Self, DeployError> {
        let program = Path::new("/proc/self/exe");
        let io = |action| DeployError::io(action, program);
        let (ours, theirs) = UnixStream::pair().map_err(io("open a socket for"))?;
        let mut command = own_program(paths).map_err(io("find"))?;
        command.stdin(Stdio::from(OwnedFd::from(theirs))).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().map_err(io("start the guard of the network from"))?;
        // It ends by itself, and is no zombie then.
        std::thread::spawn(move || drop(child.wait()));
        let lines = BufReader::new(ours.try_clone().map_err(io("open a socket for"))?);
        Ok(Self { socket: ours, lines })
    }

    /// What a deployment does that is killed once the gateway answers.
    #[cfg(test)]
    pub(super) fn order_and_leave(mut self, made: &MadeBridge, test: &Test) {
        let answer = self.ask(&Order::Make(made.clone(), test.clone()));
        assert!(matches!(answer, Some(Answer::Answers)), "{answer:?}");
    }

    /// [`None`] when the guard is gone.
    fn ask(&mut self, order: &Order) -> Option<Answer> {
        send(&mut self.socket, order)?;
        receive(&mut self.lines)
    }
}

fn send(socket: &mut UnixStream, message: &impl Serialize) -> Option<()> {
    let mut line = serde_json::to_string(message).ok()?;
    line.push('\n');
    socket.write_all(line.as_bytes()).ok()
}

fn receive<T: for<'t> Deserialize<'t>>(lines: &mut impl BufRead) -> Option<T> {
    let mut line = String::new();
    lines.read_line(&mut line).ok()?;
    serde_json::from_str(&line).ok()
}

#[cfg(test)]
use super::lab::own_program;

/// This program again. Where systemd runs the host, outside of the session, which may be ended with all that is in it.
#[cfg(not(test))]
fn own_program(paths: &Paths) -> std::io::Result<Command> {
    let program = std::env::current_exe()?;
    let mut command = if Path::new("/run/systemd/system").is_dir() && paths.is_real_host() {
        let mut command = Command::new("systemd-run");
        command.args(["--quiet", "--collect", "--pipe", "--wait", "--service-type=exec", "--"]).arg(program);
        command
    } else {
        Command::new(program)
    };
    command.arg("--root").arg(paths.root()).arg(COMMAND);
    Ok(command)
}

/// The guard's side: `hosted-engine network-guard`, with the conversation on standard input.
///
/// # Errors
/// When standard input is no conversation.
pub fn run(paths: &Paths) -> anyhow::Result<()> {
    let input = std::io::stdin().as_fd().try_clone_to_owned()?;
    serve(paths, &Installed, UnixStream::from(input), PATIENCE)
}

/// Holds the conversation; after a change the gateway must answer within `patience`.
///
/// # Errors
/// When `socket` is no conversation, or the system lacks what the guard needs.
pub fn serve(
    paths: &Paths,
    tools: &dyn Tools,
    mut socket: UnixStream,
    patience: Duration,
) -> anyhow::Result<()> {
    // The keyboard's signals and the end of the terminal are not for it. Fails where it leads a session already.
    let _ = rustix::process::setsid();
    let mut lines = BufReader::new(socket.try_clone()?);
    let Some(order) = receive::<Order>(&mut lines) else {
        anyhow::bail!("this command is for hosted-engine itself")
    };
    // One guard at a time: one that is still taking back is not disturbed.
    let directory = paths.setup_state_dir();
    std::fs::create_dir_all(&directory)?;
    let lock = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(directory.join("network.lock"))?;
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive)?;
    let answer = match order {
        Order::Make(made, test) => {
            let watch = Watch::new(paths, &test, patience)?;
            match make_and_watch(tools, &made, watch, &mut socket, &mut lines) {
                None => return Ok(()),
                Some(answer) => answer,
            }
        }
        Order::TakeBack(made) => match made.take_back(tools) {
            Ok(how) => Answer::TakenBack(how),
            Err(error) => Answer::Failed(error.to_string()),
        },
        Order::Keep => Answer::Refused("there is nothing to keep".to_owned()),
    };
    // Whoever asked may be gone.
    send(&mut socket, &answer);
    Ok(())
}

/// [`None`] when it stays.
fn make_and_watch(
    tools: &dyn Tools,
    made: &MadeBridge,
    mut watch: Watch,
    socket: &mut UnixStream,
    lines: &mut BufReader<UnixStream>,
) -> Option<Answer> {
    if let Err(why) = watch.before() {
        return Some(Answer::Refused(why));
    }
    let result = made.make(tools).map_err(|error| error.to_string()).and_then(|()| watch.after(&*socket));
    let why = match result {
        Ok(()) => {
            send(socket, &Answer::Answers);
            match receive(lines) {
                Some(Order::Keep) => {
                    send(socket, &Answer::Kept);
                    return None;
                }
                _ => "the deployment ended".to_owned(),
            }
        }
        Err(why) => why,
    };
    let trouble = match made.take_back(tools) {
        Ok(Undone::LeftAlone(why)) => Some(why),
        Ok(Undone::TakenBack | Undone::Absent) => None,
        Err(error) => Some(error.to_string()),
    };
    Some(Answer::GivenUp { why, trouble })
}
