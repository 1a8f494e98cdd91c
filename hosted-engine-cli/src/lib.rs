//! The operator's command and what it is made of.

pub mod sandbox;
