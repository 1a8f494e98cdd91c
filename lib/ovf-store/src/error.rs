//! Why an OVF cannot be used.

/// An OVF, or a domain XML inside one, that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OvfError {
    /// The XML itself is broken.
    #[error("not well-formed XML near byte {at}: {detail}")]
    Xml {
        /// Offset from the start of the document.
        at: u64,
        /// The parser's words.
        detail: String,
    },
    /// A limit was passed.
    #[error("near byte {at}: {what}")]
    Limit {
        /// Offset from the start of the document.
        at: u64,
        /// The limit.
        what: &'static str,
    },
    /// An element that is needed is not there.
    #[error("the OVF has no {0}")]
    Missing(&'static str),
    /// An element's text is not what the element needs.
    #[error("{element} is {value:?} in the OVF; it must be {expected}")]
    Value {
        /// The element.
        element: &'static str,
        /// At most 40 characters of its text.
        value: String,
        /// What it must be.
        expected: &'static str,
    },
    /// It describes another VM.
    #[error("the OVF describes the VM {found}, not the engine VM {expected}")]
    OtherVm {
        /// The id in the OVF.
        found: uuid::Uuid,
        /// The id in hosted-engine.conf.
        expected: uuid::Uuid,
    },
}
