//! Reading answer files.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use ha_config::Secret;
use ha_config::secret::is_secret_key;
use ha_config::text::{BOOL_EXPECTED, nearest, parse_bool};

use super::former::{self, former_keys};
use super::{Answers, AnswersError, Value};
use crate::deploy::questions::{self, keys};

/// More bytes than any answer file has.
const MAX_BYTES: u64 = 1 << 20;
/// Permissions that let others than the owner read.
const OTHERS_READ: u32 = 0o044;
/// Keys of the hosted engine begin so; others belong to other tools.
const OURS: &str = "OVEHOSTED_";

/// What was read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Loaded {
    /// The answers, former keys by their present names.
    pub answers: Answers,
    /// What the operator should look at.
    pub warnings: Vec<String>,
}

/// Reads answer files, one after the other; within a section later ones win.
///
/// # Errors
/// [`AnswersError`], of the first line that is wrong.
pub fn load(paths: &[PathBuf]) -> Result<Loaded, AnswersError> {
    let mut files = Vec::new();
    for path in paths {
        let failed = |source| AnswersError::Io { path: path.clone(), source };
        let file = File::open(path).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        let not_one = |why: String| AnswersError::NotOne { path: path.clone(), why };
        if !metadata.is_file() {
            return Err(not_one("it is no regular file".to_owned()));
        }
        let mut bytes = Vec::new();
        file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(failed)?;
        if bytes.len() as u64 > MAX_BYTES {
            return Err(not_one(format!("it is longer than {MAX_BYTES} bytes: no answer file")));
        }
        let text =
            String::from_utf8(bytes).map_err(|error| not_one(format!("it is not UTF-8 text: {error}")))?;
        files.push((path.as_path(), metadata.permissions().mode() & 0o7777, text));
    }
    merge(files.iter().map(|(path, mode, text)| (*path, *mode, text.as_str())))
}

/// The sections, the strongest last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Section {
    Default,
    Init,
    Override,
    Enforce,
}

impl Section {
    fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "environment:default" => Self::Default,
            "environment:init" => Self::Init,
            "environment:override" => Self::Override,
            "environment:enforce" => Self::Enforce,
            _ => return None,
        })
    }
}

/// `key=…` with its further lines.
#[derive(Debug)]
struct Entry {
    section: Section,
    line: usize,
    indent: usize,
    key: String,
    value: String,
}

/// The answers of texts with their files' names and permissions.
pub(super) fn merge<'a>(
    files: impl IntoIterator<Item = (&'a Path, u32, &'a str)>,
) -> Result<Loaded, AnswersError> {
    let mut best: BTreeMap<String, (Section, Value)> = BTreeMap::new();
    let mut warnings = Vec::new();
    for (path, mode, text) in files {
        for entry in entries(path, text)?.into_iter().filter(|entry| entry.key.starts_with(OURS)) {
            let wrong = |why| AnswersError::Line { path: path.to_owned(), line: entry.line, why };
            let is_secret = is_secret(&entry.key);
            let mut value =
                parse(&entry.value, is_secret).map_err(|why| wrong(format!("{}: {why}", entry.key)))?;
            if let (true, Some(text)) = (is_secret, value.typed().filter(|text| !text.is_empty())) {
                if mode & OTHERS_READ != 0 {
                    let (path, line, key) = (path.to_owned(), entry.line, entry.key);
                    return Err(AnswersError::Exposed { path, line, key, mode });
                }
                value = Value::Secret(Secret::new(text));
            }
            if !is_known(&entry.key) {
                let meant = nearest(&entry.key, questions::all().map(|question| question.key));
                let meant = meant.map(|key| format!("; is {key} meant?")).unwrap_or_default();
                warnings.push(format!(
                    "{}:{}: {} is no key of the hosted engine{meant}",
                    path.display(),
                    entry.line,
                    entry.key
                ));
            }
            let stronger = best.get(&entry.key).is_some_and(|(section, _)| *section > entry.section);
            if !stronger {
                best.insert(entry.key, (entry.section, value));
            }
        }
    }
    let mut answers = Answers { values: best.into_iter().map(|(key, (_, value))| (key, value)).collect() };
    former::rename(&mut answers, &mut warnings);
    Ok(Loaded { answers, warnings })
}

