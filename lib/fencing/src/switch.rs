//! One power switch: an agent with the options of one entry of `[[fencing.host]]`.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ha_config::Paths;
use ha_config::ha_toml::FencingHost;
use sanlock_client::{Client, LockspaceName};
use tokio::time::{Instant, sleep};

use crate::error::{End, FenceError, Said};
use crate::metadata::{MAX_BYTES, Metadata, MetadataError};
use crate::options::{Arguments, Plan};
use crate::process::{Finished, NotFinished, run};
use crate::progress::{Progress, Report};
use crate::redact::excerpt;
use crate::storage::{Step, StorageReset};

/// Where agents are that the configuration names without a path.
pub const AGENT_DIRECTORY: &str = "/usr/sbin";

/// Shortest pause between two looks at the power, whatever `power_wait` says: devices are slow machines.
const LEAST_PAUSE: Duration = Duration::from_secs(1);
/// Whoever waits is told so often that the power has not changed yet.
const NEWS: Duration = Duration::from_secs(5);

/// What an agent can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// To describe itself.
    Metadata,
    /// Whether the power is on.
    Status,
    /// Whether the device answers.
    Monitor,
    /// To switch on.
    On,
    /// To switch off.
    Off,
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Metadata => "metadata",
            Self::Status => "status",
            Self::Monitor => "monitor",
            Self::On => "on",
            Self::Off => "off",
        })
    }
}

/// Whether a host has power.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Power {
    /// It has.
    On,
    /// It has not.
    Off,
}

impl Power {
    const fn action(self) -> Action {
        match self {
            Self::On => Action::On,
            Self::Off => Action::Off,
        }
    }
}

impl fmt::Display for Power {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.action().fmt(f)
    }
}

/// One power switch.
#[derive(Debug, Clone)]
pub struct PowerSwitch {
    program: PathBuf,
    entry: FencingHost,
    label: String,
    /// The switch is no program but the lock manager.
    storage: Option<StorageReset>,
}

impl PowerSwitch {
    /// The switch that an entry describes; nothing is asked yet. Files with secrets are looked for under the root of
    /// `paths`.
    pub fn new(entry: &FencingHost, paths: &Paths) -> Self {
        let mut entry = entry.clone();
        let files = entry.password_file.iter_mut().chain(entry.secret_files.values_mut());
        for file in files {
            *file = paths.resolve(&*file);
        }
        if let Some(switch) = Self::through_storage(&entry, paths) {
            return switch;
        }
        // An absolute path stays what it is.
        let program = Path::new(AGENT_DIRECTORY).join(&entry.agent);
        let name = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let address = ["ip", "ipaddr"].iter().find_map(|key| entry.options.get(*key));
        let plug =
            entry.plug.as_ref().or_else(|| ["plug", "port"].iter().find_map(|key| entry.options.get(*key)));
        let part = |word: &str, value: Option<&ha_config::ha_toml::OptionText>| {
            value.map(|value| format!(" {word} {}", value.0)).unwrap_or_default()
        };
        let label = format!("{name}{}{}", part("at", address), part("plug", plug));
        Self { program, entry, label, storage: None }
    }

    /// The switch of an entry whose agent is the lock manager.
    fn through_storage(entry: &FencingHost, paths: &Paths) -> Option<Self> {
        let lockspace = entry.storage_lockspace()?;
        // Both were checked with the file.
        let (name, host) = (LockspaceName::new(lockspace).ok()?, entry.host_id?);
        let client = Client::new(paths.sanlock_socket());
        Some(Self {
            program: PathBuf::from(&entry.agent),
            label: format!("sanlock through lockspace {lockspace}"),
            entry: entry.clone(),
            storage: Some(StorageReset::new(client, name, host)),
        })
    }

