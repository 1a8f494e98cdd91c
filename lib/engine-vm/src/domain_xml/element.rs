//! A tree of elements, written with every character escaped that needs it.

use quick_xml::Writer;
use quick_xml::events::{BytesDecl, BytesEnd, BytesStart, BytesText, Event};

/// An element: attributes, then a text or children.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Element {
    name: &'static str,
    attributes: Vec<(&'static str, String)>,
    text: Option<String>,
    children: Vec<Element>,
}

/// An element without anything in it.
pub(super) fn element(name: &'static str) -> Element {
    Element { name, attributes: Vec::new(), text: None, children: Vec::new() }
}

impl Element {
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.attributes.push((name, value.into()));
        self
    }

    #[must_use]
    pub fn with_text(mut self, text: impl Into<String>) -> Self {
        self.text = Some(text.into());
        self
    }

    #[must_use]
    pub fn with_child(mut self, child: Element) -> Self {
        self.children.push(child);
        self
    }

    #[must_use]
    pub fn with_children(mut self, children: impl IntoIterator<Item = Element>) -> Self {
        self.children.extend(children);
        self
    }

    /// The element as events, so that it can be put into a stream of others.
    pub fn events(&self) -> Vec<Event<'_>> {
        let mut start = BytesStart::new(self.name);
        for (name, value) in &self.attributes {
            start.push_attribute((*name, value.as_str()));
        }
        if self.text.is_none() && self.children.is_empty() {
            return vec![Event::Empty(start)];
        }
        let mut events = vec![Event::Start(start)];
        events.extend(self.text.as_deref().map(|text| Event::Text(BytesText::new(text))));
        events.extend(self.children.iter().flat_map(Self::events));
        events.push(Event::End(BytesEnd::new(self.name)));
        events
    }

    /// As a document.
    pub fn to_text(&self) -> String {
        let declaration = Event::Decl(BytesDecl::new("1.0", Some("UTF-8"), None));
        write(std::iter::once(declaration).chain(self.events()))
    }
}

/// Events as text.
pub(super) fn write<'e>(events: impl IntoIterator<Item = Event<'e>>) -> String {
    let mut writer = Writer::new(Vec::new());
    for event in events {
        writer.write_event(event).expect("a vector takes every write");
    }
    String::from_utf8(writer.into_inner()).expect("events made of text are text")
}
