//! Messages between the hosts of a lockspace. A host sets one, its daemon writes it with its next renewal of the host
//! id, and the addressed hosts' daemons read it with theirs: about three renewals for a question and its answer. What
//! the bits mean is a matter of those who send and listen.
//!
//! ```text
//! host event (32)        what a listener gets (80)
//!  0  u64 host id         0  header
//!  8  u64 generation      32 host event
//!  16 u64 event bits      64 u64 host id of the sender
//!  24 u64 data            72 u64 its generation
//! ```

use std::time::Duration;

use crate::client::Client;
use crate::error::{Operation, SanlockError};
use crate::names::LockspaceName;
use crate::transport::{Connection, Request};
use crate::wire::{self, Command, HEADER_LEN};

/// Bytes of a host event.
const EVENT_LEN: usize = 32;
/// Bytes of what a listener gets.
const RECEIVED_LEN: usize = HEADER_LEN + EVENT_LEN + 16;
/// The daemon fills the generation in: the present one of the addressed host.
const CURRENT_GENERATION: u32 = 1;

/// A message, as it is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct HostEvent {
    /// The addressed host.
    pub host_id: u64,
    /// Its generation; 0 for the present one.
    pub generation: u64,
    /// What there is to say.
    pub event: u64,
    /// More of it.
    pub data: u64,
}

/// A message, as it arrives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ReceivedEvent {
    /// The message.
    pub event: HostEvent,
    /// The host that set it.
    pub from: u64,
    /// That host's generation.
    pub from_generation: u64,
}

impl HostEvent {
    fn to_bytes(self) -> [u8; EVENT_LEN] {
        let mut bytes = [0; EVENT_LEN];
        for (place, field) in
            bytes.chunks_exact_mut(8).zip([self.host_id, self.generation, self.event, self.data])
        {
            place.copy_from_slice(&field.to_le_bytes());
        }
        bytes
    }
}

impl ReceivedEvent {
    /// From the bytes behind the header.
    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let mut fields =
            bytes.chunks_exact(8).map(|field| u64::from_le_bytes(field.try_into().unwrap_or_default()));
        let mut next = || fields.next();
        let event = HostEvent { host_id: next()?, generation: next()?, event: next()?, data: next()? };
        Some(Self { event, from: next()?, from_generation: next()? })
    }
}

impl Client {
    /// Sets a message to a host of a joined lockspace, for about 6 renewals. Another message that was set lately is not
    /// replaced: -16 then.
    pub fn set_event(&self, lockspace: &LockspaceName, event: HostEvent) -> Result<(), SanlockError> {
        let mut request = Request::new(Operation::SetEvent, Command::SetEvent);
        request.flags = if event.generation == 0 { CURRENT_GENERATION } else { 0 };
        request.body = wire::named_lockspace_body(lockspace, 0);
        request.body.extend(event.to_bytes());
        self.connect()?.ask(&request).map(drop)
    }
}

/// Listens to the messages of one joined lockspace, until it is dropped.
#[derive(Debug)]
pub struct EventWatch {
    connection: Connection,
    client: Client,
    lockspace: LockspaceName,
}

impl EventWatch {
    /// Begins to listen. The daemon has places for 32 listeners in each lockspace.
    pub fn register(client: &Client, lockspace: &LockspaceName) -> Result<Self, SanlockError> {
        let mut connection = client.connect()?;
        let mut request = Request::new(Operation::RegisterEvents, Command::RegEvent);
        request.body = wire::named_lockspace_body(lockspace, 0);
        request.body.extend([0; EVENT_LEN]);
        connection.ask(&request)?;
        Ok(Self { connection, client: client.clone(), lockspace: lockspace.clone() })
    }

    /// The next message that is addressed to this host; `None` when none has come within `patience`.
    pub fn next(&mut self, patience: Duration) -> Result<Option<ReceivedEvent>, SanlockError> {
        let mut bytes = [0; RECEIVED_LEN];
        if !self.connection.listen(Operation::RegisterEvents, &mut bytes, patience)? {
            return Ok(None);
        }
        let bad = |detail: &str| SanlockError::protocol(Operation::RegisterEvents, detail.to_owned());
        let (head, rest) = bytes.split_at(HEADER_LEN);
        let word = |at: usize| {
            head.get(at..at + 4).map(|word| u32::from_le_bytes(word.try_into().unwrap_or_default()))
        };
        // The protocol number in a message's header is another one than in answers.
        if word(0) != Some(wire::MAGIC) || word(16).map(u64::from) != Some(RECEIVED_LEN as u64) {
            return Err(bad("what came is no message between hosts"));
        }
        ReceivedEvent::from_bytes(rest).map(Some).ok_or_else(|| bad("a message was cut short"))
    }
}

impl Drop for EventWatch {
    fn drop(&mut self) {
        // The daemon never looks at a listener's connection by itself: the word makes it free the place, when it is told
        // to look. Should that fail it frees the place when it cannot send the next message.
        if self.connection.whisper(Operation::EndEvents, &1_u32.to_le_bytes()).is_ok() {
            let mut request = Request::new(Operation::EndEvents, Command::EndEvent);
            request.body = wire::named_lockspace_body(&self.lockspace, 0);
            let _ = self.client.connect().and_then(|mut connection| connection.ask(&request));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_read_as_it_was_written() {
        let event = HostEvent { host_id: 2, generation: 3, event: 1 << 40, data: u64::MAX };
        let mut bytes = event.to_bytes().to_vec();
        assert_eq!((bytes[0], bytes[8], bytes[21]), (2, 3, 1));
        bytes.extend(7_u64.to_le_bytes());
        assert_eq!(ReceivedEvent::from_bytes(&bytes), None);
        bytes.extend(9_u64.to_le_bytes());
        let received = ReceivedEvent { event, from: 7, from_generation: 9 };
        assert_eq!(ReceivedEvent::from_bytes(&bytes), Some(received));
    }
}
