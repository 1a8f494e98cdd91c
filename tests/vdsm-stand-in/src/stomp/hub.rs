//! Who subscribed to what, and which destination awaits the answer to which request.
//!
//! As in VDSM both tables are shared by all connections: an answer goes to whoever subscribed to the reply
//! destination, on any connection, and an answer to nobody is lost without a word.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use clock::{Clock, SystemClock};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use vdsm_client::frame::Frame;

use crate::lock;
use crate::misbehaviour::Misbehaviour;
use crate::python_json;

/// Where answers go whose request had no id that was understood.
const RESPONSES: &str = "jms.topic.vdsm_responses";
/// Where events go.
const EVENTS: &str = "jms.queue.events";

/// One connection, for as long as the process lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ConnectionId(pub u64);

/// What the writer of a connection is given.
#[derive(Debug)]
pub(crate) enum Outgoing {
    /// A frame.
    Frame(Frame),
    /// The end of the connection.
    Close,
}

#[derive(Debug, Clone)]
struct Subscription {
    connection: ConnectionId,
    id: String,
    outbox: mpsc::Sender<Outgoing>,
}

#[derive(Debug, Default)]
struct Tables {
    subscriptions: BTreeMap<String, Vec<Subscription>>,
    /// By the request's id as JSON. `None`: it had no reply destination.
    awaited: BTreeMap<String, Option<String>>,
    /// An event that is held back until the next one has gone out.
    held_event: Option<Value>,
}

/// The broker.
#[derive(Debug)]
pub(crate) struct Hub {
    tables: Mutex<Tables>,
    misbehaviour: Arc<Misbehaviour>,
}

impl Hub {
    pub fn new(misbehaviour: Arc<Misbehaviour>) -> Self {
        Self { tables: Mutex::default(), misbehaviour }
    }

    pub fn misbehaviour(&self) -> &Misbehaviour {
        &self.misbehaviour
    }

    pub fn subscribe(
        &self,
        destination: &str,
        connection: ConnectionId,
        id: &str,
        outbox: mpsc::Sender<Outgoing>,
    ) {
        let subscription = Subscription { connection, id: id.to_owned(), outbox };
        lock(&self.tables).subscriptions.entry(destination.to_owned()).or_default().push(subscription);
    }

    pub fn unsubscribe(&self, destination: &str, connection: ConnectionId, id: &str) {
        let mut tables = lock(&self.tables);
        if let Some(all) = tables.subscriptions.get_mut(destination) {
            all.retain(|one| (one.connection, one.id.as_str()) != (connection, id));
            if all.is_empty() {
                tables.subscriptions.remove(destination);
            }
        }
    }

    /// Passes a frame on to all who subscribed to its destination or a parent of it; how many there were.
    pub fn forward(&self, destination: &str, frame: &Frame) -> usize {
        let mut sent = 0;
        let tables = lock(&self.tables);
        let ends = destination.match_indices('.').map(|(at, _)| at).chain([destination.len()]);
        for end in ends {
            for one in tables.subscriptions.get(&destination[..end]).into_iter().flatten() {
                let mut copy =
                    Frame::new("MESSAGE", &[("subscription", &one.id)]).with_body(frame.body.clone());
                copy.headers.extend(frame.headers.iter().filter(|(name, _)| name != "subscription").cloned());
                send(one, copy);
                sent += 1;
            }
        }
        sent
    }

    /// Remembers where the answers to these requests go. What is no JSON is not remembered.
    pub fn expect(&self, body: &[u8], reply_to: Option<&str>) {
        let Ok(requests) = serde_json::from_slice::<Value>(body) else { return };
        let requests = if let Value::Array(many) = requests { many } else { vec![requests] };
        let mut tables = lock(&self.tables);
        for request in requests.iter().filter(|request| request.is_object()) {
            tables.awaited.insert(request["id"].to_string(), reply_to.map(str::to_owned));
        }
    }

