//! How long the guest stood still, by its own clock, and how long nobody could reach it.
//!
//! The clock of a guest stands still while its processors do: between the last instruction on one host and the first
//! on the next. Its kernel tells its clock to whoever asks with an ICMP time-stamp request (RFC 792), in milliseconds
//! and without a program's help. Asked all the time from outside, the longest silence shows how long it was out of
//! reach, and by how much less its clock went on meanwhile is for how long it stood still.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::OwnedFd;
use std::time::Duration;

use clock::{Clock, Monotonic, SystemClock};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, connect, ipproto, recv, send, socket_with,
};

/// Pause between two questions, and so what a silence is exact to.
const ASK_EVERY: Duration = Duration::from_millis(10);
/// So much on either side of a silence is looked at: the quickest of some answers tells the clocks' difference best.
const BESIDE: Duration = Duration::from_millis(500);
/// The clock begins anew at midnight.
const DAY_MS: i64 = 86_400_000;

const REQUEST: u8 = 13;
const REPLY: u8 = 14;
/// Type, code, checksum, identifier, number, and three times of 4 bytes.
const MESSAGE: usize = 20;

/// One answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tick {
    /// When it came.
    pub at: Monotonic,
    /// What the guest's clock showed when it was asked: milliseconds since midnight.
    pub guest_ms: u32,
}

/// The longest silence of a guest that was not restarted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pause {
    /// When it began.
    pub at: Monotonic,
    /// From the last answer before to the first after.
    pub silent: Duration,
    /// For so much of it the guest's clock, and the guest, stood still.
    pub stood_still: Duration,
}

impl std::fmt::Display for Pause {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { silent, stood_still, .. } = self;
        write!(f, "{:.3} s (silent {:.3} s)", stood_still.as_secs_f64(), silent.as_secs_f64())
    }
}

/// The longest silence among `ticks`; `None` with fewer than two answers.
pub fn longest_pause(ticks: &[Tick]) -> Option<Pause> {
    let silence = |pair: &[Tick]| pair[1].at.saturating_since(pair[0].at);
    let (last, silent) = ticks
        .windows(2)
        .map(silence)
        .enumerate()
        .max_by_key(|(index, silent)| (*silent, usize::MAX - index))?;
    let (before, after) = ticks.split_at(last + 1);
    let (gone, back) = (before.last()?, after.first()?);
    let near = |at: Monotonic, other: Monotonic| at.max(other).saturating_since(at.min(other)) <= BESIDE;
    let smallest = |ticks: &[Tick], edge: &Tick| {
        let beside = ticks.iter().filter(|tick| near(tick.at, edge.at));
        beside.map(|tick| behind(tick, gone)).min().unwrap_or(0)
    };
    let micros = smallest(after, back) - smallest(before, gone);
    Some(Pause {
        at: gone.at,
        silent,
        stood_still: Duration::from_micros(u64::try_from(micros).unwrap_or(0)).min(silent),
    })
}

/// By how much more the guest's clock is behind ours at `tick` than at `start`, in microseconds.
fn behind(tick: &Tick, start: &Tick) -> i64 {
    let micros = |at: Monotonic| i64::try_from(at.since_start().as_micros()).unwrap_or(i64::MAX);
    let guest = (i64::from(tick.guest_ms) - i64::from(start.guest_ms)).rem_euclid(DAY_MS);
    // More than half a day ahead is a little behind.
    let guest = if guest > DAY_MS / 2 { guest - DAY_MS } else { guest };
    micros(tick.at) - micros(start.at) - guest * 1000
}

/// Asks the guest at `address` for its clock, through the network in which the calling thread is.
#[derive(Debug)]
pub struct Asker {
    socket: OwnedFd,
    identifier: u16,
    number: u16,
}

impl Asker {
    /// One that has not asked yet.
    pub fn new(address: Ipv4Addr) -> std::io::Result<Self> {
        let (family, kind) = (AddressFamily::INET, SocketType::RAW);
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(family, kind, flags, Some(ipproto::ICMP))?;
        connect(&socket, &SocketAddrV4::new(address, 0))?;
        // The low half is enough to tell two sandboxes' questions apart.
        let [_, _, high, low] = std::process::id().to_be_bytes();
        Ok(Self { socket, identifier: u16::from_be_bytes([high, low]), number: 0 })
    }

