//! Stand-ins for tests: recorded programs, a report that listens.

use std::cell::Cell;
use std::collections::VecDeque;
use std::sync::Mutex;

use super::tools::{Call, Said, ToolError, Tools};
use crate::setup::Report;

/// Programs that answer as they were recorded, in this order.
#[derive(Debug, Default)]
pub(crate) struct Recorded {
    expected: Mutex<VecDeque<(String, Said)>>,
}

impl Recorded {
    /// Each call as an operator would type it, with what the real program said.
    pub fn new(calls: &[(&str, i32, &str, &str)]) -> Self {
        let said = |code, out: &str, err: &str| Said { code, out: out.to_owned(), err: err.to_owned() };
        let all = calls.iter().map(|(call, code, out, err)| ((*call).to_owned(), said(*code, out, err)));
        Self { expected: Mutex::new(all.collect()) }
    }

    /// Fails unless everything was asked for.
    pub fn assert_over(&self) {
        let left = self.expected.lock().unwrap();
        assert!(left.is_empty(), "not run: {left:?}");
    }
}

impl Tools for Recorded {
    fn ask(&self, call: &Call) -> Result<Said, ToolError> {
        let next = self.expected.lock().unwrap().pop_front();
        let (expected, said) = next.unwrap_or_else(|| panic!("nobody expected `{call}`"));
        assert_eq!(call.to_string(), expected);
        Ok(said)
    }
}

/// Keeps what is said; warnings begin with `! `.
#[derive(Debug, Default)]
pub(crate) struct Heard(Mutex<Vec<String>>);

impl Heard {
    pub fn all(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

impl Report for Heard {
    fn info(&self, text: &str) {
        self.0.lock().unwrap().push(text.to_owned());
    }

    fn warning(&self, text: &str) {
        self.0.lock().unwrap().push(format!("! {text}"));
    }
}

thread_local! {
    static LINES_LEFT: Cell<usize> = const { Cell::new(usize::MAX) };
}

/// Does something that ends when so many lines were written to journals by this thread, as if it was killed there.
pub(crate) fn cut_after<T>(lines: usize, work: impl FnOnce() -> T) -> T {
    LINES_LEFT.set(lines);
    let done = work();
    LINES_LEFT.set(usize::MAX);
    done
}

/// A journal is about to write a line.
pub(super) fn line_is_written() -> std::io::Result<()> {
    match LINES_LEFT.get() {
        usize::MAX => Ok(()),
        0 => Err(std::io::Error::other("cut here")),
        left => {
            LINES_LEFT.set(left - 1);
            Ok(())
        }
    }
}
