//! What sanlock (through libwdmd) and wdmd say to each other: one fixed structure in both directions, in the machine's
//! order. Pure: bytes in, requests out.
//!
//! ```text
//!  0 u32 magic, not used      24 u64 last keep-alive
//!  4 u32 command              32 u64 renewal time    seconds of the sender's monotonic clock
//!  8 u32 length, not used     40 u64 expiry time     the same; both 0: do not watch me any more
//! 12 u32 flags, not used      48 name[128]           NUL-padded
//! 16 u32 test interval
//! 20 u32 fire time-out
//! ```
//!
//! Only two commands have an answer: the status, and the opening of the watchdog that newer releases ask for.

/// Bytes of the structure.
pub const LEN: usize = 48 + NAME_LEN;
const NAME_LEN: usize = 128;

/// One message.
pub type Message = [u8; LEN];

/// What a client wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// It says who it is.
    Register {
        /// By its own word.
        name: String,
    },
    /// The daemon must not end while this client is there.
    RefcountSet,
    /// Now it may.
    RefcountClear,
    /// The client lives, and is dead when it has not said so again for so long. `None`: it wants to be watched no more.
    TestLive {
        /// Seconds from the renewal to the expiry, on the client's clock.
        for_secs: Option<u64>,
    },
    /// How the watchdog is set.
    Status,
    /// Set the watchdog, in seconds.
    OpenWatchdog {
        /// The wanted time.
        fire_timeout: u32,
    },
    /// A command that means nothing here.
    Unknown {
        /// Its number.
        command: u32,
    },
}

fn u32_at(message: &Message, at: usize) -> u32 {
    let field = message[at..].first_chunk().expect("all fields lie within the structure");
    u32::from_ne_bytes(*field)
}

fn u64_at(message: &Message, at: usize) -> u64 {
    let field = message[at..].first_chunk().expect("all fields lie within the structure");
    u64::from_ne_bytes(*field)
}

impl Request {
    /// Reads a message.
    pub fn parse(message: &Message) -> Self {
        match u32_at(message, 4) {
            1 => {
                let name = message[48..].split(|byte| *byte == 0).next().unwrap_or_default();
                Self::Register { name: String::from_utf8_lossy(name).into_owned() }
            }
            2 => Self::RefcountSet,
            3 => Self::RefcountClear,
            4 => {
                let (renewal, expiry) = (u64_at(message, 32), u64_at(message, 40));
                Self::TestLive { for_secs: (expiry > 0).then(|| expiry.saturating_sub(renewal)) }
            }
            5 => Self::Status,
            7 => Self::OpenWatchdog { fire_timeout: u32_at(message, 20) },
            command => Self::Unknown { command },
        }
    }
}

/// The answer to `request` about a watchdog that fires after `fire_timeout` seconds; `last_keepalive` in seconds.
pub fn answer(request: &Message, test_interval: u32, fire_timeout: u32, last_keepalive: u64) -> Message {
    let mut message = *request;
    message[16..20].copy_from_slice(&test_interval.to_ne_bytes());
    message[20..24].copy_from_slice(&fire_timeout.to_ne_bytes());
    message[24..32].copy_from_slice(&last_keepalive.to_ne_bytes());
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(command: u32, renewal: u64, expiry: u64, name: &str) -> Message {
        let mut message = [0; LEN];
        message[4..8].copy_from_slice(&command.to_ne_bytes());
        message[32..40].copy_from_slice(&renewal.to_ne_bytes());
        message[40..48].copy_from_slice(&expiry.to_ne_bytes());
        message[48..48 + name.len()].copy_from_slice(name.as_bytes());
        message
    }

    #[test]
    fn each_command_is_read() {
        let name = "sanlock_hosted-engine:2";
        assert_eq!(Request::parse(&message(1, 0, 0, name)), Request::Register { name: name.to_owned() });
        assert_eq!(Request::parse(&message(4, 1000, 1080, "")), Request::TestLive { for_secs: Some(80) });
        assert_eq!(Request::parse(&message(4, 0, 0, "")), Request::TestLive { for_secs: None });
        assert_eq!(Request::parse(&message(6, 0, 0, "")), Request::Unknown { command: 6 });
        let status = answer(&message(5, 0, 0, ""), 10, 60, 7);
        assert_eq!((u32_at(&status, 16), u32_at(&status, 20), u64_at(&status, 24)), (10, 60, 7));
    }
}
