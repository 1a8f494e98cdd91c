//! A small XML tree with namespaces, for documents that others wrote.
//!
//! Input is foreign and may be hostile: size, depth, number of elements, attributes and name spaces are limited,
//! document type declarations are refused (so that no entity can be declared), and only XML's five entities and
//! character references are expanded. Memory stays proportional to the input.

use std::borrow::Cow;

use quick_xml::Reader;
use quick_xml::escape::resolve_predefined_entity;
use quick_xml::events::{BytesRef, BytesStart, Event};

use crate::error::OvfError;

/// Longest document in bytes. The engine VM's OVF is some 30 kB.
pub const MAX_BYTES: usize = 4 << 20;
/// Deepest nesting of elements. OVF needs 7, domain XML 8.
pub const MAX_DEPTH: usize = 32;
/// Most elements of a document.
pub const MAX_ELEMENTS: usize = 50_000;
/// Most attributes of an element.
const MAX_ATTRIBUTES: usize = 64;
/// Most name-space declarations that hold at one place.
const MAX_PREFIXES: usize = 64;

/// The name spaces that mean something here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Namespace {
    /// None.
    None,
    /// DMTF's OVF envelope 1; engines before 4.2 wrote its name without the final slash.
    Ovf,
    /// CIM resource allocation, prefix `rasd`.
    Rasd,
    /// XML Schema instance, prefix `xsi`.
    Xsi,
    /// VDSM's metadata in domain XML, prefix `ovirt-vm`.
    OvirtVm,
    /// Any other.
    Other,
}

impl Namespace {
    fn of_uri(uri: &str) -> Self {
        match uri {
            "" => Self::None,
            "http://schemas.dmtf.org/ovf/envelope/1/" | "http://schemas.dmtf.org/ovf/envelope/1" => Self::Ovf,
            "http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData" => {
                Self::Rasd
            }
            "http://www.w3.org/2001/XMLSchema-instance" => Self::Xsi,
            "http://ovirt.org/vm/1.0" => Self::OvirtVm,
            _ => Self::Other,
        }
    }
}

/// An element with everything in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Element {
    /// Name space.
    pub namespace: Namespace,
    /// Local name.
    pub name: String,
    /// Attributes but `xmlns`, in the document's order.
    pub attributes: Vec<(Namespace, String, String)>,
    /// Child elements, in the document's order.
    pub children: Vec<Element>,
    /// The texts directly inside, joined.
    pub text: String,
}

impl Element {
    /// Reads a document.
    pub fn parse(document: &str) -> Result<Self, OvfError> {
        Parser::new(document)?.run()
    }

    /// The value of an attribute.
    pub fn attribute(&self, namespace: Namespace, name: &str) -> Option<&str> {
        let mut all = self.attributes.iter();
        all.find(|(space, key, _)| *space == namespace && key == name).map(|(_, _, value)| value.as_str())
    }

    /// The children of this name.
    pub fn all<'a>(&'a self, namespace: Namespace, name: &'a str) -> impl Iterator<Item = &'a Self> {
        self.children.iter().filter(move |child| child.namespace == namespace && child.name == name)
    }

    /// The trimmed text of the first child of this name; an empty one counts as none.
    pub fn text_of(&self, namespace: Namespace, name: &str) -> Option<&str> {
        let child = self.children.iter().find(|child| child.namespace == namespace && child.name == name)?;
        Some(child.text.trim()).filter(|text| !text.is_empty())
    }

    /// This element and all below it, in the document's order.
    pub fn descendants(&self) -> impl Iterator<Item = &Self> {
        let mut stack = vec![self];
        std::iter::from_fn(move || {
            let next = stack.pop()?;
            stack.extend(next.children.iter().rev());
            Some(next)
        })
    }
}

/// A prefix that is bound to a name space, and the depth of the element that bound it.
struct Binding {
    depth: usize,
    prefix: Vec<u8>,
    namespace: Namespace,
}

struct Parser<'a> {
    reader: Reader<&'a [u8]>,
    open: Vec<Element>,
    bindings: Vec<Binding>,
    elements: usize,
    root: Option<Element>,
}

