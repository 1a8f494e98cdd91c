//! Who owes whom a sign of life, and how often. No clock in here.
//!
//! Each side says in its `heart-beat` header how often it can send (first number) and how often it wants to hear
//! (second), in milliseconds, 0 for not at all. What applies to a direction is the larger of what one can and the other
//! wants. We can nothing and want 24 s: VDSM's own clients ask for the same.

use std::time::Duration;

use crate::frame::Frame;

/// The header's name.
pub(super) const HEADER: &str = "heart-beat";

/// Shorter wishes of a server are raised to this, as VDSM does with its clients'.
const SHORTEST: Duration = Duration::from_secs(1);

/// What was agreed at the connection's begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct HeartBeat {
    /// After so much silence of the server it gets a `Host.ping2`, when it does not promise heart-beats.
    pub(super) probe: Option<Duration>,
    /// After so much silence of the server the connection is dead: a quarter more than agreed.
    pub(super) dead: Duration,
    /// After so much silence of ours the server gets a line end, when it wants any: half of what it wants.
    pub(super) beat: Option<Duration>,
}

impl HeartBeat {
    /// Of the server's `CONNECTED` and of how often we want to hear of it. A header that cannot be read counts as none,
    /// as VDSM counts ours.
    pub(super) fn agree(wanted: Duration, connected: &Frame) -> HeartBeat {
        let (can, wants) = connected
            .header(HEADER)
            .and_then(|value| value.split_once(','))
            .map_or((None, None), |(can, wants)| (interval(can), interval(wants)));
        HeartBeat {
            // A server that promises less than we want is helped to say more.
            probe: can.is_none_or(|can| can > wanted).then(|| wanted / 2),
            dead: wanted + wanted / 4,
            beat: wants.map(|wants| wants.max(SHORTEST) / 2),
        }
    }
}

fn interval(text: &str) -> Option<Duration> {
    match text.trim().parse::<u64>() {
        Ok(0) | Err(_) => None,
        Ok(milliseconds) => Some(Duration::from_millis(milliseconds)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agree(header: &str) -> HeartBeat {
        let connected = Frame::new("CONNECTED", &[("version", "1.2"), (HEADER, header)]);
        HeartBeat::agree(Duration::from_secs(24), &connected)
    }

    #[test]
    fn a_promising_server_is_not_probed() {
        for header in ["24000,0", "1000,0", "1,0", " 24000 , 0 "] {
            let agreed = agree(header);
            assert_eq!(agreed.probe, None, "{header}");
            assert_eq!(agreed.dead, Duration::from_secs(30), "{header}");
            assert_eq!(agreed.beat, None, "{header}");
        }
    }

    #[test]
    fn a_server_that_promises_too_little_is_probed() {
        for header in ["0,0", "60000,0", "", "24000", "nonsense,0", "-1,0", "99999999999999999999,0"] {
            let agreed = agree(header);
            assert_eq!(agreed.probe, Some(Duration::from_secs(12)), "{header}");
            assert_eq!(agreed.dead, Duration::from_secs(30), "{header}");
        }
    }

    #[test]
    fn a_server_gets_the_beats_it_wants_in_good_time() {
        assert_eq!(agree("24000,10000").beat, Some(Duration::from_secs(5)));
        assert_eq!(agree("0,1").beat, Some(Duration::from_millis(500)));
        let longest = format!("0,{}", u64::MAX);
        assert_eq!(agree(&longest).beat, Some(Duration::from_millis(u64::MAX) / 2));
    }
}
