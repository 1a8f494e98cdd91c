//! What the operator sees of a deployment, and its log: every line, and every program that is run.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use clock::{Clock as _, SystemClock};
use ha_config::Paths;

use super::DeployError;
use super::tools::{Call, Said, ToolError, Tools};
use crate::progress::Progress;
use crate::setup::Report;
use crate::terminal::Terminal;

/// Lines of a failed program's words that are logged.
const SAID_LINES: usize = 20;

/// The operator's terminal and the log of one run. Everything that is told goes to both.
pub struct Told {
    path: PathBuf,
    state: Mutex<State>,
}

struct State {
    log: File,
    terminal: Terminal,
    progress: Progress,
}

impl Told {
    /// With a new log of mode 0600, `ovirt-hosted-engine-setup-<time>.log`.
    ///
    /// # Errors
    /// When the log cannot be made.
    pub fn new(paths: &Paths, terminal: Terminal) -> Result<Self, DeployError> {
        let directory = paths.setup_log_dir();
        private_directory(&directory)?;
        let now = jiff::Timestamp::from_second(SystemClock.wall().0).unwrap_or_default();
        let time = now.to_zoned(jiff::tz::TimeZone::system()).strftime("%Y%m%d%H%M%S").to_string();
        let name = |count: u32| match count {
            0 => format!("ovirt-hosted-engine-setup-{time}.log"),
            _ => format!("ovirt-hosted-engine-setup-{time}-{count}.log"),
        };
        let open = |path: &Path| OpenOptions::new().append(true).create_new(true).mode(0o600).open(path);
        // Others of the same second have their own.
        let mut count = 0;
        loop {
            let path = directory.join(name(count));
            match open(&path) {
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists && count < 100 => count += 1,
                other => {
                    let log = other.map_err(DeployError::io("create", &path))?;
                    let progress = Progress::new(&terminal);
                    return Ok(Self { path, state: Mutex::new(State { log, terminal, progress }) });
                }
            }
        }
    }

    /// The log.
    pub fn log_file(&self) -> &Path {
        &self.path
    }

    /// A line for the log alone.
    pub fn note(&self, text: &str) {
        self.state().note("DEBUG", text);
    }

    /// Something that went wrong, on standard error.
    pub fn failure(&self, text: &str) {
        self.state().tell("ERROR", "[ ERROR ]", text, Terminal::complain);
    }

    /// Lines for the operator as they are.
    pub fn text(&self, text: &str) {
        let mut state = self.state();
        state.note("INFO", text);
        let State { progress, terminal, .. } = &mut *state;
        progress.aside(|| terminal.print(text));
    }

    /// What a recording terminal has.
    #[cfg(test)]
    pub(super) fn recorded(&self) -> crate::terminal::Record {
        self.state().terminal.recorded()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Half a line in a log is no reason to stop.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn note(&mut self, level: &str, text: &str) {
        let now = jiff::Timestamp::from_second(SystemClock.wall().0).unwrap_or_default();
        let time = now.to_zoned(jiff::tz::TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S%z").to_string();
        for line in text.trim_end().lines() {
            // A full disk must not stop a deployment, or worse, the undoing of one.
            let _ = writeln!(self.log, "{time} {level:7} {line}");
        }
    }

    fn tell<R>(&mut self, level: &str, mark: &str, text: &str, say: impl FnOnce(&mut Terminal, String) -> R) {
        self.note(level, text);
        let Self { progress, terminal, .. } = self;
        progress.aside(|| drop(say(terminal, format!("{mark} {text}"))));
    }
}

impl Report for Told {
    fn info(&self, text: &str) {
        self.state().tell("INFO", "[ INFO  ]", text, Terminal::say);
    }

    fn warning(&self, text: &str) {
        self.state().tell("WARNING", "[WARNING]", text, Terminal::complain);
    }

    fn progress(&self, what: &str, done: u64, total: u64) {
        let State { progress, terminal, .. } = &mut *self.state();
        progress.share(&format!("          {what}"), done, total, terminal);
    }
}

/// Programs whose calls are logged: as typed, how they ended, and what those that failed said. What they read on standard
/// input is not.
pub struct Logged<'a> {
    /// Runs them.
    pub tools: &'a dyn Tools,
    /// Has the log.
    pub told: &'a Told,
}

impl Tools for Logged<'_> {
    fn ask(&self, call: &Call) -> Result<Said, ToolError> {
        self.log(call, || self.tools.ask(call))
    }

