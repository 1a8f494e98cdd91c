//! The VM's consoles, as the live description has them.

use std::net::IpAddr;
use std::time::Duration;

use clock::{Clock as _, SystemClock, Wall};
use quick_xml::events::{BytesStart, Event};
use quick_xml::reader::Reader;
use quick_xml::writer::Writer;
use virt::domain::Domain;
use virt::sys as c;

use super::link::QUESTION;
use super::look::{Inner, failed};
use crate::port::{ConsoleAddress, ConsoleKind, VmError};

const PASSWORD: &str = "set the console password";
const CONSOLE: &str = "tell its console";

/// A `<graphics>`, with its attributes as they stand there.
#[derive(Clone, PartialEq, Eq)]
struct Graphics {
    attributes: Vec<(String, String)>,
    /// What is in it, as text.
    inside: String,
    /// `address` of its `<listen>`.
    listen: Option<String>,
}

/// Secrets are asked for with a description: they stay out of every error.
fn unreadable(action: &'static str) -> VmError {
    failed(action, "libvirt's description of it cannot be read")
}

/// All `<graphics>` of a domain.
fn graphics(xml: &str) -> Option<Vec<Graphics>> {
    let mut reader = Reader::from_str(xml);
    let mut depth = 0_usize;
    let mut found: Vec<Graphics> = Vec::new();
    let mut inside: Option<Writer<Vec<u8>>> = None;
    // Other elements of the domain, as its metadata, may hold what has the same name.
    let mut is_among_devices = false;
    loop {
        let event = reader.read_event().ok()?;
        match &event {
            Event::Eof => return Some(found),
            Event::Start(start) | Event::Empty(start) => {
                let is_empty = matches!(event, Event::Empty(_));
                let name = start.name();
                if depth == 1 && !is_empty {
                    is_among_devices = name.as_ref() == b"devices";
                }
                if depth == 2 && is_among_devices && name.as_ref() == b"graphics" {
                    let attributes = attributes(start)?;
                    found.push(Graphics { attributes, inside: String::new(), listen: None });
                    inside = (!is_empty).then(|| Writer::new(Vec::new()));
                } else if let (Some(writer), Some(graphics)) = (&mut inside, found.last_mut()) {
                    writer.write_event(event.clone()).ok()?;
                    if depth == 3 && name.as_ref() == b"listen" && graphics.listen.is_none() {
                        let all = attributes(start)?;
                        graphics.listen =
                            all.into_iter().find(|(name, _)| name == "address").map(|(_, value)| value);
                    }
                }
                if !is_empty {
                    depth += 1;
                }
            }
            Event::End(end) => {
                depth = depth.checked_sub(1)?;
                if depth == 2 && end.name().as_ref() == b"graphics" {
                    if let (Some(writer), Some(graphics)) = (inside.take(), found.last_mut()) {
                        graphics.inside = String::from_utf8(writer.into_inner()).ok()?;
                    }
                } else if let Some(writer) = &mut inside {
                    writer.write_event(event.clone()).ok()?;
                }
            }
            other => {
                if let Some(writer) = &mut inside {
                    writer.write_event(other.clone()).ok()?;
                }
            }
        }
    }
}

fn attributes(start: &BytesStart<'_>) -> Option<Vec<(String, String)>> {
    start
        .attributes()
        .map(|attribute| {
            let attribute = attribute.ok()?;
            let name = String::from_utf8(attribute.key.as_ref().to_vec()).ok()?;
            Some((name, attribute.unescape_value().ok()?.into_owned()))
        })
        .collect()
}

