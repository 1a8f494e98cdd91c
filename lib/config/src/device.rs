//! One `devices={…}` value of vm.conf as a map, and back.
//!
//! The form, which VDSM's old client defined: `{name:value,name:{name:value},…}`. A value ends at the next comma or
//! brace, so that it may contain colons (MAC addresses, paths) and may be empty. Spaces carry no meaning.

use std::fmt;

/// How deep braces may nest; real files have two levels.
const MAX_DEPTH: usize = 8;

/// A value of a device's map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeviceValue {
    /// Text; empty for `name:`.
    Text(String),
    /// Nested braces, as in `address` and `specParams`.
    Map(Device),
}

/// A device, or a map inside one: names with values, in the file's order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Device {
    entries: Vec<(String, DeviceValue)>,
}

/// What is wrong with a device, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason} at {rest:?}")]
pub struct DeviceError {
    /// What is wrong.
    pub reason: &'static str,
    /// The text from the wrong place on, cut short.
    pub rest: String,
}

impl Device {
    /// Reads `{…}`.
    pub fn parse(text: &str) -> Result<Self, DeviceError> {
        let mut parser = Parser { rest: text.trim() };
        let device = parser.map(0)?;
        if parser.rest.is_empty() { Ok(device) } else { Err(parser.error("text after the closing brace")) }
    }

    /// The text of `name`; `None` when it is absent, empty or a map.
    pub fn text(&self, name: &str) -> Option<&str> {
        match self.get(name)? {
            DeviceValue::Text(text) if !text.is_empty() => Some(text),
            DeviceValue::Text(_) | DeviceValue::Map(_) => None,
        }
    }

    /// The map of `name`.
    pub fn map(&self, name: &str) -> Option<&Device> {
        match self.get(name)? {
            DeviceValue::Map(map) => Some(map),
            DeviceValue::Text(_) => None,
        }
    }

    /// The last value of `name`.
    pub fn get(&self, name: &str) -> Option<&DeviceValue> {
        self.entries.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value)
    }

    /// All names with their values.
    pub fn entries(&self) -> impl Iterator<Item = (&str, &DeviceValue)> {
        self.entries.iter().map(|(key, value)| (key.as_str(), value))
    }

    /// Adds a text at the end. Characters that the form cannot carry (braces, commas, white space, `#`, and colons
    /// in names) are left out.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.entries.push((clean(name, true), DeviceValue::Text(clean(value, false))));
        self
    }

    /// Adds a map at the end.
    #[must_use]
    pub fn with_map(mut self, name: &str, map: Device) -> Self {
        self.entries.push((clean(name, true), DeviceValue::Map(map)));
        self
    }

    /// Key `type`: `disk`, `interface`, `controller`, `graphics`, `video`, `console`, `rng`.
    pub fn kind(&self) -> Option<&str> {
        self.text("type")
    }

    /// Key `device`: `disk`, `cdrom`, `bridge`, `vnc` and so on.
    pub fn device(&self) -> Option<&str> {
        self.text("device")
    }

    /// Key `bootOrder`: 1 is first.
    pub fn boot_order(&self) -> Option<u32> {
        self.text("bootOrder")?.parse().ok()
    }
}

fn clean(text: &str, name: bool) -> String {
    text.chars()
        .filter(|c| match c {
            '{' | '}' | ',' | '#' => false,
            ':' => !name,
            c => !c.is_whitespace(),
        })
        .collect()
}

struct Parser<'a> {
    rest: &'a str,
}

