//! What the operator sees while set-up works: one line for each step.

/// Takes the lines.
pub trait Report {
    /// A step begins, or something worth knowing.
    fn info(&self, text: &str);
    /// Something that the operator should look at.
    fn warning(&self, text: &str);
    /// So much of the total of something long is done: bytes, seconds, whatever it counts. The last call has
    /// `done` at least `total`. Shown as a share; unless it is overridden, not at all.
    fn progress(&self, what: &str, done: u64, total: u64) {
        let _ = (what, done, total);
    }
}

/// Prints `[ INFO  ] …` on standard output and `[WARNING] …` on standard error.
#[derive(Debug, Clone, Copy, Default)]
pub struct Lines;

impl Report for Lines {
    fn info(&self, text: &str) {
        println!("[ INFO  ] {text}");
    }

    fn warning(&self, text: &str) {
        eprintln!("[WARNING] {text}");
    }
}

/// Says nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Quiet;

impl Report for Quiet {
    fn info(&self, _: &str) {}
    fn warning(&self, _: &str) {}
}
