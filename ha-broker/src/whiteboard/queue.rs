//! What to write next. Pure: no I/O, no clock, no locks.
//!
//! Each block has its own slot, so that nothing waits behind another block and nothing replaces another block's
//! write. In a host's slot the newest wins: an older status has no worth once there is a newer one. In the cluster
//! block's slot changes are put together line by line, so none is lost. All callers whose writes were put together
//! get the result of the one that went to storage.

use std::collections::BTreeMap;

use super::CLUSTER_BLOCK;
use super::commit::Payload;
use super::error::PutError;

/// Callers that may wait for one block.
pub const MAX_WAITING: usize = 64;

/// The next write, and who waits for it.
#[derive(Debug)]
pub struct Job<T> {
    /// Where to.
    pub block: u16,
    /// What.
    pub payload: Payload,
    /// The callers.
    pub tickets: Vec<T>,
}

/// The slots. `T` stands for a waiting caller.
#[derive(Debug)]
pub struct WriteQueues<T> {
    slots: BTreeMap<u16, (Payload, Vec<T>)>,
    last: Option<u16>,
}

impl<T> Default for WriteQueues<T> {
    fn default() -> Self {
        Self { slots: BTreeMap::new(), last: None }
    }
}

impl<T> WriteQueues<T> {
    /// Adds a write.
    ///
    /// # Errors
    /// [`PutError::Busy`], with the caller's ticket, when too many wait for this block.
    pub fn push(&mut self, block: u16, payload: Payload, ticket: T) -> Result<(), (PutError, T)> {
        match self.slots.get_mut(&block) {
            None => {
                self.slots.insert(block, (payload, vec![ticket]));
            }
            Some((_, tickets)) if tickets.len() >= MAX_WAITING => {
                return Err((PutError::Busy { block, waiting: tickets.len() }, ticket));
            }
            Some((waiting, tickets)) => {
                match (waiting, payload) {
                    (Payload::Cluster(earlier), Payload::Cluster(later)) => earlier.absorb(later),
                    (waiting, payload) => *waiting = payload,
                }
                tickets.push(ticket);
            }
        }
        Ok(())
    }

    /// Takes the next write: the cluster's first, but never twice while a host's waits; hosts in turn.
    pub fn pop(&mut self) -> Option<Job<T>> {
        let cluster_waits = self.slots.contains_key(&CLUSTER_BLOCK);
        let host = match self.last {
            Some(last) => self
                .slots
                .range(last.saturating_add(1).max(1)..)
                .next()
                .or_else(|| self.slots.range(1..).next()),
            None => self.slots.range(1..).next(),
        };
        let block = match host.map(|(block, _)| *block) {
            Some(host) if !cluster_waits || self.last == Some(CLUSTER_BLOCK) => host,
            _ if cluster_waits => CLUSTER_BLOCK,
            _ => return None,
        };
        self.last = Some(block);
        self.slots.remove(&block).map(|(payload, tickets)| Job { block, payload, tickets })
    }

    /// Empties it: everybody who waits, to be told why nothing was written.
    pub fn drain(&mut self) -> Vec<T> {
        std::mem::take(&mut self.slots).into_values().flat_map(|(_, tickets)| tickets).collect()
    }

