//! What the broker's socket speaks: the XML-RPC verbs that existing clients know, and the JSON of our own.
//!
//! The broker's server, the agent and the operator's command share the types here, and the client.

pub mod client;
pub mod status;
pub mod unix_path;
pub mod xmlrpc;

pub use client::{BrokerClient, ClientError};