impl Graphics {
    fn get(&self, name: &str) -> Option<&str> {
        self.attributes.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The same with this password until then (`YYYY-MM-DDThh:mm:ss`, UTC). Who is connected stays so.
    fn with_password(&self, password: &str, until: &str) -> String {
        let mut start = BytesStart::new("graphics");
        let is_kept = |name: &str| !matches!(name, "passwd" | "passwdValidTo" | "connected");
        for (name, value) in self.attributes.iter().filter(|(name, _)| is_kept(name)) {
            start.push_attribute((name.as_str(), value.as_str()));
        }
        start.push_attribute(("passwd", password));
        start.push_attribute(("passwdValidTo", until));
        start.push_attribute(("connected", "keep"));
        let mut writer = Writer::new(Vec::new());
        writer.write_event(Event::Start(start.borrow())).expect("a vector takes every write");
        let begin = String::from_utf8_lossy(&writer.into_inner()).into_owned();
        format!("{begin}{}</graphics>", self.inside)
    }

    fn address(&self) -> Option<ConsoleAddress> {
        let kind = self.get("type").filter(|kind| matches!(*kind, "vnc" | "spice"))?;
        if let Some(socket) = self.get("socket") {
            return Some(ConsoleAddress { kind: kind.to_owned(), address: socket.to_owned() });
        }
        // -1: not known yet.
        let port = |name| self.get(name).filter(|port| port.parse::<u16>().is_ok_and(|port| port != 0));
        let port = port("port").or_else(|| port("tlsPort"))?;
        let host = match self.listen.as_deref().or_else(|| self.get("listen")) {
            None | Some("" | "0.0.0.0" | "::") => "localhost",
            Some(address) => address,
        };
        let is_v6 = host.parse::<IpAddr>().is_ok_and(|address| address.is_ipv6());
        let address = if is_v6 { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
        Some(ConsoleAddress { kind: kind.to_owned(), address })
    }
}

/// A time in the form of `passwdValidTo`: UTC, to the second.
fn utc(wall: Wall, later: Duration) -> Option<String> {
    let seconds = wall.0.checked_add_unsigned(later.as_secs())?;
    let time = jiff::Timestamp::from_second(seconds).ok()?;
    Some(time.strftime("%Y-%m-%dT%H:%M:%S").to_string())
}

impl Inner {
    async fn graphics(&self, action: &'static str) -> Result<Vec<Graphics>, VmError> {
        let xml = self.command(action, QUESTION, |domain: &Domain| domain.get_xml_desc(0)).await?;
        let found = graphics(&xml).ok_or_else(|| unreadable(action))?;
        let known = |graphics: &Graphics| matches!(graphics.get("type"), Some("vnc" | "spice"));
        let found: Vec<Graphics> = found.into_iter().filter(known).collect();
        if found.is_empty() {
            return Err(failed(action, "it has no graphical one"));
        }
        Ok(found)
    }

    /// On every screen that it has.
    pub async fn set_console_password(&self, password: &str, valid: Duration) -> Result<(), VmError> {
        let bad = |c: char| c.is_control();
        if password.is_empty() || password.contains(bad) {
            return Err(failed(PASSWORD, "it must not be empty and must not have control characters"));
        }
        let valid = valid.max(Duration::from_secs(1));
        for graphics in self.graphics(PASSWORD).await? {
            let until = utc(SystemClock.wall(), valid)
                .ok_or_else(|| failed(PASSWORD, "it would be valid for longer than there are dates"))?;
            let xml = graphics.with_password(password, &until);
            let update = move |domain: &Domain| domain.update_device_flags(&xml, c::VIR_DOMAIN_AFFECT_LIVE);
            let set = self.command(PASSWORD, QUESTION, update).await;
            set.map_err(|error| error.without(password))?;
        }
        Ok(())
    }

    pub async fn console(&self, kind: ConsoleKind) -> Result<ConsoleAddress, VmError> {
        match kind {
            ConsoleKind::Graphical => {
                let found = self.graphics(CONSOLE).await?;
                found
                    .iter()
                    .find_map(Graphics::address)
                    .ok_or_else(|| failed(CONSOLE, "its screen has no port yet; ask again in some seconds"))
            }
            ConsoleKind::Serial => {
                self.see().await.map_err(|trouble| trouble.to_error(CONSOLE))?.ok_or(VmError::NotRunning)?;
                let detail = format!(
                    "libvirt itself has the serial one; reach it by: virsh -c '{}' console {}",
                    self.settings.uri, self.settings.uuid
                );
                Err(failed(CONSOLE, detail))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const XML: &str = "<domain><metadata><graphics type='no'/></metadata><devices>\
        <graphics type='vnc' port='5901' autoport='yes' listen='127.0.0.1' passwd='old' passwdValidTo='x'>\
        <listen type='address' address='127.0.0.1'/></graphics><graphics type='spice' port='-1'/></devices></domain>";

    #[test]
    fn consoles_are_found_with_their_addresses() {
        let found = graphics(XML).unwrap();
        assert_eq!(found.len(), 2);
        let address = found[0].address().unwrap();
        assert_eq!((address.kind.as_str(), address.address.as_str()), ("vnc", "127.0.0.1:5901"));
        assert!(found[1].address().is_none());
        assert!(graphics("<domain><devices></domain>").is_none());
        assert_eq!(graphics("<domain/>").unwrap().len(), 0);
    }

    #[test]
    fn a_new_password_changes_nothing_else() {
        let found = graphics(XML).unwrap();
        assert_eq!(
            found[0].with_password("a<\"&", "2026-01-02T03:04:05"),
            "<graphics type=\"vnc\" port=\"5901\" autoport=\"yes\" listen=\"127.0.0.1\" passwd=\"a&lt;&quot;&amp;\" \
             passwdValidTo=\"2026-01-02T03:04:05\" connected=\"keep\">\
             <listen type='address' address='127.0.0.1'/></graphics>"
        );
        assert_eq!(utc(Wall(1_767_323_045), Duration::from_mins(1)).unwrap(), "2026-01-02T03:05:05");
        assert_eq!(utc(Wall(i64::MAX), Duration::from_mins(1)), None);
    }
}