    /// Asks once, and takes in what is answered until it is time to ask again.
    pub fn ask(&mut self, mut take: impl FnMut(Tick)) {
        self.number = self.number.wrapping_add(1);
        // A guest that is out of reach is what this is for.
        let _ = send(&self.socket, &request(self.identifier, self.number), SendFlags::empty());
        let due = SystemClock.monotonic().plus(ASK_EVERY);
        loop {
            let left = due.saturating_since(SystemClock.monotonic());
            if left.is_zero() {
                return;
            }
            let mut ready = [PollFd::new(&self.socket, PollFlags::IN)];
            let time = Timespec { tv_sec: 0, tv_nsec: left.subsec_nanos().into() };
            if !matches!(poll(&mut ready, Some(&time)), Ok(1..) | Err(Errno::INTR)) {
                return;
            }
            let mut packet = [0; 128];
            if let Ok((length, _)) = recv(&self.socket, &mut packet, RecvFlags::empty())
                && let Some(guest_ms) = answer(&packet[..length], self.identifier)
            {
                take(Tick { at: SystemClock.monotonic(), guest_ms });
            }
        }
    }
}

fn request(identifier: u16, number: u16) -> [u8; MESSAGE] {
    let mut message = [0; MESSAGE];
    message[0] = REQUEST;
    message[4..6].copy_from_slice(&identifier.to_be_bytes());
    message[6..8].copy_from_slice(&number.to_be_bytes());
    let sum = checksum(&message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    message
}

/// The time in an IPv4 packet that answers `identifier`.
fn answer(packet: &[u8], identifier: u16) -> Option<u32> {
    let header = usize::from(packet.first()? & 0xf) * 4;
    let message = packet.get(header..header + MESSAGE)?;
    let is_ours = message[0] == REPLY && message[4..6] == identifier.to_be_bytes();
    let time = u32::from_be_bytes(message[12..16].try_into().ok()?);
    // With the highest bit set it is something else than milliseconds since midnight.
    (is_ours && time >> 31 == 0).then_some(time)
}

/// The checksum of the Internet's protocols (RFC 1071).
fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)));
    let mut sum: u32 = words.sum();
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    // Folded to 16 bits above.
    !u16::try_from(sum).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers every 10 ms that take `delay` µs, from a clock that is `lag` ms behind.
    fn ticks(from_ms: u64, to_ms: u64, lag: u64, delay: u64) -> Vec<Tick> {
        (from_ms..to_ms)
            .step_by(10)
            .map(|ms| Tick {
                at: Monotonic::from_duration(Duration::from_micros(ms * 1000 + delay + (ms % 30) * 200)),
                guest_ms: u32::try_from((ms + 86_399_000 - lag) % 86_400_000).unwrap(),
            })
            .collect()
    }

    #[test]
    fn a_silence_is_divided_into_standing_still_and_being_out_of_reach() {
        // Out of reach from 2000 to 2600 ms, of which its clock missed 150; midnight is at 1000.
        let all = [ticks(0, 2000, 0, 300), ticks(2600, 4000, 150, 300)].concat();
        let pause = longest_pause(&all).unwrap();
        assert_eq!(pause.stood_still.as_millis(), 150, "{pause:?}");
        assert!((606..=616).contains(&pause.silent.as_millis()), "{pause:?}");
        assert_eq!(pause.at, all[199].at);
        assert!(pause.to_string().starts_with("0.150 s (silent 0.6"), "{pause}");
    }

    #[test]
    fn an_undisturbed_guest_never_stood_still() {
        let pause = longest_pause(&ticks(0, 4000, 0, 300)).unwrap();
        assert!(pause.stood_still < Duration::from_millis(1), "{pause:?}");
        assert_eq!(longest_pause(&[]), None);
        assert_eq!(longest_pause(&ticks(0, 10, 0, 0)), None);
    }

    #[test]
    fn a_question_is_well_formed_and_only_its_answer_counts() {
        let question = request(0x1234, 7);
        assert_eq!((question[0], checksum(&question)), (REQUEST, 0));
        let mut packet = [&[0x45; 20][..], &question].concat();
        packet[20] = REPLY;
        packet[32..36].copy_from_slice(&5_000_u32.to_be_bytes());
        assert_eq!(answer(&packet, 0x1234), Some(5000));
        assert_eq!(answer(&packet, 0x1235), None);
        assert_eq!(answer(&packet[..39], 0x1234), None);
        packet[32] = 0x80;
        assert_eq!(answer(&packet, 0x1234), None);
        assert_eq!(answer(&[], 0), None);
    }
}
