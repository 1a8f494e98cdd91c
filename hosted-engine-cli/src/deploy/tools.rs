//! Running the programs that mount, format and configure. A port: tests answer with recorded outputs.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;
use std::time::Duration;

use ha_config::Secret;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

/// One program to run, by its name in `PATH`. Nothing that is secret may be an argument: it goes to standard input.
#[derive(Clone, PartialEq, Eq)]
pub struct Call {
    /// The program.
    pub program: &'static str,
    /// Its arguments.
    pub args: Vec<OsString>,
    /// What it reads.
    pub input: Option<Secret>,
    /// After that it is killed, and counts as failed.
    pub deadline: Duration,
}

impl Call {
    /// Without arguments, input; with a minute's time.
    pub fn new(program: &'static str) -> Self {
        Self { program, args: Vec::new(), input: None, deadline: Duration::from_mins(1) }
    }

    /// One more argument.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    /// More arguments.
    #[must_use]
    pub fn args<A: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// What it reads on standard input.
    #[must_use]
    pub fn input(mut self, text: Secret) -> Self {
        self.input = Some(text);
        self
    }

    /// Another deadline.
    #[must_use]
    pub fn within(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }
}

/// As an operator would type it.
impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.program)?;
        for arg in &self.args {
            let arg = arg.to_string_lossy();
            let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@%+[]".contains(c);
            if !arg.is_empty() && arg.chars().all(plain) {
                write!(f, " {arg}")?;
            } else {
                write!(f, " '{}'", arg.replace('\'', r"'\''"))?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{self}`")
    }
}

/// What a program that ended said. Not UTF-8 is replaced.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Said {
    /// Its exit code; 128 + the signal that killed it.
    pub code: i32,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

/// A program did not do what it was run for.
#[derive(Debug, thiserror::Error)]
pub enum ToolError {
    /// It is not installed, or may not be run.
    #[error("cannot run {program}: {source}")]
    Missing {
        /// The program.
        program: &'static str,
        /// The system's words.
        source: std::io::Error,
    },
    /// It did not end in time, and was killed.
    #[error("`{call}` did not end within {seconds} s")]
    TooSlow {
        /// As typed.
        call: String,
        /// The deadline.
        seconds: u64,
    },
    /// It said no.
    #[error("`{call}` failed (exit code {code}): {said}")]
    Failed {
        /// As typed.
        call: String,
        /// Its exit code.
        code: i32,
        /// The last lines that it said.
        said: String,
    },
}

/// Runs programs.
pub trait Tools: Send + Sync {
    /// Runs it and waits for its end, whatever its exit code.
    ///
    /// # Errors
    /// [`ToolError::Missing`] and [`ToolError::TooSlow`].
    fn ask(&self, call: &Call) -> Result<Said, ToolError>;

    /// Runs it; an exit code other than 0 is an error.
    ///
    /// # Errors
    /// Each kind of [`ToolError`].
    fn run(&self, call: &Call) -> Result<Said, ToolError> {
        let said = self.ask(call)?;
        if said.code == 0 {
            return Ok(said);
        }
        let text = if said.err.trim().is_empty() { &said.out } else { &said.err };
        let last: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        let last = last[last.len().saturating_sub(4)..].join("; ");
        Err(ToolError::Failed { call: call.to_string(), code: said.code, said: last })
    }
}

/// The programs of this machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct Installed;

impl Tools for Installed {
    fn ask(&self, call: &Call) -> Result<Said, ToolError> {
        let missing = |source| ToolError::Missing { program: call.program, source };
        let mut command = Command::new(call.program);
        // Programs are read by programs here: no translation.
        command.args(&call.args).env("LC_ALL", "C").stdout(Stdio::piped()).stderr(Stdio::piped());
        command.stdin(if call.input.is_some() { Stdio::piped() } else { Stdio::null() });
        let mut child = command.spawn().map_err(missing)?;
        let (out, err) = (collect(child.stdout.take()), collect(child.stderr.take()));
        let writer = child.stdin.take().zip(call.input.clone()).map(|(mut pipe, text)| {
            // A program that does not read to the end says itself what it misses.
            std::thread::spawn(move || drop(pipe.write_all(text.reveal().as_bytes())))
        });
        let is_over = wait(&child, call.deadline).map_err(missing)?;
        if !is_over {
            // It may have ended just now.
            let _ = child.kill();
        }
        let status = child.wait().map_err(missing)?;
        if !is_over {
            // What it started may hold the pipes open: their readers are left behind.
            return Err(ToolError::TooSlow { call: call.to_string(), seconds: call.deadline.as_secs() });
        }
        if let Some(writer) = writer {
            let _ = writer.join();
        }
        let text = |reader: JoinHandle<Vec<u8>>| {
            String::from_utf8_lossy(&reader.join().unwrap_or_default()).into_owned()
        };
        let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(-1);
        Ok(Said { code, out: text(out), err: text(err) })
    }
}

fn collect(pipe: Option<impl Read + Send + 'static>) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            // What was read until an error counts.
            let _ = pipe.read_to_end(&mut bytes);
        }
        bytes
    })
}

/// Waits for its end; false when the deadline passed.
fn wait(child: &Child, deadline: Duration) -> std::io::Result<bool> {
    let pidfd = pidfd_open(Pid::from_child(child), PidfdFlags::empty())?;
    let timeout = Timespec {
        tv_sec: i64::try_from(deadline.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: deadline.subsec_nanos().into(),
    };
    Ok(poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&timeout))? > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_asked_and_its_words_are_kept() {
        let said =
            Installed.ask(&Call::new("sh").args(["-c", "cat; echo no >&2; exit 3"]).input(Secret::new("in")));
        assert_eq!(said.unwrap(), Said { code: 3, out: "in".to_owned(), err: "no\n".to_owned() });
        let error = Installed.run(&Call::new("sh").args(["-c", "echo it is full >&2; exit 3"])).unwrap_err();
        assert_eq!(
            error.to_string(),
            "`sh -c 'echo it is full >&2; exit 3'` failed (exit code 3): it is full"
        );
        let error = Installed.run(&Call::new("there-is-no-such-program")).unwrap_err();
        assert!(error.to_string().starts_with("cannot run there-is-no-such-program: "), "{error}");
    }

    #[test]
    fn a_program_that_hangs_is_killed() {
        let call = Call::new("sleep").arg("1000").within(Duration::from_millis(50));
        assert!(matches!(Installed.run(&call), Err(ToolError::TooSlow { .. })));
    }
}