    /// The request `id` gets no answer.
    pub fn forget(&self, id: &Value) {
        lock(&self.tables).awaited.remove(&id.to_string());
    }

    /// Sends the answer to the request `id`.
    pub fn answer(&self, id: &Value, answer: &Value) {
        let mut tables = lock(&self.tables);
        let destination = match tables.awaited.remove(&id.to_string()) {
            Some(Some(destination)) => destination,
            // It had no reply destination: there is nobody to tell.
            Some(None) => return,
            None => RESPONSES.to_owned(),
        };
        tables.publish(&destination, answer);
    }

    /// Tells whoever listens to events; `params` gets the time.
    pub fn notify(&self, method: &str, mut params: Value) {
        params["notify_time"] = json!(event_time());
        let event = json!({"jsonrpc": "2.0", "method": method, "params": params});
        let mut tables = lock(&self.tables);
        if self.misbehaviour.reorders_events() && tables.held_event.is_none() {
            tables.held_event = Some(event);
            return;
        }
        tables.publish(EVENTS, &event);
        if let Some(held) = tables.held_event.take() {
            tables.publish(EVENTS, &held);
        }
    }
}

impl Tables {
    fn publish(&self, destination: &str, message: &Value) {
        let body = python_json::to_vec(message);
        for one in self.subscriptions.get(destination).into_iter().flatten() {
            let headers = [
                ("destination", destination),
                ("content-type", "application/json"),
                ("subscription", one.id.as_str()),
            ];
            send(one, Frame::new("MESSAGE", &headers).with_body(body.clone()));
        }
    }
}

fn send(to: &Subscription, frame: Frame) {
    if to.outbox.try_send(Outgoing::Frame(frame)).is_err() {
        tracing::warn!("connection {} takes nothing more: a message to it is lost", to.connection.0);
    }
}

/// VDSM's clock for ordering events and statistics: milliseconds since this machine started.
pub(crate) fn event_time() -> u64 {
    u64::try_from(SystemClock.monotonic().since_start().as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(outbox: &mut mpsc::Receiver<Outgoing>) -> Option<Value> {
        match outbox.try_recv().ok()? {
            Outgoing::Frame(frame) => serde_json::from_slice(&frame.body).ok(),
            Outgoing::Close => None,
        }
    }

    #[test]
    fn an_answer_finds_its_destination_once() {
        let hub = Hub::new(Arc::default());
        let (outbox, mut inbox) = mpsc::channel(8);
        hub.subscribe("rq1", ConnectionId(1), "s1", outbox);
        hub.expect(br#"[{"id": "a"}]"#, Some("rq1"));
        hub.answer(&json!("a"), &json!({"id": "a", "result": true}));
        assert_eq!(body(&mut inbox), Some(json!({"id": "a", "result": true})));
        hub.answer(&json!("a"), &json!({"id": "a", "result": true}));
        assert_eq!(body(&mut inbox), None);
        hub.unsubscribe("rq1", ConnectionId(1), "s1");
        hub.expect(br#"{"id": "b"}"#, Some("rq1"));
        hub.answer(&json!("b"), &json!({"id": "b", "result": true}));
        assert_eq!(body(&mut inbox), None);
    }

    #[test]
    fn events_change_places_when_told_to() {
        let wrong = Arc::new(Misbehaviour::default());
        wrong.command("reorder-events").unwrap();
        let hub = Hub::new(wrong);
        let (outbox, mut inbox) = mpsc::channel(8);
        hub.subscribe(EVENTS, ConnectionId(1), "s1", outbox);
        hub.notify("|virt|VM_status|1", json!({}));
        hub.notify("|virt|VM_status|2", json!({}));
        let methods: Vec<Value> =
            std::iter::from_fn(|| body(&mut inbox)).map(|event| event["method"].clone()).collect();
        assert_eq!(methods, ["|virt|VM_status|2", "|virt|VM_status|1"]);
    }
}