impl<'a> Parser<'a> {
    fn new(document: &'a str) -> Result<Self, OvfError> {
        if document.len() > MAX_BYTES {
            return Err(OvfError::Limit { at: MAX_BYTES as u64, what: "a document of more than 4 MiB" });
        }
        let mut reader = Reader::from_str(document);
        reader.config_mut().expand_empty_elements = true;
        Ok(Self { reader, open: Vec::new(), bindings: Vec::new(), elements: 0, root: None })
    }

    fn run(mut self) -> Result<Element, OvfError> {
        loop {
            let at = self.reader.buffer_position();
            let broken = |detail: String| OvfError::Xml { at, detail };
            match self.reader.read_event().map_err(|error| broken(error.to_string()))? {
                Event::Text(part) => {
                    let text = part.xml10_content().map_err(|error| broken(error.to_string()))?;
                    self.push_text(&text, at)?;
                }
                Event::CData(part) => {
                    let text = part.xml10_content().map_err(|error| broken(error.to_string()))?;
                    self.push_text(&text, at)?;
                }
                Event::GeneralRef(reference) => {
                    let text = resolve(&reference).map_err(broken)?;
                    self.push_text(&text, at)?;
                }
                Event::Comment(_) | Event::PI(_) | Event::Decl(_) => {}
                Event::DocType(_) => return Err(broken("document types are not accepted".to_owned())),
                // Empty elements are expanded, so a start is all there is.
                Event::Start(tag) | Event::Empty(tag) => self.start(&tag, at)?,
                Event::End(_) => self.end(at)?,
                Event::Eof if self.open.is_empty() => {
                    return self.root.ok_or_else(|| broken("there is no element".to_owned()));
                }
                Event::Eof => return Err(broken("it ends inside an element".to_owned())),
            }
        }
    }

    fn push_text(&mut self, text: &str, at: u64) -> Result<(), OvfError> {
        if text.chars().any(is_forbidden) {
            return Err(OvfError::Xml { at, detail: "a character that XML cannot carry".to_owned() });
        }
        match self.open.last_mut() {
            Some(element) => element.text.push_str(text),
            None if text.trim_start_matches('\u{feff}').trim().is_empty() => {}
            None => return Err(OvfError::Xml { at, detail: "text outside of the root".to_owned() }),
        }
        Ok(())
    }

    fn start(&mut self, tag: &BytesStart<'_>, at: u64) -> Result<(), OvfError> {
        let limit = |what| OvfError::Limit { at, what };
        let broken = |detail: String| OvfError::Xml { at, detail };
        if self.root.is_some() {
            return Err(broken("a second root element".to_owned()));
        }
        self.elements += 1;
        if self.elements > MAX_ELEMENTS {
            return Err(limit("more than 50000 elements"));
        }
        let depth = self.open.len() + 1;
        if depth > MAX_DEPTH {
            return Err(limit("elements nested deeper than 32 levels"));
        }
        let mut found = Vec::new();
        for attribute in tag.attributes() {
            let attribute = attribute.map_err(|error| broken(error.to_string()))?;
            if found.len() == MAX_ATTRIBUTES {
                return Err(limit("more than 64 attributes"));
            }
            let value = attribute.unescape_value().map_err(|error| broken(error.to_string()))?;
            if value.chars().any(is_forbidden) {
                return Err(broken("a character that XML cannot carry".to_owned()));
            }
            let prefix = match attribute.key.as_ref() {
                b"xmlns" => Some(&b""[..]),
                key => key.strip_prefix(b"xmlns:"),
            };
            if let Some(prefix) = prefix {
                if self.bindings.len() == MAX_PREFIXES {
                    return Err(limit("more than 64 name spaces"));
                }
                let namespace = Namespace::of_uri(&value);
                self.bindings.push(Binding { depth, prefix: prefix.to_vec(), namespace });
            } else {
                found.push((attribute.key, value.into_owned()));
            }
        }
        let attributes = found.into_iter().map(|(key, value)| {
            // An attribute without a prefix has no name space, whatever the default is.
            let namespace = key.prefix().map_or(Namespace::None, |prefix| self.resolve(prefix.as_ref()));
            (namespace, name(key.local_name().as_ref()), value)
        });
        let element = Element {
            namespace: self.resolve(tag.name().prefix().as_ref().map_or(&b""[..], AsRef::as_ref)),
            name: name(tag.local_name().as_ref()),
            attributes: attributes.collect(),
            children: Vec::new(),
            text: String::new(),
        };
        self.open.push(element);
        Ok(())
    }