    /// What its status does not tell; `None` when it tells all.
    pub fn untold(&self) -> Option<&'static str> {
        self.storage
            .as_ref()
            .map(|_| "by the lock manager; whether sanlk-resetd listens there shows when it is asked")
    }

    /// Has the host reset itself. A thread of its own does it, which nobody waits for when this is given up.
    async fn reset(&self, storage: &StorageReset, report: &mut Report<'_>) -> Result<(), FenceError> {
        let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
        let storage = storage.clone();
        let begun = Instant::now();
        let work = move || {
            // Whoever waited may be gone.
            let result = storage.reset(&mut |step| drop(tell.send(Ok(step))));
            let _ = tell.send(Err(result));
        };
        let thread = std::thread::Builder::new().name("storage-reset".to_owned());
        let agent = || self.program();
        thread.spawn(work).map_err(|source| FenceError::Start { agent: agent(), source })?;
        let action = Action::Off;
        loop {
            match told.recv().await {
                Some(Ok(Step::Asked)) => report(&Progress::Asked { action, switch: self.label.clone() }),
                Some(Ok(Step::Answered)) => {
                    report(&Progress::Waiting { action, after: begun.elapsed(), seen: Some(Power::On) });
                }
                Some(Err(result)) => {
                    result?;
                    report(&Progress::Confirmed { action, after: begun.elapsed() });
                    return Ok(());
                }
                None => {
                    let source = std::io::Error::other("its thread ended by itself");
                    return Err(FenceError::Start { agent: agent(), source });
                }
            }
        }
    }

    /// The agent, its device and its plug, as far as they are configured.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// Whether the host has power by this switch. Takes at most twice `status_timeout`.
    pub async fn status(&self, report: &mut Report<'_>) -> Result<Power, FenceError> {
        if let Some(storage) = &self.storage {
            return self.ask_lock_manager(storage).await;
        }
        self.prepare(&[(Action::Status, "tell whether the power is on")], report)
            .await?
            .look(Words::MayLack)
            .await
    }

    /// Whether the device answers, for agents that cannot tell the power. Takes at most twice `status_timeout`.
    pub async fn monitor(&self, report: &mut Report<'_>) -> Result<(), FenceError> {
        if let Some(storage) = &self.storage {
            return self.ask_lock_manager(storage).await.map(drop);
        }
        let session = self.prepare(&[(Action::Monitor, "tell whether its device answers")], report).await?;
        session.ask(Action::Monitor, self.entry.status_timeout).await
    }

    /// Switches off, and returns once the status says so. Takes at most `off_timeout` and twice `status_timeout`.
    ///
    /// When it is given up half-way, the agent is killed; the device may still do what it was told.
    pub async fn off(&self, report: &mut Report<'_>) -> Result<(), FenceError> {
        self.change(Power::Off, self.entry.off_timeout, report).await
    }

    /// Switches on, and returns once the status says so. Times as with [`Self::off`].
    pub async fn on(&self, report: &mut Report<'_>) -> Result<(), FenceError> {
        self.change(Power::On, self.entry.on_timeout, report).await
    }

    async fn change(
        &self,
        wanted: Power,
        deadline: Duration,
        report: &mut Report<'_>,
    ) -> Result<(), FenceError> {
        let action = wanted.action();
        match (&self.storage, wanted) {
            (Some(storage), Power::Off) => return self.reset(storage, report).await,
            (Some(_), Power::On) => {
                let needed_to = "switch a host on; one that was reset boots by itself";
                return Err(FenceError::NoAction { agent: self.program(), action, needed_to });
            }
            (None, _) => {}
        }
        let needs = [(action, "do this"), (Action::Status, "show that the power changed")];
        let session = self.prepare(&needs, report).await?;
        report(&Progress::Asked { action, switch: self.label.clone() });
        let begun = Instant::now();
        let asked = session.ask(action, deadline).await;
        // A device that was cut off while it answered may have done it all the same: the power itself has the last word.
        let patient = match &asked {
            Ok(()) => true,
            Err(error) => {
                report(&Progress::Complained { action, error: error.to_string() });
                error.gave_up_waiting()
            }
        };
        // An agent that fails at everything with 2 must not pass for one that says off.
        let words = if asked.is_ok() { Words::MayLack } else { Words::Must };
        let mut news = Duration::ZERO;
        loop {
            let seen = session.look(words).await;
            let after = begun.elapsed();
            if matches!(seen, Ok(power) if power == wanted) {
                report(&Progress::Confirmed { action, after });
                return Ok(());
            }
            if !patient || after + session.pause >= deadline {
                return asked.and_then(|()| {
                    let seen = match seen {
                        Ok(power) => format!("the power is still {power}"),
                        Err(error) => error.to_string(),
                    };
                    Err(FenceError::NotConfirmed { agent: self.program(), action, after, seen })
                });
            }
            if after >= news {
                report(&Progress::Waiting { action, after, seen: seen.ok() });
                news = after + NEWS;
            }
            sleep(session.pause).await;
        }
    }

    /// What the lock manager says of the host. It answers from memory.
    async fn ask_lock_manager(&self, storage: &StorageReset) -> Result<Power, FenceError> {
        let storage = storage.clone();
        match tokio::task::spawn_blocking(move || storage.status()).await {
            Ok(status) => Ok(status?),
            Err(error) => {
                Err(FenceError::Start { agent: self.program(), source: std::io::Error::other(error) })
            }
        }
    }

    fn program(&self) -> String {
        self.program.display().to_string()
    }

    /// Has the agent describe itself, checks what it will be told, reads the secrets.
    async fn prepare(
        &self,
        needs: &[(Action, &'static str)],
        report: &mut Report<'_>,
    ) -> Result<Session<'_>, FenceError> {
        let agent = || self.program();
        let mut session = Session { switch: self, arguments: Arguments::none(), pause: LEAST_PAUSE };
        let described = session.call(Action::Metadata, self.entry.status_timeout).await?;
        if described.end != End::Code(0) {
            return Err(session.failed(Action::Metadata, &described));
        }
        let metadata = if described.out.len() > MAX_BYTES {
            Err(MetadataError::TooMuch { what: "bytes", limit: MAX_BYTES })
        } else {
            Metadata::parse(&described.out)
        };
        let metadata = metadata.map_err(|source| FenceError::Metadata { agent: agent(), source })?;
        if let Some((action, needed_to)) = needs.iter().find(|(action, _)| !metadata.can(&action.to_string()))
        {
            return Err(FenceError::NoAction { agent: agent(), action: *action, needed_to });
        }
        let plan = Plan::new(&self.entry, &metadata)
            .map_err(|source| FenceError::Option { agent: agent(), source })?;
        session.arguments = plan.read_secrets()?;
        session.pause = plan.power_wait.max(LEAST_PAUSE);
        for text in plan.advice {
            report(&Progress::Advice { switch: self.label.clone(), text });
        }
        Ok(session)
    }
}