    fn follow(&self, call: &Call, heard: &mut dyn FnMut(&str)) -> Result<Said, ToolError> {
        self.log(call, || self.tools.follow(call, heard))
    }
}

impl Logged<'_> {
    fn log(&self, call: &Call, run: impl FnOnce() -> Result<Said, ToolError>) -> Result<Said, ToolError> {
        self.told.note(&format!("running: {call}"));
        let begin = SystemClock.monotonic();
        let result = run();
        let took = SystemClock.monotonic().saturating_since(begin).as_secs_f64();
        match &result {
            Err(error) => self.told.note(&format!("  {error}")),
            Ok(said) => {
                self.told.note(&format!("  exit code {} after {took:.1} s", said.code));
                if said.code != 0 {
                    for line in said.out.lines().chain(said.err.lines()).take(SAID_LINES) {
                        self.told.note(&format!("  | {line}"));
                    }
                }
            }
        }
        result
    }
}

/// Makes a directory that only root looks into, where there is none.
pub(super) fn private_directory(path: &Path) -> Result<(), DeployError> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true).mode(0o700).create(path).map_err(DeployError::io("create the directory", path))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use ha_config::Secret;

    use super::*;
    use crate::deploy::testing::Recorded;

    #[test]
    fn everything_is_in_the_log_but_secrets() {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::new(root.path());
        let told = Told::new(&paths, Terminal::recording()).unwrap();
        let second = Told::new(&paths, Terminal::recording()).unwrap();
        assert_ne!(told.log_file(), second.log_file());
        told.info("Creating Storage Domain");
        told.progress("copying", 1, 2);
        told.warning("it is nearly full");
        let tools = Recorded::new(&[("mount -t nfs a:/b /c", 32, "", "mount.nfs: access denied\n")]);
        let logged = Logged { tools: &tools, told: &told };
        let call = Call::new("mount").args(["-t", "nfs", "a:/b", "/c"]).input(Secret::new("hunter2"));
        assert_eq!(logged.ask(&call).unwrap().code, 32);

        let log = std::fs::read_to_string(told.log_file()).unwrap();
        for part in [
            "INFO    Creating Storage Domain\n",
            "WARNING it is nearly full\n",
            "running: mount -t nfs a:/b /c\n",
            "  exit code 32 after ",
            "  | mount.nfs: access denied\n",
        ] {
            assert!(log.contains(part), "{part}: {log}");
        }
        assert!(!log.contains("hunter2"));
        assert_eq!(std::fs::metadata(told.log_file()).unwrap().permissions().mode() & 0o777, 0o600);
        let said = told.recorded();
        assert_eq!(said.out, "[ INFO  ] Creating Storage Domain\n");
        assert_eq!(said.err, "[WARNING] it is nearly full\n");
    }

    /// Speaks in two parts.
    struct Speaks;

    impl Tools for Speaks {
        fn ask(&self, call: &Call) -> Result<Said, ToolError> {
            panic!("nobody expected {call} to be asked")
        }

        fn follow(&self, _: &Call, heard: &mut dyn FnMut(&str)) -> Result<Said, ToolError> {
            for part in ["(1/100%)", "(2/100%)"] {
                heard(part);
            }
            Ok(Said::default())
        }
    }

    #[test]
    fn a_program_is_heard_through_the_log_while_it_speaks() {
        let root = tempfile::tempdir().unwrap();
        let told = Told::new(&Paths::new(root.path()), Terminal::recording()).unwrap();
        let logged = Logged { tools: &Speaks, told: &told };
        let mut parts = Vec::new();
        logged.follow(&Call::new("qemu-img"), &mut |part| parts.push(part.to_owned())).unwrap();
        assert_eq!(parts, ["(1/100%)", "(2/100%)"]);
        assert!(std::fs::read_to_string(told.log_file()).unwrap().contains("running: qemu-img\n"));
    }
}
