//! How far something is: a bar on a terminal, a line now and then elsewhere.

use std::io::IsTerminal;
use std::time::Duration;

use clock::{Clock as _, Monotonic, SystemClock};
use indicatif::{HumanBytes, ProgressBar, ProgressStyle};

use crate::terminal::Terminal;

/// Lines are said at each such share of what is moved, in percent, when there is no bar.
const STEP: u64 = 25;
/// What takes no longer than that is not worth a line.
const QUIET: Duration = Duration::from_secs(10);
/// Of what takes longer, a line is said when so much more is done, in percent,
const TENTH: u64 = 10;
/// or when nothing was said for so long; a log that stands still makes people worry.
const SILENCE: Duration = Duration::from_mins(1);

/// Shows the progress of one thing; a bar vanishes when this is dropped.
#[derive(Debug)]
pub struct Progress {
    bar: Option<ProgressBar>,
    /// What the last line told: what is done, and which share.
    said: Option<(String, u64)>,
    /// The share that is told where there is no bar.
    pace: Option<Pace>,
}

/// When a share is worth a line.
#[derive(Debug)]
struct Pace {
    what: String,
    begin: Monotonic,
    /// When, and how much it was.
    last: Option<(Monotonic, u64)>,
}

impl Pace {
    /// Whether to say that `share` percent are done; counts as said then.
    fn is_due(&mut self, share: u64, now: Monotonic) -> bool {
        let is_due = match self.last {
            // Who has seen that it began is told that it ended.
            Some((_, said)) if share >= 100 => said < 100,
            Some((at, said)) => share / TENTH > said / TENTH || now.saturating_since(at) >= SILENCE,
            None => share < 100 && now.saturating_since(self.begin) >= QUIET,
        };
        if is_due {
            self.last = Some((now, share));
        }
        is_due
    }
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
        Self { bar, said: None, pace: None }
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
        self.share_at(what, percent(done, left), SystemClock.monotonic(), terminal);
    }

    /// A line now and then for what takes long, and none for what does not.
    fn share_at(&mut self, what: &str, share: u64, now: Monotonic, terminal: &mut Terminal) {
        let pace = match &mut self.pace {
            Some(pace) if pace.what == what => pace,
            other => other.insert(Pace { what: what.to_owned(), begin: now, last: None }),
        };
        if pace.is_due(share, now) {
            terminal.say(format!("{what}: {share} %"));
        }
        if share >= 100 {
            self.pace = None;
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

    /// What is said of shares, each with the second in which it is reached.
    fn said(shares: &[(u64, u64)]) -> String {
        let mut terminal = Terminal::recording();
        let mut progress = Progress::new(&terminal);
        let begin = SystemClock.monotonic();
        for (second, share) in shares {
            progress.share_at("Copying", *share, begin.plus(Duration::from_secs(*second)), &mut terminal);
        }
        terminal.recorded().out.replace("Copying: ", "").replace(" %\n", " ")
    }

    #[test]
    fn without_a_terminal_a_short_thing_has_no_line() {
        assert_eq!(said(&[(0, 0), (3, 40), (9, 100)]), "");
        // That it is over says the next line.
        assert_eq!(said(&[(0, 0), (12, 100)]), "");
    }

    #[test]
    fn a_long_thing_has_a_line_at_each_tenth_and_when_it_stands_still() {
        let steady: Vec<_> = (0..=50).map(|second| (second, second * 2)).collect();
        assert_eq!(said(&steady), "20 30 40 50 60 70 80 90 100 ");
        let slow: Vec<_> = (0..=150).map(|second| (second, second / 50)).collect();
        assert_eq!(said(&slow), "0 1 2 ");
    }

    #[test]
    fn what_comes_next_begins_anew() {
        let mut terminal = Terminal::recording();
        let mut progress = Progress::new(&terminal);
        let begin = SystemClock.monotonic();
        let at = |second| begin.plus(Duration::from_secs(second));
        for (what, share, second) in [
            ("A", 0, 0),
            ("A", 50, 20),
            ("A", 100, 30),
            ("A", 0, 31),
            ("A", 10, 40),
            ("B", 0, 50),
            ("B", 10, 61),
        ] {
            progress.share_at(what, share, at(second), &mut terminal);
        }
        assert_eq!(terminal.recorded().out, "A: 50 %\nA: 100 %\nB: 10 %\n");
    }

    #[test]
    fn a_share_of_nothing_and_of_very_much_is_a_number() {
        assert_eq!((percent(0, 0), percent(u64::MAX, u64::MAX), percent(5, 0)), (0, 50, 100));
    }
}
