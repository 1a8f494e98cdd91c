//! The message broker inside VDSM: connections, subscriptions, and where answers and events go.

mod connection;
mod hub;

pub(crate) use connection::serve;
pub(crate) use hub::{ConnectionId, Hub, event_time};