impl Parser<'_> {
    fn error(&self, reason: &'static str) -> DeviceError {
        DeviceError { reason, rest: self.rest.chars().take(40).collect() }
    }

    fn take(&mut self, wanted: char) -> bool {
        match self.rest.trim_start().strip_prefix(wanted) {
            Some(rest) => {
                self.rest = rest.trim_start();
                true
            }
            None => false,
        }
    }

    fn map(&mut self, depth: usize) -> Result<Device, DeviceError> {
        if depth >= MAX_DEPTH {
            return Err(self.error("more than 8 braces inside each other"));
        }
        if !self.take('{') {
            return Err(self.error("a device must start with \"{\""));
        }
        let mut entries = Vec::new();
        loop {
            if self.take('}') {
                return Ok(Device { entries });
            }
            let end = self.rest.find([':', ',', '{', '}']);
            let Some((name, rest)) = end.and_then(|end| {
                let rest = self.rest[end..].strip_prefix(':')?;
                Some((self.rest[..end].trim(), rest))
            }) else {
                return Err(self.error(if end.is_none() {
                    "the closing \"}\" is missing"
                } else {
                    "name:value expected"
                }));
            };
            if name.is_empty() {
                return Err(self.error("a value without a name"));
            }
            let name = name.to_owned();
            self.rest = rest.trim_start();
            let value = if self.rest.starts_with('{') {
                DeviceValue::Map(self.map(depth + 1)?)
            } else {
                let Some(end) = self.rest.find([',', '}']) else {
                    return Err(self.error("the closing \"}\" is missing"));
                };
                let (text, rest) = self.rest.split_at(end);
                if text.contains('{') {
                    return Err(self.error("a brace inside a value"));
                }
                self.rest = rest;
                DeviceValue::Text(text.trim().to_owned())
            };
            entries.push((name, value));
            if !self.take(',') && !self.rest.starts_with('}') {
                return Err(self.error("\",\" or \"}\" expected"));
            }
        }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        for (index, (name, value)) in self.entries.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            match value {
                DeviceValue::Text(text) => write!(f, "{comma}{name}:{text}")?,
                DeviceValue::Map(map) => write!(f, "{comma}{name}:{map}")?,
            }
        }
        f.write_str("}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_nested_braces_and_colons() {
        let disk = "{index:0,iface:virtio,address:{bus:0x00, slot:0x06, type:pci},specParams:{},path:,\
                    macAddr:00:16:3e:35:83:68,type:disk,bootOrder:1}";
        let device = Device::parse(disk).unwrap();
        assert_eq!(device.kind(), Some("disk"));
        assert_eq!(device.boot_order(), Some(1));
        assert_eq!(device.map("address").unwrap().text("slot"), Some("0x06"));
        assert_eq!(device.text("macAddr"), Some("00:16:3e:35:83:68"));
        assert_eq!(device.text("path"), None);
        assert_eq!(device.get("path"), Some(&DeviceValue::Text(String::new())));
        assert_eq!(device.map("specParams"), Some(&Device::default()));
        assert_eq!(device.to_string(), disk.replace(' ', ""));
    }

    #[test]
    fn says_what_is_wrong_and_where() {
        for (text, reason) in [
            ("disk", "must start with"),
            ("{type:disk", "closing"),
            ("{type}", "name:value"),
            ("{:x}", "without a name"),
            ("{a:{b:c}d:e}", "expected"),
            ("{a:b}c", "after the closing brace"),
            ("{a:b{c}}", "a brace inside"),
            ("{a:{a:{a:{a:{a:{a:{a:{a:{a:{}}}}}}}}}}", "more than 8"),
        ] {
            let error = Device::parse(text).unwrap_err().to_string();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }

    fn device() -> impl Strategy<Value = Device> {
        let leaf = prop::collection::vec(("[a-zA-Z]{1,8}", "[!-~]{0,12}"), 0..5).prop_map(|pairs| {
            pairs.iter().fold(Device::default(), |device, (name, value)| device.with(name, value))
        });
        leaf.prop_recursive(3, 12, 3, |inner| {
            prop::collection::vec(("[a-z]{1,6}", inner), 0..3).prop_map(|pairs| {
                pairs.into_iter().fold(Device::default(), |device, (name, map)| device.with_map(&name, map))
            })
        })
    }

    proptest! {
        #[test]
        fn writing_then_reading_is_identity(device in device()) {
            prop_assert_eq!(Device::parse(&device.to_string()), Ok(device));
        }

        #[test]
        fn any_text_is_refused_or_read(text in "[{}:, a-c\u{e9}\\n]{0,64}") {
            if let Ok(device) = Device::parse(&text) {
                prop_assert_eq!(Device::parse(&device.to_string()), Ok(device));
            }
        }
    }
}
