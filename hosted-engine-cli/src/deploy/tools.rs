//! Running the programs that mount, format and configure. A port: tests answer with recorded outputs.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::RecvTimeoutError;
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

impl Said {
    /// An exit code other than 0 is an error.
    fn or_failed(self, call: &Call) -> Result<Self, ToolError> {
        if self.code == 0 {
            return Ok(self);
        }
        let text = if self.err.trim().is_empty() { &self.out } else { &self.err };
        let last: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        let last = last[last.len().saturating_sub(4)..].join("; ");
        Err(ToolError::Failed { call: call.to_string(), code: self.code, said: last })
    }
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

    /// Runs it as [`Tools::run`] does, and hands on what it says on standard output while it says it.
    ///
    /// # Errors
    /// As [`Tools::run`].
    fn follow(&self, call: &Call, heard: &mut dyn FnMut(&str)) -> Result<Said, ToolError> {
        let said = self.run(call)?;
        heard(&said.out);
        Ok(said)
    }

    /// Runs it; an exit code other than 0 is an error.
    ///
    /// # Errors
    /// Each kind of [`ToolError`].
    fn run(&self, call: &Call) -> Result<Said, ToolError> {
        self.ask(call)?.or_failed(call)
    }
}

/// The programs of this machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct Installed;

impl Tools for Installed {
    fn ask(&self, call: &Call) -> Result<Said, ToolError> {
        let missing = missing(call);
        let mut started = Started::new(call)?;
        let out = collect(started.child.stdout.take());
        if !wait(&started.child, call.deadline).map_err(missing)? {
            return Err(started.too_slow(call));
        }
        started.end(call, out.join().unwrap_or_default())
    }

    /// The deadline is that of its silence.
    fn follow(&self, call: &Call, heard: &mut dyn FnMut(&str)) -> Result<Said, ToolError> {
        let mut started = Started::new(call)?;
        let (teller, told) = std::sync::mpsc::channel::<Vec<u8>>();
        let mut pipe = started.child.stdout.take();
        // Left behind when what the program started holds the pipe open.
        std::thread::spawn(move || {
            let mut chunk = [0; 4096];
            while let Some(Ok(got @ 1..)) = pipe.as_mut().map(|pipe| pipe.read(&mut chunk)) {
                if teller.send(chunk[..got].to_vec()).is_err() {
                    return;
                }
            }
        });
        let mut out = Vec::new();
        loop {
            match told.recv_timeout(call.deadline) {
                Ok(part) => {
                    heard(&String::from_utf8_lossy(&part));
                    out.extend(part);
                }
                Err(RecvTimeoutError::Timeout) => return Err(started.too_slow(call)),
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        if !wait(&started.child, call.deadline).map_err(missing(call))? {
            return Err(started.too_slow(call));
        }
        started.end(call, out)?.or_failed(call)
    }
}

fn missing(call: &Call) -> impl Fn(std::io::Error) -> ToolError + use<> {
    let program = call.program;
    move |source| ToolError::Missing { program, source }
}

/// A program that runs.
struct Started {
    child: Child,
    err: JoinHandle<Vec<u8>>,
    writer: Option<JoinHandle<()>>,
}

impl Started {
    fn new(call: &Call) -> Result<Self, ToolError> {
        let mut command = Command::new(call.program);
        // Programs are read by programs here: no translation.
        command.args(&call.args).env("LC_ALL", "C").stdout(Stdio::piped()).stderr(Stdio::piped());
        command.stdin(if call.input.is_some() { Stdio::piped() } else { Stdio::null() });
        let mut child = command.spawn().map_err(missing(call))?;
        let err = collect(child.stderr.take());
        let writer = child.stdin.take().zip(call.input.clone()).map(|(mut pipe, text)| {
            // A program that does not read to the end says itself what it misses.
            std::thread::spawn(move || drop(pipe.write_all(text.reveal().as_bytes())))
        });
        Ok(Self { child, err, writer })
    }

    /// Ends it. What it started may hold the pipes open: their readers are left behind.
    fn too_slow(mut self, call: &Call) -> ToolError {
        // It may have ended just now.
        let _ = self.child.kill();
        let _ = self.child.wait();
        ToolError::TooSlow { call: call.to_string(), seconds: call.deadline.as_secs() }
    }

    fn end(mut self, call: &Call, out: Vec<u8>) -> Result<Said, ToolError> {
        let status = self.child.wait().map_err(missing(call))?;
        if let Some(writer) = self.writer {
            let _ = writer.join();
        }
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(-1);
        Ok(Said { code, out: text(out), err: text(self.err.join().unwrap_or_default()) })
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
    fn a_program_is_heard_while_it_speaks() {
        // It ends only when somebody has heard its first words.
        let folder = tempfile::tempdir().unwrap();
        let fifo = folder.path().join("go");
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        let script = "echo first; read -r word <\"$0\"; echo \"$word\"; exit \"${#word}\"";
        let call = Call::new("sh").args(["-c", script]).arg(&fifo);
        let mut all = String::new();
        let mut hear = |text: &str| {
            all.push_str(text);
            if text.contains("first") {
                std::fs::write(&fifo, "four\n").unwrap();
            }
        };
        let error = Installed.follow(&call, &mut hear).unwrap_err();
        assert!(matches!(error, ToolError::Failed { code: 4, .. }), "{error}");
        assert_eq!(all, "first\nfour\n");
    }

    #[test]
    fn a_program_that_hangs_is_killed() {
        let call = Call::new("sleep").arg("1000").within(Duration::from_millis(50));
        assert!(matches!(Installed.run(&call), Err(ToolError::TooSlow { .. })));
        assert!(matches!(Installed.follow(&call, &mut |_| ()), Err(ToolError::TooSlow { .. })));
    }
}