fn is_known(key: &str) -> bool {
    questions::find(key).is_some()
        || keys::CONFIRMATIONS.contains(&key)
        || former_keys().any(|(former, _)| former == key)
}

fn is_secret(key: &str) -> bool {
    questions::find(key).is_some_and(questions::Question::is_secret)
        // A user's name beside a password, a time, a question about it.
        || (questions::find(key).is_none()
            && (is_secret_key(key) || key.ends_with("Pwd"))
            && !["passwdValiditySecs", "interactiveAdminPassword"].iter().any(|end| key.ends_with(end)))
}

/// `type:value`. The error does not show a secret.
fn parse(text: &str, is_secret: bool) -> Result<Value, String> {
    let shown = |text: &str| if is_secret { "its value".to_owned() } else { format!("{text:?}") };
    let Some((kind, text)) = text.split_once(':') else {
        return Err(format!(
            "{} has no type, for example str:{}",
            shown(text),
            if is_secret { "…" } else { text }
        ));
    };
    let text = text.replace("%%", "%");
    match kind {
        "str" => Ok(Value::Text(text)),
        "int" => match text.trim().parse() {
            Ok(number) => Ok(Value::Integer(number)),
            Err(_) => Err(format!("{} is no whole number", shown(&text))),
        },
        "bool" => parse_bool(&text)
            .map(Value::Bool)
            .ok_or_else(|| format!("{} must be {BOOL_EXPECTED}", shown(&text))),
        "none" => Ok(Value::None),
        "multi-str" | "list" => {
            Ok(Value::Lines(text.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()))
        }
        _ => Err(format!(
            "{} is no type: str, int, bool, none or multi-str",
            // A password without a type would stand here.
            if is_secret { "what stands before the colon".to_owned() } else { format!("{kind:?}") }
        )),
    }
}

/// The lines of the sections that count, put together.
fn entries(path: &Path, text: &str) -> Result<Vec<Entry>, AnswersError> {
    let mut entries: Vec<Entry> = Vec::new();
    let mut section: Option<Option<Section>> = None;
    // Of the entry that further lines belong to; an entry of another section is read, and dropped.
    let mut open: Option<Entry> = None;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    for (number, raw) in text.lines().enumerate() {
        let line = number + 1;
        let content = raw.trim();
        if content.is_empty() || content.starts_with(['#', ';']) {
            continue;
        }
        let indent = raw.len() - raw.trim_start().len();
        if let Some(entry) = open.as_mut().filter(|entry| indent > entry.indent) {
            entry.value.push('\n');
            entry.value.push_str(content);
            continue;
        }
        entries.extend(open.take());
        let wrong = |why: &str| AnswersError::Line { path: path.to_owned(), line, why: why.to_owned() };
        if let Some(name) = content.strip_prefix('[') {
            let name =
                name.strip_suffix(']').ok_or_else(|| wrong("the section's name does not end with ]"))?;
            section = Some(Section::from_name(name));
            continue;
        }
        let section = section
            .ok_or_else(|| wrong("a line before the first section: [environment:default] is missing"))?;
        let (key, value) = content
            .split_once(['=', ':'])
            .ok_or_else(|| wrong("neither a section, nor a comment, nor key=type:value"))?;
        let (key, value) = (key.trim_end().to_owned(), value.trim_start().to_owned());
        if key.is_empty() {
            return Err(wrong("there is no key before the ="));
        }
        // A section of others: its further lines must not be taken for keys.
        let known = section.unwrap_or(Section::Default);
        let key = if section.is_some() { key } else { String::new() };
        open = Some(Entry { section: known, line, indent, key, value });
    }
    entries.extend(open);
    Ok(entries)
}
