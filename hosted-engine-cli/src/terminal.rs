//! Where a command's words go: standard output and standard error, or a record of them in tests.

use std::io::Write;

/// How a command ended. Scripts rely on these numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exit(pub u8);

impl Exit {
    /// It was done, or the answer is yes.
    pub const OK: Self = Self(0);
    /// It was not done, or the answer is no.
    pub const FAILED: Self = Self(1);
    /// It could not even be asked: the configuration is missing or incomplete.
    pub const NOT_CONFIGURED: Self = Self(2);
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.0)
    }
}

/// What a command says, line by line.
#[derive(Debug, Default)]
pub struct Terminal {
    record: Option<Record>,
}

/// What was said to a recording [`Terminal`].
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Record {
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl Terminal {
    /// One that only records.
    pub fn recording() -> Self {
        Self { record: Some(Record::default()) }
    }

    /// Whether it only records.
    pub fn is_recording(&self) -> bool {
        self.record.is_some()
    }

    /// What was recorded so far; empty for a real one.
    pub fn recorded(&self) -> Record {
        self.record.clone().unwrap_or_default()
    }

    /// A line on standard output. A reader that went away (`| head`) is no error.
    pub fn say(&mut self, line: impl AsRef<str>) {
        self.print(&format!("{}\n", line.as_ref()));
    }

    /// Text on standard output, as it is.
    pub fn print(&mut self, text: &str) {
        match &mut self.record {
            Some(record) => record.out.push_str(text),
            None => drop(std::io::stdout().write_all(text.as_bytes())),
        }
    }

    /// A line on standard error.
    pub fn complain(&mut self, line: impl AsRef<str>) {
        match &mut self.record {
            Some(record) => {
                record.err.push_str(line.as_ref());
                record.err.push('\n');
            }
            None => drop(writeln!(std::io::stderr(), "{}", line.as_ref())),
        }
    }
}
