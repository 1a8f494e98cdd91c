//! The description of an `OVF_STORE` volume: which of them is the one to read.
//!
//! JSON, at most 210 bytes, as the engine sets it before and after each upload:
//! `{"Updated":true,"Disk Description":"OVF_STORE","Storage Domains":[{"uuid":"…"}],"Last Updated":"Sat Nov 21 10:11:12
//! UTC 2026","Size":20480}`. `Updated` is false while an upload is under way, and stays so when it failed; then there is
//! no `Size`, and `Last Updated` (null before the first) is that of the upload before.

use serde_json::Value;

/// When an upload was, for comparison only: all volumes are written by one engine, in one time zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Uploaded {
    year: u16,
    month: u8,
    day: u8,
    hour: u8,
    minute: u8,
    second: u8,
}

/// What a description says. Greater is better to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Description {
    /// The last upload was finished.
    pub is_whole: bool,
    /// When.
    pub uploaded: Option<Uploaded>,
}

impl Description {
    /// Reads the description of a volume of the storage domain `domain`; `None` when it is none of an `OVF_STORE` there.
    pub fn parse(text: &str, domain: &str) -> Option<Self> {
        let json: Value = serde_json::from_str(text.trim()).ok()?;
        if json.get("Disk Description")?.as_str()? != "OVF_STORE" {
            return None;
        }
        // A copy of another domain's: the list has objects, and had plain texts.
        let is_elsewhere = json.get("Storage Domains").and_then(Value::as_array).is_some_and(|domains| {
            let mut ids = domains.iter().filter_map(|entry| entry.get("uuid").unwrap_or(entry).as_str());
            !domains.is_empty() && !ids.any(|id| id.eq_ignore_ascii_case(domain))
        });
        if is_elsewhere {
            return None;
        }
        Some(Self {
            is_whole: json.get("Updated").and_then(Value::as_bool).unwrap_or(false),
            uploaded: json.get("Last Updated").and_then(Value::as_str).and_then(Uploaded::parse),
        })
    }
}

impl Uploaded {
    /// Java's `Date.toString()`: day of the week, month, day, time, zone, year.
    fn parse(text: &str) -> Option<Self> {
        const MONTHS: [&str; 12] =
            ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
        let words: Vec<&str> = text.split_whitespace().collect();
        let [_, month, day, time, .., year] = words[..] else { return None };
        let month = MONTHS.iter().position(|name| *name == month)?;
        let mut time = time.split(':').map(str::parse);
        let mut next = || time.next()?.ok();
        Some(Self {
            year: year.parse().ok()?,
            month: u8::try_from(month).ok()?,
            day: day.parse().ok()?,
            hour: next()?,
            minute: next()?,
            second: next()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DOMAIN: &str = "d0e1f2a3-4b5c-4d6e-8f70-8192a3b4c5d6";

    fn text(updated: bool, when: &str, domain: &str) -> String {
        format!(
            "{{\"Updated\":{updated},\"Disk Description\":\"OVF_STORE\",\"Storage Domains\":[{{\"uuid\":\"{domain}\"}}],\
             \"Last Updated\":{when},\"Size\":20480}}"
        )
    }

    fn parse(updated: bool, when: &str) -> Description {
        Description::parse(&text(updated, when, DOMAIN), DOMAIN).unwrap()
    }

    #[test]
    fn whole_ones_come_first_then_newer_ones() {
        let ranked = [
            parse(false, "null"),
            parse(false, "\"Sat Nov 21 10:00:00 UTC 2026\""),
            parse(true, "\"what is this\""),
            parse(true, "\"Thu Dec 31 23:59:59 IST 2025\""),
            parse(true, "\"Fri Apr 03 09:59:59 CEST 2026\""),
            parse(true, "\"Fri Apr 03 10:00:00 CEST 2026\""),
            parse(true, "\"Sat Apr 04 01:00:00 CEST 2026\""),
        ];
        assert!(ranked.is_sorted(), "{ranked:?}");
        assert!(ranked[3].uploaded.is_some() && ranked[2].uploaded.is_none());
    }

    #[test]
    fn other_disks_are_passed_over() {
        for other in [
            "",
            "hosted-engine.metadata",
            "{}",
            "[1]",
            "{\"DiskAlias\":\"he_virtio_disk\",\"DiskDescription\":\"OVF_STORE\"}",
            "{\"Disk Description\":7}",
            &text(true, "null", "e0e1f2a3-4b5c-4d6e-8f70-8192a3b4c5d6"),
        ] {
            assert_eq!(Description::parse(other, DOMAIN), None, "{other}");
        }
        let plain = "{\"Disk Description\":\"OVF_STORE\",\"Storage Domains\":[\"D0E1F2A3-4b5c-4d6e-8f70-8192a3b4c5d6\"]}";
        let bare = Description { is_whole: false, uploaded: None };
        assert_eq!(Description::parse(plain, DOMAIN), Some(bare));
        assert_eq!(Description::parse("{\"Disk Description\":\"OVF_STORE\"}", DOMAIN), Some(bare));
    }

    proptest! {
        #[test]
        fn any_text_never_panics(text in "\\PC{0,60}", when in "[ A-Za-z0-9:]{0,40}") {
            prop_assert_eq!(Description::parse(&text, DOMAIN), None);
            parse(true, &format!("\"{when}\""));
        }
    }
}