/// Whether an agent must say in words that the power is off, besides its exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Words {
    MayLack,
    Must,
}

/// A switch whose options were checked and whose secrets were read.
struct Session<'s> {
    switch: &'s PowerSwitch,
    arguments: Arguments,
    /// Between two looks at the power.
    pause: Duration,
}

impl Session<'_> {
    async fn call(&self, action: Action, deadline: Duration) -> Result<Finished, FenceError> {
        let lines = self.arguments.lines(action);
        run(&self.switch.program, &lines, deadline).await.map_err(|why| match why {
            NotFinished::Io(source) => FenceError::Start { agent: self.switch.program(), source },
            NotFinished::Deadline { out, err } => FenceError::Deadline {
                agent: self.switch.program(),
                action,
                after: deadline,
                said: self.said(&out, &err),
            },
        })
    }

    /// Asks for something that has no other answer than done.
    async fn ask(&self, action: Action, deadline: Duration) -> Result<(), FenceError> {
        let done = self.call(action, deadline).await?;
        if done.end == End::Code(0) { Ok(()) } else { Err(self.failed(action, &done)) }
    }

    /// Whether there is power now: exit code 0 is on, 2 is off. A shell or an interpreter that does not even start the
    /// agent exits with 2 as well, and complains; so off is believed only from an agent that says so, or that says nothing and has not failed before.
    async fn look(&self, words: Words) -> Result<Power, FenceError> {
        let done = self.call(Action::Status, self.switch.entry.status_timeout).await?;
        let out = String::from_utf8_lossy(&done.out).to_ascii_lowercase();
        let says = |word: &str| out.split(|c: char| !c.is_alphanumeric()).any(|said| said == word);
        match done.end {
            End::Code(0) if !says("off") || says("on") => Ok(Power::On),
            End::Code(2) if says("off") && !says("on") => Ok(Power::Off),
            End::Code(2) if words == Words::MayLack && !says("on") && done.err.trim_ascii().is_empty() => {
                Ok(Power::Off)
            }
            End::Code(0 | 2) => Err(FenceError::Unclear {
                agent: self.switch.program(),
                end: done.end,
                said: self.said(&done.out, &done.err),
            }),
            End::Code(_) | End::Signal(_) => Err(self.failed(Action::Status, &done)),
        }
    }

    fn failed(&self, action: Action, done: &Finished) -> FenceError {
        let said = self.said(&done.out, &done.err);
        FenceError::Failed { agent: self.switch.program(), action, end: done.end, said }
    }

    /// Standard error, or standard output where that is empty.
    fn said(&self, out: &[u8], err: &[u8]) -> Said {
        let secrets = self.arguments.secrets();
        let said = excerpt(err, &secrets);
        if said.0.is_empty() { excerpt(out, &secrets) } else { said }
    }
}

#[cfg(test)]
#[path = "switch_tests.rs"]
mod tests;
