//! What the daemon says about itself: the first state of its status, a fixed head and a text of `key=value` words.
//!
//! ```text
//!  0 u32 type (1: the daemon)   12 padding      24 name[48]
//!  4 u32 flags                  16 u64 data64   72 u32 bytes of the text
//!  8 u32 data32                                 76 padding; the text follows at 80
//! ```
//!
//! Releases add words and change their order, so words are looked up by their key, and those that are not there are unknown.

use super::WireError;
use super::decode::u32_at;
use crate::model::DaemonSettings;

/// Bytes before the text.
pub const STATE_LEN: usize = 80;
/// Longest text; the daemon's own limit.
pub const STATE_TEXT: usize = 4096;
/// The type of the daemon's own state. In a request: no other states are wanted.
pub const STATE_DAEMON: u32 = 1;

const TEXT_LEN: usize = 72;

/// How long the text is that follows the head of a state, which must be the daemon's own.
pub fn state_text_len(head: &[u8; STATE_LEN]) -> Result<usize, WireError> {
    const WHAT: &str = "the daemon's state";
    let kind = u32_at(WHAT, head, 0)?;
    if kind != STATE_DAEMON {
        return Err(WireError(format!("its first state has type {kind} instead of {STATE_DAEMON}")));
    }
    let len = u32_at(WHAT, head, TEXT_LEN)?;
    usize::try_from(len)
        .ok()
        .filter(|len| *len <= STATE_TEXT)
        .ok_or_else(|| WireError(format!("its state has {len} bytes of text, more than {STATE_TEXT}")))
}

/// The daemon's settings in that text.
pub fn daemon_settings(text: &[u8]) -> Result<DaemonSettings, WireError> {
    let end = text.iter().position(|byte| *byte == 0).unwrap_or(text.len());
    let text = std::str::from_utf8(&text[..end])
        .map_err(|_| WireError("the text of its state is not text".to_owned()))?;
    let number = |key: &str| {
        let word = text.split(' ').find_map(|word| word.strip_prefix(key)?.strip_prefix('='))?;
        Some(word.parse::<u32>().map_err(|_| WireError(format!("its {key} is {word:?}, which is no number"))))
    };
    Ok(DaemonSettings {
        uses_watchdog: number("use_watchdog").transpose()?.map(|number| number != 0),
        io_timeout: number("io_timeout").transpose()?,
        watchdog_fire_timeout: number("watchdog_fire_timeout").transpose()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_found_by_their_keys_whatever_stands_around_them() {
        let text = b"our_host_name=a use_watchdog=1 write_init_io_timeout=60 io_timeout=10 watchdog_fire_timeout=60 x\0";
        let settings = daemon_settings(text).unwrap();
        assert_eq!(
            settings,
            DaemonSettings {
                uses_watchdog: Some(true),
                io_timeout: Some(10),
                watchdog_fire_timeout: Some(60)
            }
        );
        let old = daemon_settings(b"our_host_name=a use_watchdog=0").unwrap();
        assert_eq!((old.uses_watchdog, old.io_timeout), (Some(false), None));
        assert_eq!(daemon_settings(b"").unwrap(), DaemonSettings::default());
        assert!(daemon_settings(b"use_watchdog=yes").is_err());
        assert!(daemon_settings(b"\xff").is_err());
    }

    #[test]
    fn only_the_daemons_own_state_of_a_believable_length_is_read() {
        let head = |kind: u32, len: u32| {
            let mut head = [0; STATE_LEN];
            head[..4].copy_from_slice(&kind.to_le_bytes());
            head[TEXT_LEN..TEXT_LEN + 4].copy_from_slice(&len.to_le_bytes());
            state_text_len(&head)
        };
        assert_eq!(head(1, 700), Ok(700));
        assert!(head(2, 700).is_err());
        assert!(head(1, 4097).is_err());
    }
}
