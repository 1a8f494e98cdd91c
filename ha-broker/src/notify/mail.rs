//! From a filled-in template to a mail as it goes over the wire.
//!
//! A template starts with header lines and goes on, after an empty line, with the body. It is split before anything is
//! filled in, and values lose their control characters in headers: no value can add or end a header.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use clock::Wall;
use ha_config::EmailConf;
use lettre::Address;
use lettre::message::header::{ContentType, Date, HeaderName, HeaderValue, Headers, MIME_VERSION_1_0};
use lettre::message::{Mailbox, SinglePart};

use super::template::{TemplateError, render};

/// Longest value that is filled in, in characters. Longer ones are cut.
const MAX_VALUE: usize = 10_000;

/// Longest value in a header, in characters.
const MAX_HEADER_VALUE: usize = 300;

/// Why a mail cannot be written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MailError {
    /// The template is wrong.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// An address of broker.conf is none.
    #[error("{key} in broker.conf: {value:?} is not a mail address")]
    Address {
        /// The key.
        key: &'static str,
        /// The address as written.
        value: String,
    },
    /// There is nobody to send to.
    #[error("destination-emails in broker.conf is empty")]
    Nobody,
}

/// A mail that is ready to go, and the server to give it to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mail {
    /// Name or address of the mail server.
    pub server: String,
    /// Its port.
    pub port: u16,
    /// Time for each of its answers.
    pub timeout: Duration,
    /// Who sends.
    pub from: Address,
    /// Who gets it; at least one.
    pub to: Vec<Address>,
    /// Headers and body, with CRLF.
    pub message: Vec<u8>,
}

impl Mail {
    /// Fills in the template. `now` becomes the mail's date.
    pub fn compose(
        conf: &EmailConf,
        template: &str,
        values: &BTreeMap<String, String>,
        now: Wall,
    ) -> Result<Self, MailError> {
        let (lines, body) = split(template);
        let mut headers = Headers::new();
        let mut kind = ContentType::TEXT_PLAIN;
        for (name, value) in lines {
            let value = render(&value, values, header_text)?;
            // Ours: the date, and how the body is encoded.
            if ["date", "mime-version", "content-transfer-encoding"].contains(&name.to_lowercase().as_str()) {
                continue;
            }
            if name.eq_ignore_ascii_case("content-type") {
                kind = ContentType::parse(&value).unwrap_or(kind);
                continue;
            }
            if let Ok(name) = HeaderName::new_from_ascii(name) {
                headers.insert_raw(HeaderValue::new(name, value));
            }
        }
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(now.0).unwrap_or(0));
        headers.set(Date::from(now));
        headers.set(MIME_VERSION_1_0);

        let body = SinglePart::builder().header(kind).body(render(&body, values, body_text)?);
        let mut message = headers.to_string().into_bytes();
        message.extend(body.formatted());

        let to = conf.destination_emails.iter().map(|text| address("destination-emails", text));
        let to = to.collect::<Result<Vec<_>, _>>()?;
        if to.is_empty() {
            return Err(MailError::Nobody);
        }
        Ok(Self {
            server: conf.smtp_server.clone(),
            port: conf.smtp_port,
            timeout: conf.smtp_timeout,
            from: address("source-email", &conf.source_email)?,
            to,
            message,
        })
    }
}

/// `user@host`, or `Name <user@host>`.
fn address(key: &'static str, text: &str) -> Result<Address, MailError> {
    let mailbox: Mailbox =
        text.trim().parse().map_err(|_| MailError::Address { key, value: text.to_owned() })?;
    Ok(mailbox.email)
}

/// The template's headers, with continued lines joined, and its body. A line that is no header starts the body.
fn split(template: &str) -> (Vec<(String, String)>, String) {
    let mut headers: Vec<(String, String)> = Vec::new();
    let mut rest = template;
    while !rest.is_empty() {
        let (line, after) = rest.split_once('\n').unwrap_or((rest, ""));
        let line = line.trim_end_matches('\r');
        if line.is_empty() {
            rest = after;
            break;
        }
        if let (true, Some((_, value))) = (line.starts_with([' ', '\t']), headers.last_mut()) {
            value.push(' ');
            value.push_str(line.trim());
        } else if let Some((name, value)) = line.split_once(':').filter(|(name, _)| is_name(name)) {
            headers.push((name.to_owned(), value.trim().to_owned()));
        } else {
            break;
        }
        rest = after;
    }
    (headers, rest.to_owned())
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= 70 && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
}

/// One line without control characters, not too long.
fn header_text(value: &str) -> String {
    value.chars().take(MAX_HEADER_VALUE).map(|c| if is_control(c) { ' ' } else { c }).collect()
}

/// Lines as they are, other control characters (escape sequences) as U+FFFD.
fn body_text(value: &str) -> String {
    let value = value.replace("\r\n", "\n").replace('\r', "\n");
    value
        .chars()
        .take(MAX_VALUE)
        .map(|c| if is_control(c) && !matches!(c, '\n' | '\t') { char::REPLACEMENT_CHARACTER } else { c })
        .collect()
}

/// Control characters, and the two of Unicode that end a line.
fn is_control(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}' | '\u{2029}')
}
