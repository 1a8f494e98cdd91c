//! An agent's description of itself: the XML that its action `metadata` prints.
//!
//! ```text
//! <resource-agent name="fence_x">
//!   <parameters>
//!     <parameter name="ip" required="1" deprecated="0" obsoletes="ipaddr">
//!       <content type="string" default="…"> <option value="…"/> </content>     option: of type select
//!     </parameter>
//!   </parameters>
//!   <actions> <action name="off"/> </actions>
//! </resource-agent>
//! ```
//!
//! Format: `metadata.rng` and `fencing.py` of the fence-agents project. What else there is, texts for people above all,
//! is passed over. Sizes are bounded, since a program of anybody's may print it.

use quick_xml::Reader;
use quick_xml::events::{BytesStart, Event};

/// Bytes that the document may have. The largest of fence-agents 4.12 has 17 kB.
pub(crate) const MAX_BYTES: usize = 1024 * 1024;
/// Parameters, actions and values of one `select` that there may be. The most of fence-agents 4.12 are 60.
const MAX_ITEMS: usize = 1000;
/// Bytes of a name or a default.
const MAX_TEXT: usize = 4096;

/// What an agent says about itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Metadata {
    /// The agent's name.
    pub name: String,
    /// Its options.
    pub parameters: Vec<Parameter>,
    /// What it can do: `on`, `off`, `status` and so on.
    pub actions: Vec<String>,
}

/// An option of an agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parameter {
    /// Its name.
    pub name: String,
    /// What its value must be.
    pub kind: Kind,
    /// The value that it has when it is not given.
    pub default: Option<String>,
    /// It must be given.
    pub required: bool,
    /// It is still understood, and should not be used any more.
    pub deprecated: bool,
    /// The older name of the same option.
    pub obsoletes: Option<String>,
}

/// What an option's value must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// Any text; also of types that are not known here.
    Text,
    /// A whole number.
    Number,
    /// A number of seconds.
    Seconds,
    /// 1, yes, on, true or 0, no, off, false.
    Switch,
    /// One of these.
    Choice(Vec<String>),
}

/// Why a description cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MetadataError {
    /// Too long, or too many of something.
    #[error("its metadata has more than {limit} {what}")]
    TooMuch {
        /// Of what.
        what: &'static str,
        /// How many there may be.
        limit: usize,
    },
    /// Not XML.
    #[error("its metadata is broken at byte {at}: {detail}")]
    Xml {
        /// Where.
        at: u64,
        /// The reader's words.
        detail: String,
    },
    /// XML of something else.
    #[error("its metadata has no <resource-agent> with parameters and actions; is this a fence agent?")]
    NotAnAgent,
}

impl Metadata {
    /// Reads the XML document.
    pub fn parse(document: &[u8]) -> Result<Self, MetadataError> {
        if document.len() > MAX_BYTES {
            return Err(MetadataError::TooMuch { what: "bytes", limit: MAX_BYTES });
        }
        let mut reader = Reader::from_reader(document);
        reader.config_mut().expand_empty_elements = true;
        let mut this = Self::default();
        let mut inside = Vec::new();
        loop {
            let at = reader.buffer_position();
            let broken = |detail: String| MetadataError::Xml { at, detail };
            match reader.read_event().map_err(|error| broken(error.to_string()))? {
                // Empty elements are expanded, so a start is all there is.
                Event::Start(tag) | Event::Empty(tag) => {
                    let attribute = |name: &str| attribute(&tag, name).map_err(broken);
                    this.open(&inside, tag.name().as_ref(), &attribute)?;
                    inside.push(tag.name().as_ref().to_vec());
                    limit(inside.len(), "tags inside each other", 32)?;
                }
                Event::End(_) => drop(inside.pop()),
                Event::Eof if inside.is_empty() => break,
                Event::Eof => return Err(broken("it ends in the middle".to_owned())),
                // Entities are never expanded, so that a document type cannot do harm.
                Event::Text(_)
                | Event::CData(_)
                | Event::GeneralRef(_)
                | Event::Comment(_)
                | Event::PI(_)
                | Event::Decl(_)
                | Event::DocType(_) => {}
            }
        }
        if this.name.is_empty() || this.actions.is_empty() {
            return Err(MetadataError::NotAnAgent);
        }
        Ok(this)
    }

    /// Takes note of an element that begins; `inside` are those around it, outermost first.
    fn open(
        &mut self,
        inside: &[Vec<u8>],
        name: &[u8],
        attribute: &dyn Fn(&str) -> Result<Option<String>, MetadataError>,
    ) -> Result<(), MetadataError> {
        let path: Vec<&[u8]> = inside.iter().map(Vec::as_slice).chain([name]).collect();
        let flag = |text: Option<String>| text.is_some_and(|text| matches!(text.trim(), "1" | "true"));
        match path.as_slice() {
            [b"resource-agent"] => self.name = attribute("name")?.unwrap_or_default(),
            [b"resource-agent", b"parameters", b"parameter"] => {
                let parameter = Parameter {
                    name: attribute("name")?.unwrap_or_default(),
                    kind: Kind::Text,
                    default: None,
                    required: flag(attribute("required")?),
                    deprecated: flag(attribute("deprecated")?),
                    obsoletes: attribute("obsoletes")?,
                };
                self.parameters.push(parameter);
                limit(self.parameters.len(), "parameters", MAX_ITEMS)?;
            }
            [b"resource-agent", b"parameters", b"parameter", b"content"] => {
                if let Some(parameter) = self.parameters.last_mut() {
                    parameter.default = attribute("default")?;
                    parameter.kind = match attribute("type")?.as_deref() {
                        Some("boolean") => Kind::Switch,
                        Some("integer") => Kind::Number,
                        Some("second" | "time") => Kind::Seconds,
                        Some("select") => Kind::Choice(Vec::new()),
                        Some(_) | None => Kind::Text,
                    };
                }
            }
            [b"resource-agent", b"parameters", b"parameter", b"content", b"option"] => {
                if let Some(Kind::Choice(values)) = self.parameters.last_mut().map(|last| &mut last.kind) {
                    values.extend(attribute("value")?);
                    limit(values.len(), "values of one parameter", MAX_ITEMS)?;
                }
            }
            [b"resource-agent", b"actions", b"action"] => {
                self.actions.extend(attribute("name")?);
                limit(self.actions.len(), "actions", MAX_ITEMS)?;
            }
            _ => {}
        }
        Ok(())
    }

    /// The parameter of this name.
    pub fn parameter(&self, name: &str) -> Option<&Parameter> {
        self.parameters.iter().find(|parameter| parameter.name == name)
    }

    /// Whether the agent has this action.
    pub fn can(&self, action: &str) -> bool {
        self.actions.iter().any(|known| known == action)
    }
}

const fn limit(count: usize, what: &'static str, limit: usize) -> Result<(), MetadataError> {
    if count > limit { Err(MetadataError::TooMuch { what, limit }) } else { Ok(()) }
}

/// The value of an attribute; what is wrong with it.
fn attribute(tag: &BytesStart<'_>, name: &str) -> Result<Option<String>, String> {
    let Some(attribute) = tag.try_get_attribute(name).map_err(|error| error.to_string())? else {
        return Ok(None);
    };
    let value = attribute.unescape_value().map_err(|error| error.to_string())?;
    if value.len() > MAX_TEXT {
        return Err(format!("the attribute {name} has more than {MAX_TEXT} bytes"));
    }
    Ok(Some(value.into_owned()))
}

#[cfg(test)]
#[path = "metadata_tests.rs"]
mod tests;
