//! Over the wire.
