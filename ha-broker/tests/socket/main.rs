//! The broker's socket, served for real on a Unix socket, over a fake broker.

#![allow(clippy::unwrap_used, reason = "the whole file is a test")]

mod bind;
mod client;
mod fake;
mod limits;
mod package;
mod python;
