//! Writing a host block, byte for byte as existing readers expect it. No clock: times come as data.
//!
//! A host that cannot publish looks dead to the others, so that encoding gives way instead of failing: a long
//! reason is shortened, and characters of a hostname that would break the record are replaced. The record is pure
//! ASCII, because the Python reader cuts decoded text, not bytes, at 512.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Write as _;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::host_block::EMPTY_CRC;
use crate::text::{printable, shorten};
use crate::{BLOCK_SIZE, CRITICAL_SIZE, EngineStatus, FORMAT_VERSION, HostId, Score, python};

/// Longest host name that Linux allows is 64 bytes, a full domain name 253; what is beyond 255 is cut.
const MAX_HOSTNAME: usize = 255;
/// Bytes of the part for people.
const ROOM: usize = BLOCK_SIZE - CRITICAL_SIZE;

/// Everything that a writer says in its block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostRecord {
    /// Monotonic seconds at the start of the collection.
    pub host_ts: i64,
    /// The same moment for people, as [`ctime`] gives it.
    pub host_time: String,
    /// Whose block.
    pub host_id: HostId,
    /// Its score.
    pub score: Score,
    /// What it knows about the engine VM. A long reason is shortened to fit.
    pub engine_status: EngineStatus,
    /// Its name; see [`HostRecord::published_hostname`].
    pub hostname: String,
    /// Local maintenance.
    pub maintenance: bool,
    /// The agent stops now, cleanly.
    pub stopped: bool,
    /// Whether the configuration is on shared storage.
    pub conf_on_shared_storage: bool,
    /// Monotonic seconds of the last good vm.conf refresh.
    pub vm_conf_refresh_ts: i64,
    /// The same moment for people, as [`ctime`] gives it.
    pub vm_conf_refresh_time: String,
    /// State name, for example `EngineUp`.
    pub state: String,
    /// When the state's running timer fires, as [`ctime`] gives it.
    pub timeout: Option<String>,
    /// More `key=value` lines for people, sorted in among the state's own. They never reach the critical record.
    pub notes: BTreeMap<String, String>,
}

/// Why a block cannot be written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// A note's key would break its line, or is one of the state's own keys.
    #[error(
        "{key:?} cannot be a key of a host block's notes: it must be new, not empty, and printable without `=`"
    )]
    NoteKey {
        /// The key.
        key: String,
    },
    /// The record does not fit although everything that may be shortened was.
    #[error("the record of host {host} has {len} bytes, and only {CRITICAL_SIZE} fit")]
    TooLong {
        /// Whose record.
        host: HostId,
        /// Its length.
        len: usize,
    },
}

impl HostRecord {
    /// The name as it goes into the record: characters outside printable ASCII, and `|`, become `_`; an empty name
    /// becomes `unnamed`; no more than 255 characters.
    pub fn published_hostname(&self) -> String {
        let allowed = |c: char| if matches!(c, ' '..='~') && c != '|' { c } else { '_' };
        let name: String = self.hostname.chars().map(allowed).take(MAX_HOSTNAME).collect();
        if name.is_empty() { "unnamed".to_owned() } else { name }
    }

    /// The block's bytes: a multiple of [`CRITICAL_SIZE`], at most [`BLOCK_SIZE`]. What follows in the block on
    /// storage has no meaning.
    ///
    /// # Errors
    /// [`EncodeError::NoteKey`]; [`EncodeError::TooLong`] is there so that a mistake here cannot overwrite the
    /// part for people.
    pub fn encode(&self) -> Result<Vec<u8>, EncodeError> {
        let mut block = self.critical()?.into_bytes();
        block.resize(CRITICAL_SIZE, 0);
        block.extend_from_slice(self.lines()?.as_bytes());
        block.resize(block.len().next_multiple_of(CRITICAL_SIZE), 0);
        Ok(block)
    }

    fn critical(&self) -> Result<String, EncodeError> {
        let room = CRITICAL_SIZE.saturating_sub(self.record("", EMPTY_CRC).len());
        let status = status_field(&self.engine_status, room);
        let blank = self.record(&status, EMPTY_CRC);
        let crc = format!("{:08x}", crc32fast::hash(blank.as_bytes()));
        let record = self.record(&status, &crc);
        if record.len() > CRITICAL_SIZE {
            return Err(EncodeError::TooLong { host: self.host_id, len: record.len() });
        }
        Ok(record)
    }

