//! Which fault one host's storage has now. Shared by the gate, the file system and the control socket.

use std::fmt;
use std::str::FromStr;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How one host's storage behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// As it should.
    #[default]
    Ok,
    /// Reads work; whatever would change the storage fails with `EROFS`.
    ReadOnly,
    /// Everything fails at once with `EIO`.
    Eio,
    /// Nothing is answered. Requests wait until the mode changes or their process is killed.
    Hang,
    /// Every request is answered this much later.
    Delay(Duration),
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ok => f.write_str("ok"),
            Self::ReadOnly => f.write_str("read-only"),
            Self::Eio => f.write_str("eio"),
            Self::Hang => f.write_str("hang"),
            Self::Delay(by) => write!(f, "delay {}", by.as_millis()),
        }
    }
}

/// The text names no mode.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "\"{0}\" is no storage mode: use ok, read-only, eio, hang, or delay and milliseconds (at most 600000)"
)]
pub struct UnknownMode(String);

impl FromStr for Mode {
    type Err = UnknownMode;

    fn from_str(text: &str) -> Result<Self, UnknownMode> {
        let unknown = || UnknownMode(text.to_owned());
        match text.trim() {
            "ok" => Ok(Self::Ok),
            "read-only" => Ok(Self::ReadOnly),
            "eio" => Ok(Self::Eio),
            "hang" => Ok(Self::Hang),
            other => {
                let millis = other.strip_prefix("delay ").ok_or_else(unknown)?;
                let millis: u64 = millis.trim().parse().map_err(|_| unknown())?;
                if millis > 600_000 {
                    return Err(unknown());
                }
                Ok(Self::Delay(Duration::from_millis(millis)))
            }
        }
    }
}

/// The switch.
#[derive(Debug, Default)]
pub struct Fault {
    mode: Mutex<Mode>,
    changed: Condvar,
}

impl Fault {
    fn lock(&self) -> MutexGuard<'_, Mode> {
        self.mode.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The mode now.
    pub fn mode(&self) -> Mode {
        *self.lock()
    }

    /// Switches. On return no further request is taken from the kernel in the old mode.
    pub fn set(&self, mode: Mode) {
        *self.lock() = mode;
        self.changed.notify_all();
    }

    /// Runs `take` as soon as the storage does not hang; no switch happens while it runs, so it must not block.
    pub fn unless_hanging<T>(&self, take: impl FnOnce(Mode) -> T) -> T {
        let mut mode = self.lock();
        while *mode == Mode::Hang {
            mode = self.changed.wait(mode).unwrap_or_else(PoisonError::into_inner);
        }
        take(*mode)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_read_as_they_are_written() {
        for mode in
            [Mode::Ok, Mode::ReadOnly, Mode::Eio, Mode::Hang, Mode::Delay(Duration::from_millis(1500))]
        {
            assert_eq!(mode.to_string().parse(), Ok(mode));
        }
    }

    #[test]
    fn an_unknown_mode_is_named_in_the_error() {
        for text in ["", "hung", "delay", "delay -1", "delay 600001"] {
            let error = text.parse::<Mode>().expect_err(text).to_string();
            assert!(error.contains(&format!("\"{text}\"")), "{error}");
        }
    }
}
