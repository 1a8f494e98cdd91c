//! The text that an inquiry gives back: the resources that a process holds.
//!
//! Form: resources separated by one space, each
//! `<lockspace>:<resource>:<path>:<offset>[:<path>:<offset>…]:<lver>`, with `SH` for the version of a shared
//! lease, and `\` before a `:` or space inside a path. One NUL at the end.

use super::{MAX_DISKS, WireError};
use crate::model::{Disk, Resource, ResourceHeld};
use crate::names::{DiskPath, LockspaceName, ResourceName};

/// Splits at each unescaped `separator`; escapes stay in place.
fn split_unescaped(text: &str, separator: char) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut start = 0;
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        if escaped {
            escaped = false;
        } else if c == '\\' {
            escaped = true;
        } else if c == separator {
            parts.push(&text[start..at]);
            start = at + c.len_utf8();
        }
    }
    parts.push(&text[start..]);
    parts
}

fn unescape(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        plain.extend(if c == '\\' { chars.next() } else { Some(c) });
    }
    plain
}

fn resource_held(text: &str) -> Result<ResourceHeld, WireError> {
    let bad = |why: &str| WireError(format!("it lists the resource '{}', {why}", text.escape_debug()));
    let fields = split_unescaped(text, ':');
    let [lockspace, name, places @ .., lver] = fields.as_slice() else {
        return Err(bad("which has fewer than three fields"));
    };
    if places.is_empty() || places.len() % 2 != 0 || places.len() / 2 > MAX_DISKS {
        return Err(bad("which does not have one to four pairs of path and offset"));
    }
    let disks = places
        .chunks_exact(2)
        .map(|pair| {
            let path = DiskPath::new(unescape(pair[0])).map_err(|e| bad(&e.to_string()))?;
            let offset = pair[1].parse().map_err(|_| bad("which has an offset that is no number"))?;
            Ok(Disk { path, offset })
        })
        .collect::<Result<_, _>>()?;
    let lver = match *lver {
        "SH" => None,
        number => Some(number.parse().map_err(|_| bad("which has a version that is no number"))?),
    };
    let resource = Resource {
        lockspace: LockspaceName::new(*lockspace).map_err(|e| bad(&e.to_string()))?,
        name: ResourceName::new(*name).map_err(|e| bad(&e.to_string()))?,
        disks,
    };
    Ok(ResourceHeld { resource, lver })
}

/// The resources in the body of an inquiry; empty for an empty body.
pub fn resources_held(body: &[u8]) -> Result<Vec<ResourceHeld>, WireError> {
    let end = body.iter().position(|b| *b == 0).unwrap_or(body.len());
    let text = std::str::from_utf8(&body[..end])
        .map_err(|_| WireError("the list of resources is not text".to_owned()))?;
    if text.is_empty() {
        return Ok(Vec::new());
    }
    split_unescaped(text, ' ').into_iter().map(resource_held).collect()
}
