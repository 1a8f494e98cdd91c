//! What the stand-in does wrong on purpose, until it is told to be normal again.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::time::Duration;

use clock::{Clock, Monotonic, SystemClock};
use serde::Serialize;

use crate::lock;

/// The longest recovery and the longest delay that may be asked for.
const LIMIT: Duration = Duration::from_hours(1);

/// All of it, shared by the parts that obey.
#[derive(Debug, Default)]
pub struct Misbehaviour {
    state: Mutex<State>,
}

#[derive(Debug, Clone, Default)]
#[allow(clippy::struct_excessive_bools, reason = "independent faults, switched one by one")]
struct State {
    silence: bool,
    half_frame: bool,
    no_heart_beat: bool,
    close_in_call: bool,
    reorder_events: bool,
    delay: Duration,
    recovering_until: Option<Monotonic>,
    unknown: BTreeSet<String>,
    dead: bool,
}

/// What is wrong now, for `status`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[allow(clippy::struct_excessive_bools, reason = "independent faults, switched one by one")]
pub struct Shown {
    silence: bool,
    half_frames: bool,
    no_heart_beat: bool,
    close_in_call: bool,
    reorder_events: bool,
    delay_ms: u128,
    recovering: bool,
    unknown: BTreeSet<String>,
    request_thread_died: bool,
}

/// A line that is no command.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not understood; use silence, half-frames, recovering SECONDS, delay MILLISECONDS, close-in-call, \
     unknown VERB, reorder-events, no-heart-beat, normal or status"
)]
pub struct CommandError(String);

impl Misbehaviour {
    /// Carries out one line of the control socket.
    pub fn command(&self, line: &str) -> Result<(), CommandError> {
        let wrong = || CommandError(line.to_owned());
        let mut state = lock(&self.state);
        match line.split_once(' ').unwrap_or((line, "")) {
            ("silence", "") => state.silence = true,
            ("half-frames", "") => state.half_frame = true,
            ("no-heart-beat", "") => state.no_heart_beat = true,
            ("close-in-call", "") => state.close_in_call = true,
            ("reorder-events", "") => state.reorder_events = true,
            ("recovering", seconds) => {
                let seconds = seconds.parse().map(Duration::from_secs).map_err(|_| wrong())?;
                if seconds > LIMIT {
                    return Err(wrong());
                }
                state.recovering_until = Some(SystemClock.monotonic().plus(seconds));
            }
            ("delay", millis) => {
                let delay = millis.parse().map(Duration::from_millis).map_err(|_| wrong())?;
                if delay > LIMIT {
                    return Err(wrong());
                }
                state.delay = delay;
            }
            ("unknown", verb) if !verb.is_empty() && !verb.contains(' ') => {
                state.unknown.insert(verb.to_owned());
            }
            ("normal", "") => *state = State::default(),
            _ => return Err(wrong()),
        }
        Ok(())
    }

    /// What is wrong now.
    pub fn shown(&self) -> Shown {
        let is_recovering = self.is_recovering();
        let state = lock(&self.state);
        Shown {
            silence: state.silence,
            half_frames: state.half_frame,
            no_heart_beat: state.no_heart_beat,
            close_in_call: state.close_in_call,
            reorder_events: state.reorder_events,
            delay_ms: state.delay.as_millis(),
            recovering: is_recovering,
            unknown: state.unknown.clone(),
            request_thread_died: state.dead,
        }
    }

    /// Nothing is sent on any connection.
    pub(crate) fn is_silent(&self) -> bool {
        lock(&self.state).silence
    }

    /// The next answer is to be cut in half; true once for each command.
    pub(crate) fn take_half_frame(&self) -> bool {
        std::mem::take(&mut lock(&self.state).half_frame)
    }

    pub(crate) fn sends_heart_beats(&self) -> bool {
        !lock(&self.state).no_heart_beat
    }

    pub(crate) fn closes_in_calls(&self) -> bool {
        lock(&self.state).close_in_call
    }

    pub(crate) fn reorders_events(&self) -> bool {
        lock(&self.state).reorder_events
    }

    pub(crate) fn delay(&self) -> Duration {
        lock(&self.state).delay
    }

    pub(crate) fn is_recovering(&self) -> bool {
        lock(&self.state).recovering_until.is_some_and(|until| SystemClock.monotonic() < until)
    }

    pub(crate) fn is_unknown(&self, method: &str) -> bool {
        lock(&self.state).unknown.contains(method)
    }

    /// A request without an id ended the thread that takes requests: VDSM answers nobody until it is restarted.
    pub(crate) fn die(&self) {
        lock(&self.state).dead = true;
    }

    pub(crate) fn is_dead(&self) -> bool {
        lock(&self.state).dead
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_command_is_obeyed_until_normal() {
        let wrong = Misbehaviour::default();
        for line in
            ["silence", "half-frames", "recovering 60", "delay 250", "unknown VM.getStats", "no-heart-beat"]
        {
            wrong.command(line).unwrap();
        }
        assert!(wrong.is_silent() && wrong.is_recovering() && wrong.is_unknown("VM.getStats"));
        assert!(wrong.take_half_frame() && !wrong.take_half_frame());
        assert_eq!(wrong.delay(), Duration::from_millis(250));
        wrong.command("normal").unwrap();
        assert_eq!(wrong.shown(), Misbehaviour::default().shown());
    }

    #[test]
    fn nonsense_is_named() {
        for line in
            ["", "silent", "recovering", "recovering soon", "delay -1", "unknown", "delay 99999999999"]
        {
            let error = Misbehaviour::default().command(line).unwrap_err().to_string();
            assert!(error.contains("half-frames"), "{error}");
        }
    }
}