    fn record(&self, status: &str, crc: &str) -> String {
        format!(
            "{FORMAT_VERSION}|{FORMAT_VERSION}|{}|{}|{}|{status}|{}|{}|{}|{crc}|{}|{}",
            self.host_ts,
            self.host_id,
            self.score,
            self.published_hostname(),
            u8::from(self.maintenance),
            u8::from(self.stopped),
            u8::from(self.conf_on_shared_storage),
            self.vm_conf_refresh_ts,
        )
    }

    /// The part for people. Lines that do not fit are left out, last ones first.
    fn lines(&self) -> Result<String, EncodeError> {
        let mut state = BTreeMap::from([
            ("maintenance", Cow::Borrowed(python::bool_word(self.maintenance))),
            ("state", one_line(&self.state)),
            ("stopped", Cow::Borrowed(python::bool_word(self.stopped))),
        ]);
        if let Some(timeout) = &self.timeout {
            state.insert("timeout", one_line(timeout));
        }
        for (key, value) in &self.notes {
            let plain = !key.is_empty() && key.chars().all(|c| matches!(c, ' '..='~') && c != '=');
            if !plain || key == "timeout" || state.contains_key(key.as_str()) {
                return Err(EncodeError::NoteKey { key: key.clone() });
            }
            state.insert(key, one_line(value));
        }
        let mut text = format!(
            "metadata_parse_version={FORMAT_VERSION}\nmetadata_feature_version={FORMAT_VERSION}\n\
             timestamp={} ({})\nhost-id={}\nscore={}\nvm_conf_refresh_time={} ({})\nconf_on_shared_storage={}\n",
            self.host_ts,
            one_line(&self.host_time),
            self.host_id,
            self.score,
            self.vm_conf_refresh_ts,
            one_line(&self.vm_conf_refresh_time),
            python::bool_word(self.conf_on_shared_storage),
        );
        for (key, value) in state {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{key}={value}");
        }
        if text.len() > ROOM {
            // Cut after the last line that fits; a newline is a character boundary.
            let end = text.as_bytes()[..ROOM].iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
            text.truncate(end);
        }
        Ok(text)
    }
}

/// The status as JSON of at most `room` bytes. `|` is written as its JSON escape, because readers split the record
/// at it before they look at the JSON.
fn status_field(status: &EngineStatus, room: usize) -> String {
    let spell = |status: &EngineStatus| {
        // A struct of strings and unit variants is always JSON.
        python::to_json(status).unwrap_or_else(|_| "null".to_owned()).replace('|', "\\u007c")
    };
    let whole = spell(status);
    if whole.len() <= room {
        return whole;
    }
    let mut short = status.clone();
    let fits = |status: &EngineStatus| Some(spell(status)).filter(|text| text.len() <= room);
    // An escape makes up to twelve bytes of a character, so lengths are tried, longest first.
    if let Some(reason) = &status.reason {
        for len in (4..=reason.chars().count().min(room)).rev() {
            short.reason = Some(shorten(reason, len).into_owned());
            if let Some(text) = fits(&short) {
                return text;
            }
        }
    }
    short.reason = None;
    for len in (0..=status.detail.chars().count().min(room)).rev() {
        short.detail = shorten(&status.detail, len).into_owned();
        if let Some(text) = fits(&short) {
            return text;
        }
    }
    "null".to_owned()
}

/// A value on one line, control characters made visible.
fn one_line(text: &str) -> Cow<'_, str> {
    Cow::Owned(printable(text.as_bytes(), &[]))
}

/// A wall-clock second as C's `ctime` prints it, without the newline: `Sat Nov  1 02:12:57 2026`. Seconds outside
/// the calendar's range give its first or last second.
pub fn ctime(wall_secs: i64, zone: &TimeZone) -> String {
    let nearest = if wall_secs < 0 { Timestamp::MIN } else { Timestamp::MAX };
    let time = Timestamp::from_second(wall_secs).unwrap_or(nearest);
    zone.to_datetime(time).strftime("%a %b %e %H:%M:%S %Y").to_string()
}