    /// Callers that wait.
    pub fn waiting(&self) -> usize {
        self.slots.values().map(|(_, tickets)| tickets.len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use proptest::prelude::*;

    use super::super::cluster::Change;
    use super::super::commit::commit;
    use super::super::memory::MemoryWhiteboard;
    use super::super::{Block, zero_block};
    use super::*;

    fn status(block: u16, stamp: u8) -> Payload {
        let mut bytes = zero_block();
        bytes[0] = b'1';
        bytes[1] = u8::try_from(block).unwrap();
        bytes[2] = stamp;
        Payload::Host(Box::new(bytes))
    }

    fn line(text: &str) -> Payload {
        Payload::Cluster(Change::parse(text.as_bytes()).unwrap())
    }

    #[test]
    fn the_cluster_goes_first_and_starves_nobody() {
        let mut queues = WriteQueues::default();
        for (ticket, block) in [5, 3, 0].into_iter().enumerate() {
            let payload = if block == 0 { line("maintenance=1") } else { status(block, 1) };
            queues.push(block, payload, ticket).unwrap();
        }
        assert_eq!(queues.pop().unwrap().block, 0);
        queues.push(0, line("maintenance=0"), 9).unwrap();
        let order: Vec<u16> = std::iter::from_fn(|| queues.pop()).map(|job| job.block).collect();
        assert_eq!(order, [3, 0, 5]);
        assert_eq!(queues.waiting(), 0);
    }

    #[test]
    fn too_many_callers_are_told_so() {
        let mut queues = WriteQueues::default();
        for ticket in 0..MAX_WAITING {
            queues.push(1, status(1, 0), ticket).unwrap();
        }
        let (error, ticket) = queues.push(1, status(1, 0), 999).unwrap_err();
        assert_eq!((error, ticket), (PutError::Busy { block: 1, waiting: MAX_WAITING }, 999));
        assert_eq!(queues.drain().len(), MAX_WAITING);
        assert!(queues.pop().is_none());
    }

    /// A step of a generated history.
    #[derive(Debug, Clone)]
    enum Step {
        Status(u16, u8),
        Cluster(char, u8),
        Write,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (1..4_u16, any::<u8>()).prop_map(|(block, stamp)| Step::Status(block, stamp)),
            2 => (prop_oneof![Just('m'), Just('n'), Just('o')], 0..10_u8).prop_map(|(k, v)| Step::Cluster(k, v)),
            3 => Just(Step::Write),
        ]
    }

    proptest! {
        /// Whatever the interleaving: each caller is answered once, and at the end storage holds the newest status
        /// of each host and the newest value of each line. A caller who is answered finds his write, or a later
        /// one of the same host or line, on storage at that moment.
        #[test]
        fn no_write_is_lost(steps in proptest::collection::vec(step(), 1..60)) {
            let port = MemoryWhiteboard::new(8);
            port.poke(0, b"kept=yes");
            let mut queues = WriteQueues::default();
            let mut newest_status: BTreeMap<u16, Block> = BTreeMap::new();
            let mut newest_line: BTreeMap<char, String> = BTreeMap::new();
            let (mut asked, mut answered) = (0_usize, 0_usize);
            let mut write = |queues: &mut WriteQueues<usize>, statuses: &BTreeMap<u16, Block>,
                             lines: &BTreeMap<char, String>| {
                let Some(job) = queues.pop() else { return Ok(false) };
                let stored = commit(&port, job.block, &job.payload, &|| Ok(())).now_or_never();
                let stored = stored.expect("memory does not wait").unwrap();
                prop_assert_eq!(&*stored, &port.peek(job.block));
                answered += job.tickets.len();
                if job.block == 0 {
                    let text = String::from_utf8(stored.to_vec()).unwrap();
                    for line in lines.values() {
                        prop_assert!(text.contains(line.as_str()), "{} not in {}", line, text.trim_end_matches('\0'));
                    }
                    prop_assert!(text.contains("kept=yes"));
                } else {
                    prop_assert_eq!(&*stored, &statuses[&job.block]);
                }
                Ok(true)
            };
            for step in steps {
                match step {
                    Step::Status(block, stamp) => {
                        let payload = status(block, stamp);
                        if let Payload::Host(bytes) = &payload {
                            newest_status.insert(block, **bytes);
                        }
                        queues.push(block, payload, asked).unwrap();
                        asked += 1;
                    }
                    Step::Cluster(key, value) => {
                        let text = format!("{key}={value}");
                        newest_line.insert(key, text.clone());
                        queues.push(0, line(&text), asked).unwrap();
                        asked += 1;
                    }
                    Step::Write => {
                        write(&mut queues, &newest_status, &newest_line)?;
                    }
                }
            }
            while write(&mut queues, &newest_status, &newest_line)? {}
            prop_assert_eq!(asked, answered);
            for (block, bytes) in newest_status {
                prop_assert_eq!(port.peek(block), bytes);
            }
        }
    }
}
