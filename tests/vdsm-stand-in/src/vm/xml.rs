//! A small tree of XML elements: enough to read a domain's description.

use quick_xml::Reader;
use quick_xml::escape::resolve_predefined_entity;
use quick_xml::events::{BytesStart, Event};

/// Deepest nesting, against endless ones.
const DEEPEST: usize = 64;

/// An element with everything in it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Element {
    pub name: String,
    pub attributes: Vec<(String, String)>,
    pub children: Vec<Element>,
    pub text: String,
}

impl Element {
    /// Reads a document; its root element.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut reader = Reader::from_str(text);
        let mut open = vec![Self::default()];
        let wrong = |error: &dyn std::fmt::Display, reader: &Reader<&[u8]>| {
            format!("not XML at byte {}: {error}", reader.buffer_position())
        };
        loop {
            let event = reader.read_event().map_err(|error| wrong(&error, &reader))?;
            match event {
                Event::Start(start) => {
                    if open.len() > DEEPEST {
                        return Err(wrong(&"nested too deep", &reader));
                    }
                    open.push(Self::begin(&start).map_err(|error| wrong(&error, &reader))?);
                }
                Event::Empty(start) => {
                    let element = Self::begin(&start).map_err(|error| wrong(&error, &reader))?;
                    add(&mut open, element);
                }
                Event::End(_) => {
                    // The reader has matched it with its beginning.
                    if let Some(element) = open.pop() {
                        add(&mut open, element);
                    }
                }
                Event::Text(text) => {
                    let text = text.decode().map_err(|error| wrong(&error, &reader))?;
                    add_text(&mut open, &text);
                }
                Event::CData(data) => {
                    let text = data.decode().map_err(|error| wrong(&error, &reader))?;
                    add_text(&mut open, &text);
                }
                Event::GeneralRef(name) => {
                    let character = name.resolve_char_ref().map_err(|error| wrong(&error, &reader))?;
                    let known = if let Some(character) = character {
                        character.to_string()
                    } else {
                        let name = name.decode().map_err(|error| wrong(&error, &reader))?;
                        let known = resolve_predefined_entity(&name);
                        known.ok_or_else(|| wrong(&format!("unknown entity {name}"), &reader))?.to_owned()
                    };
                    add_text(&mut open, &known);
                }
                Event::Comment(_) | Event::Decl(_) | Event::PI(_) | Event::DocType(_) => {}
                Event::Eof => break,
            }
        }
        let mut roots =
            open.pop().filter(|_| open.is_empty()).ok_or("not XML: an element does not end")?.children;
        roots.pop().filter(|_| roots.is_empty()).ok_or_else(|| "not XML: no single root element".to_owned())
    }

    fn begin(start: &BytesStart) -> Result<Self, String> {
        let name = String::from_utf8_lossy(start.name().as_ref()).into_owned();
        let mut attributes = Vec::new();
        for attribute in start.attributes() {
            let attribute = attribute.map_err(|error| error.to_string())?;
            let key = String::from_utf8_lossy(attribute.key.as_ref()).into_owned();
            let value = attribute.unescape_value().map_err(|error| error.to_string())?;
            attributes.push((key, value.into_owned()));
        }
        Ok(Self { name, attributes, ..Self::default() })
    }

    /// The first child of this name.
    pub fn child(&self, name: &str) -> Option<&Self> {
        self.children.iter().find(|child| child.name == name)
    }

    /// The text of the first child of this name, without white space around it; `None` when it is empty.
    pub fn child_text(&self, name: &str) -> Option<&str> {
        self.child(name).map(|child| child.text.trim()).filter(|text| !text.is_empty())
    }

    /// An attribute.
    pub fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// An attribute of a child.
    pub fn child_attribute(&self, child: &str, name: &str) -> Option<&str> {
        self.child(child)?.attribute(name)
    }
}

fn add(open: &mut [Element], element: Element) {
    if let Some(parent) = open.last_mut() {
        parent.children.push(element);
    }
}

fn add_text(open: &mut [Element], text: &str) {
    if let Some(parent) = open.last_mut() {
        parent.text.push_str(text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_attributes_and_texts() {
        let root =
            Element::parse("<?xml version='1.0'?><a x='1 &amp; 2'><b> t&lt;&#65; </b><c/><!-- n --></a>")
                .unwrap();
        assert_eq!((root.attribute("x"), root.child_text("b")), (Some("1 & 2"), Some("t<A")));
        assert!(root.child("c").is_some());
        for wrong in ["", "<a>", "<a></b>", "<a/><b/>", "<a x=1/>", &"<a>".repeat(100)] {
            assert!(Element::parse(wrong).unwrap_err().contains("not XML"), "{wrong}");
        }
    }
}