    fn end(&mut self, at: u64) -> Result<(), OvfError> {
        let depth = self.open.len();
        let Some(done) = self.open.pop() else {
            return Err(OvfError::Xml { at, detail: "a closing tag without its opening one".to_owned() });
        };
        while self.bindings.last().is_some_and(|binding| binding.depth == depth) {
            self.bindings.pop();
        }
        match self.open.last_mut() {
            Some(parent) => parent.children.push(done),
            None => self.root = Some(done),
        }
        Ok(())
    }

    fn resolve(&self, prefix: &[u8]) -> Namespace {
        let bound = self.bindings.iter().rev().find(|binding| binding.prefix == prefix);
        match bound {
            Some(binding) => binding.namespace,
            None if prefix.is_empty() => Namespace::None,
            None => Namespace::Other,
        }
    }
}

/// The text that a reference stands for: one of XML's five entities, or a character.
pub(crate) fn resolve(reference: &BytesRef<'_>) -> Result<Cow<'static, str>, String> {
    if let Some(c) = reference.resolve_char_ref().map_err(|error| error.to_string())? {
        return Ok(Cow::Owned(c.to_string()));
    }
    let name = reference.decode().map_err(|error| error.to_string())?;
    resolve_predefined_entity(&name).map(Cow::Borrowed).ok_or_else(|| "unknown entity".to_owned())
}

fn name(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Not a character of XML 1.0, raw or as a reference.
const fn is_forbidden(c: char) -> bool {
    matches!(c, '\0'..='\u{8}' | '\u{b}' | '\u{c}' | '\u{e}'..='\u{1f}' | '\u{fffe}' | '\u{ffff}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn refused(document: &str) -> String {
        Element::parse(document).unwrap_err().to_string()
    }

    #[test]
    fn names_are_resolved_by_their_uri() {
        let root = Element::parse(
            "<?xml version='1.0'?><a:Envelope xmlns:a='http://schemas.dmtf.org/ovf/envelope/1' a:version='1' b='2'>\
             <Content xmlns='http://ovirt.org/vm/1.0'> x&lt;<![CDATA[y&]]>&#x7a;<c/></Content><Content/></a:Envelope>",
        )
        .unwrap();
        assert_eq!((root.namespace, root.name.as_str()), (Namespace::Ovf, "Envelope"));
        assert_eq!(root.attribute(Namespace::Ovf, "version"), Some("1"));
        assert_eq!(root.attribute(Namespace::None, "b"), Some("2"));
        assert_eq!(root.text_of(Namespace::OvirtVm, "Content"), Some("x<y&z"));
        assert_eq!(root.children[0].children[0].namespace, Namespace::OvirtVm);
        assert_eq!(root.children[1].namespace, Namespace::None);
        let names: Vec<&str> = root.descendants().map(|element| element.name.as_str()).collect();
        assert_eq!(names, ["Envelope", "Content", "c", "Content"]);
    }

    #[test]
    fn bombs_and_broken_documents_are_refused() {
        assert!(refused("<!DOCTYPE a [<!ENTITY b 'c'>]><a>&b;</a>").contains("document types"));
        assert!(refused("<a>&b;</a>").contains("unknown entity"));
        assert!(refused(&"<a>".repeat(MAX_DEPTH + 1)).contains("32 levels"));
        let many = format!("<a>{}</a>", "<b/>".repeat(MAX_ELEMENTS));
        assert!(refused(&many).contains("50000"));
        let numbered = |name: &str, most| {
            let all: Vec<String> = (0..=most).map(|n| format!(" {name}{n}='1'")).collect();
            format!("<a{}/>", all.concat())
        };
        assert!(refused(&numbered("b", MAX_ATTRIBUTES)).contains("64 attributes"));
        assert!(refused(&numbered("xmlns:b", MAX_PREFIXES)).contains("64 name spaces"));
        assert!(refused(&" ".repeat(MAX_BYTES + 1)).contains("4 MiB"));
        for broken in
            ["", "x", "<a>", "<a></b>", "</a>", "<a/><a/>", "<a>\u{1}</a>", "<a b='&#1;'/>", "<a/>x"]
        {
            assert!(refused(broken).contains("near byte"), "{broken}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_refused_or_read(document in "[<>/a&;'= x:#0!\\[\\]-]{0,60}") {
            let _ = Element::parse(&document);
        }
    }
}
