//! How far something is: a bar on a terminal, a line now and then elsewhere.

use std::io::IsTerminal;

use indicatif::{HumanBytes, ProgressBar, ProgressStyle};

use crate::terminal::Terminal;

/// Lines are said at each such share, in percent, when there is no bar.
const STEP: u64 = 25;

/// Shows the progress of one thing; a bar vanishes when this is dropped.
#[derive(Debug)]
pub struct Progress {
    bar: Option<ProgressBar>,
    /// What the last line told: what is done, and which share.
    said: Option<(String, u64)>,
}

impl Progress {
    /// A bar when people look at `terminal`.
    pub fn new(terminal: &Terminal) -> Self {
        let is_watched = !terminal.is_recording() && std::io::stderr().is_terminal();
        let bar = is_watched.then(|| {
            let style = ProgressStyle::with_template("{msg} [{bar:30}] {bytes} of {total_bytes}");
            // The template is fixed, and good.
            ProgressBar::new(0).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
        });
        Self { bar, said: None }
    }

    /// `done` bytes of `what` are done, and so many are left.
    pub fn bytes(&mut self, what: &str, done: u64, left: u64, terminal: &mut Terminal) {
        let total = done.saturating_add(left).max(1);
        if let Some(bar) = &self.bar {
            bar.set_message(what.to_owned());
            bar.set_length(total);
            bar.set_position(done);
            return;
        }
        let share = percent(done, left) / STEP * STEP;
        let now = (what.to_owned(), share);
        if self.said.as_ref() != Some(&now) {
            terminal.say(format!("{what}: {} % of {}", percent(done, left), HumanBytes(total)));
            self.said = Some(now);
        }
    }

    /// `done` of `total` of `what` are done, whatever is counted. The bar goes when all is.
    pub fn share(&mut self, what: &str, done: u64, total: u64, terminal: &mut Terminal) {
        let left = total.saturating_sub(done);
        if let Some(bar) = &self.bar {
            if left == 0 {
                bar.set_length(0);
                bar.finish_and_clear();
                return;
            }
            if bar.is_finished() || bar.length() == Some(0) {
                let style = ProgressStyle::with_template("{msg} [{bar:30}] {percent} %");
                // The template is fixed, and good.
                bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
                bar.reset();
            }
            bar.set_message(what.to_owned());
            bar.set_length(total);
            bar.set_position(done);
            return;
        }
        let share = percent(done, left) / STEP * STEP;
        let now = (what.to_owned(), share);
        if self.said.as_ref() != Some(&now) {
            terminal.say(format!("{what}: {} %", percent(done, left)));
            self.said = Some(now);
        }
    }

    /// Runs `say` with the bar out of the way.
    pub fn aside(&self, say: impl FnOnce()) {
        match &self.bar {
            Some(bar) => bar.suspend(say),
            None => say(),
        }
    }

    /// A line that stays; said once when it does not change.
    pub fn line(&mut self, text: &str, terminal: &mut Terminal) {
        let now = (text.to_owned(), 0);
        if self.said.as_ref() == Some(&now) {
            return;
        }
        self.said = Some(now);
        match &self.bar {
            Some(bar) => bar.suspend(|| terminal.say(text)),
            None => terminal.say(text),
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// The share of what is done.
pub fn percent(done: u64, left: u64) -> u64 {
    let total = u128::from(done) + u128::from(left);
    // Not more than 100.
    u64::try_from(u128::from(done) * 100 / total.max(1)).unwrap_or(100)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_terminal_there_is_a_line_at_each_quarter() {
        let mut terminal = Terminal::recording();
        let mut progress = Progress::new(&terminal);
        progress.line("h2 gets ready", &mut terminal);
        progress.line("h2 gets ready", &mut terminal);
        for done in [0, 1, 30, 31, 49, 80, 100] {
            progress.bytes("Moving", done << 20, (100 - done) << 20, &mut terminal);
        }
        assert_eq!(
            terminal.recorded().out,
            "h2 gets ready\nMoving: 0 % of 100.00 MiB\nMoving: 30 % of 100.00 MiB\nMoving: 80 % of 100.00 MiB\n\
             Moving: 100 % of 100.00 MiB\n"
        );
    }

    #[test]
    fn a_share_is_said_at_each_quarter_too() {
        let mut terminal = Terminal::recording();
        let mut progress = Progress::new(&terminal);
        for done in [0, 10, 30, 60] {
            progress.share("Waiting", done, 60, &mut terminal);
        }
        assert_eq!(terminal.recorded().out, "Waiting: 0 %\nWaiting: 50 %\nWaiting: 100 %\n");
    }

    #[test]
    fn a_share_of_nothing_and_of_very_much_is_a_number() {
        assert_eq!((percent(0, 0), percent(u64::MAX, u64::MAX), percent(5, 0)), (0, 50, 100));
    }
}
